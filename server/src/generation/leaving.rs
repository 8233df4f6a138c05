//! How a worker lets its sessions go: to the generation that follows, by their own end, or closed over a span of time.
//!
//! In: an order to leave. Out: sessions handed to workers of another generation, or closed; in the end word that none is left.
//!
//! Nothing here takes long at a time: a sweep looks at some sessions and lets the others be served before it goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::Generation;
use super::leave::{Closing, Leave};
use super::worker::{Worker, session_of};
use crate::session::{InTransit, Moving, Next, NoExport, Outcome, Returned, SessionKey};

/// Sessions that one sweep sends away, before those that wait for their messages get their turn.
const MOVES_PER_SWEEP: usize = 64;

/// Sessions that are closed at once, however long the closing may be spread.
const CLOSES_PER_PACE: usize = 32;

/// How often some more sessions are closed.
pub(super) const PACE: Duration = Duration::from_millis(50);

/// How far a worker has come with letting its sessions go.
pub(super) struct Leaving {
    how: Leave,
    /// The slot that the sweep looks at next; past the last one it has seen them all.
    next_slot: u32,
    /// Sessions that ran since the sweep passed them.
    later: Vec<SessionKey>,
}

impl Worker {
    pub(super) fn begin_to_leave(&mut self, how: Leave) {
        if matches!(how, Leave::Migrate { .. }) {
            // Another version is another chance for those whose state was not taken.
            for slot in self.sessions.slots() {
                if let Some(session) = self.sessions.get_mut(slot) {
                    session.ask_again();
                }
            }
        }
        self.leaving = Some(Leaving { how, next_slot: 0, later: Vec::new() });
        self.report_if_empty();
    }

