//! The opening handshake as a handler sees it.

use std::fmt;
use std::net::SocketAddr;

use crate::abi::{self, wsh_upgrade};
use crate::host;

/// A peer's request for a WebSocket. Exists inside `on_upgrade` only.
pub struct Upgrade {
    raw: *mut wsh_upgrade,
}

impl Upgrade {
    /// # Safety
    /// `raw` is the host's pointer, good for as long as the value is.
    pub(crate) unsafe fn new(raw: *mut wsh_upgrade) -> Self {
        Self { raw }
    }

    pub(crate) fn as_raw(&self) -> *mut wsh_upgrade {
        self.raw
    }

    /// Resource path, percent-decoded: `/chat`.
    pub fn path(&self) -> &str {
        self.attribute(abi::WSH_PATH).unwrap_or_default()
    }

    /// What follows the first `?`, as sent. Empty if there was none.
    pub fn query(&self) -> &str {
        self.attribute(abi::WSH_QUERY).unwrap_or_default()
    }

    /// The value of a parameter of the query, decoded as a form is: `%20` and `+` are spaces. The first one of that name.
    pub fn param(&self, name: &str) -> Option<String> {
        param(self.query(), name)
    }

    /// A parameter of the route that led here, decoded: of `/rooms/{room}` in the server's config `room`, and of a prefix, `/files/*`,
    /// what follows it, by the name `*`. `None` if the route has no such parameter.
    pub fn path_param(&self, name: &str) -> Option<String> {
        param(self.attribute(abi::WSH_PARAMS).unwrap_or_default(), name)
    }

    /// The first value of a header, if it is text. Names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = host::ask(|slot| {
            // SAFETY: `raw` is good; the name is readable, the slot writable.
            unsafe { (host::table().upgrade_header)(self.raw, name.as_ptr(), name.len(), 0, slot) }
        });
        value.and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All header lines, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        (0..).map_while(|index| {
            let (name, value) = host::ask_pair(|name, value| {
                // SAFETY: `raw` is good; the slots are writable.
                unsafe { (host::table().upgrade_header_at)(self.raw, index, name, value) }
            })?;
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// The page that the request comes from, as the browser says; other clients mostly have none.
    pub fn origin(&self) -> Option<&str> {
        self.header("origin")
    }

    /// Address and port of the peer, or of the proxy before this server unless that one is trusted to say it, then with port 0.
    /// `None` where the transport has none, as a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.attribute(abi::WSH_PEER)?.parse().ok()
    }

    /// Whether the connection is TLS's, or that of the peer of a trusted proxy is: `wss://`.
    pub fn is_secure(&self) -> bool {
        self.attribute(abi::WSH_SCHEME) == Some("wss")
    }

    /// Who the peer is, as the server has verified: with a password, a token or a certificate, whatever `auth` in its config asks for.
    /// `None` where it asks for nothing.
    pub fn user(&self) -> Option<&str> {
        self.attribute(abi::WSH_USER)
    }

    /// The subject of the peer's certificate as RFC 4514 writes it, `CN=Ann,O=Example`. The server has verified it; `None` if the
    /// peer showed none, which only `tls.client_auth = "required"` in the server's config rules out.
    pub fn tls_subject(&self) -> Option<&str> {
        self.attribute(abi::WSH_TLS_SUBJECT)
    }

    /// The alternative names of the peer's certificate, each behind its kind: `DNS:`, `email:`, `URI:` or `IP:`.
    pub fn tls_names(&self) -> impl Iterator<Item = &str> {
        self.attribute(abi::WSH_TLS_NAMES).unwrap_or_default().lines()
    }

    /// The subprotocols that the peer offers, in its order of preference.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        (0..).map_while(|index| {
            let protocol = host::ask(|slot| {
                // SAFETY: `raw` is good; the slot is writable.
                unsafe { (host::table().upgrade_offered_protocol)(self.raw, index, slot) }
            })?;
            std::str::from_utf8(protocol).ok()
        })
    }

    /// Agrees to a subprotocol that the peer offers. Once.
    ///
    /// # Errors
    /// Nothing is agreed, and the peer can be accepted all the same.
    pub fn choose_protocol(&mut self, protocol: &str) -> Result<(), ProtocolError> {
        // SAFETY: `raw` is good; the name is readable.
        let status =
            unsafe { (host::table().upgrade_choose_protocol)(self.raw, protocol.as_ptr(), protocol.len()) };
        match status {
            abi::WSH_E_STATE => Err(ProtocolError::Chosen),
            status if status < abi::WSH_OK => Err(ProtocolError::NotOffered),
            _ => Ok(()),
        }
    }

    /// Adds a header to the answer, `Set-Cookie` for instance.
    ///
    /// # Errors
    /// It is left out.
    pub fn add_header(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        let table = host::table();
        // SAFETY: `raw` is good; name and value are readable.
        let status = unsafe {
            (table.upgrade_add_header)(self.raw, name.as_ptr(), name.len(), value.as_ptr(), value.len())
        };
        if status < abi::WSH_OK { Err(InvalidHeader) } else { Ok(()) }
    }

    /// Writes a refusal down for the host.
    pub(crate) fn reject(&mut self, reject: &Reject) {
        for (name, value) in &reject.headers {
            // One that HTTP does not allow is left out; the refusal is more important.
            let _ = self.add_header(name, value);
        }
        if reject.aborts && self.abort() {
            return;
        }
        let body = reject.body.as_bytes();
        // SAFETY: `raw` is good; the body is readable.
        let status =
            unsafe { (host::table().upgrade_reject)(self.raw, reject.status, body.as_ptr(), body.len()) };
        if status < abi::WSH_OK {
            let why =
                if status == abi::WSH_E_FORBIDDEN { "needs raw access" } else { "is no status that refuses" };
            crate::log::error(format_args!("{} {why}: answered with 403", reject.status));
        }
    }

    fn attribute(&self, attribute: u32) -> Option<&str> {
        let value = host::ask(|slot| {
            // SAFETY: `raw` is good; the slot is writable.
            unsafe { (host::table().upgrade_attribute)(self.raw, attribute, slot) }
        });
        value.and_then(|value| std::str::from_utf8(value).ok())
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("path", &self.path())
            .field("query", &self.query())
            .finish_non_exhaustive()
    }
}

