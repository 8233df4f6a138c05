//! Messages, and their assembly from what arrives in pieces.

use std::borrow::Cow;

use crate::Limits;
use crate::error::ProtocolError;
use crate::utf8::Utf8;

/// Text or binary (RFC 6455 section 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, opcode 1.
    Text,
    /// Any bytes, opcode 2.
    Binary,
}

/// A whole message of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'b> {
    /// As the peer declared it with the first frame.
    pub kind: Kind,
    /// Borrowed from the caller's buffer where the message lay in it whole, and unmasked there. Owned where it came in pieces.
    /// Borrowed from the [`Inflater`](crate::Inflater) where it came compressed. A text was found to be UTF-8.
    pub payload: Cow<'b, [u8]>,
}

/// Whether a whole payload is what its kind promises: a text is UTF-8 (RFC 6455 section 8.1).
#[inline]
pub(crate) fn is_right(kind: Kind, payload: &[u8]) -> bool {
    kind == Kind::Binary || simdutf8::basic::from_utf8(payload).is_ok()
}

/// A message that has begun and not ended.
#[derive(Debug)]
pub(crate) struct Assembly {
    kind: Kind,
    /// The bytes are compressed; what they are as a text is not known before the end.
    is_compressed: bool,
    /// Grows with what arrives, never with what a header announces.
    bytes: Vec<u8>,
    utf8: Utf8,
    empty_fragments: u32,
}

impl Assembly {
    pub(crate) fn new(kind: Kind, is_compressed: bool) -> Self {
        Self { kind, is_compressed, bytes: Vec::new(), utf8: Utf8::default(), empty_fragments: 0 }
    }

    /// Of the bytes as they came.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    /// Of a message that is compressed, what there is to inflate.
    pub(crate) fn compressed(&self) -> &[u8] {
        &self.bytes
    }

    /// A continuation frame begins.
    pub(crate) fn on_continuation(&mut self, payload_len: u64, limits: &Limits) -> Result<(), ProtocolError> {
        if payload_len == 0 {
            self.empty_fragments = self.empty_fragments.saturating_add(1);
            if self.empty_fragments > limits.empty_fragments_max {
                return Err(ProtocolError::EmptyFragments { limit: limits.empty_fragments_max });
            }
        }
        Ok(())
    }

    /// Takes in unmasked bytes. The message is known to end with at most `len_max` bytes in all.
    pub(crate) fn push(&mut self, bytes: &[u8], len_max: usize) -> Result<(), ProtocolError> {
        if self.kind == Kind::Text && !self.is_compressed {
            self.utf8.push(bytes).map_err(|_| ProtocolError::InvalidText)?;
        }
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            // Doubling keeps the copies few, and the memory below twice of what the peer has really sent; the bound keeps the
            // last step from reaching past the end of the message. The last step but one ends half way: while the bytes are
            // copied they lie in both rooms, which together are then half as much again as the bound.
            let (capacity, half) = (self.bytes.capacity(), len_max / 2);
            let capacity = if capacity < half { (2 * capacity).min(half) } else { 2 * capacity };
            let capacity = capacity.clamp(needed, len_max.max(needed));
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Gives the bytes back and takes no more: the message is read only to find its end.
    pub(crate) fn discard(&mut self) {
        self.bytes = Vec::new();
    }

    /// The last frame has arrived.
    pub(crate) fn finish<'b>(self) -> Result<Message<'b>, ProtocolError> {
        self.utf8.finish().map_err(|_| ProtocolError::InvalidText)?;
        Ok(Message { kind: self.kind, payload: Cow::Owned(self.bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory follows what the peer sent: at most twice as much while a message grows, and nothing for what is announced.
    #[test]
    fn memory_follows_the_bytes_received() {
        let len_max = 1_000_000;
        let mut assembly = Assembly::new(Kind::Binary, false);
        assert_eq!(assembly.bytes.capacity(), 0);
        while assembly.len() < len_max {
            let (piece, before) = ([0; 1000], assembly.bytes.capacity());
            assembly.push(&piece, len_max).unwrap();
            let after = assembly.bytes.capacity();
            assert!(after <= (2 * assembly.len()).min(len_max), "at {}", assembly.len());
            assert!(after == before || before + after <= len_max / 2 * 3, "at {}", assembly.len());
        }
        assert_eq!(assembly.finish().unwrap().payload.len(), len_max);
    }
}
