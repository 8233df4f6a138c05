//! What a conversation consists of, from its seed and number alone.

use serde_json::{Value, json};
use wshd_protocol::{Connection, DeflateParameters, DeflateRules, Limits, close};

use crate::hex;
use crate::support::traffic::{Compressor, close_code, messages};
use crate::support::*;

/// What is said, and under which agreement.
pub(crate) struct Conversation {
    pub(crate) deflate: Option<DeflateParameters>,
    pub(crate) limits: Limits,
    /// What the peer sends.
    pub(crate) input: Vec<u8>,
    /// Longest piece in which that arrives.
    pub(crate) longest: usize,
    /// The server's own Close, where it is the first.
    pub(crate) close: Option<OwnClose>,
    /// For the rest: what the server sends, and the cuts.
    pub(crate) seed: u64,
}

/// A Close that the server sends when the peer has sent so many bytes.
pub(crate) struct OwnClose {
    pub(crate) at: usize,
    pub(crate) code: Option<u16>,
    pub(crate) reason: &'static str,
}

impl OwnClose {
    pub(crate) fn value(&self) -> Value {
        let payload = self.code.map(|code| close_payload(code, self.reason.as_bytes())).unwrap_or_default();
        json!({ "at": self.at, "payload": hex(&payload) })
    }
}

impl Conversation {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut dice = Dice::of(seed, number);
        let deflate = if dice.once_in(3) { None } else { Some(agreement(&mut dice)) };
        let message_bytes_max = match dice.below(80) {
            // Lengths of 16 and 64 bits.
            0 => 80_000,
            1..=3 => 3000,
            4..=10 => 64,
            _ => 400,
        };
        let input = input(&mut dice, deflate, message_bytes_max);
        let longest = [1, 10, 100, 10_000][dice.below(4)];
        let close = dice.once_in(6).then(|| own_close(&mut dice, input.len()));
        Self {
            deflate,
            limits: Limits { message_bytes_max, empty_fragments_max: u32::MAX },
            input,
            longest,
            close,
            seed: seed ^ number.rotate_left(32),
        }
    }

    pub(crate) fn connection(&self) -> Connection {
        self.deflate.map_or_else(Connection::new, Connection::with_deflate)
    }

    /// In the words of RFC 7692.
    pub(crate) fn agreed(&self) -> Value {
        let Some(agreed) = self.deflate else { return Value::Null };
        json!({
            "server_no_context_takeover": agreed.server_no_context_takeover(),
            "client_no_context_takeover": agreed.client_no_context_takeover(),
            "server_max_window_bits": agreed.server_window_bits(),
            "client_max_window_bits": agreed.client_window_bits(),
        })
    }
}

/// Any that can come out of a negotiation.
fn agreement(dice: &mut Dice) -> DeflateParameters {
    let mut bits = || if dice.once_in(2) { 15 } else { 8 + dice.below(8) as u8 };
    let offered =
        format!("permessage-deflate; client_max_window_bits={}; server_max_window_bits={}", bits(), bits());
    let rules = DeflateRules {
        is_on: true,
        level: 1 + dice.below(9) as u8,
        server_history_bytes_max: [0, 100, 4096, 32_768][dice.below(4)],
        client_window_bits_max: 8 + dice.below(8) as u8,
        server_no_context_takeover: dice.once_in(4),
        client_no_context_takeover: dice.once_in(4),
        message_bytes_min: [0, 0, 64][dice.below(3)],
        ..DeflateRules::default()
    };
    let headers = request(&[&offered]);
    let offer = offer(&headers).expect("the request is right");
    rules.agree(offer.extensions()).expect("the offer is right").parameters()
}

fn input(dice: &mut Dice, deflate: Option<DeflateParameters>, limit: usize) -> Vec<u8> {
    let compressor = deflate.map(|parameters| Compressor::new(dice, parameters));
    let mut input = messages(dice, compressor, limit);
    if dice.once_in(30) {
        let length = dice.below(140);
        let bytes = dice.bytes(length);
        let first = FIN | [TEXT, BINARY, PING][dice.below(3)];
        input.extend(frame_with_long_length(first, &bytes, dice.once_in(2)));
        input.extend(messages(dice, None, limit));
    }
    if dice.once_in(2) {
        input.extend(close_frame(dice));
        if dice.once_in(3) {
            input.extend(messages(dice, None, limit));
        }
    }
    if dice.once_in(3) && !input.is_empty() {
        for _ in 0..1 + dice.below(3) {
            let at = dice.below(input.len());
            input[at] = if dice.once_in(3) { dice.byte() } else { input[at] ^ 1 << dice.below(8) };
        }
    }
    if dice.once_in(8) {
        input.truncate(dice.below(input.len() + 1));
    }
    input
}

/// A length in more bytes than most payloads need (RFC 6455 section 5.2).
fn frame_with_long_length(first: u8, payload: &[u8], is_longest: bool) -> Vec<u8> {
    let right = frame(first, payload);
    let mask_at = right.len() - payload.len() - MASK.len();
    let length = payload.len() as u64;
    let head = if is_longest {
        [&[first, 0xff][..], &length.to_be_bytes()].concat()
    } else {
        [&[first, 0xfe][..], &(length as u16).to_be_bytes()].concat()
    };
    [&head, &right[mask_at..]].concat()
}

/// Empty, cut, with any code and a reason that is mostly right.
fn close_frame(dice: &mut Dice) -> Vec<u8> {
    let length = dice.below(60);
    let mut payload = close_payload(close_code(dice), &dice.text(length));
    if dice.once_in(4) {
        payload.truncate(dice.below(payload.len() + 1));
    }
    if dice.once_in(20) {
        payload.clear();
    }
    frame(FIN | CLOSE, &payload)
}

fn own_close(dice: &mut Dice, input_len: usize) -> OwnClose {
    let at = dice.below(input_len + 1);
    let code = Some(close_code(dice)).filter(|code| close::may_be_sent_by_server(*code));
    OwnClose { at, code, reason: if code.is_some() { "grüße" } else { "" } }
}
