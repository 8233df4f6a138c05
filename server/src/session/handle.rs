//! A session as other threads reach it: what `wsh_handle *` points at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use handler_api::abi::{self, wsh_status};
use wshd_protocol::close;

use super::SessionKey;
use super::call::{Outbound, message_kind};
use crate::generation::{Command, Generation, Inbox};

/// Shared between a session and whoever holds a handle to it; made when the first one is asked for.
///
/// What waits in the worker's inbox for one session is bounded by `limits.outgoing_bytes_max` and
/// `limits.outgoing_messages_max`, so a sender on another thread cannot fill the memory of a stalled worker.
#[derive(Debug)]
pub(crate) struct Handle {
    inbox: Arc<Inbox>,
    key: SessionKey,
    /// A library that a handle still points into must not be unmapped.
    generation: Arc<Generation>,
    gone: AtomicBool,
    /// Bytes and messages that were posted to the worker and not taken yet.
    waiting_bytes: AtomicUsize,
    waiting_messages: AtomicUsize,
    wake_is_posted: AtomicBool,
    overflow_is_posted: AtomicBool,
    /// Mirrors whether the session's own backlog is above its high watermark.
    above_high: AtomicBool,
}

impl Handle {
    pub(crate) fn new(inbox: Arc<Inbox>, key: SessionKey, generation: Arc<Generation>) -> Self {
        Self {
            inbox,
            key,
            generation,
            gone: AtomicBool::new(false),
            waiting_bytes: AtomicUsize::new(0),
            waiting_messages: AtomicUsize::new(0),
            wake_is_posted: AtomicBool::new(false),
            overflow_is_posted: AtomicBool::new(false),
            above_high: AtomicBool::new(false),
        }
    }

    // ---- from any thread -----------------------------------------------------------------------------------------------

    pub(crate) fn send(&self, kind: u32, data: &[u8]) -> wsh_status {
        let Some(kind) = message_kind(kind, data) else { return abi::WSH_E_INVALID };
        if self.is_gone() {
            return abi::WSH_E_CLOSED;
        }
        let limits = self.generation.limits();
        let messages = self.waiting_messages.fetch_add(1, Ordering::Relaxed);
        let bytes = self.waiting_bytes.fetch_add(data.len(), Ordering::Relaxed);
        // One message is always admitted to an empty queue, however large it is.
        if messages >= limits.outgoing_messages_max
            || (bytes > 0 && bytes.saturating_add(data.len()) > limits.outgoing_bytes_max)
        {
            self.taken(data.len());
            if !self.overflow_is_posted.swap(true, Ordering::Relaxed) {
                self.inbox.post(Command::Overflow(self.key));
            }
            return abi::WSH_E_FULL;
        }
        if !self.inbox.post(Command::Send(self.key, Outbound { kind, data: data.into() })) {
            return abi::WSH_E_CLOSED;
        }
        if self.above_high.load(Ordering::Relaxed) { abi::WSH_SLOW } else { abi::WSH_OK }
    }

    pub(crate) fn close(&self, code: u16, reason: &[u8]) -> wsh_status {
        let Ok(reason) = std::str::from_utf8(reason) else { return abi::WSH_E_INVALID };
        if code != 0 && !close::may_be_sent_by_server(code) || reason.len() > close::REASON_BYTES_MAX {
            return abi::WSH_E_INVALID;
        }
        if self.is_gone() || !self.inbox.post(Command::Close(self.key, code, reason.into())) {
            return abi::WSH_E_CLOSED;
        }
        abi::WSH_OK
    }

    pub(crate) fn wake(&self) -> wsh_status {
        if self.is_gone() {
            return abi::WSH_E_CLOSED;
        }
        if self.wake_is_posted.swap(true, Ordering::AcqRel) || self.inbox.post(Command::Wake(self.key)) {
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

    /// A message of so many bytes left the inbox.
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

    pub(super) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
}
