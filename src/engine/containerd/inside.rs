//! What lies inside a containerd: snapshots on its disk, blobs among its content, and who else needs them.
//!
//! Always true: where a snapshot's files are is what the snapshotter itself says of a view of it, and that view is gone again before they are
//! read; an image is taken out record by record, and what nobody needs then goes before the last answer.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tonic::Code;
use tonic::metadata::MetadataValue;

use super::api::{
    CreateImage, CreateLease, DeleteImage, DeleteLease, Image as Record, Labels, ListContainers, ListImages, Mount, ReadContent,
    RemoveSnapshot, ViewSnapshot,
};
use super::channel::{Channel, Line, unless};
use super::{DOCKERS, Shelf, labels, look, unpack};
use crate::digest::Digest;
use crate::engine::{EngineError, Keepers, OutOfReach, Place, Shown, Unpacked};
use crate::reference::Name;

/// How long a view is kept, if whoever made it does not come to the end.
const KEPT: SignedDuration = SignedDuration::from_mins(10);

/// The folders of the snapshots that layers unpacked to, from the base up.
pub(super) async fn folders(channel: &Channel, snapshotter: &str, diff_ids: &[Digest]) -> Result<Unpacked, EngineError> {
    let Some(top) = unpack::chains(diff_ids).pop() else { return Ok(Unpacked::Folders(Vec::new())) };
    let mounts = mounts(channel, snapshotter, &top).await?;
    let folders = mounts.first().map(lower).unwrap_or_default();
    // Some snapshotters keep each snapshot whole, or not as files.
    match folders.len() == diff_ids.len() && mounts.len() == 1 {
        true => Ok(Unpacked::Folders(folders)),
        false => Ok(Unpacked::OutOfReach(OutOfReach::Driver { driver: format!("the snapshotter {snapshotter}") })),
    }
}

/// The same, asked of the containerd behind docker's containerd image store; `None` if it is not this one.
pub(in crate::engine) async fn docker_folders(
    (place, socket, limit): (Place, PathBuf, Duration),
    snapshotter: &str,
    diff_ids: &[Digest],
) -> Result<Option<Unpacked>, EngineError> {
    let line = Line { place, socket, limit, namespace: MetadataValue::from_static(DOCKERS) };
    let channel = line.connect().await?;
    match unpack::chains(diff_ids).last() {
        Some(top) if !look::has_snapshot(&channel, snapshotter, top).await? => Ok(None),
        _ => folders(&channel, snapshotter, diff_ids).await.map(Some),
    }
}

/// How a snapshot would be mounted to be read.
async fn mounts(channel: &Channel, snapshotter: &str, of: &Digest) -> Result<Vec<Mount>, EngineError> {
    let until = Timestamp::now().saturating_add(KEPT).unwrap_or(Timestamp::MAX);
    let labels = Labels::from([(labels::EXPIRES.to_owned(), until.to_string())]);
    let lease = channel.call(CreateLease { labels }).await?.lease.unwrap_or_default().id;
    let leased = channel.under(lease.parse().map_err(|e| channel.unreadable::<CreateLease>(e))?);
    let (snapshotter, key) = (snapshotter.to_owned(), format!("larder-view-{lease}"));
    let view = ViewSnapshot { snapshotter: snapshotter.clone(), key: key.clone(), parent: of.to_string(), labels: Labels::new() };
    let viewed = leased.call(view).await;
    // What cannot be removed goes with the lease.
    let _ = channel.call(RemoveSnapshot { snapshotter, key }).await;
    let _ = channel.call(DeleteLease { id: lease, sync: false }).await;
    Ok(viewed?.mounts)
}

/// The folders that a mount lays over each other, from the base up.
fn lower(mount: &Mount) -> Vec<PathBuf> {
    if mount.kind == "bind" {
        return vec![PathBuf::from(&mount.source)];
    }
    let lower = mount.options.iter().find_map(|option| option.strip_prefix("lowerdir="));
    lower.into_iter().flat_map(|all| all.rsplit(':')).map(PathBuf::from).collect()
}

/// The digests of the documents and layers of an image, of its content as it is now.
pub(super) async fn reread(channel: &Channel, name: &Name) -> Result<HashSet<Digest>, EngineError> {
    let mut found = HashSet::new();
    let patient = channel.patient();
    for blob in look::blobs(channel, name).await? {
        found.extend(patient.hash(ReadContent { digest: blob.to_string() }).await?);
    }
    Ok(found)
}

/// Who has layers up to this place, counted from the base, of the image that was shown.
pub(super) async fn keepers(channel: &Channel, shelf: &Shelf, shown: &Shown, up_to: usize) -> Result<Keepers, EngineError> {
    let layers = &shown.diff_ids[..shown.diff_ids.len().min(up_to + 1)];
    let mut keepers = Keepers::default();
    let id = shown.id.to_string();
    for image in channel.call(ListImages {}).await?.images {
        if image.target.as_ref().is_some_and(|target| target.digest == id) {
            keepers.names.push(image.name);
        } else if look::diff_ids(channel, &shelf.snapshotter, &image).await?.iter().any(|diff_ids| diff_ids.starts_with(layers)) {
            keepers.images.push(image.name);
        }
    }
    let containers = channel.call(ListContainers {}).await?.containers;
    keepers.containers = containers.into_iter().filter(|c| keepers.names.contains(&c.image)).map(|c| c.id).collect();
    Ok(keepers)
}

/// Takes the records of an image away, and with the last of them what nobody else needs.
pub(super) async fn take_out(channel: &Channel, keepers: &Keepers) -> Result<(), EngineError> {
    let patient = channel.patient();
    for (gone, name) in keepers.names.iter().enumerate() {
        let sync = gone + 1 == keepers.names.len();
        if let Err(error) = unless(Code::NotFound, patient.call(DeleteImage { name: name.clone(), sync }).await) {
            // What objects is what counts, whether or not the names come back.
            if let Some(left) = keepers.names.last() {
                let _ = give_names(channel, left, &keepers.names[..gone]).await;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Gives what is under a name more names.
pub(super) async fn give_names(channel: &Channel, image: &str, names: &[String]) -> Result<(), EngineError> {
    let Some(target) = look::record(channel, image).await?.and_then(|image| image.target) else { return Ok(()) };
    for name in names {
        let image = Some(Record { name: name.clone(), target: Some(target.clone()) });
        unless(Code::AlreadyExists, channel.call(CreateImage { image }).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_says_where_layers_lie_from_the_base_up() {
        let mount = |kind: &str, source: &str, options: &[&str]| Mount {
            kind: kind.to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(lower(&mount("bind", "/s/1/fs", &["ro", "rbind"])), paths(&["/s/1/fs"]));
        assert_eq!(lower(&mount("overlay", "overlay", &["index=off", "lowerdir=/s/2/fs:/s/1/fs"])), paths(&["/s/1/fs", "/s/2/fs"]));
        assert_eq!(lower(&mount("ext4", "/s/1.img", &[])), paths(&[]));
    }
}
