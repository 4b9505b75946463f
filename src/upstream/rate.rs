//! A limit to how much comes in a second, for all that comes together.
//!
//! Always true: over any time longer than a moment no more was taken than the limit allows. What is not taken waits on the other side,
//! which slows down by itself.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how much time what was not used may be used later.
const CREDIT: Duration = Duration::from_millis(100);

/// A rate, and how far it is used.
pub(super) struct Rate {
    /// In bytes a second.
    limit: NonZeroU64,
    /// When all that was taken has been paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    pub(super) fn new(limit: NonZeroU64) -> Rate {
        Rate { limit, paid: Mutex::new(Instant::now()) }
    }

    /// Takes so many bytes, and waits until they are paid for.
    pub(super) async fn spend(&self, bytes: u64) {
        let now = Instant::now();
        let until = self.charge(bytes, now);
        if until > now {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// When so many bytes more are paid for.
    fn charge(&self, bytes: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.limit.get() as f64);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let from = now.checked_sub(CREDIT).map_or(*paid, |earliest| earliest.max(*paid));
        *paid = from + cost;
        *paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_pays_and_all_together() {
        let rate = Rate::new(NonZeroU64::new(1_000_000).unwrap());
        let began = Instant::now();
        assert!(rate.charge(50_000, began) <= began + Duration::from_millis(50));
        let mut until = began;
        for _ in 0..100 {
            until = rate.charge(10_000, began);
        }
        let took = until - began;
        assert!(took > Duration::from_millis(940) && took < Duration::from_millis(1060), "{took:?}");
        let later = until + Duration::from_secs(5);
        assert_eq!(rate.charge(1_000_000, later), later + Duration::from_millis(900), "five idle seconds give no more than a moment");
    }
}
