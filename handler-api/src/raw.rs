//! Beyond a WebSocket: what handlers need that test clients.
//!
//! Every handler may refuse without an answer ([`Reject::abort`](crate::Reject::abort)), answer later ([`Upgrade::delay`]),
//! decline extensions ([`Upgrade::decline_extensions`]), and end a session without a Close frame ([`WebSocket::end`],
//! [`WebSocket::abort`]).
//!
//! *Raw access* is the rest: an answer to the opening handshake that is written byte by byte, headers that are wrong, frames that
//! are malformed, and what the peer sends as it sends it. It breaks the protocol if the handler likes, so the server's config has
//! to grant it, with `raw = true` in `[handlers.NAME]`; without, each call is [`RawError::Forbidden`].
//!
//! ```
//! use handler_api::{Handler, Message, Reject, Upgrade, WebSocket};
//!
//! /// A client has to fail a connection on which a reserved bit is set (RFC 6455 section 5.2).
//! struct ReservedBit;
//!
//! impl Handler for ReservedBit {
//!     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
//!         Ok(ReservedBit)
//!     }
//!     fn on_open(&mut self, socket: &WebSocket) {
//!         if let Err(error) = socket.send_raw(&[0xc1, 2, b'h', b'i']) {
//!             let _ = socket.close(1011, &error.to_string());
//!         }
//!     }
//!     fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
//! }
//!
//! # #[cfg(feature = "testing")] {
//! use handler_api::testing::{Fake, Sent, set_raw};
//!
//! set_raw(true);
//! let mut session = Fake::<ReservedBit>::upgrade("/reserved").open().expect("accepted");
//! assert_eq!(session.sent(), [Sent::Raw(b"\xc1\x02hi".to_vec())]);
//! # }
//! ```

use std::fmt;
use std::time::Duration;

use crate::abi::{self, wsh_raw_api, wsh_status};
use crate::host;
use crate::message::SendStatus;
use crate::upgrade::Upgrade;
use crate::websocket::WebSocket;

/// Why something was not done that not every handler may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawError {
    /// The config of the server does not grant raw access to this handler.
    Forbidden,
    /// HTTP does not allow this header, or it is not one of the WebSocket handshake.
    Invalid,
    /// An answer of more than 64 KiB, or more than 64 headers.
    TooBig,
    /// The session is over, or moving to new code.
    Closed,
    /// There is no server, or it has no raw access.
    Unsupported,
}

impl RawError {
    pub(crate) fn check(status: wsh_status) -> Result<(), Self> {
        match status {
            abi::WSH_E_FORBIDDEN => Err(Self::Forbidden),
            abi::WSH_E_INVALID => Err(Self::Invalid),
            abi::WSH_E_TOO_BIG => Err(Self::TooBig),
            abi::WSH_E_CLOSED | abi::WSH_E_STATE => Err(Self::Closed),
            status if status < abi::WSH_OK => Err(Self::Unsupported),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for RawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "the server's config does not say raw = true for this handler",
            Self::Invalid => "this is no header of the WebSocket handshake that HTTP allows",
            Self::TooBig => "an answer has at most 64 KiB and 64 headers",
            Self::Closed => "the session is over or moving to new code",
            Self::Unsupported => "there is no server, or it has no raw access",
        })
    }
}

impl std::error::Error for RawError {}

/// Whether the server's config grants raw access to this handler. It stays so as long as this version of the library is loaded. From
/// any thread.
pub fn granted() -> bool {
    // SAFETY: this library's own pointer, good as long as its code runs. [any]
    find().is_some_and(|table| unsafe { (table.granted)(host::library()) } >= abi::WSH_OK)
}

impl Upgrade {
    /// Agrees to no extension, so that messages are not compressed, whatever the config says.
    pub fn decline_extensions(&mut self) {
        if let Some(table) = find() {
            // SAFETY: inside the callback that `raw` was lent for, on its thread.
            unsafe { (table.upgrade_decline_extensions)(self.as_raw()) };
        }
    }

    /// The answer is given so much later, at most a minute. No thread waits for it, and nobody else does. The last call counts.
    pub fn delay(&mut self, time: Duration) {
        let ms = time.as_millis().min(60_000) as u64;
        if let Some(table) = find() {
            // SAFETY: as in `decline_extensions`.
            unsafe { (table.upgrade_delay)(self.as_raw(), ms) };
        }
    }

