//! The end of what went one way as plain text: all that the next message of that way may refer to.

/// Only messages that were compressed are in it (RFC 7692 section 7.2.1). Holds no memory before the first, and never more than
/// its bound.
#[derive(Debug)]
pub(crate) struct History {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl History {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A compressed message of this plain text went by.
    pub(crate) fn push(&mut self, text: &[u8]) {
        let text = &text[text.len().saturating_sub(self.bytes_max)..];
        let surplus = (self.bytes.len() + text.len()).saturating_sub(self.bytes_max);
        self.bytes.drain(..surplus);
        let needed = self.bytes.len() + text.len();
        if needed > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity()).clamp(needed, self.bytes_max);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is the end of all that went by, and its memory follows that up to the bound.
    #[test]
    fn it_keeps_the_end_within_its_bound() {
        for bytes_max in [0, 1, 250, 256, 1000] {
            for step in [0, 1, 7, 256, 900, 5000] {
                let (mut history, mut all) = (History::new(bytes_max), Vec::new());
                assert_eq!(history.bytes.capacity(), 0);
                for round in 0..40 {
                    let text: Vec<u8> = (0..step).map(|index| (index * 31 + round) as u8).collect();
                    history.push(&text);
                    all.extend(text);
                    assert_eq!(history.bytes(), &all[all.len().saturating_sub(bytes_max)..]);
                    assert!(history.bytes.capacity() <= bytes_max.min(2 * all.len()));
                }
            }
        }
    }
}
