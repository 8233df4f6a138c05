//! Rooms: what one member says, every member hears. `/chat?room=blue&name=Ann`; `/nick Bob` gives another name.
//!
//! A room is a topic, so the server carries what is said, on whatever thread and in whatever version of this library a member is.

#![deny(unsafe_code)]

use handler_api::metric::Counter;
use handler_api::{Close, Handler, Message, Reject, Upgrade, WebSocket, export_handler, topic};
use serde::{Deserialize, Serialize};

static SAID: Counter = Counter::new("messages_said", "Messages that members have said");

/// What a member takes along when this library is replaced; the subscription to its room goes along by itself.
#[derive(Serialize, Deserialize)]
struct Chat {
    room: String,
    name: String,
}

impl Handler for Chat {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        let room = upgrade.param("room").unwrap_or_else(|| "lobby".to_owned());
        let name = upgrade.param("name").unwrap_or_default();
        if !is_name(&name) || !is_name(&room) {
            return Err(Reject::forbidden(
                "say who you are: ?name=NAME&room=ROOM, of 1 to 32 printable characters\n",
            ));
        }
        if topic::subscribers(&room) >= 10_000 {
            return Err(Reject::new(503).body("the room is full\n"));
        }
        Ok(Self { room, name })
    }

    fn on_open(&mut self, socket: &WebSocket) {
        socket.subscribe(&self.room).expect("a room is a good name, and it is the only topic");
        self.tell(format!("* {} joined", self.name));
    }

    fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
        // 1003: a kind of data that this endpoint cannot accept.
        let Message::Text(text) = message else {
            let _ = socket.close(1003, "this room speaks text");
            return;
        };
        match text.strip_prefix("/nick ") {
            Some(name) if is_name(name) => {
                self.tell(format!("* {} is now {name}", self.name));
                self.name = name.to_owned();
            }
            _ => self.tell(format!("{}: {text}", self.name)),
        }
        SAID.add(1);
    }

    fn on_close(&mut self, _: &WebSocket, _: Close<'_>) {
        self.tell(format!("* {} left", self.name));
    }
}

impl Chat {
    fn tell(&self, text: String) {
        topic::publish(&self.room, &text);
    }
}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.chars().count()) && !text.contains(char::is_control)
}

export_handler!(Chat, state);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, FakeSession, Sent, Stays};

    use super::*;

    fn join(url: &str) -> FakeSession<Chat> {
        Fake::upgrade(url).migrate().open().expect("accepted")
    }

    fn heard(session: &mut FakeSession<Chat>) -> Vec<String> {
        session.sent().into_iter().filter_map(Sent::into_text).collect()
    }

    #[test]
    fn a_member_hears_its_room_from_its_own_arrival_on() {
        let mut ann = join("/chat?room=one&name=Ann");
        let mut bob = join("/chat?room=one&name=Bob");
        let mut eve = join("/chat?room=two&name=Eve");
        ann.text("hello");
        assert_eq!(heard(&mut ann), ["* Ann joined", "* Bob joined", "Ann: hello"]);
        assert_eq!(heard(&mut bob), ["* Bob joined", "Ann: hello"]);
        assert_eq!(heard(&mut eve), ["* Eve joined"]);
        bob.peer_close(1001, "");
        assert_eq!(heard(&mut ann), ["* Bob left"]);
    }

    #[test]
    fn a_peer_without_a_usable_name_is_told_what_is_wanted() {
        for url in ["/chat", "/chat?name=", "/chat?name=a%0ab", &format!("/chat?name={}", "x".repeat(33))] {
            let rejected = Fake::<Chat>::upgrade(url).open().expect_err("refused");
            assert_eq!(rejected.status, 403, "{url}");
            assert!(rejected.body.contains("?name="), "{url}: {}", rejected.body);
        }
    }

    #[test]
    fn binary_is_not_for_chatting() {
        let mut ann = join("/chat?room=three&name=Ann");
        ann.binary(b"\0");
        assert_eq!(ann.sent().last(), Some(&Sent::Close(1003, "this room speaks text".into())));
    }

    #[test]
    fn a_member_stays_in_its_room_over_a_reload_and_nobody_is_told() {
        let mut ann = join("/chat?room=four&name=Ann");
        let mut bob = join("/chat?room=four&name=Bob");
        let _ = (ann.sent(), bob.sent());
        ann.reload().expect("the session moves");
        bob.text("hello");
        ann.text("hi");
        assert_eq!(heard(&mut ann), ["Bob: hello", "Ann: hi"]);
        assert_eq!(heard(&mut bob), ["Bob: hello", "Ann: hi"], "each one once");
        ann.peer_close(1001, "");
        assert_eq!(heard(&mut bob), ["* Ann left"]);
    }

    #[test]
    fn what_is_said_while_a_members_state_is_on_the_way_reaches_it() {
        let mut ann = join("/chat?room=five&name=Ann");
        let mut bob = join("/chat?room=five&name=Bob");
        let _ = (ann.sent(), bob.sent());
        assert!(ann.export_state().is_ok());
        bob.text("hello");
        assert_eq!(ann.import_state(2, b"{}"), Err(Stays::Refused));
        bob.text("back?");
        assert_eq!(heard(&mut ann), ["Bob: hello", "Bob: back?"]);
    }

    /// The format is a promise to the versions that follow.
    #[test]
    fn a_member_that_version_1_wrote_is_let_in_and_nothing_else() {
        let import =
            |version, state: &str| Fake::<Chat>::upgrade("/chat").migrate().import(version, state.as_bytes());
        let mut bob = join("/chat?room=six&name=Bob");
        let _ = bob.sent();
        import(1, r#"{"room":"six","name":"Änne"}"#).expect("taken").text("hello");
        assert_eq!(heard(&mut bob), ["Änne: hello", "* Änne left"]);
        for (version, state) in
            [(0, ""), (2, r#"{"room":"six","name":"Ann"}"#), (1, r#"{"room":"six"}"#), (1, "six")]
        {
            assert_eq!(import(version, state).err(), Some(Stays::Refused), "{version}: {state}");
        }
    }

    #[test]
    fn a_member_changes_its_name_and_everybody_is_told() {
        let mut ann = join("/chat?room=seven&name=Ann");
        ann.text("/nick Eve");
        ann.text("hello");
        assert_eq!(heard(&mut ann), ["* Ann joined", "* Ann is now Eve", "Eve: hello"]);
        ann.text("/nick ");
        assert_eq!(heard(&mut ann), ["Eve: /nick "], "that is no name");
        assert!(handler_api::testing::metric("messages_said") >= Some(3));
    }
}
