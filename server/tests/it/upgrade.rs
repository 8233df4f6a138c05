//! The opening handshake and its refusals.

use crate::support::{Client, TestServer, masked};

/// The key of RFC 6455 section 1.3 gets the answer of RFC 6455 section 1.3.
#[test]
fn the_example_of_the_rfc_is_answered_as_the_rfc_says() {
    let server = TestServer::start(&["echo"]);
    let mut raw = server.raw();
    raw.write(
        b"GET /echo HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let head = raw.read_head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
}

#[test]
fn a_handshake_that_arrives_byte_by_byte_is_served() {
    let server = TestServer::start(&["echo"]);
    let mut raw = server.raw();
    let head = "GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    for byte in head.as_bytes() {
        raw.write(&[*byte]);
    }
    assert!(raw.read_head().starts_with("HTTP/1.1 101 "));
    for byte in masked(0x81, b"hi") {
        raw.write(&[byte]);
    }
    assert_eq!(raw.read_exactly(4), b"\x81\x02hi");
}

/// A client that does not wait for 101 loses nothing.
#[test]
fn a_message_behind_the_request_is_delivered_after_the_answer() {
    let server = TestServer::start(&["echo"]);
    let mut raw = server.raw();
    let mut bytes = crate::support::upgrade_head("/echo").into_bytes();
    bytes.extend(masked(0x81, b"early"));
    bytes.extend(masked(0x82, b"bird"));
    raw.write(&bytes);
    assert!(raw.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(raw.read_exactly(13), b"\x81\x05early\x82\x04bird");
}

/// RFC 6455 section 4.2: each of these is refused with the status that says why, and the connection ends.
#[test]
fn wrong_handshakes_are_refused_with_the_right_status() {
    let server = TestServer::start(&["echo"]);
    let good = [
        "Host: a",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    let request = |line: &str, without: &str, with: &[&str]| {
        let mut head = format!("{line}\r\n");
        for header in good.iter().filter(|header| without.is_empty() || !header.starts_with(without)) {
            head.push_str(&format!("{header}\r\n"));
        }
        for header in with {
            head.push_str(&format!("{header}\r\n"));
        }
        server.request(&(head + "\r\n"))
    };
    let get = "GET /echo HTTP/1.1";
    let cases: &[(u16, &str, &str, &[&str])] = &[
        (404, "GET /nope HTTP/1.1", "", &[]),
        (404, "GET /echo/ HTTP/1.1", "", &[]),
        (404, "GET /../echo HTTP/1.1", "", &[]),
        (405, "POST /echo HTTP/1.1", "", &["Content-Length: 0"]),
        (400, get, "Host", &[]),
        (400, get, "", &["Host: b"]),
        (400, get, "Connection", &[]),
        (400, get, "Connection", &["Connection: keep-alive"]),
        (400, get, "Sec-WebSocket-Key", &[]),
        (400, get, "Sec-WebSocket-Key", &["Sec-WebSocket-Key: short"]),
        (400, get, "", &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]),
        (426, get, "Sec-WebSocket-Version", &["Sec-WebSocket-Version: 8"]),
        (400, get, "", &["Sec-WebSocket-Protocol: bad token"]),
        (400, get, "", &["Transfer-Encoding: chunked"]),
    ];
    for (status, line, without, with) in cases {
        let (found, answer) = request(line, without, with);
        assert_eq!(found, *status, "{line} without {without:?} with {with:?}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(!body.trim().is_empty(), "a person can read why: {answer}");
        if found == 426 {
            assert!(answer.to_ascii_lowercase().contains("sec-websocket-version: 13"), "{answer}");
        }
    }
    server.assert_serves("/echo");
}

#[test]
fn a_plain_request_for_a_handler_is_told_to_upgrade() {
    let server = TestServer::start(&["echo"]);
    let (status, answer) = server.request("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status, 426);
    assert!(answer.to_ascii_lowercase().contains("upgrade: websocket"), "{answer}");
}

#[test]
fn the_escaped_path_finds_the_same_handler() {
    let server = TestServer::start(&["echo"]);
    server.assert_serves("/%65cho");
}

/// A page of another host cannot ride on this host's cookies (RFC 6455 section 10.2).
#[test]
fn a_foreign_page_is_refused_before_the_handler_is_asked() {
    let server = TestServer::start(&["echo"]);
    let address = server.address();
    let foreign = Client::open(address, "/echo", &[("Origin", "http://evil.example")]);
    let (status, body) = foreign.err().expect("it is refused");
    assert_eq!(status, 403);
    assert!(body.contains("http://evil.example") && body.contains("origins"), "{body}");
    let own = format!("http://{address}");
    assert!(Client::open(address, "/echo", &[("Origin", &own)]).is_ok());
}

/// The page of a tutorial, opened as a file, may talk to the handler that its operator names, and to no other.
#[test]
fn a_page_of_a_file_may_connect_where_the_config_says_so() {
    let config = "[handlers.echo]\norigins = [\"same-host\", \"null\"]\n";
    let server = TestServer::configured(&["echo", "counter"], config);
    let status = |path: &str, origin: &str| {
        Client::open(server.address(), path, &[("Origin", origin)]).map_or_else(|(status, _)| status, |_| 101)
    };
    let own = format!("http://{}", server.address());
    assert_eq!((status("/echo", "null"), status("/echo", &own)), (101, 101));
    assert_eq!(status("/echo", "http://evil.example"), 403);
    assert_eq!((status("/counter", "null"), status("/counter", &own)), (403, 101));
    server.assert_serves("/echo");
}

#[test]
fn the_subprotocol_that_the_handler_chooses_is_agreed() {
    let server = TestServer::start(&["echo"]);
    let offered = [("Sec-WebSocket-Protocol", "nope.example, echo.wsh")];
    let client = Client::open(server.address(), "/echo", &offered).expect("accepted");
    let agreed = client.response.headers().get("Sec-WebSocket-Protocol");
    assert_eq!(agreed.and_then(|value| value.to_str().ok()), Some("echo.wsh"));
}

#[test]
fn a_handler_refuses_with_a_status_and_a_reason() {
    let server = TestServer::start(&["chat"]);
    let (status, body) = Client::open(server.address(), "/chat", &[]).err().expect("chat wants a name");
    assert_eq!(status, 403);
    assert!(body.contains("name"), "{body}");
}

/// What follows a refused request is not taken for another one.
#[test]
fn a_refused_connection_does_not_become_a_tunnel() {
    let server = TestServer::start(&["echo"]);
    let mut raw = server.raw();
    let mut bytes = crate::support::upgrade_head("/nope").into_bytes();
    bytes.extend(masked(0x81, b"hello"));
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.write(&bytes);
    let answer = String::from_utf8_lossy(&raw.read_until_gone()).into_owned();
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}
