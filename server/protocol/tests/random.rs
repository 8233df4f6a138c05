//! Random traffic, the same in every run: tungstenite's server has to hear what ours hears, and cuts must not matter.

mod support;

use std::collections::BTreeMap;

use flate2::{Compress, Compression, FlushCompress};
use support::by_tungstenite::{self, End};
use support::inflate::StrictInflater;
use support::traffic::{Compressor, messages, traffic};
use support::*;
use wshd_protocol::{Connection, DeflateRules, Event, Kind, Limits, Message, ProtocolError};

fn heard_by_us<'p>(
    limits: &Limits,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<Event<'static>>, Vec<u8>) {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    let events = hear(&mut connection, limits, &mut output, pieces);
    (events, output)
}

/// Two servers that were written apart hear the same messages, and fail at the same frame with the same code (5 to 8).
/// `cargo xtask soak differential` holds more of these conversations, and others with one that compresses.
#[test]
fn tungstenite_hears_what_we_hear() {
    let mut ends: BTreeMap<End, u32> = BTreeMap::new();
    for number in 0..20_000 {
        let end = by_tungstenite::compare(6455, number).unwrap_or_else(|difference| panic!("{difference}"));
        *ends.entry(end).or_default() += 1;
    }
    for end in [End::Failed(1002), End::Failed(1007), End::Failed(1009), End::Closed, End::Open] {
        assert!(ends.get(&end).is_some_and(|count| *count > 500), "{end:?} of {ends:?}");
    }
}

/// Whatever arrives, right or wrong, is heard in the same way however reads cut it.
#[test]
fn cuts_do_not_matter() {
    let mut dice = Dice::new(1);
    let limits = Limits { message_bytes_max: 400, empty_fragments_max: 3 };
    let mut failures = 0;
    for round in 0..20_000 {
        let mut bytes = traffic(&mut dice, limits.message_bytes_max);
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

/// Compressed messages, right or wrong, are heard in the same way however reads cut them (RFC 7692 section 6).
#[test]
fn cuts_do_not_matter_to_compressed_messages() {
    let mut dice = Dice::new(7692);
    let limits = Limits { message_bytes_max: 200, empty_fragments_max: 3 };
    let (mut failures, mut events) = (0, 0);
    for round in 0..5_000 {
        let compressor = Compressor::new(&mut dice, deflating().deflate().unwrap());
        let mut bytes = messages(&mut dice, Some(compressor), limits.message_bytes_max);
        bytes.extend(frame(FIN | PING, b""));
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
        events += whole.0.len();
    }
    assert!((1000..4500).contains(&failures) && events > 10_000, "{failures}, {events}");
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
