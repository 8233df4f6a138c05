//! Timers: who wants to be called when.
//!
//! A worker keeps those of its sessions, and each library keeps its own for worker 0. What is next is the first of a tree, so a
//! worker waits for one moment however many timers there are, and a timer that is stopped leaves nothing behind. A session
//! without timers is not in here at all.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use handler_api::abi::{self, wsh_status};

/// Timers of one owner that may run at a time.
pub(crate) const TIMERS_MAX: usize = 64;

/// Longer than any server runs; far from where a clock ends.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The timers of many owners.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    /// By time, then in the order in which they were started.
    queue: BTreeMap<Moment, (K, u64)>,
    owners: HashMap<K, Vec<Timer>>,
    last_order: u64,
}

/// When a timer is due. No two are equal.
type Moment = (Instant, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timer {
    token: u64,
    due: Moment,
    /// Zero: once.
    every: Duration,
}

// By hand, because the owners need no default.
impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { queue: BTreeMap::new(), owners: HashMap::new(), last_order: 0 }
    }
}

impl<K: Copy + Eq + Hash> Timers<K> {
    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    /// Starts a timer, or starts it anew.
    pub(crate) fn start(
        &mut self,
        owner: K,
        token: u64,
        after_ms: u64,
        every_ms: u64,
        now: Instant,
    ) -> wsh_status {
        self.stop(owner, token);
        if self.owners.get(&owner).is_some_and(|timers| timers.len() >= TIMERS_MAX) {
            return abi::WSH_E_TOO_BIG;
        }
        let (after, every) = (Duration::from_millis(after_ms.max(1)), Duration::from_millis(every_ms));
        self.insert(owner, token, now + after.min(LONGEST), every.min(LONGEST));
        abi::WSH_OK
    }

    pub(crate) fn stop(&mut self, owner: K, token: u64) -> wsh_status {
        match self.remove(owner, token) {
            Some(timer) => {
                self.queue.remove(&timer.due);
                abi::WSH_OK
            }
            None => abi::WSH_E_NOT_FOUND,
        }
    }

    /// Takes a timer whose time has come. One that repeats is due again after `now`: what it missed is left out.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(K, u64)> {
        let first = self.queue.first_entry()?;
        let (due, _) = *first.key();
        if due > now {
            return None;
        }
        let (owner, token) = first.remove();
        let every = self.remove(owner, token).map_or(Duration::ZERO, |timer| timer.every);
        if !every.is_zero() {
            let missed = (now - due).as_nanos() / every.as_nanos();
            let skipped = Duration::from_nanos(u64::try_from(missed * every.as_nanos()).unwrap_or(u64::MAX));
            self.insert(owner, token, due + skipped + every, every);
        }
        Some((owner, token))
    }

    /// Takes all timers of an owner, as when it leaves.
    pub(crate) fn take(&mut self, owner: K) -> Vec<Timer> {
        if self.owners.is_empty() {
            return Vec::new();
        }
        let timers = self.owners.remove(&owner).unwrap_or_default();
        for timer in &timers {
            self.queue.remove(&timer.due);
        }
        timers
    }

    /// Puts timers back that were taken, for this owner.
    pub(crate) fn put(&mut self, owner: K, timers: &[Timer]) {
        for timer in timers {
            self.insert(owner, timer.token, timer.due.0, timer.every);
        }
    }

    fn insert(&mut self, owner: K, token: u64, due: Instant, every: Duration) {
        self.last_order += 1;
        let due = (due, self.last_order);
        self.queue.insert(due, (owner, token));
        self.owners.entry(owner).or_default().push(Timer { token, due, every });
    }

    /// From its owner, not from the queue.
    fn remove(&mut self, owner: K, token: u64) -> Option<Timer> {
        let timers = self.owners.get_mut(&owner)?;
        let index = timers.iter().position(|timer| timer.token == token)?;
        let timer = timers.swap_remove(index);
        if timers.is_empty() {
            self.owners.remove(&owner);
        }
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers<u32>, now: Instant) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| timers.take_due(now)).collect()
    }

    #[test]
    fn timers_come_in_the_order_of_their_times_and_leave_nothing_behind() {
        let (mut timers, begin) = (Timers::default(), Instant::now());
        for (owner, token, after) in [(1, 1, 30), (1, 2, 10), (2, 1, 20), (2, 2, 20)] {
            assert_eq!(timers.start(owner, token, after, 0, begin), abi::WSH_OK);
        }
        assert_eq!(timers.next_due(), Some(begin + Duration::from_millis(10)));
        assert_eq!(timers.start(1, 2, 25, 0, begin), abi::WSH_OK, "begun anew");
        assert_eq!(timers.stop(2, 2), abi::WSH_OK);
        assert_eq!(timers.stop(2, 2), abi::WSH_E_NOT_FOUND);
        assert_eq!(due(&mut timers, begin + Duration::from_millis(19)), []);
        assert_eq!(due(&mut timers, begin + Duration::from_millis(30)), [(2, 1), (1, 2), (1, 1)]);
        assert!(timers.queue.is_empty() && timers.owners.is_empty());
    }

    #[test]
    fn a_repeating_timer_does_not_pile_up_and_keeps_its_beat() {
        let (mut timers, begin) = (Timers::default(), Instant::now());
        timers.start(1, 1, 10, 10, begin);
        assert_eq!(due(&mut timers, begin + Duration::from_millis(57)), [(1, 1)]);
        assert_eq!(timers.next_due(), Some(begin + Duration::from_millis(60)));
        assert_eq!(due(&mut timers, begin + Duration::from_millis(60)), [(1, 1)]);
        assert_eq!(timers.next_due(), Some(begin + Duration::from_millis(70)));
    }

    #[test]
    fn each_owner_has_a_bound_of_its_own_and_no_time_is_too_short_or_too_long() {
        let (mut timers, begin) = (Timers::default(), Instant::now());
        for token in 0..TIMERS_MAX as u64 {
            assert_eq!(timers.start(1, token, 0, u64::MAX, begin), abi::WSH_OK);
        }
        assert_eq!(timers.start(1, 1000, 1, 0, begin), abi::WSH_E_TOO_BIG);
        assert_eq!(timers.start(1, 0, u64::MAX, 0, begin), abi::WSH_OK, "it runs already");
        assert_eq!(timers.start(2, 1000, 1, 0, begin), abi::WSH_OK);
        assert_eq!(due(&mut timers, begin), [], "at least a millisecond");
        assert_eq!(due(&mut timers, begin + Duration::from_millis(1)).len(), TIMERS_MAX);
    }

    #[test]
    fn an_owner_that_leaves_takes_its_timers_along() {
        let (mut old, mut new, begin) = (Timers::default(), Timers::default(), Instant::now());
        old.start(1, 5, 10, 10, begin);
        old.start(2, 6, 10, 0, begin);
        let taken = old.take(1);
        new.put(7, &taken);
        assert_eq!(due(&mut old, begin + Duration::from_millis(10)), [(2, 6)]);
        assert_eq!(due(&mut new, begin + Duration::from_millis(10)), [(7, 5)]);
        assert_eq!(new.next_due(), Some(begin + Duration::from_millis(20)));
    }
}
