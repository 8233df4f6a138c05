//! What a peer did not take yet.

use rustix::io::{Errno, Result};
use wshd_protocol::SentFrame;

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
    /// Where a frame begins that has not begun to go out, or one that was there before it went out.
    whole_from: usize,
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
    /// `unsent` begins with so many bytes of a frame that has begun to go out; whole frames follow.
    pub(super) fn new(unsent: Vec<u8>, begun: usize, now: u32) -> Self {
        Self { bytes: unsent, whole_from: begun, progress: now, ..Self::default() }
    }

    /// What is left of whole frames after `sent` bytes of them have gone out.
    pub(super) fn of_frames(frames: &[u8], sent: usize, now: u32) -> Self {
        Self::new(frames[sent..].to_vec(), frame_end(frames, 0, sent) - sent, now)
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
        (self.sent, self.whole_from) = (0, 0);
        Ok(true)
    }

    /// Drops messages that have not begun to go out, the oldest first, until so many bytes are free or there are no more of them.
    /// Control frames and parts of messages stay, and so do the first `committed` bytes. How many were dropped.
    pub(crate) fn drop_oldest(&mut self, bytes_needed: usize, committed: usize) -> u64 {
        self.whole_from = frame_end(&self.bytes, self.whole_from, self.sent + committed);
        let (mut freed, mut dropped, mut at) = (0, 0, self.whole_from);
        while freed < bytes_needed
            && let Some(frame) = SentFrame::at(&self.bytes[at..])
        {
            if frame.is_message {
                // What stays before it is little: moving that is cheaper than moving all that follows.
                self.bytes.copy_within(self.sent..at, self.sent + frame.len);
                self.sent += frame.len;
                self.whole_from += frame.len;
                freed += frame.len;
                dropped += 1;
            }
            at += frame.len;
        }
        dropped
    }

    /// Forgets what was sent once it is more than what waits, so that a peer that is always a little behind does not make
    /// the buffer grow for ever.
    fn compact(&mut self) {
        if self.sent > self.len() {
            self.whole_from = frame_end(&self.bytes, self.whole_from, self.sent) - self.sent;
            self.bytes.drain(..self.sent);
            self.sent = 0;
            self.bytes.shrink_to(self.bytes.len().max(64 * 1024));
        }
    }
}

/// The first place from `at` on, which is the beginning of a frame, where a frame begins and that is not before `least`.
pub(super) fn frame_end(bytes: &[u8], mut at: usize, least: usize) -> usize {
    while at < least
        && let Some(frame) = SentFrame::at(&bytes[at..])
    {
        at += frame.len;
    }
    at.max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: u8) -> Vec<u8> {
        [&[0x82, 10][..], &[name; 10]].concat()
    }

    /// What is left, whole frames by their first payload byte.
    fn names(outgoing: &Outgoing, mut skip: usize) -> Vec<u8> {
        let bytes = &outgoing.bytes[outgoing.sent..];
        let mut names = Vec::new();
        while let Some(frame) = SentFrame::at(&bytes[skip..]) {
            names.push(bytes[skip + 2]);
            skip += frame.len;
        }
        names
    }

    #[test]
    fn the_oldest_messages_go_and_what_has_begun_stays() {
        let mut frames: Vec<u8> = (1..=5).flat_map(message).collect();
        frames.splice(24..24, [0x89, 1, 9]); // a ping between the second and the third
        let mut outgoing = Outgoing::of_frames(&frames, 5, 0);
        assert_eq!(outgoing.drop_oldest(20, 0), 2);
        assert_eq!(outgoing.bytes[outgoing.sent..][..7], [1; 7], "the rest of the one that has begun");
        assert_eq!(names(&outgoing, 7), [9, 4, 5]);
        assert_eq!(outgoing.drop_oldest(1000, 0), 2);
        assert_eq!(names(&outgoing, 7), [9]);
        outgoing.tail().extend(message(6));
        outgoing.sent += 7 + 3;
        assert_eq!(outgoing.drop_oldest(1, 0), 1);
        assert_eq!(outgoing.len(), 0);
    }

    /// TLS asks for the bytes again that it has encrypted and not got rid of.
    #[test]
    fn what_is_committed_stays() {
        let frames: Vec<u8> = (1..=4).flat_map(message).collect();
        let mut outgoing = Outgoing::of_frames(&frames, 5, 0);
        assert_eq!(outgoing.drop_oldest(1000, 8), 2, "the first has begun, the second is committed");
        assert_eq!(outgoing.bytes[outgoing.sent..], frames[5..24]);
    }

    #[test]
    fn parts_of_a_message_are_not_dropped() {
        let frames = [&[0x02, 1, 7][..], &[0x00, 1, 8], &[0x80, 1, 9]].concat();
        let mut outgoing = Outgoing::of_frames(&frames, 0, 0);
        assert_eq!(outgoing.drop_oldest(1, 0), 0);
        assert_eq!(names(&outgoing, 0), [7, 8, 9]);
    }

    #[test]
    fn the_place_of_the_next_frame_outlives_what_was_sent() {
        let frames: Vec<u8> = (1..=4).flat_map(message).collect();
        let mut outgoing = Outgoing::of_frames(&frames, 0, 0);
        outgoing.sent = 30;
        outgoing.compact();
        assert_eq!((outgoing.sent, outgoing.len()), (0, 18));
        assert_eq!(outgoing.drop_oldest(1, 0), 1);
        assert_eq!(names(&outgoing, 6), [0; 0], "only the rest of the third is left");
    }
}
