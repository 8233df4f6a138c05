//! Takes pages of `http://example.com` and nobody else, and tells them so.
//!
//! A handler that decides by itself which pages may connect needs `origins = "*"` in its section of the server's config, as
//! `config/config.toml` has it for this one; else the server refuses pages of other hosts before the handler is asked.
//! pywebsocket's example drops those it takes, on Python 3.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

struct OriginCheck;

const ORIGIN: &str = "http://example.com";

impl Handler for OriginCheck {
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        match upgrade.origin() {
            Some(ORIGIN) => Ok(Self),
            Some(origin) => Err(Reject::forbidden(format!("pages of {origin:?} may not connect\n"))),
            None => Err(Reject::forbidden("the request has no Origin\n")),
        }
    }

    fn on_open(&mut self, socket: &WebSocket) {
        socket.send(&format!("origin_check is called for {}", socket.url()));
    }

    fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
}

export_handler!(OriginCheck);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

    use super::*;

    #[test]
    fn only_one_origin_is_taken() {
        let ask = || Fake::<OriginCheck>::upgrade("/origin_check?a");
        let mut session = ask().header("Origin", ORIGIN).open().expect("taken");
        assert_eq!(session.sent(), [Sent::Text("origin_check is called for /origin_check?a".into())]);
        for origin in
            ["https://example.com", "http://example.com:81", "http://example.com.evil.example", "null"]
        {
            assert_eq!(ask().header("Origin", origin).open().expect_err(origin).status, 403);
        }
        assert_eq!(ask().open().expect_err("no page").status, 403);
    }
}
