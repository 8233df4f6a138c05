//! Binds the configured addresses and Unix sockets, and accepts.
//!
//! In: host and port, or a path. Out: streams with a permit, each served on a task of its own.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::admission::{Admission, Permit, RETRY_SECONDS, TOO_MANY};
use crate::config::{Config, Host, Listen};
use crate::http::Front;
use crate::socket_file::{self, SocketFile};

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A bound address.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Bound,
    address: Address,
    tls: bool,
    /// Of a Unix socket.
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What was accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why an address could not be had.
#[derive(Debug)]
pub enum BindError {
    Tcp {
        host: String,
        port: u16,
        cause: io::Error,
        /// An address of this server itself that is in the way.
        own: Option<SocketAddr>,
    },
    Unix {
        path: PathBuf,
        cause: io::Error,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port, cause, own) = match self {
            Self::Tcp { host, port, cause, own } => (host, port, cause, own),
            Self::Unix { path, cause } => return unix_error(f, path, cause),
        };
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

fn unix_error(f: &mut fmt::Formatter<'_>, path: &Path, cause: &io::Error) -> fmt::Result {
    write!(f, "cannot listen on the Unix socket {}: {cause}", path.display())?;
    match cause.kind() {
        io::ErrorKind::AddrInUse => write!(f, ": stop that one or choose another path in listen.unix"),
        io::ErrorKind::NotFound => write!(f, "; its folder has to exist"),
        io::ErrorKind::PermissionDenied => write!(f, "; the user that runs the server has to own its folder"),
        _ => Ok(()),
    }
}

impl std::error::Error for BindError {}

/// Binds every host and every Unix socket. Port 0 lets the system choose once; the other hosts get the same number.
pub(crate) fn bind_all(config: &Config) -> Result<Vec<Listener>, BindError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for (mut port, tls) in config.listen.ports() {
        for host in &config.listen.hosts {
            let error = |cause| tcp_error(host, port, cause, None);
            for address in addresses(host, port).map_err(error)? {
                match Listener::bind(address, tls, config) {
                    Ok((listener, address)) => {
                        port = address.port();
                        listeners.push(listener);
                    }
                    // "Every address" on a machine without IPv6 means every IPv4 address.
                    Err(cause) if is_unspecified_v6(address) && lacks_ipv6(&cause) => {
                        debug!("this machine has no IPv6: {cause}");
                    }
                    Err(cause) => return Err(tcp_error(host, port, cause, None)),
                }
            }
        }
    }
    for path in &config.listen.unix {
        listeners.push(Listener::bind_unix(path, &config.listen)?);
    }
    Ok(listeners)
}

fn tcp_error(host: &Host, port: u16, cause: io::Error, own: Option<SocketAddr>) -> BindError {
    BindError::Tcp { host: host.to_string(), port, cause, own }
}

/// What becomes of the listeners when the addresses change.
#[derive(Debug)]
pub(crate) struct Rebound {
    pub(crate) new: Vec<Listener>,
    /// Addresses that were bound before and still are wanted, and whether they are to speak TLS from now on.
    pub(crate) kept: Vec<(Address, bool)>,
}

/// Binds what is wanted and not bound yet, beside what was bound by `old`. Fails as a whole: then nothing has changed.
pub(crate) fn bind_beside(config: &Config, old: &Listen, bound: &Listeners) -> Result<Rebound, BindError> {
    let mut rebound = Rebound { new: Vec::new(), kept: Vec::new() };
    if config.listen.ports().eq(old.ports()) && config.listen.hosts == old.hosts {
        // Not resolved or chosen once more: a name, or port 0, might become another address.
        rebound.kept.extend(bound.kept_as_they_are());
    } else {
        rebound.bind_tcp(config, &bound.tcp_addresses())?;
    }
    let bound = bound.unix_sockets();
    for path in &config.listen.unix {
        if bound.contains(path) {
            rebound.kept.push((Address::Unix(path.clone()), false));
        } else {
            rebound.new.push(Listener::bind_unix(path, &config.listen)?);
        }
    }
    Ok(rebound)
}

