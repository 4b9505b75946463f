//! What is said to containerd: the messages of its services, only with the fields that larder sets or reads.
//!
//! The numbers are those of [containerd's definitions](https://github.com/containerd/containerd/tree/v1.6.20/api), which
//! have been the same since 1.0; all that stands here is in every release that is supported. Written by hand: of some 150 messages
//! these are what is needed, and no compiler for such definitions is needed to build larder.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

/// Labels of anything that can have some.
pub(super) type Labels = HashMap<String, String>;

/// A request, with the method that takes it and the reply that method gives.
pub(super) trait Call: Message + 'static {
    type Reply: Message + Default + 'static;
    const METHOD: &'static str;
}

macro_rules! calls {
    ($($request:ty => $reply:ty, $method:literal;)*) => {
        $(impl Call for $request {
            type Reply = $reply;
            const METHOD: &'static str = concat!("/containerd.services.", $method);
        })*
    };
}
calls! {
    GetVersion => Version, "version.v1.Version/Version";
    ListPlugins => Plugins, "introspection.v1.Introspection/Plugins";
    GetNamespace => FoundNamespace, "namespaces.v1.Namespaces/Get";
    CreateLease => CreatedLease, "leases.v1.Leases/Create";
    DeleteLease => Nothing, "leases.v1.Leases/Delete";
    AddToLease => Nothing, "leases.v1.Leases/AddResource";
    GetImage => FoundImage, "images.v1.Images/Get";
    CreateImage => FoundImage, "images.v1.Images/Create";
    UpdateImage => FoundImage, "images.v1.Images/Update";
    ListImages => Images, "images.v1.Images/List";
    DeleteImage => Nothing, "images.v1.Images/Delete";
    ListContainers => Containers, "containers.v1.Containers/List";
    GetContent => FoundContent, "content.v1.Content/Info";
    UpdateContent => FoundContent, "content.v1.Content/Update";
    ListIngests => Ingests, "content.v1.Content/ListStatuses";
    AbortIngest => Nothing, "content.v1.Content/Abort";
    ReadContent => Piece, "content.v1.Content/Read";
    WriteContent => Written, "content.v1.Content/Write";
    StatSnapshot => FoundSnapshot, "snapshots.v1.Snapshots/Stat";
    PrepareSnapshot => Mounts, "snapshots.v1.Snapshots/Prepare";
    ViewSnapshot => Mounts, "snapshots.v1.Snapshots/View";
    CommitSnapshot => Nothing, "snapshots.v1.Snapshots/Commit";
    RemoveSnapshot => Nothing, "snapshots.v1.Snapshots/Remove";
    CleanUp => Nothing, "snapshots.v1.Snapshots/Cleanup";
    Apply => Applied, "diff.v1.Diff/Apply";
}

/// An answer that says no more than that it was done.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Nothing {}

