//! Handlers that go beyond a WebSocket: with and without the config's leave.

use std::time::{Duration, Instant};

use wshd::config::{Config, HandlerRules, SlowPeer};
use wshd::control::Request;

use crate::support::{Authority, Client, Raw, TestServer, compile_c, masked, shake_hands, upgrade_head};

fn granted(config: &mut Config) {
    // One worker, so that a session hears how the one before it ended.
    config.handlers.workers = 1;
    config.handlers.each.insert("raw".into(), HandlerRules { raw: true, ..HandlerRules::default() });
}

fn server_with(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::prepare(change, |folder| compile_c("raw", folder, "raw_wsh.so"))
        .unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

fn server() -> TestServer {
    server_with(granted)
}

/// How the session ended that ended last: code, how, and what a call after the end was answered.
fn last_end(server: &TestServer) -> String {
    let mut client = server.connect("/raw");
    loop {
        client.send_text("how");
        let end = client.text();
        if end != "none" {
            return end;
        }
        std::thread::yield_now();
    }
}

fn bytes_of_answer(server: &TestServer, query: &str) -> Vec<u8> {
    let mut raw = server.raw();
    raw.write(upgrade_head(&format!("/raw?{query}")).as_bytes());
    raw.read_to_end()
}

// ---- for every handler -------------------------------------------------------------------------------------------------

#[test]
fn without_a_grant_a_handler_may_end_without_answer_or_close_and_nothing_beyond() {
    let server = server_with(|config| config.handlers.workers = 1);
    for query in ["abort", "abort-and-accept"] {
        assert_eq!(bytes_of_answer(&server, query), b"", "{query}: no answer at all");
    }
    for query in ["answer", "101", "nothing", "headers", "200"] {
        let (status, body) =
            Client::open(server.address(), &format!("/raw?{query}"), &[]).err().expect("refused");
        assert_eq!((status, body.as_str()), (403, "status -13\n"), "{query}");
    }
    let mut client = server.connect("/raw");
    client.send_text("statuses");
    assert_eq!(client.text(), "-13 -13 -13");

    let mut raw = Raw::upgraded(server.address(), "/raw");
    raw.write(&masked(0x81, b"end"));
    // A frame, the end of the stream, and no Close between.
    assert_eq!(raw.read_to_end(), b"\x81\x04last");
    assert_eq!(last_end(&server), "1006 1 -2");
}

#[test]
fn an_aborted_session_ends_without_close_and_with_1006() {
    let server = server();
    let mut raw = Raw::upgraded(server.address(), "/raw");
    raw.write(&masked(0x81, b"abort"));
    assert_eq!(raw.read_until_gone(), b"");
    assert_eq!(last_end(&server), "1006 1 -2");
}

#[test]
fn extensions_are_declined_by_the_handler_and_not_by_the_config() {
    let server = server_with(|config| config.deflate.rules.is_on = true);
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate")];
    let agreed = |path: &str| {
        let head =
            upgrade_head(path).replace("\r\n\r\n", &format!("\r\n{}: {}\r\n\r\n", offer[0].0, offer[0].1));
        let mut raw = server.raw();
        raw.write(head.as_bytes());
        raw.read_head().to_ascii_lowercase().contains("sec-websocket-extensions: permessage-deflate")
    };
    assert!(agreed("/raw"));
    assert!(!agreed("/raw?decline"));
}

#[test]
fn an_answer_is_delayed_and_makes_nobody_else_wait() {
    let server = server();
    let began = Instant::now();
    let mut late = server.raw();
    late.write(upgrade_head("/raw?delay").as_bytes());
    // On the same worker; it would come later if the delay held a thread.
    let mut client = server.connect("/raw");
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    assert!(late.read_head().starts_with("HTTP/1.1 101 "));
    assert!(began.elapsed() >= Duration::from_millis(300));
    late.write(&masked(0x81, b"hello"));
    assert_eq!(late.read_exactly(7), b"\x81\x05hello");
}

// ---- answers -----------------------------------------------------------------------------------------------------------

#[test]
fn a_handlers_own_bytes_stand_in_the_place_of_the_answer() {
    let server = server();
    assert_eq!(bytes_of_answer(&server, "answer"), b"NONSENSE 1\r\n\r\nbye");
    let (status, text) = server.request(&upgrade_head("/raw?200"));
    assert!(status == 200 && text.ends_with("fine\n"), "{text}");
}

#[test]
fn a_session_begins_behind_an_answer_of_the_handler() {
    let server = server();
    // tungstenite checks the accept key.
    let mut client = Client::open(server.address(), "/raw?101", &[]).expect("its own 101 is right");
    assert_eq!(client.response.headers()["X-Mine"], "yes");
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    client.close();

    let mut raw = server.raw();
    raw.write(upgrade_head("/raw?nothing").as_bytes());
    assert_eq!(raw.read_head(), "HTTP/1.1 101 Late\r\n\r\n", "sent by the session");
    raw.write(&masked(0x81, b"hello"));
    assert_eq!(raw.read_exactly(7), b"\x81\x05hello");
}

#[test]
fn headers_of_the_handshake_are_the_handlers_own() {
    let server = server();
    let mut raw = server.raw();
    raw.write(upgrade_head("/raw?headers").as_bytes());
    let head = raw.read_head().to_ascii_lowercase();
    for line in [
        "sec-websocket-protocol: never offered",
        "sec-websocket-extensions: x-one",
        "sec-websocket-extensions: x-two",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
}

// ---- bytes of a session ------------------------------------------------------------------------------------------------

fn assert_raw_bytes_keep_their_place(mut raw: Raw) {
    raw.upgrade("/raw");
    raw.write(&masked(0x81, b"frame"));
    assert_eq!(raw.read_exactly(8), b"\x81\x06before");
    assert_eq!(raw.read_exactly(4), b"\xc1\x02hi");
    assert_eq!(raw.read_exactly(7), b"\x81\x05after");
    raw.write(&masked(0x81, b"close"));
    assert_eq!(raw.read_exactly(10), b"\x88\x02\x03\xe8behind", "also behind Close");
    raw.write(&masked(0x88, b"\x03\xe8"));
    assert_eq!(raw.read_to_end(), b"");
}

#[test]
fn raw_bytes_keep_their_place_among_frames() {
    let server = server();
    assert_raw_bytes_keep_their_place(server.raw());
    assert_eq!(last_end(&server), "1000 0 -2");
}

#[test]
fn over_tls_it_is_the_same() {
    let authority = Authority::new();
    let files = authority.files("server", &authority.pair("server", &["localhost"]));
    let server = server_with(|config| {
        granted(config);
        config.listen.tls = true;
        config.tls.certificate = vec![files.certificate];
        config.tls.private_key = vec![files.private_key];
    });
    let secure = || {
        let stream = shake_hands(server.address(), "localhost", authority.client());
        Raw::secure(stream.expect("a handshake"))
    };
    assert_raw_bytes_keep_their_place(secure());
    for (query, answer) in [("answer", &b"NONSENSE 1\r\n\r\nbye"[..]), ("abort", b"")] {
        let mut raw = secure();
        raw.write(upgrade_head(&format!("/raw?{query}")).as_bytes());
        assert_eq!(raw.read_to_end(), answer, "{query}");
    }
    let mut raw = secure();
    raw.write(upgrade_head("/raw?nothing").as_bytes());
    assert_eq!(raw.read_head(), "HTTP/1.1 101 Late\r\n\r\n");
    raw.write(&masked(0x81, b"raw"));
    raw.write(b"any");
    assert_eq!(raw.read_exactly(3), b"any");
    raw.write(b"end\n");
    assert_eq!(raw.read_to_end(), b"", "close_notify, and no byte before it");
}

#[test]
fn a_session_takes_what_its_peer_sends_as_it_comes() {
    let server = server();
    let mut raw = Raw::upgraded(server.address(), "/raw");
    // What follows in the same packet is raw already: no frames, a Close that nobody answers.
    raw.write(&[masked(0x81, b"raw"), b"GET / HTTP/1.1\r\n".to_vec()].concat());
    assert_eq!(raw.read_exactly(16), b"GET / HTTP/1.1\r\n");
    raw.write(b"\x88\x00\xff\xff");
    assert_eq!(raw.read_exactly(4), b"\x88\x00\xff\xff");
    raw.write(b"end\n");
    assert_eq!(raw.read_to_end(), b"");
    assert_eq!(last_end(&server), "1006 1 -2");
}

#[test]
fn the_end_of_a_peer_that_is_read_raw_is_heard() {
    let server = server();
    let mut raw = Raw::upgraded(server.address(), "/raw");
    raw.write(&masked(0x81, b"raw"));
    raw.write(b"x");
    assert_eq!(raw.read_exactly(1), b"x");
    raw.finish();
    assert_eq!(raw.read_to_end(), b"");
    assert_eq!(last_end(&server), "1006 1 -2");
}

/// The bound of the outgoing queue holds, whatever is chosen for peers that do not read: raw bytes are not dropped.
#[test]
fn raw_bytes_for_a_peer_that_does_not_read_end_the_session() {
    for slow_peer in [SlowPeer::Close, SlowPeer::DropOldest] {
        let server = server_with(|config| {
            granted(config);
            config.limits.slow_peer = slow_peer;
        });
        let mut raw = Raw::upgraded(server.address(), "/raw");
        raw.write(&masked(0x81, b"fill"));
        let received = raw.read_until_gone();
        assert!(received.len() > 64 * 1024, "{slow_peer:?}: {} bytes", received.len());
        assert_eq!(last_end(&server), "1013 1 -2", "{slow_peer:?}");
    }
}

// ---- reloads -----------------------------------------------------------------------------------------------------------

/// One that has sent raw bytes moves; one that reads them stays on its code, and goes on there.
#[test]
fn a_session_that_is_read_raw_stays_on_its_code() {
    let server = server();
    let mut moves = Raw::upgraded(server.address(), "/raw");
    moves.write(&masked(0x81, b"frame"));
    assert_eq!(moves.read_exactly(19), b"\x81\x06before\xc1\x02hi\x81\x05after");
    let mut stays = Raw::upgraded(server.address(), "/raw");
    stays.write(&masked(0x81, b"raw"));
    stays.write(b"x");
    assert_eq!(stays.read_exactly(1), b"x");
    server.put_version(&server.folder().join("raw_wsh.so"), 2);
    server.ask(Request::Reload(None));
    server.wait_for("one moves and one stays", |status| {
        let raw = &status.handlers[0];
        let active = raw.active.as_ref().is_some_and(|active| (active.number, active.sessions) == (2, 1));
        active && raw.leaving.iter().map(|leaving| leaving.sessions).sum::<usize>() == 1
    });
    stays.write(b"\x88\x00");
    assert_eq!(stays.read_exactly(2), b"\x88\x00");
    moves.write(&masked(0x81, b"statuses"));
    assert_eq!(moves.read_exactly(7), b"\x81\x050 0 0", "the new code has the grant");
}

/// The old code keeps what it had, for sessions that do not move to the new.
#[test]
fn a_changed_grant_holds_for_sessions_to_come() {
    let server = server();
    let mut before = Raw::upgraded(server.address(), "/raw");
    before.write(&masked(0x81, b"raw"));
    before.write(b"x");
    assert_eq!(before.read_exactly(1), b"x");
    server.reload_with(|config| config.handlers.each.clear());
    server.wait_for("it is loaded again", |status| {
        status.handlers[0].active.as_ref().is_some_and(|active| active.number == 2)
    });
    let mut after = server.connect("/raw");
    after.send_text("statuses");
    assert_eq!(after.text(), "-13 -13 -13");
    before.write(b"y");
    assert_eq!(before.read_exactly(1), b"y");
}
