//! Answers with `Strict-Transport-Security`, says Hello and closes.
//!
//! For tests of a client, also without TLS, where a site has to stay silent (RFC 6797 section 7.2) and a browser must not believe
//! it (section 8.1).

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

struct Hsts;

impl Handler for Hsts {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        upgrade.add_header("Strict-Transport-Security", "max-age=86400").map_err(|_| Reject::new(500))?;
        Ok(Self)
    }

    fn on_open(&mut self, socket: &WebSocket) {
        socket.send("Hello");
        // Cannot fail: the session has just begun.
        let _ = socket.close(1000, "");
    }

    fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
}

export_handler!(Hsts);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

    use super::*;

    #[test]
    fn the_header_comes_with_the_answer_and_hello_behind_it() {
        let mut session = Fake::<Hsts>::upgrade("/hsts").open().expect("everybody is accepted");
        let header = ("Strict-Transport-Security".to_owned(), "max-age=86400".to_owned());
        assert_eq!(session.answer().headers, [header]);
        assert_eq!(session.sent(), [Sent::Text("Hello".into()), Sent::Close(1000, String::new())]);
    }
}
