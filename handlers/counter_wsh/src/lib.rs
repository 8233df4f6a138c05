//! Answers each text with how many this session has sent: state of a session is a field of its object.

#![deny(unsafe_code)]

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

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

export_handler!(Counter);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, Sent};

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
}
