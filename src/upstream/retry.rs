//! What is tried again, how often, and after how long.
//!
//! Always true: tries are counted as long as nothing is gained by them, so nothing is tried for ever, and nothing behind the
//! deadline; whoever watches is told of each. A request that was answered in a way that will not change is never made again, and neither is one
//! over a connection whose certificate was refused.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::Settings;
use super::error::{Result, UpstreamError};
use super::places::Place;
use super::shown::line;
use crate::event::{Event, Tell};

/// The longest time between two tries that nobody asked for.
const LONGEST: Duration = Duration::from_secs(10);

/// How often a host that does not answer at all is tried: without a network, people want to hear of it soon.
const UNREACHED: u32 = 2;

/// How often a mirror is tried.
const MIRROR: u32 = 2;

/// Counts the tries of one piece of work.
pub(super) struct Retry<'a> {
    settings: &'a Settings,
    tell: &'a Tell<'a>,
    tries: u32,
    failed: u32,
    reached: bool,
}

/// Whether a failure may pass.
enum Outlook {
    Lasting,
    /// Not before this time, if the server named one.
    Passing(Option<Duration>),
    /// What came broke off.
    Cut,
    /// The host was not reached.
    Unreached,
}

impl<'a> Retry<'a> {
    pub(super) fn new(settings: &'a Settings, tell: &'a Tell<'a>) -> Retry<'a> {
        Retry { settings, tell, tries: settings.tries, failed: 0, reached: false }
    }

    /// A mirror is soon passed over: there are others.
    pub(super) fn of(mut self, place: &Place) -> Retry<'a> {
        self.tries = if place.is_mirror() { MIRROR.min(self.tries) } else { self.tries };
        self
    }

    /// Something was gained: what failed before does not count any more.
    pub(super) fn gained(&mut self) {
        (self.failed, self.reached) = (0, true);
    }

    /// Waits until it is time to try again, or fails with the error if it is not worth it.
    pub(super) async fn pause(&mut self, error: UpstreamError) -> Result<()> {
        let outlook = outlook(&error);
        self.failed += 1;
        // Whoever gave something a moment ago gives more.
        let at_once = matches!(outlook, Outlook::Cut) && self.reached && self.failed == 1;
        let (tries, wanted) = match outlook {
            Outlook::Lasting => return Err(error),
            Outlook::Unreached if !self.reached => (UNREACHED.min(self.tries), None),
            Outlook::Unreached | Outlook::Cut => (self.tries, None),
            Outlook::Passing(wanted) => (self.tries, wanted),
        };
        if self.failed >= tries || wanted.is_some_and(|w| w > self.settings.longest_wait) {
            return Err(error);
        }
        let after = if at_once { Duration::ZERO } else { wanted.unwrap_or_default().max(self.backoff()) };
        // What comes too late is no use, and the reason is better known than that the time ran out.
        if self.settings.deadline.is_some_and(|deadline| deadline.saturating_duration_since(Instant::now()) <= after) {
            return Err(error);
        }
        if let Some(url) = error.url() {
            (self.tell)(Event::Retrying { what: url.to_string(), why: line(&error), after });
        }
        tokio::time::sleep(after).await;
        Ok(())
    }

    /// Twice as long each time, and not the same for all who failed together.
    fn backoff(&self) -> Duration {
        let whole = self.settings.backoff.saturating_mul(1 << (self.failed - 1).min(10)).min(LONGEST);
        let share = RandomState::new().hash_one(self.failed) % 512;
        whole.mul_f64((512 + share) as f64 / 1024.0)
    }
}

fn outlook(error: &UpstreamError) -> Outlook {
    match error {
        // What is granted for hours is used up; a second does not help.
        UpstreamError::TooManyRequests { after: None, .. } if error.is_pull_limit() => Outlook::Lasting,
        UpstreamError::TooManyRequests { after, .. } | UpstreamError::Failed { after, .. } => Outlook::Passing(*after),
        UpstreamError::TimedOut { .. } | UpstreamError::TooSlow { .. } => Outlook::Passing(None),
        UpstreamError::Broken { .. } | UpstreamError::Short { .. } => Outlook::Cut,
        UpstreamError::Resolve { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::Connect { .. }
        | UpstreamError::Proxy { source: Some(_), .. } => Outlook::Unreached,
        _ => Outlook::Lasting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_up_to_a_limit_and_never_the_same_for_all() {
        let settings = Settings { backoff: Duration::from_millis(100), ..Settings::default() };
        let mut retry = Retry::new(&settings, &crate::event::silent);
        for failed in 1..40 {
            retry.failed = failed;
            let whole = Duration::from_millis(100 << (failed - 1).min(10)).min(LONGEST);
            let waits: Vec<Duration> = (0..20).map(|_| retry.backoff()).collect();
            assert!(waits.iter().all(|w| *w >= whole / 2 && *w <= whole), "{failed}: {waits:?}");
            assert!(waits.iter().any(|w| *w != waits[0]), "{failed}");
        }
    }
}
