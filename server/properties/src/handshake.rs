//! A request is taken for a WebSocket exactly when RFC 6455 section 4.2.1 says so, and the answer is right.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use tungstenite::handshake::derive_accept_key;
use wshd_protocol::DeflateRules;
use wshd_protocol::handshake::{Offer, Rejection, is_upgrade};

/// `bytes` are a request head without its path: `GET HTTP/1.1`, and lines `name: value`. Lines that HTTP has no room for are
/// left out.
pub fn handshake(bytes: &[u8]) {
    let Some(request) = Request::read(bytes) else { return };
    match Offer::parse(&request.method, request.version, &request.headers) {
        Ok(offer) => {
            assert_eq!(request.faults(), [], "it was taken");
            assert!(is_upgrade(&request.headers));
            answer_is_right(&request, &offer);
        }
        Err(Rejection::Extensions) => {
            assert_eq!(request.faults(), [], "nothing else is wrong with it");
            assert!(request.headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS));
            refusal_is_right(Rejection::Extensions);
        }
        Err(rejection) => {
            assert!(request.faults().contains(&rejection), "{rejection:?} is not what is wrong");
            refusal_is_right(rejection);
        }
    }
}

struct Request {
    method: Method,
    version: Version,
    headers: HeaderMap,
}

impl Request {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let first = lines.next()?;
        let (method, version) = first.split_at(first.iter().position(|byte| *byte == b' ')?);
        let version = match version {
            b" HTTP/1.1" => Version::HTTP_11,
            b" HTTP/1.0" => Version::HTTP_10,
            b" HTTP/2" => Version::HTTP_2,
            _ => return None,
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        Some(Self { method: Method::from_bytes(method).ok()?, version, headers })
    }

    /// All that is wrong with it, by the items of RFC 6455 section 4.2.1 and by HTTP; but not with its extensions.
    fn faults(&self) -> Vec<Rejection> {
        let is_once = |name| self.headers.get_all(name).iter().count() == 1;
        let length = self.text(header::CONTENT_LENGTH);
        let has_body = self.headers.contains_key(header::TRANSFER_ENCODING)
            || self.headers.contains_key(header::CONTENT_LENGTH) && length != b"0";
        let judged = [
            (self.method == Method::GET, Rejection::Method),
            (self.version == Version::HTTP_11, Rejection::HttpVersion),
            (is_once(header::HOST), Rejection::NotOnce("Host")),
            (self.names(header::UPGRADE, "websocket"), Rejection::NoWebSocket),
            (self.names(header::CONNECTION, "upgrade"), Rejection::NoUpgrade),
            (is_once(header::SEC_WEBSOCKET_KEY), Rejection::NotOnce("Sec-WebSocket-Key")),
            (is_key(&self.text(header::SEC_WEBSOCKET_KEY)), Rejection::Key),
            (is_once(header::SEC_WEBSOCKET_VERSION), Rejection::NotOnce("Sec-WebSocket-Version")),
            (self.text(header::SEC_WEBSOCKET_VERSION) == b"13", Rejection::WebSocketVersion),
            (!has_body, Rejection::Body),
            (self.protocols().is_some(), Rejection::Protocols),
        ];
        judged.into_iter().filter(|(is_right, _)| !is_right).map(|(_, fault)| fault).collect()
    }

    /// All lines of this name as the one list that they are (RFC 9110 section 5.3).
    fn text(&self, name: HeaderName) -> Vec<u8> {
        let lines: Vec<_> = self.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        lines.join(&b',')
    }

    fn elements(&self, name: HeaderName) -> Vec<String> {
        // Bytes above ASCII are no letters of a token either way.
        let text: String = self.text(name).into_iter().map(char::from).collect();
        let elements = text.split(',').map(|element| element.trim_matches([' ', '\t']).to_owned());
        elements.filter(|element| !element.is_empty()).collect()
    }

    fn names(&self, name: HeaderName, word: &str) -> bool {
        self.elements(name).iter().any(|element| element.eq_ignore_ascii_case(word))
    }

    /// What is offered; `None` if that is no list of different tokens, or longer than anybody's.
    fn protocols(&self) -> Option<Vec<String>> {
        let list = self.elements(header::SEC_WEBSOCKET_PROTOCOL);
        let is_named = self.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
        let mut different = list.clone();
        different.sort_unstable();
        different.dedup();
        let separators = "\"(),/:;<=>?@[\\]{}";
        let is_token =
            |word: &String| word.chars().all(|char| char.is_ascii_graphic() && !separators.contains(char));
        let is_right = list.iter().all(is_token)
            && different.len() == list.len()
            && list.len() <= 128
            && is_named != list.is_empty();
        is_right.then_some(list)
    }
}

/// Sixteen bytes in base64 (RFC 4648 section 4): four letters for three bytes, and bits that stand for nothing are zero.
fn is_key(key: &[u8]) -> bool {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let Some(letters) = key.strip_suffix(b"==") else { return false };
    let values: Option<Vec<_>> =
        letters.iter().map(|letter| alphabet.iter().position(|known| known == letter)).collect();
    values.is_some_and(|values| values.len() == 22 && values[21] % 16 == 0)
}

fn answer_is_right(request: &Request, offer: &Offer<'_>) {
    let protocols = request.protocols().expect("nothing is wrong with it");
    assert!(offer.protocols().eq(protocols.iter().map(String::as_str)));
    offer.accept(Some("nobody offers this name"), None).expect_err("it was not offered");
    let rules = DeflateRules { is_on: true, ..DeflateRules::default() };
    let deflate = rules.agree(offer.extensions());
    for protocol in protocols.iter().map(Some).chain([None]) {
        let answer = offer.accept(protocol.map(String::as_str), deflate.as_ref()).expect("it was offered");
        let text = |name| answer.get(name).map(|value: &HeaderValue| value.as_bytes());
        assert_eq!(text(header::UPGRADE), Some(&b"websocket"[..]));
        assert_eq!(text(header::CONNECTION), Some(&b"Upgrade"[..]));
        let accept = derive_accept_key(&request.text(header::SEC_WEBSOCKET_KEY));
        assert_eq!(text(header::SEC_WEBSOCKET_ACCEPT), Some(accept.as_bytes()));
        assert_eq!(text(header::SEC_WEBSOCKET_PROTOCOL), protocol.map(String::as_bytes));
        let extension = text(header::SEC_WEBSOCKET_EXTENSIONS).unwrap_or_default();
        assert_eq!(extension.starts_with(b"permessage-deflate"), deflate.is_some());
        assert_eq!(answer.len(), 3 + usize::from(protocol.is_some()) + usize::from(deflate.is_some()));
    }
}

/// It says what would have been taken (RFC 9110 sections 15.5.6 and 15.5.22).
fn refusal_is_right(rejection: Rejection) {
    assert!(!rejection.to_string().is_empty());
    let headers = rejection.headers();
    match rejection.status() {
        StatusCode::METHOD_NOT_ALLOWED => assert_eq!(headers[header::ALLOW], "GET"),
        StatusCode::UPGRADE_REQUIRED => {
            assert_eq!(headers[header::UPGRADE], "websocket");
            assert_eq!(headers[header::SEC_WEBSOCKET_VERSION], "13");
        }
        status => {
            assert!(status == StatusCode::BAD_REQUEST || status == StatusCode::HTTP_VERSION_NOT_SUPPORTED);
            assert!(headers.is_empty());
        }
    }
}
