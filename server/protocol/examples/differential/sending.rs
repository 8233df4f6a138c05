//! What our side sends, for another client to read.

use serde_json::{Value, json};
use wshd_protocol::{Connection, Deflater, Kind, close};

use crate::conversation::Conversation;
use crate::hex;
use crate::support::Dice;
use crate::support::traffic::close_code;

/// The bytes, and what a client is to hear of them.
pub(crate) fn sent(conversation: &Conversation) -> Value {
    let mut sending = Sending {
        dice: Dice::new(!conversation.seed),
        connection: conversation.connection(),
        deflater: Deflater::with_streams(2),
        output: Vec::new(),
        expected: Vec::new(),
    };
    for _ in 0..sending.dice.below(8) {
        sending.something();
    }
    if sending.dice.once_in(2) {
        sending.close();
    }
    json!({ "output": hex(&sending.output), "expected": sending.expected })
}

struct Sending {
    dice: Dice,
    connection: Connection,
    deflater: Deflater,
    output: Vec<u8>,
    expected: Vec<Value>,
}

impl Sending {
    fn something(&mut self) {
        match self.dice.below(8) {
            0 => self.fragments(),
            1 => self.control(),
            2 => self.alone(),
            _ => {
                let (kind, payload) = self.message();
                self.connection
                    .send(kind, &payload, &mut self.deflater, &mut self.output)
                    .expect("it is open");
            }
        }
        if self.dice.once_in(3) {
            self.neighbour();
        }
    }

    /// A message that is expected from now on.
    fn message(&mut self) -> (Kind, Vec<u8>) {
        let length = match self.dice.below(300) {
            0 => 66_000,
            1..=30 => self.dice.below(3000),
            _ => self.dice.below(130),
        };
        let kind = if self.dice.once_in(2) { Kind::Text } else { Kind::Binary };
        let payload = match self.dice.below(3) {
            0 => b"{\"name\":\"value\",".iter().copied().cycle().take(length).collect(),
            _ if kind == Kind::Text => self.dice.text(length),
            _ => self.dice.bytes(length),
        };
        self.expect(if kind == Kind::Text { "text" } else { "binary" }, &payload);
        (kind, payload)
    }

    fn fragments(&mut self) {
        // What comes between is heard before the message ends.
        let at = self.expected.len();
        let (kind, payload) = self.message();
        let message = self.expected.remove(at);
        for part in self.dice.cut(&payload, 2000) {
            self.connection.send_fragment(kind, part, false, &mut self.output).expect("it is open");
            if self.dice.once_in(3) {
                self.control();
            }
        }
        self.connection.send_fragment(kind, b"", true, &mut self.output).expect("it is open");
        self.expected.push(message);
    }

    fn control(&mut self) {
        let length = self.dice.below(126);
        let payload = self.dice.bytes(length);
        if self.dice.once_in(2) {
            self.expect("ping", &payload);
            self.connection.ping(&payload, &mut self.output).expect("it is open");
        } else {
            self.expect("pong", &payload);
            self.connection.pong(&payload, &mut self.output).expect("it is open");
        }
    }

    /// A message that was compressed for many, where compression was agreed.
    fn alone(&mut self) {
        let (kind, payload) = self.message();
        let Some(group) = self.connection.deflate_group() else {
            self.connection.send(kind, &payload, &mut self.deflater, &mut self.output).expect("it is open");
            return;
        };
        let mut frame = Vec::new();
        self.deflater.compress_alone(group, kind, &payload, &mut frame);
        self.connection.send_alone(&frame, &payload, &mut self.output).expect("it is open");
    }

    /// Another connection of the worker compresses meanwhile, with the same streams.
    fn neighbour(&mut self) {
        if let Some(parameters) = self.connection.deflate() {
            let mut other = Connection::with_deflate(parameters);
            let payload = b"{\"name\":\"other\",".repeat(1 + self.dice.below(20));
            other.send(Kind::Text, &payload, &mut self.deflater, &mut Vec::new()).expect("it is open");
        }
    }

    fn close(&mut self) {
        let code = Some(close_code(&mut self.dice)).filter(|code| close::may_be_sent_by_server(*code));
        let reason = if code.is_some() { "grüße" } else { "" };
        let bytes = code.map(u16::to_be_bytes);
        let payload = [bytes.as_ref().map_or(&[][..], |bytes| &bytes[..]), reason.as_bytes()].concat();
        self.expect("close", &payload);
        self.connection.close(code, reason, &mut self.output).expect("it is open");
    }

    fn expect(&mut self, what: &str, payload: &[u8]) {
        self.expected.push(json!([what, hex(payload)]));
    }
}
