//! Who may still come in, and when the last one is out.
//!
//! A generation ends exactly once, after the last of its workers has nobody left. That has to be right in every order of
//! threads: peers that come in, workers that are started for them, the order to leave, workers that become empty.

use std::sync::PoisonError;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    /// A copy of the state's, so that a peer that comes in takes no lock.
    is_leaving: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_leaving: bool,
    workers: Vec<WorkerState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerState {
    NotStarted,
    Started,
    /// Nobody is left on it, and nobody will come.
    Empty,
}

impl Gate {
    pub(super) fn new(workers: usize) -> Self {
        let state = State { is_leaving: false, workers: vec![WorkerState::NotStarted; workers] };
        Self { is_leaving: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Whether nobody is taken any more. A peer that was let in just before is told so by the worker.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Starts a worker, unless it runs already. False once the generation is leaving: nobody starts one then.
    pub(super) fn start<E>(&self, worker: usize, start: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
        let mut state = self.state();
        if state.is_leaving {
            return Ok(false);
        }
        if state.workers[worker] == WorkerState::NotStarted {
            start()?;
            state.workers[worker] = WorkerState::Started;
        }
        Ok(true)
    }

    /// From now on nobody is taken. True for the first call. When it returns, every worker that will ever run has been started.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state();
        self.is_leaving.store(true, Ordering::Release);
        !std::mem::replace(&mut state.is_leaving, true)
    }

    /// Nobody is left on this worker, which was told to leave. True for exactly one call: that of the last one.
    pub(super) fn is_last_out(&self, worker: usize) -> bool {
        let mut state = self.state();
        if state.workers[worker] == WorkerState::Empty {
            return false;
        }
        state.workers[worker] = WorkerState::Empty;
        state.workers.iter().all(|worker| *worker != WorkerState::Started)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, wshd_loom))]
mod models {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    /// A peer for whom a worker is started while the order to leave is given: either it is turned away, or its worker is
    /// among those that are waited for. The end comes once.
    #[test]
    fn model_the_last_one_out_is_one() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(2));
            let ends = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
            assert_eq!(gate.start(0, || Ok::<_, ()>(())), Ok(true));
            let peer = {
                let gate = gate.clone();
                thread::spawn(move || !gate.is_leaving() && gate.start(1, || Ok::<_, ()>(())) == Ok(true))
            };
            let first = {
                let (gate, ends) = (gate.clone(), ends.clone());
                thread::spawn(move || {
                    gate.close();
                    if gate.is_last_out(0) {
                        ends.fetch_add(1, Ordering::Relaxed);
                    }
                })
            };
            let started = peer.join().unwrap();
            first.join().unwrap();
            // The worker that was started hears of the order too, and empties.
            if started && gate.is_last_out(1) {
                ends.fetch_add(1, Ordering::Relaxed);
            }
            assert!(!gate.close(), "the first order was the other one");
            assert_eq!(ends.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn model_two_workers_that_empty_at_once_end_once() {
        loom::model(|| {
            let gate = Arc::new(Gate::new(2));
            for worker in 0..2 {
                let _ = gate.start(worker, || Ok::<_, ()>(()));
            }
            gate.close();
            let other = {
                let gate = gate.clone();
                thread::spawn(move || gate.is_last_out(1))
            };
            let first = gate.is_last_out(0);
            assert!(first ^ other.join().unwrap(), "one of the two is the last one");
            assert!(!gate.is_last_out(0) && !gate.is_last_out(1), "and nobody is it twice");
        });
    }
}