impl Rebound {
    fn bind_tcp(&mut self, config: &Config, bound: &[SocketAddr]) -> Result<(), BindError> {
        let wanted =
            config.listen.ports().flat_map(|port| config.listen.hosts.iter().map(move |host| (port, host)));
        for ((port, tls), host) in wanted {
            for address in addresses(host, port).map_err(|cause| tcp_error(host, port, cause, None))? {
                if bound.contains(&address) {
                    self.kept.push((Address::Tcp(address), tls));
                    continue;
                }
                match Listener::bind(address, tls, config) {
                    Ok((listener, _)) => self.new.push(listener),
                    Err(cause) if is_unspecified_v6(address) && lacks_ipv6(&cause) => {}
                    Err(cause) => {
                        let overlaps = |own: &&SocketAddr| {
                            own.port() == port
                                && own.is_ipv4() == address.is_ipv4()
                                && (own.ip().is_unspecified() || address.ip().is_unspecified())
                        };
                        return Err(tcp_error(host, port, cause, bound.iter().find(overlaps).copied()));
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Accepting {
    address: Address,
    /// Whether those who are accepted from now on speak TLS.
    tls: Arc<AtomicBool>,
    task: JoinHandle<()>,
    /// Here and not with the task, so that the name is free as soon as nobody is to be accepted any more.
    file: Option<SocketFile>,
}

/// The listeners that accept.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    accepting: Vec<Accepting>,
    closing: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Begins to accept.
    pub(crate) fn add(&mut self, mut listener: Listener, admission: &Arc<Admission>, front: &Arc<Front>) {
        let (address, tls) = (listener.address.clone(), Arc::new(AtomicBool::new(listener.tls)));
        let file = listener.file.take();
        let front = front.clone();
        let serve = move |stream, permit, tls| front.clone().serve(stream, permit, tls);
        let task = tokio::spawn(listener.run(admission.clone(), tls.clone(), serve));
        self.accepting.push(Accepting { address, tls, task, file });
    }

    pub(crate) fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.accepting.iter().filter_map(Accepting::tcp_address).collect()
    }

    fn kept_as_they_are(&self) -> impl Iterator<Item = (Address, bool)> {
        let is_tcp = |accepting: &&Accepting| accepting.tcp_address().is_some();
        let kept = |accepting: &Accepting| (accepting.address.clone(), accepting.tls.load(Ordering::Relaxed));
        self.accepting.iter().filter(is_tcp).map(kept)
    }

    /// Those that speak TLS.
    pub(crate) fn tls_addresses(&self) -> Vec<SocketAddr> {
        let speaks_tls = |accepting: &&Accepting| accepting.tls.load(Ordering::Relaxed);
        self.accepting.iter().filter(speaks_tls).filter_map(Accepting::tcp_address).collect()
    }

    pub(crate) fn unix_sockets(&self) -> Vec<PathBuf> {
        let path = |accepting: &Accepting| match &accepting.address {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        };
        self.accepting.iter().filter_map(path).collect()
    }

    /// Lets others connect to the Unix sockets.
    pub(crate) fn set_unix_mode(&self, mode: u32) {
        for Accepting { address, file, .. } in &self.accepting {
            if let Some(Err(error)) = file.as_ref().map(|file| file.set_mode(mode)) {
                warn!("cannot change the mode of {address}: {error}");
            }
        }
    }

    /// Closes all listeners but these. What they have accepted goes on.
    pub(crate) fn keep(&mut self, kept: &[(Address, bool)]) {
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

impl Accepting {
    fn tcp_address(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) => None,
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
    fn bind(address: SocketAddr, tls: bool, config: &Config) -> io::Result<(Self, SocketAddr)> {
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
        let socket = Bound::Tcp(socket);
        Ok((Self { socket, address: Address::Tcp(address), tls, file: None }, address))
    }

    fn bind_unix(path: &Path, config: &Listen) -> Result<Self, BindError> {
        match socket_file::listen(path, config.unix_mode, config.backlog) {
            Ok((socket, file)) => Ok(Self {
                socket: Bound::Unix(socket),
                address: Address::Unix(path.to_owned()),
                tls: false,
                file: Some(file),
            }),
            Err(cause) => Err(BindError::Unix { path: path.to_owned(), cause }),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Cancel safe, because accepting is.
    async fn accept(&self) -> io::Result<(Accepted, Option<SocketAddr>)> {
        match &self.socket {
            Bound::Tcp(socket) => {
                socket.accept().await.map(|(stream, peer)| (Accepted::Tcp(stream), Some(peer)))
            }
            Bound::Unix(socket) => socket.accept().await.map(|(stream, _)| (Accepted::Unix(stream), None)),
        }
    }

    /// Accepts for ever; each stream runs `serve` on its own task, which is told whether the peer is to speak TLS. Cancel safe:
    /// dropping it closes the listener.
    async fn run<F>(
        self,
        admission: Arc<Admission>,
        speaks_tls: Arc<AtomicBool>,
        serve: impl Fn(Accepted, Permit, bool) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            admission.wait_for_place().await;
            match self.accept().await {
                Ok((stream, peer)) => {
                    let tls = speaks_tls.load(Ordering::Relaxed);
                    match admission.enter(peer) {
                        Ok(permit) => {
                            tokio::spawn(serve(stream, permit, tls));
                        }
                        Err(_) => {
                            debug!(?peer, "refused: too many connections from this address");
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
fn refuse(stream: &Accepted) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: {RETRY_SECONDS}\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{TOO_MANY}",
        TOO_MANY.len()
    );
    let _ = match stream {
        Accepted::Tcp(stream) => stream.try_write(answer.as_bytes()),
        Accepted::Unix(stream) => stream.try_write(answer.as_bytes()),
    };
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
