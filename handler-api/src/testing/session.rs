//! A session as a test drives it: what the peer does, and what it gets.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::shared::{Asked, Shared};
use super::{Answer, Sent};
use crate::abi::{self, wsh_handler_api, wsh_session, wsh_status};
use crate::export::{self, Face};
use crate::reload::Reload;

/// A session that was accepted and opened. Dropped, it ends as if the peer had vanished.
pub struct FakeSession<H: Face> {
    pub(super) object: *mut c_void,
    pub(super) shared: Arc<Shared>,
    pub(super) reload: Reload,
    /// Its state is exported and no other object has it yet.
    pub(super) is_frozen: bool,
    pub(super) state_bytes_max: usize,
    /// The handler is not ready for more, and what the peer sends is kept back.
    pub(super) is_held: bool,
    kept_back: VecDeque<Incoming>,
    /// With what its upgrade was accepted.
    pub(super) answer: Answer,
    handler: PhantomData<H>,
}

/// What a peer sends.
enum Incoming {
    Message(u32, Vec<u8>),
    Pong(Vec<u8>),
}

/// How long a test waits for what other threads of the handler do.
const PATIENCE: Duration = Duration::from_secs(10);

impl<H: Face> fmt::Debug for FakeSession<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeSession").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl<H: Face> FakeSession<H> {
    /// A session that the handler accepted with this object.
    pub(super) fn new(object: *mut c_void, shared: Arc<Shared>, reload: Reload) -> Self {
        let (is_frozen, state_bytes_max) = (false, usize::MAX);
        let (is_held, kept_back) = (false, VecDeque::new());
        let (answer, handler) = (Answer::default(), PhantomData);
        Self { object, shared, reload, is_frozen, state_bytes_max, is_held, kept_back, answer, handler }
    }

    pub(super) fn table(&self) -> wsh_handler_api {
        export::table::<H>(&self.reload)
    }

    pub(super) fn open(&mut self) {
        self.call(|table, object, socket| {
            let on_open = table.on_open.expect("export fills the table");
            // SAFETY: the object lives; the session is good for the length of the call.
            unsafe { on_open(object, socket) }
        });
    }

    /// The peer sends a text.
    pub fn text(&mut self, text: &str) {
        self.message(abi::WSH_TEXT, text.as_bytes());
    }

    /// The peer sends a binary message.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.message(abi::WSH_BINARY, bytes);
    }

    pub(super) fn message(&mut self, kind: u32, bytes: &[u8]) {
        if self.is_held {
            return self.kept_back.push_back(Incoming::Message(kind, bytes.to_owned()));
        }
        self.call(|table, object, socket| {
            let on_message = table.on_message.expect("export fills the table");
            // SAFETY: as in `open`; the bytes are readable.
            unsafe { on_message(object, socket, kind, bytes.as_ptr(), bytes.len()) }
        });
    }

    /// The peer answers a ping.
    pub fn pong(&mut self, bytes: &[u8]) {
        if self.is_held {
            return self.kept_back.push_back(Incoming::Pong(bytes.to_owned()));
        }
        self.call(|table, object, socket| {
            // SAFETY: as in `open`; the bytes are readable.
            table.on_pong.map_or(abi::WSH_OK, |on_pong| unsafe {
                on_pong(object, socket, bytes.as_ptr(), bytes.len())
            })
        });
    }

    /// The peer has taken what waited for it.
    pub fn writable(&mut self) {
        self.set_send_status(abi::WSH_OK);
        self.call(|table, object, socket| {
            let on_writable = table.on_writable.expect("export fills the table");
            // SAFETY: as in `open`.
            unsafe { on_writable(object, socket) }
        });
    }

    /// From here on sends answer [`Slow`](crate::SendStatus::Slow), until [`writable`](Self::writable).
    pub fn set_slow(&mut self) {
        self.set_send_status(abi::WSH_SLOW);
    }

    /// From here on sends answer [`Full`](crate::SendStatus::Full) and nothing is accepted.
    pub fn set_full(&mut self) {
        self.set_send_status(abi::WSH_E_FULL);
    }

    fn set_send_status(&mut self, status: wsh_status) {
        self.shared.state().send_status = status;
    }

    /// The peer sends Close, the handler chooses the answer, the session ends. Returns the code of the answer.
    pub fn peer_close(&mut self, code: u16, reason: &str) -> u16 {
        let mut reply = code;
        while self.is_held && !self.is_over() {
            assert!(self.shared.wait_until_asked(PATIENCE), "the handler is not ready for the Close");
            self.run_asked();
        }
        self.call(|table, object, socket| {
            let on_closing = table.on_closing.expect("export fills the table");
            // SAFETY: as in `open`; the reason is readable, the reply writable.
            unsafe { on_closing(object, socket, code, reason.as_ptr(), reason.len(), &raw mut reply) }
        });
        self.end(code, reason, abi::WSH_CLOSED_CLEAN);
        reply
    }

    /// The connection fails: `on_error`, then `on_close` with 1006.
    pub fn fail(&mut self, why: &str) {
        self.thaw();
        self.call(|table, object, socket| {
            // SAFETY: as in `open`; the text is readable.
            table.on_error.inspect(|on_error| unsafe { on_error(object, socket, why.as_ptr(), why.len()) });
            abi::WSH_OK
        });
        self.end(1006, "", abi::WSH_CLOSED_ABNORMAL);
    }

    /// What a peer would have got since the last time, in order.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.run_asked();
        std::mem::take(&mut self.shared.state().sent)
    }

    /// Waits for the next that a peer would have got, and that other threads of the handler may have to send first. `None` if
    /// nothing comes within ten seconds, or nothing more can come.
    pub fn next_sent(&mut self) -> Option<Sent> {
        loop {
            self.run_asked();
            let is_over = {
                let mut state = self.shared.state();
                if !state.sent.is_empty() {
                    return Some(state.sent.remove(0));
                }
                state.ready == abi::WSH_CLOSED
            };
            if is_over || self.is_frozen || !self.shared.wait_until_asked(PATIENCE) {
                return None;
            }
        }
    }

    /// Whether the handler is not ready for more: what the peer sends is kept back, and a real one would feel it.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Whether the handler's object was dropped.
    pub fn is_over(&self) -> bool {
        self.shared.state().freed
    }

    /// How the upgrade was answered.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The agreed subprotocol; empty if none was.
    pub fn protocol(&self) -> &str {
        self.shared.protocol().unwrap_or_default()
    }

    /// Does what handles asked for, as the session's worker does between two callbacks.
    pub fn run_asked(&mut self) {
        // What is asked of a session that is moving waits until it goes on, here or there.
        while !self.is_frozen {
            self.deliver_kept_back();
            let Some(asked) = self.shared.state().asked.pop_front() else { return };
            match asked {
                Asked::Send(sent) => self.shared.state().push(sent),
                Asked::Close(code, reason) => {
                    self.shared.state().close(code, reason);
                }
                Asked::Wake => self.call_once(|table, object, socket| {
                    let on_wake = table.on_wake.expect("export fills the table");
                    // SAFETY: as in `open`.
                    unsafe { on_wake(object, socket) }
                }),
            }
        }
    }

    fn deliver_kept_back(&mut self) {
        while !self.is_held
            && let Some(incoming) = self.kept_back.pop_front()
        {
            let rest = std::mem::take(&mut self.kept_back);
            match incoming {
                Incoming::Message(kind, bytes) => self.message(kind, &bytes),
                Incoming::Pong(bytes) => self.pong(&bytes),
            }
            self.kept_back.extend(rest);
        }
    }

    pub(super) fn call(
        &mut self,
        callback: impl FnOnce(&wsh_handler_api, *mut c_void, *mut wsh_session) -> wsh_status,
    ) {
        self.call_once(callback);
        self.run_asked();
    }

    pub(super) fn call_once(
        &mut self,
        callback: impl FnOnce(&wsh_handler_api, *mut c_void, *mut wsh_session) -> wsh_status,
    ) {
        if self.is_over() {
            return;
        }
        assert!(!self.is_frozen, "the session is frozen: import_state or cancel_export comes next");
        let socket = Arc::as_ptr(&self.shared).cast_mut().cast();
        let status = callback(&self.table(), self.object, socket);
        self.is_held = status == abi::WSH_HOLD;
        match status {
            abi::WSH_DONE => {
                self.shared.state().close(1000, String::new());
            }
            abi::WSH_E_PANIC => self.fail_by_panic(),
            status if status < abi::WSH_OK => {
                self.shared.state().close(1011, String::new());
                self.end(1011, "", abi::WSH_CLOSED_ABNORMAL);
            }
            _ => {}
        }
    }

    /// A callback panicked: nothing but free_session is called for the object any more.
    pub(super) fn fail_by_panic(&mut self) {
        self.shared.state().close(1011, String::new());
        self.free();
    }

    /// The session ends while its state is on the way.
    fn thaw(&mut self) {
        if self.is_frozen {
            self.cancel_export();
        }
    }

    fn end(&mut self, code: u16, reason: &str, how: u32) {
        self.shared.state().ready = abi::WSH_CLOSED;
        self.call_once(|table, object, socket| {
            let on_close = table.on_close.expect("export fills the table");
            // SAFETY: as in `open`; the reason is readable.
            unsafe { on_close(object, socket, code, reason.as_ptr(), reason.len(), how) };
            abi::WSH_OK
        });
        self.free();
    }

    pub(super) fn free(&mut self) {
        let was_freed = {
            let mut state = self.shared.state();
            state.ready = abi::WSH_CLOSED;
            std::mem::replace(&mut state.freed, true)
        };
        if !was_freed {
            let free_session = self.table().free_session.expect("export fills the table");
            // SAFETY: the object came from on_upgrade or import_state; the flag makes this the only time.
            unsafe { free_session(self.object) }
        }
    }
}

impl<H: Face> Drop for FakeSession<H> {
    fn drop(&mut self) {
        self.thaw();
        self.end(1006, "", abi::WSH_CLOSED_ABNORMAL);
    }
}
