//! The memory that the sessions of a handler keep for compression, within the bound of the handler.
//!
//! In: offers of peers, and the rules for them. Out: what is agreed to, with a share of the memory that comes back when the session is
//! gone. A share is reserved for the most that the session may ever keep, because what was agreed cannot be changed later. The
//! memory belongs to the handler and not to one of its generations: a session that moves takes its share along.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wshd_protocol::{Connection, DeflateAgreement, ExtensionOffer};

use crate::config::Deflate;

/// Of all handlers. One for each server.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    handlers: Mutex<BTreeMap<Arc<str>, Arc<WindowMemory>>>,
}

/// Of one handler.
#[derive(Debug, Default)]
pub(crate) struct WindowMemory {
    reserved: AtomicUsize,
    /// Peers with whom less was agreed, because nothing was left.
    refused: AtomicU64,
}

/// permessage-deflate as it is agreed with one peer, and the memory for it.
#[derive(Debug)]
pub(crate) struct Agreed {
    agreement: DeflateAgreement,
    share: Option<Share>,
}

/// Some of the memory of a handler, which comes back when this is dropped.
#[derive(Debug)]
struct Share {
    memory: Arc<WindowMemory>,
    bytes: usize,
}

impl Windows {
    /// The memory of one handler.
    pub(crate) fn of(&self, handler: &Arc<str>) -> Arc<WindowMemory> {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        handlers.entry(handler.clone()).or_default().clone()
    }
}

impl WindowMemory {
    /// What is agreed to with a peer that offers this. Where no memory is left, that is compression of each message by itself.
    pub(crate) fn agree(
        self: &Arc<Self>,
        deflate: &Deflate,
        offers: &[ExtensionOffer<'_>],
    ) -> Option<Agreed> {
        let agreement = deflate.rules.agree(offers)?;
        let bytes = agreement.parameters().kept_bytes_max();
        if bytes == 0 {
            return Some(Agreed { agreement, share: None });
        }
        if let Some(share) = self.reserve(bytes, deflate.memory_bytes_max) {
            return Some(Agreed { agreement, share: Some(share) });
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let agreement = deflate.rules.without_context_takeover().agree(offers)?;
        Some(Agreed { agreement, share: None })
    }

    fn reserve(self: &Arc<Self>, bytes: usize, bytes_max: usize) -> Option<Share> {
        let within = |reserved: usize| reserved.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(Share { memory: self.clone(), bytes })
    }

    /// Bytes that sessions may keep by what was agreed with their peers.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Peers so far with whom less was agreed, because nothing was left.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Agreed {
    pub(crate) fn agreement(&self) -> DeflateAgreement {
        self.agreement
    }

    /// A connection where this was agreed. The share of the memory is in use until the windows of the connection are dropped.
    pub(crate) fn into_connection(self) -> Connection {
        let connection = Connection::with_deflate(self.agreement.parameters());
        match self.share {
            Some(share) => connection.guarded_by(Box::new(share)),
            None => connection,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound is exact, what is dropped comes back, and a bound that is lowered holds for those that come.
    #[test]
    fn shares_stay_within_the_bound_and_come_back() {
        let memory = Arc::new(WindowMemory::default());
        let first = memory.reserve(600, 1000);
        assert!(first.is_some() && memory.reserve(401, 1000).is_none());
        let second = memory.reserve(400, 1000);
        assert!(second.is_some());
        assert_eq!(memory.reserved(), 1000);
        drop(first);
        assert_eq!(memory.reserved(), 400);
        assert!(memory.reserve(1, 300).is_none() && memory.reserve(usize::MAX, usize::MAX).is_none());
        drop(second);
        assert_eq!(memory.reserved(), 0);
    }

    /// A handler finds the memory of its former generations.
    #[test]
    fn generations_of_a_handler_share_its_memory() {
        let windows = Windows::default();
        let share = windows.of(&"chat".into()).reserve(10, 10);
        assert!(share.is_some());
        assert_eq!(windows.of(&"chat".into()).reserved(), 10);
        assert_eq!(windows.of(&"echo".into()).reserved(), 0);
    }
}
