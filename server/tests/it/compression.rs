//! permessage-deflate (RFC 7692) through the whole server. The clients that compress by themselves are in `tests/clients`; here are the
//! conversations that need a hand on each frame.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use wshd::config::{HandlerRules, SlowPeer};
use wshd::control::Request;

use crate::support::{Raw, ServerProcess, TestServer, handler_library, masked, upgrade_head};

/// A client that compresses, with the window of 4 KiB that the server asks for.
struct Deflating {
    raw: Raw,
    compress: Compress,
    decompress: Decompress,
}

impl Deflating {
    fn open(server: &TestServer, path: &str) -> Self {
        Self::over(server.raw(), path)
    }

    fn over(mut raw: Raw, path: &str) -> Self {
        let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
        raw.write(upgrade_head(path).replacen("\r\n\r\n", &format!("\r\n{offer}"), 1).as_bytes());
        let head = raw.read_head().to_ascii_lowercase();
        let agreed = "sec-websocket-extensions: permessage-deflate; client_max_window_bits=12\r\n";
        assert!(head.starts_with("http/1.1 101 ") && head.contains(agreed), "{head}");
        Self { raw, compress: Compress::new(Compression::fast(), false), decompress: Decompress::new(false) }
    }

    /// The payload of a compressed message. The window of this compressor is 32 KiB, so nothing may lie 4 KiB back.
    fn deflated(&mut self, payload: &[u8]) -> Vec<u8> {
        assert!(self.compress.total_in() as usize + payload.len() <= 4096 || payload.len() > 4096);
        let mut bytes = Vec::with_capacity(payload.len() + 100);
        self.compress.compress_vec(payload, &mut bytes, FlushCompress::Sync).expect("it compresses");
        assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]));
        bytes.truncate(bytes.len() - 4);
        bytes
    }

    fn send(&mut self, text: &str) {
        let bytes = self.deflated(text.as_bytes());
        self.raw.write(&masked(0xc1, &bytes));
    }

    /// The next data frame: whether it was compressed, and its text.
    fn next(&mut self) -> (bool, Vec<u8>) {
        let head = self.raw.read_exactly(2);
        let length = match head[1] {
            126 => u16::from_be_bytes(self.raw.read_exactly(2).try_into().expect("two bytes")).into(),
            127 => u64::from_be_bytes(self.raw.read_exactly(8).try_into().expect("eight bytes")) as usize,
            short => usize::from(short),
        };
        let mut payload = self.raw.read_exactly(length);
        assert!(matches!(head[0] & 0x8f, 0x81 | 0x82), "{head:?} {payload:?}");
        if head[0] & 0x40 == 0 {
            return (false, payload);
        }
        payload.extend_from_slice(&[0, 0, 0xff, 0xff]);
        let mut plain = Vec::with_capacity(1 << 20);
        self.decompress.decompress_vec(&payload, &mut plain, FlushDecompress::Sync).expect("it inflates");
        (true, plain)
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.next().1).expect("a text")
    }
}

fn server(handlers: &[&str]) -> TestServer {
    TestServer::with(handlers, |config| config.deflate.is_on = true)
}

fn sentence(number: u32) -> String {
    format!(
        "sentence {number} of many: the same words in the same order, the same words in the same order, and a number"
    )
}

#[test]
fn messages_are_compressed_both_ways_and_refer_to_those_before_them() {
    let server = server(&["echo"]);
    let mut client = Deflating::open(&server, "/echo");
    for number in 0..20 {
        client.send(&sentence(number));
        let (is_compressed, text) = client.next();
        assert!(is_compressed);
        assert_eq!(text, sentence(number).as_bytes());
    }
    // Too short to be compressed, and not compressed by the client either.
    client.raw.write(&masked(0x81, b"short"));
    assert_eq!(client.next(), (false, b"short".to_vec()));
}

/// The windows move with the session: what the new code sends refers to what the old one sent.
#[test]
fn a_session_that_moves_keeps_its_windows() {
    let server = server(&["echo"]);
    let mut client = Deflating::open(&server, "/echo");
    client.send(&sentence(1));
    assert_eq!(client.text(), sentence(1));
    server.put_version(&handler_library("echo"), 1);
    server.ask(Request::Reload(Some("echo".into())));
    server.wait_for("the session has moved", |status| {
        status.handlers[0].active.as_ref().is_some_and(|active| active.number == 2 && active.sessions == 1)
    });
    client.send(&sentence(2));
    assert_eq!(client.next(), (true, sentence(2).into_bytes()));
}

#[test]
fn what_is_published_reaches_who_compresses_and_who_does_not() {
    let server = server(&["chat"]);
    let mut ann = Deflating::open(&server, "/chat?name=Ann");
    assert_eq!(ann.text(), "* Ann joined");
    let mut bob = server.connect("/chat?name=Bob");
    assert_eq!((ann.text(), bob.text()), ("* Bob joined".into(), "* Bob joined".into()));
    for number in 0..30 {
        bob.send_text(&sentence(number));
        let line = format!("Bob: {}", sentence(number));
        assert_eq!(bob.text(), line);
        assert_eq!(ann.next(), (true, line.into_bytes()));
        // Between those that are shared, one that refers to what came before.
        ann.raw.write(&masked(0x81, sentence(number).as_bytes()));
        let line = format!("Ann: {}", sentence(number));
        assert_eq!((ann.text(), bob.text()), (line.clone(), line));
    }
}

