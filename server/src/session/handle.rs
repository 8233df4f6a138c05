//! A session as other threads reach it: what `wsh_handle *` points at.

use std::sync::{Arc, PoisonError};

use handler_api::abi::{self, wsh_status};
use wshd_protocol::close;

use super::SessionKey;
use super::call::{Outbound, message_kind};
use crate::config::SlowPeer;
use crate::generation::{Command, Generation, Inbox};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// A session for one generation of its handler. When the session moves on, its place goes along and this handle is done for.
#[derive(Debug)]
pub(crate) struct Handle {
    place: Arc<Place>,
    /// A library that a handle still points into must not be unmapped.
    generation: Arc<Generation>,
    /// The session is over, or belongs to another generation.
    gone: AtomicBool,
}

/// Where a session is, and what waits for it; shared by the handles that every generation of its handler made. It exists once
/// the first handle is asked for.
///
/// What waits for one session is bounded by `limits.outgoing_bytes_max` and `limits.outgoing_messages_max`, so a sender on
/// another thread cannot fill the memory of a stalled worker.
#[derive(Debug)]
pub(crate) struct Place {
    address: Mutex<Address>,
    /// Bytes and messages that were posted and not taken by a worker yet.
    waiting_bytes: AtomicUsize,
    waiting_messages: AtomicUsize,
    wake_is_posted: AtomicBool,
    overflow_is_posted: AtomicBool,
    /// Mirrors whether the session's own backlog is above its high watermark.
    above_high: AtomicBool,
}

#[derive(Debug)]
struct Address {
    inbox: Arc<Inbox>,
    key: SessionKey,
    /// While the session changes hands: what was asked of it meanwhile, in its order.
    held: Option<Vec<Request>>,
}

/// What another thread asks of a session.
#[derive(Debug)]
pub(crate) enum Request {
    Send(Outbound),
    Close(u16, Box<str>),
    Wake,
    /// More was sent to it than may wait.
    Overflow,
}

impl Place {
    fn new(inbox: Arc<Inbox>, key: SessionKey) -> Self {
        Self {
            address: Mutex::new(Address { inbox, key, held: None }),
            waiting_bytes: AtomicUsize::new(0),
            waiting_messages: AtomicUsize::new(0),
            wake_is_posted: AtomicBool::new(false),
            overflow_is_posted: AtomicBool::new(false),
            above_high: AtomicBool::new(false),
        }
    }

    /// Passes a request to wherever the session is. False if that worker has ended, and the session with it.
    fn post(&self, request: Request) -> bool {
        // The lock is held while posting, so that requests of one thread keep their order across a move.
        let mut address = self.address();
        match &mut address.held {
            Some(held) => {
                held.push(request);
                true
            }
            None => address.inbox.post(Command::Session(address.key, request)).is_ok(),
        }
    }

    /// The session is about to change hands. What was posted before is in its worker's inbox and is to be run before it goes;
    /// what comes now waits for [`arrive`](Self::arrive) or [`stay`](Self::stay).
    pub(crate) fn hold(&self) {
        self.address().held.get_or_insert_default();
    }

    /// The session lives on this worker from now on, which is already prepared for requests under this key.
    pub(crate) fn arrive(&self, inbox: Arc<Inbox>, key: SessionKey) {
        let mut address = self.address();
        (address.inbox, address.key) = (inbox, key);
        address.release();
    }

    /// The session does not change hands after all.
    pub(crate) fn stay(&self) {
        self.address().release();
    }

    fn address(&self) -> MutexGuard<'_, Address> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message of so many bytes was taken by the worker.
    pub(super) fn taken(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.waiting_messages.fetch_sub(1, Ordering::Relaxed);
    }

    /// The wake-up is about to be delivered; the next one counts again.
    pub(super) fn wake_is_taken(&self) {
        self.wake_is_posted.store(false, Ordering::Release);
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_above_high(&self, above: bool) {
        self.above_high.store(above, Ordering::Relaxed);
    }
}

impl Address {
    fn release(&mut self) {
        for request in self.held.take().into_iter().flatten() {
            // Fails only if the worker has ended, and then nobody waits for it.
            let _ = self.inbox.post(Command::Session(self.key, request));
        }
    }
}

impl Handle {
    /// A handle to a session that has none yet.
    pub(crate) fn new(inbox: Arc<Inbox>, key: SessionKey, generation: Arc<Generation>) -> Self {
        Self::at(Arc::new(Place::new(inbox, key)), generation)
    }

