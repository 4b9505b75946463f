//! The time that a command has for all that it does.

use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::args;
use super::failure::{Exit, Failure};

/// When all has to be done, and how long that was from the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deadline(Option<(Instant, SignedDuration)>);

impl Deadline {
    /// So long from now; without a limit, or with one beyond all time, never.
    pub(crate) fn after(limit: Option<args::Duration>) -> Deadline {
        Deadline(limit.and_then(|args::Duration(limit)| Some((Instant::now().checked_add(limit.unsigned_abs())?, limit))))
    }

    /// When that is.
    pub(crate) fn at(self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    /// Does this piece of the work as long as there is time. What came of it until then is kept in the store.
    pub(crate) async fn keep<T>(self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let Some((at, limit)) = self.0 else { return work.await };
        let left = at.saturating_duration_since(Instant::now());
        let done = match left {
            Duration::ZERO => None,
            left => tokio::time::timeout(left, work).await.ok(),
        };
        done.unwrap_or_else(|| {
            Err(Failure::new(Exit::Failed, "deadline", format!("it was not done in {limit:#}"))
                .hint("run it again: it goes on where it ended; --deadline sets how long it may take"))
        })
    }
}
