//! What RFC 6455 demands of a server, section by section.
//!
//! Every conversation is held whole, byte by byte, and cut in two at every place; events and answers have to be the same.

mod support;

use support::*;
use wshd_protocol::{
    CloseError, Connection, Deflater, Event, Kind, Limits, Message, PeerClose, ProtocolError, ReadyState,
    SendError, close,
};

/// What the server hears, and what it answers, if the peer sends these frames.
fn converse(limits: Limits, frames: &[Vec<u8>]) -> (Vec<Event<'static>>, Vec<u8>) {
    converse_after(limits, |_, _| {}, frames)
}

/// The same after the server did something first.
fn converse_after(
    limits: Limits,
    before: fn(&mut Connection, &mut Vec<u8>),
    frames: &[Vec<u8>],
) -> (Vec<Event<'static>>, Vec<u8>) {
    let begin = |output: &mut Vec<u8>| {
        let mut connection = Connection::new();
        before(&mut connection, output);
        connection
    };
    converse_with(&limits, begin, frames)
}

fn message(kind: Kind, payload: &[u8]) -> Event<'static> {
    kept(Event::Message(Message { kind, payload: payload.into() }))
}

fn text(payload: &str) -> Event<'static> {
    message(Kind::Text, payload.as_bytes())
}

fn requested(code: Option<u16>, reason: &'static str) -> Event<'static> {
    Event::CloseRequested(PeerClose { code, reason: reason.into() })
}

/// These frames fail the connection with this error and code, and nothing is heard before or after.
#[track_caller]
fn assert_fails(frames: &[Vec<u8>], error: ProtocolError, code: u16) {
    let mut frames = frames.to_vec();
    frames.push(frame(FIN | TEXT, b"never heard"));
    let expected = (vec![Event::Failed(error)], sent_close(code, &error.to_string()));
    assert_eq!(converse(Limits::default(), &frames), expected);
}

/// A server fails a client that sends an unmasked frame (5.1).
#[test]
fn s5_1_an_unmasked_frame_fails_with_1002() {
    assert_fails(&[b"\x81\x05Hello".to_vec()], ProtocolError::Unmasked, 1002);
    assert_fails(&[b"\x89\x00".to_vec()], ProtocolError::Unmasked, 1002);
}

/// A server never masks (5.1).
#[test]
fn s5_1_what_the_server_sends_is_not_masked() {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    connection.send(Kind::Text, b"Hello", &mut Deflater::new(), &mut output).unwrap();
    connection.ping(b"Hello", &mut output).unwrap();
    assert_eq!(output, b"\x81\x05Hello\x89\x05Hello", "the examples of section 5.7");
}

/// A reserved bit without an extension that defines it fails the connection (5.2).
#[test]
fn s5_2_each_reserved_bit_fails_with_1002() {
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [TEXT, BINARY, CONTINUATION, PING, CLOSE] {
            assert_fails(&[frame(FIN | bit | opcode, b"")], ProtocolError::ReservedBits, 1002);
        }
    }
}

/// An unknown opcode fails the connection (5.2).
#[test]
fn s5_2_each_reserved_opcode_fails_with_1002() {
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert_fails(&[frame(FIN | opcode, b"")], ProtocolError::ReservedOpcode(opcode), 1002);
    }
}

/// The length is written in its shortest form (5.2).
#[test]
fn s5_2_a_length_in_more_bytes_than_needed_fails_with_1002() {
    for head in [
        &b"\x82\xfe\x00\x00"[..],
        b"\x82\xfe\x00\x7d",
        b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x05",
        b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff",
    ] {
        assert_fails(&[[head, &[0; 200]].concat()], ProtocolError::LengthNotMinimal, 1002);
    }
}

/// The most significant bit of a length is 0 (5.2).
#[test]
fn s5_2_a_length_with_the_top_bit_fails_with_1002() {
    assert_fails(
        &[b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00mask".to_vec()],
        ProtocolError::LengthTopBit,
        1002,
    );
}

/// Each of the three forms of a length is read at both of its ends (5.2).
#[test]
fn s5_2_every_length_is_read() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let frames = [frame(FIN | BINARY, &payload), frame(FIN | TEXT, b"next")];
        let (events, output) = converse(Limits::default(), &frames);
        assert_eq!(events, [message(Kind::Binary, &payload), text("next")], "{length}");
        assert!(output.is_empty());
    }
}

