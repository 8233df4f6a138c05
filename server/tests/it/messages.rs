//! Text, binary, sizes, fragments, control frames, closing.

use tungstenite::Message;

use crate::support::{Raw, TestServer, masked};

#[test]
fn text_and_binary_of_every_length_class_come_back() {
    let server = TestServer::start(&["echo"]);
    let mut client = server.connect("/echo");
    client.send_text("");
    assert_eq!(client.text(), "");
    client.send_text("grüße, 世界 🌍");
    assert_eq!(client.text(), "grüße, 世界 🌍");
    for length in [0, 1, 125, 126, 127, 16_383, 16_384, 65_535, 65_536, 300_000, 1024 * 1024] {
        let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
        client.send_binary(&bytes);
        assert!(client.binary() == bytes, "{length} bytes came back changed");
    }
}

#[test]
fn a_thousand_messages_in_one_write_come_back_in_order() {
    let server = TestServer::start(&["echo"]);
    let mut raw = Raw::upgraded(server.address(), "/echo");
    let (mut question, mut answer) = (Vec::new(), Vec::new());
    for index in 0..1000 {
        let text = format!("message {index}");
        question.extend(masked(0x81, text.as_bytes()));
        answer.extend([0x81, text.len() as u8]);
        answer.extend(text.as_bytes());
    }
    raw.write(&question);
    assert!(raw.read_exactly(answer.len()) == answer);
}

/// RFC 6455 section 5.4: fragments make one message, control frames may come between them.
#[test]
fn fragments_are_one_message_and_a_ping_between_them_is_answered() {
    let server = TestServer::start(&["echo"]);
    let mut client = server.connect("/echo");
    client.send_fragments(&[b"one ", b"", b"two ", b"three"]);
    assert_eq!(client.binary(), b"one two three");

    let mut raw = Raw::upgraded(server.address(), "/echo");
    raw.write(&masked(0x01, b"a"));
    raw.write(&masked(0x89, b"are you there"));
    assert_eq!(raw.read_exactly(15), b"\x8a\x0dare you there", "before the message is complete");
    raw.write(&masked(0x80, b"b"));
    assert_eq!(raw.read_exactly(4), b"\x81\x02ab");
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let server = TestServer::start(&["echo"]);
    let mut client = server.connect("/echo");
    client.socket.send(Message::Ping(vec![7; 125].into())).unwrap();
    assert_eq!(client.next(), Message::Pong(vec![7; 125].into()));
    client.socket.send(Message::Pong(b"unasked".to_vec().into())).unwrap();
    client.send_text("still here");
    assert_eq!(client.text(), "still here");
}

/// RFC 6455 section 5.5.1: the answer to Close carries its code, and the server ends the TCP connection.
#[test]
fn a_close_is_answered_with_its_code_and_the_connection_ends_in_order() {
    let server = TestServer::start(&["echo"]);
    for code in [1000, 1001, 3000, 4999] {
        let mut client = server.connect("/echo");
        assert_eq!(client.close_with(code, "bye").0, code);
    }
    let mut raw = Raw::upgraded(server.address(), "/echo");
    raw.write(&masked(0x88, b""));
    assert_eq!(raw.read_to_end(), b"\x88\x00", "an empty Close gets an empty answer");
}

#[test]
fn goodbye_comes_back_and_then_the_server_closes() {
    let server = TestServer::start(&["echo"]);
    let mut client = server.connect("/echo");
    client.send_text("Goodbye");
    assert_eq!(client.text(), "Goodbye");
    assert_eq!(client.closed().0, 1000);
    client.wait_for_end();
}

/// Every violation: a Close frame with the right code, then an end that lets the peer read it (RFC 6455 section 7.1.7).
#[test]
fn a_broken_protocol_gets_its_code_and_an_orderly_end() {
    let server = TestServer::start(&["echo"]);
    let unmasked = b"\x81\x02hi".to_vec();
    let cases: [(&str, u16, Vec<u8>); 9] = [
        ("unmasked", 1002, unmasked),
        ("reserved bit", 1002, masked(0xc1, b"hi")),
        ("reserved opcode", 1002, masked(0x83, b"hi")),
        ("fragmented ping", 1002, masked(0x09, b"hi")),
        ("lone continuation", 1002, masked(0x80, b"hi")),
        ("close of one byte", 1002, masked(0x88, b"x")),
        ("close with 1005", 1002, masked(0x88, &1005_u16.to_be_bytes())),
        ("text that is not UTF-8", 1007, masked(0x81, b"\xff")),
        ("too big", 1009, masked(0x82, &[0; 1024 * 1024 + 1])),
    ];
    for (what, code, bytes) in cases {
        let mut raw = Raw::upgraded(server.address(), "/echo");
        raw.write(&bytes);
        // More behind the violation: an end that resets would take the Close frame with it.
        raw.write(&masked(0x82, &[1; 1000]));
        assert_eq!(raw.close_code(), code, "{what}");
        assert_eq!(raw.read_to_end(), b"", "{what}: nothing after Close, and no reset");
    }
    server.assert_serves("/echo");
}

#[test]
fn two_hundred_sessions_share_the_workers() {
    let server = TestServer::start(&["echo", "counter"]);
    let mut clients: Vec<_> = (0..200).map(|_| server.connect("/counter")).collect();
    for round in 1..=3 {
        for client in &mut clients {
            client.send_text("next");
        }
        for client in &mut clients {
            assert_eq!(client.text(), round.to_string(), "each session counts for itself");
        }
    }
}

#[test]
fn a_room_hears_its_members_and_no_other_room() {
    let server = TestServer::start(&["chat"]);
    let mut ann = server.connect("/chat?room=blue&name=Ann");
    assert_eq!(ann.text(), "* Ann joined");
    let mut bob = server.connect("/chat?room=blue&name=Bob");
    assert_eq!(bob.text(), "* Bob joined");
    assert_eq!(ann.text(), "* Bob joined");
    let mut eve = server.connect("/chat?room=red&name=Eve");
    assert_eq!(eve.text(), "* Eve joined");

    ann.send_text("hello");
    assert_eq!(ann.text(), "Ann: hello");
    assert_eq!(bob.text(), "Ann: hello");
    eve.send_text("alone");
    assert_eq!(eve.text(), "Eve: alone", "and nothing of the other room before it");
    bob.close();
    assert_eq!(ann.text(), "* Bob left");
}
