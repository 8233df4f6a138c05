//! Compresses what the server sends (RFC 7692 section 7.2.1).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::{DeflateGroup, SCRATCH_BYTES_KEPT};
use crate::frame::{self, FrameHead};
use crate::message::Kind;

/// What a flush ends with, and a sender leaves away (section 7.2.1).
pub(super) const FLUSH_END: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Compresses the messages of any number of connections, one after the other: a worker needs one. Allocates when it first has
/// something to do, up to 311 KiB for each stream, and keeps that.
///
/// A stream goes on where the connection it last worked for sends again; for another one it has to begin anew, with what that has
/// kept. So a second stream is worth its memory where a few connections send in turns.
pub struct Deflater {
    /// At most `streams_max` for each of the eight windows.
    streams: Vec<Stream>,
    streams_max: usize,
    /// Where the output is made, before its length is known.
    scratch: Vec<u8>,
    turn: Turn,
}

/// Names a state of a stream: the one after a certain message of a certain connection. No two have the same name, of whichever
/// deflater they are; 0 is none.
pub(crate) type Turn = u64;

/// The turns of each deflater begin here, far enough from those of the one before.
static TURNS: AtomicU64 = AtomicU64::new(TURNS_OF_ONE);
const TURNS_OF_ONE: u64 = 1 << 40;

struct Stream {
    window_bits: u8,
    level: u8,
    /// 0 if it has to begin anew.
    turn: Turn,
    deflate: Deflate,
}

impl Deflater {
    /// One stream for each window that connections agreed to. Does not allocate.
    pub const fn new() -> Self {
        Self::with_streams(1)
    }

    /// At most so many streams for each window, of which all connections of one server mostly have the same. Does not allocate.
    pub const fn with_streams(count: usize) -> Self {
        let streams_max = if count == 0 { 1 } else { count };
        Self { streams: Vec::new(), streams_max, scratch: Vec::new(), turn: 0 }
    }

    /// Appends a whole message as one frame, compressed without reference to any other message. Each connection of this
    /// [group](crate::Connection::deflate_group) can send it: [`Connection::send_alone`](crate::Connection::send_alone). Where
    /// compression does not make it shorter, the frame is an ordinary one.
    pub fn compress_alone(&mut self, group: DeflateGroup, kind: Kind, payload: &[u8], output: &mut Vec<u8>) {
        match self.compress(group, payload, &[], 0, &mut 0) {
            Some(compressed) => {
                frame::append(output, FrameHead::compressed(kind, compressed.len()), compressed);
            }
            None => frame::append(output, frame::frame_head(kind, payload.len()), payload),
        }
    }

    /// The payload of a compressed message, which may refer to the plain text of those before it: to `history`, or if the stream
    /// of that `turn` is still there, to whatever it remembers. `None` if that is not shorter than the message itself and so many bytes
    /// more, or the message is too short to try.
    pub(crate) fn compress(
        &mut self,
        group: DeflateGroup,
        payload: &[u8],
        history: &[u8],
        excess_max: usize,
        turn: &mut Turn,
    ) -> Option<&[u8]> {
        if payload.is_empty() || payload.len() < group.message_bytes_min {
            return None;
        }
        // More than any message can get, by an eighth where its bytes have no pattern: a message that was begun is always ended,
        // because the engine does not start anew from the middle of one in the right way.
        let room = payload.len() + payload.len() / 8 + 64;
        make_room(&mut self.scratch, room);
        let (index, goes_on) = self.stream(group, *turn);
        let stream = &mut self.streams[index];
        // Good until the message is known to be sent compressed: the peer's window has no other.
        (stream.turn, *turn) = (0, 0);
        let deflate = &mut stream.deflate;
        let is_ready = goes_on || {
            deflate.reset();
            history.is_empty() || deflate.set_dictionary(history).is_ok()
        };
        let before = (deflate.total_in(), deflate.total_out());
        let made = deflate.compress(payload, &mut self.scratch[..room], DeflateFlush::SyncFlush);
        let len = (deflate.total_out() - before.1) as usize;
        let is_whole = deflate.total_in() - before.0 == payload.len() as u64 && len < room;
        if !is_ready || !is_whole || made != Ok(Status::Ok) {
            self.streams.swap_remove(index);
            return None;
        }
        let compressed = self.scratch[..len].strip_suffix(&FLUSH_END)?;
        if compressed.len() >= payload.len() + excess_max {
            return None;
        }
        if self.turn == 0 {
            self.turn = TURNS.fetch_add(TURNS_OF_ONE, Ordering::Relaxed);
        }
        self.turn += 1;
        (stream.turn, *turn) = (self.turn, self.turn);
        Some(compressed)
    }

    /// The place of the stream to be used, and whether it is the one of that turn. The others begin anew, the one first that was
    /// used longest ago.
    fn stream(&mut self, DeflateGroup { window_bits, level, .. }: DeflateGroup, turn: Turn) -> (usize, bool) {
        let streams =
            || self.streams.iter().enumerate().filter(|(_, stream)| stream.window_bits == window_bits);
        if turn != 0
            && let Some((index, _)) =
                streams().find(|(_, stream)| stream.turn == turn && stream.level == level)
        {
            return (index, true);
        }
        let oldest =
            streams().min_by_key(|(_, stream)| stream.turn).map(|(index, stream)| (index, stream.turn));
        let index = match oldest {
            Some((index, oldest)) if oldest == 0 || streams().count() >= self.streams_max => index,
            _ => {
                self.streams.push(Stream {
                    window_bits,
                    level,
                    turn: 0,
                    deflate: new_stream(window_bits, level),
                });
                self.streams.len() - 1
            }
        };
        let stream = &mut self.streams[index];
        if stream.level != level {
            (stream.level, stream.deflate) = (level, new_stream(window_bits, level));
        }
        (index, false)
    }
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new()
    }
}

fn new_stream(window_bits: u8, level: u8) -> Deflate {
    // The engine has no window of 256 bytes and takes one of 512 for it. But it refers back by its window less 262 bytes at most,
    // so that it can look ahead: 250 bytes, which a peer with 256 has.
    Deflate::new(i32::from(level), false, window_bits.max(9))
}

/// Makes the scratch that long. What a large message needed is given back when a smaller one comes.
fn make_room(scratch: &mut Vec<u8>, room: usize) {
    if scratch.len() > room.max(SCRATCH_BYTES_KEPT) {
        scratch.truncate(room);
        scratch.shrink_to(SCRATCH_BYTES_KEPT);
    }
    if scratch.len() < room {
        scratch.reserve_exact(room - scratch.len());
        scratch.resize(room, 0);
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let windows: Vec<u8> = self.streams.iter().map(|stream| stream.window_bits).collect();
        f.debug_struct("Deflater").field("windows", &windows).finish_non_exhaustive()
    }
}