#[test]
fn who_reads_late_inflates_everything_in_order_or_whole_messages_of_it() {
    for slow_peer in [SlowPeer::DropOldest, SlowPeer::DropNewest] {
        let server = TestServer::with(&["misbehaving"], |config| {
            config.deflate.is_on = true;
            config.limits.slow_peer = slow_peer;
        });
        let mut client = Deflating::open(&server, "/misbehaving");
        // Every second one can be compressed.
        client.raw.write(&masked(0x81, b"numbers 4000 20000"));
        let dropped = || server.status().handlers[0].active.as_ref().map_or(0, |active| active.dropped);
        server.wait_for("messages were dropped", |_| dropped() > 0);
        client.raw.write(&masked(0x81, b"say done"));
        let mut numbers = Vec::new();
        loop {
            let (_, payload) = client.next();
            if payload == b"done" {
                break;
            }
            assert_eq!(payload.len(), 20_000);
            numbers.push(u32::from_be_bytes(payload[..4].try_into().expect("four bytes")));
        }
        assert!(numbers.is_sorted());
        assert_eq!(numbers.len() as u64 + dropped(), 4000, "{slow_peer}");
    }
}

/// A megabyte of compressed nothing is a gigabyte: it ends at the limit.
#[test]
fn a_bomb_ends_at_the_limit_with_1009() {
    let server = server(&["echo"]);
    let mut client = Deflating::open(&server, "/echo");
    let bytes = client.deflated(&vec![0; 1 << 30]);
    assert!(bytes.len() < 6 << 20);
    client.raw.try_write(&masked(0xc2, &bytes[..1_000_000]), std::time::Duration::from_secs(30));
    assert_eq!(client.raw.close_code(), 1009);
    server.assert_serves("/echo");
}

/// Bombs of every size that the server reads to its end: from one that is just too long to one of the longest payload that it takes.
/// The process never grows by more than twice the limit.
#[test]
fn a_bomb_costs_at_most_twice_the_limit() {
    const LIMIT: usize = 16 << 20;
    let config = format!("[deflate]\nenabled = true\n[limits]\nmessage_bytes_max = {LIMIT}\n");
    let server = ServerProcess::start(&["echo"], &config);
    let open = || Deflating::over(Raw::connect(server.address()), "/echo");
    let mut client = open();
    client.send(&sentence(1));
    assert_eq!(client.text(), sentence(1));
    // A part that refers to nothing before it can stand behind itself.
    let mut part = Vec::with_capacity(10_000);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(&vec![0; 2 << 20], &mut part, FlushCompress::Sync).expect("it compresses");
    let before = server.resident_kib();
    for len in [9 * part.len(), LIMIT / 4, LIMIT / 2, LIMIT, LIMIT + LIMIT / 8] {
        let bomb = part.repeat(len / part.len());
        let mut client = open();
        client.raw.write(&masked(0xc2, &bomb));
        assert_eq!(client.raw.close_code(), 1009);
        let grown = server.peak_kib().saturating_sub(before) as usize * 1024;
        assert!(grown <= 2 * LIMIT, "{} bytes of bomb: {grown} bytes more", bomb.len());
    }
}

#[test]
fn damaged_data_gets_1007_and_a_bit_that_was_not_agreed_1002() {
    let server = server(&["echo"]);
    let mut client = Deflating::open(&server, "/echo");
    client.raw.write(&masked(0xc1, &[0xff; 20]));
    assert_eq!(client.raw.close_code(), 1007);
    let mut raw = Raw::upgraded(server.address(), "/echo");
    raw.write(&masked(0xc1, b"\xf2H\xcd\xc9\xc9\x07\x00"));
    assert_eq!(raw.close_code(), 1002);
}

#[test]
fn it_is_off_unless_it_is_turned_on_for_all_or_for_one_handler() {
    let offers = |server: &TestServer| {
        let head = upgrade_head("/echo");
        let head = head.replacen("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1);
        let mut raw = server.raw();
        raw.write(head.as_bytes());
        raw.read_head().to_ascii_lowercase().contains("permessage-deflate")
    };
    let server = TestServer::start(&["echo"]);
    assert!(!offers(&server));
    server.reload_with(|config| {
        config
            .handlers
            .each
            .insert("echo".into(), HandlerRules { deflate: Some(true), ..HandlerRules::default() });
    });
    assert!(offers(&server));
    server.reload_with(|config| config.deflate.is_on = true);
    assert!(offers(&server));
    server.reload_with(|config| {
        config
            .handlers
            .each
            .insert("echo".into(), HandlerRules { deflate: Some(false), ..HandlerRules::default() });
    });
    assert!(!offers(&server));
}
