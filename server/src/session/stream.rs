//! The byte stream under a session. A session does not care what kind it is.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

/// A connected, non-blocking stream. TLS will be a second variant.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(OwnedFd),
}

impl Stream {
    /// Reads what is there, at most a buffer full; 0 means that the peer will send nothing more.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        let Self::Plain(socket) = self;
        retry(|| rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()).map(|(_, received)| received))
    }

    /// Writes as much as the kernel takes.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize> {
        let Self::Plain(socket) = self;
        retry(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL))
    }

    /// Writes as much of all parts, in their order, as the kernel takes, in one system call.
    pub(crate) fn write_parts(&self, parts: &[IoSlice<'_>]) -> Result<usize> {
        let Self::Plain(socket) = self;
        retry(|| {
            rustix::net::sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
        })
    }

    /// Tells the peer that nothing more comes. It can still send, and can still read what was sent.
    pub(crate) fn finish_writing(&self) -> Result<()> {
        let Self::Plain(socket) = self;
        rustix::net::shutdown(socket, Shutdown::Write)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Self::Plain(socket) = self;
        socket.as_fd()
    }
}

fn retry(mut call: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Address of a peer in 18 bytes, because every idle session holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    ip: [u8; 16],
    port: u16,
}

impl Peer {
    pub(crate) fn address(self) -> std::net::SocketAddr {
        let ip = std::net::Ipv6Addr::from(self.ip).to_canonical();
        (ip, self.port).into()
    }
}

impl From<std::net::SocketAddr> for Peer {
    fn from(address: std::net::SocketAddr) -> Self {
        let ip = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: address.port() }
    }
}
