//! Whole conversations with a client that somebody else wrote: tungstenite's.

mod support;

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use http::header::{HeaderMap, HeaderName};
use http::{Method, Version};
use support::kept;
use tungstenite::Message as Said;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocket};
use wshd_protocol::handshake::Offer;
use wshd_protocol::{
    Connection, Deflater, Event, Inflater, Kind, Limits, Message, PeerClose, ReadyState, close,
};

/// The bytes between the two, in memory.
#[derive(Debug, Default)]
struct Wire {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.to_client.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to_server.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client and a server that answers pings and Close by itself.
struct Pair {
    client: WebSocket<Wire>,
    server: Connection,
    limits: Limits,
    deflater: Deflater,
    inflater: Inflater,
    /// What the server writes.
    output: Vec<u8>,
    /// How many bytes the server reads at once.
    read_bytes: usize,
}

impl Pair {
    fn new() -> Self {
        Self {
            client: WebSocket::from_raw_socket(Wire::default(), Role::Client, None),
            server: Connection::new(),
            limits: Limits::default(),
            deflater: Deflater::new(),
            inflater: Inflater::new(),
            output: Vec::new(),
            read_bytes: 4096,
        }
    }

    fn say(&mut self, message: Said) {
        self.client.send(message).expect("the client is open");
    }

    /// The server reads what the client wrote, and answers what has to be answered.
    fn server_reads(&mut self) -> Vec<Event<'static>> {
        let mut events = Vec::new();
        for piece in std::mem::take(&mut self.client.get_mut().to_server).chunks_mut(self.read_bytes) {
            let mut input = &mut piece[..];
            while let Some(event) =
                self.server.receive(&mut input, &self.limits, &mut self.inflater, &mut self.output)
            {
                match &event {
                    Event::Ping(payload) => self.server.pong(payload, &mut self.output).expect("still open"),
                    Event::CloseRequested(request) => {
                        self.server
                            .close(request.code, &request.reason, &mut self.output)
                            .expect("not closed before");
                    }
                    _ => {}
                }
                events.push(kept(event));
            }
        }
        events
    }

    /// The client reads what the server wrote, up to its end or the end of the connection.
    fn client_reads(&mut self) -> Vec<Said> {
        self.client.get_mut().to_client.extend(self.output.drain(..));
        let mut said = Vec::new();
        loop {
            match self.client.read() {
                Ok(message) => said.push(message),
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return said;
                }
                Err(tungstenite::Error::ConnectionClosed) => return said,
                Err(error) => panic!("the client refuses what the server wrote: {error}"),
            }
        }
    }
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame { code: CloseCode::from(code), reason: reason.into() }
}

/// Texts and binaries of every form of length come back as they were sent, however the server's reads cut them (5.6).
#[test]
fn an_echo_is_what_was_said() {
    for read_bytes in [1, 7, 1000, 1 << 20] {
        let mut pair = Pair::new();
        pair.read_bytes = read_bytes;
        let mut said = Vec::new();
        for length in [0, 1, 125, 126, 1000, 65_535, 65_536, 200_000] {
            said.push(Said::binary(vec![0xa5; length]));
            said.push(Said::text("ß".repeat(length / 2)));
        }
        for message in &said {
            pair.say(message.clone());
        }
        for event in pair.server_reads() {
            let Event::Message(Message { kind, payload }) = event else { panic!("{event:?}") };
            pair.server.send(kind, &payload, &mut pair.deflater, &mut pair.output).unwrap();
        }
        assert_eq!(pair.client_reads(), said, "in reads of {read_bytes} bytes");
        assert_eq!(pair.server.message_bytes_pending(), None);
    }
}

/// A message in fragments, with a ping between them, is one message; in both directions (5.4 and 5.5.2).
#[test]
fn fragments_become_a_message_on_both_sides() {
    let mut pair = Pair::new();
    let part = |payload: &'static [u8], data, is_final| {
        Said::Frame(Frame::message(payload, OpCode::Data(data), is_final))
    };
    pair.say(part(b"one \xe4\xb8", Data::Text, false));
    pair.say(Said::Ping("?".into()));
    pair.say(part(b"\x96 message", Data::Continue, true));
    let message = Message { kind: Kind::Text, payload: "one 世 message".as_bytes().into() };
    assert_eq!(pair.server_reads(), [Event::Ping(b"?"[..].into()), Event::Message(message)]);

    pair.server.send_fragment(Kind::Binary, b"and ", false, &mut pair.output).unwrap();
    pair.server.ping(b"!", &mut pair.output).unwrap();
    pair.server.send_fragment(Kind::Binary, b"", false, &mut pair.output).unwrap();
    let head = pair.server.fragment_head(Kind::Binary, 7, true).unwrap();
    pair.output.extend([head.as_slice(), b"another"].concat());
    let said = pair.client_reads();
    assert_eq!(said, [Said::Pong("?".into()), Said::Ping("!".into()), Said::binary(&b"and another"[..])]);
    assert_eq!(pair.server_reads(), [Event::Pong(b"!"[..].into())], "the client answered by itself");
}

