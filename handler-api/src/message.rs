//! Messages and the answers to sending them.

use std::fmt;

use crate::abi;

/// A message, received or to be sent. Borrowed: it costs nothing to make or pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// UTF-8, checked by the server before the handler sees it.
    Text(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Text or binary.
    pub fn kind(self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Binary(_) => Kind::Binary,
        }
    }

    /// The payload of either kind.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, if it is one.
    pub fn as_text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

/// A message that belongs to whoever has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedMessage {
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Binary(Vec<u8>),
}

impl OwnedMessage {
    /// The same, borrowed: what sends take.
    pub fn as_message(&self) -> Message<'_> {
        self.into()
    }

    /// The payload of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        self.as_message().as_bytes()
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        self.as_message().as_text()
    }
}

impl From<Message<'_>> for OwnedMessage {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_owned()),
        }
    }
}

impl<'a> From<&'a OwnedMessage> for Message<'a> {
    fn from(message: &'a OwnedMessage) -> Self {
        match message {
            OwnedMessage::Text(text) => Self::Text(text),
            OwnedMessage::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

/// Text or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    pub(crate) fn as_abi(self) -> u32 {
        match self {
            Self::Text => abi::WSH_TEXT,
            Self::Binary => abi::WSH_BINARY,
        }
    }
}

/// What became of a message that was sent. May be ignored: what is not sent any more ends in `on_close` anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// It was written or waits to be.
    Accepted,
    /// It waits, and so much does that the handler should pause until `on_writable`.
    Slow,
    /// It was not accepted: the peer does not read. The session is being closed with 1013, or the message was dropped, as the operator
    /// has chosen (`limits.slow_peer`).
    Full,
    /// It was not accepted: the session is closing, gone, or moving to new code, or a message is being sent in fragments.
    Closed,
    /// It was not accepted: the name of a topic is empty or longer than 255 bytes.
    Invalid,
}

impl SendStatus {
    pub(crate) fn of(status: abi::wsh_status) -> Self {
        match status {
            abi::WSH_SLOW => Self::Slow,
            abi::WSH_E_FULL => Self::Full,
            abi::WSH_E_INVALID => Self::Invalid,
            status if status < abi::WSH_OK => Self::Closed,
            _ => Self::Accepted,
        }
    }

    /// Whether the message was taken.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Accepted | Self::Slow)
    }
}

/// As in HTML5; a handler never sees `CONNECTING`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyState {
    /// Messages come and can be sent.
    Open = abi::WSH_OPEN as isize,
    /// One side has sent Close: nothing can be sent any more.
    Closing = abi::WSH_CLOSING as isize,
    /// Over, as in `on_close`.
    Closed = abi::WSH_CLOSED as isize,
}

impl ReadyState {
    pub(crate) fn of(state: u32) -> Self {
        match state {
            abi::WSH_OPEN => Self::Open,
            abi::WSH_CLOSING => Self::Closing,
            _ => Self::Closed,
        }
    }
}

/// Why a session was not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseError {
    /// A code that a server must not send, or a reason of more than 123 bytes.
    Invalid,
    /// It is closing already, gone, or moving to new code.
    Closed,
}

impl CloseError {
    pub(crate) fn check(status: abi::wsh_status) -> Result<(), Self> {
        match status {
            abi::WSH_E_INVALID => Err(Self::Invalid),
            status if status < abi::WSH_OK => Err(Self::Closed),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "a close code is 1000-1003, 1007-1014 or 3000-4999, a reason at most 123 bytes",
            Self::Closed => "the session is closing, gone or moving to new code",
        })
    }
}

impl std::error::Error for CloseError {}
