//! A stream under HTTP while it belongs to the front.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::Engine;

/// A connection whose handshake is complete.
#[derive(Debug)]
pub(crate) struct Secured {
    socket: TcpStream,
    engine: Box<Engine>,
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub(crate) enum NotTls {
    /// The peer speaks HTTP without TLS. It was told so.
    Http,
    Io(io::Error),
}

/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE: u8 = 22;

const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
    Content-Length: 54\r\n\r\nthis port speaks TLS: connect with wss:// or https://\n";

impl Secured {
    /// Shakes hands. The caller has the deadline.
    pub(crate) async fn accept(mut socket: TcpStream, config: Arc<ServerConfig>) -> Result<Self, NotTls> {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first[0] != HANDSHAKE && first[0].is_ascii_uppercase() {
            socket.write_all(SPEAK_TLS).await?;
            take_leave(socket).await?;
            return Err(NotTls::Http);
        }
        let mut engine = Box::new(Engine::new(config).map_err(io::Error::other)?);
        loop {
            socket.readable().await?;
            let result = socket
                .try_io(Interest::READABLE, || engine.shake_hands(socket.as_fd()).map_err(io::Error::from));
            let is_blocked = match result {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(error) => {
                    // The alert says why, to whoever is there to read it.
                    let _ = take_leave(socket).await;
                    return Err(error.into());
                }
            };
            while engine.holds_output() {
                socket.writable().await?;
                let flushed = socket
                    .try_io(Interest::WRITABLE, || engine.flush(socket.as_fd()).map_err(io::Error::from));
                match flushed {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                    _ => {}
                }
            }
            if !is_blocked {
                return Ok(Self { socket, engine });
            }
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Leaves the event loop of the front.
    pub(crate) fn into_parts(self) -> io::Result<(std::net::TcpStream, Box<Engine>)> {
        Ok((self.socket.into_std()?, self.engine))
    }

    /// Writes what an earlier read or write left, without waiting for it.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, engine } = self;
        while engine.holds_output() {
            ready!(socket.poll_write_ready(cx))?;
            let flush = || engine.flush(socket.as_fd()).map_err(io::Error::from);
            match socket.try_io(Interest::WRITABLE, flush) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                _ => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Says that nothing more comes, then reads what the peer still says and throws it away, so that no reset overtakes the answer.
async fn take_leave(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut bytes = [0; 1024];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // What reading made the protocol answer; it need not be out for the next read.
        let _ = this.poll_pending(cx)?;
        let Self { socket, engine } = this;
        let room = buffer.initialize_unfilled();
        loop {
            let read = if engine.holds_input() {
                engine.read(socket.as_fd(), room).map_err(io::Error::from)
            } else {
                ready!(socket.poll_read_ready(cx))?;
                let read = || engine.read(socket.as_fd(), room).map_err(io::Error::from);
                socket.try_io(Interest::READABLE, read)
            };
            match read {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Secured {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, engine } = self.get_mut();
        loop {
            ready!(socket.poll_write_ready(cx))?;
            let write = || engine.write(socket.as_fd(), bytes).map_err(io::Error::from);
            match socket.try_io(Interest::WRITABLE, write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_pending(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.engine.finish(this.socket.as_fd())?;
        this.poll_pending(cx)
    }
}

impl From<io::Error> for NotTls {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for NotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str("the peer speaks HTTP on a port that speaks TLS"),
            Self::Io(error) => write!(f, "TLS handshake failed: {error}"),
        }
    }
}
