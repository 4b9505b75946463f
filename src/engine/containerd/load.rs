//! An image from the store into containerd.
//!
//! Owns the order of a load. Always true: a name is given only when all that it points to is there and unpacked; until then a
//! lease keeps what came from being collected. After a crash the lease keeps it for a day, and the next load goes on from there.

use std::future::pending;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tonic::Code;

use super::Shelf;
use super::api::{CreateImage, CreateLease, DeleteLease, Descriptor, FieldMask, Image as Record, Labels, UpdateImage};
use super::blobs::Blobs;
use super::channel::{Channel, Line, unless};
use super::content::Carrier;
use super::labels;
use super::look;
use super::unpack::{self, Unpacker};
use crate::engine::send::wait;
use crate::engine::{EngineError, Seat};
use crate::event::{Event, Tell};
use crate::oci::{self, Image};
use crate::reference::Name;
use crate::store::Store;

/// How long what was begun is kept, if whoever began it does not come to the end.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// What is loaded, and how it is to be called and unpacked.
pub(super) struct Load<'a> {
    pub(super) store: &'a Store,
    pub(super) image: &'a Image,
    pub(super) name: &'a Name,
    pub(super) shelf: &'a Shelf,
}

impl Load<'_> {
    /// Brings the image there; returns how many bytes that took.
    pub(super) async fn run(&self, line: &Line, seat: Seat, tell: &Tell<'_>) -> Result<u64, EngineError> {
        let channel = line.connect().await?;
        let lacking = look::lacking(&channel, self.image).await?;
        let blobs = Blobs::read(self.store, self.image, self.name, &lacking, seat).await?;
        let lease = lease(&channel).await?;
        let leased = channel.leased(lease.parse().map_err(|e| channel.unreadable::<CreateLease>(e))?);
        let mut carrier = Carrier { blobs, channel: leased, lease: &lease, tell, sent: 0 };
        let mut planned = 0;
        let done = tokio::select! {
            biased;
            done = self.bring(&mut carrier, lacking.layers.len(), &mut planned) => done,
            silent = channel.silence() => Err(silent),
        };
        // What is named needs it no more, and what is not named is not wanted. One that cannot be deleted now ends by itself.
        let _ = channel.call(DeleteLease { id: lease.clone(), sync: done.is_err() }).await;
        match done {
            Ok(()) => {
                tell(Event::LoadFinished { engine: line.place.kind.to_string() });
                Ok(carrier.sent)
            }
            Err(error) => Err(self.failed(error, carrier.sent, planned)),
        }
    }

    async fn bring(&self, to: &mut Carrier<'_>, layers: usize, planned: &mut u64) -> Result<(), EngineError> {
        let bytes = to.lacking(&self.image.blobs()).await?;
        *planned = bytes;
        (to.tell)(Event::LoadStarted { engine: to.channel.place().kind.to_string(), name: self.name.clone(), bytes, layers });
        self.documents(to).await?;
        let (arrived, arrivals) = watch::channel(0);
        let (mut all, engine, tell) = (arrivals.clone(), to.channel.place().kind.to_string(), to.tell);
        let unpacker = Unpacker { channel: to.channel.clone(), snapshotter: &self.shelf.snapshotter, lease: to.lease, tell };
        let work = async { tokio::try_join!(self.layers(to, arrived), unpacker.unpack(self.image, arrivals)) };
        let waiting = async {
            let arrived = all.wait_for(|arrived| *arrived == self.image.layers.len()).await.is_ok();
            if arrived { wait(&engine, tell).await } else { pending().await }
        };
        tokio::select! {
            biased;
            done = work => done.map(drop)?,
            never = waiting => match never {},
        }
        // The tag comes last: it is what is asked for, and who finds it is to find the other too.
        let root = &self.image.root;
        if self.shelf.has_digests() {
            call_it(&to.channel, super::by_digest(self.name, &root.digest), root).await?;
        }
        call_it(&to.channel, self.name.to_string(), root).await
    }

    /// The documents come first: with their labels they keep all the rest, also what is there already.
    async fn documents(&self, to: &mut Carrier<'_>) -> Result<(), EngineError> {
        let (image, labels) = (self.image, labels::For { image: self.image, name: self.name });
        if image.root.digest != image.manifest.digest {
            let indexes = [&image.root].into_iter().chain(&image.via);
            for (index, listed) in indexes.zip(image.via.iter().chain([&image.manifest])) {
                to.keep(index, &labels.index(listed)).await?;
            }
        }
        to.keep(&image.manifest, &labels.manifest()).await?;
        to.keep(&image.config, &labels.config(&self.shelf.snapshotter, unpack::chains(&image.diff_ids).last())).await
    }

    async fn layers(&self, to: &mut Carrier<'_>, arrived: watch::Sender<usize>) -> Result<(), EngineError> {
        let labels = labels::For { image: self.image, name: self.name }.layer();
        for layer in &self.image.layers {
            to.bring(layer, &labels).await?;
            arrived.send_modify(|arrived| *arrived += 1);
        }
        // Others who read along are not to wait for one who unpacks.
        to.blobs.end();
        (to.tell)(Event::LoadSent { engine: to.channel.place().kind.to_string() });
        Ok(())
    }

    /// Says of an answer or of a broken connection that it ended a load.
    fn failed(&self, error: EngineError, sent: u64, size: u64) -> EngineError {
        let name = self.name.clone();
        match error {
            EngineError::Denied { place, request, said, .. } => EngineError::NotLoaded { place, name, said: format!("{said} ({request})") },
            EngineError::Broken { place, source, .. } => EngineError::LoadBroken { place, name, sent, size, source },
            other => other,
        }
    }
}

async fn lease(channel: &Channel) -> Result<String, EngineError> {
    let until = Timestamp::now().saturating_add(KEPT).unwrap_or(Timestamp::MAX);
    let labels = Labels::from([(labels::EXPIRES.to_owned(), until.to_string())]);
    Ok(channel.call(CreateLease { labels }).await?.lease.unwrap_or_default().id)
}

/// Lets a name point to the image, whatever it pointed to before.
async fn call_it(channel: &Channel, name: String, root: &oci::Descriptor) -> Result<(), EngineError> {
    let size = root.size.try_into().unwrap_or(i64::MAX);
    let target = Descriptor { media_type: root.media_type.clone(), digest: root.digest.to_string(), size };
    let image = Some(Record { name, target: Some(target) });
    if unless(Code::AlreadyExists, channel.call(CreateImage { image: image.clone() }).await)?.is_none() {
        // Only that: the labels of the record are others' affair.
        let mask = Some(FieldMask { paths: vec!["target".to_owned()] });
        channel.call(UpdateImage { image, mask }).await?;
    }
    Ok(())
}
