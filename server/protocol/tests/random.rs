//! Random traffic, the same in every run: tungstenite's server has to hear what ours hears, and cuts must not matter.

mod support;

use std::io::{self, Read, Write};

use flate2::{Compress, Compression, FlushCompress};
use support::inflate::StrictInflater;
use support::*;
use tungstenite::error::Error;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use wshd_protocol::{Connection, DeflateRules, Event, Kind, Limits, Message, ProtocolError, close};

const LIMITS: Limits = Limits { message_bytes_max: 400, empty_fragments_max: u32::MAX };

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

/// Some messages and control frames, mostly right.
fn traffic(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.below(8) {
        let length = if dice.once_in(8) { dice.below(500) } else { dice.below(40) };
        let is_text = dice.once_in(2);
        let mut payload = if is_text { dice.text(length) } else { dice.bytes(length) };
        if dice.once_in(20) && !payload.is_empty() {
            let at = dice.below(payload.len());
            payload[at] = dice.byte();
        }
        let parts = if dice.once_in(2) { vec![&payload[..]] } else { dice.cut(&payload, 60) };
        let mut opcode = if is_text { TEXT } else { BINARY };
        let last = parts.len().saturating_sub(1);
        for (index, part) in parts.into_iter().enumerate() {
            let is_final = (index == last) != dice.once_in(60);
            if dice.once_in(60) {
                // Any but Close, which comes below with a payload that both judge alike.
                opcode = [0x0, 0x1, 0x2, 0x3, 0x7, 0x9, 0xa, 0xb, 0xf][dice.below(9)];
            }
            let reserved = if dice.once_in(100) { 0x10 << dice.below(3) } else { 0 };
            let mut part = frame(if is_final { FIN } else { 0 } | reserved | opcode, part);
            if dice.once_in(100) {
                // Not masked any more; the mask becomes payload where there is some.
                part[1] &= 0x7f;
            }
            bytes.extend(part);
            opcode = CONTINUATION;
            if dice.once_in(6) {
                let (opcode, length) = (if dice.once_in(2) { PING } else { PONG }, dice.below(130));
                bytes.extend(frame(if dice.once_in(60) { 0 } else { FIN } | opcode, &dice.bytes(length)));
            }
        }
    }
    if dice.once_in(2) {
        let code = if dice.once_in(3) { dice.below(6000) } else { 1000 + dice.below(12) } as u16;
        // Where both are wrong, ours names the code and tungstenite the reason; and it does not know 1014.
        let may_be_received = close::may_be_received(code) && code != close::BAD_GATEWAY;
        let mut payload = close_payload(code, if may_be_received { "grüße" } else { "plain" }.as_bytes());
        payload.truncate(dice.below(payload.len() + 1));
        if code != close::BAD_GATEWAY {
            bytes.extend(frame(FIN | CLOSE, &payload));
        }
    }
    bytes
}

fn heard_by_us<'p>(
    limits: &Limits,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<Event<'static>>, Vec<u8>) {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    let events = hear(&mut connection, limits, &mut output, pieces);
    (events, output)
}

/// Two servers that were written apart hear the same messages, and fail at the same frame with the same code (5 to 8).
#[test]
fn tungstenite_hears_what_we_hear() {
    let mut dice = Dice::new(6455);
    let mut ends = [0_u32; 3];
    for round in 0..20_000 {
        let bytes = traffic(&mut dice);
        let longest = [1, 10, 100, 10_000][dice.below(4)];
        let pieces = dice.cut(&bytes, longest);
        let (events, output) = heard_by_us(&LIMITS, pieces);
        let ours: Vec<_> = events.into_iter().map(Heard::ours).collect();
        assert_eq!(ours, Heard::by_tungstenite(&bytes), "round {round}: {bytes:x?}");
        match ours.last() {
            Some(Heard::Failed(code)) => {
                assert_eq!(sent_code(&output), Some(*code));
                ends[0] += 1;
            }
            Some(Heard::Close(..)) => ends[1] += 1,
            _ => ends[2] += 1,
        }
    }
    assert!(ends.iter().all(|count| *count > 1000), "failed, closed, open: {ends:?}");
}

/// Whatever arrives, right or wrong, is heard in the same way however reads cut it.
#[test]
fn cuts_do_not_matter() {
    let mut dice = Dice::new(1);
    let limits = Limits { message_bytes_max: 400, empty_fragments_max: 3 };
    let mut failures = 0;
    for round in 0..20_000 {
        let mut bytes = traffic(&mut dice);
        bytes.extend(frame(FIN | PING, b""));
        for _ in 0..dice.below(4) {
            let at = dice.below(bytes.len());
            bytes[at] = dice.byte();
        }
        bytes.truncate(bytes.len() - dice.below(6));
        let whole = heard_by_us(&limits, [&bytes[..]]);
        let pieces = dice.cut(&bytes, 20);
        assert_eq!(heard_by_us(&limits, pieces), whole, "round {round}: {bytes:x?}");
        failures += u32::from(matches!(whole.0.last(), Some(Event::Failed(_))));
    }
    assert!(failures > 1000, "{failures}");
}

