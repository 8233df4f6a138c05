//! Topics: what is published to one, all sessions hear that have subscribed to it.
//!
//! A session subscribes with [`WebSocket::subscribe`]. [`WebSocket::publish`] tells every other subscriber, [`publish`] every
//! subscriber, from any thread. The server frames a message once for all of them, and all hear the same order.
//!
//! Topics belong to the handler: all versions of it that are loaded share them, so a reload parts nobody. [`Topic::shared`] is a name
//! that is shared with the other handlers of the server.
//!
//! ```
//! use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, topic};
//!
//! struct News;
//!
//! impl Handler for News {
//!     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
//!         Ok(News)
//!     }
//!     fn on_open(&mut self, socket: &WebSocket) {
//!         let _ = socket.subscribe("news");
//!     }
//!     fn on_message(&mut self, _: &WebSocket, message: Message<'_>) {
//!         topic::publish("news", message);
//!     }
//! }
//!
//! # #[cfg(feature = "testing")] {
//! use handler_api::testing::{Fake, Sent};
//!
//! let mut ann = Fake::<News>::upgrade("/news").open().expect("accepted");
//! let mut bob = Fake::<News>::upgrade("/news").open().expect("accepted");
//! ann.text("hello");
//! assert_eq!(bob.sent(), [Sent::Text("hello".into())]);
//! assert_eq!(topic::subscribers("news"), 2);
//! # }
//! ```

use std::fmt;

use crate::abi::{self, wsh_topic_api};
use crate::host;
use crate::message::{Message, SendStatus};
use crate::websocket::WebSocket;

/// The name of a topic: 1 to 255 bytes. Made from a `&str` or `&String` it is the handler's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Topic<'n> {
    pub(crate) scope: u32,
    pub(crate) name: &'n str,
}

impl<'n> Topic<'n> {
    /// A topic of every handler of the server that uses this name in this way.
    pub const fn shared(name: &'n str) -> Self {
        Self { scope: abi::WSH_TOPIC_SERVER, name }
    }
}

impl<'n> From<&'n str> for Topic<'n> {
    fn from(name: &'n str) -> Self {
        Self { scope: abi::WSH_TOPIC_OWN, name }
    }
}

impl<'n> From<&'n String> for Topic<'n> {
    fn from(name: &'n String) -> Self {
        name.as_str().into()
    }
}

/// Why a session did not subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicError {
    /// A name has 1 to 255 bytes.
    Name,
    /// It has subscribed to 1024 topics already.
    TooMany,
    /// The session is closing or gone.
    Closed,
    /// There is no server, or it has no topics.
    Unsupported,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name of a topic has 1 to 255 bytes",
            Self::TooMany => "the session has subscribed to 1024 topics already",
            Self::Closed => "the session is closing or gone",
            Self::Unsupported => "there is no server, or it has no topics",
        })
    }
}

impl std::error::Error for TopicError {}

/// Publishes a message to every subscriber of a topic. From any thread.
///
/// [`Full`](SendStatus::Full) says that a worker was too far behind to take it, and the others have it. What happens to the subscribers
/// on that one is what the operator has chosen for peers that do not read (`limits.slow_peer`).
pub fn publish<'t, 'm>(topic: impl Into<Topic<'t>>, message: impl Into<Message<'m>>) -> SendStatus {
    let (Topic { scope, name }, message) = (topic.into(), message.into());
    let (kind, bytes) = (message.kind().as_abi(), message.as_bytes());
    let Some(table) = find() else { return SendStatus::Closed };
    // SAFETY: this library's own pointer, good as long as its code runs; name and bytes are readable. [any]
    let status = unsafe {
        let (name, len) = (name.as_ptr(), name.len());
        (table.library_publish)(host::library(), scope, name, len, kind, bytes.as_ptr(), bytes.len())
    };
    SendStatus::of(status)
}

/// How many sessions of this server have subscribed to a topic. From any thread. In `on_close` the session itself does not count any
/// more.
pub fn subscribers<'t>(topic: impl Into<Topic<'t>>) -> usize {
    let Topic { scope, name } = topic.into();
    // SAFETY: as in `publish`.
    let count =
        find().map(|table| unsafe { (table.subscribers)(host::library(), scope, name.as_ptr(), name.len()) });
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
}

impl WebSocket {
    /// From now on this session hears what is published to the topic; twice is once. Subscriptions move with the session when the
    /// library is replaced, where nothing is missed and nothing heard twice, and end with it.
    ///
    /// # Errors
    /// The name is empty or too long; 1024 of this session are there already; the session is closing.
    pub fn subscribe<'t>(&self, topic: impl Into<Topic<'t>>) -> Result<(), TopicError> {
        let Topic { scope, name } = topic.into();
        let table = find().ok_or(TopicError::Unsupported)?;
        // SAFETY: inside the callback that the session was lent for, on its thread; the name is readable.
        match unsafe { (table.session_subscribe)(self.as_raw(), scope, name.as_ptr(), name.len()) } {
            abi::WSH_E_INVALID => Err(TopicError::Name),
            abi::WSH_E_TOO_BIG => Err(TopicError::TooMany),
            abi::WSH_E_CLOSED => Err(TopicError::Closed),
            status if status < abi::WSH_OK => Err(TopicError::Unsupported),
            _ => Ok(()),
        }
    }

    /// From now on this session hears nothing of the topic. False if it had not subscribed.
    pub fn unsubscribe<'t>(&self, topic: impl Into<Topic<'t>>) -> bool {
        let Topic { scope, name } = topic.into();
        let Some(table) = find() else { return false };
        // SAFETY: as in `subscribe`.
        let status = unsafe { (table.session_unsubscribe)(self.as_raw(), scope, name.as_ptr(), name.len()) };
        status >= abi::WSH_OK
    }

    /// Publishes a message to every subscriber of a topic but this session, which need not have subscribed. See [`publish`], which
    /// includes it.
    pub fn publish<'t, 'm>(
        &self,
        topic: impl Into<Topic<'t>>,
        message: impl Into<Message<'m>>,
    ) -> SendStatus {
        let (Topic { scope, name }, message) = (topic.into(), message.into());
        let (kind, bytes) = (message.kind().as_abi(), message.as_bytes());
        let Some(table) = find() else { return SendStatus::Closed };
        // SAFETY: as in `subscribe`; the bytes are readable.
        let status = unsafe {
            let (name, len) = (name.as_ptr(), name.len());
            (table.session_publish)(self.as_raw(), scope, name, len, kind, bytes.as_ptr(), bytes.len())
        };
        SendStatus::of(status)
    }
}

fn find() -> Option<&'static wsh_topic_api> {
    // SAFETY: the type is the one of this name.
    unsafe { host::extension(abi::WSH_TOPIC) }
}
