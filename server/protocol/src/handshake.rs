//! The opening handshake: what a request must say, and what the answer says (RFC 6455 section 4.2).
//!
//! Reading and writing HTTP is the caller's; this module judges the headers. In: method, version and headers. Out: an
//! [`Offer`], whose [`accept`](Offer::accept) gives the headers of the answer 101, or a [`Rejection`] with its HTTP status.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use tungstenite::handshake::derive_accept_key;

use crate::deflate::DeflateAgreement;
use crate::extension::{self, ExtensionOffer};

/// A request that asks for a WebSocket in the right way. It borrows what it says from the request's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<'h> {
    key: &'h [u8],
    protocols: Vec<&'h str>,
    extensions: Vec<ExtensionOffer<'h>>,
}

/// Why a request does not become a WebSocket. Refused with 400 unless the variant says otherwise; its `Display` is meant for
/// the body of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// Not GET (RFC 6455 section 4.2.1, item 1). Refused with 405.
    Method,
    /// Not HTTP/1.1 (item 1; HTTP/2 would open a WebSocket in another way, RFC 8441). Refused with 505.
    HttpVersion,
    /// A header that has to be there once is missing, or there more than once (items 2 and 5).
    NotOnce(&'static str),
    /// `Upgrade` does not name `websocket` (item 3). Refused with 426.
    NoWebSocket,
    /// `Connection` does not name `upgrade` (item 4).
    NoUpgrade,
    /// `Sec-WebSocket-Key` is not sixteen bytes in base64 (item 5).
    Key,
    /// A version other than 13, or none (item 6 and section 4.4). Refused with 426.
    WebSocketVersion,
    /// A body is announced, or two lengths are.
    Body,
    /// `Sec-WebSocket-Protocol` is not a list of different tokens (section 4.1, item 10).
    Protocols,
    /// `Sec-WebSocket-Extensions` is not a list of extensions (section 9.1).
    Extensions,
}

/// The subprotocol was not among those the peer offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOffered;

impl fmt::Display for NotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer did not offer this subprotocol")
    }
}

impl std::error::Error for NotOffered {}

/// Whether a request asks to leave HTTP for a WebSocket, rightly or not. One that does not is an ordinary request: a file may
/// be the answer.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE, "websocket")
}

/// What `Sec-WebSocket-Accept` answers to a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2, item 5.4).
pub fn accept_key(key: &[u8]) -> String {
    derive_accept_key(key)
}

impl<'h> Offer<'h> {
    /// Checks what RFC 6455 section 4.2.1 demands of the request. The path, the origin and who is asking are the caller's to
    /// judge.
    ///
    /// # Errors
    /// The first of the [rejections](Rejection) that applies.
    pub fn parse(method: &Method, version: Version, headers: &'h HeaderMap) -> Result<Self, Rejection> {
        if method != Method::GET {
            return Err(Rejection::Method);
        }
        if version != Version::HTTP_11 {
            return Err(Rejection::HttpVersion);
        }
        once(headers, header::HOST, "Host")?;
        // A body would lie where the first frame is expected.
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let is_empty = lengths.next().is_none_or(|length| length == "0") && lengths.next().is_none();
        if !is_empty || headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(Rejection::Body);
        }
        if !has_token(headers, header::UPGRADE, "websocket") {
            return Err(Rejection::NoWebSocket);
        }
        if !has_token(headers, header::CONNECTION, "upgrade") {
            return Err(Rejection::NoUpgrade);
        }
        // Of a version that is not spoken here, nothing but the answer to it is known.
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(Rejection::WebSocketVersion);
        }
        once(headers, header::SEC_WEBSOCKET_VERSION, "Sec-WebSocket-Version")?;
        let key = once(headers, header::SEC_WEBSOCKET_KEY, "Sec-WebSocket-Key")?.as_bytes();
        if !is_sixteen_bytes_in_base64(key) {
            return Err(Rejection::Key);
        }
        let protocols = protocols(headers)?;
        let lines = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().map(HeaderValue::as_bytes);
        let extensions = extension::parse(lines).map_err(|_| Rejection::Extensions)?;
        Ok(Self { key, protocols, extensions })
    }

    /// The subprotocols the peer offers, in its order of preference.
    pub fn protocols(&self) -> impl Iterator<Item = &'h str> {
        self.protocols.iter().copied()
    }

    /// The extensions the peer offers, in its order of preference.
    /// [`DeflateRules::agree`](crate::DeflateRules::agree) takes one of them, or none.
    pub fn extensions(&self) -> &[ExtensionOffer<'h>] {
        &self.extensions
    }

    /// The headers of the answer 101 (RFC 6455 section 4.2.2), agreeing to one of the offered subprotocols or to none, and to
    /// permessage-deflate or to no extension. An agreement has to be one about [`extensions`](Self::extensions) of this offer.
    ///
    /// # Errors
    /// [`NotOffered`] if `protocol` is not, letter for letter, one of [`protocols`](Self::protocols): a peer has to fail a
    /// connection that agrees to something else (section 4.1).
    pub fn accept(
        &self,
        protocol: Option<&str>,
        deflate: Option<&DeflateAgreement>,
    ) -> Result<HeaderMap, NotOffered> {
        let mut answer = HeaderMap::with_capacity(5);
        answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let accept = HeaderValue::try_from(accept_key(self.key)).expect("base64 is a header value");
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol {
            let offered = self.protocols.iter().find(|offered| **offered == protocol).ok_or(NotOffered)?;
            let value = HeaderValue::from_str(offered).expect("it came in a header");
            answer.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        if let Some(deflate) = deflate {
            let value = HeaderValue::try_from(deflate.to_string()).expect("it is words and numbers");
            answer.insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
        }
        Ok(answer)
    }
}

