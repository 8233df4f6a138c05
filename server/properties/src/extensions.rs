//! The extension header is read in one way, and what is agreed to is a right answer to an offer.

use std::fmt::Write;

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use http::{Method, Version};
use wshd_protocol::handshake::{Offer, Rejection};
use wshd_protocol::{DeflateAgreement, DeflateRules, ExtensionOffer};

/// Each line of `bytes` is a line `Sec-WebSocket-Extensions` of a request that is right otherwise.
pub fn extensions(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n');
    let headers = request(lines.filter_map(|line| HeaderValue::from_bytes(line).ok()));
    let offers = match offers(&headers) {
        Ok(offers) => offers,
        Err(rejection) => return assert_eq!(rejection, Rejection::Extensions),
    };
    reads_what_it_would_write(&offers);
    for rules in rules() {
        agrees_as_offered(&rules, &offers);
    }
}

fn request(lines: impl Iterator<Item = HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "server.example.com"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for line in lines {
        headers.append(SEC_WEBSOCKET_EXTENSIONS, line);
    }
    headers
}

fn offers(headers: &HeaderMap) -> Result<Vec<ExtensionOffer<'_>>, Rejection> {
    Offer::parse(&Method::GET, Version::HTTP_11, headers).map(|offer| offer.extensions().to_vec())
}

fn reads_what_it_would_write(offers: &[ExtensionOffer<'_>]) {
    if offers.is_empty() {
        return;
    }
    let line = HeaderValue::try_from(written(offers)).expect("it is tokens");
    assert_eq!(self::offers(&request([line].into_iter())).as_deref(), Ok(offers));
}

/// As RFC 6455 section 9.1 has it, without quotes and in one line.
fn written(offers: &[ExtensionOffer<'_>]) -> String {
    let mut line = String::new();
    for ExtensionOffer { name, parameters } in offers {
        let comma = if line.is_empty() { "" } else { ", " };
        write!(line, "{comma}{name}").expect("a String takes everything");
        for (name, value) in parameters {
            assert!(is_token(name), "{name:?}");
            let value = value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
            write!(line, "; {name}{value}").expect("a String takes everything");
        }
    }
    line
}

fn is_token(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte))
}

/// Rules that differ in what an answer depends on.
fn rules() -> [DeflateRules; 4] {
    let on = DeflateRules { is_on: true, ..DeflateRules::default() };
    [
        on,
        DeflateRules {
            server_window_bits_max: 9,
            client_window_bits_max: 8,
            server_history_bytes_max: 32_768,
            ..on
        },
        DeflateRules { server_no_context_takeover: true, ..on },
        DeflateRules { client_no_context_takeover: true, client_window_bits_max: 15, ..on },
    ]
}

/// The first offer that is right is taken, with an answer that RFC 7692 section 7.1 allows; and none where none is right.
fn agrees_as_offered(rules: &DeflateRules, offers: &[ExtensionOffer<'_>]) {
    assert_eq!(DeflateRules { is_on: false, ..*rules }.agree(offers), None);
    let expected = offers.iter().find_map(Parameters::of_an_offer);
    match (rules.agree(offers), expected) {
        (None, None) => {}
        (Some(agreement), Some(offered)) => is_right_answer(rules, &offered, &agreement),
        (agreement, offered) => panic!("{agreement:?} where {offered:?} was offered"),
    }
}

fn is_right_answer(rules: &DeflateRules, offered: &Parameters, agreement: &DeflateAgreement) {
    let line = HeaderValue::try_from(agreement.to_string()).expect("an answer is a header value");
    let headers = request([line].into_iter());
    let answer = offers(&headers).expect("an answer has the grammar of an offer");
    let [answer] = &answer[..] else { panic!("{answer:?} is not one extension") };
    let answer = Parameters::of_an_answer(answer).expect("an answer has parameters that are defined");
    // What the client asked for is granted, and what the server wants for itself is said.
    let one_sided = rules.server_no_context_takeover || offered.server_no_context_takeover;
    assert_eq!(answer.server_no_context_takeover, one_sided);
    let one_sided = rules.client_no_context_takeover || offered.client_no_context_takeover;
    assert_eq!(answer.client_no_context_takeover, one_sided);
    if let Window::Bits(offered) = offered.server_window {
        assert!(matches!(answer.server_window, Window::Bits(bits) if bits <= offered), "{answer:?}");
    }
    match (&offered.client_window, &answer.client_window) {
        (_, Window::Unnamed) => {}
        (Window::Known, Window::Bits(_)) => {}
        (Window::Bits(offered), Window::Bits(bits)) => assert!(bits <= offered, "{bits} of {offered}"),
        (offered, answered) => panic!("{answered:?} where the client said {offered:?}"),
    }
    // What holds is what was said: a window that is not named is one of 32 KiB, or as small as the client made it.
    let parameters = agreement.parameters();
    assert_eq!(parameters.server_no_context_takeover(), answer.server_no_context_takeover);
    assert_eq!(parameters.client_no_context_takeover(), answer.client_no_context_takeover);
    assert!(parameters.server_window_bits() <= answer.server_window.bits());
    assert!(parameters.client_window_bits() >= answer.client_window.bits().min(offered.client_window.bits()));
    assert!(parameters.sent_bytes_max() <= 1 << parameters.server_window_bits());
    let received = if answer.client_no_context_takeover { 0 } else { 1 << parameters.client_window_bits() };
    assert_eq!(parameters.received_bytes_max(), received);
}

/// The parameters of permessage-deflate (RFC 7692 section 7.1).
#[derive(Debug, Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window: Window,
    client_window: Window,
}

#[derive(Debug, Default, Clone, Copy)]
enum Window {
    #[default]
    Unnamed,
    /// Named without a size: the client would keep to one.
    Known,
    Bits(u8),
}

impl Window {
    fn bits(self) -> u8 {
        if let Self::Bits(bits) = self { bits } else { 15 }
    }
}

impl Parameters {
    /// `None` for another extension, and for one that a server has to decline.
    fn of_an_offer(offer: &ExtensionOffer<'_>) -> Option<Self> {
        let mut names: Vec<_> = offer.parameters.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        if offer.name != "permessage-deflate" || names.len() != offer.parameters.len() {
            return None;
        }
        let mut parameters = Self::default();
        for (name, value) in &offer.parameters {
            match (*name, value.as_deref()) {
                ("server_no_context_takeover", None) => parameters.server_no_context_takeover = true,
                ("client_no_context_takeover", None) => parameters.client_no_context_takeover = true,
                ("server_max_window_bits", Some(bits)) => parameters.server_window = size(bits)?,
                ("client_max_window_bits", None) => parameters.client_window = Window::Known,
                ("client_max_window_bits", Some(bits)) => parameters.client_window = size(bits)?,
                _ => return None,
            }
        }
        Some(parameters)
    }

    /// An answer always has a size where it names a window.
    fn of_an_answer(answer: &ExtensionOffer<'_>) -> Option<Self> {
        Self::of_an_offer(answer).filter(|parameters| !matches!(parameters.client_window, Window::Known))
    }
}

fn size(value: &str) -> Option<Window> {
    (8..=15).find(|bits| bits.to_string() == value).map(Window::Bits)
}
