//! Handlers that are not ready for more: `WSH_HOLD`.

use std::path::Path;
use std::time::Duration;

use wshd::config::Config;
use wshd::control::Status;

use crate::support::{Client, Raw, TestServer, compile_c_with, masked};

fn server(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::prepare(change, |folder| compile_c_with("holding", folder, "holding_wsh.so", &[]))
        .unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

fn answer(client: &mut Client, text: &str) -> String {
    client.send_text(text);
    client.text()
}

fn release(server: &TestServer) {
    let mut other = server.connect("/holding");
    assert_eq!(answer(&mut other, "release"), "1:release");
    other.close();
}

fn sessions(status: &Status) -> u64 {
    let handler = status.handlers.iter().find(|handler| handler.path == "/holding").expect("it is listed");
    handler.active.as_ref().map_or(0, |active| active.sessions as u64)
        + handler.leaving.iter().map(|leaving| leaving.sessions as u64).sum::<u64>()
}

#[test]
fn what_comes_meanwhile_follows_in_its_order() {
    let server = server(|_| {});
    let mut raw = Raw::upgraded(server.address(), "/holding");
    // In one read with the message that holds, and behind it.
    let burst: Vec<u8> = ["hold", "a", "b"].iter().flat_map(|text| masked(0x81, text.as_bytes())).collect();
    raw.write(&burst);
    assert_eq!(raw.read_exactly(8), b"\x81\x061:hold");
    raw.write(&masked(0x81, b"c"));
    raw.write(&masked(0x89, b"ping"));
    // Another session takes its turn on each worker before anything is released.
    for _ in 0..4 {
        assert_eq!(answer(&mut server.connect("/holding"), "x"), "1:x");
    }
    release(&server);
    let expected = b"\x81\x05awake\x81\x032:a\x81\x033:b\x81\x034:c\x8a\x04ping";
    assert_eq!(raw.read_exactly(expected.len()), expected);
    raw.write(&masked(0x81, b"d"));
    assert_eq!(raw.read_exactly(5), b"\x81\x035:d");
}

/// Held twice in one read: the second hold begins in the middle of what the first one kept back.
#[test]
fn a_session_is_held_again_by_what_was_kept_back() {
    let server = server(|_| {});
    let mut client = server.connect("/holding");
    for text in ["hold", "a", "hold", "b"] {
        client.send_text(text);
    }
    assert_eq!(client.text(), "1:hold");
    release(&server);
    assert_eq!([client.text(), client.text(), client.text()], ["awake", "2:a", "3:hold"]);
    release(&server);
    assert_eq!([client.text(), client.text()], ["awake", "4:b"]);
    client.close_with(1000, "");
}

#[test]
fn the_peer_feels_that_its_handler_is_not_ready_and_nothing_is_lost() {
    let server = server(|_| {});
    let mut raw = Raw::upgraded(server.address(), "/holding");
    raw.write(&masked(0x81, b"hold"));
    assert_eq!(raw.read_exactly(8), b"\x81\x061:hold");
    let message = |number: u32| {
        let mut message = number.to_be_bytes().to_vec();
        message.resize(50_000, 7);
        message
    };
    let mut sent = 0_u32;
    while raw.try_write(&masked(0x82, &message(sent)), Duration::from_millis(300)) {
        sent += 1;
        assert!(sent < 2000, "the server goes on reading");
    }
    release(&server);
    assert_eq!(raw.read_exactly(7), b"\x81\x05awake");
    for expected in 0..sent {
        assert_eq!(raw.read_exactly(4), [0x82, 126, 0xc3, 0x50]);
        assert_eq!(raw.read_exactly(50_000)[..4], expected.to_be_bytes(), "in order");
    }
}

#[test]
fn a_close_waits_like_everything_else() {
    let server = server(|_| {});
    let mut raw = Raw::upgraded(server.address(), "/holding");
    raw.write(&masked(0x81, b"hold"));
    assert_eq!(raw.read_exactly(8), b"\x81\x061:hold");
    raw.write(&masked(0x81, b"a"));
    raw.write(&masked(0x88, &3000_u16.to_be_bytes()));
    raw.finish();
    release(&server);
    // The handler was ready when it chose the answer.
    let expected = b"\x81\x05awake\x81\x032:a\x88\x02\x0f\xa0";
    assert_eq!(raw.read_to_end(), expected);
}

#[test]
fn a_connection_that_breaks_ends_a_held_session_at_once() {
    let server = server(|_| {});
    let mut raw = Raw::upgraded(server.address(), "/holding");
    raw.write(&masked(0x81, b"hold"));
    // Closing a socket with something unread resets the connection.
    raw.wait_readable();
    drop(raw);
    server.wait_for("the session is over", |status| sessions(status) == 0);
}

/// The peer is not listened to: that it says nothing, answers no ping or takes long over a message is not its fault.
#[test]
fn a_peer_that_is_not_listened_to_is_not_punished_for_silence() {
    let server = server(|config| {
        config.limits.ping_seconds = Duration::from_secs(1);
        config.limits.pong_seconds_max = Duration::from_secs(1);
        config.limits.idle_seconds_max = Duration::from_secs(2);
        config.limits.message_seconds_max = Duration::from_secs(1);
    });
    let mut raw = Raw::upgraded(server.address(), "/holding");
    // Behind it the beginning of a message.
    let mut bytes = masked(0x81, b"hold");
    let next = masked(0x81, b"late");
    bytes.extend_from_slice(&next[..7]);
    raw.write(&bytes);
    assert_eq!(raw.read_exactly(8), b"\x81\x061:hold");
    // Another peer that is silent is closed several times meanwhile.
    for _ in 0..2 {
        let mut silent = Raw::upgraded(server.address(), "/holding");
        assert_eq!(silent.close_code(), 1008);
    }
    release(&server);
    assert_eq!(raw.read_exactly(7), b"\x81\x05awake");
    raw.write(&next[7..]);
    assert_eq!(raw.read_exactly(8), b"\x81\x062:late");
}

#[test]
fn a_handler_that_holds_for_ever_delays_the_end_no_longer_than_a_silent_peer() {
    let server = server(|config| config.limits.close_seconds_max = Duration::from_secs(1));
    let mut raw = Raw::upgraded(server.address(), "/holding");
    raw.write(&masked(0x81, b"hold and close"));
    raw.write(&masked(0x81, b"never seen"));
    raw.write(&masked(0x88, &1000_u16.to_be_bytes()));
    // In order: Close, then the end, and no reset although the handler has not taken everything.
    assert_eq!(raw.read_to_end(), b"\x81\x101:hold and close\x88\x02\x03\xe8");
}

#[test]
fn a_held_session_moves_with_what_was_kept_back() {
    for still in [false, true] {
        let server = server(|_| {});
        let mut client = server.connect("/holding");
        for text in ["hold", "a", "b"] {
            client.send_text(text);
        }
        assert_eq!(client.text(), "1:hold");
        client.send_text("c");
        replace(&server, still);
        server.wait_for("the session has moved", |status| {
            let handler = &status.handlers[0];
            handler.active.as_ref().is_some_and(|active| active.number == 2) && handler.leaving.is_empty()
        });
        if still {
            client.send_text("d");
            release(&server);
            assert_eq!(client.text(), "awake");
        } else {
            client.send_text("d");
        }
        let texts: Vec<_> = (0..4).map(|_| client.text()).collect();
        assert_eq!(texts, ["2:a", "3:b", "4:c", "5:d"], "held on: {still}");
        client.close_with(1000, "");
    }
}

fn replace(server: &TestServer, still: bool) {
    let folder: &Path = &server.folder();
    compile_c_with(
        "holding",
        folder,
        ".new",
        &[if still { "-DSTILL=1" } else { "-DSTILL=0" }, "-DVERSION=\"2\""],
    );
    std::fs::rename(folder.join(".new"), folder.join("holding_wsh.so")).unwrap();
}
