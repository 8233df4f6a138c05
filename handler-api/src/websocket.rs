//! The session as a handler uses it: inside a callback, and from anywhere.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::ptr::NonNull;

use crate::abi::{self, wsh_handle, wsh_session};
use crate::message::{CloseError, Kind, Message, ReadyState, SendStatus};
use crate::{host, upgrade};

/// The session that a callback is about, named after the browser's `WebSocket`.
///
/// It is lent for the length of the callback. To act later or from another thread, take a [`Handle`].
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<handler_api::WebSocket>();
/// ```
pub struct WebSocket {
    raw: *mut wsh_session,
}

impl WebSocket {
    /// # Safety
    /// `raw` is the host's pointer, good for as long as the value is.
    pub(crate) unsafe fn new(raw: *mut wsh_session) -> Self {
        Self { raw }
    }

    pub(crate) fn as_raw(&self) -> *mut wsh_session {
        self.raw
    }

    /// Sends a message: a [`Message`], `&str`, `&String`, `&[u8]`, `&Vec<u8>`. What one callback sends goes out together when it
    /// has returned.
    #[inline]
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> SendStatus {
        let message = message.into();
        let (kind, bytes) = (message.kind().as_abi(), message.as_bytes());
        // SAFETY: inside the callback that `raw` was lent for, on its thread; the bytes are readable.
        SendStatus::of(unsafe { (host::table().session_send)(self.raw, kind, bytes.as_ptr(), bytes.len()) })
    }

    /// Sends a part of a message as a frame of its own; the last part ends the message. All parts have the kind of the first, a
    /// text may be cut anywhere, and no whole message can be sent in between.
    pub fn send_fragment(&self, kind: Kind, part: &[u8], is_last: bool) -> SendStatus {
        let (kind, is_last) = (kind.as_abi(), u32::from(is_last));
        // SAFETY: as in `send`.
        let status = unsafe {
            (host::table().session_send_fragment)(self.raw, kind, part.as_ptr(), part.len(), is_last)
        };
        SendStatus::of(status)
    }

    /// Sends a ping of at most 125 bytes; the answer arrives in `on_pong`.
    ///
    /// # Errors
    /// [`CloseError::Invalid`] for more than 125 bytes, [`CloseError::Closed`] when nothing can be sent any more.
    pub fn ping(&self, payload: &[u8]) -> Result<(), CloseError> {
        // SAFETY: as in `send`.
        CloseError::check(unsafe { (host::table().session_ping)(self.raw, payload.as_ptr(), payload.len()) })
    }

