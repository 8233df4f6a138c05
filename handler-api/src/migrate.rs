//! How a session keeps its state when its handler's code is replaced.
//!
//! With the feature `serde` the object itself can be the state: `export_handler!(Chat, state)` writes it down as JSON. Fields that are
//! added later get `#[serde(default)]`, fields that are gone are ignored, and what cannot be read leaves the session with the old code.
//! Whoever wants more than that implements [`Migrate`].
//!
//! ```
//! # #[cfg(feature = "serde")] mod chat {
//! use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};
//!
//! #[derive(Default, serde::Serialize, serde::Deserialize)]
//! struct Counter {
//!     messages: u32,
//!     /// Since the second version.
//!     #[serde(default)]
//!     bytes: usize,
//! }
//!
//! impl Handler for Counter {
//!     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
//!         Ok(Counter::default())
//!     }
//!     fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
//!         self.messages += 1;
//!         self.bytes += message.as_bytes().len();
//!         socket.send(&format!("{} messages, {} bytes", self.messages, self.bytes));
//!     }
//! }
//!
//! export_handler!(Counter, state);
//! # }
//! ```

use std::fmt;

use crate::WebSocket;

/// A handler whose sessions move to the new code when the library is replaced, with the state that it writes down for them.
///
/// The peer sees nothing of a move: the old code is asked for the state, the new code makes its object from it, and the next
/// message is answered by that. `on_close`, `on_upgrade` and `on_open` are not called. Export such a handler with
/// `export_handler!(Type, migrate)`.
///
/// ```
/// use handler_api::{Busy, Handler, Message, Migrate, Reject, Upgrade, WebSocket, export_handler};
///
/// struct Counter {
///     messages: u32,
/// }
///
/// impl Handler for Counter {
///     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
///         Ok(Counter { messages: 0 })
///     }
///     fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
///         self.messages += 1;
///         socket.send(&self.messages.to_string());
///     }
/// }
///
/// impl Migrate for Counter {
///     fn export_state(&mut self, _: &WebSocket) -> Result<Vec<u8>, Busy> {
///         Ok(self.messages.to_le_bytes().into())
///     }
///     fn import_state(from_version: u32, state: &[u8], _: &WebSocket) -> Option<Self> {
///         match from_version {
///             1 => Some(Counter { messages: u32::from_le_bytes(state.try_into().ok()?) }),
///             _ => None,
///         }
///     }
/// }
///
/// export_handler!(Counter, migrate);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how its sessions move to new code: it does not implement `Migrate`",
    label = "`migrate` needs `impl Migrate for {Self}`",
    note = "a handler without state is exported with `export_handler!({Self}, stateless)`; one whose sessions stay with \
            the code they began with, with `export_handler!({Self})`"
)]
pub trait Migrate: Sized + Send + 'static {
    /// Version of what `export_state` writes, 1 or more. Raise it when the format changes, and go on reading the older ones
    /// for as long as code that writes them may be running.
    const STATE_VERSION: u32 = 1;

    /// Writes the state of the session down for the code that follows. It is asked for between two callbacks of an open session.
    ///
    /// After `Ok` the object is frozen: it is dropped when the new code has taken the state, without `on_close`, or gets
    /// `cancel_export`. Nothing can be sent from here. A [`Handle`](crate::Handle) that is kept somewhere else than in this
    /// object is to be given up here, because it no longer leads to the session, and keeps this code in memory.
    ///
    /// After [`Busy`] the object is not frozen, and the server asks again after the next callback of this session.
    fn export_state(&mut self, socket: &WebSocket) -> Result<Vec<u8>, Busy>;

    /// The new code did not take the state, the state is larger than the server allows, or the session ended meanwhile. What
    /// `export_state` gave up is taken again here; the session goes on with this object, if only to `on_close`.
    ///
    /// It can send, except where the state was too large. A panic here closes the session with 1011.
    fn cancel_export(&mut self, socket: &WebSocket) {
        _ = socket;
    }

    /// Makes the object with which the session goes on, in the place of `on_upgrade` and `on_open`.
    ///
    /// `from_version` is the [`STATE_VERSION`](Self::STATE_VERSION) of the code that wrote the state: an older one, a newer one
    /// after a rollback, and 0 with no bytes for a handler that had no state. `None` leaves the session with the old code, and
    /// so does a panic; check what is read.
    ///
    /// Attributes of the session can be asked for and handles taken. Nothing can be sent from here;
    /// [`Handle::wake`](crate::Handle::wake) brings `on_wake` as soon as the session has moved.
    fn import_state(from_version: u32, state: &[u8], socket: &WebSocket) -> Option<Self>;
}

/// For `export_handler!(H, state)`. Not for use by hand.
#[cfg(feature = "serde")]
#[doc(hidden)]
#[macro_export]
macro_rules! __object_is_state {
    ($handler:ty) => {
        impl $crate::Migrate for $handler {
            fn export_state(&mut self, _: &$crate::WebSocket) -> Result<Vec<u8>, $crate::Busy> {
                Ok($crate::migrate::written(self))
            }
            fn import_state(from_version: u32, state: &[u8], _: &$crate::WebSocket) -> Option<Self> {
                $crate::migrate::read(from_version, state)
            }
        }
    };
}

/// For `export_handler!(H, state)`. Not for use by hand.
#[cfg(not(feature = "serde"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __object_is_state {
    ($handler:ty) => {
        compile_error!("`state` needs the feature `serde` of handler-api");
    };
}

/// An object as its state. Whatever of it cannot be written is an error of its `Serialize`, and that ends in a panic of this session.
#[cfg(feature = "serde")]
#[doc(hidden)]
pub fn written(object: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(object).unwrap_or_else(|error| panic!("its state cannot be written: {error}"))
}

/// An object from its state; what cannot be read is a line in the log.
#[cfg(feature = "serde")]
#[doc(hidden)]
pub fn read<H: serde::de::DeserializeOwned>(from_version: u32, state: &[u8]) -> Option<H> {
    if from_version != 1 {
        return None;
    }
    let read = serde_json::from_slice(state);
    read.inspect_err(|error| crate::log::warn(format_args!("the state of a session cannot be read: {error}")))
        .ok()
}

/// The state of this session cannot be written down now: it is in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session is in the middle of something")
    }
}

impl std::error::Error for Busy {}
