//! Close codes and reasons: what may be sent, what may be received (RFC 6455 section 7.4).

use std::borrow::Cow;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::error::ProtocolError;

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// The server shuts down, or the page was left.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL: u16 = 1002;
/// A kind of message that the handler does not take.
pub const UNSUPPORTED: u16 = 1003;
/// An empty Close frame was received; never on the wire.
pub const NO_STATUS: u16 = 1005;
/// No Close frame was received; never on the wire.
pub const ABNORMAL: u16 = 1006;
/// A text that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// A policy of the server.
pub const POLICY: u16 = 1008;
/// A message larger than the limit.
pub const TOO_BIG: u16 = 1009;
/// The client misses an extension; a server never sends it.
pub const MISSING_EXTENSION: u16 = 1010;
/// The handler failed.
pub const INTERNAL: u16 = 1011;
/// The handler is being replaced.
pub const RESTART: u16 = 1012;
/// The server is overloaded, or the peer too slow.
pub const TRY_AGAIN: u16 = 1013;
/// A server behind this one gave a wrong answer.
pub const BAD_GATEWAY: u16 = 1014;

/// Bytes of a reason: a control frame holds 125, the code takes two (RFC 6455 section 5.5).
pub const REASON_BYTES_MAX: usize = 123;

/// Whether a peer may send this code. Codes that only stand for what was *not* received (1005, 1006, 1015), and those that
/// nobody has defined (0-999, 1004, 1016-2999, 5000 and above), may not be on the wire (RFC 6455 section 7.4). 1012 to 1014
/// were registered after the RFC.
pub fn may_be_received(code: u16) -> bool {
    // tungstenite's table is older than the registration of 1014, and takes codes below 1000 for allowed.
    code == BAD_GATEWAY || code >= 1000 && CloseCode::from(code).is_allowed()
}

/// Whether the server may send this code: those that may be received, but 1010 is the client's alone, because a server that
/// misses an extension refuses the opening handshake instead (RFC 6455 section 7.4.1).
pub fn may_be_sent_by_server(code: u16) -> bool {
    may_be_received(code) && code != MISSING_EXTENSION
}

/// The longest beginning of a reason that fits into a Close frame, cut between characters.
pub(crate) fn fitting(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

/// The peer's Close frame (RFC 6455 section 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerClose<'b> {
    /// One of those that [may be received](may_be_received). `None` if the payload was empty, which HTML5 calls 1005.
    pub code: Option<u16>,
    /// At most 123 bytes, empty without a code. Meant for programmers, not for people; may hold any character, line ends too.
    pub reason: Cow<'b, str>,
}

impl<'b> PeerClose<'b> {
    /// Nothing, or a code and a reason in UTF-8.
    pub(crate) fn parse(payload: Cow<'b, [u8]>) -> Result<Self, ProtocolError> {
        if payload.is_empty() {
            return Ok(Self { code: None, reason: Cow::Borrowed("") });
        }
        let code = u16::from_be_bytes(*payload.first_chunk().ok_or(ProtocolError::ShortClose)?);
        if !may_be_received(code) {
            return Err(ProtocolError::CloseCode(code));
        }
        let reason = match payload {
            Cow::Borrowed(bytes) => std::str::from_utf8(&bytes[2..]).ok().map(Cow::Borrowed),
            Cow::Owned(mut bytes) => String::from_utf8(bytes.split_off(2)).ok().map(Cow::Owned),
        };
        Ok(Self { code: Some(code), reason: reason.ok_or(ProtocolError::CloseReason)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that stand for what was not received, and undefined ones, are refused; all others pass (RFC 6455 section 7.4).
    #[test]
    fn codes_that_stand_for_silence_are_never_on_the_wire() {
        for code in 0..=u16::MAX {
            let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(may_be_received(code), allowed, "{code}");
        }
    }

    /// 1010 is the client's to send (RFC 6455 section 7.4.1).
    #[test]
    fn the_server_never_says_that_an_extension_is_missing() {
        assert!(may_be_received(MISSING_EXTENSION) && !may_be_sent_by_server(MISSING_EXTENSION));
        assert!(!may_be_sent_by_server(NO_STATUS) && !may_be_sent_by_server(ABNORMAL));
    }

    /// A reason fits into a control frame and stays UTF-8 (RFC 6455 sections 5.5 and 5.5.1).
    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(100);
        assert_eq!(fitting(&reason).len(), 122);
        assert_eq!(fitting("short"), "short");
    }
}
