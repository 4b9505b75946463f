//! A body that does what it is told, step by step.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::Content;

/// How much is read from a file at once.
const READ: u64 = 256 << 10;

pub(super) enum Step {
    Give(Bytes),
    /// From a file, so many bytes.
    Read(File, u64),
    /// Lets the connection write out what it was given.
    Breathe(u32),
    Cut,
    /// Cuts the connection so hard that the other side loses what it has not read.
    Reset(Arc<AtomicBool>),
    Stall,
    /// Over and over.
    Repeat(Bytes),
    Drip(Bytes, Duration, Pin<Box<Sleep>>),
}

pub(super) struct Script(VecDeque<Step>);

impl Script {
    pub(super) fn empty() -> Script {
        Script(VecDeque::new())
    }

    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Script {
        Script::empty().then(Step::Give(bytes.into()))
    }

    /// So many bytes of the content from `first` on.
    pub(super) fn content(content: &Content, first: u64, length: u64) -> io::Result<Script> {
        Ok(match content {
            Content::Memory(bytes) => Script::bytes(bytes.slice(first as usize..(first + length) as usize)),
            Content::File(path, _) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(first))?;
                Script::empty().then(Step::Read(file, length))
            }
        })
    }

    pub(super) fn drip(bytes: Bytes, apart: Duration) -> Script {
        Script::empty().then(Step::Drip(bytes, apart, Box::pin(sleep(apart))))
    }

    pub(super) fn then(mut self, step: Step) -> Script {
        self.0.push_back(step);
        self
    }

    /// Cuts the connection, but not before what came earlier had a chance to get out.
    pub(super) fn then_cut(self) -> Script {
        self.then(Step::Breathe(64)).then(Step::Cut)
    }

    pub(super) fn then_reset(self, hard: &Arc<AtomicBool>) -> Script {
        self.then(Step::Breathe(64)).then(Step::Reset(hard.clone()))
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let Some(step) = self.0.front_mut() else { return Poll::Ready(None) };
            let bytes = match step {
                Step::Stall => return Poll::Pending,
                Step::Reset(hard) => {
                    hard.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
                Step::Cut => return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
                Step::Breathe(times) if *times > 0 => {
                    *times -= 1;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Give(bytes) if bytes.has_remaining() => std::mem::take(bytes),
                Step::Repeat(bytes) => bytes.clone(),
                Step::Read(file, left) if *left > 0 => match read(file, left) {
                    Ok(bytes) => bytes,
                    Err(e) => return Poll::Ready(Some(Err(e))),
                },
                Step::Drip(bytes, apart, sleep) if bytes.has_remaining() => {
                    std::task::ready!(sleep.as_mut().poll(context));
                    *sleep = Box::pin(tokio::time::sleep(*apart));
                    bytes.split_to(1)
                }
                _ => {
                    self.0.pop_front();
                    continue;
                }
            };
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
    }

    /// Nothing is known: the length is in the headers, or nowhere.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn read(file: &mut File, left: &mut u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; READ.min(*left) as usize];
    file.read_exact(&mut buffer)?;
    *left -= buffer.len() as u64;
    Ok(buffer.into())
}
