//! How other threads reach a worker.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::leave::Leave;
use super::upgrade::{AcceptedKey, Decision, UpgradeRequest};
use crate::config::Limits;
use crate::session::{InTransit, Moving, Peer, Request, Returned, SessionKey, Stream};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::topics::{Published, Topic};

/// Commands for one worker, in their order, and the bell that wakes it.
///
/// Its length is bounded by what posts to it: upgrades and sessions in transit by the connections that the
/// server admits, messages by the limits of each session's place, what is published by `limits.published_bytes_max`; wake-ups and
/// overflows stand in it once for each session, what was missed once for each topic, what is about the library once.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// Of messages to topics that were not taken yet.
    published_bytes: AtomicUsize,
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
    Open { accepted: AcceptedKey, stream: Stream, early: Vec<u8>, peer: Peer },
    /// An accepted upgrade whose peer vanished.
    Abandon(AcceptedKey),
    /// Another thread asks something of a session.
    Session(SessionKey, Request),
    /// A session of the generation before, to be gone on with here.
    Adopt(InTransit),
    /// A session that was sent away has arrived.
    Moved(SessionKey),
    /// A session that was sent away comes back.
    Returned(SessionKey, Box<Moving>, Returned),
    /// A message to a topic that sessions of this worker have subscribed to.
    Published(Arc<Published>),
    /// There was no room for messages to this topic.
    Missed(Arc<Topic>),
    /// Other limits hold from now on.
    Configure(Arc<Limits>),
    /// Let the sessions go, this way, and say when the last one is gone.
    Leave(Leave),
    /// To worker 0: the library has started a timer.
    LibraryTimers,
    /// To worker 0: no session is left, and none will come.
    Quiesce,
    /// End the thread.
    Exit,
}

impl Command {
    /// The session it is about, if it is one that sends.
    pub(super) fn session(&self) -> Option<SessionKey> {
        if let Self::Session(key, _) = self { Some(*key) } else { None }
    }
}

impl Inbox {
    pub(crate) fn new(bell: OwnedFd) -> Self {
        let queue = Mutex::new(Queue { commands: Vec::new(), is_open: true });
        Self { queue, published_bytes: AtomicUsize::new(0), bell }
    }

    /// Posts a message to a topic. False if so many bytes wait already that there is no room for it.
    pub(crate) fn publish(&self, message: &Arc<Published>, waiting_bytes_max: usize) -> bool {
        let len = message.frame.len();
        let waiting = self.published_bytes.fetch_add(len, Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(len) > waiting_bytes_max {
            self.published_is_taken(len);
            return false;
        }
        // A worker that has ended has no subscribers left.
        let _ = self.post(Command::Published(message.clone()));
        true
    }

    pub(super) fn published_is_taken(&self, bytes: usize) {
        self.published_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// # Errors
    /// The worker has ended and will not see the command, which is given back.
    pub(crate) fn post(&self, command: Command) -> Result<(), Command> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.is_open {
            return Err(command);
        }
        let was_empty = queue.commands.is_empty();
        queue.commands.push(command);
        drop(queue);
        if was_empty {
            // The counter would have to reach 2^64 before this could fail.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Takes everything that was posted so far. The buffer that is passed in is the next one to be filled.
    pub(crate) fn take(&self, mut empty: Vec<Command>) -> Vec<Command> {
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
        // Dropped without the lock: a ticket among them posts to this inbox again, a session in transit to another.
        drop(unseen);
    }
}
