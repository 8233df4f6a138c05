//! What our side hears of a conversation, and answers.

use serde_json::{Value, json};
use wshd_protocol::{Connection, Event, Inflater, Kind, Message, PeerClose, close};

use crate::conversation::Conversation;
use crate::hex;
use crate::support::{Dice, kept};

/// All of it in order, each with the number of bytes that had come by then: the same however the bytes are cut.
pub(crate) fn heard(conversation: &Conversation) -> Value {
    let bytes = held_in_pieces(conversation, 1);
    let mut dice = Dice::new(conversation.seed);
    let pieces = Hearing::new(conversation).hold(|bytes| dice.cut(bytes, conversation.longest));
    let without_places = |entries: &[Entry]| entries.iter().map(|entry| entry.value()).collect::<Vec<_>>();
    assert_eq!(without_places(&pieces), without_places(&bytes), "cuts matter");
    bytes.iter().map(|entry| json!([entry.what, entry.value, entry.at, entry.error])).collect()
}

fn held_in_pieces(conversation: &Conversation, length: usize) -> Vec<Entry> {
    Hearing::new(conversation).hold(|bytes| bytes.chunks(length).collect())
}

/// One thing that was heard or sent.
struct Entry {
    what: &'static str,
    value: Value,
    at: usize,
    error: Option<String>,
}

impl Entry {
    fn value(&self) -> Value {
        json!([self.what, self.value, self.error])
    }
}

struct Hearing<'c> {
    conversation: &'c Conversation,
    connection: Connection,
    inflater: Inflater,
    entries: Vec<Entry>,
    /// Bytes that have come.
    at: usize,
}

impl<'c> Hearing<'c> {
    fn new(conversation: &'c Conversation) -> Self {
        let connection = conversation.connection();
        Self { conversation, connection, inflater: Inflater::new(), entries: Vec::new(), at: 0 }
    }

    fn hold(mut self, mut cut: impl FnMut(&'c [u8]) -> Vec<&'c [u8]>) -> Vec<Entry> {
        let close_at =
            self.conversation.close.as_ref().map_or(self.conversation.input.len(), |close| close.at);
        let (before, after) = self.conversation.input.split_at(close_at);
        for piece in cut(before) {
            self.receive(piece);
        }
        self.close_first();
        for piece in cut(after) {
            self.receive(piece);
        }
        self.entries
    }

    fn receive(&mut self, piece: &[u8]) {
        self.at += piece.len();
        let mut buffer = piece.to_vec();
        let mut input = &mut buffer[..];
        loop {
            let mut output = Vec::new();
            let limits = &self.conversation.limits;
            let event =
                self.connection.receive(&mut input, limits, &mut self.inflater, &mut output).map(kept);
            let Some(event) = event else { break };
            self.on(event, &mut output);
        }
    }

    fn on(&mut self, event: Event<'_>, output: &mut Vec<u8>) {
        match event {
            Event::Message(Message { kind, payload }) => {
                self.push(if kind == Kind::Text { "text" } else { "binary" }, json!(hex(&payload)));
            }
            Event::Ping(payload) => {
                self.push("ping", json!(hex(&payload)));
                self.connection.pong(&payload, output).expect("no Close was sent");
                self.push("sends pong", json!(hex(&output[2..])));
            }
            Event::Pong(payload) => self.push("pong", json!(hex(&payload))),
            Event::CloseRequested(request) => {
                self.push("close", json!(hex(&payload_of(&request))));
                // As the server does where its handler chooses nothing else.
                let code = request.code.filter(|code| close::may_be_sent_by_server(*code));
                let reason = if code.is_some() { &request.reason[..] } else { "" };
                self.connection.close(code, reason, output).expect("no Close was sent");
                self.push("sends close", json!(hex(&output[2..])));
            }
            Event::CloseAnswered(answer) => self.push("close", json!(hex(&payload_of(&answer)))),
            Event::Failed(error) => {
                self.push("failed", json!(error.close_code()));
                let name = format!("{error:?}");
                let name = name.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned);
                self.entries.last_mut().expect("it was pushed").error = name;
                if let [_, _, high, low, ..] = output[..] {
                    self.push("sends close", json!(u16::from_be_bytes([high, low])));
                }
            }
        }
    }

    /// The server begins to close, if that has not happened meanwhile.
    fn close_first(&mut self) {
        let Some(close) = &self.conversation.close else { return };
        let mut output = Vec::new();
        if self.connection.close(close.code, close.reason, &mut output).is_ok() {
            self.push("sends close", json!(hex(&output[2..])));
        }
    }

    fn push(&mut self, what: &'static str, value: Value) {
        self.entries.push(Entry { what, value, at: self.at, error: None });
    }
}

fn payload_of(close: &PeerClose<'_>) -> Vec<u8> {
    let code = close.code.map(u16::to_be_bytes);
    [code.as_ref().map_or(&[][..], |code| &code[..]), close.reason.as_bytes()].concat()
}
