//! The example handlers, as clients meet them.

use std::time::{Duration, Instant};

use tungstenite::Message;
use wshd::config::{HandlerRules, Origins};

use crate::support::{Client, Raw, TestServer, masked, upgrade_head};

/// One that compresses for who wants it.
fn compressing(handler: &str) -> TestServer {
    TestServer::with(&[handler], |config| config.deflate.rules.is_on = true)
}

fn header<'c>(client: &'c Client, name: &str) -> Vec<&'c str> {
    client.response.headers().get_all(name).iter().map(|value| value.to_str().expect("a text")).collect()
}

#[test]
fn echo_noext_echoes_and_does_not_compress() {
    let server = compressing("echo_noext");
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate")];
    // tungstenite itself offers nothing.
    let mut client = Client::open(server.address(), "/echo_noext", &offer).expect("accepted");
    assert!(header(&client, "Sec-WebSocket-Extensions").is_empty());
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    client.send_binary(&[1, 2, 3]);
    assert_eq!(client.binary(), [1, 2, 3]);
    client.send_text("Goodbye");
    assert_eq!(client.text(), "Goodbye");
    assert_eq!(client.closed().0, 1000);
}

#[test]
fn close_closes_as_it_is_told_and_answers_in_kind() {
    let server = TestServer::start(&["close"]);
    for (order, close) in
        [("1000 all is well", (1000, "all is well")), ("4999", (4999, "")), ("0", (1005, ""))]
    {
        let mut client = server.connect("/close");
        client.send_text(order);
        let (code, reason) = client.closed();
        assert_eq!((code, reason.as_str()), close, "{order}");
        client.wait_for_end();
    }
    for order in ["999 x", "1005 x", "5000 x", "close", ""] {
        let mut client = server.connect("/close");
        client.send_text(order);
        let (code, why) = client.closed();
        assert!(code == 1011 && !why.is_empty(), "{order:?}: {code} {why}");
    }
    assert_eq!(server.connect("/close").close_with(3001, "mine"), (3001, "mine".into()));
    let mut empty = Raw::upgraded(server.address(), "/close");
    empty.write(&masked(0x88, b""));
    assert_eq!(empty.read_to_end(), [0x88, 0], "an empty Close for an empty Close");
}

#[test]
fn cookie_sets_and_clears_cookies() {
    let server = TestServer::start(&["cookie"]);
    for (query, cookies) in [
        ("set", &["foo=bar; Max-Age=86400"][..]),
        ("set_httponly", &["httpOnlyFoo=bar; Max-Age=86400; httpOnly"]),
        ("clear", &["foo=0; Max-Age=0", "httpOnlyFoo=0; Max-Age=0"]),
        ("", &[]),
    ] {
        let mut client = server.connect(&format!("/cookie?{query}"));
        assert_eq!(header(&client, "Set-Cookie"), cookies, "{query}");
        assert_eq!(client.closed().0, 1000);
    }
}

#[test]
fn hsts_says_hello_behind_its_header() {
    let server = TestServer::start(&["hsts"]);
    let mut client = server.connect("/hsts");
    assert_eq!(header(&client, "Strict-Transport-Security"), ["max-age=86400"]);
    assert_eq!(client.text(), "Hello");
    assert_eq!(client.closed().0, 1000);
}

/// A handler may decide by itself where the config leaves it to it, and to no other.
#[test]
fn origin_check_takes_one_origin_where_the_config_lets_it_decide() {
    let server = TestServer::with(&["origin_check", "close"], |config| {
        let rules = HandlerRules { origins: Some(Origins::Any), ..HandlerRules::default() };
        config.handlers.each.insert("origin_check".into(), rules);
    });
    let ask = |path, origin| Client::open(server.address(), path, &[("Origin", origin)]);
    let mut client = ask("/origin_check", "http://example.com").expect("taken");
    assert_eq!(client.text(), "origin_check is called for /origin_check");
    client.close();
    let (status, body) = ask("/origin_check", "http://elsewhere.example").err().expect("refused");
    assert!(status == 403 && body.contains("http://elsewhere.example"), "{status} {body}");
    assert_eq!(Client::open(server.address(), "/origin_check", &[]).err().expect("refused").0, 403);
    let (status, body) = ask("/close", "http://example.com").err().expect("refused");
    assert!(status == 403 && body.contains("origins"), "the server's own rule: {status} {body}");
}

#[test]
fn internal_error_closes_with_1011() {
    let server = TestServer::start(&["internal_error"]);
    assert_eq!(server.connect("/internal_error").closed().0, 1011);
}

#[test]
fn abort_ends_behind_101_and_abort_handshake_before() {
    let server = TestServer::start(&["abort", "abort_handshake"]);
    let mut raw = Raw::upgraded(server.address(), "/abort");
    assert_eq!(raw.read_until_gone(), b"", "no Close");
    let mut raw = server.raw();
    raw.write(upgrade_head("/abort_handshake").as_bytes());
    assert_eq!(raw.read_to_end(), b"", "no answer");
}

#[test]
fn bench_sends_as_often_and_as_slowly_as_it_is_told() {
    let server = TestServer::start(&["bench"]);
    let mut client = server.connect("/bench");
    let began = Instant::now();
    client.send_text("0.01 5 hello you");
    for _ in 0..5 {
        assert_eq!(client.text(), "hello you");
    }
    assert_eq!(client.closed().0, 1000);
    assert!(began.elapsed() >= Duration::from_millis(50));
    let mut client = server.connect("/bench");
    client.send_text("0 2000 at once");
    for _ in 0..2_000 {
        assert_eq!(client.text(), "at once");
    }
    assert_eq!(client.closed().0, 1000);
    let mut client = server.connect("/bench");
    client.send_text("what");
    let (code, why) = client.closed();
    assert!(code == 1011 && why.contains("COUNT"), "{code} {why}");
}

#[test]
fn benchmark_helper_sends_and_receives_so_many_bytes() {
    let server = compressing("benchmark_helper");
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate")];
    let mut client = Client::open(server.address(), "/benchmark_helper", &offer).expect("accepted");
    assert!(header(&client, "Sec-WebSocket-Extensions").is_empty());
    // More than any socket takes at once, and more than `limits.outgoing_bytes_max`.
    for bytes in [0, 1, 65_536, 10_000_000] {
        client.send_text(&format!("receive {bytes}"));
        let Message::Binary(received) = client.next() else { panic!("it is binary") };
        assert!(received.len() == bytes && received.iter().all(|byte| *byte == b'a'), "{bytes}");
    }
    for is_checked in [0, 1] {
        client.send_text(&format!("send {is_checked}"));
        client.send_binary(&vec![b'a'; 1_000_000]);
        assert_eq!(client.text(), "1000000");
    }
    client.send_text("send 1");
    client.send_binary(b"aba");
    assert_eq!(client.closed().0, 1011);
}
