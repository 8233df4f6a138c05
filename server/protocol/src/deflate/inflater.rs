//! Inflates what the peer sends (RFC 7692 section 7.2.2).

use std::fmt;

use zlib_rs::{Inflate, InflateFlush, Status};

use super::SCRATCH_BYTES_KEPT;
use super::deflater::FLUSH_END;
use crate::error::ProtocolError;

/// Inflates the messages of any number of connections, one after the other: a worker needs one. An inflated message lies in it
/// until the next one. Allocates when it first has something to do: some 22 KiB, and the size of the message.
///
/// It is apart from the [`Deflater`](crate::Deflater) because a message is still borrowed from it while the answer is compressed.
#[derive(Default)]
pub struct Inflater {
    stream: Option<Inflate>,
    /// Room for the plain text, which is its beginning.
    text: Vec<u8>,
    text_len: usize,
}

/// How often the data of one message may say that it ends, and go on (RFC 7692 section 7.2.3.4). Each time the window has to be set
/// up again, for two bytes of the peer. Nobody needs more than one for each part he compresses.
const FINAL_BLOCKS_MAX: u32 = 1024;

/// An empty block that is the last, so that the stream ends where the message does: data that is cut inside a block does not.
const END: [u8; 2] = [0x03, 0x00];

impl Inflater {
    /// Does not allocate.
    pub const fn new() -> Self {
        Self { stream: None, text: Vec::new(), text_len: 0 }
    }

    /// The plain text of the message that was inflated last.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text[..self.text_len]
    }

    /// Inflates the payload of a whole message, which may refer to `history`, into [`text`](Self::text). Stops when there are
    /// more than `bytes_max` bytes of it, however many would follow.
    pub(crate) fn inflate(
        &mut self,
        payload: &[u8],
        history: &[u8],
        bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        // One byte too many tells a text that is too long.
        let room_max = bytes_max.saturating_add(1);
        self.text_len = 0;
        self.prepare(
            (payload.len().saturating_mul(4)).clamp(TEXT_BYTES_FIRST, SCRATCH_BYTES_KEPT).min(room_max),
        );
        let stream = self.stream.get_or_insert_with(|| Inflate::new(false, 15));
        begin(stream, &[history])?;
        let mut final_blocks = 0;
        let (mut is_ended, mut is_full) = (false, false);
        for (part, mut input) in [payload, &FLUSH_END, &END].into_iter().enumerate() {
            let len_before = self.text_len;
            // The engine may have taken all input and still have output for which there was no room.
            while !input.is_empty() || is_full {
                if is_ended && !input.is_empty() {
                    // The peer's data said that it ends, and goes on: with the same window.
                    final_blocks += 1;
                    if final_blocks > FINAL_BLOCKS_MAX {
                        return Err(ProtocolError::FinalBlocks { limit: FINAL_BLOCKS_MAX });
                    }
                    begin(stream, &[history, &self.text[..self.text_len]])?;
                }
                if is_full {
                    grow(&mut self.text, room_max);
                }
                let room_end = self.text.len().min(room_max);
                let before = (stream.total_in(), stream.total_out());
                let status = stream
                    .decompress(input, &mut self.text[self.text_len..room_end], InflateFlush::NoFlush)
                    .map_err(|_| ProtocolError::InvalidDeflate)?;
                let taken = (stream.total_in() - before.0) as usize;
                input = &input[taken..];
                self.text_len += (stream.total_out() - before.1) as usize;
                if self.text_len > bytes_max {
                    return Err(ProtocolError::TooBig { limit: bytes_max });
                }
                is_ended = status == Status::StreamEnd;
                is_full = self.text_len == room_end && !is_ended;
                if taken == 0 && !input.is_empty() && !is_full && !is_ended {
                    return Err(ProtocolError::InvalidDeflate);
                }
            }
            // What a flush ends with is an empty block, unless the message was cut inside another.
            if part == 1 && self.text_len > len_before {
                return Err(ProtocolError::InvalidDeflate);
            }
        }
        if is_ended { Ok(()) } else { Err(ProtocolError::InvalidDeflate) }
    }

    /// Makes room to begin with, and gives back what a large message needed.
    fn prepare(&mut self, room: usize) {
        if self.text.len() > SCRATCH_BYTES_KEPT {
            self.text.truncate(SCRATCH_BYTES_KEPT);
            self.text.shrink_to_fit();
        }
        if self.text.len() < room {
            self.text.reserve_exact(room - self.text.len());
            self.text.resize(room, 0);
        }
    }
}

/// Room for text to begin with.
const TEXT_BYTES_FIRST: usize = 4096;

/// A new stream that may refer to what is before it.
fn begin(stream: &mut Inflate, before: &[&[u8]]) -> Result<(), ProtocolError> {
    stream.reset(false);
    for bytes in before.iter().filter(|bytes| !bytes.is_empty()) {
        stream.set_dictionary(bytes).map_err(|_| ProtocolError::InvalidDeflate)?;
    }
    Ok(())
}

/// Doubles the room, up to the bound.
fn grow(text: &mut Vec<u8>, room_max: usize) {
    let room = text.len().saturating_mul(2).min(room_max);
    if room > text.len() {
        text.reserve_exact(room - text.len());
        text.resize(room, 0);
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("text_len", &self.text_len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::{DeflateGroup, Deflater};

    /// A thousand bytes for one: it ends at the limit, and needs no more memory than the limit.
    #[test]
    fn a_bomb_is_inflated_up_to_the_limit_and_no_further() {
        let group = DeflateGroup { window_bits: 15, level: 9, message_bytes_min: 0 };
        let mut deflater = Deflater::new();
        let bomb = deflater.compress(group, &vec![0; 30_000_000], &[], 0, &mut 0).unwrap();
        assert!(bomb.len() < 30_000_000 / 900, "{}", bomb.len());
        let mut inflater = Inflater::new();
        for bytes_max in [0, 1, 1000, 1_000_000, 29_999_999] {
            let error = ProtocolError::TooBig { limit: bytes_max };
            assert_eq!(inflater.inflate(bomb, &[], bytes_max), Err(error));
            assert!(inflater.text.capacity() <= (bytes_max + 1).max(SCRATCH_BYTES_KEPT));
        }
        assert_eq!(inflater.inflate(bomb, &[], 30_000_000), Ok(()));
        assert_eq!(inflater.text().len(), 30_000_000);
        // The next small message gives the memory back.
        assert_eq!(inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", &[], 100), Ok(()));
        assert_eq!(inflater.text(), b"Hello");
        assert!(inflater.text.capacity() <= SCRATCH_BYTES_KEPT);
    }

    /// Memory follows the text: at most twice as much, whatever the limit is.
    #[test]
    fn memory_follows_the_text() {
        let group = DeflateGroup { window_bits: 15, level: 1, message_bytes_min: 0 };
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        for len in [100, 5000, 100_000, 1_000_000] {
            let compressed = deflater.compress(group, &vec![7; len], &[], 0, &mut 0).unwrap();
            assert_eq!(inflater.inflate(compressed, &[], usize::MAX), Ok(()));
            assert_eq!(inflater.text().len(), len);
            assert!(inflater.text.capacity() <= (2 * len).max(SCRATCH_BYTES_KEPT));
        }
    }
}
