//! What tungstenite's server hears, in words that both libraries have.

use std::io::{self, Read, Write};

use tungstenite::error::Error;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use wshd_protocol::{Connection, Event, Kind, Limits, Message, close};

use super::traffic::traffic;
use super::{Dice, hear, sent_code};

const LIMITS: Limits = Limits { message_bytes_max: 400, empty_fragments_max: u32::MAX };

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Failed(u16),
    Closed,
    Open,
}

/// Holds conversation `number` of `seed` with both; an error shows its bytes and what each has heard.
pub(crate) fn compare(seed: u64, number: u64) -> Result<End, String> {
    let mut dice = Dice::of(seed, number);
    let bytes = traffic(&mut dice, LIMITS.message_bytes_max);
    let longest = [1, 10, 100, 10_000][dice.below(4)];
    let pieces = dice.cut(&bytes, longest);
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    let events = hear(&mut connection, &LIMITS, &mut output, pieces);
    let ours: Vec<_> = events.into_iter().map(Heard::ours).collect();
    let theirs = Heard::by_tungstenite(&bytes);
    let end = match ours.last() {
        Some(Heard::Failed(code)) => End::Failed(*code),
        Some(Heard::Close(..)) => End::Closed,
        _ => End::Open,
    };
    let says_why = match end {
        End::Failed(code) => sent_code(&output) == Some(code),
        End::Closed | End::Open => output.is_empty(),
    };
    if ours == theirs && says_why {
        Ok(end)
    } else {
        Err(format!(
            "conversation {number} of seed {seed}: {bytes:x?}\nours:   {ours:x?}, and sends {output:x?}\ntheirs: {theirs:x?}"
        ))
    }
}

/// What tungstenite reads from. What it writes is dropped.
struct Input<'b>(&'b [u8]);

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event in words that both libraries have; a failure as its close code.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(u16),
}

impl Heard {
    fn ours(event: Event<'_>) -> Self {
        match event {
            Event::Message(Message { kind: Kind::Text, payload }) => Self::Text(payload.into()),
            Event::Message(Message { kind: Kind::Binary, payload }) => Self::Binary(payload.into()),
            Event::Ping(payload) => Self::Ping(payload.into()),
            Event::Pong(payload) => Self::Pong(payload.into()),
            Event::CloseRequested(request) => Self::Close(request.code, request.reason.into()),
            Event::CloseAnswered(_) => panic!("no Close was sent"),
            Event::Failed(error) => Self::Failed(error.close_code()),
        }
    }

    fn by_tungstenite(bytes: &[u8]) -> Vec<Self> {
        let config = WebSocketConfig::default()
            .read_buffer_size(1024)
            .max_frame_size(None)
            .max_message_size(Some(LIMITS.message_bytes_max));
        let mut socket = WebSocket::from_raw_socket(Input(bytes), Role::Server, Some(config));
        let mut heard = Vec::new();
        loop {
            let next = match socket.read() {
                Ok(tungstenite::Message::Text(text)) => Self::Text(text.as_bytes().to_vec()),
                Ok(tungstenite::Message::Binary(payload)) => Self::Binary(payload.to_vec()),
                Ok(tungstenite::Message::Ping(payload)) => Self::Ping(payload.to_vec()),
                Ok(tungstenite::Message::Pong(payload)) => Self::Pong(payload.to_vec()),
                // It answers a forbidden code with this Close, and reports that instead of failing.
                Ok(tungstenite::Message::Close(Some(frame)))
                    if frame.reason.as_str() == "Protocol violation" =>
                {
                    Self::Failed(close::PROTOCOL)
                }
                Ok(tungstenite::Message::Close(frame)) => Self::Close(
                    frame.as_ref().map(|frame| frame.code.into()),
                    frame.map_or_else(String::new, |frame| frame.reason.to_string()),
                ),
                Ok(tungstenite::Message::Frame(frame)) => panic!("{frame:?} is not a message"),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return heard,
                Err(Error::Utf8(_)) => Self::Failed(close::INVALID_PAYLOAD),
                Err(Error::Capacity(_)) => Self::Failed(close::TOO_BIG),
                Err(Error::Protocol(_)) => Self::Failed(close::PROTOCOL),
                Err(error) => panic!("{error}"),
            };
            let is_end = matches!(next, Self::Close(..) | Self::Failed(_));
            heard.push(next);
            if is_end {
                return heard;
            }
        }
    }
}
