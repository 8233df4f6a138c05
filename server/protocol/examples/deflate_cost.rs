//! What permessage-deflate costs: `cargo run --release -p wshd-protocol --example deflate_cost`.
//!
//! Prints for messages like JSON of about 1 KiB, each different, the best of many rounds: ns to send one, and the bytes on the wire
//! against those of the message, where two connections take turns with one stream and where one sends all; ns to send a frame that
//! was compressed alone before; ns to receive one, with its mask and header; and what a connection keeps in both directions. The
//! client is the same on every line: zlib-rs at level 6 with a stream of its own.

use std::hint::black_box;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Version};
use wshd_protocol::handshake::Offer;
use wshd_protocol::{Connection, DeflateParameters, DeflateRules, Deflater, Event, Inflater, Kind, Limits};
use zlib_rs::{Deflate, DeflateFlush};

#[path = "support/json.rs"]
mod json;

const ROUNDS: usize = 60;
const MESSAGES: usize = 200;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn main() {
    println!(
        "{:>20} {:>6} {:>8} {:>6} {:>8} {:>6} {:>8} {:>8} {:>11}",
        "", "level", "in turns", "ratio", "in a row", "ratio", "alone", "receive", "bytes kept"
    );
    let rules = DeflateRules { is_on: true, ..DeflateRules::default() };
    measure("plain", &rules, None);
    for level in [1, 2, 6] {
        let rules = DeflateRules { level, ..rules };
        let alone = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        measure("no takeover", &rules, Some(alone));
        for bytes in [1024, 2048, 4096, 8192, 32 * 1024] {
            let rules = DeflateRules {
                server_history_bytes_max: bytes,
                client_window_bits_max: bytes.ilog2() as u8,
                ..rules
            };
            let offer = "permessage-deflate; client_max_window_bits";
            measure(&format!("takeover, {} KiB", bytes / 1024), &rules, Some(offer));
        }
    }
}

fn agreed(rules: &DeflateRules, offer: &'static str) -> DeflateParameters {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "server.example.com"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-extensions", offer),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let offer = Offer::parse(&Method::GET, Version::HTTP_11, &headers).expect("a right request");
    rules.agree(offer.extensions()).expect("a right offer").parameters()
}

fn measure(name: &str, rules: &DeflateRules, offer: Option<&'static str>) {
    let parameters = offer.map(|offer| agreed(rules, offer));
    let connection = || parameters.map_or_else(Connection::new, Connection::with_deflate);
    let messages = json::texts(MESSAGES);
    let plain_bytes: usize = messages.iter().map(Vec::len).sum();
    let (mut deflater, mut inflater, limits) = (Deflater::new(), Inflater::new(), Limits::default());
    let (mut best_turns, mut best_row) = (f64::MAX, f64::MAX);
    let (mut best_receive, mut best_alone) = (f64::MAX, f64::MAX);
    let (mut turns_bytes, mut row_bytes, mut kept) = (0, 0, 0);
    let incoming = incoming(&messages, parameters);
    for _ in 0..ROUNDS {
        let (mut server, mut other) = (connection(), connection());
        let mut output = Vec::with_capacity(3 * plain_bytes);
        let start = Instant::now();
        for message in &messages {
            server.send(Kind::Text, message, &mut deflater, &mut output).expect("nothing was closed");
            other.send(Kind::Text, message, &mut deflater, &mut output).expect("nothing was closed");
        }
        best_turns = best_turns.min(start.elapsed().as_nanos() as f64 / 2.0);
        turns_bytes = output.len() / 2;

        let mut server = connection();
        output.clear();
        let start = Instant::now();
        for message in &messages {
            server.send(Kind::Text, message, &mut deflater, &mut output).expect("nothing was closed");
        }
        best_row = best_row.min(start.elapsed().as_nanos() as f64);
        row_bytes = output.len();

        let mut bytes = incoming.clone();
        let mut input = black_box(&mut bytes[..]);
        let start = Instant::now();
        let mut heard = 0;
        while let Some(event) = server.receive(&mut input, &limits, &mut inflater, &mut output) {
            let Event::Message(message) = event else { panic!("{event:?}") };
            black_box(&*message.payload);
            heard += 1;
        }
        best_receive = best_receive.min(start.elapsed().as_nanos() as f64);
        assert_eq!(heard, MESSAGES);
        kept = server.window_bytes();

        let Some(group) = server.deflate_group() else { continue };
        let frames: Vec<Vec<u8>> = messages
            .iter()
            .map(|message| {
                let mut frame = Vec::new();
                deflater.compress_alone(group, Kind::Text, message, &mut frame);
                frame
            })
            .collect();
        output.clear();
        let start = Instant::now();
        for (frame, message) in frames.iter().zip(&messages) {
            server.send_alone(frame, message, &mut output).expect("nothing was closed");
        }
        best_alone = best_alone.min(start.elapsed().as_nanos() as f64);
    }
    let each = |nanoseconds: f64| nanoseconds / MESSAGES as f64;
    let ratio = |bytes: usize| bytes as f64 / plain_bytes as f64;
    println!(
        "{name:>20} {:>6} {:>8.0} {:>6.3} {:>8.0} {:>6.3} {:>8.0} {:>8.0} {kept:>11}",
        if parameters.is_some() { rules.level } else { 0 },
        each(best_turns),
        ratio(turns_bytes),
        each(best_row),
        ratio(row_bytes),
        if parameters.is_some() { each(best_alone) } else { 0.0 },
        each(best_receive),
    );
}

/// What a client sends that keeps to the parameters.
fn incoming(messages: &[Vec<u8>], parameters: Option<DeflateParameters>) -> Vec<u8> {
    let mut deflate = parameters.map(|parameters| Deflate::new(6, false, parameters.client_window_bits()));
    let mut bytes = Vec::new();
    for message in messages {
        let Some(deflate) = &mut deflate else {
            append(&mut bytes, 0x81, message);
            continue;
        };
        if parameters.is_some_and(|parameters| parameters.client_no_context_takeover()) {
            deflate.reset();
        }
        let (mut payload, before) = (vec![0; 2 * message.len() + 64], deflate.total_out());
        deflate.compress(message, &mut payload, DeflateFlush::SyncFlush).expect("there is room");
        payload.truncate((deflate.total_out() - before) as usize - 4);
        append(&mut bytes, 0xc1, &payload);
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
    bytes.push(first);
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0xfe);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