    /// Whether there is something to be done for it right now.
    pub(super) fn is_sweeping(&self) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let has_more = leaving.next_slot < self.sessions.slots().end || !leaving.later.is_empty();
        matches!(leaving.how, Leave::Migrate { .. }) && has_more
    }

    /// Whether some sessions are closed at every beat.
    pub(super) fn is_paced(&self) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        matches!(leaving.how, Leave::Close(_)) && !self.sessions.is_empty()
    }

    /// A session that had its turn may be able to leave by now.
    pub(super) fn leave_later(&mut self, key: SessionKey) {
        let Some(leaving) = &mut self.leaving else { return };
        // One that the sweep has not reached yet needs no note. Closing has no second chance: it never fails.
        if matches!(leaving.how, Leave::Migrate { .. })
            && key.slot < leaving.next_slot
            && session_of(&mut self.sessions, key).is_some_and(|session| session.may_leave())
            && leaving.later.last() != Some(&key)
        {
            leaving.later.push(key);
        }
    }

    /// Lets some more sessions go.
    pub(super) fn sweep(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let now = Instant::now();
        match leaving.how.clone() {
            Leave::Migrate { until, .. } | Leave::Drain { until }
                if until.is_some_and(|until| now >= until) =>
            {
                // Whoever is left here did not go by itself.
                self.begin_to_leave(Leave::restart(Duration::ZERO));
                self.sweep();
            }
            Leave::Migrate { to, .. } => self.migrate_some(&to),
            Leave::Drain { .. } => {}
            Leave::Close(closing) if closing.cut.is_some_and(|cut| now >= cut) => self.drop_all_sessions(),
            Leave::Close(closing) => self.close_some(&closing, now),
        }
    }

    // ---- migrating -----------------------------------------------------------------------------------------------------

    fn migrate_some(&mut self, to: &Arc<Generation>) {
        let keys = self.next_keys(MOVES_PER_SWEEP);
        if keys.is_empty() {
            return;
        }
        for key in &keys {
            if let Some(session) = session_of(&mut self.sessions, *key) {
                session.hold_requests();
                self.desk.topics.depart(*key);
            }
        }
        // What was asked of them before belongs to this generation.
        self.run_commands();
        for key in keys {
            self.send_away(key, to);
        }
        self.report_if_empty();
    }

    /// Up to `most` sessions that may leave: those that were busy before, then those that were not looked at yet.
    fn next_keys(&mut self, most: usize) -> Vec<SessionKey> {
        let Self { leaving: Some(leaving), sessions, .. } = self else { return Vec::new() };
        let end = sessions.slots().end;
        let again = leaving.later.len().min(most);
        let mut keys = Vec::new();
        for key in leaving.later.drain(..again) {
            // One that ran several times stands there several times, and is asked once.
            if session_of(sessions, key).is_some() && !keys.contains(&key) {
                keys.push(key);
            }
        }
        while keys.len() < most && leaving.next_slot < end {
            if let Some(session) = sessions.get_mut(leaving.next_slot)
                && session.may_leave()
            {
                keys.push(session.key());
            }
            leaving.next_slot += 1;
        }
        keys
    }

    fn send_away(&mut self, key: SessionKey, to: &Arc<Generation>) {
        let Some(session) = session_of(&mut self.sessions, key) else { return };
        let state = match session.export(&mut self.desk, &self.env) {
            Ok(state) => state,
            Err(why) => {
                if why == NoExport::Refused {
                    session.stay_for_good();
                }
                session.release_requests();
                match session.finish_commands(&mut self.desk, &self.env) {
                    Next::Wait => {}
                    Next::Again => self.read_on(key),
                    Next::Remove => return self.remove(key),
                }
                self.hear_letters(key);
                return;
            }
        };
        if let Err(cause) = self.poller.remove(&session.link.stream) {
            warn!("cannot stop watching a socket: {cause}");
        }
        let session = self.sessions.remove(key.slot).expect("it was there a moment ago");
        let (moving, kept) = session.leave(state, &mut self.desk, &self.env);
        self.in_transit.insert(key, kept);
        to.adopt(InTransit::new(moving, to.number()));
    }

    /// The session has arrived where it was sent: its object here has served.
    pub(super) fn forget(&mut self, key: SessionKey) {
        let Some(kept) = self.in_transit.remove(&key) else { return };
        if let Some(handle) = kept.handle {
            handle.set_gone();
        }
        self.env.library.free(kept.instance);
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.report_if_empty();
    }

    /// The session was not taken: it goes on here.
    pub(super) fn take_back(&mut self, key: SessionKey, moving: Moving, why: Returned) {
        let Some(kept) = self.in_transit.remove(&key) else { return };
        // If the target has changed meanwhile, the next one may serve it; otherwise a new order will come.
        let asks_again = match (why, &self.leaving) {
            (Returned::NotServed { by }, Some(Leaving { how: Leave::Migrate { to, .. }, .. })) => {
                to.number() != by
            }
            _ => false,
        };
        let key = SessionKey { slot: self.sessions.next_slot(), serial: key.serial };
        let mut session = moving.come_home(kept, key, why, &mut self.desk, &self.env);
        let watched = self.poller.add(&session.link.stream, key);
        if let Err(cause) = watched {
            let outcome = Outcome::Lost(format!("its socket cannot be watched any more: {cause}"));
            session.drop_connection(outcome, &mut self.desk, &self.env);
        }
        self.sessions.insert(session);
        let Some(session) = session_of(&mut self.sessions, key) else { return };
        let next = session.finish_commands(&mut self.desk, &self.env);
        match next {
            Next::Wait => {}
            Next::Again => self.read_on(key),
            Next::Remove => return self.remove(key),
        }
        self.hear_letters(key);
        if let Some(leaving) = &mut self.leaving
            && asks_again
        {
            leaving.later.push(key);
        }
        self.close_if_late(key);
    }

    /// Takes over a session of the generation before.
    pub(super) fn adopt(&mut self, session: InTransit) {
        if self.leaving.is_some() {
            // Dropped, it returns to where it came from.
            self.load.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let moving = session.take();
        let key = SessionKey { slot: self.sessions.next_slot(), serial: self.next_serial() };
        if let Err(cause) = self.poller.add(moving.stream(), key) {
            warn!("cannot watch a socket: {cause}");
            self.load.fetch_sub(1, Ordering::Relaxed);
            return moving.send_back(Returned::Refused);
        }
        match moving.import(key, &mut self.desk, &self.env) {
            Ok((session, arrived)) => {
                let goes_on = arrived.goes_on;
                self.sessions.insert(session);
                arrived.tell(&self.env.inbox, key);
                self.hear_letters(key);
                if goes_on && let Some(session) = session_of(&mut self.sessions, key) {
                    let next = session.go_on(&mut self.desk, &self.env);
                    self.after(key, next);
                }
                // What came to the socket meanwhile, and what waits for it to take more, is an event of the new registration.
            }
            Err(moving) => {
                debug!(handler = self.env.generation.name(), "the new code did not take over a session");
                let _ = self.poller.remove(moving.stream());
                self.load.fetch_sub(1, Ordering::Relaxed);
                moving.send_back(Returned::Refused);
            }
        }
    }

    // ---- closing -------------------------------------------------------------------------------------------------------

    /// Closes as many as it takes to be through in time.
    fn close_some(&mut self, closing: &Closing, now: Instant) {
        let Some(leaving) = &mut self.leaving else { return };
        let end = self.sessions.slots().end;
        let beats = closing.spread_until.saturating_duration_since(now).as_nanos() / PACE.as_nanos() + 1;
        let left = u128::from(end.saturating_sub(leaving.next_slot));
        let slots = left.div_ceil(beats).max(CLOSES_PER_PACE as u128).min(left) as u32;
        let from = leaving.next_slot;
        leaving.next_slot += slots;
        for slot in from..from + slots {
            self.close_in(slot, closing);
        }
    }

    fn close_in(&mut self, slot: u32, closing: &Closing) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let key = session.key();
        session.close(closing.code, closing.reason, &mut self.desk, &self.env);
        let next = session.finish_commands(&mut self.desk, &self.env);
        self.after(key, next);
    }

    /// A session that opened after the order was given, in a slot that was passed already.
    pub(super) fn close_if_late(&mut self, key: SessionKey) {
        let Some(leaving) = &self.leaving else { return };
        if let Leave::Close(closing) = &leaving.how
            && key.slot < leaving.next_slot
        {
            let closing = closing.clone();
            self.close_in(key.slot, &closing);
        }
    }

    // ---- the end -------------------------------------------------------------------------------------------------------

    /// Tells the generation that no session is left on this worker, and none will come.
    pub(super) fn report_if_empty(&mut self) {
        if self.leaving.is_some()
            && self.sessions.is_empty()
            && self.accepted.is_empty()
            && self.in_transit.is_empty()
        {
            self.env.generation.worker_is_empty(self.index);
        }
    }

    pub(super) fn drop_all_sessions(&mut self) {
        let slots = self.sessions.slots();
        let keys: Vec<_> = slots.filter_map(|slot| Some(self.sessions.get_mut(slot)?.key())).collect();
        for key in keys {
            let Some(session) = session_of(&mut self.sessions, key) else { continue };
            let outcome = Outcome::Lost("the server stopped before the peer answered Close".into());
            session.drop_connection(outcome, &mut self.desk, &self.env);
            self.remove(key);
        }
        for slot in self.accepted.slots() {
            if let Some(waiting) = self.accepted.remove(slot) {
                self.env.library.free(waiting.instance);
                self.load.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.report_if_empty();
    }
}
