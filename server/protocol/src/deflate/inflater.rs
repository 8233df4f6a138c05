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
    /// Bytes of the text that were let go, where only its length is wanted.
    gone: usize,
}

/// What becomes of the text when its room is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Only its end stays, as far as what follows may refer to it.
    Measure,
    /// All of it stays.
    Keep,
}

/// How often the data of one message may say that it ends, and go on (RFC 7692 section 7.2.3.4). Each time the window has to be set
/// up again, for two bytes of the peer. Nobody needs more than one for each part he compresses.
const FINAL_BLOCKS_MAX: u32 = 1024;

/// An empty block that is the last, so that the stream ends where the message does: data that is cut inside a block does not.
const END: [u8; 2] = [0x03, 0x00];

impl Inflater {
    /// Does not allocate.
    pub const fn new() -> Self {
        Self { stream: None, text: Vec::new(), text_len: 0, gone: 0 }
    }

    /// The plain text of the message that was inflated last.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text[..self.text_len]
    }

    /// Inflates the payload of a whole message, which may refer to `history`, into [`text`](Self::text). Stops when there are
    /// more than `bytes_max` bytes of it, however many would follow.
    ///
    /// Payload and text together are never more than twice `bytes_max`, unless the text is within it and the payload above. A
    /// payload that is large already is inflated twice, the first time to learn whether its text may be kept at all.
    pub(crate) fn inflate(
        &mut self,
        payload: &[u8],
        history: &[u8],
        bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        let result = self.inflate_within(payload, history, bytes_max);
        if result.is_err() {
            // What the peer made it hold is given back at once: every worker has an inflater.
            self.text_len = 0;
            self.prepare(0);
        }
        result
    }

    fn inflate_within(
        &mut self,
        payload: &[u8],
        history: &[u8],
        bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        // One byte too many tells a text that is too long.
        let room_max = bytes_max.saturating_add(1);
        let room = if payload.len() > SCRATCH_BYTES_KEPT.max(bytes_max / LARGE_PART) {
            self.prepare(SCRATCH_BYTES_KEPT);
            self.run(Pass::Measure, payload, history, bytes_max)?;
            self.total() + 1
        } else {
            (payload.len().saturating_mul(4)).clamp(TEXT_BYTES_FIRST, SCRATCH_BYTES_KEPT)
        };
        self.prepare(room.min(room_max));
        self.run(Pass::Keep, payload, history, bytes_max)
    }

    fn run(
        &mut self,
        pass: Pass,
        payload: &[u8],
        history: &[u8],
        bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        (self.text_len, self.gone) = (0, 0);
        let mut stream = self.stream.take().unwrap_or_else(|| Inflate::new(false, 15));
        let result = self.run_with(&mut stream, pass, payload, history, bytes_max);
        self.stream = Some(stream);
        result
    }

    fn run_with(
        &mut self,
        stream: &mut Inflate,
        pass: Pass,
        payload: &[u8],
        history: &[u8],
        bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        begin(stream, &[history])?;
        let mut final_blocks = 0;
        let (mut is_ended, mut is_full) = (false, false);
        for (part, mut input) in [payload, &FLUSH_END, &END].into_iter().enumerate() {
            let total_before = self.total();
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
                    self.make_room(pass, bytes_max);
                }
                let before = (stream.total_in(), stream.total_out());
                let status = stream
                    .decompress(input, &mut self.text[self.text_len..], InflateFlush::NoFlush)
                    .map_err(|_| ProtocolError::InvalidDeflate)?;
                let taken = (stream.total_in() - before.0) as usize;
                input = &input[taken..];
                self.text_len += (stream.total_out() - before.1) as usize;
                if self.total() > bytes_max {
                    return Err(ProtocolError::TooBig { limit: bytes_max });
                }
                is_ended = status == Status::StreamEnd;
                is_full = self.text_len == self.text.len() && !is_ended;
                if taken == 0 && !input.is_empty() && !is_full && !is_ended {
                    return Err(ProtocolError::InvalidDeflate);
                }
            }
            // What a flush ends with is an empty block, unless the message was cut inside another.
            if part == 1 && self.total() > total_before {
                return Err(ProtocolError::InvalidDeflate);
            }
        }
        if is_ended { Ok(()) } else { Err(ProtocolError::InvalidDeflate) }
    }

    /// Bytes of text so far.
    fn total(&self) -> usize {
        self.gone + self.text_len
    }

    /// The room is full, and the text within the limit.
    fn make_room(&mut self, pass: Pass, bytes_max: usize) {
        match pass {
            Pass::Keep => {
                let room = self.text.len().saturating_mul(2).min(bytes_max.saturating_add(1));
                self.text.reserve_exact(room - self.text.len());
                self.text.resize(room, 0);
            }
            Pass::Measure => {
                let surplus = self.text_len.saturating_sub(WINDOW_BYTES_MAX);
                self.text.copy_within(surplus..self.text_len, 0);
                self.text_len -= surplus;
                self.gone += surplus;
            }
        }
    }

    /// Makes so much room to begin with, and gives back what a large message needed.
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

