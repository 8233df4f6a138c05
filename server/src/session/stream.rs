//! The byte stream under a session. A session does not care what kind it is.

use std::fmt;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Result, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::tls::{Broken, ClientCertificate, Engine};

/// A connected, non-blocking stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(OwnedFd),
    /// The socket carries ciphertext.
    Tls(OwnedFd, Box<Engine>),
}

impl Stream {
    /// Reads what is there, at most a buffer full; 0 means that the peer will send nothing more. A read that does not fill the buffer
    /// has emptied the socket.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => {
                let receive = || rustix::net::recv(&*socket, &mut *buffer, RecvFlags::empty());
                retry_on_intr(receive).map(|(_, received)| received)
            }
            Self::Tls(socket, engine) => engine.read(socket.as_fd(), buffer).map_err(Broken::errno),
        }
    }

    /// Whether there is something to read that the socket will not tell of.
    #[inline]
    pub(crate) fn holds_input(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(_, engine) => engine.holds_input(),
        }
    }

    /// Writes as much as the kernel takes. What it does not take has to be written again, beginning with its first byte.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => retry_on_intr(|| rustix::net::send(&*socket, bytes, SendFlags::NOSIGNAL)),
            Self::Tls(socket, engine) => engine.write(socket.as_fd(), bytes).map_err(Broken::errno),
        }
    }

    /// So many of the bytes that are to be written again are encrypted already: they may not be replaced by others.
    pub(crate) fn committed(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(_, engine) => engine.owed(),
        }
    }

    /// Writes as much of all parts, in their order, as the kernel takes.
    pub(crate) fn write_parts(&mut self, parts: &[IoSlice<'_>]) -> Result<usize> {
        match self {
            Self::Plain(socket) => retry_on_intr(|| {
                rustix::net::sendmsg(
                    &*socket,
                    parts,
                    &mut SendAncillaryBuffer::default(),
                    SendFlags::NOSIGNAL,
                )
            }),
            Self::Tls(socket, engine) => write_encrypted(socket.as_fd(), engine, parts),
        }
    }

    /// Tells the peer that nothing more comes. It can still send, and can still read what was sent.
    pub(crate) fn finish_writing(&mut self) -> Result<()> {
        match self {
            Self::Plain(socket) => rustix::net::shutdown(socket, Shutdown::Write),
            Self::Tls(socket, engine) => engine.finish(socket.as_fd()),
        }
    }

    /// What the peer's certificate says of it, if it has shown one.
    pub(crate) fn client(&self) -> Option<&ClientCertificate> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(_, engine) => engine.client(),
        }
    }
}

/// Joins the small parts in front with the beginning of the last and large one, up to a full record, and encrypts the rest of it from
/// where it lies.
fn write_encrypted(socket: BorrowedFd<'_>, engine: &mut Engine, parts: &[IoSlice<'_>]) -> Result<usize> {
    const RECORD: usize = 16 << 10;
    let Some((last, small)) = parts.split_last() else { return Ok(0) };
    let mut joined = Vec::with_capacity(small.iter().map(|part| part.len()).sum::<usize>() + RECORD);
    small.iter().for_each(|part| joined.extend_from_slice(part));
    let (beginning, rest) = last.split_at(last.len().min(RECORD - joined.len() % RECORD));
    joined.extend_from_slice(beginning);
    let written = engine.write(socket, &joined).map_err(Broken::errno)?;
    if written < joined.len() || rest.is_empty() {
        return Ok(written);
    }
    // An error is met again with the next write.
    Ok(written + engine.write(socket, rest).unwrap_or(0))
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) | Self::Tls(socket, _) => socket.as_fd(),
        }
    }
}

/// Whom a session is with, in 19 bytes, because every idle session holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Unspecified if there is no address.
    ip: [u8; 16],
    /// 0 if a proxy said the address, which knows the port and mostly keeps it to itself.
    port: [u8; 2],
    is_secure: bool,
}

impl Peer {
    /// `address` is `None` for who comes by a Unix socket. `is_secure` if TLS goes all the way to the peer, here or at a proxy.
    pub(crate) fn new(address: Option<SocketAddr>, is_secure: bool) -> Self {
        let (ip, port) = address.map_or((Ipv6Addr::UNSPECIFIED, 0), |address| match address.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped(), address.port()),
            IpAddr::V6(ip) => (ip, address.port()),
        });
        Self { ip: ip.octets(), port: port.to_ne_bytes(), is_secure }
    }

    pub(crate) fn address(self) -> Option<SocketAddr> {
        let ip = Ipv6Addr::from(self.ip);
        (!ip.is_unspecified()).then(|| (ip.to_canonical(), u16::from_ne_bytes(self.port)).into())
    }

    pub(crate) fn ip(self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }

    pub(crate) fn is_secure(self) -> bool {
        self.is_secure
    }
}

/// For the log.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) if address.port() == 0 => address.ip().fmt(f),
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}