    /// Begins the closing handshake, behind what was sent before. Code 1000 to 1003, 1007 to 1014 or 3000 to 4999, reason at most
    /// 123 bytes.
    ///
    /// # Errors
    /// [`CloseError::Invalid`] for a code or a reason that may not be sent, [`CloseError::Closed`] if it has begun already.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), CloseError> {
        // SAFETY: as in `send`; the reason is readable.
        let status = unsafe { (host::table().session_close)(self.raw, code, reason.as_ptr(), reason.len()) };
        CloseError::check(status)
    }

    /// Drops the connection without a Close frame; browsers see the code 1006.
    pub fn abort(&self) {
        // SAFETY: inside the callback that `raw` was lent for, on its thread.
        unsafe { (host::table().session_abort)(self.raw) };
    }

    /// Open, or closing from the first Close frame of either side, or closed. Nothing can be sent but in the first.
    pub fn ready_state(&self) -> ReadyState {
        // SAFETY: as in `abort`.
        ReadyState::of(unsafe { (host::table().session_ready_state)(self.raw) })
    }

    /// Bytes that were sent here and not yet written to the network.
    pub fn buffered_amount(&self) -> u64 {
        // SAFETY: as in `abort`.
        unsafe { (host::table().session_buffered_amount)(self.raw) }
    }

    /// The agreed subprotocol; empty if none was, as in the browser.
    pub fn protocol(&self) -> &str {
        self.attribute(abi::WSH_PROTOCOL).unwrap_or_default()
    }

    /// The agreed extensions; empty if none were.
    pub fn extensions(&self) -> &str {
        self.attribute(abi::WSH_EXTENSIONS).unwrap_or_default()
    }

    /// Path and query: `/chat?room=blue`.
    pub fn url(&self) -> String {
        match self.query() {
            "" => self.path().to_owned(),
            query => format!("{}?{query}", self.path()),
        }
    }

    /// Resource path, percent-decoded.
    pub fn path(&self) -> &str {
        self.attribute(abi::WSH_PATH).unwrap_or_default()
    }

    /// What followed the first `?` of the request. Empty where [`KEEPS_REQUEST`](crate::Handler::KEEPS_REQUEST) is false.
    pub fn query(&self) -> &str {
        self.attribute(abi::WSH_QUERY).unwrap_or_default()
    }

    /// A parameter of the query, as in [`Upgrade::param`](crate::Upgrade::param).
    pub fn param(&self, name: &str) -> Option<String> {
        upgrade::param(self.query(), name)
    }

    /// A parameter of the route, as in [`Upgrade::path_param`](crate::Upgrade::path_param).
    pub fn path_param(&self, name: &str) -> Option<String> {
        upgrade::param(self.params(), name)
    }

    /// Encoded as a query is.
    pub(crate) fn params(&self) -> &str {
        self.attribute(abi::WSH_PARAMS).unwrap_or_default()
    }

    /// The first value of a header of the request, if it is text. `None` where
    /// [`KEEPS_REQUEST`](crate::Handler::KEEPS_REQUEST) is false.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = host::ask(|slot| {
            // SAFETY: as in `abort`; the name is readable, the slot writable.
            unsafe { (host::table().session_header)(self.raw, name.as_ptr(), name.len(), 0, slot) }
        });
        value.and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All header lines of the request, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        (0..).map_while(|index| {
            let (name, value) = host::ask_pair(|name, value| {
                // SAFETY: as in `abort`; the slots are writable.
                unsafe { (host::table().session_header_at)(self.raw, index, name, value) }
            })?;
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// Address and port of the peer, or of the proxy before this server unless that one is trusted to say it, then with port 0.
    /// `None` where the transport has none, as a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.attribute(abi::WSH_PEER)?.parse().ok()
    }

    /// A handle to this session, for any thread and any time. One that is taken in this code does not lead to the session when it has
    /// moved to newer code.
    pub fn handle(&self) -> Handle {
        // SAFETY: as in `abort`; the handle comes with a reference that the value gives back when it is dropped.
        let raw = unsafe { (host::table().session_handle)(self.raw) };
        Handle { raw: NonNull::new(raw).expect("the host never answers NULL (wsh.h)") }
    }

    /// As [`Upgrade::is_secure`](crate::Upgrade::is_secure).
    pub fn is_secure(&self) -> bool {
        self.attribute(abi::WSH_SCHEME) == Some("wss")
    }

    /// As [`Upgrade::user`](crate::Upgrade::user), as long as the session lives, also after a reload.
    pub fn user(&self) -> Option<&str> {
        self.attribute(abi::WSH_USER)
    }

    /// As [`Upgrade::tls_subject`](crate::Upgrade::tls_subject).
    pub fn tls_subject(&self) -> Option<&str> {
        self.attribute(abi::WSH_TLS_SUBJECT)
    }

    /// As [`Upgrade::tls_names`](crate::Upgrade::tls_names).
    pub fn tls_names(&self) -> impl Iterator<Item = &str> {
        self.attribute(abi::WSH_TLS_NAMES).unwrap_or_default().lines()
    }

    fn attribute(&self, attribute: u32) -> Option<&str> {
        let value = host::ask(|slot| {
            // SAFETY: as in `abort`; the slot is writable.
            unsafe { (host::table().session_attribute)(self.raw, attribute, slot) }
        });
        value.and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// A session, for any thread and any time. Handles of one session are equal.
///
/// When the session is gone its methods say so, and also when it has moved to newer code ([`Migrate`](crate::Migrate)), which has
/// handles of its own to it. A handle keeps this version of the library loaded: drop it when it is not needed any more.
pub struct Handle {
    raw: NonNull<wsh_handle>,
}

// SAFETY: wsh.h tags every function on handles [any]: the host counts and locks.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Sends a message, which goes out soon, behind what the session's own callbacks have sent so far. Messages of one thread keep
    /// their order. Never waits.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> SendStatus {
        let message = message.into();
        let (kind, bytes) = (message.kind().as_abi(), message.as_bytes());
        // SAFETY: the value holds a reference to the handle; the bytes are readable.
        let status =
            unsafe { (host::table().handle_send)(self.raw.as_ptr(), kind, bytes.as_ptr(), bytes.len()) };
        SendStatus::of(status)
    }

    /// As [`WebSocket::close`]. Success says that it was asked for.
    ///
    /// # Errors
    /// As of [`WebSocket::close`]; also [`CloseError::Closed`] when the session has moved to newer code.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), CloseError> {
        // SAFETY: as in `send`; the reason is readable.
        let status =
            unsafe { (host::table().handle_close)(self.raw.as_ptr(), code, reason.as_ptr(), reason.len()) };
        CloseError::check(status)
    }

    /// Has `on_wake` called soon; several calls before that count as one. False if the session is gone or has moved.
    pub fn wake(&self) -> bool {
        // SAFETY: the value holds a reference to the handle.
        let status = unsafe { (host::table().handle_wake)(self.raw.as_ptr()) };
        status >= abi::WSH_OK
    }

    /// Whether `on_close` was not called yet, and the session has not moved.
    pub fn is_open(&self) -> bool {
        // SAFETY: as in `wake`.
        let state = unsafe { (host::table().handle_ready_state)(self.raw.as_ptr()) };
        state == abi::WSH_OPEN
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        // SAFETY: as in `wake`; the new value gives the new reference back.
        unsafe { (host::table().handle_retain)(self.raw.as_ptr()) };
        Self { raw: self.raw }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that this value holds, once.
        unsafe { (host::table().handle_release)(self.raw.as_ptr()) }
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Handle {}

impl Hash for Handle {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.raw.hash(state);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}
