//! Binds the configured addresses and accepts.
//!
//! In: host and port. Out: streams with a permit, each served on a task of its own.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::admission::{Admission, Permit};
use crate::config::{Config, Host};

/// A bound address.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Why an address could not be had.
#[derive(Debug)]
pub struct BindError {
    pub host: String,
    pub port: u16,
    pub cause: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, cause } = self;
        write!(f, "cannot listen on {host} port {port}: {cause}")?;
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
    let mut port = config.listen.port;
    let mut listeners: Vec<Listener> = Vec::new();
    for host in &config.listen.hosts {
        let error = |cause| BindError { host: host.to_string(), port, cause };
        for address in addresses(host, port).map_err(error)? {
            match Listener::bind(address, config) {
                Ok(listener) => {
                    port = listener.address.port();
                    listeners.push(listener);
                }
                // "Every address" on a machine without IPv6 means every IPv4 address.
                Err(cause) if is_unspecified_v6(address) && lacks_ipv6(&cause) => {
                    debug!("this machine has no IPv6: {cause}");
                }
                Err(cause) => return Err(BindError { host: host.to_string(), port, cause }),
            }
        }
    }
    Ok(listeners)
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
    fn bind(address: SocketAddr, config: &Config) -> io::Result<Self> {
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
        Ok(Self { socket, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts for ever; each stream runs `serve` on its own task. Cancel safe: dropping it closes the listener.
    pub(crate) async fn run<F>(self, admission: Arc<Admission>, serve: impl Fn(TcpStream, Permit) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            admission.wait_for_place().await;
            match self.socket.accept().await {
                Ok((stream, peer)) => match admission.enter(peer) {
                    Ok(permit) => {
                        tokio::spawn(serve(stream, permit));
                    }
                    Err(_) => {
                        debug!(%peer, "refused: too many connections from this address");
                        refuse(&stream);
                    }
                },
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