    /// A handle for the generation that a session moves to.
    pub(crate) fn at(place: Arc<Place>, generation: Arc<Generation>) -> Self {
        generation.handle_is_made();
        Self { place, generation, gone: AtomicBool::new(false) }
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    // ---- from any thread -----------------------------------------------------------------------------------------------

    pub(crate) fn send(&self, kind: u32, data: &[u8]) -> wsh_status {
        let Some(kind) = message_kind(kind, data) else { return abi::WSH_E_INVALID };
        if self.is_gone() {
            return abi::WSH_E_CLOSED;
        }
        let limits = self.generation.limits();
        let place = &*self.place;
        let messages = place.waiting_messages.fetch_add(1, Ordering::Relaxed);
        let bytes = place.waiting_bytes.fetch_add(data.len(), Ordering::Relaxed);
        // One message is always admitted to an empty queue, however large it is.
        if messages >= limits.outgoing_messages_max
            || (bytes > 0 && bytes.saturating_add(data.len()) > limits.outgoing_bytes_max)
        {
            place.taken(data.len());
            if limits.slow_peer != SlowPeer::Close {
                self.generation.on_dropped(1);
            } else if !place.overflow_is_posted.swap(true, Ordering::Relaxed) {
                place.post(Request::Overflow);
            }
            return abi::WSH_E_FULL;
        }
        if !place.post(Request::Send(Outbound { kind, data: data.into() })) {
            return abi::WSH_E_CLOSED;
        }
        if place.above_high.load(Ordering::Relaxed) { abi::WSH_SLOW } else { abi::WSH_OK }
    }

    pub(crate) fn close(&self, code: u16, reason: &[u8]) -> wsh_status {
        let Ok(reason) = std::str::from_utf8(reason) else { return abi::WSH_E_INVALID };
        if code != 0 && !close::may_be_sent_by_server(code) || reason.len() > close::REASON_BYTES_MAX {
            return abi::WSH_E_INVALID;
        }
        if self.is_gone() || !self.place.post(Request::Close(code, reason.into())) {
            return abi::WSH_E_CLOSED;
        }
        abi::WSH_OK
    }

    pub(crate) fn wake(&self) -> wsh_status {
        if self.is_gone() {
            return abi::WSH_E_CLOSED;
        }
        if self.place.wake_is_posted.swap(true, Ordering::AcqRel) || self.place.post(Request::Wake) {
            return abi::WSH_OK;
        }
        abi::WSH_E_CLOSED
    }

    pub(crate) fn ready_state(&self) -> u32 {
        if self.is_gone() { abi::WSH_CLOSED } else { abi::WSH_OPEN }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    // ---- from the session's worker -------------------------------------------------------------------------------------

    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.generation.handle_is_dropped();
    }
}

#[cfg(all(test, wshd_loom))]
mod models {
    use loom::thread;

    use super::*;

    fn inbox() -> Arc<Inbox> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Arc::new(Inbox::new(rustix::event::eventfd(0, flags).expect("an eventfd")))
    }

    /// The codes of the Close requests that lie in an inbox, which stand for messages with numbers.
    fn numbers(inbox: &Inbox) -> Vec<u16> {
        let commands = inbox.take(Vec::new());
        let number = |command: Command| match command {
            Command::Session(_, Request::Close(number, _)) => number,
            other => panic!("{other:?}"),
        };
        commands.into_iter().map(number).collect()
    }

    const OLD: SessionKey = SessionKey { slot: 1, serial: 1 };
    const NEW: SessionKey = SessionKey { slot: 2, serial: 2 };

    /// A thread sends while the session moves, or comes back: the old worker runs what was posted before, the new one the rest,
    /// each message once and in its order.
    fn sends_while_it_moves(arrives: bool) {
        let (old, new) = (inbox(), inbox());
        let place = Arc::new(Place::new(old.clone(), OLD));
        let sender = {
            let place = place.clone();
            thread::spawn(move || {
                for number in 1..=2 {
                    assert!(place.post(Request::Close(number, "".into())));
                }
            })
        };
        place.hold();
        let mut seen = numbers(&old);
        if arrives {
            place.arrive(new.clone(), NEW);
        } else {
            place.stay();
        }
        sender.join().unwrap();
        seen.extend(numbers(&old));
        seen.extend(numbers(&new));
        assert_eq!(seen, [1, 2]);
    }

    #[test]
    fn model_what_is_sent_during_a_move_arrives_once_and_in_order() {
        loom::model(|| sends_while_it_moves(true));
        loom::model(|| sends_while_it_moves(false));
    }

    /// The new code sends by a handle of its own while the old one still does.
    #[test]
    fn model_two_senders_keep_their_orders() {
        loom::model(|| {
            let (old, new) = (inbox(), inbox());
            let place = Arc::new(Place::new(old.clone(), OLD));
            place.hold();
            let send = |numbers: [u16; 2]| {
                let place = place.clone();
                thread::spawn(move || {
                    numbers
                        .into_iter()
                        .for_each(|number| assert!(place.post(Request::Close(number, "".into()))));
                })
            };
            let senders = [send([1, 2]), send([11, 12])];
            place.arrive(new.clone(), NEW);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            assert!(numbers(&old).is_empty(), "nothing goes to where it was");
            let seen = numbers(&new);
            let of =
                |tens: u16| seen.iter().copied().filter(|number| number / 10 == tens).collect::<Vec<_>>();
            assert_eq!((of(0), of(1)), (vec![1, 2], vec![11, 12]), "{seen:?}");
        });
    }
}
