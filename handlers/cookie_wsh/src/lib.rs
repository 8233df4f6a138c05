//! Sets cookies in the answer to the opening handshake, and closes: `/cookie?set`, `?set_httponly`, `?clear`.
//!
//! For tests of a client. A site that means it adds `Secure` and `SameSite`.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

struct Cookie;

fn cookies(query: &str) -> &'static [&'static str] {
    match query {
        "set" => &["foo=bar; Max-Age=86400"],
        "set_httponly" => &["httpOnlyFoo=bar; Max-Age=86400; httpOnly"],
        "clear" => &["foo=0; Max-Age=0", "httpOnlyFoo=0; Max-Age=0"],
        _ => &[],
    }
}

impl Handler for Cookie {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        for cookie in cookies(upgrade.query()) {
            upgrade.add_header("Set-Cookie", cookie).map_err(|_| Reject::new(500))?;
        }
        Ok(Self)
    }

    fn on_open(&mut self, socket: &WebSocket) {
        // Cannot fail: the session has just begun.
        let _ = socket.close(1000, "");
    }

    fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
}

export_handler!(Cookie);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

    use super::*;

    #[test]
    fn each_query_sets_its_cookies_and_then_it_closes() {
        for (query, expected) in [("set", 1), ("set_httponly", 1), ("clear", 2), ("other", 0)] {
            let mut session = Fake::<Cookie>::upgrade(&format!("/cookie?{query}")).open().expect("accepted");
            let headers = &session.answer().headers;
            assert_eq!(headers.len(), expected, "{query}");
            assert!(headers.iter().all(|(name, _)| name == "Set-Cookie"), "{query}");
            assert_eq!(session.sent(), [Sent::Close(1000, String::new())]);
        }
    }
}
