//! Which pages may open a WebSocket here (RFC 6455 section 10.2).
//!
//! A browser lets every page connect to every server and sends the cookies of that server along; the server is the one that
//! has to ask where the page came from.

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use crate::config::Origins;

/// Checks the `Origin` of a request against the rule of the config.
///
/// A request without `Origin` does not come from a browser and passes `same-host` and `*`; a list without `same-host` demands one.
pub(super) fn check(rule: &Origins, headers: &HeaderMap, is_secure: bool) -> Result<(), String> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin = origins.next().map(|origin| origin.to_str().unwrap_or("unreadable"));
    if origins.next().is_some() {
        return Err("the request has two Origin headers".into());
    }
    let is_same_host = || {
        let Some(origin) = origin else { return true };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        is_same_host(origin, host, is_secure)
    };
    let allowed = match rule {
        Origins::Any => true,
        Origins::SameHost => is_same_host(),
        Origins::List(allowed) => allowed.iter().any(|allowed| match allowed.as_str() {
            Origins::SAME_HOST => is_same_host(),
            allowed => origin == Some(allowed),
        }),
    };
    if allowed {
        return Ok(());
    }
    let origin = origin.unwrap_or("(none)").escape_debug();
    Err(format!("pages of origin {origin} may not connect; see `origins` in the server's config"))
}

/// Whether the page came from the host that it connects to. Ports count, as they do in the browser.
///
/// Without TLS the page may have come with it: a proxy in front may have taken it off. With TLS it has to, because a page without could
/// be anybody's on the way.
fn is_same_host(origin: &str, host: &str, is_secure: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" if !is_secure => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_default = |authority: &str| -> String {
        let authority = authority.to_ascii_lowercase();
        authority.strip_suffix(default_port).map_or_else(|| authority.clone(), str::to_owned)
    };
    !host.is_empty() && without_default(authority) == without_default(host)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(host: &str, origins: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        headers
    }

    /// A page of another host cannot ride on the cookies of this one (RFC 6455 section 10.2).
    #[test]
    fn same_host_lets_only_pages_of_this_host_connect() {
        let check =
            |origins: &[&str]| check(&Origins::SameHost, &headers("a.example:9998", origins), false).is_ok();
        assert!(check(&[]), "not a browser");
        assert!(check(&["http://a.example:9998"]));
        assert!(check(&["https://A.Example:9998"]));
        for foreign in
            ["null", "http://evil.example:9998", "http://a.example.evil:9998", "http://a.example", "file://"]
        {
            assert!(!check(&[foreign]), "{foreign}");
        }
        assert!(!check(&["http://a.example:9998", "http://a.example:9998"]), "two of them");
    }

    #[test]
    fn the_default_port_may_be_left_out_on_either_side() {
        let check = |host: &str, origin: &str| check(&Origins::SameHost, &headers(host, &[origin]), false);
        assert!(check("a.example", "http://a.example:80").is_ok());
        assert!(check("a.example:443", "https://a.example").is_ok());
        assert!(check("a.example:80", "https://a.example").is_err());
    }

    /// Whoever is on the way can make a page of http://a.example, and its reader's browser would send the cookies of a.example along.
    #[test]
    fn a_page_without_tls_is_no_page_of_a_host_with_it() {
        let check = |host: &str, origin: &str| check(&Origins::SameHost, &headers(host, &[origin]), true);
        assert!(check("a.example:9999", "https://a.example:9999").is_ok());
        assert!(check("a.example", "https://a.example").is_ok());
        assert!(check("a.example", "http://a.example").is_err());
        assert!(check("a.example:9999", "http://a.example:9999").is_err());
    }

    #[test]
    fn a_list_is_compared_to_the_letter_and_demands_an_origin() {
        let rule = Origins::List(vec!["https://a.example".into()]);
        let check = |origins: &[&str]| check(&rule, &headers("b.example", origins), true);
        assert!(check(&["https://a.example"]).is_ok());
        for foreign in ["https://A.example", "http://a.example", "https://a.example.evil", "null"] {
            assert!(check(&[foreign]).unwrap_err().contains("origins"), "{foreign}");
        }
        assert!(check(&[]).is_err());
    }

    /// A page of `file://`, and one in a sandbox, says `null`.
    #[test]
    fn a_list_may_have_this_host_and_pages_without_an_origin() {
        let rule = Origins::List(vec!["same-host".into(), "null".into()]);
        let check = |origins: &[&str]| check(&rule, &headers("a.example:9998", origins), false);
        for allowed in [&["null"][..], &["http://a.example:9998"], &[]] {
            assert!(check(allowed).is_ok(), "{allowed:?}");
        }
        for foreign in [&["http://evil.example"][..], &["same-host"], &["file://"], &["null", "null"]] {
            assert!(check(foreign).is_err(), "{foreign:?}");
        }
    }
}