/// The masked examples are heard (5.7).
#[test]
fn s5_7_the_examples_are_heard() {
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
    let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
    let (events, _) = converse(Limits::default(), &[hello, pong]);
    assert_eq!(events, [text("Hello"), Event::Pong(b"Hello"[..].into())]);
}

/// A fragmented message is its parts in order, and control frames may come between them (5.4).
#[test]
fn s5_4_control_frames_come_between_fragments() {
    let frames = [
        frame(TEXT, b"Hel"),
        frame(FIN | PING, b"?"),
        frame(CONTINUATION, b""),
        frame(CONTINUATION, b"l"),
        frame(FIN | PONG, b""),
        frame(FIN | CONTINUATION, b"o"),
        frame(BINARY, b""),
        frame(FIN | CONTINUATION, b""),
    ];
    let (events, output) = converse(Limits::default(), &frames);
    let pong = Event::Pong(b""[..].into());
    assert_eq!(events, [Event::Ping(b"?"[..].into()), pong, text("Hello"), message(Kind::Binary, b"")]);
    assert!(output.is_empty());
}

/// A continuation frame continues something (5.4).
#[test]
fn s5_4_a_continuation_of_nothing_fails_with_1002() {
    assert_fails(&[frame(FIN | CONTINUATION, b"x")], ProtocolError::LoneContinuation, 1002);
    assert_fails(&[frame(CONTINUATION, b"")], ProtocolError::LoneContinuation, 1002);
    let (events, output) =
        converse(Limits::default(), &[frame(FIN | TEXT, b"whole"), frame(FIN | CONTINUATION, b"x")]);
    assert_eq!(events, [text("whole"), Event::Failed(ProtocolError::LoneContinuation)]);
    assert_eq!(sent_code(&output), Some(1002));
}

/// The fragments of two messages are not mixed (5.4).
#[test]
fn s5_4_a_message_inside_a_message_fails_with_1002() {
    for second in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
        assert_fails(&[frame(TEXT, b"a"), frame(second, b"b")], ProtocolError::InterruptedMessage, 1002);
    }
}

/// Fragments that bring something are not counted: 65,537 of one byte are a message (5.4).
#[test]
fn s5_4_a_message_of_65537_fragments_is_heard() {
    let mut bytes = frame(BINARY, b"x");
    for _ in 0..65_535 {
        bytes.extend(frame(CONTINUATION, b"x"));
    }
    bytes.extend(frame(FIN | CONTINUATION, b"x"));
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    let events = hear(&mut connection, &Limits::default(), &mut output, bytes.chunks(4096));
    assert_eq!(events, [message(Kind::Binary, &[b'x'; 65_537])]);
}

/// Empty continuation frames are, and 1,024 is the most that a message may have (10.4).
#[test]
fn s10_4_the_1025th_empty_fragment_fails_with_1008() {
    let limits = Limits::default();
    let mut frames = vec![frame(TEXT, b"x")];
    frames.extend(vec![frame(CONTINUATION, b""); 1023]);
    frames.push(frame(FIN | CONTINUATION, b""));
    let bytes = frames.concat();
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    // Twice, because the next message is counted anew.
    assert_eq!(hear(&mut connection, &limits, &mut output, [&bytes[..], &bytes]), [text("x"), text("x")]);

    frames.insert(1, frame(CONTINUATION, b""));
    let error = ProtocolError::EmptyFragments { limit: 1024 };
    let events = hear(&mut connection, &limits, &mut output, [&frames.concat()[..]]);
    assert_eq!(events, [Event::Failed(error)]);
    assert_eq!(output, sent_close(1008, &error.to_string()));
}

