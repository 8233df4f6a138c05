//! Who may connect: how many in all, and how many from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Counts connections from accept until the socket is closed, through HTTP and WebSocket.
#[derive(Debug)]
pub(crate) struct Admission {
    connections_max: usize,
    per_peer_max: usize,
    counts: Mutex<Counts>,
    /// Rung when a connection leaves a full server.
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
        Self { connections_max, per_peer_max, counts: Mutex::default(), freed: Notify::new() }
    }

    /// Waits until there is a place; new peers wait in the kernel's backlog meanwhile.
    pub(crate) async fn wait_for_place(&self) {
        loop {
            let freed = self.freed.notified();
            if self.counts().all < self.connections_max {
                return;
            }
            freed.await;
        }
    }

    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Result<Permit, TooManyFromPeer> {
        let mut counts = self.counts();
        if self.per_peer_max != 0 {
            let count = counts.of.entry(peer.ip().to_canonical()).or_insert(0);
            if *count >= self.per_peer_max {
                return Err(TooManyFromPeer);
            }
            *count += 1;
        }
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
        let was_full = counts.all + 1 == self.connections_max;
        drop(counts);
        if was_full {
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
