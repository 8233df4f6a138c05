//! What a peer offers in `Sec-WebSocket-Extensions` (RFC 6455 section 9.1): names with parameters, in its order of preference.
//!
//! This is the grammar alone. Whether an offer is taken is for the extension to say: `deflate` is the only one there is.

use std::borrow::Cow;

use crate::handshake::token;

/// An extension that a peer offers, in the words of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionOffer<'h> {
    /// A token. Names and parameters are compared letter for letter.
    pub name: &'h str,
    /// In the order of the peer; what a name may mean, and whether it may come twice, is the extension's to say.
    pub parameters: Vec<(&'h str, Option<Cow<'h, str>>)>,
}

/// A header line that is not a list of extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoExtensions;

/// The offers of all header lines, which count as one list (section 9.1). Empty elements do not count (RFC 9110 section 5.6.1),
/// but where there are lines there is an offer.
pub(crate) fn parse<'h>(
    lines: impl Iterator<Item = &'h [u8]>,
) -> Result<Vec<ExtensionOffer<'h>>, NoExtensions> {
    let mut offers = Vec::new();
    let mut is_named = false;
    for line in lines {
        is_named = true;
        let mut rest = Rest(line);
        loop {
            rest.skip_space();
            if !rest.is_empty() && !rest.skip(b',') {
                offers.push(rest.offer()?);
                rest.skip_space();
                if !rest.is_empty() && !rest.skip(b',') {
                    return Err(NoExtensions);
                }
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    if is_named && offers.is_empty() { Err(NoExtensions) } else { Ok(offers) }
}

/// What is left of a header line.
struct Rest<'h>(&'h [u8]);

impl<'h> Rest<'h> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The grammar is RFC 2616's, where white space may stand between any two words (section 2.1 there).
    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn skip(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A name and what follows it up to the next comma.
    fn offer(&mut self) -> Result<ExtensionOffer<'h>, NoExtensions> {
        let mut offer = ExtensionOffer { name: self.token()?, parameters: Vec::new() };
        loop {
            self.skip_space();
            if !self.skip(b';') {
                return Ok(offer);
            }
            self.skip_space();
            let name = self.token()?;
            self.skip_space();
            let value = if self.skip(b'=') {
                self.skip_space();
                Some(self.value()?)
            } else {
                None
            };
            offer.parameters.push((name, value));
        }
    }

    fn token(&mut self) -> Result<&'h str, NoExtensions> {
        let end = self.0.iter().position(|byte| b",;=\" \t".contains(byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        if word.is_empty() { Err(NoExtensions) } else { token(word).ok_or(NoExtensions) }
    }

    /// A token, or a quoted string that is one when its quotes are off (section 9.1).
    fn value(&mut self) -> Result<Cow<'h, str>, NoExtensions> {
        if !self.skip(b'"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut text = String::new();
        loop {
            let (byte, rest) = self.0.split_first().ok_or(NoExtensions)?;
            self.0 = rest;
            let byte = match byte {
                b'"' if text.is_empty() => return Err(NoExtensions),
                b'"' => return Ok(Cow::Owned(text)),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first().ok_or(NoExtensions)?;
                    self.0 = rest;
                    escaped
                }
                byte => byte,
            };
            text.push_str(token(std::slice::from_ref(byte)).ok_or(NoExtensions)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &[&'static str]) -> Option<String> {
        let offers = parse(lines.iter().map(|line| line.as_bytes())).ok()?;
        let shown = offers.iter().map(|offer| {
            let parameters = offer.parameters.iter().map(|(name, value)| match value {
                Some(value) => format!(";{name}={value}"),
                None => format!(";{name}"),
            });
            [offer.name.to_owned(), parameters.collect()].concat()
        });
        Some(shown.collect::<Vec<_>>().join(","))
    }

    /// Several lines are one list, and a value is a token with or without quotes (RFC 6455 section 9.1).
    #[test]
    fn lists_are_read_in_every_form_they_may_have() {
        for (lines, expected) in [
            (&[][..], ""),
            (&["foo"], "foo"),
            (&["foo, bar; baz=2"], "foo,bar;baz=2"),
            (&["foo", "bar; baz=2"], "foo,bar;baz=2"),
            (&["  foo\t;a ; b = 1 ,, bar ,"], "foo;a;b=1,bar"),
            (&["foo; a=\"1\\2\"; b=\"x\""], "foo;a=12;b=x"),
            (&[",", "foo"], "foo"),
            (&["foo;a;a"], "foo;a;a"),
        ] {
            assert_eq!(parsed(lines).as_deref(), Some(expected), "{lines:?}");
        }
    }

    /// Whatever is not such a list is refused (RFC 6455 section 9.1).
    #[test]
    fn what_is_not_a_list_of_extensions_is_refused() {
        for line in [
            "",
            ",",
            ";",
            "foo;",
            "foo;;a",
            "foo;=1",
            "foo;a=",
            "foo;a=,bar",
            "foo=1",
            "foo bar",
            "foo;a b",
            "foo;a=1 2",
            "foo;a=\"",
            "foo;a=\"1",
            "foo;a=\"\"",
            "foo;a=\"1 2\"",
            "foo;a=\"1,2\"",
            "foo;a=\"1\"2",
            "foo;a=\"1\\",
            "foo;a=1\"2\"",
            "f\u{e4}o",
            "foo/bar",
            "\"foo\"",
        ] {
            assert_eq!(parsed(&[line]), None, "{line:?}");
        }
    }
}
