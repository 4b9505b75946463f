//! Blobs on their way into containerd's content store.
//!
//! Owns the writes: what a reading of the store gives of a blob goes into the stream of one of them. Always true: what containerd has is not
//! sent, what an earlier run began is continued, and a blob that turns out damaged ends its write without a commit, so that it is never
//! named.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Code;

use super::api::{
    AbortIngest, Action, AddToLease, Content, FieldMask, GetContent, Ingest, Labels, ListIngests, Resource, UpdateContent, WriteContent,
};
use super::blobs::Blobs;
use super::channel::{Answers, Channel, unless};
use super::{labels, look};
use crate::engine::EngineError;
use crate::event::{Event, Tell};
use crate::oci::Descriptor;

/// How many pieces of a blob wait for containerd at most, besides those that the reading holds.
const IN_FLIGHT: usize = 1;
/// How long until another process's write is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a write of another process may be found where it was, until it is taken to stand still.
const LOOKS: u32 = 20;

/// Brings blobs from a store into containerd.
pub(super) struct Carrier<'a> {
    pub(super) blobs: Blobs,
    /// Keeps what it brings.
    pub(super) channel: Channel,
    pub(super) lease: &'a str,
    pub(super) tell: &'a Tell<'a>,
    /// How many bytes containerd took.
    pub(super) sent: u64,
}

impl Carrier<'_> {
    /// How many bytes of these blobs containerd lacks.
    pub(super) async fn lacking(&self, blobs: &[&Descriptor]) -> Result<u64, EngineError> {
        let there = futures_util::future::try_join_all(blobs.iter().map(|blob| look::has(&self.channel, blob))).await?;
        let begun = self.ingests().await?;
        let came = |blob: &Descriptor| {
            let ingest = begun.iter().find(|ingest| ingest.reference == reference(blob));
            ingest.and_then(|ingest| u64::try_from(ingest.offset).ok()).unwrap_or(0)
        };
        let lacking = blobs.iter().zip(there).filter(|(_, there)| !there).map(|(blob, _)| blob.size.saturating_sub(came(blob)));
        Ok(lacking.fold(0, u64::saturating_add))
    }

    /// Sees to it that the blob is there, has these labels, and stays for as long as the lease: it, and what its labels refer to.
    pub(super) async fn keep(&mut self, blob: &Descriptor, labels: &Labels) -> Result<(), EngineError> {
        // What is there is found only after it was leased, so it cannot be collected in between.
        let resource = Some(Resource { id: blob.digest.to_string(), kind: "content".to_owned() });
        self.channel.call(AddToLease { lease: self.lease.to_owned(), resource }).await?;
        self.bring(blob, labels).await
    }

    /// Sees to it that the blob is there and has these labels. One that is there already is kept by what refers to it.
    pub(super) async fn bring(&mut self, blob: &Descriptor, labels: &Labels) -> Result<(), EngineError> {
        if self.label(blob, labels).await? {
            return Ok(());
        }
        if unless(Code::AlreadyExists, self.send(blob, labels).await)?.is_none() {
            self.label(blob, labels).await?;
        }
        Ok(())
    }

    /// Adds the labels to a blob that is there; says whether it is.
    async fn label(&self, blob: &Descriptor, wanted: &Labels) -> Result<bool, EngineError> {
        let digest = blob.digest.to_string();
        let found = self.channel.find(GetContent { digest: digest.clone() }).await?;
        let Some(there) = found.and_then(|found| found.content) else { return Ok(false) };
        let missing = labels::missing(&there.labels, wanted);
        if !missing.is_empty() {
            let paths = missing.keys().map(|key| format!("labels.{key}")).collect();
            let content = Some(Content { digest, size: there.size, labels: missing });
            self.channel.call(UpdateContent { content, mask: Some(FieldMask { paths }) }).await?;
        }
        Ok(true)
    }

    async fn send(&mut self, blob: &Descriptor, labels: &Labels) -> Result<(), EngineError> {
        let reference = reference(blob);
        match self.write_in_turn(&reference, blob, labels).await {
            // What an earlier run left of it was wrong.
            Err(EngineError::Denied { code: Code::FailedPrecondition | Code::OutOfRange, .. }) => {
                self.abort(&reference).await?;
                self.write(&reference, blob, labels).await
            }
            done => done,
        }
    }

    /// Writes a blob that another process may be writing: then it waits for that one, but no longer than that one gets on.
    async fn write_in_turn(&mut self, reference: &str, blob: &Descriptor, labels: &Labels) -> Result<(), EngineError> {
        let (mut came, mut looks) = (None, 0);
        while looks < LOOKS {
            match self.write(reference, blob, labels).await {
                Err(EngineError::Denied { code: Code::Unavailable, .. }) => {}
                done => return done,
            }
            let now = self.ingests().await?.into_iter().find(|ingest| ingest.reference == reference).map(|ingest| ingest.offset);
            looks = if now == came { looks + 1 } else { 0 };
            came = now;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.write(&format!("{reference}-{}", self.lease), blob, labels).await
    }

    async fn ingests(&self) -> Result<Vec<Ingest>, EngineError> {
        Ok(self.channel.call(ListIngests { filters: vec!["ref~=\"^larder-\"".to_owned()] }).await?.ingests)
    }

    async fn write(&mut self, reference: &str, blob: &Descriptor, labels: &Labels) -> Result<(), EngineError> {
        let (steps, queue) = mpsc::channel(IN_FLIGHT);
        let begin = WriteContent { action: Action::Stat.into(), reference: reference.to_owned(), ..whole(blob) };
        steps.send(begin).await.expect("the other end is in the next line");
        let mut answers = self.channel.write(queue).await?;
        let offset = match answers.next().await? {
            Some(begun) => begun.offset.try_into().unwrap_or(0),
            None => return Err(ended(&self.channel)),
        };
        let Carrier { blobs, channel, tell, sent, .. } = self;
        let engine = channel.place().kind;
        let took = |bytes| {
            *sent += bytes;
            tell(Event::LoadProgress { engine: engine.to_string(), bytes });
        };
        let mut committed = pin!(follow(&mut answers, offset, took));
        let committed = tokio::select! {
            biased;
            committed = &mut committed => committed,
            fed = feed(blobs, blob, offset, steps, labels) => {
                // With the steps the write ends, and only then containerd lets go of what came of a damaged blob.
                let committed = committed.await;
                fed.and(committed)
            }
        };
        committed?.ok_or_else(|| ended(channel))
    }

    /// Throws away what came of a blob.
    async fn abort(&self, reference: &str) -> Result<(), EngineError> {
        self.channel.find(AbortIngest { reference: reference.to_owned() }).await.map(|_| ())
    }
}

