//! How other threads reach a worker.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::upgrade::{AcceptedKey, Decision, UpgradeRequest};
use crate::session::{Outbound, Peer, SessionKey};

/// Commands for one worker, in their order, and the bell that wakes it.
///
/// Its length is bounded by what posts to it: upgrades by the connections that the server admits, messages by the limits of
/// each session's handle; wake-ups and overflows stand in it once for each session.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// An eventfd in the worker's poller.
    bell: OwnedFd,
}

#[derive(Debug)]
struct Queue {
    commands: Vec<Command>,
    is_open: bool,
}

#[derive(Debug)]
pub(crate) enum Command {
    /// A peer asks for a WebSocket.
    Upgrade(Box<UpgradeRequest>, oneshot::Sender<Decision>),
    /// The stream of an accepted upgrade, with what the peer sent right behind its request.
    Open {
        accepted: AcceptedKey,
        stream: OwnedFd,
        early: Vec<u8>,
        peer: Peer,
    },
    /// An accepted upgrade whose peer vanished.
    Abandon(AcceptedKey),
    Send(SessionKey, Outbound),
    Close(SessionKey, u16, Box<str>),
    Wake(SessionKey),
    /// More was sent to the session than may wait for it.
    Overflow(SessionKey),
    /// Close every session with 1001 and answer when the last one is gone, or at this time.
    Stop(Instant, oneshot::Sender<()>),
    /// End the thread.
    Exit,
}

impl Command {
    /// The session it is about, if it is one that sends.
    pub(super) fn session(&self) -> Option<SessionKey> {
        match self {
            Self::Send(key, _) | Self::Close(key, ..) | Self::Wake(key) | Self::Overflow(key) => Some(*key),
            _ => None,
        }
    }
}

impl Inbox {
    pub(crate) fn new(bell: OwnedFd) -> Self {
        Self { queue: Mutex::new(Queue { commands: Vec::new(), is_open: true }), bell }
    }

    /// False if the worker has ended and will not see the command.
    pub(crate) fn post(&self, command: Command) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.is_open {
            return false;
        }
        let was_empty = queue.commands.is_empty();
        queue.commands.push(command);
        drop(queue);
        if was_empty {
            // The counter would have to reach 2^64 before this could fail.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
        true
    }

    /// Takes everything that was posted so far. The buffer that is passed in is the next one to be filled.
    pub(super) fn take(&self, mut empty: Vec<Command>) -> Vec<Command> {
        debug_assert!(empty.is_empty(), "the worker has run what it took before");
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut queue.commands, &mut empty);
        empty
    }

    /// Refuses everything from now on, and drops what was not taken.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.is_open = false;
        let unseen = std::mem::take(&mut queue.commands);
        drop(queue);
        // Dropped without the lock: a ticket among them posts to this inbox again.
        drop(unseen);
    }
}
