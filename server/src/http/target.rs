//! What a request says of the host that it is meant for.

use http::header::HOST;
use http::{Request, Uri};

use crate::config::{UpgradeRules, bare_host};

/// The host that a request is for, in lower case and without port; empty if it names none.
///
/// A target that has a host goes before the header (RFC 9112 section 3.2.2).
pub(super) fn host<B>(request: &Request<B>) -> String {
    let of_header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request
        .uri()
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(of_header)
        .map_or_else(String::new, bare_host)
}

/// Whether the host and port of a target are those that the config demands. A target that is only a path has neither.
pub(super) fn is_for_this_server(uri: &Uri, rules: &UpgradeRules) -> bool {
    let Some(authority) = uri.authority() else { return true };
    let default_port = match uri.scheme_str() {
        Some("ws" | "http") => 80,
        Some("wss" | "https") => 443,
        _ => return false,
    };
    let is_host = |host: &crate::config::Host| {
        let host = host.to_string();
        let named = bare_host(authority.as_str());
        bare_host(&host) == named || format!("[{host}]") == named
    };
    rules.validation_host.as_ref().is_none_or(is_host)
        && rules.validation_port.is_none_or(|port| port == authority.port_u16().unwrap_or(default_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_the_target_goes_before_that_of_the_header() {
        let host = |target: &str, header: &str| {
            host(&Request::get(target).header(HOST, header).body(()).expect("a request"))
        };
        assert_eq!(host("/echo", "A.Example:9998"), "a.example");
        assert_eq!(host("/echo", "a.example."), "a.example", "the dot of the root");
        assert_eq!(host("/echo", "[2001:DB8::1]:80"), "[2001:db8::1]");
        assert_eq!(host("ws://b.example:80/echo", "a.example"), "b.example");
        assert_eq!(host("ws://someone@b.example/echo", "a.example"), "b.example");
    }

    #[test]
    fn a_target_with_a_host_has_to_name_the_one_that_the_config_names() {
        let rules = |host: &str, port: u16| UpgradeRules {
            validation_host: (!host.is_empty()).then(|| host.parse().expect("a host")),
            validation_port: (port > 0).then_some(port),
            ..UpgradeRules::default()
        };
        let is_ours = |target: &'static str, host, port| {
            is_for_this_server(&Uri::from_static(target), &rules(host, port))
        };
        assert!(is_ours("/echo", "a.example", 9998), "no host to compare");
        assert!(is_ours("ws://anybody/echo", "", 0), "none is demanded");
        assert!(is_ours("ws://A.example:9998/echo", "a.example", 9998));
        assert!(is_ours("ws://[::1]/echo", "::1", 80));
        assert!(is_ours("wss://a.example/echo", "a.example", 443), "the port of the scheme");
        for foreign in [
            "ws://b.example:9998/echo",
            "ws://a.example/echo",
            "ws://a.example:80/echo",
            "ftp://a.example:9998/",
        ] {
            assert!(!is_ours(foreign, "a.example", 9998), "{foreign}");
        }
    }
}
