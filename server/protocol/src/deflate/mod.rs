//! permessage-deflate (RFC 7692): what is agreed with a peer, and what a connection keeps for it.
//!
//! Compressing and inflating are done by one [`Deflater`] and one [`Inflater`] for all connections of a worker. At the end of a
//! message the codec stands between two blocks and two bytes, so all that the next message can refer to is the end of the plain
//! text that went the same way. That is all a connection keeps; before each message it is given to the codec as its dictionary.
//! A codec for each connection would cost 330 KiB of each; this costs 2 KiB of what was sent and 4 KiB of what was received, and nothing without context
//! takeover.
//!
//! The engine is zlib-rs: in Rust, with a safe interface that has what is needed here (raw streams, a window, a dictionary, a
//! flush to the byte), and several times the speed of zlib at level 1. flate2 stands on the same code and would only be a layer
//! more. The engine must not be asked to start anew before a message was ended: version 0.6.8 keeps the place in its output then, and
//! the block that was open.

mod deflater;
mod history;
mod inflater;

use std::fmt;

pub use deflater::Deflater;
use deflater::Turn;
use history::History;
pub use inflater::Inflater;

use crate::extension::ExtensionOffer;

/// The name under which it is negotiated (RFC 7692 section 7).
const NAME: &str = "permessage-deflate";

/// The exponents that a window may have (RFC 7692 section 7.1.2): 256 bytes to 32 KiB.
const WINDOW_BITS: std::ops::RangeInclusive<u8> = 8..=15;

/// A first message of up to so many bytes is sent compressed although that makes it longer,
const FIRST_BYTES_MAX: usize = 1024;

/// by up to so many.
const FIRST_EXCESS_MAX: usize = 16;

/// What deflater and inflater keep of their room for a message when it is done.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

/// What the server wants of permessage-deflate. A value out of its range counts as the end of the range that is nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateRules {
    /// Whether it is agreed to at all. Default false: it costs processor time, and secrets next to what others can choose may be
    /// guessed from the size of what they are compressed to.
    pub is_on: bool,
    /// How hard the server tries, 1 to 9. Default 1, which is half the work of 6 and a third more bytes.
    pub level: u8,
    /// How far back the server refers at most, as an exponent from 8 to 15. Costs the peer memory. Default 15, 32 KiB.
    pub server_window_bits_max: u8,
    /// Bytes of what it sent that the server keeps for a connection with context takeover, from 0 to 32768; within its window.
    /// More makes the output shorter and the work longer. Default 2048.
    pub server_history_bytes_max: usize,
    /// How far back the client may refer, as an exponent from 8 to 15. With context takeover this is what the server keeps of
    /// what it received, but 32 KiB for a client that does not offer to be bound (RFC 7692 section 7.1.2.2). Many clients cannot
    /// use 8. Default 12, 4 KiB.
    pub client_window_bits_max: u8,
    /// The server compresses each message alone, whether the client asks for it or not: it keeps nothing of what it sent.
    /// Default false.
    pub server_no_context_takeover: bool,
    /// The client has to compress each message alone, whether it offers it or not: the server keeps nothing of what it
    /// received. Default false.
    pub client_no_context_takeover: bool,
    /// Payload bytes below which a message is sent as it is. Default 64.
    pub message_bytes_min: usize,
}

/// How messages are compressed on one connection: the outcome of the negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateParameters {
    server_window_bits: u8,
    client_window_bits: u8,
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    level: u8,
    history_bytes_max: u16,
    message_bytes_min: usize,
}

/// An offer that is taken, and the answer that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeflateAgreement {
    parameters: DeflateParameters,
    /// Windows are named in the answer where the client named them in the offer.
    names_server_window: bool,
    names_client_window: bool,
}

/// What a connection keeps where permessage-deflate was agreed.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) parameters: DeflateParameters,
    /// What the next message of the server may refer to.
    sent: History,
    /// The stream that has it in its window.
    sent_by: Turn,
    /// What the next message of the peer may refer to.
    pub(crate) received: History,
    pub(crate) guard: Guard,
}

/// What the caller wants to be dropped with the windows.
#[derive(Default)]
pub(crate) struct Guard(Option<Box<dyn Send + Sync>>);

