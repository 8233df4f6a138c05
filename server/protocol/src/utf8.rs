//! UTF-8 as it arrives, cut anywhere.

/// Checks a text in pieces, and fails as soon as no continuation could make it valid. Four bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character whose end has not arrived: three bytes at the longest.
    cut: [u8; 3],
    cut_len: u8,
}

/// Some bytes that no continuation could make a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidUtf8;

impl Utf8 {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let bytes = self.complete(bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let (whole, cut) = bytes.split_at(bytes.len() - cut_len(bytes));
        simdutf8::basic::from_utf8(whole).map_err(|_| InvalidUtf8)?;
        self.keep(cut)
    }

    /// The text ends here: no character may be cut.
    pub(crate) fn finish(self) -> Result<(), InvalidUtf8> {
        if self.cut_len == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Completes the character that was cut, as far as `bytes` goes. Returns what lies behind it.
    fn complete<'b>(&mut self, mut bytes: &'b [u8]) -> Result<&'b [u8], InvalidUtf8> {
        while self.cut_len > 0 {
            let Some((first, rest)) = bytes.split_first() else { break };
            let cut_len = usize::from(self.cut_len);
            let mut character = [0; 4];
            character[..cut_len].copy_from_slice(&self.cut[..cut_len]);
            character[cut_len] = *first;
            bytes = rest;
            self.keep(&character[..=cut_len])?;
        }
        Ok(bytes)
    }

    /// Keeps the beginning of a character; a whole one needs no keeping.
    fn keep(&mut self, character: &[u8]) -> Result<(), InvalidUtf8> {
        self.cut_len = 0;
        match std::str::from_utf8(character) {
            Ok(_) => Ok(()),
            // Without a length, the bytes are a valid beginning and nothing but short.
            Err(error) if error.error_len().is_none() => {
                self.cut[..character.len()].copy_from_slice(character);
                self.cut_len = character.len() as u8;
                Ok(())
            }
            Err(_) => Err(InvalidUtf8),
        }
    }
}

/// How many bytes at the end may be a character whose end is missing: from the last byte that begins one, if it announces more
/// than there are. Whether these bytes can become a character is not looked at here.
fn cut_len(bytes: &[u8]) -> usize {
    let announced = |byte: u8| match byte {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    };
    let is_beginning = |byte: &u8| *byte & 0xc0 != 0x80;
    match bytes.iter().rev().take(3).position(is_beginning) {
        Some(behind) if announced(bytes[bytes.len() - 1 - behind]) > behind + 1 => behind + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&[u8]; 16] = [
        b"",
        b"plain",
        "grüße, 世界 🌍".as_bytes(),
        b"\xff",
        b"a\xc3",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf0\x9f\x8c",
        b"ok \xce\xba\xcf\x8c\xcf\x83\xce\xbc\xce\xb5 \xf8",
        b"\xc0\xaf",
        b"\xf0\x9f\x8c\x8d tail",
        b"\x80",
        b"\xf0\x9f\x8c\x8d\x8d",
        b"\xf4\x8f\xbf\xbf\xef\xbf\xbf",
        b"\xf8\x88\x80\x80\x80",
    ];

    fn check(pieces: &[&[u8]]) -> Result<(), InvalidUtf8> {
        let mut utf8 = Utf8::default();
        for piece in pieces {
            utf8.push(piece)?;
        }
        utf8.finish()
    }

    /// A text is UTF-8 or not, wherever frames and reads cut it (RFC 6455 section 5.6).
    #[test]
    fn the_verdict_is_that_of_the_whole_however_it_is_cut() {
        for text in TEXTS {
            let expected = std::str::from_utf8(text).is_ok();
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let pieces = [&text[..first], &text[first..second], &text[second..]];
                    assert_eq!(check(&pieces).is_ok(), expected, "{text:?} cut at {first} and {second}");
                }
            }
        }
    }

    /// Every pair of bytes, and every triple that begins a long character, gets std's verdict at once: valid, invalid, or not
    /// yet known.
    #[test]
    fn each_short_sequence_is_judged_as_std_judges_it() {
        for (length, numbers) in [(1, 0..=0xff_u32), (2, 0..=0xffff), (3, 0xe0_0000..=0xf8_ffff)] {
            for number in numbers {
                let bytes = &number.to_be_bytes()[4 - length..];
                let mut utf8 = Utf8::default();
                let verdict = utf8.push(bytes);
                match std::str::from_utf8(bytes) {
                    Ok(_) => assert_eq!((verdict, utf8.finish()), (Ok(()), Ok(())), "{bytes:x?}"),
                    Err(error) if error.error_len().is_none() => {
                        assert_eq!((verdict, utf8.finish()), (Ok(()), Err(InvalidUtf8)), "{bytes:x?}");
                    }
                    Err(_) => assert_eq!(verdict, Err(InvalidUtf8), "{bytes:x?}"),
                }
            }
        }
    }

    /// A text fails at the first byte that makes it certain, not at the end of the character (RFC 6455 section 8.1).
    #[test]
    fn a_text_fails_as_soon_as_it_is_certain() {
        let mut utf8 = Utf8::default();
        assert!(utf8.push(b"\xf4").is_ok());
        assert_eq!(utf8.push(b"\x90"), Err(InvalidUtf8), "no continuation can make this a character");
    }

    /// What is kept of a text between two calls is four bytes.
    #[test]
    fn the_state_is_four_bytes() {
        assert_eq!(size_of::<Utf8>(), 4);
    }
}
