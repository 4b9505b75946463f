//! How many connections bring blobs at once.
//!
//! One for each blob that is on its way, and more beside them as long as more bring more: some servers and long ways give
//! each connection only so much. Always true: more are tried only while blobs wait for the network, and those that brought nothing are given
//! up again. Knows no blob and no request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long what comes is counted before it is judged, if answers come soon.
const PERIOD: Duration = Duration::from_millis(100);

/// The longest that an answer is taken to take to begin, whatever the last ones did.
const SLOWEST: Duration = Duration::from_secs(1);

/// After how long it is tried again whether more bring more.
const HOLD: Duration = Duration::from_secs(10);

/// What is not little, in bytes a second: from one connection, and from all. Hashing and writing take as long.
const PLENTY_EACH: f64 = 60e6;
const PLENTY: f64 = 250e6;

/// Which part of the time blobs wait for the network when that is what is slow.
const WAITING: f64 = 0.7;

/// By how much more connections have to bring more.
const WORTH: f64 = 1.15;

/// The least that is asked for at once.
const LEAST: u64 = 1 << 20;

/// How many connections there may be, for all blobs of one [`Upstream`](super::Upstream).
pub(super) struct Width {
    most: usize,
    state: Mutex<State>,
}

struct State {
    /// How many blobs are on their way.
    blobs: usize,
    /// How many connections there may be since more bring more, with the first of each blob; zero before that was tried.
    grown: usize,
    /// How many there are beside the first of each blob.
    beside: usize,
    /// Since when it is counted, what came, and how long blobs waited for it.
    since: Instant,
    came: u64,
    waited: Duration,
    /// How long answers take to begin.
    answer: Duration,
    /// What a connection gives in a second.
    each: f64,
    /// What there was before more were tried: connections, and bytes a second.
    before: Option<(usize, f64)>,
    /// Until when no more are tried.
    hold: Option<Instant>,
}

/// A blob that is on its way.
pub(super) struct OnItsWay<'a>(&'a Width);

/// Leave to ask for something before it is its turn, until it is dropped.
pub(super) struct Leave<'a> {
    width: &'a Width,
    /// Whether this is the one that every blob may have.
    own: bool,
}

impl Width {
    /// As many as it takes, up to `most`.
    pub(super) fn new(most: usize) -> Width {
        Width { most, state: Mutex::new(State::new(Instant::now())) }
    }

    /// Another blob is on its way.
    pub(super) fn enter(&self) -> OnItsWay<'_> {
        let mut state = self.state();
        if state.blobs == 0 {
            state.begin(Instant::now());
        }
        state.blobs += 1;
        OnItsWay(self)
    }

    /// Whether there may be connections beside the first of each blob.
    pub(super) fn is_wide(&self) -> bool {
        let state = self.state();
        state.grown > state.blobs
    }

    /// Leave to ask for something before it is its turn: over the one connection that the blob may have anyway, or over one beside it.
    pub(super) fn take(&self, own: bool) -> Option<Leave<'_>> {
        let mut state = self.state();
        if !own && state.blobs + state.beside >= state.grown {
            return None;
        }
        state.beside += usize::from(!own);
        Some(Leave { width: self, own })
    }

    /// An answer took so long to begin.
    pub(super) fn answered(&self, took: Duration) {
        let mut state = self.state();
        let took = took.min(SLOWEST);
        state.answer = if state.answer.is_zero() { took } else { (3 * state.answer + took) / 4 };
        // Before the first answer nothing can come.
        if state.came == 0 && state.before.is_none() {
            state.begin(Instant::now());
        }
    }

    /// How much is asked for at once: several times what comes while an answer is waited for.
    pub(super) fn stretch(&self) -> u64 {
        LEAST.max(self.state().in_answers(8.0))
    }

    /// How much one connection brings while a new one comes about and is answered.
    pub(super) fn meanwhile(&self) -> u64 {
        self.state().in_answers(2.0)
    }

    /// So much came.
    pub(super) fn came(&self, bytes: u64) {
        self.state().count(bytes, Duration::ZERO, Instant::now(), self.most);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(now: Instant) -> State {
        let (waited, answer) = (Duration::ZERO, Duration::ZERO);
        State { blobs: 0, grown: 0, beside: 0, since: now, came: 0, waited, answer, each: 0.0, before: None, hold: None }
    }

    fn begin(&mut self, at: Instant) {
        (self.since, self.came, self.waited) = (at, 0, Duration::ZERO);
    }

    /// What a connection brings in the time of so many answers.
    fn in_answers(&self, answers: f64) -> u64 {
        (self.each * answers * self.answer.as_secs_f64()) as u64
    }

    fn count(&mut self, bytes: u64, waited: Duration, now: Instant, most: usize) {
        // What comes while new connections come about says nothing of them.
        if now >= self.since {
            self.came += bytes;
            self.waited += waited;
            self.judge(now, most);
        }
    }

    /// Tries more, keeps them or gives them up again.
    fn judge(&mut self, now: Instant, most: usize) {
        let period = PERIOD.max(2 * self.answer);
        let Some(counted) = now.checked_duration_since(self.since).filter(|c| *c >= period) else { return };
        let rate = self.came as f64 / counted.as_secs_f64();
        self.each = rate / (self.blobs + self.beside).max(1) as f64;
        let waiting = self.waited.as_secs_f64() > WAITING * counted.as_secs_f64() * self.blobs as f64;
        let starved = waiting && rate < PLENTY && self.each < PLENTY_EACH;
        self.begin(now);
        match self.before.take() {
            Some((grown, before)) if rate < before * WORTH => {
                (self.grown, self.hold) = (grown, Some(now + HOLD));
                return;
            }
            Some(_) => {}
            None if self.hold.is_some_and(|until| now < until) => return,
            None => {}
        }
        let there = self.grown.max(self.blobs);
        let more = (2 * there).min(most);
        if starved && more > there {
            self.before = Some((self.grown, rate));
            self.grown = more;
            // A new connection brings nothing for as long as it takes to come about and to be answered: longer than an answer over an old one.
            self.since = now + PERIOD / 4 + 2 * self.answer;
        }
    }
}

