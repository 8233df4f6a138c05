//! Who may connect: how many in all, and how many from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tracing::warn;

/// Counts connections from accept until the socket is closed, through HTTP and WebSocket.
#[derive(Debug)]
pub(crate) struct Admission {
    connections_max: AtomicUsize,
    per_peer_max: AtomicUsize,
    counts: Mutex<Counts>,
    /// Rung when a connection leaves.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// The place of one connection. Dropped, it becomes free, unless it was transferred to a session.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    peer: SocketAddr,
    is_held: bool,
}

/// One address has as many connections as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyFromPeer;

impl Admission {
    /// `per_peer_max` 0 means that one address may take every place.
    pub(crate) fn new(connections_max: usize, per_peer_max: usize) -> Self {
        Self {
            connections_max: connections_max.into(),
            per_peer_max: per_peer_max.into(),
            counts: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Other bounds hold from now on. Who is connected stays.
    pub(crate) fn configure(&self, connections_max: usize, per_peer_max: usize) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        self.per_peer_max.store(per_peer_max, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Connections at the moment.
    pub(crate) fn count(&self) -> usize {
        self.counts().all
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// Waits until there is a place; new peers wait in the kernel's backlog meanwhile.
    pub(crate) async fn wait_for_place(&self) {
        loop {
            let freed = self.freed.notified();
            if self.count() < self.connections_max() {
                return;
            }
            freed.await;
        }
    }

    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Result<Permit, TooManyFromPeer> {
        let mut counts = self.counts();
        let per_peer_max = self.per_peer_max.load(Ordering::Relaxed);
        // Counted also without a bound, because one may be set while peers are connected.
        let count = counts.of.entry(peer.ip().to_canonical()).or_insert(0);
        if per_peer_max != 0 && *count >= per_peer_max {
            return Err(TooManyFromPeer);
        }
        *count += 1;
        counts.all += 1;
        drop(counts);
        Ok(Permit { admission: self.clone(), peer, is_held: true })
    }

    /// Gives back the place of a connection whose permit was transferred.
    pub(crate) fn leave(&self, peer: IpAddr) {
        let mut counts = self.counts();
        counts.all -= 1;
        if let Entry::Occupied(mut count) = counts.of.entry(peer.to_canonical()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let has_place = counts.all < self.connections_max();
        drop(counts);
        if has_place {
            self.freed.notify_waiters();
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The place now belongs to a session, whose worker gives it back with [`Admission::leave`].
    pub(crate) fn transfer(mut self) -> SocketAddr {
        self.is_held = false;
        self.peer
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_held {
            self.admission.leave(self.peer.ip());
        }
    }
}

/// Descriptors that are kept for files, logs, reloads and probes when connections are counted against the system's limit.
const DESCRIPTORS_KEPT: u64 = 256;

/// Connections that the configured limit and the system's limit on open files allow together.
pub(crate) fn possible(configured: usize) -> usize {
    // Asks for what the system would give anyway: the soft limit is often far below the hard one.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = (configured as u64).saturating_add(DESCRIPTORS_KEPT);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        limit.current = Some(raised);
        if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
            warn!("cannot raise the limit on open files: {error}");
        }
        limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    }
    let Some(current) = limit.current else { return configured };
    let possible = usize::try_from(current.saturating_sub(DESCRIPTORS_KEPT).max(16)).unwrap_or(usize::MAX);
    if possible < configured {
        warn!(
            "limits.connections_max is {configured}, but the system allows {current} open files: serving {possible}"
        );
    }
    configured.min(possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 50_000).into()
    }

    #[test]
    fn one_address_may_not_take_more_than_its_share() {
        let admission = Arc::new(Admission::new(10, 2));
        let first = admission.enter(peer(1));
        let second = admission.enter(peer(1));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(admission.enter(peer(1)).err(), Some(TooManyFromPeer));
        assert!(admission.enter(peer(2)).is_ok(), "another address is not concerned");
        drop(first);
        assert!(admission.enter(peer(1)).is_ok(), "a place that became free is given again");
    }

    #[tokio::test]
    async fn a_full_server_waits_until_somebody_leaves() {
        let admission = Arc::new(Admission::new(1, 0));
        let permit = admission.enter(peer(1)).expect("there is a place");
        let waiting = tokio::spawn({
            let admission = admission.clone();
            async move { admission.wait_for_place().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let address = permit.transfer();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "a transferred place is still taken");
        admission.leave(address.ip());
        waiting.await.expect("the wait ends");
    }
}