/// Control frames are not fragmented (5.5).
#[test]
fn s5_5_a_fragmented_control_frame_fails_with_1002() {
    for opcode in [CLOSE, PING, PONG] {
        assert_fails(&[frame(opcode, b"")], ProtocolError::FragmentedControl, 1002);
    }
}

/// Control frames hold at most 125 bytes (5.5).
#[test]
fn s5_5_a_long_control_frame_fails_with_1002() {
    for opcode in [CLOSE, PING, PONG] {
        assert_fails(&[frame(FIN | opcode, &[b'x'; 126])], ProtocolError::LongControl, 1002);
        assert_fails(&[frame(FIN | opcode, &[b'x'; 70_000])], ProtocolError::LongControl, 1002);
    }
    let (events, _) = converse(Limits::default(), &[frame(FIN | PING, &[b'x'; 125])]);
    assert_eq!(events, [Event::Ping(vec![b'x'; 125].into())]);
}

/// The limit of messages is not one of control frames (5.5).
#[test]
fn s5_5_a_control_frame_may_be_longer_than_a_message() {
    let limits = Limits { message_bytes_max: 1, ..Limits::default() };
    let frames = [frame(TEXT, b"x"), frame(FIN | PING, &[b'x'; 125]), frame(FIN | CONTINUATION, b"")];
    assert_eq!(converse(limits, &frames).0, [Event::Ping(vec![b'x'; 125].into()), text("x")]);
}

/// Close may be empty, or hold a code and a reason (5.5.1); nothing after it is heard (1.4).
#[test]
fn s5_5_1_nothing_is_heard_after_close() {
    let next = frame(FIN | TEXT, b"never heard");
    let garbage = vec![0xff; 20];
    let cases = [
        (vec![], requested(None, "")),
        (close_payload(1000, b""), requested(Some(1000), "")),
        (close_payload(4999, "grüße".as_bytes()), requested(Some(4999), "grüße")),
    ];
    for (payload, expected) in cases {
        let frames = [frame(FIN | CLOSE, &payload), next.clone(), garbage.clone()];
        assert_eq!(converse(Limits::default(), &frames), (vec![expected], vec![]));
    }
    let long = "x".repeat(123);
    let (events, _) =
        converse(Limits::default(), &[frame(FIN | CLOSE, &close_payload(3000, long.as_bytes()))]);
    assert_eq!(events, [Event::CloseRequested(PeerClose { code: Some(3000), reason: long.into() })]);
}

/// Close may come inside a fragmented message, which is never finished then (5.5.1).
#[test]
fn s5_5_1_close_ends_a_fragmented_message() {
    let frames = [frame(TEXT, b"a"), frame(FIN | CLOSE, b""), frame(FIN | CONTINUATION, b"b")];
    assert_eq!(converse(Limits::default(), &frames).0, [requested(None, "")]);
}

/// A payload of Close is at least a code (5.5.1).
#[test]
fn s5_5_1_a_close_of_one_byte_fails_with_1002() {
    assert_fails(&[frame(FIN | CLOSE, &[3])], ProtocolError::ShortClose, 1002);
}

/// The reason is UTF-8 (5.5.1).
#[test]
fn s5_5_1_a_reason_that_is_not_utf8_fails_with_1007() {
    for reason in [&b"\xff"[..], b"ok \xce"] {
        let payload = close_payload(1000, reason);
        assert_fails(&[frame(FIN | CLOSE, &payload)], ProtocolError::CloseReason, 1007);
    }
}

/// After its own Close the server sends nothing, and hears nothing but the answer (5.5.1).
#[test]
fn s5_5_1_after_our_close_only_the_answer_is_heard() {
    let frames = [
        frame(FIN | TEXT, b"dropped"),
        frame(FIN | TEXT, b"\xff dropped unread"),
        frame(BINARY, b"dropped"),
        frame(FIN | PING, b"not to be answered"),
        frame(FIN | CONTINUATION, b"dropped"),
        frame(FIN | CLOSE, &close_payload(1000, b"bye")),
        frame(FIN | TEXT, b"never heard"),
    ];
    let before = |connection: &mut Connection, output: &mut Vec<u8>| {
        connection.close(Some(close::GOING_AWAY), "restart", output).unwrap();
    };
    let (events, output) = converse_after(Limits::default(), before, &frames);
    assert_eq!(events, [Event::CloseAnswered(PeerClose { code: Some(1000), reason: "bye".into() })]);
    assert_eq!(output, sent_close(1001, "restart"), "one Close and nothing else");
}

