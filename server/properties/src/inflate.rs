//! What a peer compressed is inflated up to the limit and no further, and read as another inflater reads it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use wshd_protocol::{Connection, Event, Inflater, Limits, Message, ProtocolError};

use crate::wire::{BINARY, FIN, RSV1, deflate, first_event, frame};

/// The first byte chooses limit and takeover, the second where the first message ends; the rest are the payloads of two messages,
/// as a peer compressed them or not. The same bytes are then compressed rightly.
pub fn inflate(bytes: &[u8]) {
    let Some(([settings, end], bytes)) = bytes.split_first_chunk() else { return };
    let (first, second) = bytes.split_at(usize::from(*end).min(bytes.len()));
    let limit = [1, 100, 5000, 1 << 20][usize::from(settings & 3)];
    let mut session = Session::new(limit, settings >> 2 & 1 == 1);
    if session.agrees_with_another_inflater(first) {
        session.agrees_with_another_inflater(second);
    }
    what_a_compressor_made_is_read(bytes, u32::from(settings >> 4) % 10);
}

/// The bytes that a compressor leaves out at the end of a message (RFC 7692 section 7.2.1), and an empty final block.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

struct Session {
    connection: Connection,
    inflater: Inflater,
    limits: Limits,
    takes_over: bool,
    /// What may be referred to.
    history: Vec<u8>,
}

impl Session {
    fn new(message_bytes_max: usize, takes_over: bool) -> Self {
        Self {
            connection: Connection::with_deflate(deflate(takes_over)),
            inflater: Inflater::new(),
            limits: Limits { message_bytes_max, ..Limits::default() },
            takes_over,
            history: Vec::new(),
        }
    }

    fn receive(&mut self, payload: &[u8]) -> Event<'static> {
        let bytes = frame(FIN | RSV1 | BINARY, payload);
        first_event(&mut self.connection, &bytes, &self.limits, &mut self.inflater, &mut Vec::new())
            .expect("a whole message is an event")
    }

    /// Whether the connection is still open.
    fn agrees_with_another_inflater(&mut self, payload: &[u8]) -> bool {
        let limit = self.limits.message_bytes_max;
        let other = inflated_by_another(&self.history, payload, limit);
        match self.receive(payload) {
            Event::Message(Message { payload: text, .. }) => {
                assert!(text.len() <= limit, "{} bytes where {limit} are allowed", text.len());
                match other {
                    Other::Text(other) => assert_eq!(text, other),
                    Other::TooLong => panic!("the other inflater has more text than {}", text.len()),
                    Other::Unknown => {}
                }
                if self.takes_over {
                    self.history.extend_from_slice(&text);
                    self.history.drain(..self.history.len().saturating_sub(WINDOW_BYTES));
                }
                true
            }
            Event::Failed(ProtocolError::TooBig { .. }) => {
                let is_long = payload.len() > limit + limit / 8 + 64;
                assert!(is_long || !matches!(other, Other::Text(_)), "{other:?} is not too long");
                false
            }
            Event::Failed(ProtocolError::InvalidDeflate) => {
                assert!(!matches!(other, Other::Text(_)), "the other inflater reads {other:?}");
                false
            }
            Event::Failed(ProtocolError::FinalBlocks { .. }) => false,
            event => panic!("{event:?} is no answer to a compressed message"),
        }
    }
}

const WINDOW_BYTES: usize = 32 * 1024;

#[derive(Debug)]
enum Other {
    Text(Vec<u8>),
    TooLong,
    /// It is wrong, or the other inflater cannot tell: it ends at a final block, and a message need not.
    Unknown,
}

/// What may be referred to goes before the payload as blocks that are not compressed, so the other inflater needs no dictionary.
fn inflated_by_another(history: &[u8], payload: &[u8], limit: usize) -> Other {
    let mut input = Vec::new();
    for part in history.chunks(0xffff) {
        let len = part.len() as u16;
        input.push(0);
        input.extend(len.to_le_bytes());
        input.extend((!len).to_le_bytes());
        input.extend(part);
    }
    input.extend(payload);
    let without_end = input.len();
    input.extend(END);
    let mut text = vec![0; history.len() + limit + 1];
    // In one call, because then the engine refuses what refers to before the beginning.
    let mut other = Decompress::new(false);
    let status = other.decompress(&input, &mut text, FlushDecompress::Finish);
    let text_len = other.total_out() as usize;
    if status.is_ok() && text_len == text.len() {
        return Other::TooLong;
    }
    if !matches!(status, Ok(Status::StreamEnd)) || other.total_in() != input.len() as u64 {
        return Other::Unknown;
    }
    // A message that was cut inside a block may find text in the bytes that are added; that is not its own.
    let mut again = Decompress::new(false);
    let _ = again.decompress(&input[..without_end], &mut vec![0; text.len()], FlushDecompress::Finish);
    if again.total_out() as usize != text_len {
        return Other::Unknown;
    }
    Other::Text(text[history.len()..text_len].to_vec())
}

/// What a compressor made of any text is read, within a limit of just that length and of no less.
fn what_a_compressor_made_is_read(text: &[u8], level: u32) {
    let mut compress = Compress::new(Compression::new(level), false);
    let mut payload = Vec::with_capacity(2 * text.len() + 100);
    compress.compress_vec(text, &mut payload, FlushCompress::Sync).expect("there is room");
    // Nothing is compressed to nothing, and an empty block stands for that (RFC 7692 section 7.2.3.6).
    if payload.len() < 4 {
        payload = vec![0];
    } else {
        payload.truncate(payload.len() - 4);
    }
    let message = Session::new(text.len(), true).receive(&payload);
    assert!(matches!(message, Event::Message(Message { payload, .. }) if payload == text));
    if let Some(limit) = text.len().checked_sub(1) {
        let failure = Session::new(limit, true).receive(&payload);
        assert_eq!(failure, Event::Failed(ProtocolError::TooBig { limit }));
    }
}
