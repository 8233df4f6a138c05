//! Frame headers and masking (RFC 6455 sections 5.2 and 5.3).
//!
//! Headers are read here rather than with tungstenite's `FrameHeader::parse`, because that does not say whether a length was
//! written in its shortest form, and because the ordinary frame is worth the nanoseconds of an inlined path. Its writer is the
//! measure in the tests below.

use crate::Kind;
use crate::error::ProtocolError;

/// Payload bytes of a control frame (section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Two bytes, eight of length, four of mask.
pub(crate) const HEAD_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// Says that a message is compressed, on its first frame, where that was agreed (RFC 7692 section 6).
pub(crate) const RSV1: u8 = 0x40;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Data(Kind),
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn byte(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Data(Kind::Text) => 0x1,
            Self::Data(Kind::Binary) => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// The header of a frame that a client sent, free of what section 5.2 forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) is_final: bool,
    pub(crate) opcode: Opcode,
    /// RSV1 is set.
    pub(crate) is_compressed: bool,
    pub(crate) mask: [u8; 4],
    pub(crate) payload_len: u64,
    /// Bytes of the header itself.
    pub(crate) len: usize,
}

impl Head {
    /// Reads a header from the front of `bytes`. `None` while it is incomplete; at most [`HEAD_BYTES_MAX`] bytes are looked at.
    /// `agreed_bits` is RSV1 where permessage-deflate was agreed, and 0 elsewhere.
    pub(crate) fn parse(bytes: &[u8], agreed_bits: u8) -> Result<Option<Self>, ProtocolError> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        if first & RESERVED & !agreed_bits != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = match first & OPCODE {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Data(Kind::Text),
            0x2 => Opcode::Data(Kind::Binary),
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            reserved => return Err(ProtocolError::ReservedOpcode(reserved)),
        };
        let is_final = first & FIN != 0;
        if opcode.is_control() && !is_final {
            return Err(ProtocolError::FragmentedControl);
        }
        let is_compressed = first & RSV1 != 0;
        if is_compressed && !matches!(opcode, Opcode::Data(_)) {
            return Err(ProtocolError::MisplacedRsv1);
        }
        let [second, rest @ ..] = rest else { return Ok(None) };
        if second & MASKED == 0 {
            return Err(ProtocolError::Unmasked);
        }
        if opcode.is_control() && second & LENGTH > CONTROL_BYTES_MAX as u8 {
            return Err(ProtocolError::LongControl);
        }
        let (payload_len, rest, len) = match second & LENGTH {
            126 => {
                let Some((bytes, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*bytes));
                if length < 126 {
                    return Err(ProtocolError::LengthNotMinimal);
                }
                (length, rest, 8)
            }
            127 => {
                let Some((bytes, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                let length = u64::from_be_bytes(*bytes);
                if length >> 63 != 0 {
                    return Err(ProtocolError::LengthTopBit);
                }
                if length <= u64::from(u16::MAX) {
                    return Err(ProtocolError::LengthNotMinimal);
                }
                (length, rest, 14)
            }
            short => (u64::from(short), rest, 6),
        };
        let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { is_final, opcode, is_compressed, mask: *mask, payload_len, len }))
    }
}

/// The ordinary frame, whole and at the front of `bytes`: an unfragmented text or binary message. Returns its kind, the length
/// of its header and of its payload. `None` for everything else, right or wrong.
#[inline]
pub(crate) fn ordinary(bytes: &[u8]) -> Option<(Kind, usize, usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    let kind = match *first {
        0x81 => Kind::Text,
        0x82 => Kind::Binary,
        _ => return None,
    };
    let (head_len, payload_len) = match *second {
        0x80..=0xfd => (6, usize::from(second & LENGTH)),
        0xfe => (8, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        0xff => (14, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        _ => return None,
    };
    let is_minimal = match head_len {
        8 => payload_len >= 126,
        14 => payload_len > usize::from(u16::MAX),
        _ => true,
    };
    let is_whole = bytes.len() >= head_len && bytes.len() - head_len >= payload_len;
    (is_minimal && is_whole).then_some((kind, head_len, payload_len))
}

/// A frame of this side, as it lies in a buffer of what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentFrame {
    /// Bytes of header and payload.
    pub len: usize,
    /// Bytes of the header.
    pub head_len: usize,
    /// A whole message by itself, not compressed: leaving it out breaks nothing but the message. One that is compressed may be
    /// referred to by those that follow.
    pub is_message: bool,
}

impl SentFrame {
    /// The frame that begins where `bytes` do. Its header has to be there as [`Connection`](crate::Connection) wrote it, its
    /// payload need not. `None` if there is none.
    pub fn at(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (head_len, payload_len) = match second & LENGTH {
            126 => (4_usize, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
            short => (2, usize::from(short)),
        };
        let len = head_len.checked_add(payload_len)?;
        Some(Self { len, head_len, is_message: matches!(first, 0x81 | 0x82) })
    }
}

/// Removes the mask in place (section 5.3). The first byte of `payload` meets the first byte of `mask`.
#[inline]
pub(crate) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let four = u32::from_ne_bytes(mask);
    let eight = u64::from(four) << 32 | u64::from(four);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ eight).to_ne_bytes();
    }
    let (words, rest) = rest.as_chunks_mut::<4>();
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ four).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// The mask for what follows `count` bytes.
pub(crate) fn rotated(mut mask: [u8; 4], count: usize) -> [u8; 4] {
    mask.rotate_left(count % 4);
    mask
}

