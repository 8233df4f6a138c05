//! What a handler knows of the route by which its peer came.

#![cfg(feature = "testing")]

use handler_api::testing::Fake;
use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

/// Answers with the room that is in the path.
struct Room(Option<String>);

impl Handler for Room {
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self(upgrade.path_param("room")))
    }

    fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
        assert_eq!(socket.path_param("room"), self.0);
        socket.send(&format!("{:?} {:?}", self.0, socket.path_param("*")));
    }
}

export_handler!(Room);

fn said(peer: Fake<Room>) -> String {
    let mut session = peer.open().expect("accepted");
    session.text("where am I");
    session.sent().remove(0).into_text().expect("a text")
}

#[test]
fn parameters_of_a_route_are_decoded() {
    assert_eq!(said(Fake::upgrade("/rooms/x?room=of+the+query")), "None None");
    assert_eq!(said(Fake::upgrade("/rooms/x").path_param("room", "ü&+ %")), "Some(\"ü&+ %\") None");
    let below = Fake::upgrade("/files/a/b").path_param("room", "").path_param("*", "a/b");
    assert_eq!(said(below), "Some(\"\") Some(\"a/b\")");
}
