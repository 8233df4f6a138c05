//! What RFC 7692 demands of a server, section by section.
//!
//! Every conversation is held whole, byte by byte, and cut in two at every place; events and answers have to be the same.

mod support;

use flate2::{Compress, Compression, FlushCompress};
use http::StatusCode;
use support::inflate::StrictInflater;
use support::*;
use wshd_protocol::handshake::Rejection;
use wshd_protocol::{
    Connection, DeflateParameters, DeflateRules, Deflater, Event, Inflater, Kind, Limits, Message,
    ProtocolError, SendError,
};
use zlib_rs::{Deflate, DeflateFlush};

const RULES: DeflateRules = DeflateRules {
    is_on: true,
    level: 1,
    server_window_bits_max: 15,
    server_history_bytes_max: 4096,
    client_window_bits_max: 12,
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    message_bytes_min: 0,
};

// ---- negotiation -----------------------------------------------------------------------------------------------------------

/// What the server agrees to, and how its answer says so, if the peer sends these lines of offers.
fn negotiate(rules: &DeflateRules, lines: &[&str]) -> Result<Option<(DeflateParameters, String)>, Rejection> {
    let headers = request(lines);
    let offer = offer(&headers)?;
    let agreement = rules.agree(offer.extensions());
    let answer = offer.accept(None, agreement.as_ref()).unwrap();
    let answer = answer.get("sec-websocket-extensions").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(answer, agreement.map(|agreement| agreement.to_string()));
    Ok(agreement.map(|agreement| (agreement.parameters(), answer.unwrap())))
}

/// What both agree to.
fn agreed(rules: &DeflateRules, offer: &str) -> DeflateParameters {
    negotiate(rules, &[offer]).unwrap().expect("the offer is taken").0
}

fn answer(rules: &DeflateRules, lines: &[&str]) -> Option<String> {
    negotiate(rules, lines).unwrap().map(|(_, answer)| answer)
}

/// Nothing is agreed to unless the server wants it (5).
#[test]
fn s5_nothing_is_agreed_by_default() {
    assert_eq!(answer(&DeflateRules::default(), &["permessage-deflate"]), None);
    let rules = DeflateRules { is_on: true, ..DeflateRules::default() };
    assert_eq!(answer(&rules, &["permessage-deflate"]).as_deref(), Some("permessage-deflate"));
    assert_eq!(answer(&rules, &[]), None, "nothing was offered");
}

/// Of the offers the first that can be taken is taken, and no other is spoken of (5 and 7).
#[test]
fn s5_the_first_offer_that_can_be_taken_is() {
    for (lines, expected) in [
        (&["x-webkit-deflate-frame, permessage-deflate"][..], Some("permessage-deflate")),
        (&["permessage-bzip2; level=9"], None),
        (&["permessage-deflate; level=9, permessage-deflate"], Some("permessage-deflate")),
        (
            &[
                "permessage-deflate; server_max_window_bits=7",
                "permessage-deflate; server_max_window_bits=10",
            ],
            Some("permessage-deflate; server_max_window_bits=10"),
        ),
        (
            &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
            Some("permessage-deflate; server_max_window_bits=10"),
        ),
        (
            &["permessage-deflate; client_max_window_bits; server_no_context_takeover"],
            Some("permessage-deflate; server_no_context_takeover; client_max_window_bits=12"),
        ),
        (
            &["permessage-deflate; server_max_window_bits=\"9\""],
            Some("permessage-deflate; server_max_window_bits=9"),
        ),
        (&["Permessage-Deflate"], None),
    ] {
        assert_eq!(answer(&RULES, lines).as_deref(), expected, "{lines:?}");
    }
}

/// An offer is declined if a parameter is not defined, has a wrong value, or is there twice (7).
#[test]
fn s7_an_offer_that_is_not_understood_is_declined() {
    let mut wrong = vec![
        "level=9".to_owned(),
        "SERVER_NO_CONTEXT_TAKEOVER".to_owned(),
        "server_max_window_bits".to_owned(),
    ];
    for name in ["server_no_context_takeover", "client_no_context_takeover"] {
        wrong.extend([format!("{name}=1"), format!("{name}=true"), format!("{name}; {name}")]);
    }
    for name in ["server_max_window_bits", "client_max_window_bits"] {
        let values = ["0", "1", "7", "08", "16", "20", "010", "150", "-8", "+8", "8.0", "0xa", "ten", "256"];
        wrong.extend(values.map(|value| format!("{name}={value}")));
        wrong.push(format!("{name}=10; {name}=10"));
    }
    wrong.push("client_max_window_bits; client_max_window_bits".to_owned());
    wrong.push("client_max_window_bits; client_max_window_bits=9".to_owned());
    for parameters in wrong {
        let offer = format!("permessage-deflate; {parameters}");
        assert_eq!(answer(&RULES, &[&offer]), None, "{offer}");
        let offers = format!("{offer}, permessage-deflate; client_no_context_takeover");
        let expected = Some("permessage-deflate; client_no_context_takeover");
        assert_eq!(answer(&RULES, &[&offers]).as_deref(), expected, "{offers}");
    }
}

