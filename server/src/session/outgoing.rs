//! What a peer did not take yet.

use rustix::io::{Errno, Result};

use super::stream::Stream;

/// The backlog of one session. It exists only while there is one: an idle session holds no buffers.
///
/// While it exists the session does not read on, so what a peer can make the server hold is bounded by
/// `limits.outgoing_bytes_max`, plus one message, plus what one read had brought when the backlog began.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Frames in their order; those before `sent` have gone out.
    bytes: Vec<u8>,
    sent: usize,
    /// Input that was read and could not be delivered before the peer takes its replies.
    pub(crate) unread: Vec<u8>,
    /// Tick at which the peer last took something.
    pub(crate) progress: u32,
    /// The high watermark was reached; `on_writable` is owed.
    pub(crate) above_high: bool,
}

/// What a session keeps back while its handler is not ready for more (`WSH_HOLD`). It exists only that long.
///
/// Nothing is read meanwhile, so it holds no more than what one read had brought.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Input that was read and not delivered.
    pub(super) unread: Vec<u8>,
    /// The socket may hold more: its edge is spent.
    pub(super) has_more: bool,
}

impl Outgoing {
    pub(crate) fn new(unsent: &[u8], now: u32) -> Self {
        Self { bytes: unsent.to_vec(), progress: now, ..Self::default() }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Where further frames are appended.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Writes as much as the peer takes. `Ok(true)` when nothing is left.
    pub(crate) fn write_to(&mut self, stream: &mut Stream, now: u32) -> Result<bool> {
        while self.len() > 0 {
            match stream.write(&self.bytes[self.sent..]) {
                Ok(written) => {
                    self.sent += written;
                    self.progress = now;
                }
                Err(Errno::AGAIN) => {
                    self.compact();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Forgets what was sent once it is more than what waits, so that a peer that is always a little behind does not make
    /// the buffer grow for ever.
    fn compact(&mut self) {
        if self.sent > self.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
            self.bytes.shrink_to(self.bytes.len().max(64 * 1024));
        }
    }
}
