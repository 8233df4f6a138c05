//! Who may connect: how many in all, and how many from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tracing::warn;

use crate::config::{Config, TrustedProxies};

/// Counts connections from accept until the socket is closed, through HTTP and WebSocket.
///
/// Whoever comes by a Unix socket has no address, and a trusted proxy lends its own to many: they count towards all connections, and
/// towards those of one address only with the address that the proxy says, from the upgrade on.
#[derive(Debug)]
pub(crate) struct Admission {
    connections_max: AtomicUsize,
    counts: Mutex<Counts>,
    /// Rung when a connection leaves.
    freed: Notify,
}

#[derive(Debug)]
struct Counts {
    all: usize,
    of: HashMap<IpAddr, usize>,
    /// 0: one address may take every place.
    per_peer_max: usize,
    trusted: TrustedProxies,
}

/// The place of one connection. Dropped, it becomes free, unless it was transferred to a session.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    peer: Option<SocketAddr>,
    is_proxy: bool,
    is_held: bool,
}

/// The part of one connection in what its address may have. Dropped, it is given back, unless it was transferred to a session.
#[derive(Debug)]
pub(crate) struct Share {
    admission: Arc<Admission>,
    peer: Option<IpAddr>,
}

/// One address has as many connections as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyFromPeer;

/// What it is told.
pub(crate) const TOO_MANY: &str = "too many connections from your address now\n";

/// When it may try again.
pub(crate) const RETRY_SECONDS: u16 = 10;

impl Admission {
    /// `connections_max` is what the config and the system allow together; see [`possible`].
    pub(crate) fn new(connections_max: usize, config: &Config) -> Self {
        let counts = Counts {
            all: 0,
            of: HashMap::new(),
            per_peer_max: config.limits.connections_per_peer_max,
            trusted: config.listen.trusted_proxies.clone(),
        };
        Self { connections_max: connections_max.into(), counts: Mutex::new(counts), freed: Notify::new() }
    }

    /// Other bounds hold from now on. Who is connected stays.
    pub(crate) fn configure(&self, connections_max: usize, config: &Config) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        let mut counts = self.counts();
        counts.per_peer_max = config.limits.connections_per_peer_max;
        counts.trusted.clone_from(&config.listen.trusted_proxies);
        drop(counts);
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

    /// `peer` is `None` for who comes by a Unix socket.
    pub(crate) fn enter(self: &Arc<Self>, peer: Option<SocketAddr>) -> Result<Permit, TooManyFromPeer> {
        let mut counts = self.counts();
        let is_proxy = counts.trusted.include(peer.map(|peer| peer.ip()));
        let mut permit = Permit { admission: self.clone(), peer, is_proxy, is_held: false };
        counts.enter(permit.counted())?;
        counts.all += 1;
        drop(counts);
        permit.is_held = true;
        Ok(permit)
    }

    /// Gives back the place of a connection whose permit was transferred, and the share of its address.
    pub(crate) fn leave(&self, counted: Option<IpAddr>) {
        let mut counts = self.counts();
        counts.all -= 1;
        counts.leave(counted);
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

impl Counts {
    fn enter(&mut self, peer: Option<IpAddr>) -> Result<(), TooManyFromPeer> {
        let Some(peer) = peer else { return Ok(()) };
        // Counted also without a bound, because one may be set while peers are connected.
        let count = self.of.entry(peer.to_canonical()).or_insert(0);
        if self.per_peer_max != 0 && *count >= self.per_peer_max {
            return Err(TooManyFromPeer);
        }
        *count += 1;
        Ok(())
    }

    fn leave(&mut self, peer: Option<IpAddr>) {
        let Some(peer) = peer else { return };
        if let Entry::Occupied(mut count) = self.of.entry(peer.to_canonical()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Permit {
    /// Who holds the other end of the connection; `None` for a Unix socket.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether that one is trusted to say for whom it comes.
    pub(crate) fn is_proxy(&self) -> bool {
        self.is_proxy
    }

    /// Counts the one for whom a trusted proxy comes. Nobody else is counted again.
    pub(crate) fn share(&self, peer: Option<IpAddr>) -> Result<Share, TooManyFromPeer> {
        let peer = peer.filter(|_| self.is_proxy);
        self.admission.counts().enter(peer)?;
        Ok(Share { admission: self.admission.clone(), peer })
    }

    /// The place now belongs to a session, and so does its share. The worker gives both back with [`Admission::leave`].
    pub(crate) fn transfer(mut self, mut share: Share) {
        self.is_held = false;
        share.peer = None;
    }

    fn counted(&self) -> Option<IpAddr> {
        self.peer.filter(|_| !self.is_proxy).map(|peer| peer.ip())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_held {
            self.admission.leave(self.counted());
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.peer.is_some() {
            self.admission.counts().leave(self.peer);
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

    fn peer(last: u8) -> Option<SocketAddr> {
        Some(([192, 0, 2, last], 50_000).into())
    }

    fn ip(last: u8) -> Option<IpAddr> {
        peer(last).map(|peer| peer.ip())
    }

    fn admission(connections_max: usize, per_peer_max: usize, trusted: &[&str]) -> Arc<Admission> {
        let mut config = Config::default();
        config.limits.connections_per_peer_max = per_peer_max;
        config.listen.trusted_proxies = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Admission::new(connections_max, &config))
    }

    #[test]
    fn one_address_may_not_take_more_than_its_share() {
        let admission = admission(10, 2, &[]);
        let first = admission.enter(peer(1));
        let second = admission.enter(peer(1));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(admission.enter(peer(1)).err(), Some(TooManyFromPeer));
        assert!(admission.enter(peer(2)).is_ok(), "another address is not concerned");
        drop(first);
        assert!(admission.enter(peer(1)).is_ok(), "a place that became free is given again");
    }

    #[test]
    fn who_comes_by_a_trusted_proxy_counts_with_an_address_of_its_own() {
        let admission = admission(10, 1, &["192.0.2.1", "unix"]);
        let permits = [peer(1), peer(1), None, None].map(|peer| admission.enter(peer).unwrap());
        let share = permits[0].share(ip(7)).unwrap();
        for other in &permits[1..] {
            assert_eq!(other.share(ip(7)).err(), Some(TooManyFromPeer));
        }
        let [first, second, ..] = permits;
        first.transfer(share);
        assert!(second.share(ip(7)).is_err(), "a share that was transferred is still taken");
        admission.leave(ip(7));
        drop(second.share(ip(7)).unwrap());
        assert!(second.share(ip(7)).is_ok(), "a share that was dropped is given again");
    }

    #[test]
    fn nobody_else_says_who_it_is() {
        let admission = admission(10, 1, &["192.0.2.1"]);
        let permit = admission.enter(peer(2)).unwrap();
        assert!(!permit.is_proxy());
        drop(permit.share(ip(2)).unwrap());
        assert_eq!(
            admission.enter(peer(2)).err(),
            Some(TooManyFromPeer),
            "it is counted once and still there"
        );
    }

    #[tokio::test]
    async fn a_full_server_waits_until_somebody_leaves() {
        let admission = admission(1, 0, &[]);
        let permit = admission.enter(peer(1)).expect("there is a place");
        let waiting = tokio::spawn({
            let admission = admission.clone();
            async move { admission.wait_for_place().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let share = permit.share(ip(1)).unwrap();
        permit.transfer(share);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "a transferred place is still taken");
        admission.leave(ip(1));
        waiting.await.expect("the wait ends");
    }
}
