//! Every bound of `[limits]` is reached once.

use std::time::Duration;

use crate::support::{Client, Raw, TestServer, masked};

fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_message_above_the_limit_is_refused_however_it_is_cut() {
    let server = TestServer::with(&["echo"], |config| config.limits.message_bytes_max = 1000);
    let mut client = server.connect("/echo");
    client.send_binary(&[1; 1000]);
    assert_eq!(client.binary().len(), 1000);

    let mut whole = Raw::upgraded(server.address(), "/echo");
    whole.write(&masked(0x82, &[1; 1001]));
    assert_eq!(whole.close_code(), 1009);

    let mut fragmented = Raw::upgraded(server.address(), "/echo");
    fragmented.write(&masked(0x02, &[1; 600]));
    fragmented.write(&masked(0x80, &[1; 401]));
    assert_eq!(fragmented.close_code(), 1009);

    // Only the header is sent: the server does not wait for, nor make room for, what it would refuse.
    let mut declared = Raw::upgraded(server.address(), "/echo");
    declared.write(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(declared.close_code(), 1009);
}

#[test]
fn a_message_of_empty_fragments_is_ended() {
    let server = TestServer::with(&["echo"], |config| config.limits.empty_fragments_max = 10);
    let mut raw = Raw::upgraded(server.address(), "/echo");
    raw.write(&masked(0x01, b"a"));
    for _ in 0..11 {
        raw.write(&masked(0x00, b""));
    }
    assert_eq!(raw.close_code(), 1008);
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    let server = TestServer::with(&["echo"], |config| config.limits.handshake_seconds_max = second(1));
    let mut slow = server.raw();
    slow.write(b"GET /echo HTTP/1.1\r\nHost: a\r\n");
    let mut silent = server.raw();
    slow.read_until_gone();
    silent.read_until_gone();
    server.assert_serves("/echo");
}

#[test]
fn a_head_that_is_too_large_gets_431() {
    let server = TestServer::start(&["echo"]);
    let lines: String = (0..200).map(|index| format!("X-{index}: y\r\n")).collect();
    let (status, _) = server.request(&format!("GET /echo HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    assert_eq!(status, 431);
    let long = "y".repeat(20_000);
    let (status, _) = server.request(&format!("GET /echo HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"));
    assert_eq!(status, 431);
}

#[test]
fn one_address_gets_its_share_and_not_more() {
    let server = TestServer::with(&["echo"], |config| config.limits.connections_per_peer_max = 2);
    let mut first = server.connect("/echo");
    let _second = server.connect("/echo");
    let mut third = server.raw();
    let answer = String::from_utf8_lossy(&third.read_until_gone()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    first.close();
    // The place is free when the worker has let go of the socket, which the client cannot see: ask until it is.
    let began = std::time::Instant::now();
    while began.elapsed() < second(30) {
        let mut raw = server.raw();
        let head = crate::support::upgrade_head("/echo");
        if raw.try_write(head.as_bytes(), second(5)) && raw.read_exactly(12) == b"HTTP/1.1 101" {
            return;
        }
    }
    panic!("the place never became free");
}

#[test]
fn a_full_server_lets_the_next_peer_wait_for_a_place() {
    let server = TestServer::with(&["echo"], |config| config.limits.connections_max = 1);
    let mut first = server.connect("/echo");
    let mut waiting = server.raw();
    waiting.write(crate::support::upgrade_head("/echo").as_bytes());
    first.send_text("the server is not stuck");
    assert_eq!(first.text(), "the server is not stuck");
    first.close();
    drop(first);
    assert!(waiting.read_head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up() {
    let server = TestServer::with(&["echo"], |config| {
        config.limits.ping_seconds = second(1);
        config.limits.pong_seconds_max = second(1);
    });
    let mut raw = Raw::upgraded(server.address(), "/echo");
    assert_eq!(raw.read_exactly(2), b"\x89\x00", "a ping");
    assert_eq!(raw.close_code(), 1008);
    raw.read_to_end();
}

#[test]
fn a_peer_that_answers_pings_stays() {
    let server = TestServer::with(&["echo"], |config| {
        config.limits.ping_seconds = second(1);
        config.limits.pong_seconds_max = second(1);
        config.limits.idle_seconds_max = second(2);
    });
    let mut raw = Raw::upgraded(server.address(), "/echo");
    for _ in 0..4 {
        assert_eq!(raw.read_exactly(2), b"\x89\x00", "a ping");
        raw.write(&masked(0x8a, b""));
    }
    raw.write(&masked(0x81, b"hi"));
    assert_eq!(raw.read_exactly(4), b"\x81\x02hi");
}

#[test]
fn without_pings_an_idle_peer_is_closed() {
    let server = TestServer::with(&["echo"], |config| {
        config.limits.ping_seconds = Duration::ZERO;
        config.limits.idle_seconds_max = second(1);
    });
    let mut raw = Raw::upgraded(server.address(), "/echo");
    assert_eq!(raw.close_code(), 1008);
}

#[test]
fn a_message_that_dribbles_is_ended() {
    let server = TestServer::with(&["echo"], |config| {
        config.limits.message_seconds_max = second(1);
        config.limits.message_bytes_per_second_min = 1000;
    });
    let mut raw = Raw::upgraded(server.address(), "/echo");
    let message = masked(0x82, &[1; 10_000]);
    raw.write(&message[..20]);
    assert_eq!(raw.close_code(), 1008);
}

#[test]
fn a_peer_that_does_not_answer_close_loses_its_connection() {
    let server = TestServer::with(&["echo"], |config| config.limits.close_seconds_max = second(1));
    let mut raw = Raw::upgraded(server.address(), "/echo");
    raw.write(&masked(0x81, b"Goodbye"));
    assert_eq!(raw.close_code(), 1000);
    raw.read_until_gone();
}

#[test]
fn a_handler_that_does_not_decide_is_not_waited_for() {
    let server = TestServer::with(&["misbehaving", "echo"], |config| {
        config.limits.handshake_seconds_max = second(1);
        config.handlers.workers = 1;
    });
    let (status, body) =
        Client::open(server.address(), "/misbehaving?on_upgrade=block:3000", &[]).err().expect("refused");
    assert_eq!(status, 503);
    assert!(body.contains("did not decide"), "{body}");
    server.assert_serves("/echo");
}
