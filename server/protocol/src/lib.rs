//! RFC 6455 and RFC 7692 for the server's side, without I/O: bytes in, events out.
//!
//! This crate reads no socket and no clock, and its manifest shows it. The caller owns every buffer: input is unmasked where it
//! lies, an ordinary message is handed on as a slice of it, and output is appended to a `Vec` of the caller. Between calls a
//! [`Connection`] keeps nothing but what it needs of a frame or message that has not arrived whole.
//!
//! The grammar of [`Connection`]:
//!
//! - [`receive`](Connection::receive) takes the next event from what the peer sent; call it until it returns `None`.
//! - [`send`](Connection::send), [`send_fragment`](Connection::send_fragment), [`ping`](Connection::ping),
//!   [`pong`](Connection::pong), [`close`](Connection::close), [`fail`](Connection::fail) append frames to the output.
//! - [`message_head`](Connection::message_head) and [`fragment_head`](Connection::fragment_head) give the header alone, for a
//!   payload that is too large to be copied and is not compressed.
//! - Everything else asks and changes nothing.
//!
//! What the caller keeps, because only it knows whether the peer reads and what time it is: answering pings (the newest only,
//! where the peer does not read), answering Close, and every deadline.
//!
//! A worker has one [`Deflater`] and one [`Inflater`] for all its connections. Neither holds anything before the first connection
//! that [agreed](DeflateRules::agree) to permessage-deflate has something to compress or to inflate; a message that was inflated is
//! borrowed from the inflater, so the answer to it can be compressed while it is looked at.
//!
//! ```
//! use wshd_protocol::{Connection, Deflater, Event, Inflater, Limits};
//!
//! // Where the opening handshake ends, this begins.
//! let (mut connection, limits, mut output) = (Connection::new(), Limits::default(), Vec::new());
//! let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
//! let mut read = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; // RFC 6455 section 5.7: a masked "Hello"
//! let mut input = &mut read[..];
//! while let Some(event) = connection.receive(&mut input, &limits, &mut inflater, &mut output) {
//!     match event {
//!         Event::Message(message) => {
//!             connection.send(message.kind, &message.payload, &mut deflater, &mut output).unwrap();
//!         }
//!         Event::Ping(payload) => connection.pong(&payload, &mut output).unwrap(),
//!         Event::Pong(_) => {}
//!         Event::CloseRequested(_) => connection.close(None, "", &mut output).unwrap(),
//!         Event::CloseAnswered(_) | Event::Failed(_) => break,
//!     }
//! }
//! assert_eq!(output, b"\x81\x05Hello");
//! ```
//!
//! The modules stand in the order a byte travels: `extension` reads what is offered, [`handshake`] judges the opening handshake;
//! `frame` reads headers and unmasks; `message` assembles what came in pieces; `utf8` checks text as it arrives; `deflate` agrees
//! to permessage-deflate, inflates and compresses; [`close`] has the rules of close codes; `connection` joins them; `error` says
//! what a peer did wrong and which code it gets.

mod extension;
pub mod handshake;

mod frame;
mod message;
mod utf8;

mod deflate;

pub mod close;

mod connection;
mod error;

pub use close::PeerClose;
pub use connection::{Connection, Event, ReadyState};
pub use deflate::{DeflateAgreement, DeflateGroup, DeflateParameters, DeflateRules, Deflater, Inflater};
pub use error::{CloseError, ProtocolError, SendError};
pub use extension::ExtensionOffer;
pub use frame::{CONTROL_BYTES_MAX, FrameHead, SentFrame, frame_head};
pub use message::{Kind, Message};

/// What a peer may make a connection hold. Shared by all connections of a route, and read at every call, so that a changed
/// limit holds from the next frame on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of one message, however it is cut into frames. Above it the connection fails with 1009, at the header that
    /// announces too much and not only when the bytes have come. Of a compressed message, the bytes of its plain text: it is
    /// inflated up to there and no further. Default 1 MiB.
    pub message_bytes_max: usize,
    /// Empty continuation frames in one message. They cost the peer six bytes each and bring nothing. Above it the connection
    /// fails with 1008. Frames that bring something are bounded by `message_bytes_max` alone. Default 1024.
    pub empty_fragments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes_max: 1024 * 1024, empty_fragments_max: 1024 }
    }
}
