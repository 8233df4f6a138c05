//! What a message costs: `cargo run --release -p wshd-protocol --example cost`.
//!
//! Prints the best of many rounds in ns per message, for a worker's buffer full of messages: header, limit and unmasking (and
//! the UTF-8 check for text), then the same with an echo appended to the output. `split` is a message that arrives in two reads.

use std::hint::black_box;
use std::time::Instant;

use wshd_protocol::{Connection, Deflater, Event, Inflater, Kind, Limits, Message};

const ROUNDS: usize = 400;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn main() {
    println!("{:>8} {:>10} {:>10} {:>10} {:>10}", "bytes", "binary", "text", "echo", "split");
    for payload_len in [20, 125, 1024, 16 * 1024, 256 * 1024] {
        let binary = measure(Kind::Binary, payload_len, |_, message, _| look(message));
        let text = measure(Kind::Text, payload_len, |_, message, _| look(message));
        let echo = measure(Kind::Binary, payload_len, |connection, message, output| {
            connection
                .send(message.kind, &message.payload, &mut Deflater::new(), output)
                .expect("nothing was closed");
        });
        let split = measure_split(payload_len);
        println!("{payload_len:>8} {binary:>10.1} {text:>10.1} {echo:>10.1} {split:>10.1}");
    }
}

fn frame(kind: Kind, payload_len: usize) -> Vec<u8> {
    let mut bytes = vec![if kind == Kind::Text { 0x81 } else { 0x82 }];
    match payload_len {
        0..=125 => bytes.push(0x80 | payload_len as u8),
        126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend((payload_len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend((payload_len as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend((0..payload_len).map(|index| b'a' ^ MASK[index % 4]));
    bytes
}

/// Stands for the handler: it gets kind and bytes, as across the C ABI.
fn look(message: Message<'_>) {
    black_box((message.kind, &*message.payload));
}

/// Nanoseconds per message of a buffer that holds as many as fit into 64 KiB.
fn measure(
    kind: Kind,
    payload_len: usize,
    handle: impl Fn(&mut Connection, Message<'_>, &mut Vec<u8>),
) -> f64 {
    let one = frame(kind, payload_len);
    let count = (64 * 1024 / one.len()).max(1);
    let bytes = one.repeat(count);
    let mut buffer = bytes.clone();
    let (mut connection, limits, mut inflater) = (Connection::new(), Limits::default(), Inflater::new());
    let mut output = Vec::new();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        // Unmasking is its own inverse, but the next read must look like the first.
        buffer.copy_from_slice(&bytes);
        output.clear();
        let mut input = black_box(&mut buffer[..]);
        let start = Instant::now();
        let mut heard = 0;
        while let Some(event) = connection.receive(&mut input, &limits, &mut inflater, &mut output) {
            let Event::Message(message) = event else { panic!("{event:?}") };
            handle(&mut connection, message, &mut output);
            heard += 1;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
        assert_eq!(heard, count);
        black_box(&output);
    }
    best
}

/// Nanoseconds for a text whose second half comes with the next read.
fn measure_split(payload_len: usize) -> f64 {
    let bytes = frame(Kind::Text, payload_len);
    let mut buffer = bytes.clone();
    let (mut connection, limits, mut inflater) = (Connection::new(), Limits::default(), Inflater::new());
    let mut output = Vec::new();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        buffer.copy_from_slice(&bytes);
        let (mut first, mut second) = buffer.split_at_mut(bytes.len() / 2);
        let start = Instant::now();
        assert!(connection.receive(black_box(&mut first), &limits, &mut inflater, &mut output).is_none());
        let event = connection.receive(black_box(&mut second), &limits, &mut inflater, &mut output);
        best = best.min(start.elapsed().as_nanos() as f64);
        assert!(matches!(event, Some(Event::Message(_))));
    }
    best
}
