//! Returns each message. The smallest real handler, and the server of the well-known HTML5 WebSocket tutorial.
//!
//! After it has echoed the exact text `Goodbye` it closes with 1000. It agrees to the subprotocol `echo.wsh`.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

#[derive(Default)]
struct Echo;

const PROTOCOL: &str = "echo.wsh";

impl Handler for Echo {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        // Fails if the peer does not offer it, and then none is agreed.
        let _ = upgrade.choose_protocol(PROTOCOL);
        Ok(Self)
    }

    fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
        socket.send(message);
        if message == Message::Text("Goodbye") {
            // Fails only if the session is closing already.
            let _ = socket.close(1000, "");
        }
    }
}

export_handler!(Echo, stateless);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

    use super::*;

    #[test]
    fn text_and_binary_come_back() {
        let mut session = Fake::<Echo>::upgrade("/echo").open().expect("everybody is accepted");
        session.text("hello");
        session.binary(&[1, 2, 3]);
        assert_eq!(session.sent(), [Sent::Text("hello".into()), Sent::Binary(vec![1, 2, 3])]);
    }

    #[test]
    fn goodbye_comes_back_and_ends_the_session() {
        let mut session = Fake::<Echo>::upgrade("/echo").open().expect("everybody is accepted");
        session.text("goodbye");
        session.text("Goodbye");
        let close = Sent::Close(1000, String::new());
        assert_eq!(session.sent(), [Sent::Text("goodbye".into()), Sent::Text("Goodbye".into()), close]);
    }

    #[test]
    fn a_reload_is_not_noticed() {
        let mut session = Fake::<Echo>::upgrade("/echo").stateless().open().expect("everybody is accepted");
        session.text("before");
        session.reload().expect("the session moves");
        session.text("after");
        assert_eq!(session.sent(), [Sent::Text("before".into()), Sent::Text("after".into())]);
    }

    #[test]
    fn its_subprotocol_is_agreed_if_it_is_offered() {
        let session = Fake::<Echo>::upgrade("/echo").protocol("other").protocol(PROTOCOL).open();
        assert_eq!(session.expect("accepted").protocol(), PROTOCOL);
        let session = Fake::<Echo>::upgrade("/echo").protocol("other").open();
        assert_eq!(session.expect("accepted").protocol(), "");
    }
}