/// A header that is written apart from its payload makes the same frame (5.2).
#[test]
fn a_payload_may_be_written_from_where_it_lies() {
    for length in [0, 125, 126, 65_535, 65_536] {
        let mut pair = Pair::new();
        let payload = vec![b'x'; length];
        let head = pair.server.message_head(Kind::Text, length).unwrap();
        pair.output.extend([head.as_slice(), &payload].concat());
        assert_eq!(pair.client_reads(), [Said::text("x".repeat(length))]);
    }
}

/// The client closes, the server answers with the same code, and both are through (7.1.3 and 7.1.4).
#[test]
fn the_client_closes() {
    let mut pair = Pair::new();
    pair.say(Said::text("last words"));
    pair.client.close(Some(close_frame(1000, "bye"))).unwrap();
    let events = pair.server_reads();
    let request = PeerClose { code: Some(1000), reason: "bye".into() };
    assert_eq!(events[1..], [Event::CloseRequested(request)]);
    assert_eq!(pair.server.ready_state(), ReadyState::Closed);
    assert_eq!(pair.client_reads(), [Said::Close(Some(close_frame(1000, "bye")))]);
    assert!(!pair.client.can_read());
}

/// A Close without a code is answered with one without a code (5.5.1).
#[test]
fn the_client_closes_without_a_word() {
    let mut pair = Pair::new();
    pair.client.close(None).unwrap();
    let request = PeerClose { code: None, reason: "".into() };
    assert_eq!(pair.server_reads(), [Event::CloseRequested(request)]);
    assert_eq!(pair.client_reads(), [Said::Close(None)]);
}

/// The server closes with every code it may use, and the client hears it and answers (7.4).
#[test]
fn the_server_closes_with_each_code() {
    for code in (1000..5000).filter(|code| close::may_be_sent_by_server(*code)) {
        // tungstenite's table ends at 1013.
        if code == close::BAD_GATEWAY {
            continue;
        }
        let mut pair = Pair::new();
        pair.server.close(Some(code), "why", &mut pair.output).unwrap();
        assert_eq!(pair.client_reads(), [Said::Close(Some(close_frame(code, "why")))]);
        let answer = PeerClose { code: Some(code), reason: "why".into() };
        assert_eq!(pair.server_reads(), [Event::CloseAnswered(answer)]);
        assert_eq!(pair.server.ready_state(), ReadyState::Closed);
    }
}

/// Both close at the same time: each takes the other's Close for the answer (7.1.5).
#[test]
fn both_close_at_once() {
    let mut pair = Pair::new();
    pair.say(Said::text("crosses our Close on its way"));
    pair.client.close(Some(close_frame(1000, "client"))).unwrap();
    pair.server.close(Some(1001), "server", &mut pair.output).unwrap();
    let answer = PeerClose { code: Some(1000), reason: "client".into() };
    assert_eq!(pair.server_reads(), [Event::CloseAnswered(answer)]);
    assert_eq!(pair.client_reads(), [Said::Close(Some(close_frame(1001, "server")))]);
}

/// The client is told why it failed (7.1.7).
#[test]
fn the_client_hears_why_it_failed() {
    let mut pair = Pair::new();
    pair.limits.message_bytes_max = 10;
    pair.say(Said::text("short"));
    pair.say(Said::text("this is too long"));
    let events = pair.server_reads();
    assert!(matches!(events[..], [Event::Message(_), Event::Failed(_)]), "{events:?}");
    let reason = "peer sent a message of more than 10 bytes";
    assert_eq!(pair.client_reads(), [Said::Close(Some(close_frame(1009, reason)))]);
}

/// tungstenite's client accepts the answer to its opening handshake, and the subprotocol in it (4.2.2).
#[test]
fn the_opening_handshake_is_agreed() {
    let request = tungstenite::ClientRequestBuilder::new("ws://server.example.com/chat".parse().unwrap())
        .with_sub_protocol("soap")
        .with_sub_protocol("wamp");
    let Err(HandshakeError::Interrupted(mut waiting)) = tungstenite::client(request, Wire::default()) else {
        panic!("no answer has come yet");
    };
    let wire = waiting.get_mut().get_mut();
    let head = String::from_utf8(std::mem::take(&mut wire.to_server)).unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"));
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let offer = Offer::parse(&Method::GET, Version::HTTP_11, &headers).unwrap();
    assert_eq!(offer.protocols().collect::<Vec<_>>(), ["soap", "wamp"]);
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in &offer.accept(Some("wamp"), None).unwrap() {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(b"\r\n");
    wire.to_client.extend(answer);
    let (_, response) = waiting.handshake().expect("the client agrees");
    assert_eq!(response.headers()["sec-websocket-protocol"], "wamp");
}
