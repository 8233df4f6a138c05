//! The stream under HTTP, on which a handler may have other bytes written than the answer that HTTP would.
//!
//! hyper does not know of it: it writes the answer, and takes the connection through what follows an answer, be that its end or
//! another protocol. Only the bytes are others.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is written in the place of an answer. It is set when the answer is known, and then the connection has no other.
pub(super) type Instead = Arc<OnceLock<Vec<u8>>>;

/// A stream that may have to write something else.
#[derive(Debug)]
pub(super) struct Answering<S> {
    stream: S,
    instead: Instead,
    /// Of `instead`.
    written: usize,
}

impl<S: AsyncWrite + Unpin> Answering<S> {
    pub(super) fn new(stream: S, instead: Instead) -> Self {
        Self { stream, instead, written: 0 }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Writes what stands in the place of the answer. `None` if nothing does.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<()>>> {
        let Some(instead) = self.instead.get() else { return Poll::Ready(None) };
        while self.written < instead.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &instead[self.written..])) {
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::WriteZero.into()))),
                Ok(written) => self.written += written,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(Some(Ok(())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Answering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answering<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match ready!(this.poll_instead(cx)) {
            None => Pin::new(&mut this.stream).poll_write(cx, bytes),
            Some(done) => Poll::Ready(done.map(|()| bytes.len())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match ready!(this.poll_instead(cx)) {
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, parts),
            Some(done) => Poll::Ready(done.map(|()| parts.iter().map(|part| part.len()).sum())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
