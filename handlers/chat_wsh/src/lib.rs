//! Rooms: what one member says, every member hears. `/chat?room=blue&name=Ann`.
//!
//! Members live on different threads and reach each other through handles. A member that does not read is closed by the
//! server, so nothing here waits for anybody.
//!
//! A reload moves members one after the other, and nobody is told. Until the last one has moved, those with the old code and those
//! with the new do not hear each other: each version of the library has rooms of its own.

#![deny(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use handler_api::{
    Busy, Close, Handle, Handler, Message, Migrate, Reject, Upgrade, WebSocket, export_handler,
};

const NAME_CHARS_MAX: usize = 32;
const ROOMS_MAX: usize = 1000;
const MEMBERS_MAX: usize = 10_000;

struct Chat {
    room: String,
    name: String,
    /// What the room knows this member by, while it is in it.
    member: Option<Handle>,
}

impl Handler for Chat {
    // Room and name are kept in the object.
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        let name = upgrade.param("name").filter(|name| is_name(name)).ok_or_else(|| {
            Reject::forbidden(format!(
                "say who you are: ?name=NAME, with at most {NAME_CHARS_MAX} printable characters\n"
            ))
        })?;
        let room = upgrade.param("room").unwrap_or_else(|| "lobby".to_owned());
        if !is_name(&room) {
            return Err(Reject::forbidden(format!(
                "a room's name has 1 to {NAME_CHARS_MAX} printable characters\n"
            )));
        }
        Rooms::lock().has_place(&room)?;
        Ok(Self { room, name, member: None })
    }

    fn on_open(&mut self, socket: &WebSocket) {
        let mut rooms = Rooms::lock();
        self.member = Some(rooms.enter(&self.room, socket.handle()));
        rooms.tell(&self.room, &format!("* {} joined", self.name));
    }

    fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
        match message {
            Message::Text(text) => Rooms::lock().tell(&self.room, &format!("{}: {text}", self.name)),
            // 1003: a kind of data that this endpoint cannot accept.
            Message::Binary(_) => drop(socket.close(1003, "this room speaks text")),
        }
    }

    fn on_close(&mut self, _: &WebSocket, _: Close<'_>) {
        self.leave();
        Rooms::lock().tell(&self.room, &format!("* {} left", self.name));
    }
}

impl Chat {
    fn leave(&mut self) {
        if let Some(member) = self.member.take() {
            Rooms::lock().leave(&self.room, &member);
        }
    }
}

impl Drop for Chat {
    /// Also after a panic and after a move to new code: a handle that stayed behind would keep this code in memory.
    fn drop(&mut self) {
        self.leave();
    }
}

impl Migrate for Chat {
    // 1: room and name, with a line feed between them, which neither can have.
    const STATE_VERSION: u32 = 1;

    fn export_state(&mut self, _: &WebSocket) -> Result<Vec<u8>, Busy> {
        Ok(format!("{}\n{}", self.room, self.name).into_bytes())
    }

    fn import_state(from_version: u32, state: &[u8], socket: &WebSocket) -> Option<Self> {
        if from_version != 1 {
            return None;
        }
        let (room, name) = std::str::from_utf8(state).ok()?.split_once('\n')?;
        if !is_name(room) || !is_name(name) {
            return None;
        }
        let mut rooms = Rooms::lock();
        rooms.has_place(room).ok()?;
        let member = Some(rooms.enter(room, socket.handle()));
        Some(Self { room: room.to_owned(), name: name.to_owned(), member })
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.contains(char::is_control)
}

/// Who is where. One lock for all rooms keeps the order of what is said the same for every member.
#[derive(Debug, Default)]
struct Rooms(BTreeMap<String, Vec<Handle>>);

static ROOMS: Mutex<Rooms> = Mutex::new(Rooms(BTreeMap::new()));

impl Rooms {
    fn lock() -> MutexGuard<'static, Self> {
        // A panic under the lock leaves lists that are whole: they change in single steps.
        ROOMS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_place(&self, room: &str) -> Result<(), Reject> {
        match self.0.get(room) {
            Some(members) if members.len() >= MEMBERS_MAX => Err(Reject::new(503).body("the room is full\n")),
            None if self.0.len() >= ROOMS_MAX => Err(Reject::new(503).body("there are too many rooms\n")),
            _ => Ok(()),
        }
    }

    fn members(&mut self, room: &str) -> &mut Vec<Handle> {
        self.0.entry(room.to_owned()).or_default()
    }

    fn enter(&mut self, room: &str, member: Handle) -> Handle {
        self.members(room).push(member.clone());
        member
    }

    fn tell(&self, room: &str, text: &str) {
        for member in self.0.get(room).into_iter().flatten() {
            member.send(text);
        }
    }

    fn leave(&mut self, room: &str, member: &Handle) {
        let members = self.members(room);
        members.retain(|other| other != member);
        if members.is_empty() {
            self.0.remove(room);
        }
    }
}

export_handler!(Chat, migrate);

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
        assert_eq!(ann.export_state(), Ok(b"five\nAnn".to_vec()));
        bob.text("hello");
        assert_eq!(ann.import_state(2, b"five\nAnn"), Err(Stays::Refused));
        bob.text("back?");
        assert_eq!(heard(&mut ann), ["Bob: hello", "Bob: back?"]);
    }

    /// The format is a promise to the versions that follow.
    #[test]
    fn a_member_that_version_1_wrote_is_let_in_and_nothing_else() {
        let import = |version, state: &[u8]| Fake::<Chat>::upgrade("/chat").migrate().import(version, state);
        let mut ann = import(1, "six\nÄnne".as_bytes()).expect("taken");
        ann.text("hello");
        assert_eq!(heard(&mut ann), ["Änne: hello"]);
        let wrong =
            [(0, &b""[..]), (2, b"six\nAnn"), (1, b"six"), (1, b"\nAnn"), (1, b"six\n"), (1, b"six\n\xff")];
        for (version, state) in wrong {
            assert_eq!(import(version, state).err(), Some(Stays::Refused), "{version}: {state:?}");
        }
    }
}