/// From this part of the limit on a payload is large: below it, payload, text, and the text in its smaller room while it is copied
/// to a larger one, are less than twice the limit.
const LARGE_PART: usize = 4;

/// How far back data may refer at most (RFC 1951 section 3.2.5).
const WINDOW_BYTES_MAX: usize = 32 * 1024;

/// A new stream that may refer to what is before it.
fn begin(stream: &mut Inflate, before: &[&[u8]]) -> Result<(), ProtocolError> {
    stream.reset(false);
    for bytes in before.iter().filter(|bytes| !bytes.is_empty()) {
        stream.set_dictionary(bytes).map_err(|_| ProtocolError::InvalidDeflate)?;
    }
    Ok(())
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

    /// So much nothing, in a part that can stand behind itself.
    fn nothing(len: usize) -> Vec<u8> {
        let group = DeflateGroup { window_bits: 15, level: 9, message_bytes_min: 0 };
        let mut part = Deflater::new().compress(group, &vec![0; len], &[], 0, &mut 0).unwrap().to_vec();
        assert!(part.len() < len / 900, "{}", part.len());
        part.extend(FLUSH_END);
        part
    }

    /// A thousand bytes for one: it ends at the limit, and payload and text together are at most twice the limit. Where the payload
    /// is large by itself, nothing is made room for.
    #[test]
    fn a_bomb_is_inflated_up_to_the_limit_and_no_further() {
        let part = nothing(1_000_000);
        let bomb = part.repeat(1_200_000 / part.len());
        let mut inflater = Inflater::new();
        for bytes_max in [0, 1, 1000, 1_000_000] {
            for len in
                [part.len() * 2, bytes_max / 4, bytes_max / 4 + 1, bytes_max, bytes_max + bytes_max / 8]
            {
                let payload = &bomb[..len.max(part.len() + 10)];
                let error = ProtocolError::TooBig { limit: bytes_max };
                assert_eq!(inflater.inflate(payload, &[], bytes_max), Err(error));
                // Given back at once.
                assert!(inflater.text().is_empty() && inflater.text.capacity() <= SCRATCH_BYTES_KEPT);
                let error = inflater.inflate_within(payload, &[], bytes_max);
                assert!(matches!(error, Err(ProtocolError::TooBig { .. })));
                let room = inflater.text.capacity();
                assert!(room <= (bytes_max + 1).max(SCRATCH_BYTES_KEPT));
                assert!(room <= SCRATCH_BYTES_KEPT || payload.len() <= bytes_max / LARGE_PART);
            }
        }
        let whole = nothing(30_000_000);
        let whole = whole.strip_suffix(&FLUSH_END).unwrap();
        assert_eq!(
            inflater.inflate(whole, &[], 29_999_999),
            Err(ProtocolError::TooBig { limit: 29_999_999 })
        );
        assert_eq!(inflater.inflate(whole, &[], 30_000_000), Ok(()));
        assert_eq!(inflater.text().len(), 30_000_000);
        // The next small message gives the memory back.
        assert_eq!(inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", &[], 100), Ok(()));
        assert_eq!(inflater.text(), b"Hello");
        assert!(inflater.text.capacity() <= SCRATCH_BYTES_KEPT);
    }

    /// What is inflated twice is the same as what is inflated once, and gets no more room than it needs: text that hardly gets
    /// shorter, that refers back as far as it can, that refers to the history, and that says many times that it ends.
    #[test]
    fn a_large_payload_is_inflated_to_the_same_text() {
        let mut state = 1_u32;
        let mut noise = |len: usize| -> Vec<u8> {
            let mut byte = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            (0..len).map(|_| byte()).collect()
        };
        let history = noise(32 * 1024);
        let far = [&history[..30_000], &noise(2000), &history[..30_000]].concat();
        let text = [noise(100_000), far.repeat(5), noise(50_000), history.clone()].concat();
        let group = DeflateGroup { window_bits: 15, level: 6, message_bytes_min: 0 };
        let mut deflater = Deflater::new();
        let payload = deflater.compress(group, &text, &history, 0, &mut 0).unwrap().to_vec();
        let mut inflater = Inflater::new();
        for bytes_max in [text.len(), 100 * text.len()] {
            assert_eq!(inflater.inflate(&payload, &history, bytes_max), Ok(()));
            assert!(inflater.text() == text);
            let is_large = payload.len() > bytes_max / LARGE_PART;
            assert!(!is_large || inflater.text.capacity() == text.len() + 1);
        }
        // Stored blocks of 1,000 bytes, each of which says that it is the last.
        let stored = |bytes: &[u8], is_last: u8| [&[is_last, 0xe8, 0x03, 0x17, 0xfc][..], bytes].concat();
        let parts: Vec<Vec<u8>> = (0..200).map(|_| noise(1000)).collect();
        let payload: Vec<u8> = parts.iter().flat_map(|part| stored(part, 1)).chain([0]).collect();
        for bytes_max in [200_000, 20_000_000] {
            assert_eq!(inflater.inflate(&payload, &[], bytes_max), Ok(()));
            assert!(inflater.text() == parts.concat());
        }
        assert_eq!(inflater.inflate(&payload, &[], 199_999), Err(ProtocolError::TooBig { limit: 199_999 }));
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
