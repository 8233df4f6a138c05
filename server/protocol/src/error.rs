//! What a peer did wrong, and which close code it gets for it; and why something could not be sent.

use std::fmt;

use crate::close;

/// A violation of RFC 6455 or RFC 7692, or of a limit, by the peer. The connection has failed (section 7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A client has to mask every frame (section 5.1).
    Unmasked,
    /// A reserved bit is set and no extension was agreed that gives it a meaning (section 5.2).
    ReservedBits,
    /// RSV1, which says that a message is compressed, on a frame that does not begin one (RFC 7692 section 6.1).
    MisplacedRsv1,
    /// An opcode that is not defined (section 5.2).
    ReservedOpcode(u8),
    /// A length in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A length with its highest bit set (section 5.2).
    LengthTopBit,
    /// A control frame without FIN (section 5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (section 5.5).
    LongControl,
    /// A continuation frame without a message to continue (section 5.4).
    LoneContinuation,
    /// A new message inside a fragmented one (section 5.4).
    InterruptedMessage,
    /// A Close frame whose payload is one byte (section 5.5.1).
    ShortClose,
    /// A close code that must not be on the wire (section 7.4).
    CloseCode(u16),
    /// A close reason that is not UTF-8 (section 5.5.1). Fails with 1007.
    CloseReason,
    /// A text message that is not UTF-8 (section 8.1). Fails with 1007.
    InvalidText,
    /// A compressed message that cannot be inflated, or refers to what is not in the window (RFC 7692 section 7.2.2). Fails with
    /// 1007.
    InvalidDeflate,
    /// A message larger than the limit (sections 7.4.1 and 10.4). Fails with 1009.
    TooBig {
        /// Of payload bytes.
        limit: usize,
    },
    /// More empty continuation frames in one message than the limit (section 10.4). Fails with 1008.
    EmptyFragments {
        /// Of empty frames.
        limit: u32,
    },
    /// More blocks with BFINAL in one compressed message than anybody needs (RFC 7692 section 7.2.3.4). Fails with 1008.
    FinalBlocks {
        /// Of such blocks.
        limit: u32,
    },
}

impl ProtocolError {
    /// The code of the Close frame that the peer gets (section 7.4.1): 1002 unless the variant says otherwise.
    pub fn close_code(self) -> u16 {
        match self {
            Self::InvalidText | Self::CloseReason | Self::InvalidDeflate => close::INVALID_PAYLOAD,
            Self::TooBig { .. } => close::TOO_BIG,
            Self::EmptyFragments { .. } | Self::FinalBlocks { .. } => close::POLICY,
            _ => close::PROTOCOL,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmasked => f.write_str("peer sent an unmasked frame"),
            Self::ReservedBits => f.write_str("peer set a reserved bit without an agreed extension"),
            Self::MisplacedRsv1 => f.write_str("peer set RSV1 on a frame that does not begin a message"),
            Self::ReservedOpcode(opcode) => write!(f, "peer sent the reserved opcode {opcode:#x}"),
            Self::LengthNotMinimal => f.write_str("peer wrote a length in more bytes than it needs"),
            Self::LengthTopBit => f.write_str("peer sent a length of more than 63 bits"),
            Self::FragmentedControl => f.write_str("peer fragmented a control frame"),
            Self::LongControl => f.write_str("peer sent a control frame of more than 125 bytes"),
            Self::LoneContinuation => f.write_str("peer continued a message that was not begun"),
            Self::InterruptedMessage => f.write_str("peer began a message inside a fragmented one"),
            Self::ShortClose => f.write_str("peer sent a close frame of one byte"),
            Self::CloseCode(code) => write!(f, "peer sent the close code {code}, which must not be sent"),
            Self::CloseReason => f.write_str("peer sent a close reason that is not UTF-8"),
            Self::InvalidText => f.write_str("peer sent a text that is not UTF-8"),
            Self::InvalidDeflate => f.write_str("peer sent a compressed message that cannot be inflated"),
            Self::TooBig { limit } => write!(f, "peer sent a message of more than {limit} bytes"),
            Self::EmptyFragments { limit } => write!(f, "peer sent more than {limit} empty fragments"),
            Self::FinalBlocks { limit } => {
                write!(f, "peer sent more than {limit} final blocks in one compressed message")
            }
        }
    }
}

/// Why a frame was not sent. The output is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// Close was sent before, and nothing may follow it (RFC 6455 section 5.5.1).
    Closed,
    /// A whole message inside a fragmented one, or a fragment of another kind (section 5.4).
    InFragments,
    /// A ping or pong of more than 125 bytes (section 5.5).
    TooLong,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection is closing",
            Self::InFragments => "a message is being sent in fragments",
            Self::TooLong => "a control frame holds at most 125 bytes",
        })
    }
}

/// Why Close was not sent. The output is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseError {
    /// It was sent before (RFC 6455 section 5.5.1).
    Closed,
    /// A code that a server must not send (section 7.4).
    Code(u16),
    /// A reason of more than 123 bytes, or one without a code (section 5.5.1).
    Reason,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection is closing"),
            Self::Code(code) => write!(f, "a server must not send the close code {code}"),
            Self::Reason => f.write_str("a close reason holds at most 123 bytes and needs a code"),
        }
    }
}

impl std::error::Error for ProtocolError {}
impl std::error::Error for SendError {}
impl std::error::Error for CloseError {}
