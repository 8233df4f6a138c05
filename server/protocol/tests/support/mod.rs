//! Frames as a peer writes them, and what a connection hears of them.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod by_tungstenite;
pub(crate) mod inflate;
pub(crate) mod traffic;

use std::borrow::Cow;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Version};
use wshd_protocol::handshake::{Offer, Rejection};
use wshd_protocol::{Connection, Event, Inflater, Limits, Message, PeerClose};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The headers of a right request that offers these lines of extensions.
pub(crate) fn request(extensions: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "server.example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for line in extensions {
        headers.append("sec-websocket-extensions", HeaderValue::from_str(line).unwrap());
    }
    headers
}

/// What such a request comes to.
pub(crate) fn offer(headers: &HeaderMap) -> Result<Offer<'_>, Rejection> {
    Offer::parse(&Method::GET, Version::HTTP_11, headers)
}

/// A masked frame with its length in the shortest form; `first` is FIN, reserved bits and opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The payload of a Close frame.
pub(crate) fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason].concat()
}

/// The server's Close frame.
pub(crate) fn sent_close(code: u16, reason: &str) -> Vec<u8> {
    let payload = close_payload(code, reason.as_bytes());
    [&[FIN | CLOSE, payload.len() as u8][..], &payload].concat()
}

/// The code of the Close frame at the end of what the server sent, if one is.
pub(crate) fn sent_code(output: &[u8]) -> Option<u16> {
    let [first, _, code @ ..] = output else { return None };
    (*first == FIN | CLOSE).then(|| u16::from_be_bytes(*code.first_chunk().expect("a failure has a code")))
}

/// An event for longer than the buffer it came in.
pub(crate) fn kept(event: Event<'_>) -> Event<'static> {
    let owned = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
    let close =
        |close: PeerClose<'_>| PeerClose { code: close.code, reason: close.reason.into_owned().into() };
    match event {
        Event::Message(message) => {
            Event::Message(Message { kind: message.kind, payload: owned(message.payload) })
        }
        Event::Ping(payload) => Event::Ping(owned(payload)),
        Event::Pong(payload) => Event::Pong(owned(payload)),
        Event::CloseRequested(request) => Event::CloseRequested(close(request)),
        Event::CloseAnswered(answer) => Event::CloseAnswered(close(answer)),
        Event::Failed(error) => Event::Failed(error),
    }
}

/// Everything a connection hears when bytes arrive in these pieces. Each piece lies in a buffer of its own, which is overwritten
/// afterwards, as the worker's is.
pub(crate) fn hear<'p>(
    connection: &mut Connection,
    limits: &Limits,
    output: &mut Vec<u8>,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Vec<Event<'static>> {
    let (mut inflater, mut events) = (Inflater::new(), Vec::new());
    for piece in pieces {
        let mut buffer = piece.to_vec();
        let mut input = &mut buffer[..];
        while let Some(event) = connection.receive(&mut input, limits, &mut inflater, output) {
            events.push(kept(event));
        }
        assert!(input.is_empty(), "everything is taken");
        buffer.fill(0xee);
    }
    events
}

/// What is heard of frames, and what is answered, whole, byte by byte, and cut in two at every place: it has to be the same. Each
/// time the connection is made anew, and may do something first.
pub(crate) fn converse_with(
    limits: &Limits,
    begin: impl Fn(&mut Vec<u8>) -> Connection,
    frames: &[Vec<u8>],
) -> (Vec<Event<'static>>, Vec<u8>) {
    let bytes = frames.concat();
    let held_in = |pieces: &[&[u8]]| {
        let mut output = Vec::new();
        let mut connection = begin(&mut output);
        let events = hear(&mut connection, limits, &mut output, pieces.iter().copied());
        (events, output)
    };
    let whole = held_in(&[&bytes]);
    assert_eq!(held_in(&bytes.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    // Of long conversations the beginning, the end and some places between.
    let step = if bytes.len() > 1000 { 4999 } else { 1 };
    let places = (0..bytes.len()).filter(|at| at % step == 0 || *at < 32 || bytes.len() - at < 32);
    for at in places {
        assert_eq!(held_in(&[&bytes[..at], &bytes[at..]]), whole, "cut at {at}");
    }
    whole
}

/// Random numbers that are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Those of one conversation of many, so that it can be held again alone.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut dice = Self::new(seed.wrapping_add(number.wrapping_mul(0xd134_2543_de82_ef95)));
        // Neighbours begin alike.
        (0..4).for_each(|_| _ = dice.roll());
        dice
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((self.roll() >> 16) % bound as u64) as usize
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        (self.roll() >> 24) as u8
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    /// A text of characters of every length, of about so many bytes.
    pub(crate) fn text(&mut self, length: usize) -> Vec<u8> {
        let mut text = String::new();
        while text.len() < length {
            text.push(['a', '\0', 'ß', '\u{7ff}', '世', '\u{ffff}', '🌍', '\u{10ffff}'][self.below(8)]);
        }
        text.into_bytes()
    }

    /// Cuts bytes into pieces of random length; empty ones too.
    pub(crate) fn cut<'b>(&mut self, mut bytes: &'b [u8], longest: usize) -> Vec<&'b [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.below(longest + 1).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}