/// A message that was arriving when the server sent Close is thrown away, and its memory with it (5.5.1).
#[test]
fn s5_5_1_our_close_ends_the_message_that_arrives() {
    let (mut connection, limits, mut output) = (Connection::new(), Limits::default(), Vec::new());
    let message = frame(FIN | TEXT, &[b'x'; 1000]);
    let (first, second) = message.split_at(500);
    assert_eq!(hear(&mut connection, &limits, &mut output, [first]), []);
    assert_eq!(connection.message_bytes_pending(), Some(492));
    connection.close(Some(1000), "", &mut output).unwrap();
    assert_eq!(connection.message_bytes_pending(), Some(0));
    assert_eq!(hear(&mut connection, &limits, &mut output, [second]), []);
    assert_eq!(connection.message_bytes_pending(), None);
    let close = frame(FIN | CLOSE, b"");
    let answer = PeerClose { code: None, reason: "".into() };
    assert_eq!(hear(&mut connection, &limits, &mut output, [&close[..]]), [Event::CloseAnswered(answer)]);
}

/// A peer that breaks the protocol while the server waits for its Close gets no second one (5.5.1).
#[test]
fn s5_5_1_close_is_sent_once() {
    let before = |connection: &mut Connection, output: &mut Vec<u8>| {
        connection.close(None, "", output).unwrap();
    };
    let (events, output) = converse_after(Limits::default(), before, &[b"\x81\x01x".to_vec()]);
    assert_eq!(events, [Event::Failed(ProtocolError::Unmasked)]);
    assert_eq!(output, b"\x88\x00");
}

/// Nothing may be sent after Close, whatever it is (5.5.1).
#[test]
fn s5_5_1_nothing_is_sent_after_close() {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    connection.close(Some(1000), "", &mut output).unwrap();
    assert_eq!(connection.send(Kind::Text, b"x", &mut Deflater::new(), &mut output), Err(SendError::Closed));
    assert_eq!(connection.send_fragment(Kind::Text, b"x", true, &mut output), Err(SendError::Closed));
    assert_eq!(connection.message_head(Kind::Text, 1).err(), Some(SendError::Closed));
    assert_eq!(connection.ping(b"", &mut output), Err(SendError::Closed));
    assert_eq!(connection.pong(b"", &mut output), Err(SendError::Closed));
    assert_eq!(connection.close(Some(1000), "", &mut output), Err(CloseError::Closed));
    connection.fail(1011, "", &mut output);
    assert_eq!(output, sent_close(1000, ""));
    assert_eq!(connection.ready_state(), ReadyState::Closed);
}

/// A text is UTF-8, and a character may be cut between fragments and reads (5.6).
#[test]
fn s5_6_a_character_may_be_cut_between_fragments() {
    let whole = "grüße, 世界 🌍";
    for at in 0..=whole.len() {
        let (first, second) = whole.as_bytes().split_at(at);
        let frames = [frame(TEXT, first), frame(FIN | CONTINUATION, second)];
        assert_eq!(converse(Limits::default(), &frames).0, [text(whole)]);
    }
}

/// A text that is not UTF-8 fails the connection (8.1); the same bytes as binary do not.
#[test]
fn s8_1_a_text_that_is_not_utf8_fails_with_1007() {
    for bytes in [
        &b"\xff"[..],
        b"cut \xf0\x9f\x8c",
        b"surrogate \xed\xa0\x80",
        b"overlong \xc0\xaf",
        b"\xf4\x90\x80\x80",
    ] {
        assert_fails(&[frame(FIN | TEXT, bytes)], ProtocolError::InvalidText, 1007);
        assert_fails(&[frame(TEXT, bytes), frame(FIN | CONTINUATION, b"")], ProtocolError::InvalidText, 1007);
        assert_eq!(
            converse(Limits::default(), &[frame(FIN | BINARY, bytes)]).0,
            [message(Kind::Binary, bytes)]
        );
    }
}