/// A text is heard exactly when std takes it for UTF-8, whatever its fragments and reads are (5.6 and 8.1).
#[test]
fn a_text_is_heard_exactly_when_it_is_utf8() {
    let mut dice = Dice::new(8);
    let mut valid = 0;
    let rounds = 30_000;
    for _ in 0..rounds {
        let length = 1 + dice.below(60);
        let mut text = dice.text(length);
        if dice.once_in(2) {
            let at = dice.below(text.len());
            text[at] = if dice.once_in(2) { dice.byte() } else { text[at] ^ 1 << dice.below(8) };
        }
        if dice.once_in(8) {
            text.pop();
        }
        let mut bytes = Vec::new();
        for (index, part) in dice.cut(&text, 12).into_iter().enumerate() {
            bytes.extend(frame(if index == 0 { TEXT } else { CONTINUATION }, part));
        }
        bytes.extend(frame(FIN | if bytes.is_empty() { TEXT } else { CONTINUATION }, b""));
        let pieces = dice.cut(&bytes, 30);
        let (events, _) = heard_by_us(&Limits::default(), pieces);
        let expected = match std::str::from_utf8(&text) {
            Ok(_) => {
                valid += 1;
                Event::Message(Message { kind: Kind::Text, payload: text.into() })
            }
            Err(_) => Event::Failed(ProtocolError::InvalidText),
        };
        assert_eq!(events, [expected]);
    }
    assert!((rounds / 4..rounds * 3 / 4).contains(&valid), "{valid} of {rounds}");
}

/// A connection that agreed to permessage-deflate with windows of 32 KiB and context takeover.
fn deflating() -> Connection {
    let rules = DeflateRules { is_on: true, client_window_bits_max: 15, ..DeflateRules::default() };
    let headers = request(&["permessage-deflate"]);
    let agreement = rules.agree(offer(&headers).unwrap().extensions()).expect("it is a right offer");
    Connection::with_deflate(agreement.parameters())
}

/// A client's stream; what somebody else wrote.
fn compressed(compress: &mut Compress, plain: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(2 * plain.len() + 100);
    compress.compress_vec(plain, &mut payload, FlushCompress::Sync).unwrap();
    payload.truncate(payload.len().saturating_sub(4));
    if payload.is_empty() { vec![0] } else { payload }
}

/// Messages with much in common, compressed and not, in fragments and whole, with control frames between.
fn compressed_traffic(dice: &mut Dice) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(1 + dice.below(9) as u32), false);
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.below(8) {
        let mut plain = b"{\"name\":\"value\",".repeat(dice.below(12));
        let len = dice.below(30);
        plain.extend(dice.text(len));
        let is_compressed = !dice.once_in(4);
        let payload = if is_compressed { compressed(&mut compress, &plain) } else { plain };
        let mut first = if dice.once_in(2) { TEXT } else { BINARY } | if is_compressed { RSV1 } else { 0 };
        let parts = if dice.once_in(2) { vec![&payload[..]] } else { dice.cut(&payload, 60) };
        let last = parts.len().saturating_sub(1);
        for (index, part) in parts.into_iter().enumerate() {
            bytes.extend(frame(if index == last { FIN } else { 0 } | first, part));
            first = if dice.once_in(80) { RSV1 } else { CONTINUATION };
            if dice.once_in(6) {
                bytes.extend(frame(FIN | PING | if dice.once_in(40) { RSV1 } else { 0 }, b"?"));
            }
        }
    }
    bytes
}

/// Compressed messages, right or wrong, are heard in the same way however reads cut them (RFC 7692 section 6).
#[test]
fn cuts_do_not_matter_to_compressed_messages() {
    let mut dice = Dice::new(7692);
    let limits = Limits { message_bytes_max: 200, empty_fragments_max: 3 };
    let (mut failures, mut messages) = (0, 0);
    for round in 0..5_000 {
        let mut bytes = compressed_traffic(&mut dice);
        for _ in 0..dice.below(3) {
            let at = dice.below(bytes.len());
            bytes[at] = dice.byte();
        }
        let held_in = |pieces: Vec<&[u8]>| {
            let (mut connection, mut output) = (deflating(), Vec::new());
            let events = hear(&mut connection, &limits, &mut output, pieces);
            (events, output)
        };
        let whole = held_in(vec![&bytes[..]]);
        let pieces = dice.cut(&bytes, 20);
        assert_eq!(held_in(pieces), whole, "round {round}: {bytes:x?}");
        failures += u32::from(matches!(whole.0.last(), Some(Event::Failed(_))));
        messages += whole.0.len();
    }
    assert!((1000..4500).contains(&failures) && messages > 10_000, "{failures}, {messages}");
}

/// Whatever is inflated of data that was damaged on the way, another inflater reads the same; and what the other cannot read
/// fails the connection (RFC 7692 section 7.2.2).
#[test]
fn damaged_data_is_never_read_in_another_way() {
    let mut dice = Dice::new(1951);
    let (mut heard, mut failed) = (0, 0);
    for round in 0..10_000 {
        let mut compress = Compress::new(Compression::new(dice.below(10) as u32), false);
        let (mut connection, mut strict) = (deflating(), StrictInflater::new(15, true));
        for _ in 0..1 + dice.below(4) {
            let mut plain = b"{\"name\":\"value\",".repeat(dice.below(12));
            let len = dice.below(60);
            plain.extend(dice.bytes(len));
            let mut payload = compressed(&mut compress, &plain);
            match dice.below(6) {
                0 => payload.truncate(dice.below(payload.len())),
                1 => {
                    let at = dice.below(payload.len());
                    payload[at] ^= 1 << dice.below(8);
                }
                2 => {
                    let len = dice.below(6);
                    payload.extend(dice.bytes(len));
                }
                _ => {}
            }
            let bytes = frame(FIN | RSV1 | BINARY, &payload);
            let events = hear(&mut connection, &Limits::default(), &mut Vec::new(), [&bytes[..]]);
            match &events[..] {
                [Event::Message(message)] => {
                    assert_eq!(strict.message(&payload).as_deref(), Ok(&*message.payload), "round {round}");
                    heard += 1;
                }
                [Event::Failed(ProtocolError::InvalidDeflate)] => {
                    failed += 1;
                    break;
                }
                events => panic!("round {round}: {events:?}"),
            }
        }
    }
    assert!(heard > 10_000 && failed > 2000, "{heard} heard, {failed} failed");
}
