//! Work that a library does not want to do on a worker, because it blocks: some threads of its generation that do it.
//!
//! Threads start when there is work and none is idle, and stay until the generation ends. What was accepted is run, exactly once:
//! the end waits for it, because what the work points at would otherwise be nobody's.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use handler_api::abi::{self, wsh_status};
use tracing::warn;

use super::Owner;

/// How much of it there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OffloadLimits {
    pub(crate) threads_max: usize,
    /// Work that waits for a thread.
    pub(crate) queue_max: usize,
}

/// See the module. One for each generation.
#[derive(Debug)]
pub(crate) struct Offload {
    limits: OffloadLimits,
    /// Of the generation, for the names of its threads.
    name: String,
    owner: Arc<Owner>,
    state: Mutex<State>,
    /// There is work, or there will be none.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Work>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for work.
    idle: usize,
    is_open: bool,
}

/// A function of the library and what it is called with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) run: unsafe extern "C" fn(*mut c_void),
    pub(super) context: *mut c_void,
}

// SAFETY: the library passes both for exactly this, to be called on another thread (wsh.h).
unsafe impl Send for Work {}

impl Offload {
    pub(crate) fn new(limits: OffloadLimits, name: String, owner: Arc<Owner>) -> Arc<Self> {
        let state = State { queue: VecDeque::new(), threads: Vec::new(), idle: 0, is_open: true };
        Arc::new(Self { limits, name, owner, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Has it run soon, from any thread. With an error it is not run.
    pub(super) fn accept(self: &Arc<Self>, work: Work) -> wsh_status {
        let mut state = self.state();
        if !state.is_open {
            return abi::WSH_E_CLOSED;
        }
        if state.queue.len() >= self.limits.queue_max {
            return abi::WSH_E_FULL;
        }
        if state.queue.len() >= state.idle && state.threads.len() < self.limits.threads_max {
            match self.start(state.threads.len()) {
                Ok(thread) => state.threads.push(thread),
                Err(error) if state.threads.is_empty() => {
                    warn!("{} cannot start a thread for what it offloads: {error}", self.name);
                    return abi::WSH_E_NO_MEMORY;
                }
                // Those that there are do it later.
                Err(_) => {}
            }
        }
        state.queue.push_back(work);
        drop(state);
        self.changed.notify_one();
        abi::WSH_OK
    }

    /// Accepts nothing more, and returns when everything that was accepted is done and the threads are gone.
    pub(crate) fn end(&self) {
        let threads = {
            let mut state = self.state();
            state.is_open = false;
            std::mem::take(&mut state.threads)
        };
        self.changed.notify_all();
        for thread in threads {
            // The work cannot panic here: no unwinding crosses the boundary.
            let _ = thread.join();
        }
    }

    fn start(self: &Arc<Self>, index: usize) -> std::io::Result<JoinHandle<()>> {
        let name: String = format!("{}.o{index}", self.name).chars().take(15).collect();
        let offload = self.clone();
        std::thread::Builder::new().name(name).spawn(move || {
            offload.owner.claim_thread();
            while let Some(Work { run, context }) = offload.next() {
                // SAFETY: a thread of the generation, whose library is mapped until `end` has joined it; the library passes the
                // two together, for one call (wsh.h).
                unsafe { run(context) }
            }
        })
    }

    /// Waits for work. `None` when there will be none.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            if let Some(work) = state.queue.pop_front() {
                return Some(work);
            }
            if !state.is_open {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    fn offload(threads_max: usize, queue_max: usize) -> Arc<Offload> {
        Offload::new(OffloadLimits { threads_max, queue_max }, "it.g1".into(), Owner::new("it.g1".into()))
    }

    static DONE: AtomicUsize = AtomicUsize::new(0);

    struct Gate {
        begun: SyncSender<()>,
        go: Receiver<()>,
    }

    /// Says that it has begun, and waits.
    unsafe extern "C" fn wait(gate: *mut c_void) {
        // SAFETY: the tests pass a box, once.
        let gate = unsafe { Box::from_raw(gate.cast::<Gate>()) };
        gate.begun.send(()).expect("the test waits for it");
        let _ = gate.go.recv();
        DONE.fetch_add(1, Ordering::Relaxed);
    }

    fn gated(begun: &SyncSender<()>) -> (Work, SyncSender<()>) {
        let (open, go) = sync_channel(1);
        let gate = Box::into_raw(Box::new(Gate { begun: begun.clone(), go }));
        (Work { run: wait, context: gate.cast() }, open)
    }

    #[test]
    fn work_has_a_bound_of_threads_and_of_what_waits_and_what_was_accepted_is_done() {
        let offload = offload(2, 3);
        let (begun, begins) = sync_channel(10);
        let mut gates = Vec::new();
        let mut accept = || {
            let (work, open) = gated(&begun);
            let status = offload.accept(work);
            if status < abi::WSH_OK {
                // SAFETY: what was not accepted is still ours.
                drop(unsafe { Box::from_raw(work.context.cast::<Gate>()) });
            } else {
                gates.push(open);
            }
            status
        };
        assert_eq!([accept(), accept()], [abi::WSH_OK; 2]);
        begins.recv().expect("the first begins");
        begins.recv().expect("and the second, on a thread of its own");
        assert_eq!([accept(), accept(), accept()], [abi::WSH_OK; 3]);
        assert_eq!(accept(), abi::WSH_E_FULL);
        assert_eq!(offload.state().threads.len(), 2);
        let before = DONE.load(Ordering::Relaxed);
        drop(gates);
        offload.end();
        assert_eq!(DONE.load(Ordering::Relaxed) - before, 5);
        let (late, _open) = gated(&begun);
        assert_eq!(offload.accept(late), abi::WSH_E_CLOSED);
        // SAFETY: what was not accepted is still ours.
        drop(unsafe { Box::from_raw(late.context.cast::<Gate>()) });
    }
}
