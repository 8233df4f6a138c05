//! Who sends a request: what its headers show, and the answer to who is not known.
//!
//! A password or a token comes in `Authorization` (RFC 7617, RFC 6750). Pages cannot set that header on a WebSocket; their token comes in
//! the list of subprotocols, as `wshd.bearer.TOKEN`.

use std::net::{IpAddr, Ipv6Addr};

use std::sync::Arc;

use base64ct::{Base64, Encoding};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use tracing::info;
use wshd_protocol::handshake::is_upgrade;

use super::{Body, Peer, Served, refusal};
use crate::auth::{Denied, Known, Section, Shown, Way};

/// The subprotocol that stands for "by a token". It is answered where the handler agrees to no other, because browsers end a connection
/// that agrees to none of several.
const BY_TOKEN: &str = "wshd.bearer";

/// The subprotocol that holds the token. Nobody but the server sees it.
const TOKEN_PREFIX: &str = "wshd.bearer.";

/// Somebody who may go on.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// `None` where nobody is asked.
    pub(super) known: Option<Known>,
    /// What the headers showed is gone from them.
    takes_tokens: bool,
}

impl Passed {
    pub(super) fn user(&self) -> Option<Arc<str>> {
        self.known.as_ref().map(|known| known.user.clone())
    }

    /// Takes out of the headers what was for the server alone. Without authentication all of it is the handler's.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.known.as_ref().is_some_and(|known| known.by != Way::Certificate) {
            headers.remove(header::AUTHORIZATION);
        }
        if !self.takes_tokens {
            return;
        }
        let rest: Vec<&str> = subprotocols(headers).filter(|name| !self.is_ours(name)).collect();
        let rest = (!rest.is_empty())
            .then(|| HeaderValue::from_str(&rest.join(", ")).expect("they came in a header"));
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        rest.map(|rest| headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest));
    }

    /// Whether a subprotocol speaks to the server and not to the handler.
    pub(super) fn is_ours(&self, subprotocol: &str) -> bool {
        self.takes_tokens && (subprotocol == BY_TOKEN || subprotocol.starts_with(TOKEN_PREFIX))
    }

    /// The subprotocol to answer with: that of the handler, or the one that only says how the peer was known.
    pub(super) fn agree<'a>(&self, chosen: Option<&'a str>, headers: &HeaderMap) -> Option<&'a str> {
        let by_token =
            || (self.takes_tokens && subprotocols(headers).any(|name| name == BY_TOKEN)).then_some(BY_TOKEN);
        chosen.or_else(by_token)
    }
}

/// Lets those pass whom the section `[auth.NAME]` knows; without one, everybody.
///
/// # Errors
/// The answer to who is not known.
pub(super) async fn pass(
    served: &Served,
    name: Option<&str>,
    headers: &HeaderMap,
    peer: &Peer,
) -> Result<Passed, Response<Body>> {
    let Some(name) = name else { return Ok(Passed::default()) };
    // The config was checked: there is no name without a section. Were there one, nobody would pass.
    let Some(section) = served.auth.section(name) else {
        return Err(refusal(StatusCode::FORBIDDEN, HeaderMap::new(), "nobody may pass here\n"));
    };
    let patience = served.config.limits.handshake_seconds_max;
    let mut buffer = Vec::new();
    let shown = shown(section, headers, &mut buffer);
    let certificate = peer.client.as_ref();
    // Who comes by a Unix socket, and for nobody else, has no address: all of them are counted as one.
    let address = peer.session.ip().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let identified = section.identify(shown, certificate, &served.guard, address, patience).await;
    match identified {
        Ok(known) => Ok(Passed { known: Some(known), takes_tokens: section.takes_tokens() }),
        Err(denied) => {
            if let (Denied::WrongPassword, Shown::Password { user, .. }) = (denied, shown) {
                info!(target: "access", peer = %peer.session, ?user, "wrong user name or password");
            } else if denied != Denied::Missing {
                info!(target: "access", peer = %peer.session, "not let in: {}", in_words(section, denied));
            }
            Err(answer(section, denied))
        }
    }
}

/// Marks what must never be written anywhere.
pub(super) fn hide_secrets(headers: &mut HeaderMap) {
    let secrets =
        [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE, header::SEC_WEBSOCKET_PROTOCOL];
    for (name, value) in headers.iter_mut() {
        if secrets.contains(name) {
            value.set_sensitive(true);
        }
    }
}

/// What the headers show, of what the section takes. The buffer holds what had to be decoded.
fn shown<'r>(section: &Section, headers: &'r HeaderMap, buffer: &'r mut Vec<u8>) -> Shown<'r> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => {
            let Some((scheme, rest)) = scheme_of(line) else { return Shown::Broken };
            if scheme.eq_ignore_ascii_case("basic") && section.takes_passwords() {
                return password(rest, buffer);
            }
            if scheme.eq_ignore_ascii_case("bearer") && section.takes_tokens() {
                return if rest.is_empty() { Shown::Broken } else { Shown::Token(rest) };
            }
        }
        (Some(_), Some(_)) => return Shown::Broken,
        (None, _) => {}
    }
    if !section.takes_tokens() || !is_upgrade(headers) {
        return Shown::Nothing;
    }
    let mut tokens = subprotocols(headers).filter_map(|name| name.strip_prefix(TOKEN_PREFIX));
    match (tokens.next(), tokens.next()) {
        (None, _) => Shown::Nothing,
        (Some(token), None) => Shown::Token(token),
        (Some(_), Some(_)) => Shown::Broken,
    }
}