/// A list that breaks the grammar refuses the handshake (RFC 6455 section 9.1).
#[test]
fn s5_a_list_that_breaks_the_grammar_is_refused() {
    for line in
        ["", "permessage-deflate;", "permessage-deflate; =1", "permessage-deflate foo", "a; b=\"c d\""]
    {
        let rejection = negotiate(&DeflateRules::default(), &[line]).unwrap_err();
        assert_eq!(
            (rejection, rejection.status()),
            (Rejection::Extensions, StatusCode::BAD_REQUEST),
            "{line:?}"
        );
    }
}

/// Every offer gets an answer that its client may take, and that both sides mean the same by (7.1.1 and 7.1.2).
#[test]
fn s7_1_every_combination_of_parameters_gets_an_answer_that_fits() {
    let windows = || [None].into_iter().chain((8..=15).map(Some));
    let mut count = 0;
    for flags in 0..16 {
        let flag = |bit: u32| flags >> bit & 1 == 1;
        for (offered_server, rule_bits) in
            windows().flat_map(|bits| [0, 8, 11, 15, 99].map(|rule| (bits, rule)))
        {
            // Absent, without a value, or with one.
            for offered_client in [None, Some(None)].into_iter().chain(windows().skip(1).map(Some)) {
                let rules = DeflateRules {
                    server_no_context_takeover: flag(0),
                    client_no_context_takeover: flag(1),
                    server_window_bits_max: rule_bits,
                    client_window_bits_max: rule_bits,
                    ..RULES
                };
                let mut offer = String::from("permessage-deflate");
                if flag(2) {
                    offer += "; server_no_context_takeover";
                }
                if let Some(bits) = offered_server {
                    offer += &format!("; server_max_window_bits={bits}");
                }
                match offered_client {
                    Some(Some(bits)) => offer += &format!("; client_max_window_bits={bits}"),
                    Some(None) => offer += "; client_max_window_bits",
                    None => {}
                }
                if flag(3) {
                    offer += "; client_no_context_takeover";
                }
                let (parameters, answer) = negotiate(&rules, &[&offer]).unwrap().unwrap();
                let mut words = answer.split("; ");
                assert_eq!(words.next(), Some("permessage-deflate"));
                let words: Vec<_> = words.collect();
                let bits = |name| words.iter().find_map(|word| word.strip_prefix(name)?.parse::<u8>().ok());

                let server_alone = words.contains(&"server_no_context_takeover");
                assert_eq!(server_alone, flag(0) || flag(2), "what is asked for is granted (7.1.1.1)");
                let client_alone = words.contains(&"client_no_context_takeover");
                assert_eq!(client_alone, flag(1) || flag(3), "{offer} -> {answer} (7.1.1.2)");
                let server_bits = bits("server_max_window_bits=");
                assert_eq!(server_bits.is_some(), offered_server.is_some(), "{offer} -> {answer}");
                let rule_bits = rule_bits.clamp(8, 15);
                assert!(server_bits.is_none_or(|bits| bits <= offered_server.unwrap()), "7.1.2.1");
                assert_eq!(parameters.server_window_bits(), rule_bits.min(offered_server.unwrap_or(15)));
                let client_bits = bits("client_max_window_bits=");
                assert!(
                    client_bits.is_none() || offered_client.is_some(),
                    "only where it was offered (7.1.2.2)"
                );
                if let Some(offered) = offered_client {
                    let expected = (!client_alone).then(|| rule_bits.min(offered.unwrap_or(15)));
                    assert_eq!(client_bits, expected, "{offer} -> {answer}");
                }
                assert!(words.len() <= 4 && !answer.contains("bits;") && !answer.ends_with("bits"));

                assert_eq!(parameters.server_no_context_takeover(), server_alone);
                assert_eq!(parameters.client_no_context_takeover(), client_alone);
                if let Some(bits) = server_bits {
                    assert_eq!(parameters.server_window_bits(), bits);
                }
                // What the client may use, the server keeps.
                let used = client_bits.or_else(|| offered_client.flatten()).unwrap_or(15);
                assert_eq!(parameters.client_window_bits(), used);
                assert_eq!(parameters.received_bytes_max(), if client_alone { 0 } else { 1 << used });
                let sent = if server_alone { 0 } else { 4096.min(1 << parameters.server_window_bits()) };
                assert_eq!(parameters.sent_bytes_max(), sent);
                count += 1;
            }
        }
    }
    assert_eq!(count, 16 * 9 * 5 * 10);
}

// ---- receiving -------------------------------------------------------------------------------------------------------------

/// What the server hears, and what it answers, if the peer sends these frames after this offer was taken.
fn converse(offer: &str, frames: &[Vec<u8>]) -> (Vec<Event<'static>>, Vec<u8>) {
    converse_within(Limits::default(), offer, frames)
}

fn converse_within(limits: Limits, offer: &str, frames: &[Vec<u8>]) -> (Vec<Event<'static>>, Vec<u8>) {
    let parameters = agreed(&RULES, offer);
    converse_with(&limits, |_| Connection::with_deflate(parameters), frames)
}

