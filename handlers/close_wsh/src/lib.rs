//! Closes with the code and reason that it is told: `4000 enough`. A close of the client is answered with its own code and
//! reason.
//!
//! `0` sends a Close frame without a code. A code that no server may send, a reason of more than 123 bytes, and what is no code at
//! all are answered with 1011 and the reason in words; pywebsocket's example drops the connection for some of these.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

#[derive(Default)]
struct Close;

impl Handler for Close {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self)
    }

    fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
        if let Err(why) = close(socket, message.as_text().unwrap_or_default()) {
            // Fails only if the session is closing already.
            let _ = socket.close(1011, &why);
        }
    }
}

/// Does as it is told, or says why not.
fn close(socket: &WebSocket, order: &str) -> Result<(), String> {
    let (code, reason) = order.split_once(' ').unwrap_or((order, ""));
    let code = code.parse().map_err(|_| "send a close code and a reason, such as: 4000 enough")?;
    socket.close(code, reason).map_err(|error| error.to_string())
}

export_handler!(Close, stateless);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

    use super::*;

    fn told(order: &str) -> Vec<Sent> {
        let mut session = Fake::<Close>::upgrade("/close").open().expect("everybody is accepted");
        session.text(order);
        session.sent()
    }

    #[test]
    fn it_closes_as_it_is_told() {
        assert_eq!(told("1000 all is well"), [Sent::Close(1000, "all is well".into())]);
        assert_eq!(told("4999"), [Sent::Close(4999, String::new())]);
        assert_eq!(told("0"), [Sent::Close(0, String::new())]);
    }

    #[test]
    fn what_may_not_be_sent_is_answered_with_1011() {
        let long = format!("1000 {}", "x".repeat(124));
        for order in ["999 x", "1005 x", "1006 x", "5000 x", "70000 x", "close", "", &long] {
            assert!(matches!(&told(order)[..], [Sent::Close(1011, why)] if !why.is_empty()), "{order:?}");
        }
    }

    #[test]
    fn a_close_of_the_client_is_answered_in_kind() {
        let mut session = Fake::<Close>::upgrade("/close").open().expect("everybody is accepted");
        assert_eq!(session.peer_close(3001, "mine"), 3001);
    }
}
