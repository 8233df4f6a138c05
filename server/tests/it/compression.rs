//! permessage-deflate (RFC 7692) through the whole server. The clients that compress by themselves are in `tests/clients`; here are the
//! conversations that need a hand on each frame.

use std::path::Path;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use wshd::config::{Config, SlowPeer};
use wshd::control::{Request, Status};
use wshd_protocol::DeflateRules;

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
        Self::after_upgrade(raw)
    }

    fn after_upgrade(raw: Raw) -> Self {
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
    TestServer::with(handlers, |config| config.deflate.rules.is_on = true)
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
            config.deflate.rules.is_on = true;
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
/// The process never grows by more than twice the limit. Each has a process of its own, because the allocator keeps for each thread
/// what an earlier one has given back.
#[test]
fn a_bomb_costs_at_most_twice_the_limit() {
    const LIMIT: usize = 16 << 20;
    let config = format!("[deflate]\nenabled = true\n[limits]\nmessage_bytes_max = {LIMIT}\n");
    // A part that refers to nothing before it can stand behind itself.
    let mut part = Vec::with_capacity(10_000);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(&vec![0; 2 << 20], &mut part, FlushCompress::Sync).expect("it compresses");
    for len in [9 * part.len(), LIMIT / 4, LIMIT / 2, LIMIT, LIMIT + LIMIT / 8] {
        let bomb = part.repeat(len / part.len());
        let server = ServerProcess::start(&["echo"], &config);
        let open = || Deflating::over(Raw::connect(server.address()), "/echo");
        let mut client = open();
        client.send(&sentence(1));
        assert_eq!(client.text(), sentence(1));
        let before = server.resident_kib();
        let mut client = open();
        client.raw.write(&masked(0xc2, &bomb));
        assert_eq!(client.raw.close_code(), 1009);
        let grown = server.peak_kib().saturating_sub(before) as usize * 1024;
        println!("{} bytes of bomb: {:.2} times the limit", bomb.len(), grown as f64 / LIMIT as f64);
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

/// What is agreed to with a peer that offers this; empty if nothing is.
fn answered(raw: &mut Raw, path: &str, offer: &str) -> String {
    let head = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
    raw.write(upgrade_head(path).replacen("\r\n\r\n", &head, 1).as_bytes());
    let head = raw.read_head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let line = head.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
    line.unwrap_or_default().to_owned()
}

/// The sections of a config file that are about compression.
fn of_file(text: &str) -> impl FnOnce(&mut Config) {
    let parsed = Config::parse(text, Path::new("config.toml")).unwrap_or_else(|error| panic!("{error}"));
    move |config| (config.deflate, config.handlers.each) = (parsed.deflate, parsed.handlers.each)
}

#[test]
fn it_is_off_unless_it_is_turned_on_for_all_or_for_one_handler() {
    let offers = |server: &TestServer| !answered(&mut server.raw(), "/echo", "permessage-deflate").is_empty();
    let server = TestServer::start(&["echo"]);
    assert!(!offers(&server));
    server.reload_with(of_file("[handlers.echo]\ndeflate = true\n"));
    assert!(offers(&server));
    server.reload_with(of_file("[deflate]\nenabled = true\n"));
    assert!(offers(&server));
    server.reload_with(of_file("[deflate]\nenabled = true\n[handlers.echo]\ndeflate = false\n"));
    assert!(!offers(&server));
    server.reload_with(of_file("[deflate]\nenabled = true\n[handlers.echo.deflate]\nenabled = false\n"));
    assert!(!offers(&server));
}

/// The same code under two names: what is agreed, how hard the server tries, and what it does not try at all.
#[test]
fn one_handler_is_compressed_in_another_way_than_the_rest() {
    let text = "[deflate]\nenabled = true\n[handlers.other.deflate]\nlevel = 9\nmessage_bytes_min = 200\n\
                client_window_bits_max = 10\nserver_no_context_takeover = true\n";
    let server = TestServer::prepare(of_file(text), |folder| {
        for name in ["echo_wsh.so", "other_wsh.so"] {
            std::fs::copy(handler_library("echo"), folder.join(name)).expect("the handler was built");
        }
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let offer = "permessage-deflate; client_max_window_bits";
    let answer = |path: &str| answered(&mut server.raw(), path, offer);
    assert_eq!(answer("/echo"), "permessage-deflate; client_max_window_bits=12");
    let expected = "permessage-deflate; server_no_context_takeover; client_max_window_bits=10";
    assert_eq!(answer("/other"), expected);
    let long: String = (0..40).map(sentence).collect();
    let short = sentence(1);
    assert!((100..200).contains(&short.len()));
    let echoed = |path: &str, text: &str| {
        let mut raw = server.raw();
        answered(&mut raw, path, offer);
        raw.write(&masked(0x81, text.as_bytes()));
        let head = raw.read_exactly(2);
        let length = match head[1] {
            126 => u16::from_be_bytes(raw.read_exactly(2).try_into().expect("two bytes")).into(),
            short => usize::from(short),
        };
        (head[0] & 0x40 != 0, length)
    };
    let (easy, hard) = (echoed("/echo", &long), echoed("/other", &long));
    assert!(easy.0 && hard.0 && hard.1 < easy.1, "{easy:?} {hard:?}");
    assert!(echoed("/echo", &short).0);
    assert_eq!(echoed("/other", &short), (false, short.len()));
}

/// Those that come when the memory of the handler is used up compress each message by itself, until somebody has gone. A session
/// that moves to new code takes its share along.
#[test]
fn windows_stay_within_the_memory_of_their_handler() {
    // Two sessions with the windows of `Deflating`, and not three.
    let both = 2 * (DeflateRules::default().server_history_bytes_max + 4096);
    let text = format!("[handlers.echo.deflate]\nenabled = true\nmemory_bytes_max = {}\n", both + 100);
    let server = TestServer::with(&["echo"], of_file(&text));
    let offer = "permessage-deflate; client_max_window_bits";
    let reserved = |status: &Status| {
        let compression = status.handlers[0].compression.clone().expect("it is on");
        assert_eq!(compression.reserved_bytes_max, both + 100);
        (compression.reserved_bytes, compression.without_takeover)
    };
    assert_eq!(reserved(&server.status()), (0, 0));
    let mut first = Deflating::open(&server, "/echo");
    let mut second = Deflating::open(&server, "/echo");
    assert_eq!(reserved(&server.status()), (both, 0));
    let mut third = server.raw();
    let without = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(answered(&mut third, "/echo", offer), without);
    assert_eq!(reserved(&server.status()), (both, 1));
    let mut third = Deflating::after_upgrade(third);
    for number in 0..5 {
        for client in [&mut first, &mut second] {
            client.send(&sentence(number));
            assert_eq!(client.next(), (true, sentence(number).into_bytes()));
        }
        third.compress.reset();
        third.decompress.reset(false);
        third.send(&sentence(number));
        assert_eq!(third.next(), (true, sentence(number).into_bytes()));
    }
    server.put_version(&handler_library("echo"), 1);
    server.ask(Request::Reload(Some("echo".into())));
    server.wait_for("the sessions have moved", |status| {
        status.handlers[0].active.as_ref().is_some_and(|active| active.number == 2 && active.sessions == 3)
    });
    assert_eq!(reserved(&server.status()), (both, 1));
    second.send(&sentence(9));
    assert_eq!(second.text(), sentence(9));
    drop(first);
    server.wait_for("a share comes back", |status| reserved(status) == (both / 2, 1));
    Deflating::open(&server, "/echo");
    drop((second, third));
    server.wait_for("all shares come back", |status| reserved(status) == (0, 1));
}
