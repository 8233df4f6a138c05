//! The state machine of one handler: which generation serves, which are leaving, what is to be loaded next.
//!
//! In: what a look at the folder found, how a load ended, that a generation has ended. Out: orders, which the registry carries
//! out. Nothing here does anything by itself or asks what time it is, so every order of events can be tested.
//!
//! ```text
//! seen -> [load] -> active -> leaving -> ended
//!            |        ^ |
//!            |        | +- rollback: the previous one is loaded again
//!            v        |
//!         refused     +-- what was active before goes on until the new one is ready
//! ```

use std::time::{Duration, Instant};

use super::Found;
use super::stat::Stat;

/// A handler is not loaded more often than this, however often its file changes.
pub(super) const LOAD_INTERVAL: Duration = Duration::from_millis(250);

/// A loaded copy of a library, as far as the state machine is concerned.
pub(super) trait Version: Clone {
    /// Counted from 1 for each handler.
    fn number(&self) -> u64;

    /// Of the library's content and what it was told of the config.
    fn hash(&self) -> [u8; 32];
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slot<G> {
    last_number: u64,
    /// The file as the last look found it; `None` if there is none.
    seen: Option<(Found, Stat)>,
    /// What is to be loaded as soon as it may be.
    wanted: Option<Source<G>>,
    loading: Option<Loading>,
    not_before: Option<Instant>,
    active: Option<G>,
    /// What was active before: the target of a rollback. It may have ended; its copy is kept.
    previous: Option<G>,
    leaving: Vec<G>,
    /// Why the file that is there is not served, with the hash of its content where that is known.
    refused: Option<Refusal>,
    /// Content that was rolled back from: it is not loaded again until the file changes to something else.
    shunned: Option<[u8; 32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loading {
    number: u64,
    is_rollback: bool,
    /// The file was deleted meanwhile.
    is_obsolete: bool,
}

/// A library that is not served, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(super) reason: String,
    pub(super) hash: Option<[u8; 32]>,
}

/// Where a generation is to be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source<G> {
    File(Found),
    /// The private copy of a generation that was loaded before.
    Copy(G),
}

/// How a load ended.
#[derive(Debug)]
pub(crate) enum Loaded<G> {
    Ready(G),
    /// The content is one that is known already: this.
    Same([u8; 32]),
    Refused(Refusal),
}

/// What the registry has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order<G> {
    Load {
        source: Source<G>,
        number: u64,
    },
    /// New peers go to the active generation, or get 404 if there is none any more.
    Route,
    /// The sessions of `who` go to `to`, or by themselves.
    Leave {
        who: G,
        to: Option<G>,
    },
    /// Ask again at this time.
    Wait(Instant),
}

/// Why there is no rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRollback {
    /// Nothing was active before.
    NoPrevious,
    /// A load is under way.
    Loading,
    NotServed,
}

impl<G> Default for Slot<G> {
    fn default() -> Self {
        Self {
            last_number: 0,
            seen: None,
            wanted: None,
            loading: None,
            not_before: None,
            active: None,
            previous: None,
            leaving: Vec::new(),
            refused: None,
            shunned: None,
        }
    }
}

impl<G: Version> Slot<G> {
    pub(super) fn active(&self) -> Option<&G> {
        self.active.as_ref()
    }

    /// Generations whose sessions are going, the oldest first.
    pub(super) fn leaving(&self) -> &[G] {
        &self.leaving
    }

    pub(super) fn refused(&self) -> Option<&Refusal> {
        self.refused.as_ref()
    }

    pub(super) fn found(&self) -> Option<&Found> {
        self.seen.as_ref().map(|(found, _)| found)
    }

    /// Content that need not be loaded, because what would come of it is known.
    pub(super) fn known(&self) -> Vec<[u8; 32]> {
        let active = self.active.as_ref().map(Version::hash);
        let refused = self.refused.as_ref().and_then(|refused| refused.hash);
        active.into_iter().chain(refused).chain(self.shunned).collect()
    }

    /// Whether nothing is being loaded or waits to be.
    pub(super) fn is_settled(&self) -> bool {
        self.loading.is_none() && self.wanted.is_none()
    }

    #[cfg(test)]
    fn is_rolling_back(&self) -> bool {
        self.loading.is_some_and(|loading| loading.is_rollback)
    }

