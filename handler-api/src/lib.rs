//! What a handler of wshd is written with.
//!
//! A handler answers the peers of one resource path. Its package is named `NAME_wsh` and builds a `cdylib`; cargo makes
//! `libNAME_wsh.so` of it, and the server answers on `/NAME`. This is all of one:
//!
//! ```
//! use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
//!         Ok(Echo)
//!     }
//!     fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
//!         socket.send(message);
//!     }
//! }
//!
//! export_handler!(Echo);
//! ```
//!
//! with
//!
//! ```toml
//! [package]
//! name = "echo_wsh"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! handler-api = "0.1"
//! ```
//!
//! The names are those of the browser's WebSocket API: the events open, message, error and close, the methods `send` and `close`,
//! the attributes `ready_state`, `buffered_amount`, `protocol` and `url`. One object is made for each WebSocket; making it accepts
//! the peer.
//!
//! There are two further ways to write the same: an [`AsyncHandler`] is one future for each session, a [`BlockingHandler`] one
//! thread. Both receive and send from top to bottom.
//!
//! The modules: [`Handler`] is the trait; [`Upgrade`] and [`Reject`] are the opening handshake; [`WebSocket`] is the session
//! inside a callback and [`Handle`] the session from anywhere; [`Migrate`] takes sessions along when the library is replaced;
//! [`log`] writes to the server's log; [`timer`] lets time pass; [`topic`] reaches many sessions at once; [`metric`] counts for the
//! operator; [`offload`](fn@offload) does what blocks; [`config`](mod@config) is what the operator has set; [`raw`] is for tests of clients; [`export_handler!`] makes
//! the symbols that the server looks for; `testing` is a host for tests, behind the feature of that name. [`abi`] is the C contract
//! under all of it, specified in `include/wsh.h`.
//!
//! No function of a handler may unwind into the server: `export_handler!` fences each callback. A panic ends the session it
//! happened in with 1011, and no other.

#![warn(missing_docs)]

#[allow(unsafe_code)]
#[allow(missing_docs, reason = "wsh.h says it once, at each function and field")]
pub mod abi;
#[allow(unsafe_code)]
mod blocking;
#[allow(unsafe_code)]
pub mod config;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod export;
mod handler;
#[allow(unsafe_code)]
mod host;
pub mod log;
mod message;
#[allow(unsafe_code)]
pub mod metric;
pub mod migrate;
#[allow(unsafe_code)]
mod offload;
#[allow(unsafe_code)]
pub mod raw;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod reload;
#[cfg(feature = "tokio")]
pub mod runtime;
#[allow(unsafe_code)]
mod sequential;
#[allow(unsafe_code)]
mod socket;
#[cfg(feature = "testing")]
#[allow(unsafe_code)]
pub mod testing;
#[allow(unsafe_code)]
pub mod timer;
#[allow(unsafe_code)]
pub mod topic;
#[allow(unsafe_code)]
mod upgrade;
#[allow(unsafe_code)]
mod websocket;

pub use blocking::{Blocking, BlockingHandler, BlockingSocket};
#[cfg(feature = "serde")]
pub use config::config;
pub use handler::{Close, Handler};
pub use message::{CloseError, Kind, Message, OwnedMessage, ReadyState, SendStatus};
pub use migrate::{Busy, Migrate};
pub use offload::{OffloadError, offload};
pub use raw::RawError;
pub use sequential::{Async, AsyncHandler};
pub use socket::{AsMessage, Closed, Failure, Receive, Received, Sending, Socket};
pub use timer::TimerError;
pub use topic::{Topic, TopicError};
pub use upgrade::{InvalidHeader, ProtocolError, Reject, Upgrade};
pub use websocket::{Handle, WebSocket};

#[doc = include_str!("../../docs/writing-a-handler.md")]
#[cfg(doctest)]
struct WritingAHandler;

#[doc = include_str!("../../docs/from-pywebsocket.md")]
#[cfg(doctest)]
struct FromPywebsocket;