/// The header of a frame that the server sends: unmasked, at most ten bytes long, and held inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    bytes: [u8; 10],
    len: u8,
}

impl FrameHead {
    #[inline]
    pub(crate) fn new(opcode: Opcode, is_final: bool, payload_len: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = opcode.byte() | if is_final { FIN } else { 0 };
        let len = match payload_len {
            0..=125 => {
                bytes[1] = payload_len as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len }
    }

    /// The header of a whole message whose payload is compressed (RFC 7692 section 6.1).
    pub(crate) fn compressed(kind: Kind, payload_len: usize) -> Self {
        let mut head = Self::new(Opcode::Data(kind), true, payload_len);
        head.bytes[0] |= RSV1;
        head
    }

    /// What goes on the wire before the payload.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The header of a whole message of `payload_len` bytes, which is not compressed. It does not know whether the message may be sent:
/// [`Connection::message_head`](crate::Connection::message_head) does.
pub fn frame_head(kind: Kind, payload_len: usize) -> FrameHead {
    FrameHead::new(Opcode::Data(kind), true, payload_len)
}

/// Appends a frame.
#[inline]
pub(crate) fn append(output: &mut Vec<u8>, head: FrameHead, payload: &[u8]) {
    let head = head.as_slice();
    output.reserve(head.len() + payload.len());
    output.extend_from_slice(head);
    output.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte meets its byte of the mask, wherever the payload is cut (RFC 6455 section 5.3).
    #[test]
    fn unmasking_is_xor_at_every_length_and_rotation() {
        let mask = [1, 2, 3, 4];
        for length in 0..40 {
            let plain: Vec<u8> = (0..length).map(|index| (index as u8).wrapping_mul(7)).collect();
            let masked: Vec<u8> =
                plain.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
            for cut in 0..=length {
                let mut bytes = masked.clone();
                let (first, second) = bytes.split_at_mut(cut);
                unmask(first, mask);
                unmask(second, rotated(mask, cut));
                assert_eq!(bytes, plain, "cut at {cut}");
            }
        }
    }

    /// The header that tungstenite writes is the header that is read here, and the other way round (RFC 6455 section 5.2).
    #[test]
    fn headers_agree_with_tungstenite() {
        use tungstenite::protocol::frame::FrameHeader;
        use tungstenite::protocol::frame::coding::{Data, OpCode};
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 40] {
            let opcode = OpCode::Data(Data::Binary);
            let header =
                FrameHeader { is_final: true, opcode, mask: Some([9, 8, 7, 6]), ..FrameHeader::default() };
            let mut bytes = Vec::new();
            header.format(length, &mut bytes).unwrap();
            let read = Head::parse(&bytes, 0).unwrap().unwrap();
            assert_eq!((read.payload_len, read.len, read.mask), (length, bytes.len(), [9, 8, 7, 6]));
            for cut in 0..bytes.len() {
                assert_eq!(Head::parse(&bytes[..cut], 0), Ok(None), "incomplete");
            }
            let mut bytes = Vec::new();
            FrameHeader { mask: None, ..header }.format(length, &mut bytes).unwrap();
            assert_eq!(frame_head(Kind::Binary, length as usize).as_slice(), bytes);
        }
    }

    /// The short way takes a frame exactly when the long way would take it as a whole message (RFC 6455 section 5.2).
    #[test]
    fn the_short_way_agrees_with_the_long_one() {
        let mut taken = 0;
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for length in
                    [[0, 0, 0, 0, 0, 0, 0, 126], [0, 125, 0, 0, 0, 0, 0, 0], [0, 130, 0, 0, 0, 0, 0, 0]]
                {
                    let mut bytes = vec![first, second];
                    bytes.extend(length);
                    bytes.resize(200, 0);
                    let long = Head::parse(&bytes, 0).ok().flatten().and_then(|head| match head.opcode {
                        Opcode::Data(kind) if head.is_final => {
                            Some((kind, head.len, head.payload_len as usize))
                        }
                        _ => None,
                    });
                    let long = long.filter(|(_, head, payload)| head + payload <= bytes.len());
                    assert_eq!(ordinary(&bytes), long, "{:x?}", &bytes[..10]);
                    taken += usize::from(long.is_some());
                }
            }
        }
        // Two kinds with 126 short lengths each, three times, and with the one long length that is right.
        assert_eq!(taken, 2 * (126 * 3 + 1));
    }

    /// A reserved bit passes where it was agreed, and only there (RFC 6455 section 5.2).
    #[test]
    fn an_agreed_bit_passes() {
        let bytes = [0xc1, 0x80, 0, 0, 0, 0];
        assert_eq!(Head::parse(&bytes, 0), Err(ProtocolError::ReservedBits));
        assert!(Head::parse(&bytes, 0x40).unwrap().is_some());
        assert_eq!(Head::parse(&bytes, 0x20), Err(ProtocolError::ReservedBits));
    }
}