    /// Whether the slot can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.is_settled() && self.seen.is_none() && self.active.is_none() && self.leaving.is_empty()
    }

    /// A look at the handlers folders found this file for the handler, or none.
    pub(super) fn look(&mut self, found: Option<(Found, Stat)>, now: Instant) -> Vec<Order<G>> {
        if found == self.seen {
            return self.start_wanted(now);
        }
        self.seen = found;
        let Some((found, _)) = &self.seen else { return self.remove() };
        self.wanted = Some(Source::File(found.clone()));
        self.start_wanted(now)
    }

    /// The time that was waited for has come.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Order<G>> {
        self.start_wanted(now)
    }

    /// An operator asks for the file that is there to be looked at again, also if it was refused or rolled back from.
    pub(super) fn insist(&mut self, now: Instant) -> Vec<Order<G>> {
        self.refused = None;
        self.shunned = None;
        self.not_before = None;
        if let Some((found, _)) = &self.seen {
            self.wanted = Some(Source::File(found.clone()));
        }
        self.start_wanted(now)
    }

    /// The code would be told something else now: it is loaded again, unless that is known already.
    pub(super) fn again(&mut self, now: Instant) -> Vec<Order<G>> {
        let Some((found, _)) = &self.seen else { return Vec::new() };
        self.wanted = Some(Source::File(found.clone()));
        self.start_wanted(now)
    }

    fn remove(&mut self) -> Vec<Order<G>> {
        self.wanted = None;
        self.refused = None;
        self.shunned = None;
        if let Some(loading) = &mut self.loading {
            loading.is_obsolete = true;
        }
        let Some(active) = self.active.take() else { return Vec::new() };
        self.previous = Some(active.clone());
        self.leaving.push(active);
        self.route_and_leave()
    }

    fn start_wanted(&mut self, now: Instant) -> Vec<Order<G>> {
        if self.loading.is_some() || self.wanted.is_none() {
            return Vec::new();
        }
        if let Some(not_before) = self.not_before.filter(|not_before| now < *not_before) {
            return vec![Order::Wait(not_before)];
        }
        let Some(source) = self.wanted.take() else { return Vec::new() };
        self.not_before = Some(now + LOAD_INTERVAL);
        self.last_number += 1;
        let is_rollback = matches!(source, Source::Copy(_));
        self.loading = Some(Loading { number: self.last_number, is_rollback, is_obsolete: false });
        vec![Order::Load { source, number: self.last_number }]
    }

    /// The load of this number has ended.
    pub(super) fn loaded(&mut self, number: u64, loaded: Loaded<G>, now: Instant) -> Vec<Order<G>> {
        let Some(loading) = self.loading.take_if(|loading| loading.number == number) else {
            return Vec::new();
        };
        let mut orders = match loaded {
            Loaded::Same(hash) => {
                // The number was for nothing; generations count without holes.
                self.last_number -= 1;
                if self.active.as_ref().is_some_and(|active| active.hash() == hash) {
                    // What was there in between is gone.
                    self.refused = None;
                    self.shunned = None;
                }
                Vec::new()
            }
            Loaded::Refused(refusal) => {
                self.last_number -= 1;
                if !loading.is_obsolete && !loading.is_rollback {
                    self.refused = Some(refusal);
                }
                Vec::new()
            }
            Loaded::Ready(generation) if loading.is_obsolete => {
                self.leaving.push(generation.clone());
                vec![Order::Leave { who: generation, to: self.active.clone() }]
            }
            Loaded::Ready(generation) => self.activate(generation, loading.is_rollback),
        };
        orders.extend(self.start_wanted(now));
        orders
    }

    fn activate(&mut self, generation: G, is_rollback: bool) -> Vec<Order<G>> {
        let old = self.active.replace(generation);
        if is_rollback {
            self.shunned = old.as_ref().map(Version::hash);
        } else {
            self.refused = None;
            self.shunned = None;
        }
        if let Some(old) = old {
            self.previous = Some(old.clone());
            self.leaving.push(old);
        }
        self.route_and_leave()
    }

    /// Whoever is leaving gets the new target, also who was on the way to another one.
    fn route_and_leave(&self) -> Vec<Order<G>> {
        let to = self.active.clone();
        let leave = |who: &G| Order::Leave { who: who.clone(), to: to.clone() };
        std::iter::once(Order::Route).chain(self.leaving.iter().map(leave)).collect()
    }

    /// Loads what was active before once more.
    pub(super) fn roll_back(&mut self, now: Instant) -> Result<Vec<Order<G>>, NoRollback> {
        if self.active.is_none() {
            return Err(NoRollback::NotServed);
        }
        if !self.is_settled() {
            return Err(NoRollback::Loading);
        }
        let previous = self.previous.clone().ok_or(NoRollback::NoPrevious)?;
        self.wanted = Some(Source::Copy(previous));
        self.not_before = None;
        Ok(self.start_wanted(now))
    }

    /// Whether a version that fails in its first moments may give way by itself: there is a previous one, and that is not
    /// one that was rolled back from.
    pub(super) fn may_fall_back(&self) -> bool {
        self.is_settled()
            && self.active.is_some()
            && self.previous.as_ref().is_some_and(|previous| Some(previous.hash()) != self.shunned)
    }

    /// A generation is over.
    pub(super) fn ended(&mut self, number: u64) {
        self.leaving.retain(|generation| generation.number() != number);
    }
}

#[cfg(test)]
mod tests;
