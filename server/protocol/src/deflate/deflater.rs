//! Compresses what the server sends (RFC 7692 section 7.2.1).

use std::fmt;

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::{DeflateGroup, SCRATCH_BYTES_KEPT};
use crate::frame::{self, FrameHead};
use crate::message::Kind;

/// What a flush ends with, and a sender leaves away (section 7.2.1).
pub(super) const FLUSH_END: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Compresses the messages of any number of connections, one after the other: a worker needs one. Allocates when it first has
/// something to do, up to 311 KiB for each size of a window that connections agreed to, and keeps that.
#[derive(Default)]
pub struct Deflater {
    /// One for each window that was needed, eight at most.
    streams: Vec<Stream>,
    /// Where the output is made, before its length is known.
    scratch: Vec<u8>,
}

struct Stream {
    window_bits: u8,
    level: u8,
    deflate: Deflate,
}

impl Deflater {
    /// Does not allocate.
    pub const fn new() -> Self {
        Self { streams: Vec::new(), scratch: Vec::new() }
    }

    /// Appends a whole message as one frame, compressed without reference to any other message. Each connection of this
    /// [group](crate::Connection::deflate_group) can send it: [`Connection::send_alone`](crate::Connection::send_alone). Where
    /// compression does not make it shorter, the frame is an ordinary one.
    pub fn compress_alone(&mut self, group: DeflateGroup, kind: Kind, payload: &[u8], output: &mut Vec<u8>) {
        match self.compress(group, payload, &[]) {
            Some(compressed) => {
                frame::append(output, FrameHead::compressed(kind, compressed.len()), compressed);
            }
            None => frame::append(output, frame::frame_head(kind, payload.len()), payload),
        }
    }

    /// The payload of a compressed message, which may refer to the plain text of those before it. `None` if that is not shorter
    /// than the message itself, or the message is too short to try.
    pub(crate) fn compress(&mut self, group: DeflateGroup, payload: &[u8], history: &[u8]) -> Option<&[u8]> {
        if payload.len() < group.message_bytes_min {
            return None;
        }
        // More than any message can get, by an eighth where its bytes have no pattern: a message that was begun is always ended,
        // because the engine does not start anew from the middle of one in the right way.
        let room = payload.len() + payload.len() / 8 + 64;
        make_room(&mut self.scratch, room);
        let index = index(&mut self.streams, group);
        let deflate = &mut self.streams[index].deflate;
        deflate.reset();
        let is_ready = history.is_empty() || deflate.set_dictionary(history).is_ok();
        let made = deflate.compress(payload, &mut self.scratch[..room], DeflateFlush::SyncFlush);
        let len = deflate.total_out() as usize;
        let is_whole = deflate.total_in() == payload.len() as u64 && len < room;
        if !is_ready || !is_whole || made != Ok(Status::Ok) {
            self.streams.swap_remove(index);
            return None;
        }
        let compressed = self.scratch[..len].strip_suffix(&FLUSH_END)?;
        (compressed.len() < payload.len()).then_some(compressed)
    }
}

/// The place of the stream for a window, which is made where there is none.
fn index(streams: &mut Vec<Stream>, group: DeflateGroup) -> usize {
    let DeflateGroup { window_bits, level, .. } = group;
    let index = streams.iter().position(|stream| stream.window_bits == window_bits).unwrap_or_else(|| {
        streams.push(Stream { window_bits, level, deflate: new_stream(window_bits, level) });
        streams.len() - 1
    });
    let stream = &mut streams[index];
    if stream.level != level {
        (stream.level, stream.deflate) = (level, new_stream(window_bits, level));
    }
    index
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
