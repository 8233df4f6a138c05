//! Binds the configured addresses and accepts.
//!
//! In: host and port. Out: streams with a permit, each served on a task of its own.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::admission::{Admission, Permit};
use crate::config::{Config, Host};
use crate::http::Front;

/// A bound address.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: bool,
}

/// Why an address could not be had.
#[derive(Debug)]
pub struct BindError {
    pub host: String,
    pub port: u16,
    pub cause: io::Error,
    /// An address of this server itself that is in the way.
    pub own: Option<SocketAddr>,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, cause, own } = self;
        write!(f, "cannot listen on {host} port {port}: {cause}")?;
        if let Some(own) = own {
            return write!(
                f,
                "; this server itself listens on {own}, which overlaps: choose another port as well, or restart it"
            );
        }
        match cause.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "; another server has it: stop that one or choose another port with -p")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "; ports below 1024 need a privilege: choose another with -p")
            }
            io::ErrorKind::AddrNotAvailable => write!(f, "; this machine does not have that address"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {}

/// Binds every host. Port 0 lets the system choose once; the other hosts get the same number.
pub(crate) fn bind_all(config: &Config) -> Result<Vec<Listener>, BindError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for (mut port, tls) in config.listen.ports() {
        for host in &config.listen.hosts {
            let error = |cause| BindError { host: host.to_string(), port, cause, own: None };
            for address in addresses(host, port).map_err(error)? {
                match Listener::bind(address, tls, config) {
                    Ok(listener) => {
                        port = listener.address.port();
                        listeners.push(listener);
                    }
                    // "Every address" on a machine without IPv6 means every IPv4 address.
                    Err(cause) if is_unspecified_v6(address) && lacks_ipv6(&cause) => {
                        debug!("this machine has no IPv6: {cause}");
                    }
                    Err(cause) => return Err(BindError { host: host.to_string(), port, cause, own: None }),
                }
            }
        }
    }
    Ok(listeners)
}

/// What becomes of the listeners when the addresses change.
#[derive(Debug)]
pub(crate) struct Rebound {
    pub(crate) new: Vec<Listener>,
    /// Addresses that were bound before and still are wanted, and whether they are to speak TLS from now on.
    pub(crate) kept: Vec<(SocketAddr, bool)>,
}

/// Binds what is wanted and not bound yet, beside what is bound. Fails as a whole: then nothing has changed.
pub(crate) fn bind_beside(config: &Config, bound: &[SocketAddr]) -> Result<Rebound, BindError> {
    let mut rebound = Rebound { new: Vec::new(), kept: Vec::new() };
    let wanted =
        config.listen.ports().flat_map(|port| config.listen.hosts.iter().map(move |host| (port, host)));
    for ((port, tls), host) in wanted {
        let error = |cause, own| BindError { host: host.to_string(), port, cause, own };
        for address in addresses(host, port).map_err(|cause| error(cause, None))? {
            if bound.contains(&address) {
                rebound.kept.push((address, tls));
                continue;
            }
            match Listener::bind(address, tls, config) {
                Ok(listener) => rebound.new.push(listener),
                Err(cause) if is_unspecified_v6(address) && lacks_ipv6(&cause) => {}
                Err(cause) => {
                    let overlaps = |own: &&SocketAddr| {
                        own.port() == port
                            && own.is_ipv4() == address.is_ipv4()
                            && (own.ip().is_unspecified() || address.ip().is_unspecified())
                    };
                    return Err(error(cause, bound.iter().find(overlaps).copied()));
                }
            }
        }
    }
    Ok(rebound)
}

#[derive(Debug)]
struct Accepting {
    address: SocketAddr,
    /// Whether those who are accepted from now on speak TLS.
    tls: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// The listeners that accept.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    accepting: Vec<Accepting>,
    closing: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Begins to accept.
    pub(crate) fn add(&mut self, listener: Listener, admission: &Arc<Admission>, front: &Arc<Front>) {
        let (address, tls) = (listener.address(), Arc::new(AtomicBool::new(listener.tls)));
        let front = front.clone();
        let serve = move |stream, permit, tls| front.clone().serve(stream, permit, tls);
        let task = tokio::spawn(listener.run(admission.clone(), tls.clone(), serve));
        self.accepting.push(Accepting { address, tls, task });
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.accepting.iter().map(|accepting| accepting.address).collect()
    }

