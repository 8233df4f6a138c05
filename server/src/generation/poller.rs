//! A worker's private epoll.
//!
//! Sockets are registered once, edge-triggered, for everything, and never modified: a session needs no registration of its own
//! with tokio and no system call to wait for another kind of readiness.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::session::SessionKey;

/// Events fetched by one system call.
const EVENTS_PER_WAIT: usize = 512;

/// Serial numbers of sessions begin at 1, so no session has this key.
const BELL: SessionKey = SessionKey { slot: 0, serial: 0 };

pub(super) struct Poller {
    epoll: Arc<OwnedFd>,
}

/// What one call fetched.
pub(super) struct Batch(Vec<Event>);

/// What became ready.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready {
    /// Commands were posted.
    Inbox,
    Session(SessionKey, EventFlags),
}

impl Poller {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { epoll: Arc::new(epoll::create(CreateFlags::CLOEXEC)?) })
    }

    /// Lets the event loop that this is called in wait for the epoll itself, the one descriptor it sees.
    #[allow(unsafe_code)]
    pub(super) fn register(&self) -> std::io::Result<AsyncFd<Descriptor>> {
        // SAFETY: the descriptor owns a share of the epoll, so it stays open and the same as long as the registration lives.
        let registered =
            unsafe { AsyncFd::register_with_interest(Descriptor(self.epoll.clone()), Interest::READABLE) };
        Ok(registered?)
    }

    /// An eventfd that makes this poller ready each time it is written to.
    pub(super) fn waker(&self) -> Result<OwnedFd> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: each write is an event, and the counter never has to be read.
        epoll::add(&*self.epoll, &bell, data(BELL), EventFlags::IN | EventFlags::ET)?;
        Ok(bell)
    }

    pub(super) fn add(&self, socket: impl AsFd, key: SessionKey) -> Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&*self.epoll, socket, data(key), flags)
    }

    /// Ends the watch over a socket that goes to another worker. An event that was fetched before may still come.
    pub(super) fn remove(&self, socket: impl AsFd) -> Result<()> {
        epoll::delete(&*self.epoll, socket)
    }

    /// Fetches what is ready into `batch`, without waiting.
    pub(super) fn fetch(&self, batch: &mut Batch) -> Result<()> {
        let Batch(events) = batch;
        events.clear();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&*self.epoll, spare_capacity(events), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(EVENTS_PER_WAIT))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn event(&self, index: usize) -> Ready {
        let event = self.0[index];
        let key = event.data.u64();
        let key = SessionKey { slot: key as u32, serial: (key >> 32) as u32 };
        if key == BELL { Ready::Inbox } else { Ready::Session(key, event.flags) }
    }
}

fn data(key: SessionKey) -> EventData {
    EventData::new_u64(u64::from(key.serial) << 32 | u64::from(key.slot))
}

/// A poller's epoll as tokio registers it.
pub(super) struct Descriptor(Arc<OwnedFd>);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