/// The scheme and what follows it. Schemes are compared without case (RFC 9110 section 11.1).
fn scheme_of(line: &HeaderValue) -> Option<(&str, &str)> {
    let line = line.to_str().ok()?.trim();
    let (scheme, rest) = line.split_once(' ').unwrap_or((line, ""));
    Some((scheme, rest.trim_start()))
}

/// A user and a password, in UTF-8 as the challenge asks for (RFC 7617 section 2.1).
fn password<'r>(encoded: &str, buffer: &'r mut Vec<u8>) -> Shown<'r> {
    let Ok(decoded) = Base64::decode_vec(encoded) else { return Shown::Broken };
    *buffer = decoded;
    let text = std::str::from_utf8(buffer).ok();
    match text.and_then(|text| text.split_once(':')) {
        Some((user, password)) => Shown::Password { user, password },
        None => Shown::Broken,
    }
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    names.map(str::trim).filter(|name| !name.is_empty())
}

fn answer(section: &Section, denied: Denied) -> Response<Body> {
    let mut more = HeaderMap::new();
    let body = format!("{}\n", in_words(section, denied));
    let status = match denied {
        Denied::TooManyFailures => {
            more.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            StatusCode::TOO_MANY_REQUESTS
        }
        Denied::Busy => {
            more.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            StatusCode::SERVICE_UNAVAILABLE
        }
        // There is no challenge that asks for a certificate: it is part of the connection.
        _ if !section.takes_passwords() && !section.takes_tokens() => StatusCode::FORBIDDEN,
        _ => {
            challenge(section, denied, &mut more);
            StatusCode::UNAUTHORIZED
        }
    };
    refusal(status, more, body)
}

/// What would be taken (RFC 9110 section 11.6.1). A browser asks its user for a password at the sight of `Basic`.
fn challenge(section: &Section, denied: Denied, more: &mut HeaderMap) {
    let realm = section.realm.replace('\\', "\\\\").replace('"', "\\\"");
    let mut add = |challenge: String| {
        let value =
            HeaderValue::from_str(&challenge).expect("a realm is printable ASCII, or the name of a section");
        more.append(header::WWW_AUTHENTICATE, value);
    };
    if section.takes_passwords() {
        add(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
    }
    if section.takes_tokens() {
        let error = if denied == Denied::WrongToken { ", error=\"invalid_token\"" } else { "" };
        add(format!("Bearer realm=\"{realm}\"{error}"));
    }
}

fn in_words(section: &Section, denied: Denied) -> &'static str {
    match denied {
        Denied::Missing => match (section.takes_passwords(), section.takes_tokens()) {
            (true, true) => "this path is for known users: send a user name and a password, or a token",
            (true, false) => "this path is for known users: send a user name and a password",
            (false, true) => "this path is for known users: send a token",
            (false, false) => "this path is for known users: show a certificate that the server knows",
        },
        Denied::WrongPassword => "wrong user name or password",
        Denied::WrongToken => "this token is not known",
        Denied::Broken => "what the request says of its user cannot be understood",
        Denied::TooManyFailures => "too many wrong passwords from your address; try again in a minute",
        Denied::Busy => "too many passwords to verify at the moment; try again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_password_is_read_in_utf_8_and_may_have_colons() {
        for (encoded, expected) in [
            ("YW5uOnNlY3JldA==", Some(("ann", "secret"))),
            ("SsO2cmcgSy46YTpi", Some(("Jörg K.", "a:b"))),
            ("Og==", Some(("", ""))),
            ("YW5u", None),
            ("/////w==", None),
            ("no base64", None),
            ("", None),
        ] {
            let mut buffer = Vec::new();
            let read = match password(encoded, &mut buffer) {
                Shown::Password { user, password } => Some((user, password)),
                _ => None,
            };
            assert_eq!(read, expected, "{encoded}");
        }
    }

    #[test]
    fn what_is_for_the_server_alone_is_taken_out_and_nothing_else() {
        let known = Known { user: "ann".into(), by: Way::Token };
        let passed = Passed { known: Some(known), takes_tokens: true };
        let mut headers = headers(&[
            ("authorization", "Bearer x"),
            ("sec-websocket-protocol", "chat.v1, wshd.bearer.secret"),
            ("sec-websocket-protocol", "wshd.bearer,chat.v2"),
        ]);
        assert_eq!(passed.agree(None, &headers), Some("wshd.bearer"));
        assert_eq!(passed.agree(Some("chat.v1"), &headers), Some("chat.v1"));
        passed.strip(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "chat.v1, chat.v2");
        assert_eq!(passed.agree(None, &headers), None);
    }

    #[test]
    fn without_authentication_everything_is_the_handlers() {
        let mut all =
            headers(&[("authorization", "Basic YTpi"), ("sec-websocket-protocol", "wshd.bearer.secret")]);
        let before = all.clone();
        Passed::default().strip(&mut all);
        assert_eq!(all, before);
        let known = Known { user: "ann".into(), by: Way::Certificate };
        Passed { known: Some(known), takes_tokens: false }.strip(&mut all);
        assert_eq!(all, before, "a certificate uses up no header");
    }

    #[test]
    fn secrets_are_not_written() {
        let mut all =
            headers(&[("authorization", "Basic YTpi"), ("sec-websocket-protocol", "wshd.bearer.secret")]);
        hide_secrets(&mut all);
        let shown = format!("{all:?}");
        assert!(!shown.contains("YTpi") && !shown.contains("secret"), "{shown}");
    }
}