/// It fails at the byte that makes it certain, before the message, its frame or the character has ended (8.1).
#[test]
fn s8_1_a_text_fails_as_soon_as_it_is_certain() {
    let bytes = frame(TEXT, b"ok \xf4\x90\x80\x80 and more");
    let (mut connection, limits, mut output) = (Connection::new(), Limits::default(), Vec::new());
    let (bad, rest) = (6 + 4, &bytes[6 + 4 + 1..]);
    assert_eq!(hear(&mut connection, &limits, &mut output, [&bytes[..bad]]), []);
    let failed = Event::Failed(ProtocolError::InvalidText);
    assert_eq!(hear(&mut connection, &limits, &mut output, [&bytes[bad..=bad], rest]), [failed]);
}

/// After a failure the server sends one Close and hears nothing more (7.1.7).
#[test]
fn s7_1_7_a_failed_connection_is_deaf_and_mute() {
    let (mut connection, limits, mut output) = (Connection::new(), Limits::default(), Vec::new());
    connection.fail(close::POLICY, &"ä".repeat(100), &mut output);
    assert_eq!(output, sent_close(1008, &"ä".repeat(61)), "the reason is cut between characters");
    let rest = frame(FIN | TEXT, b"x");
    assert_eq!(hear(&mut connection, &limits, &mut output, [&rest[..]]), []);
    assert_eq!(connection.ready_state(), ReadyState::Closed);
    assert_eq!(connection.send(Kind::Text, b"x", &mut Deflater::new(), &mut output), Err(SendError::Closed));
}

/// The server never puts a code on the wire that must not be there, even if its own caller asks for it (7.4.1).
#[test]
fn s7_4_1_the_server_sends_no_forbidden_code() {
    for code in [0, 999, 1004, 1005, 1006, 1010, 1015, 1016, 2999, 5000, u16::MAX] {
        let (mut connection, mut output) = (Connection::new(), Vec::new());
        assert_eq!(connection.close(Some(code), "", &mut output), Err(CloseError::Code(code)));
        assert!(output.is_empty());
        assert_eq!(connection.ready_state(), ReadyState::Open);
        connection.fail(code, "", &mut output);
        assert_eq!(output, sent_close(1011, ""), "a wrong code is the server's own failure");
    }
}

/// A code that must not be on the wire fails the connection (7.4).
#[test]
fn s7_4_a_forbidden_code_fails_with_1002() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        let close = frame(FIN | CLOSE, &close_payload(code, b"x"));
        assert_fails(&[close], ProtocolError::CloseCode(code), 1002);
    }
    for code in [1000, 1003, 1007, 1010, 1011, 1012, 1013, 1014, 3000, 4999] {
        let close = frame(FIN | CLOSE, &close_payload(code, b"x"));
        assert_eq!(converse(Limits::default(), &[close]).0, [requested(Some(code), "x")]);
    }
}

/// A reason fits into a control frame and stands behind a code (5.5.1).
#[test]
fn s5_5_1_a_reason_needs_a_code_and_room() {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    assert_eq!(connection.close(None, "why", &mut output), Err(CloseError::Reason));
    assert_eq!(connection.close(Some(1000), &"x".repeat(124), &mut output), Err(CloseError::Reason));
    assert!(output.is_empty());
    connection.close(Some(1000), &"x".repeat(123), &mut output).unwrap();
    assert_eq!(output.len(), 2 + 125);
}