    /// The `Sec-WebSocket-Accept` that answers this request, for an answer that is written by hand.
    pub fn accept_key(&self) -> &str {
        let key = find().and_then(|table| {
            // SAFETY: as in `decline_extensions`; the slot is writable.
            host::ask(|slot| unsafe { (table.upgrade_accept_key)(self.as_raw(), slot) })
        });
        key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
    }

    /// Bytes that are written in the place of the server's answer; those of several calls are joined, at most 64 KiB. If `on_upgrade`
    /// refuses, the connection ends behind them. If it accepts, they are taken for the answer 101, and the session begins; an
    /// empty answer leaves everything to [`WebSocket::send_raw`]. No extension is agreed to.
    ///
    /// # Errors
    /// Nothing is added.
    pub fn answer_raw(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        let table = find().ok_or(RawError::Unsupported)?;
        // SAFETY: as in `decline_extensions`; the bytes are readable.
        RawError::check(unsafe { (table.upgrade_answer)(self.as_raw(), bytes.as_ptr(), bytes.len()) })
    }

    /// Adds a header `Sec-WebSocket-…` to the answer, which need not be right. It takes the place of the server's own of that
    /// name; several of one name are several lines.
    ///
    /// # Errors
    /// It is left out.
    pub fn add_raw_header(&mut self, name: &str, value: &str) -> Result<(), RawError> {
        let table = find().ok_or(RawError::Unsupported)?;
        // SAFETY: as in `decline_extensions`; name and value are readable.
        RawError::check(unsafe {
            (table.upgrade_header)(self.as_raw(), name.as_ptr(), name.len(), value.as_ptr(), value.len())
        })
    }

    /// Ends the connection without an answer. False if the server cannot.
    pub(crate) fn abort(&mut self) -> bool {
        // SAFETY: as in `decline_extensions`.
        find().is_some_and(|table| unsafe { (table.upgrade_abort)(self.as_raw()) } >= abi::WSH_OK)
    }
}

impl WebSocket {
    /// Ends the TCP connection in order, behind what was sent, without a Close frame: browsers see the code 1006. After
    /// [`abort`](Self::abort), what was sent may be lost.
    pub fn end(&self) {
        match find() {
            // SAFETY: inside the callback that the session was lent for, on its thread.
            Some(table) => drop(unsafe { (table.session_end)(self.as_raw()) }),
            None => self.abort(),
        }
    }

    /// Sends bytes as they are, in order with the messages that are sent; also behind a Close frame.
    ///
    /// # Errors
    /// [`RawError::Forbidden`], [`RawError::Unsupported`]. Whether they were taken says the status, as of [`send`](Self::send).
    pub fn send_raw(&self, bytes: &[u8]) -> Result<SendStatus, RawError> {
        let table = find().ok_or(RawError::Unsupported)?;
        // SAFETY: as in `end`; the bytes are readable.
        match unsafe { (table.session_send)(self.as_raw(), bytes.as_ptr(), bytes.len()) } {
            abi::WSH_E_FORBIDDEN => Err(RawError::Forbidden),
            abi::WSH_E_UNSUPPORTED => Err(RawError::Unsupported),
            status => Ok(SendStatus::of(status)),
        }
    }

    /// From here on nothing is read as frames: what the peer sends is heard as binary messages, in the pieces that the network made of
    /// it, beginning behind the message that is being delivered. Nothing is answered for the handler any more, and the session lasts
    /// until it ends it or the peer vanishes. Such a session moves to no other code. There is no way back.
    ///
    /// # Errors
    /// Messages go on to come.
    pub fn receive_raw(&self) -> Result<(), RawError> {
        let table = find().ok_or(RawError::Unsupported)?;
        // SAFETY: as in `end`.
        RawError::check(unsafe { (table.session_receive)(self.as_raw()) })
    }
}

fn find() -> Option<&'static wsh_raw_api> {
    // SAFETY: the type is the one of this name.
    unsafe { host::extension(abi::WSH_RAW_ACCESS) }
}