    /// Those that speak TLS.
    pub(crate) fn tls_addresses(&self) -> Vec<SocketAddr> {
        let speaks_tls = |accepting: &&Accepting| accepting.tls.load(Ordering::Relaxed);
        self.accepting.iter().filter(speaks_tls).map(|accepting| accepting.address).collect()
    }

    /// Closes all listeners but these. What they have accepted goes on.
    pub(crate) fn keep(&mut self, kept: &[(SocketAddr, bool)]) {
        let is_gone = |accepting: &mut Accepting| {
            let tls = kept.iter().find(|(address, _)| *address == accepting.address).map(|(_, tls)| *tls);
            accepting.tls.store(tls.unwrap_or_default(), Ordering::Relaxed);
            tls.is_none()
        };
        for Accepting { task, .. } in self.accepting.extract_if(.., is_gone) {
            task.abort();
            self.closing.push(task);
        }
    }

    /// Waits until what was closed is closed.
    pub(crate) async fn closed(&mut self) {
        for task in self.closing.drain(..) {
            // It was aborted, which is no news.
            let _ = task.await;
        }
    }
}

/// A name may stand for several addresses; all of them are bound.
fn addresses(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host {
        Host::Address(address) => Ok(vec![(*address, port).into()]),
        Host::Name(name) => Ok((name.as_str(), port).to_socket_addrs()?.collect()),
    }
}

fn is_unspecified_v6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn lacks_ipv6(cause: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
}

impl Listener {
    fn bind(address: SocketAddr, tls: bool, config: &Config) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            // IPv4 has its own listener, so that both show their addresses as they are.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit both: small frames leave at once, and a peer that takes nothing is given up by the
        // kernel also where no deadline of ours watches, as during a file download.
        socket.set_tcp_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(config.limits.write_seconds_max))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(config.listen.backlog).unwrap_or(i32::MAX))?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, tls })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts for ever; each stream runs `serve` on its own task, which is told whether the peer is to speak TLS. Cancel safe:
    /// dropping it closes the listener.
    async fn run<F>(
        self,
        admission: Arc<Admission>,
        speaks_tls: Arc<AtomicBool>,
        serve: impl Fn(TcpStream, Permit, bool) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            admission.wait_for_place().await;
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    let tls = speaks_tls.load(Ordering::Relaxed);
                    match admission.enter(peer) {
                        Ok(permit) => {
                            tokio::spawn(serve(stream, permit, tls));
                        }
                        Err(_) => {
                            debug!(%peer, "refused: too many connections from this address");
                            // Who expects TLS would take words for a broken record. A handshake for the sake of saying it is what
                            // the limit is to save.
                            if !tls {
                                refuse(&stream);
                            }
                        }
                    }
                }
                Err(cause) => back_off(&cause).await,
            }
        }
    }
}

/// Says in HTTP why, as far as the empty socket takes it at once, and closes.
fn refuse(stream: &TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 10\r\n\
        Content-Type: text/plain\r\nContent-Length: 43\r\n\r\ntoo many connections from your address now\n";
    let _ = stream.try_write(ANSWER);
}

async fn back_off(cause: &io::Error) {
    use rustix::io::Errno;
    let is_exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()));
    if !is_exhausted {
        // The peer that waited is gone already; the next one is not concerned.
        debug!("accept failed: {cause}");
        return;
    }
    // It does not go away by itself. Wait for connections to end rather than spin.
    warn!("cannot accept: {cause}; trying again in a second");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_says_its_own_length() {
        let body = "too many connections from your address now\n";
        assert_eq!(body.len(), 43);
    }
}