impl Guard {
    pub(crate) fn set(&mut self, guard: Box<dyn Send + Sync>) {
        self.0 = Some(guard);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("is_set", &self.0.is_some()).finish()
    }
}

impl Windows {
    pub(crate) fn new(parameters: DeflateParameters) -> Self {
        let sent = History::new(parameters.sent_bytes_max());
        let received = History::new(parameters.received_bytes_max());
        Self { parameters, sent, sent_by: 0, received, guard: Guard::default() }
    }

    /// The payload of a compressed message, which counts as sent. `None` if the message is better sent as it is.
    pub(crate) fn compress<'d>(&mut self, payload: &[u8], deflater: &'d mut Deflater) -> Option<&'d [u8]> {
        let turn = if self.parameters.server_no_context_takeover { &mut 0 } else { &mut self.sent_by };
        // What is sent as it is, nobody can refer to: a first message may be a little longer for the sake of those that follow.
        let is_first = !self.parameters.server_no_context_takeover && self.sent.bytes().is_empty();
        let excess_max = if is_first && payload.len() <= FIRST_BYTES_MAX { FIRST_EXCESS_MAX } else { 0 };
        let group = self.parameters.group();
        let compressed = deflater.compress(group, payload, self.sent.bytes(), excess_max, turn)?;
        self.sent.push(payload);
        Some(compressed)
    }

    /// A message that was compressed elsewhere is sent.
    pub(crate) fn on_sent(&mut self, payload: &[u8]) {
        self.sent.push(payload);
        self.sent_by = 0;
    }

    /// Bytes of plain text that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.sent.bytes().len() + self.received.bytes().len()
    }
}

/// Connections of one group can take the same compressed frame: see [`Deflater::compress_alone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeflateGroup {
    window_bits: u8,
    level: u8,
    message_bytes_min: usize,
}

impl Default for DeflateRules {
    fn default() -> Self {
        Self {
            is_on: false,
            level: 1,
            server_window_bits_max: 15,
            server_history_bytes_max: 2048,
            client_window_bits_max: 12,
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            message_bytes_min: 64,
        }
    }
}

impl DeflateRules {
    /// Takes the first offer that can be taken (RFC 7692 sections 5 and 7.1). Other extensions, and offers that this server
    /// does not understand or could not keep to, are declined by saying nothing of them.
    pub fn agree(&self, offers: &[ExtensionOffer<'_>]) -> Option<DeflateAgreement> {
        if !self.is_on {
            return None;
        }
        offers.iter().filter_map(Wishes::parse).next().map(|wishes| self.take(wishes))
    }

    /// The same where each side compresses each message alone: a connection keeps nothing.
    pub fn without_context_takeover(&self) -> Self {
        Self { server_no_context_takeover: true, client_no_context_takeover: true, ..*self }
    }

    fn take(&self, wishes: Wishes) -> DeflateAgreement {
        let bits = |bits: u8| bits.clamp(*WINDOW_BITS.start(), *WINDOW_BITS.end());
        let largest = *WINDOW_BITS.end();
        let server_window_bits =
            bits(self.server_window_bits_max).min(wishes.server_window.unwrap_or(largest));
        let client_no_context_takeover = self.client_no_context_takeover || wishes.client_no_context_takeover;
        // Only a client that knows the parameter can be bound by it (section 7.1.2.2). Without context takeover there is nothing
        // that a smaller window would save here.
        let names_client_window = wishes.client_window.is_some() && !client_no_context_takeover;
        let client_window_bits = match wishes.client_window {
            Some(offered) if names_client_window => offered.min(bits(self.client_window_bits_max)),
            Some(offered) => offered,
            None => largest,
        };
        let parameters = DeflateParameters {
            server_window_bits,
            client_window_bits,
            server_no_context_takeover: self.server_no_context_takeover || wishes.server_no_context_takeover,
            client_no_context_takeover,
            level: self.level.clamp(1, 9),
            history_bytes_max: self.server_history_bytes_max.min(1 << server_window_bits) as u16,
            message_bytes_min: self.message_bytes_min,
        };
        DeflateAgreement {
            parameters,
            names_server_window: wishes.server_window.is_some(),
            names_client_window,
        }
    }
}

impl DeflateParameters {
    /// How far back the server refers, as an exponent from 8 to 15.
    pub fn server_window_bits(&self) -> u8 {
        self.server_window_bits
    }