/// A message above the limit is refused at the header that announces it, before its bytes have come (10.4).
#[test]
fn s10_4_a_message_above_the_limit_fails_with_1009() {
    let limits = Limits { message_bytes_max: 1000, ..Limits::default() };
    let error = ProtocolError::TooBig { limit: 1000 };
    let refused = (vec![Event::Failed(error)], sent_close(1009, &error.to_string()));
    let full = frame(FIN | BINARY, &[7; 1000]);
    assert_eq!(
        converse(limits, &[full]).0,
        [message(Kind::Binary, &[7; 1000])],
        "the limit itself is allowed"
    );

    let head_alone = frame(FIN | BINARY, &[7; 1001])[..8].to_vec();
    assert_eq!(converse(limits, &[head_alone]), refused);
    let second_head = frame(FIN | CONTINUATION, &[7; 401])[..8].to_vec();
    assert_eq!(converse(limits, &[frame(BINARY, &[7; 600]), second_head]), refused);
    let largest = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask".to_vec();
    assert_eq!(converse(limits, std::slice::from_ref(&largest)), refused);
    // Nothing overflows where there is no limit to speak of.
    let limits = Limits { message_bytes_max: usize::MAX, ..limits };
    let mut continued = largest.clone();
    continued[0] = FIN | CONTINUATION;
    assert_eq!(converse(limits, &[frame(BINARY, b"x"), continued]), (vec![], vec![]));
    assert_eq!(converse(limits, &[largest]), (vec![], vec![]));
}

/// Messages of the server's own may be sent in fragments, with control frames but no other message between them (5.4).
#[test]
fn s5_4_the_server_does_not_mix_messages() {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    connection.send_fragment(Kind::Text, b"Hel", false, &mut output).unwrap();
    connection.pong(b"", &mut output).unwrap();
    assert_eq!(
        connection.send(Kind::Text, b"x", &mut Deflater::new(), &mut output),
        Err(SendError::InFragments)
    );
    assert_eq!(connection.message_head(Kind::Text, 1).err(), Some(SendError::InFragments));
    assert_eq!(connection.send_fragment(Kind::Binary, b"x", true, &mut output), Err(SendError::InFragments));
    connection.send_fragment(Kind::Text, b"l", false, &mut output).unwrap();
    connection.send_fragment(Kind::Text, b"o", true, &mut output).unwrap();
    connection.send(Kind::Binary, b"x", &mut Deflater::new(), &mut output).unwrap();
    assert_eq!(output, b"\x01\x03Hel\x8a\x00\x00\x01l\x80\x01o\x82\x01x");
    assert_eq!(connection.ping(&[0; 126], &mut output), Err(SendError::TooLong));
    assert_eq!(connection.pong(&[0; 126], &mut output), Err(SendError::TooLong));
}

/// The closing handshake has two sides, and the state says how many of them have spoken (7.1.3 and 7.1.4).
#[test]
fn s7_1_3_the_state_follows_the_closing_handshake() {
    let (limits, close) = (Limits::default(), frame(FIN | CLOSE, b""));
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    assert_eq!(connection.ready_state(), ReadyState::Open);
    hear(&mut connection, &limits, &mut output, [&close[..]]);
    assert_eq!(connection.ready_state(), ReadyState::Closing);
    connection.close(None, "", &mut output).unwrap();
    assert_eq!(connection.ready_state(), ReadyState::Closed);

    let mut connection = Connection::new();
    connection.close(None, "", &mut output).unwrap();
    assert_eq!(connection.ready_state(), ReadyState::Closing);
    hear(&mut connection, &limits, &mut output, [&close[..]]);
    assert_eq!(connection.ready_state(), ReadyState::Closed);
}

/// Whatever has begun and not ended can be put under a deadline (10.4).
#[test]
fn s10_4_the_pending_bytes_are_known() {
    let (mut connection, limits, mut output) = (Connection::new(), Limits::default(), Vec::new());
    let bytes = [frame(TEXT, b"abc"), frame(FIN | PING, b"?"), frame(FIN | CONTINUATION, b"d")].concat();
    let mut seen = vec![connection.message_bytes_pending()];
    for byte in bytes.chunks(1) {
        hear(&mut connection, &limits, &mut output, [byte]);
        seen.push(connection.message_bytes_pending());
    }
    let mut expected = vec![None];
    expected.extend([Some(0); 6]);
    expected.extend([Some(1), Some(2)]);
    // The third byte, the ping, and the second header leave it at three.
    expected.extend([Some(3); 1 + 7 + 6]);
    expected.push(None);
    assert_eq!(seen, expected);
}