impl Rejection {
    /// The status of the refusal.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            // RFC 6455 section 4.4, RFC 9110 section 15.5.22.
            Self::WebSocketVersion | Self::NoWebSocket => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Headers that belong to the refusal: `Allow` to 405, and to 426 what would have been accepted.
    pub fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            Self::WebSocketVersion | Self::NoWebSocket => {
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                // RFC 9110 section 7.8: Upgrade is always announced in Connection.
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            }
            _ => {}
        }
        headers
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("a WebSocket is opened with GET"),
            Self::HttpVersion => f.write_str("a WebSocket is opened with HTTP/1.1"),
            Self::NotOnce(name) => write!(f, "the request must have exactly one {name} header"),
            Self::NoWebSocket => f.write_str("the Upgrade header does not name websocket"),
            Self::NoUpgrade => f.write_str("the Connection header does not name upgrade"),
            Self::Key => f.write_str("Sec-WebSocket-Key is not sixteen bytes in base64"),
            Self::WebSocketVersion => f.write_str("only version 13 of the WebSocket protocol is spoken here"),
            Self::Body => f.write_str("a request that opens a WebSocket has no body"),
            Self::Protocols => f.write_str("Sec-WebSocket-Protocol is not a list of different names"),
            Self::Extensions => f.write_str("Sec-WebSocket-Extensions is not a list of extensions"),
        }
    }
}

impl std::error::Error for Rejection {}

fn once<'h>(
    headers: &'h HeaderMap,
    name: HeaderName,
    shown: &'static str,
) -> Result<&'h HeaderValue, Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Rejection::NotOnce(shown)),
    }
}

/// The elements of a list that may stand in several header lines; empty ones do not count (RFC 9110 section 5.6.1).
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// Tokens, each once, and at least one where there is a list (RFC 6455 section 4.1, item 10).
fn protocols(headers: &HeaderMap) -> Result<Vec<&str>, Rejection> {
    let mut protocols = Vec::new();
    for element in elements(headers, header::SEC_WEBSOCKET_PROTOCOL) {
        let protocol = token(element).ok_or(Rejection::Protocols)?;
        if protocols.contains(&protocol) || protocols.len() == PROTOCOLS_MAX {
            return Err(Rejection::Protocols);
        }
        protocols.push(protocol);
    }
    if protocols.is_empty() && headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Err(Rejection::Protocols);
    }
    Ok(protocols)
}

/// More than any client offers; keeps the comparison of each with each other cheap.
const PROTOCOLS_MAX: usize = 128;

/// RFC 9110 section 5.6.2.
pub(crate) fn token(element: &[u8]) -> Option<&str> {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if element.iter().all(is_tchar) { std::str::from_utf8(element).ok() } else { None }
}

