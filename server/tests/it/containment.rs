//! A panic anywhere in a handler hurts its own session and no other, and the log says where it was.
//!
//! `cargo xtask soak panics` does it ten thousand times, also while handlers are replaced, and watches the memory.

use std::net::SocketAddr;

use crate::support::{Client, Raw, ServerProcess, masked};

/// What the peer does to reach the callback, and the code that it is closed with.
type Way = (&'static str, fn(SocketAddr, &str) -> u16);

const WAYS: [Way; 11] = [
    ("on_upgrade", |address, path| Client::open(address, path, &[]).err().expect("it is refused").0),
    ("on_open", |address, path| Raw::upgraded(address, path).close_code()),
    ("on_message", |address, path| {
        let mut raw = Raw::upgraded(address, path);
        raw.write(&masked(0x81, path.rsplit('=').next().unwrap().as_bytes()));
        raw.close_code()
    }),
    ("on_pong", |address, path| answer(address, path, &masked(0x8a, b""))),
    ("on_wake", |address, path| answer(address, path, &masked(0x81, b"wake"))),
    ("on_writable", |address, path| {
        let ask = |client: &mut Client| {
            client.send_text("status");
            client.text()
        };
        let mut client = Client::open(address, path, &[]).expect("accepted");
        ask(&mut client);
        client.send_text("fill");
        // Read from is only what is slow already. The handler has one worker, which has filled it before it answers twice.
        let mut other = Client::open(address, "/misbehaving", &[]).expect("accepted");
        ask(&mut other);
        ask(&mut other);
        client.closed().0
    }),
    ("on_timer", |address, path| answer(address, path, &masked(0x81, b"timer"))),
    ("on_closing", |address, path| answer(address, path, &masked(0x88, &1000_u16.to_be_bytes()))),
    // Its own peer broke the protocol, and is told so.
    ("on_error", |address, path| answer(address, path, &[0x81, 0])),
    ("on_close", |address, path| answer(address, path, &masked(0x88, &1000_u16.to_be_bytes()))),
    ("drop", |address, path| answer(address, path, &masked(0x88, &1000_u16.to_be_bytes()))),
];

fn answer(address: SocketAddr, path: &str, bytes: &[u8]) -> u16 {
    let mut raw = Raw::upgraded(address, path);
    raw.write(bytes);
    raw.close_code()
}

fn expected(callback: &str) -> u16 {
    match callback {
        "on_upgrade" => 500,
        "on_error" => 1002,
        // The session was over already.
        "on_close" | "drop" => 1000,
        _ => 1011,
    }
}

#[test]
fn a_panic_anywhere_ends_its_own_session_and_the_log_says_where() {
    let config = "[log]\nlevel = \"error\"\n[handlers]\nworkers = 1\n";
    let server = ServerProcess::start(&["misbehaving", "echo"], config);
    let address = server.address();
    let mut bystander = Client::open(address, "/misbehaving", &[]).expect("accepted");
    let mut other = Client::open(address, "/echo", &[]).expect("accepted");
    let mut live = || {
        bystander.send_text("status");
        assert_eq!(bystander.text(), "Accepted");
        other.send_text("still here");
        assert_eq!(other.text(), "still here");
    };
    for payload in ["panic", "panic-any"] {
        for (callback, reach) in WAYS {
            let code = reach(address, &format!("/misbehaving?{callback}={payload}"));
            assert_eq!(code, expected(callback), "{callback} {payload}");
            live();
        }
        // A panic in a thread that the handler started ends nobody's session.
        let mut client = Client::open(address, "/misbehaving", &[]).expect("accepted");
        client.send_text(&format!("thread {payload}"));
        assert_eq!(client.text(), "the thread panicked");
        client.close();
        live();
    }
    server.signal("TERM");
    let (_, log, status) = server.wait();
    assert!(status.success(), "{status}: {log}");
    let lines: Vec<_> = log.lines().collect();
    for (callback, _) in WAYS {
        let words = format!("the panic was in {callback}");
        let named: Vec<_> = lines.iter().filter(|line| line.contains(&words)).collect();
        assert_eq!(named.len(), 2, "{words}: {log}");
        assert!(named.iter().all(|line| is_marked(line)), "{named:?}");
    }
    let places: Vec<_> = lines.iter().filter(|line| line.contains("panicked at ")).collect();
    assert_eq!(places.len(), 2 * WAYS.len() + 2, "{log}");
    assert!(
        places.iter().all(|line| line.contains("misbehaving_wsh/src/lib.rs:") && is_marked(line)),
        "{log}"
    );
    let of = |payload: &str| places.iter().filter(|line| line.contains(payload)).count();
    let each = WAYS.len() + 1;
    assert_eq!((of("asked to panic"), of("a payload that is not text")), (each, each), "{log}");
}

/// Handler and generation are named.
fn is_marked(line: &str) -> bool {
    line.contains("handler=\"misbehaving\"") && line.contains("generation=1")
}
