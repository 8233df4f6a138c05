//! Frames as a peer writes them and as a server does.

use std::borrow::Cow;

use wshd_protocol::{
    Connection, DeflateParameters, DeflateRules, Event, ExtensionOffer, Inflater, Limits, Message, PeerClose,
};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;

/// A frame of a peer, masked with zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// What a server sent: its frames one after the other, each as its first byte and its payload.
///
/// # Panics
/// Where they are not such as a server may send (RFC 6455 section 5.2, RFC 7692 section 6.1): masked, with a length in more bytes
/// than it needs, with bits that were not agreed, or with anything behind Close.
pub(crate) fn sent_frames(mut output: &[u8], deflates: bool) -> Vec<(u8, &[u8])> {
    let mut frames: Vec<(u8, &[u8])> = Vec::new();
    while !output.is_empty() {
        if let Some((first, _)) = frames.last() {
            assert_ne!(first & 0xf, CLOSE, "nothing follows Close");
        }
        let (head, rest) = output.split_first_chunk::<2>().expect("a header is whole");
        let (len, rest) = match head[1] {
            len @ 0..=125 => (usize::from(len), rest),
            126 => {
                let (len, rest) = rest.split_first_chunk().expect("a length is whole");
                let len = u16::from_be_bytes(*len);
                assert!(len > 125, "a length takes no more bytes than it needs");
                (usize::from(len), rest)
            }
            127 => {
                let (len, rest) = rest.split_first_chunk().expect("a length is whole");
                let len = u64::from_be_bytes(*len);
                assert!(len > 0xffff, "a length takes no more bytes than it needs");
                (usize::try_from(len).expect("it is in memory"), rest)
            }
            masked => panic!("a server does not mask: {masked:#x}"),
        };
        let (payload, rest) = rest.split_at_checked(len).expect("a frame is whole");
        let (bits, opcode) = (head[0] & 0x70, head[0] & 0xf);
        match opcode {
            0x1 | 0x2 => assert!(bits == 0 || bits == RSV1 && deflates, "a bit that was not agreed"),
            0x8..=0xa => assert!(bits == 0 && head[0] & FIN != 0 && len <= 125, "a control frame is short"),
            other => panic!("this server does not send the opcode {other:#x} unasked"),
        }
        frames.push((head[0], payload));
        output = rest;
    }
    frames
}

/// What comes of the negotiation where the client bounds nothing.
pub(crate) fn deflate(takes_over: bool) -> DeflateParameters {
    let rules = DeflateRules {
        is_on: true,
        client_no_context_takeover: !takes_over,
        message_bytes_min: 4,
        ..DeflateRules::default()
    };
    let offer = ExtensionOffer { name: "permessage-deflate", parameters: Vec::new() };
    rules.agree(&[offer]).expect("it is a right offer").parameters()
}

/// The first event of a piece of input that lies in a buffer of just its size.
pub(crate) fn first_event(
    connection: &mut Connection,
    bytes: &[u8],
    limits: &Limits,
    inflater: &mut Inflater,
    output: &mut Vec<u8>,
) -> Option<Event<'static>> {
    let mut buffer: Box<[u8]> = bytes.into();
    let mut input = &mut buffer[..];
    connection.receive(&mut input, limits, inflater, output).map(kept)
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