/// The name of an ingest: the same in every run, so that the next one continues what one left.
fn reference(blob: &Descriptor) -> String {
    format!("larder-{}", blob.digest)
}

fn whole(blob: &Descriptor) -> WriteContent {
    let total = blob.size.try_into().unwrap_or(i64::MAX);
    WriteContent { total, expected: blob.digest.to_string(), ..WriteContent::default() }
}

/// Hands over a blob from the offset on, and asks for the commit once all of it was hashed and found right.
async fn feed(
    blobs: &mut Blobs,
    blob: &Descriptor,
    offset: u64,
    steps: mpsc::Sender<WriteContent>,
    labels: &Labels,
) -> Result<(), EngineError> {
    let position = |at: u64| at.try_into().unwrap_or(i64::MAX);
    // Nothing has to leave the store where another namespace has the content, or where only the commit was not reached.
    if offset < blob.size {
        let mut at = offset;
        let pieces = blobs.turn_to(blob, offset).await?;
        while let Some(data) = pieces.next().await? {
            let step = WriteContent { action: Action::Write.into(), offset: position(at), data: data.clone(), ..Default::default() };
            if steps.send(step).await.is_err() {
                // containerd takes no more, and its answer says why.
                return Ok(());
            }
            at += data.len() as u64;
        }
    }
    let commit = WriteContent { action: Action::Commit.into(), offset: position(blob.size), labels: labels.clone(), ..whole(blob) };
    // Nobody listens any more where the answer is known already.
    let _ = steps.send(commit).await;
    Ok(())
}

/// Takes containerd's answers up to the commit, and counts what it took; `None` if they end before.
async fn follow(answers: &mut Answers<WriteContent>, mut taken: u64, mut took: impl FnMut(u64)) -> Result<Option<()>, EngineError> {
    while let Some(answer) = answers.next().await? {
        if answer.action() == Action::Commit {
            return Ok(Some(()));
        }
        let now = answer.offset.try_into().unwrap_or(taken);
        took(now.saturating_sub(taken));
        taken = now;
    }
    Ok(None)
}

fn ended(channel: &Channel) -> EngineError {
    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended the write before the commit").into();
    EngineError::Broken { place: channel.place().clone(), request: "Content/Write".to_owned(), source }
}