impl OnItsWay<'_> {
    /// So long was waited for what came of this blob, or for nothing.
    pub(super) fn waited(&self, waited: Duration) {
        self.0.state().count(0, waited, Instant::now(), self.0.most);
    }
}

impl Leave<'_> {
    /// Whether this is the one that every blob may have.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// The server would not have one more.
    pub(super) fn refused(&self) {
        let mut state = self.width.state();
        state.grown = state.blobs + state.beside / 2;
        (state.before, state.hold) = (None, Some(Instant::now() + HOLD));
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        // How many connections there may be in all does not change: what this blob leaves is for others.
        self.0.state().blobs -= 1;
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.width.state().beside -= usize::from(!self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16;

    /// A link that gives so many bytes a second to each connection and so many in all, where a connection takes two of these round trips until
    /// it brings something; how many connections there are after so many seconds.
    fn on(each: f64, all: f64, round_trip: f64, blobs: usize, seconds: f64) -> usize {
        const STEP: f64 = 0.01;
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        let mut state = State { blobs, answer: Duration::from_secs_f64(round_trip), ..State::new(start) };
        // When each of the connections beside begins to bring something.
        let mut ready = vec![0.0; blobs];
        let mut now = 0.0;
        while now < seconds {
            now += STEP;
            let there = state.grown.max(blobs);
            state.beside = there - blobs;
            ready.truncate(there);
            ready.resize(there, now + 2.0 * round_trip);
            let bring = ready.iter().filter(|ready| **ready < now).count();
            let bytes = ((each * bring as f64).min(all) * STEP) as u64;
            state.count(bytes, Duration::from_secs_f64(STEP * blobs as f64), at(now), MOST);
        }
        state.grown.max(blobs)
    }

    #[test]
    fn connections_are_opened_as_long_as_they_bring_more() {
        for round_trip in [0.0, 0.05, 0.2, 0.5] {
            let soon = 0.6 + 12.0 * round_trip;
            assert_eq!(on(20e6, 1e9, round_trip, 4, soon), MOST, "where each has a limit, there are many: {round_trip}");
            assert_eq!(on(20e6, 1e9, round_trip, 1, 2.0 * soon), MOST, "for one blob too: {round_trip}");
            assert_eq!(on(20e6, 80e6, round_trip, 4, soon), 4, "where the link has one, more are given up: {round_trip}");
            assert_eq!(on(20e6, 60e6, round_trip, 1, 2.0 * soon), 4, "as many as fill the link: {round_trip}");
        }
    }

    #[test]
    fn none_is_opened_for_who_does_not_wait() {
        let mut now = Instant::now();
        let mut state = State { blobs: 2, ..State::new(now) };
        for _ in 0..20 {
            now += PERIOD;
            state.count(1 << 30, PERIOD / 3, now, MOST);
        }
        assert_eq!(state.grown, 0);
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let width = Width::new(MOST);
        let _blob = width.enter();
        assert!(width.take(false).is_none() && width.take(true).is_some());
        for grown in 2..=MOST {
            width.state().grown = grown;
            let all: Vec<_> = std::iter::from_fn(|| width.take(false)).collect();
            assert_eq!(all.len(), grown - 1);
        }
        assert_eq!(width.state().beside, 0);
    }

    #[test]
    fn what_a_blob_leaves_is_for_the_others() {
        let width = Width::new(MOST);
        let (_stays, leaves) = (width.enter(), width.enter());
        assert!(width.take(false).is_none() && !width.is_wide());
        width.state().grown = 2;
        assert!(width.take(false).is_none() && !width.is_wide());
        drop(leaves);
        assert!(width.take(false).is_some() && width.is_wide());
    }
}