fn message(kind: Kind, payload: &[u8]) -> Event<'static> {
    kept(Event::Message(Message { kind, payload: payload.into() }))
}

fn text(payload: &str) -> Event<'static> {
    message(Kind::Text, payload.as_bytes())
}

/// These frames fail the connection with this error and code, and nothing is heard before or after.
#[track_caller]
fn assert_fails(offer: &str, frames: &[Vec<u8>], error: ProtocolError, code: u16) {
    let mut frames = frames.to_vec();
    frames.push(frame(FIN | TEXT, b"never heard"));
    let expected = (vec![Event::Failed(error)], sent_close(code, &error.to_string()));
    assert_eq!(converse(offer, &frames), expected);
}

const DEFLATE: &str = "permessage-deflate";
/// "Hello" (7.2.3.1).
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
/// "Hello" after "Hello" (7.2.3.2).
const HELLO_AGAIN: &[u8] = b"\xf2\x00\x11\x00\x00";

/// RSV1 is what says that a message is compressed (6), and without the extension it fails the connection (RFC 6455, 5.2).
#[test]
fn s6_rsv1_without_the_extension_fails_with_1002() {
    let error = ProtocolError::ReservedBits;
    let frames = [frame(FIN | RSV1 | TEXT, HELLO)];
    let heard = converse_with(&Limits::default(), |_| Connection::new(), &frames);
    assert_eq!(heard, (vec![Event::Failed(error)], sent_close(1002, &error.to_string())));
}

/// The other two bits stay reserved (6).
#[test]
fn s6_the_other_reserved_bits_fail_with_1002() {
    for bits in [0x20, 0x10, 0x30, RSV1 | 0x20, RSV1 | 0x10] {
        for opcode in [TEXT, BINARY, CONTINUATION, PING, CLOSE] {
            assert_fails(DEFLATE, &[frame(FIN | bits | opcode, HELLO)], ProtocolError::ReservedBits, 1002);
        }
    }
}

/// Control frames are never compressed (6.1).
#[test]
fn s6_1_rsv1_on_a_control_frame_fails_with_1002() {
    for opcode in [PING, PONG, CLOSE] {
        for payload in [&b""[..], HELLO] {
            let frames = [frame(FIN | RSV1 | opcode, payload)];
            assert_fails(DEFLATE, &frames, ProtocolError::MisplacedRsv1, 1002);
            let between = [frame(RSV1 | TEXT, &HELLO[..3]), frames[0].clone()];
            assert_fails(DEFLATE, &between, ProtocolError::MisplacedRsv1, 1002);
        }
    }
}

/// RSV1 is on the first frame of a message and on no other, whether the message is compressed or not (6.1).
#[test]
fn s6_1_rsv1_on_a_continuation_fails_with_1002() {
    for first in [BINARY, RSV1 | BINARY] {
        for fin in [0, FIN] {
            let frames = [frame(first, &HELLO[..3]), frame(fin | RSV1 | CONTINUATION, &HELLO[3..])];
            assert_fails(DEFLATE, &frames, ProtocolError::MisplacedRsv1, 1002);
        }
    }
}

/// Fragments are those of the compressed message, which may be cut anywhere; control frames may come between (6.1).
#[test]
fn s6_1_a_compressed_message_may_be_fragmented_anywhere() {
    for first in 0..=HELLO.len() {
        for second in first..=HELLO.len() {
            let frames = [
                frame(RSV1 | TEXT, &HELLO[..first]),
                frame(FIN | PING, b"?"),
                frame(CONTINUATION, &HELLO[first..second]),
                frame(FIN | CONTINUATION, &HELLO[second..]),
                frame(FIN | RSV1 | BINARY, HELLO_AGAIN),
            ];
            let (events, output) = converse(DEFLATE, &frames);
            let expected = [Event::Ping(b"?"[..].into()), text("Hello"), message(Kind::Binary, b"Hello")];
            assert_eq!(events, expected);
            assert!(output.is_empty());
        }
    }
}

/// A message may be sent without compression at any time (6), and does not enter the window then (7.2.2).
#[test]
fn s6_plain_messages_come_between_and_leave_the_window_alone() {
    let frames = [
        frame(FIN | RSV1 | TEXT, HELLO),
        frame(FIN | TEXT, b"plain"),
        frame(TEXT, b"pla"),
        frame(FIN | CONTINUATION, b"in"),
        frame(FIN | RSV1 | TEXT, HELLO_AGAIN),
    ];
    let expected = [text("Hello"), text("plain"), text("plain"), text("Hello")];
    assert_eq!(converse(DEFLATE, &frames).0, expected);
    assert_fails(
        "permessage-deflate; client_no_context_takeover",
        &[frame(FIN | RSV1 | TEXT, HELLO_AGAIN)],
        ProtocolError::InvalidDeflate,
        1007,
    );
}

/// "Hello" as one frame and as two (7.2.3.1).
#[test]
fn s7_2_3_1_one_compressed_block() {
    let whole = [b"\xc1\x87\x00\x00\x00\x00", HELLO].concat();
    assert_eq!(converse(DEFLATE, &[whole]).0, [text("Hello")]);
    let cut = [frame(RSV1 | TEXT, b"\xf2\x48\xcd"), frame(FIN | CONTINUATION, b"\xc9\xc9\x07\x00")];
    assert_eq!(converse(DEFLATE, &cut).0, [text("Hello")]);
}

