//! What a peer says: messages and control frames that are mostly right.

use wshd_protocol::{DeflateParameters, close};
use zlib_rs::{Deflate, DeflateFlush};

use super::*;

/// A client that compresses; it is not always true to what was agreed.
pub(crate) struct Compressor {
    stream: Deflate,
    takes_over: bool,
}

impl Compressor {
    pub(crate) fn new(dice: &mut Dice, parameters: DeflateParameters) -> Self {
        let bits = if dice.once_in(20) { 15 } else { parameters.client_window_bits() };
        let takes_over = !parameters.client_no_context_takeover() || dice.once_in(20);
        // The engine has no window of 8 bits; with 9 it refers 250 bytes back.
        Self { stream: Deflate::new(dice.below(10) as i32, false, bits.max(9)), takes_over }
    }

    /// The payload of a compressed message (RFC 7692 section 7.2.1).
    fn payload(&mut self, dice: &mut Dice, plain: &[u8]) -> Vec<u8> {
        if !self.takes_over {
            self.stream.reset();
        }
        let mut payload = Vec::new();
        // Any number of blocks, and empty ones between (section 7.2.3.5).
        let parts = if dice.once_in(6) { dice.cut(plain, 60) } else { vec![plain] };
        for part in parts {
            self.append(part, DeflateFlush::SyncFlush, &mut payload);
        }
        if dice.once_in(40) {
            // A block with BFINAL, and the empty one behind it (section 7.2.3.4).
            self.append(b"", DeflateFlush::Finish, &mut payload);
            payload.push(0);
            self.stream.reset();
        } else if payload.ends_with(&[0, 0, 0xff, 0xff]) {
            payload.truncate(payload.len() - 4);
        }
        if payload.is_empty() { vec![0] } else { payload }
    }

    fn append(&mut self, plain: &[u8], flush: DeflateFlush, payload: &mut Vec<u8>) {
        let (mut room, before) = (vec![0; 2 * plain.len() + 100], self.stream.total_out());
        self.stream.compress(plain, &mut room, flush).expect("there is room");
        payload.extend(&room[..(self.stream.total_out() - before) as usize]);
    }
}

/// The payload of a message around a limit, often with much in common with those before it.
fn payload(dice: &mut Dice, is_text: bool, limit: usize) -> Vec<u8> {
    let length = match dice.below(24) {
        0 => limit - 1 + dice.below(3),
        1..=3 => dice.below(limit + limit / 4),
        _ => dice.below(40),
    };
    let mut payload = match dice.below(6) {
        0 => b"{\"name\":\"value\",".iter().copied().cycle().take(length).collect(),
        _ if is_text => dice.text(length),
        _ => dice.bytes(length),
    };
    if dice.once_in(20) && !payload.is_empty() {
        let at = dice.below(payload.len());
        payload[at] = dice.byte();
    }
    payload
}

/// One message in frames, with control frames between.
fn message(dice: &mut Dice, compressor: &mut Option<Compressor>, limit: usize, bytes: &mut Vec<u8>) {
    let is_text = dice.once_in(2);
    let mut payload = payload(dice, is_text, limit);
    let mut opcode = if is_text { TEXT } else { BINARY };
    if let Some(compressor) = compressor
        && !dice.once_in(4)
    {
        payload = compressor.payload(dice, &payload);
        opcode |= RSV1;
    }
    let longest = if payload.len() > 2000 { payload.len() } else { 60 };
    let parts = if dice.once_in(2) { vec![&payload[..]] } else { dice.cut(&payload, longest) };
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.into_iter().enumerate() {
        let is_final = (index == last) != dice.once_in(60);
        if dice.once_in(60) {
            // Any but Close, which comes in the end.
            opcode = [0x0, 0x1, 0x2, 0x3, 0x7, 0x9, 0xa, 0xb, 0xf][dice.below(9)];
        }
        let reserved = if dice.once_in(100) { 0x10 << dice.below(3) } else { 0 };
        let mut part = frame(if is_final { FIN } else { 0 } | reserved | opcode, part);
        if dice.once_in(100) {
            // Not masked any more; the mask becomes payload where there is some.
            part[1] &= 0x7f;
        }
        bytes.extend(part);
        opcode = CONTINUATION;
        if dice.once_in(6) {
            let (opcode, length) = (if dice.once_in(2) { PING } else { PONG }, dice.below(130));
            bytes.extend(frame(if dice.once_in(60) { 0 } else { FIN } | opcode, &dice.bytes(length)));
        }
    }
}

/// Some messages, compressed or not where that was agreed.
pub(crate) fn messages(dice: &mut Dice, mut compressor: Option<Compressor>, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.below(8) {
        message(dice, &mut compressor, limit, &mut bytes);
    }
    bytes
}

/// Some messages without compression, and a Close that tungstenite judges as we do.
pub(crate) fn traffic(dice: &mut Dice, limit: usize) -> Vec<u8> {
    let mut bytes = messages(dice, None, limit);
    if dice.once_in(2) {
        let code = close_code(dice);
        // Where both are wrong, ours names the code and tungstenite the reason; and it does not know 1014.
        let may_be_received = close::may_be_received(code) && code != close::BAD_GATEWAY;
        let mut payload = close_payload(code, if may_be_received { "grüße" } else { "plain" }.as_bytes());
        payload.truncate(dice.below(payload.len() + 1));
        if code != close::BAD_GATEWAY {
            bytes.extend(frame(FIN | CLOSE, &payload));
        }
    }
    bytes
}

/// A defined code, or any.
pub(crate) fn close_code(dice: &mut Dice) -> u16 {
    (if dice.once_in(3) { dice.below(6000) } else { 1000 + dice.below(12) }) as u16
}
