//! Layers into snapshots, as containerd's own clients do it.
//!
//! Owns the chain of snapshots that an image's layers unpack to. Always true: a snapshot gets the name of its chain only after containerd
//! unpacked the layer and the result had the diff ID that the config says. After a crash there may be snapshots that were
//! being written; they have names of their own and go with their lease.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::watch;
use tonic::Code;

use super::api::{
    AddToLease, Apply, CleanUp, CommitSnapshot, Content, Descriptor, FieldMask, Labels, Mount, Mounts, PrepareSnapshot, RemoveSnapshot,
    Resource, UpdateContent,
};
use super::channel::{Channel, unless};
use super::{labels, look};
use crate::archive::ArchiveError;
use crate::digest::Digest;
use crate::engine::EngineError;
use crate::event::{Event, Tell};
use crate::oci::{self, Compression, Image};

/// The names of the snapshots: of each layer on top of all those below it
/// ([image-spec, config.md, Layer ChainID](https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid)).
pub(super) fn chains(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut below: Option<Digest> = None;
    let next = |diff_id: &Digest| {
        let chain = below.map_or(*diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes()));
        below = Some(chain);
        chain
    };
    diff_ids.iter().map(next).collect()
}

/// Unpacks layers with one snapshotter.
pub(super) struct Unpacker<'a> {
    pub(super) channel: Channel,
    pub(super) snapshotter: &'a str,
    pub(super) lease: &'a str,
    pub(super) tell: &'a Tell<'a>,
}

impl Unpacker<'_> {
    /// Unpacks what is not unpacked yet, each layer as soon as it arrived: `arrived` is the number of those that have.
    pub(super) async fn unpack(&self, image: &Image, mut arrived: watch::Receiver<usize>) -> Result<(), EngineError> {
        let chains = chains(&image.diff_ids);
        for n in self.there(&chains).await?..chains.len() {
            // An error means that nobody brings any more layers, and why is told by who did.
            let _ = arrived.wait_for(|arrived| *arrived > n).await;
            let below = n.checked_sub(1).map(|below| chains[below]);
            let layer = &image.layers[n];
            self.layer(layer, &image.diff_ids[n], below, &chains[n]).await?;
            let (engine, bytes) = (self.channel.place().kind.to_string(), layer.size);
            (self.tell)(Event::LoadUnpacking { engine, layer: chains[n].to_string(), bytes, of: bytes });
        }
        Ok(())
    }

    /// How many snapshots are there from the base up. They stay for as long as the lease.
    async fn there(&self, chains: &[Digest]) -> Result<usize, EngineError> {
        let there = try_join_all(chains.iter().map(|chain| look::has_snapshot(&self.channel, self.snapshotter, chain))).await?;
        let Some(top) = there.iter().rposition(|there| *there) else { return Ok(0) };
        let resource = Some(Resource { id: chains[top].to_string(), kind: format!("snapshots/{}", self.snapshotter) });
        self.channel.call(AddToLease { lease: self.lease.to_owned(), resource }).await?;
        // It may have gone before it was leased. Those below it may be there all the same; they are then met one by one.
        Ok(if look::has_snapshot(&self.channel, self.snapshotter, &chains[top]).await? { top + 1 } else { 0 })
    }

    async fn layer(&self, layer: &oci::Descriptor, diff_id: &Digest, below: Option<Digest>, chain: &Digest) -> Result<(), EngineError> {
        let key = format!("extract-{} {chain}", self.lease);
        let prepare = PrepareSnapshot {
            snapshotter: self.snapshotter.to_owned(),
            key: key.clone(),
            parent: below.map(|below| below.to_string()).unwrap_or_default(),
            labels: Labels::from([(labels::SNAPSHOT_REF.to_owned(), chain.to_string())]),
        };
        let mounts = match self.prepare(prepare).await {
            // Some snapshotters have layers that nobody unpacked.
            Err(EngineError::Denied { code: Code::AlreadyExists, .. })
                if look::has_snapshot(&self.channel, self.snapshotter, chain).await? =>
            {
                return Ok(());
            }
            prepared => prepared?.mounts,
        };
        let done = self.fill(layer, diff_id, mounts, &key, chain).await;
        if !matches!(done, Ok(Some(()))) {
            let remove = RemoveSnapshot { snapshotter: self.snapshotter.to_owned(), key };
            // What cannot be removed goes with the lease.
            let _ = self.channel.call(remove).await;
        }
        done?;
        let content = Content {
            digest: layer.digest.to_string(),
            labels: Labels::from([(labels::UNCOMPRESSED.to_owned(), diff_id.to_string())]),
            ..Content::default()
        };
        let mask = Some(FieldMask { paths: vec![format!("labels.{}", labels::UNCOMPRESSED)] });
        self.channel.call(UpdateContent { content: Some(content), mask }).await.map(|_| ())
    }

    /// Makes room for a layer. A containerd that was killed may have left a folder that it takes for the room of another; it is
    /// cleared away by containerd itself, but not before somebody asks for it.
    async fn prepare(&self, prepare: PrepareSnapshot) -> Result<Mounts, EngineError> {
        match self.channel.call(prepare.clone()).await {
            Err(EngineError::Denied { code: Code::Unknown, .. }) => {
                // Where it cannot, the second try says why the first failed.
                let _ = self.channel.call(CleanUp { snapshotter: self.snapshotter.to_owned() }).await;
                self.channel.call(prepare).await
            }
            done => done,
        }
    }

    /// Unpacks into a snapshot and gives it its name; `None` if another process was faster.
    async fn fill(
        &self,
        layer: &oci::Descriptor,
        expected: &Digest,
        mounts: Vec<Mount>,
        key: &str,
        chain: &Digest,
    ) -> Result<Option<()>, EngineError> {
        let applied = self.channel.call(Apply { layer: Some(unpackable(layer)), mounts }).await?.applied.unwrap_or_default();
        let found: Digest = applied.digest.parse().map_err(|e| self.channel.unreadable::<Apply>(e))?;
        if found != *expected {
            return Err(Arc::new(ArchiveError::DiffId { digest: layer.digest, expected: *expected, found }).into());
        }
        let commit = CommitSnapshot {
            snapshotter: self.snapshotter.to_owned(),
            name: chain.to_string(),
            key: key.to_owned(),
            labels: Labels::from([(labels::SNAPSHOT_REF.to_owned(), chain.to_string())]),
        };
        Ok(unless(Code::AlreadyExists, self.channel.call(commit).await)?.map(|_| ()))
    }
}

/// A layer as every containerd can unpack it: Docker's media types have no name for zstd, though builders write one.
fn unpackable(layer: &oci::Descriptor) -> Descriptor {
    let media_type = match layer.compression() {
        Some(Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => &layer.media_type,
    };
    Descriptor { media_type: media_type.to_owned(), digest: layer.digest.to_string(), size: layer.size.try_into().unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_by_all_layers_below() {
        let [a, b, c] = [&b"a"[..], b"b", b"c"].map(Digest::of);
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(chains(&[a, b, c]), [a, ab, Digest::of(format!("{ab} {c}").as_bytes())]);
        assert_eq!(chains(&[]), []);
        assert_eq!(chains(&[a, a])[1], Digest::of(format!("{a} {a}").as_bytes()));
    }
}