/// A refusal: HTTP status, body, headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    status: u16,
    body: String,
    headers: Vec<(String, String)>,
    /// Without an answer.
    aborts: bool,
}

impl Reject {
    /// A status from 300 to 599; with [raw access](crate::raw) any from 200 to 999. Another one is answered with 403.
    pub fn new(status: u16) -> Self {
        Self { status, body: String::new(), headers: Vec::new(), aborts: false }
    }

    /// 403, with a reason for the person who reads it.
    pub fn forbidden(body: impl Into<String>) -> Self {
        Self::new(403).body(body)
    }

    /// No answer: the connection ends.
    pub fn abort() -> Self {
        Self { aborts: true, ..Self::new(403) }
    }

    /// What the peer reads, as text/plain.
    #[must_use]
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a header to the answer. One that HTTP does not allow is left out.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Why no subprotocol was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The peer did not offer it.
    NotOffered,
    /// One was chosen before.
    Chosen,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOffered => "the peer did not offer this subprotocol",
            Self::Chosen => "a subprotocol was chosen before",
        })
    }
}

impl std::error::Error for ProtocolError {}

/// HTTP does not allow this name or value, or the header belongs to the handshake itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHeader;

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HTTP does not allow this header here")
    }
}

impl std::error::Error for InvalidHeader {}

pub(crate) fn param(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(found) == name).then(|| decode(value))
    })
}

/// The application/x-www-form-urlencoded form of the URL standard. What is not an escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escape = after.first_chunk::<2>().and_then(|digits| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
        });
        match (first, escape) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::param;

    #[test]
    fn parameters_are_decoded_as_a_form_is() {
        let query = "room=blue%20moon&name=J%C3%B6rg+K.&empty=&flag&name=second&bad=%zz%4";
        let value = |name| param(query, name);
        assert_eq!(value("room").as_deref(), Some("blue moon"));
        assert_eq!(value("name").as_deref(), Some("Jörg K."), "the first one");
        assert_eq!(value("empty").as_deref(), Some(""));
        assert_eq!(value("flag").as_deref(), Some(""));
        assert_eq!(value("bad").as_deref(), Some("%zz%4"), "no escapes");
        assert_eq!(value("none"), None);
    }
}