/// Which fields of what is sent are meant.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    pub(super) paths: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Descriptor {
    #[prost(string, tag = "1")]
    pub(super) media_type: String,
    #[prost(string, tag = "2")]
    pub(super) digest: String,
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetVersion {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Version {
    #[prost(string, tag = "1")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPlugins {
    #[prost(string, repeated, tag = "1")]
    pub(super) filters: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Plugins {
    #[prost(message, repeated, tag = "1")]
    pub(super) plugins: Vec<Plugin>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Plugin {
    #[prost(string, tag = "2")]
    pub(super) id: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) platforms: Vec<Platform>,
    /// Why it cannot be used, if it cannot.
    #[prost(message, optional, tag = "7")]
    pub(super) broken: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Platform {
    #[prost(string, tag = "1")]
    pub(super) os: String,
    #[prost(string, tag = "2")]
    pub(super) architecture: String,
    #[prost(string, tag = "3")]
    pub(super) variant: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetNamespace {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FoundNamespace {
    #[prost(message, optional, tag = "1")]
    pub(super) namespace: Option<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Namespace {
    #[prost(map = "string, string", tag = "2")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateLease {
    #[prost(map = "string, string", tag = "3")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreatedLease {
    #[prost(message, optional, tag = "1")]
    pub(super) lease: Option<Lease>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Lease {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteLease {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    /// Whether to answer only when what nobody needs any more is gone.
    #[prost(bool, tag = "2")]
    pub(super) sync: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AddToLease {
    #[prost(string, tag = "1")]
    pub(super) lease: String,
    #[prost(message, optional, tag = "2")]
    pub(super) resource: Option<Resource>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    /// `content`, or `snapshots/` and the snapshotter.
    #[prost(string, tag = "2")]
    pub(super) kind: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetImage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FoundImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpdateImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    pub(super) mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListImages {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Images {
    #[prost(message, repeated, tag = "1")]
    pub(super) images: Vec<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteImage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    /// Whether to answer only when what nobody needs any more is gone.
    #[prost(bool, tag = "2")]
    pub(super) sync: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainers {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Containers {
    #[prost(message, repeated, tag = "1")]
    pub(super) containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    /// The name of the image it was made of.
    #[prost(string, tag = "3")]
    pub(super) image: String,
}

/// A name and what it points to.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "3")]
    pub(super) target: Option<Descriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetContent {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpdateContent {
    #[prost(message, optional, tag = "1")]
    pub(super) content: Option<Content>,
    #[prost(message, optional, tag = "2")]
    pub(super) mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FoundContent {
    #[prost(message, optional, tag = "1")]
    pub(super) content: Option<Content>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Content {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(int64, tag = "2")]
    pub(super) size: i64,
    #[prost(map = "string, string", tag = "5")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListIngests {
    #[prost(string, repeated, tag = "1")]
    pub(super) filters: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ingests {
    #[prost(message, repeated, tag = "1")]
    pub(super) ingests: Vec<Ingest>,
}

/// Content on its way.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ingest {
    #[prost(string, tag = "3")]
    pub(super) reference: String,
    #[prost(int64, tag = "4")]
    pub(super) offset: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AbortIngest {
    #[prost(string, tag = "1")]
    pub(super) reference: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadContent {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Piece {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: Bytes,
}

/// One step of a write.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteContent {
    #[prost(enumeration = "Action", tag = "1")]
    pub(super) action: i32,
    #[prost(string, tag = "2")]
    pub(super) reference: String,
    #[prost(int64, tag = "3")]
    pub(super) total: i64,
    #[prost(string, tag = "4")]
    pub(super) expected: String,
    #[prost(int64, tag = "5")]
    pub(super) offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) data: Bytes,
    #[prost(map = "string, string", tag = "7")]
    pub(super) labels: Labels,
}

/// What a step of a write is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Action {
    /// Say how far it is, and hold the write open.
    Stat = 0,
    /// Take these bytes.
    Write = 1,
    /// Compare, and give the content its name.
    Commit = 2,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Written {
    #[prost(enumeration = "Action", tag = "1")]
    pub(super) action: i32,
    #[prost(int64, tag = "4")]
    pub(super) offset: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FoundSnapshot {
    #[prost(message, optional, tag = "1")]
    pub(super) snapshot: Option<Snapshot>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Snapshot {
    #[prost(enumeration = "SnapshotKind", tag = "3")]
    pub(super) kind: i32,
}

/// What can be done with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum SnapshotKind {
    Unknown = 0,
    /// It can be read, and is not kept.
    View = 1,
    /// It is being written.
    Active = 2,
    /// It is whole, and others build on it.
    Committed = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PrepareSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) parent: String,
    #[prost(map = "string, string", tag = "4")]
    pub(super) labels: Labels,
}

/// As one prepares a snapshot, but only to read it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ViewSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) parent: String,
    #[prost(map = "string, string", tag = "4")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Mounts {
    #[prost(message, repeated, tag = "1")]
    pub(super) mounts: Vec<Mount>,
}

/// How a snapshot is mounted. Handed on as it came.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Mount {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) source: String,
    #[prost(string, tag = "3")]
    pub(super) target: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) options: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommitSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) key: String,
    #[prost(map = "string, string", tag = "4")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RemoveSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
}

/// Clears away what no snapshot owns.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CleanUp {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
}

/// Unpacks a layer onto a snapshot.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Apply {
    #[prost(message, optional, tag = "1")]
    pub(super) layer: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub(super) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Applied {
    #[prost(message, optional, tag = "1")]
    pub(super) applied: Option<Descriptor>,
}