    /// How far back the client may refer, as an exponent from 8 to 15.
    pub fn client_window_bits(&self) -> u8 {
        self.client_window_bits
    }

    /// Whether the server compresses each message alone.
    pub fn server_no_context_takeover(&self) -> bool {
        self.server_no_context_takeover
    }

    /// Whether the client compresses each message alone.
    pub fn client_no_context_takeover(&self) -> bool {
        self.client_no_context_takeover
    }

    /// Bytes that a connection keeps at most of what it sent.
    pub fn sent_bytes_max(&self) -> usize {
        if self.server_no_context_takeover { 0 } else { usize::from(self.history_bytes_max) }
    }

    /// Bytes that a connection keeps at most of what it received.
    pub fn received_bytes_max(&self) -> usize {
        if self.client_no_context_takeover { 0 } else { 1 << self.client_window_bits }
    }

    /// Bytes that a connection keeps at most, of both.
    pub fn kept_bytes_max(&self) -> usize {
        self.sent_bytes_max() + self.received_bytes_max()
    }

    pub(crate) fn message_bytes_min(&self) -> usize {
        self.message_bytes_min
    }

    pub(crate) fn group(&self) -> DeflateGroup {
        DeflateGroup {
            window_bits: self.server_window_bits,
            level: self.level,
            message_bytes_min: self.message_bytes_min,
        }
    }
}

impl DeflateAgreement {
    /// What a connection is made with: [`Connection::with_deflate`](crate::Connection::with_deflate).
    pub fn parameters(&self) -> DeflateParameters {
        self.parameters
    }
}

/// As the value of `Sec-WebSocket-Extensions` in the answer (RFC 7692 section 7.1).
/// What holds on the connection, in the words of the negotiation; a window of 32 KiB goes without saying.
impl fmt::Display for DeflateParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_window = |bits: u8| bits != *WINDOW_BITS.end();
        DeflateAgreement {
            parameters: *self,
            names_server_window: has_window(self.server_window_bits),
            names_client_window: has_window(self.client_window_bits),
        }
        .fmt(f)
    }
}

impl fmt::Display for DeflateAgreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.parameters.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.parameters.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if self.names_server_window {
            write!(f, "; server_max_window_bits={}", self.parameters.server_window_bits)?;
        }
        if self.names_client_window {
            write!(f, "; client_max_window_bits={}", self.parameters.client_window_bits)?;
        }
        Ok(())
    }
}

/// An offer of permessage-deflate as meant (RFC 7692 section 7.1).
#[derive(Debug, Clone, Copy, Default)]
struct Wishes {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window: Option<u8>,
    client_window: Option<u8>,
}

impl Wishes {
    /// `None` for another extension, and for an offer that has to be declined: a parameter that is not defined, that is there
    /// twice, or that has a wrong value.
    fn parse(offer: &ExtensionOffer<'_>) -> Option<Self> {
        if offer.name != NAME {
            return None;
        }
        let mut wishes = Self::default();
        for (name, value) in &offer.parameters {
            let value = value.as_deref();
            match *name {
                "server_no_context_takeover" => say_once(&mut wishes.server_no_context_takeover, value)?,
                "client_no_context_takeover" => say_once(&mut wishes.client_no_context_takeover, value)?,
                "server_max_window_bits" if wishes.server_window.is_none() => {
                    wishes.server_window = Some(window_bits(value?)?);
                }
                // Without a value, the client only says that it knows the parameter.
                "client_max_window_bits" if wishes.client_window.is_none() => {
                    wishes.client_window = Some(value.map_or(Some(*WINDOW_BITS.end()), window_bits)?);
                }
                _ => return None,
            }
        }
        Some(wishes)
    }
}

/// A parameter that has no value and is there once.
fn say_once(said: &mut bool, value: Option<&str>) -> Option<()> {
    let is_first = !std::mem::replace(said, true);
    (is_first && value.is_none()).then_some(())
}

/// 8 to 15 in decimal digits without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    match value.as_bytes() {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}
