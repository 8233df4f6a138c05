//! Sees whether the target of a request has a fragment, which the parser of HTTP drops without a word.
//!
//! A WebSocket has no place that a fragment could name (RFC 6455 section 3): whoever sends one means something else than this
//! server would do. Only lines that begin with `GET ` are looked at, which in the head of a request is its first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that looks at what it brings.
#[derive(Debug)]
pub(super) struct Reading<S> {
    stream: S,
    line: Line,
    /// Whether the target of the last request that came has a fragment.
    has_fragment: Arc<AtomicBool>,
}

/// How far the line has come that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of it are those of `GET `.
    Method(usize),
    Target,
    /// Right behind a `#`.
    Fragment,
    /// The rest, which says nothing about the target.
    Rest,
}

const METHOD: &[u8] = b"GET ";

impl<S> Reading<S> {
    pub(super) fn new(stream: S, has_fragment: Arc<AtomicBool>) -> Self {
        Self { stream, line: Line::Method(0), has_fragment }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn look_at(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            self.line = match (self.line, byte) {
                (_, b'\n') => Line::Method(0),
                (Line::Method(at), byte) if METHOD[at] == byte => {
                    if at + 1 == METHOD.len() {
                        self.has_fragment.store(false, Ordering::Relaxed);
                        Line::Target
                    } else {
                        Line::Method(at + 1)
                    }
                }
                (Line::Target, b'#') => Line::Fragment,
                (Line::Target, byte) if byte != b' ' => Line::Target,
                (Line::Fragment, byte) => {
                    // An empty fragment names nothing, and is let pass.
                    self.has_fragment.store(byte != b' ', Ordering::Relaxed);
                    Line::Rest
                }
                // Also an empty line before a request, which the parser passes over.
                _ => {
                    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
                    bytes = &bytes[end..];
                    Line::Rest
                }
            };
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reading<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = polled {
            self.look_at(&buffer.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reading<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is seen of these bytes, whole and byte by byte.
    fn seen(text: &str) -> bool {
        let look = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let has_fragment = Arc::new(AtomicBool::new(false));
            let mut reading = Reading::new((), has_fragment.clone());
            pieces.for_each(|piece| reading.look_at(piece));
            has_fragment.load(Ordering::Relaxed)
        };
        let whole = look(&mut std::iter::once(text.as_bytes()));
        assert_eq!(whole, look(&mut text.as_bytes().chunks(1)), "{text:?}");
        whole
    }

    #[test]
    fn a_fragment_is_what_follows_a_hash_in_the_target() {
        for with in [
            "GET /echo#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /echo?q#x HTTP/1.1\r\n",
            "GET ws://a/echo#x HTTP/1.1\r\n",
            "\r\nGET /echo## HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /echo#x HTTP/1.1\r\n\r\n",
        ] {
            assert!(seen(with), "{with:?}");
        }
        for without in [
            "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /echo# HTTP/1.1\r\nReferer: /echo#x\r\n\r\n",
            "GET /echo HTTP/1.1\r\nX: GET /echo#x HTTP/1.1\r\n\r\n",
            "POST /echo#x HTTP/1.1\r\n\r\n",
            "GET /echo#x HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GETX /echo#x HTTP/1.1\r\n",
        ] {
            assert!(!seen(without), "{without:?}");
        }
    }
}
