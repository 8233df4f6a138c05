//! Answers each text with how many this session has sent: state of a session is a field of its object, and survives a reload.

#![deny(unsafe_code)]

use handler_api::{Busy, Handler, Message, Migrate, Reject, Upgrade, WebSocket, export_handler};

struct Counter {
    messages: u64,
}

impl Handler for Counter {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self { messages: 0 })
    }

    fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
        match message {
            Message::Text("reset") => self.messages = 0,
            _ => self.messages += 1,
        }
        socket.send(&self.messages.to_string());
    }
}

impl Migrate for Counter {
    // 1: the count as eight bytes, little endian.
    const STATE_VERSION: u32 = 1;

    fn export_state(&mut self, _: &WebSocket) -> Result<Vec<u8>, Busy> {
        Ok(self.messages.to_le_bytes().into())
    }

    fn import_state(from_version: u32, state: &[u8], _: &WebSocket) -> Option<Self> {
        match from_version {
            1 => Some(Self { messages: u64::from_le_bytes(state.try_into().ok()?) }),
            _ => None,
        }
    }
}

export_handler!(Counter, migrate);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent, Stays};

    use super::*;

    #[test]
    fn each_session_counts_for_itself_and_can_start_over() {
        let mut first = Fake::<Counter>::upgrade("/counter").open().expect("accepted");
        let mut second = Fake::<Counter>::upgrade("/counter").open().expect("accepted");
        for text in ["a", "b", "reset", "c"] {
            first.text(text);
        }
        second.text("a");
        let texts = |sent: Vec<Sent>| sent.into_iter().filter_map(Sent::into_text).collect::<Vec<_>>();
        assert_eq!(texts(first.sent()), ["1", "2", "0", "1"]);
        assert_eq!(texts(second.sent()), ["1"]);
    }
    #[test]
    fn the_count_goes_on_after_a_reload() {
        let mut session = Fake::<Counter>::upgrade("/counter").migrate().open().expect("accepted");
        session.text("a");
        session.reload().expect("the session moves");
        session.text("b");
        assert_eq!(session.sent(), [Sent::Text("1".into()), Sent::Text("2".into())]);
    }

    /// The format is a promise to the versions that follow.
    #[test]
    fn a_count_that_version_1_wrote_is_read_and_nothing_else() {
        let import =
            |version, state: &[u8]| Fake::<Counter>::upgrade("/counter").migrate().import(version, state);
        let mut session = import(1, &[41, 0, 0, 0, 0, 0, 0, 0]).expect("taken");
        session.text("a");
        assert_eq!(session.sent(), [Sent::Text("42".into())]);
        assert_eq!(session.export_state(), Ok(vec![42, 0, 0, 0, 0, 0, 0, 0]));
        for (version, state) in [(1, &[1, 2, 3][..]), (1, &[0; 9]), (1, &[]), (0, &[]), (2, &[0; 8])] {
            assert_eq!(import(version, state).err(), Some(Stays::Refused), "{version}: {state:?}");
        }
    }
}