/// Twenty-two characters and two of padding; of the last character only two bits may be set.
fn is_sixteen_bytes_in_base64(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(is_base64)
        && matches!(key[21], b'A' | b'Q' | b'g' | b'w')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("host", "server.example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    /// The good request without one header and with others instead.
    fn judge(without: &str, with: &[(&str, &str)]) -> Result<(), Rejection> {
        let mut pairs: Vec<_> = GOOD.into_iter().filter(|(name, _)| *name != without).collect();
        pairs.extend(with);
        Offer::parse(&Method::GET, Version::HTTP_11, &headers(&pairs)).map(|_| ())
    }

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn the_key_of_the_rfc_gets_the_answer_of_the_rfc() {
        let mut pairs = GOOD.to_vec();
        pairs.push(("sec-websocket-protocol", "chat, superchat"));
        let headers = headers(&pairs);
        let offer = Offer::parse(&Method::GET, Version::HTTP_11, &headers).unwrap();
        let answer = offer.accept(Some("chat"), None).unwrap();
        assert_eq!(answer[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer[header::SEC_WEBSOCKET_PROTOCOL], "chat");
        assert_eq!(offer.accept(Some("other"), None), Err(NotOffered));
        assert!(!offer.accept(None, None).unwrap().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    }

    /// Lists may stand in several lines, and tokens are compared without case (RFC 6455 section 4.2.1, items 3 and 4).
    #[test]
    fn tokens_are_found_in_any_case_and_place() {
        assert_eq!(judge("upgrade", &[("upgrade", "h2c, WebSocket")]), Ok(()));
        assert_eq!(
            judge("connection", &[("connection", "keep-alive"), ("connection", "foo ,UPGRADE")]),
            Ok(())
        );
        assert!(is_upgrade(&headers(&[("upgrade", "WEBSOCKET")])));
        assert!(!is_upgrade(&headers(&[("upgrade", "websockets")])));
        assert!(!is_upgrade(&headers(&[])));
    }

    /// RFC 6455 section 4.2.1: what the request must have.
    #[test]
    fn each_missing_or_wrong_part_is_named() {
        use Rejection::{Body, Key, NoUpgrade, NoWebSocket, NotOnce, Protocols, WebSocketVersion};
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Rejection);
        let cases: &[Case<'_>] = &[
            ("host", &[], NotOnce("Host")),
            ("", &[("host", "other")], NotOnce("Host")),
            ("upgrade", &[], NoWebSocket),
            ("upgrade", &[("upgrade", "h2c")], NoWebSocket),
            ("connection", &[], NoUpgrade),
            ("connection", &[("connection", "close")], NoUpgrade),
            ("sec-websocket-key", &[], NotOnce("Sec-WebSocket-Key")),
            ("", &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")], NotOnce("Sec-WebSocket-Key")),
            ("sec-websocket-key", &[("sec-websocket-key", "dGhlIHNhbXBsZQ==")], Key),
            ("sec-websocket-key", &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZR==")], Key),
            ("sec-websocket-key", &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25j!Q==")], Key),
            ("sec-websocket-version", &[], WebSocketVersion),
            ("", &[("sec-websocket-version", "13")], NotOnce("Sec-WebSocket-Version")),
            ("sec-websocket-version", &[("sec-websocket-version", "8")], WebSocketVersion),
            ("sec-websocket-version", &[("sec-websocket-version", "13, 8")], WebSocketVersion),
            ("", &[("content-length", "5")], Body),
            ("", &[("content-length", "0"), ("content-length", "0")], Body),
            ("", &[("transfer-encoding", "chunked")], Body),
            ("", &[("sec-websocket-protocol", "a b")], Protocols),
            ("", &[("sec-websocket-protocol", "a;b")], Protocols),
            ("", &[("sec-websocket-protocol", " , ")], Protocols),
            ("", &[("sec-websocket-protocol", "a"), ("sec-websocket-protocol", "a")], Protocols),
        ];
        for (without, with, expected) in cases {
            assert_eq!(judge(without, with), Err(*expected), "without {without:?}, with {with:?}");
        }
        assert_eq!(judge("", &[("content-length", "0")]), Ok(()));
    }

    /// The refusal tells a client what would have been accepted (RFC 6455 section 4.4, RFC 9110 section 15.5).
    #[test]
    fn the_status_says_what_is_wrong() {
        let headers = headers(&GOOD);
        let status =
            |method, version| Offer::parse(&method, version, &headers).unwrap_err().status().as_u16();
        assert_eq!(status(Method::POST, Version::HTTP_11), 405);
        assert_eq!(status(Method::GET, Version::HTTP_10), 505);
        for rejection in [Rejection::WebSocketVersion, Rejection::NoWebSocket] {
            assert_eq!(rejection.status().as_u16(), 426);
            assert_eq!(rejection.headers()[header::SEC_WEBSOCKET_VERSION], "13");
            assert_eq!(rejection.headers()[header::UPGRADE], "websocket");
        }
        assert_eq!(Rejection::Method.headers()[header::ALLOW], "GET");
        assert_eq!(Rejection::Key.status().as_u16(), 400);
    }

    /// The order is the peer's preference, over several lines too (RFC 6455 sections 4.1 and 11.3.4). Empty elements are skipped.
    #[test]
    fn subprotocols_keep_the_order_of_the_peer() {
        let mut pairs = GOOD.to_vec();
        pairs.extend([("sec-websocket-protocol", "b,, a"), ("sec-websocket-protocol", "c")]);
        let headers = headers(&pairs);
        let offer = Offer::parse(&Method::GET, Version::HTTP_11, &headers).unwrap();
        assert_eq!(offer.protocols().collect::<Vec<_>>(), ["b", "a", "c"]);
    }
}
