//! Peers that do not read.

use std::time::Duration;

use crate::support::{Client, Raw, ServerProcess, TestServer, masked};

/// A client may send more than it reads for a while: its replies wait, its input waits in its own socket, and nothing is lost.
#[test]
fn a_peer_that_reads_late_gets_everything_in_order() {
    let server = TestServer::start(&["echo"]);
    let mut raw = Raw::upgraded(server.address(), "/echo");
    let mut sent = 0_u32;
    // Until the kernel takes no more: then replies fill the server's side too, and it has stopped reading.
    loop {
        let mut message = sent.to_be_bytes().to_vec();
        message.resize(50_000, 7);
        sent += 1;
        if !raw.try_write(&masked(0x82, &message), Duration::from_millis(500)) || sent == 2000 {
            break;
        }
    }
    // The last message was cut by the timeout; all before it come back, in their order.
    for expected in 0..sent - 1 {
        let head = raw.read_exactly(4);
        assert_eq!(head, [0x82, 126, 0xc3, 0x50]);
        let payload = raw.read_exactly(50_000);
        assert_eq!(payload[..4], expected.to_be_bytes(), "in order");
    }
    server.assert_serves("/echo");
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let server =
        TestServer::with(&["echo"], |config| config.limits.write_seconds_max = Duration::from_secs(1));
    let mut raw = Raw::upgraded(server.address(), "/echo");
    let message = masked(0x82, &[1; 60_000]);
    while raw.try_write(&message, Duration::from_millis(500)) {}
    // The server has stopped reading; a second later it drops the connection, and writing fails for good.
    let began = std::time::Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(30), "the server still holds the connection");
        if raw.is_reset() {
            break;
        }
        raw.try_write(b"\0", Duration::from_millis(200));
    }
    server.assert_serves("/echo");
}

/// A flood of pings from a peer that reads nothing makes the server hold no more than its bounds.
#[test]
fn a_ping_flood_without_reading_does_not_fill_the_server() {
    let server = ServerProcess::start(&["echo"], "[limits]\nwrite_seconds_max = 1\n");
    drop(Raw::upgraded(server.address(), "/echo"));
    let before = server.resident_kib();
    let mut raw = Raw::upgraded(server.address(), "/echo");
    let pings: Vec<u8> = (0..1000).flat_map(|_| masked(0x89, &[1; 125])).collect();
    let mut written = 0_u64;
    while written < 400_000_000 && raw.try_write(&pings, Duration::from_millis(500)) {
        written += pings.len() as u64;
    }
    assert!(written < 400_000_000, "the server stops reading");
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB for one client");
    let mut client = Client::open(server.address(), "/echo", &[]).expect("it serves the others");
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
}

/// A handler that floods a peer which does not read is told to slow down, then refused, and the peer is closed.
#[test]
fn a_flooded_peer_is_closed_with_1013() {
    let server = TestServer::start(&["misbehaving"]);
    let mut raw = Raw::upgraded(server.address(), "/misbehaving");
    raw.write(&masked(0x81, b"flood 20000"));
    assert_eq!(raw.close_code(), 1013);
    server.stop_while(|| {});
}
