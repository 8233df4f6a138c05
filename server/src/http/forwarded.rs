//! For whom a proxy comes, as it says in `X-Forwarded-For` and `X-Forwarded-Proto`.
//!
//! Anybody can send these headers, so only those that a trusted proxy sends are read, and of them only what it added itself or had from
//! another one that is trusted.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::admission::Permit;
use crate::config::{Listen, TrustedProxies};
use crate::session::Peer;

/// The peer for whom this request is. It is who holds the connection, unless that is a trusted proxy and says otherwise.
pub(super) fn peer_of(headers: &HeaderMap, connected: Peer, permit: &Permit, listen: &Listen) -> Peer {
    if !permit.is_proxy() {
        return connected;
    }
    let address = address(headers, &listen.trusted_proxies).or_else(|| connected.address());
    Peer::new(address, is_secure(headers).unwrap_or_else(|| connected.is_secure()))
}

/// The last address of the chain that is not a trusted proxy's; if all are trusted, the first of them. What stands before an entry that
/// is no address was not said by anybody who is known.
fn address(headers: &HeaderMap, trusted: &TrustedProxies) -> Option<SocketAddr> {
    let mut found = None;
    for entry in entries(headers, "x-forwarded-for") {
        let Some(address) = parse(entry) else { break };
        found = Some(address);
        if !trusted.include(Some(address.ip())) {
            break;
        }
    }
    found
}

/// Whether the proxy was asked by TLS. The nearest one decides.
fn is_secure(headers: &HeaderMap) -> Option<bool> {
    let scheme = entries(headers, "x-forwarded-proto").next()?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(true),
        "http" | "ws" => Some(false),
        _ => None,
    }
}

/// The entries of all headers of this name, the last one first.
fn entries<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values: Vec<_> = headers.get_all(name).iter().collect();
    // A value that is no text stands as an entry that nobody understands.
    values.into_iter().rev().flat_map(|value| value.to_str().unwrap_or("?").rsplit(',').map(str::trim))
}

/// An address with its port or, as is usual, without one.
fn parse(entry: &str) -> Option<SocketAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let ip = bare.parse::<IpAddr>().map(|ip| (ip, 0).into());
    ip.or_else(|_| entry.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn found(values: &[&str]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "::1"].iter().map(|text| text.parse().unwrap()).collect();
        address(&headers("x-forwarded-for", values), &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_not_a_proxys_is_the_peers() {
        assert_eq!(found(&["192.0.2.7"]).as_deref(), Some("192.0.2.7:0"));
        assert_eq!(found(&["203.0.113.9, 192.0.2.7, 10.1.2.3"]).as_deref(), Some("192.0.2.7:0"));
        assert_eq!(found(&["203.0.113.9, 192.0.2.7", "::1", "10.0.0.1"]).as_deref(), Some("192.0.2.7:0"));
        assert_eq!(found(&["10.1.1.1, 10.2.2.2"]).as_deref(), Some("10.1.1.1:0"), "all are proxies");
        assert_eq!(found(&["[2001:db8::7]:4711, 10.0.0.1"]).as_deref(), Some("[2001:db8::7]:4711"));
        assert_eq!(found(&["2001:db8::7"]).as_deref(), Some("[2001:db8::7]:0"));
    }

    /// Whoever is in front of the proxies writes what it likes.
    #[test]
    fn what_stands_before_an_entry_that_is_no_address_is_not_believed() {
        assert_eq!(found(&["192.0.2.7, nonsense, 10.0.0.1"]).as_deref(), Some("10.0.0.1:0"));
        assert_eq!(found(&["192.0.2.7, unknown"]), None);
        assert_eq!(found(&[""]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn the_nearest_proxy_says_whether_it_was_asked_by_tls() {
        let secure = |values: &[&str]| is_secure(&headers("x-forwarded-proto", values));
        assert_eq!(secure(&["https"]), Some(true));
        assert_eq!(secure(&["https, http"]), Some(false));
        assert_eq!(secure(&["http", "WSS"]), Some(true));
        assert_eq!(secure(&["gopher"]), None);
        assert_eq!(secure(&[]), None);
    }
}
