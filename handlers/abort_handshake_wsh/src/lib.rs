//! Ends the connection in the place of an answer to the opening handshake.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

struct AbortHandshake;

impl Handler for AbortHandshake {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Err(Reject::abort())
    }

    fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
}

export_handler!(AbortHandshake);

#[cfg(test)]
mod tests {
    use handler_api::testing::Fake;

    use super::*;

    #[test]
    fn nobody_is_answered() {
        let refused = Fake::<AbortHandshake>::upgrade("/abort_handshake").open().expect_err("nobody");
        assert_eq!(refused.instead, Some(Vec::new()));
    }
}