/// The second "Hello" refers to the first with context takeover, and cannot without (7.2.3.2).
#[test]
fn s7_2_3_2_the_window_is_shared_exactly_where_that_was_agreed() {
    let twice = [frame(FIN | RSV1 | TEXT, HELLO), frame(FIN | RSV1 | TEXT, HELLO)];
    let shared = [frame(FIN | RSV1 | TEXT, HELLO), frame(FIN | RSV1 | TEXT, HELLO_AGAIN)];
    let alone = "permessage-deflate; client_no_context_takeover";
    assert_eq!(converse(DEFLATE, &twice).0, [text("Hello"), text("Hello")]);
    assert_eq!(converse(DEFLATE, &shared).0, [text("Hello"), text("Hello")]);
    assert_eq!(converse(alone, &twice).0, [text("Hello"), text("Hello")]);
    let error = ProtocolError::InvalidDeflate;
    assert_eq!(converse(alone, &shared).0, [text("Hello"), Event::Failed(error)]);
}

/// A block without compression (7.2.3.3).
#[test]
fn s7_2_3_3_a_stored_block() {
    let frames = [frame(FIN | RSV1 | TEXT, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")];
    assert_eq!(converse(DEFLATE, &frames).0, [text("Hello")]);
}

/// A block with BFINAL ends no message and no window (7.2.3.4).
#[test]
fn s7_2_3_4_a_final_block() {
    let last = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
    assert_eq!(converse(DEFLATE, &[frame(FIN | RSV1 | TEXT, last)]).0, [text("Hello")]);
    // The second one inside the message refers to the first; so does the next message.
    let inside = [&last[..7], b"\xf3\x00\x11\x00"].concat();
    let frames =
        [frame(FIN | RSV1 | TEXT, &[&inside, &b"\x00"[..]].concat()), frame(FIN | RSV1 | TEXT, HELLO_AGAIN)];
    assert_eq!(converse(DEFLATE, &frames).0, [text("HelloHello"), text("Hello")]);
    let frames = [
        frame(FIN | RSV1 | TEXT, HELLO),
        frame(FIN | RSV1 | TEXT, &[b"\x03\x00".repeat(3), HELLO_AGAIN.to_vec()].concat()),
    ];
    assert_eq!(converse(DEFLATE, &frames).0, [text("Hello"), text("Hello")], "what was before stays");
}

/// There are not many reasons to end often (7.2.3.4), and each costs the server a window.
#[test]
fn s7_2_3_4_many_final_blocks_fail_with_1008() {
    let blocks = |count| [b"\x03\x00".repeat(count), b"\x00".to_vec()].concat();
    let heard = converse_within(Limits::default(), DEFLATE, &[frame(FIN | RSV1 | TEXT, &blocks(1024))]);
    assert_eq!(heard.0, [text("")]);
    let error = ProtocolError::FinalBlocks { limit: 1024 };
    assert_fails(DEFLATE, &[frame(FIN | RSV1 | TEXT, &blocks(1025))], error, 1008);
}

/// Two blocks, the first flushed (7.2.3.5).
#[test]
fn s7_2_3_5_two_blocks() {
    let frames = [frame(FIN | RSV1 | TEXT, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")];
    assert_eq!(converse(DEFLATE, &frames).0, [text("Hello")]);
}

/// An empty message is one byte (7.2.3.6).
#[test]
fn s7_2_3_6_an_empty_message() {
    let frames = [
        frame(FIN | RSV1 | TEXT, b"\x00"),
        frame(RSV1 | BINARY, b""),
        frame(FIN | CONTINUATION, b"\x00"),
        frame(FIN | RSV1 | BINARY, HELLO),
    ];
    let expected = [text(""), message(Kind::Binary, b""), message(Kind::Binary, b"Hello")];
    assert_eq!(converse(DEFLATE, &frames).0, expected);
}

/// What cannot be inflated fails the connection (7.2.2): data that breaks RFC 1951, or is cut, or refers to what never was.
#[test]
fn s7_2_2_broken_data_fails_with_1007() {
    for payload in [
        &b""[..],
        b"\xff",
        b"\x07",
        b"\x06",
        b"\x00\x05\x00\xfa\xfe\x48\x65\x6c\x6c\x6f\x00",
        b"\x00\x05\x00\xfa\xff\x48",
        &HELLO[..3],
        &HELLO[..6],
        b"\xf3\x48\xcd\xc9\xc9\x07\x00",
        b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x07",
        HELLO_AGAIN,
    ] {
        assert_fails(DEFLATE, &[frame(FIN | RSV1 | BINARY, payload)], ProtocolError::InvalidDeflate, 1007);
        let (first, second) = payload.split_at(payload.len() / 2);
        let parts = [frame(RSV1 | BINARY, first), frame(FIN | CONTINUATION, second)];
        assert_fails(DEFLATE, &parts, ProtocolError::InvalidDeflate, 1007);
    }
}

/// A text has to be UTF-8 when it is inflated; what it is before is of no matter (6.2 and RFC 6455, 8.1).
#[test]
fn s6_2_a_text_is_checked_when_it_is_inflated() {
    let stored = |bytes: &[u8]| {
        let len = bytes.len() as u16;
        [&[0], &len.to_le_bytes()[..], &(!len).to_le_bytes(), bytes, &[0]].concat()
    };
    assert_eq!(converse(DEFLATE, &[frame(FIN | RSV1 | TEXT, &stored("世".as_bytes()))]).0, [text("世")]);
    for bytes in [&b"\xff"[..], b"abc\xe4\xb8", b"\xed\xa0\x80"] {
        let payload = stored(bytes);
        assert_eq!(
            converse(DEFLATE, &[frame(FIN | RSV1 | BINARY, &payload)]).0,
            [message(Kind::Binary, bytes)]
        );
        assert_fails(DEFLATE, &[frame(FIN | RSV1 | TEXT, &payload)], ProtocolError::InvalidText, 1007);
        let (first, second) = payload.split_at(3);
        let parts = [frame(RSV1 | TEXT, first), frame(FIN | CONTINUATION, second)];
        assert_fails(DEFLATE, &parts, ProtocolError::InvalidText, 1007);
    }
}

/// The limit is one of plain text, whatever it was compressed to (8).
#[test]
fn s8_the_limit_is_that_of_the_inflated_message() {
    let limits = Limits { message_bytes_max: 10_000, ..Limits::default() };
    for (len, is_heard) in [(9_999, true), (10_000, true), (10_001, false), (10_000_000, false)] {
        let mut client = Client::new(agreed(&RULES, DEFLATE));
        let plain = vec![b'a'; len];
        let payload = client.compress(&plain);
        assert!(payload.len() < len / 200 + 40, "{} bytes", payload.len());
        if payload.len() > 10_000 + 10_000 / 8 + 64 {
            continue;
        }
        let expected = if is_heard {
            message(Kind::Binary, &plain)
        } else {
            Event::Failed(ProtocolError::TooBig { limit: 10_000 })
        };
        let heard = converse_within(limits, DEFLATE, &[frame(FIN | RSV1 | BINARY, &payload)]);
        assert_eq!(heard.0, std::slice::from_ref(&expected), "{len}");
        let (first, second) = payload.split_at(payload.len() / 2);
        let parts = [frame(RSV1 | BINARY, first), frame(FIN | CONTINUATION, second)];
        assert_eq!(converse_within(limits, DEFLATE, &parts).0, [expected], "{len}");
    }
}

/// A header that announces more than any message within the limit could be compressed to fails at once (8); a message that
/// compression made longer does not.
#[test]
fn s8_compressed_bytes_are_bounded_too() {
    let limits = Limits { message_bytes_max: 80, ..Limits::default() };
    let error = ProtocolError::TooBig { limit: 80 };
    let heard = converse_within(limits, DEFLATE, &[frame(FIN | RSV1 | BINARY, &[0; 155])]);
    assert_eq!(heard.0, [Event::Failed(error)]);
    let parts = [frame(RSV1 | BINARY, &[0; 100]), frame(FIN | CONTINUATION, &[0; 55])];
    assert_eq!(converse_within(limits, DEFLATE, &parts).0, [Event::Failed(error)]);
    // Each byte above 143 takes nine bits in the fixed code (RFC 1951 section 3.2.6).
    let mut bits = vec![0, 1, 0];
    for byte in 176..=255 {
        bits.extend((0..9).rev().map(|place| (400 + byte - 144) >> place & 1));
    }
    bits.extend([0; 7 + 3]);
    let payload: Vec<u8> = bits
        .chunks(8)
        .map(|bits| bits.iter().enumerate().fold(0, |byte, (place, bit)| byte | (*bit as u8) << place))
        .collect();
    assert!(payload.len() > 80);
    let plain: Vec<u8> = (176..=255).collect();
    let heard = converse_within(limits, DEFLATE, &[frame(FIN | RSV1 | BINARY, &payload)]);
    assert_eq!(heard.0, [message(Kind::Binary, &plain)]);
}

/// Once Close was sent, compressed messages are thrown away like others, right or wrong (RFC 6455, 5.5.1).
#[test]
fn s6_after_close_compressed_messages_are_thrown_away() {
    let parameters = agreed(&RULES, DEFLATE);
    let frames = [
        frame(FIN | RSV1 | TEXT, HELLO),
        frame(FIN | RSV1 | TEXT, b"broken"),
        frame(RSV1 | TEXT, HELLO),
        frame(FIN | CONTINUATION, b"broken"),
        frame(FIN | CLOSE, &close_payload(1000, b"")),
    ];
    let begin = |output: &mut Vec<u8>| {
        let mut connection = Connection::with_deflate(parameters);
        connection.close(Some(1000), "", output).unwrap();
        connection
    };
    let (events, output) = converse_with(&Limits::default(), begin, &frames);
    assert!(matches!(&events[..], [Event::CloseAnswered(_)]), "{events:?}");
    assert_eq!(output, sent_close(1000, ""));
}

// ---- both ways -------------------------------------------------------------------------------------------------------------

/// A client that keeps to what was agreed: it compresses with a stream of its own for the whole connection.
struct Client {
    parameters: DeflateParameters,
    deflate: Deflate,
    inflater: StrictInflater,
}

impl Client {
    fn new(parameters: DeflateParameters) -> Self {
        let takes_over = !parameters.server_no_context_takeover();
        Self {
            parameters,
            // This engine has no window of 256 bytes, and refers back 250 bytes with one of 512.
            deflate: Deflate::new(6, false, parameters.client_window_bits().max(9)),
            inflater: StrictInflater::new(parameters.server_window_bits(), takes_over),
        }
    }

    fn compress(&mut self, plain: &[u8]) -> Vec<u8> {
        if self.parameters.client_no_context_takeover() {
            self.deflate.reset();
        }
        if plain.is_empty() {
            // The engine does not flush twice for nothing (7.2.3.6).
            return vec![0];
        }
        let mut payload = vec![0; plain.len() + plain.len() / 8 + 64];
        let before = self.deflate.total_out();
        self.deflate.compress(plain, &mut payload, DeflateFlush::SyncFlush).unwrap();
        payload.truncate((self.deflate.total_out() - before) as usize);
        payload.strip_suffix(&[0, 0, 0xff, 0xff]).expect("it was flushed").to_vec()
    }

    /// Reads one frame of the server. Returns its payload as plain text, and whether it was compressed.
    #[track_caller]
    fn read(&mut self, output: &[u8]) -> (Vec<u8>, bool) {
        let (head_len, len) = match output[1] {
            126 => (4, usize::from(u16::from_be_bytes([output[2], output[3]]))),
            127 => (10, u64::from_be_bytes(*output[2..].first_chunk().unwrap()) as usize),
            len => (2, usize::from(len)),
        };
        let payload = &output[head_len..];
        assert_eq!(payload.len(), len, "one frame");
        assert!(output[0] & FIN != 0 && output[0] & 0x30 == 0);
        if output[0] & RSV1 == 0 {
            return (payload.to_vec(), false);
        }
        assert!(!payload.ends_with(&[0, 0, 0xff, 0xff]), "the end is left away (7.2.1)");
        (self.inflater.message(payload).expect("the client can inflate it"), true)
    }
}

/// Messages of many sizes, with much in common, with little, and with nothing.
fn talk(dice: &mut Dice, count: usize) -> Vec<Vec<u8>> {
    let words = ["price", "quantity", "\"symbol\":", "timestamp", "{\"id\":", "},", "true", "世界", "0.125"];
    let mut talk: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count {
        let len = [0, 1, 3, 30, 300, 700, 5000, 70_000][dice.below(8)];
        let len = dice.below(len + 1);
        talk.push(match dice.below(4) {
            0 => dice.bytes(len),
            1 if !talk.is_empty() => talk[dice.below(talk.len())].clone(),
            2 => vec![dice.byte(); len],
            _ => {
                let mut text = Vec::new();
                while text.len() < len {
                    text.extend(words[dice.below(words.len())].bytes());
                    text.extend(dice.below(1000).to_string().bytes());
                }
                text
            }
        });
    }
    talk
}

fn offers() -> impl Iterator<Item = String> {
    (8..=15).flat_map(|bits| {
        [
            "",
            "; server_no_context_takeover",
            "; client_no_context_takeover",
            "; server_no_context_takeover; client_no_context_takeover",
        ]
        .map(|takeover| {
            format!("{DEFLATE}; server_max_window_bits={bits}; client_max_window_bits={bits}{takeover}")
        })
    })
}

/// With every window and either kind of takeover, both sides understand each other. The client's inflater refuses what is outside
/// of its window, 256 bytes too (7.1.1, 7.1.2, 7.2).
#[test]
fn s7_2_every_window_and_takeover_goes_both_ways() {
    let mut dice = Dice::new(7692);
    let rules = DeflateRules { client_window_bits_max: 15, server_history_bytes_max: 32_768, ..RULES };
    let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
    let (mut compressed, mut plain, mut distances) = (0, 0, [0; 16]);
    for (round, offer) in offers().enumerate() {
        for level in [1, [2, 3, 6, 9][round % 4]] {
            let parameters = agreed(&DeflateRules { level, ..rules }, &offer);
            let (mut client, mut server) = (Client::new(parameters), Connection::with_deflate(parameters));
            let (limits, mut output) = (Limits::default(), Vec::new());
            for said in talk(&mut dice, 16) {
                // The other way round now and then: plain, and in fragments.
                if dice.once_in(5) {
                    server.send_fragment(Kind::Binary, &said, false, &mut output).unwrap();
                    server.send_fragment(Kind::Binary, b"", true, &mut output).unwrap();
                    assert_eq!(output[0] & RSV1, 0, "fragments are not compressed");
                    output.clear();
                }
                server.send(Kind::Binary, &said, &mut deflater, &mut output).unwrap();
                assert!(output.len() <= said.len() + 10, "never longer");
                let (read, was_compressed) = client.read(&output);
                assert_eq!(read, said, "{offer}, level {level}");
                output.clear();
                compressed += u32::from(was_compressed);
                plain += u32::from(!was_compressed);

                let mut bytes = frame(FIN | RSV1 | BINARY, &client.compress(&said));
                let mut input = &mut bytes[..];
                let event = server.receive(&mut input, &limits, &mut inflater, &mut output);
                assert_eq!(
                    event,
                    Some(message(Kind::Binary, &said)),
                    "{offer}, level {level}, round {round}"
                );
                assert!(
                    server.window_bytes() <= parameters.sent_bytes_max() + parameters.received_bytes_max()
                );
            }
            let used = &mut distances[usize::from(parameters.server_window_bits())];
            *used = client.inflater.distance_max.max(*used);
        }
    }
    for (bits, used) in distances.into_iter().enumerate().skip(8) {
        assert!(150 < used && used <= 1 << bits, "{bits}: {used}");
    }
    assert!(compressed > 300 && plain > 100, "{compressed} and {plain}");
}

/// A client whose deflate somebody else wrote is understood (7.2.1).
#[test]
fn s7_2_another_deflate_is_understood() {
    let mut dice = Dice::new(15);
    for level in [0, 1, 6, 9] {
        let mut compress = Compress::new(Compression::new(level), false);
        let mut server = Connection::with_deflate(agreed(&RULES, DEFLATE));
        let (limits, mut inflater, mut output) = (Limits::default(), Inflater::new(), Vec::new());
        for said in talk(&mut dice, 100) {
            let mut payload = Vec::with_capacity(2 * said.len() + 100);
            compress.compress_vec(&said, &mut payload, FlushCompress::Sync).unwrap();
            assert_eq!(payload.split_off(payload.len() - 4), [0, 0, 0xff, 0xff]);
            let mut bytes = frame(FIN | RSV1 | BINARY, &payload);
            let event = server.receive(&mut &mut bytes[..], &limits, &mut inflater, &mut output);
            assert_eq!(event, Some(message(Kind::Binary, &said)), "level {level}");
        }
    }
}

/// With context takeover a message refers to those before it, and without it to none (7.1.1).
#[test]
fn s7_1_1_takeover_makes_the_second_message_shorter() {
    let said: Vec<u8> = Dice::new(3).bytes(1000);
    for (offer, is_shorter) in [(DEFLATE, true), ("permessage-deflate; server_no_context_takeover", false)] {
        let rules = DeflateRules { message_bytes_min: 1, ..RULES };
        let mut server = Connection::with_deflate(agreed(&rules, offer));
        let mut deflater = Deflater::new();
        let said = [&said[..], &said[..10]].concat();
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let mut output = Vec::new();
            let compressible = [&said[..], &[b' '; 300]].concat();
            server.send(Kind::Binary, &compressible, &mut deflater, &mut output).unwrap();
            assert_eq!(output[0], FIN | RSV1 | BINARY);
            lengths.push(output.len());
        }
        assert_eq!(lengths[1] < 100, is_shorter, "{lengths:?}");
        assert_eq!(server.window_bytes() > 0, is_shorter);
    }
}

/// A message that compression does not make shorter is sent as it is, and later ones do not refer to it (7.2.2).
#[test]
fn s7_2_what_does_not_get_shorter_is_sent_plain_and_forgotten() {
    let mut dice = Dice::new(4);
    let parameters = agreed(&RULES, DEFLATE);
    let (mut client, mut server) = (Client::new(parameters), Connection::with_deflate(parameters));
    let (mut deflater, mut output) = (Deflater::new(), Vec::new());
    let noise = dice.bytes(2000);
    for said in [&noise, &noise, &vec![b'a'; 500], &b"short".to_vec(), &noise, &vec![b'a'; 500]] {
        server.send(Kind::Binary, said, &mut deflater, &mut output).unwrap();
        let (read, was_compressed) = client.read(&output);
        assert_eq!((&read, was_compressed), (said, said[0] == b'a'));
        output.clear();
    }
    assert_eq!(server.window_bytes(), 1000);
}

/// What is sent as it is, nobody can refer to. So a short first message is sent compressed although that makes it longer, and the
/// next one like it is short; without takeover that would be for nothing.
#[test]
fn s7_2_a_first_message_may_be_longer_for_the_sake_of_the_next() {
    let noise: Vec<u8> = Dice::new(5).bytes(120).into_iter().map(|byte| b'!' + byte % 94).collect();
    for (offer, is_for_the_next) in
        [(DEFLATE, true), ("permessage-deflate; server_no_context_takeover", false)]
    {
        let parameters = agreed(&RULES, offer);
        let (mut client, mut server) = (Client::new(parameters), Connection::with_deflate(parameters));
        let (mut deflater, mut lengths) = (Deflater::new(), Vec::new());
        for _ in 0..2 {
            let mut output = Vec::new();
            server.send(Kind::Binary, &noise, &mut deflater, &mut output).unwrap();
            assert_eq!(client.read(&output), (noise.clone(), is_for_the_next));
            lengths.push(output.len());
        }
        assert!(lengths[0] <= 4 + 120 + 16 && (lengths[1] < 30) == is_for_the_next, "{lengths:?}");
    }
}

/// Messages below the size that the server's rules name are not compressed (6).
#[test]
fn s6_short_messages_are_sent_plain() {
    let parameters = agreed(&DeflateRules { message_bytes_min: 100, ..RULES }, DEFLATE);
    let mut server = Connection::with_deflate(parameters);
    for (len, first) in [(99, FIN | BINARY), (100, FIN | RSV1 | BINARY)] {
        let mut output = Vec::new();
        assert_eq!(server.compresses(len), len == 100);
        server.send(Kind::Binary, &vec![b'a'; len], &mut Deflater::new(), &mut output).unwrap();
        assert_eq!(output[0], first);
    }
    assert!(!Connection::new().compresses(1000) && Connection::new().deflate_group().is_none());
}

/// A header that is asked for alone says that the message is not compressed (6).
#[test]
fn s6_a_header_alone_is_that_of_a_plain_message() {
    let mut server = Connection::with_deflate(agreed(&RULES, DEFLATE));
    assert_eq!(server.message_head(Kind::Text, 5).unwrap().as_slice(), b"\x81\x05");
    assert_eq!(server.fragment_head(Kind::Text, 5, false).unwrap().as_slice(), b"\x01\x05");
    let (mut deflater, mut output) = (Deflater::new(), Vec::new());
    let refused = server.send(Kind::Text, &[b'a'; 1000], &mut deflater, &mut output);
    assert_eq!((refused, &output[..]), (Err(SendError::InFragments), &b""[..]));
}

/// One frame that was compressed alone serves every connection of its group, with takeover and without, and what was said to
/// each before and after is not disturbed (7.1.1).
#[test]
fn s7_1_1_a_frame_that_was_compressed_alone_serves_many() {
    let mut dice = Dice::new(5);
    let mut deflater = Deflater::new();
    let mut peers: Vec<_> = offers()
        .map(|offer| agreed(&RULES, &offer))
        .map(|parameters| (Client::new(parameters), Connection::with_deflate(parameters)))
        .collect();
    for said in talk(&mut dice, 60) {
        let mut frames = std::collections::HashMap::new();
        for (client, server) in &mut peers {
            let mut output = Vec::new();
            if dice.once_in(2) {
                server.send(Kind::Binary, &said, &mut deflater, &mut output).unwrap();
            } else {
                let group = server.deflate_group().unwrap();
                let frame = frames.entry(group).or_insert_with(|| {
                    let mut frame = Vec::new();
                    deflater.compress_alone(group, Kind::Binary, &said, &mut frame);
                    frame
                });
                server.send_alone(frame, &said, &mut output).unwrap();
            }
            assert_eq!(client.read(&output).0, said);
        }
        assert!(frames.len() <= 8, "one for each window");
    }
    let (_, server) = &mut peers[0];
    server.close(None, "", &mut Vec::new()).unwrap();
    assert_eq!(server.send_alone(b"\xc2\x01\x00", b"", &mut Vec::new()), Err(SendError::Closed));
}

/// Connections share the streams of a deflater, and move to another and back; each peer understands what it gets (7.1.1).
#[test]
fn s7_1_1_the_window_of_a_connection_is_its_own_whichever_stream_compresses() {
    let mut dice = Dice::new(6);
    let mut deflaters = [Deflater::new(), Deflater::new(), Deflater::with_streams(3)];
    for level in [1, 6] {
        let mut peers: Vec<_> = offers()
            .filter(|offer| offer.contains("bits=8") || offer.contains("bits=12"))
            .chain(std::iter::repeat_n(DEFLATE.to_owned(), 4))
            .map(|offer| agreed(&DeflateRules { level, ..RULES }, &offer))
            .map(|parameters| (Client::new(parameters), Connection::with_deflate(parameters)))
            .collect();
        for said in talk(&mut dice, 150) {
            let (client, server) = &mut peers[dice.below(12)];
            let deflater = &mut deflaters[dice.below(3)];
            // Some in a row, for which the stream is still the right one.
            for part in said.chunks(1 + said.len() / 3) {
                let mut output = Vec::new();
                server.send(Kind::Binary, part, deflater, &mut output).unwrap();
                assert_eq!(client.read(&output).0, part);
            }
        }
    }
}

/// A connection that closes goes on with its window for what it still has to say (7.1.1).
#[test]
fn s7_1_1_the_window_outlives_the_closing_of_the_peer() {
    let parameters = agreed(&RULES, DEFLATE);
    let (mut client, mut server) = (Client::new(parameters), Connection::with_deflate(parameters));
    let (mut deflater, mut output) = (Deflater::new(), Vec::new());
    let said = "the same words ".repeat(20).into_bytes();
    for is_last in [false, true] {
        server.send(Kind::Text, &said, &mut deflater, &mut output).unwrap();
        assert_eq!(client.read(&output), (said.clone(), true));
        output.clear();
        if !is_last {
            let events = hear(&mut server, &Limits::default(), &mut output, [&frame(FIN | CLOSE, b"")[..]]);
            assert!(matches!(events[..], [Event::CloseRequested(_)]));
        }
    }
}
