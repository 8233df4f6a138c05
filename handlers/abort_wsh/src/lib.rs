//! Accepts, and then drops the connection without a Close frame: browsers tell the page 1006.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

struct Abort;

impl Handler for Abort {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self)
    }

    fn on_open(&mut self, socket: &WebSocket) {
        socket.abort();
    }

    fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
}

export_handler!(Abort);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

    use super::*;

    #[test]
    fn it_is_dropped_when_it_is_open() {
        let mut session = Fake::<Abort>::upgrade("/abort").open().expect("everybody is accepted");
        assert_eq!(session.sent(), [Sent::Abort]);
    }
}
