//! Returns each message as echo does, and never compresses: it agrees to no extension, whatever is offered and the config has.
//!
//! pywebsocket's example of `ws_extension_processors = []`.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

#[derive(Default)]
struct EchoNoExt;

impl Handler for EchoNoExt {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        upgrade.decline_extensions();
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

export_handler!(EchoNoExt, stateless);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

    use super::*;

    #[test]
    fn it_echoes_and_agrees_to_no_extension() {
        let mut session = Fake::<EchoNoExt>::upgrade("/echo_noext").open().expect("everybody is accepted");
        assert!(session.answer().declines_extensions);
        session.text("hello");
        session.text("Goodbye");
        let close = Sent::Close(1000, String::new());
        assert_eq!(session.sent(), [Sent::Text("hello".into()), Sent::Text("Goodbye".into()), close]);
    }
}
