//! What a connection hears, answers and keeps does not depend on how its input is cut, and stays within its limits.

use wshd_protocol::{Connection, Deflater, Event, Inflater, Kind, Limits, Message, PeerClose, ReadyState};

use crate::wire::{CLOSE, FIN, PING, deflate, frame, kept, sent_frames};

/// The first byte is the settings, the second the length of pieces, and the rest what a peer sends.
pub fn frames(bytes: &[u8]) {
    let Some(([settings, piece], bytes)) = bytes.split_first_chunk() else { return };
    let settings = Settings::of(*settings);
    let whole = Conversation::held(settings, [bytes]);
    whole.is_right();
    let piece = usize::from(*piece);
    let (begin, end) = bytes.split_at(piece.min(bytes.len()));
    assert_eq!(Conversation::held(settings, [begin, end]), whole, "cut at {piece}");
    assert_eq!(Conversation::held(settings, bytes.chunks(piece + 1)), whole, "in pieces of {}", piece + 1);
    assert_eq!(Conversation::held(settings, bytes.chunks(1)), whole, "byte by byte");
}

/// What was agreed and what is done beside receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings {
    deflates: bool,
    takes_over: bool,
    /// Close was sent before the first byte came.
    is_closing: bool,
    /// Messages are echoed, pings and Close answered.
    answers: bool,
    limits: Limits,
}

impl Settings {
    fn of(byte: u8) -> Self {
        let bit = |place: u8| byte >> place & 1 == 1;
        let limits = Limits {
            message_bytes_max: [20, 400, 5000, 70_000][usize::from(byte >> 4 & 3)],
            empty_fragments_max: if bit(6) { 0 } else { 2 },
        };
        Self { deflates: bit(0), takes_over: bit(1), is_closing: bit(2), answers: bit(3), limits }
    }

    /// Compressed bytes may be an eighth more than the text may have.
    fn kept_bytes_max(&self) -> usize {
        let bytes = self.limits.message_bytes_max;
        if self.deflates { bytes + bytes / 8 + 64 } else { bytes }
    }
}

/// All that came of some input.
#[derive(Debug, PartialEq, Eq)]
struct Conversation {
    settings: Settings,
    events: Vec<Event<'static>>,
    output: Vec<u8>,
    state: ReadyState,
    message_bytes_pending: Option<usize>,
    window_bytes: usize,
}

impl Conversation {
    fn held<'p>(settings: Settings, pieces: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut connection = if settings.deflates {
            Connection::with_deflate(deflate(settings.takes_over))
        } else {
            Connection::new()
        };
        let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new());
        let (mut events, mut output, mut received) = (Vec::new(), Vec::new(), 0);
        if settings.is_closing {
            connection.close(Some(1000), "", &mut output).expect("nothing was sent before");
        }
        for piece in pieces {
            received += piece.len();
            let mut buffer: Box<[u8]> = piece.into();
            let mut input = &mut buffer[..];
            while let Some(event) =
                connection.receive(&mut input, &settings.limits, &mut inflater, &mut output)
            {
                if settings.answers {
                    answer(&mut connection, &event, &mut deflater, &mut output);
                }
                events.push(kept(event));
            }
            assert!(input.is_empty(), "everything is taken");
            let pending = connection.message_bytes_pending().unwrap_or_default();
            assert!(pending <= received.min(settings.kept_bytes_max()), "{pending} bytes are kept");
            let agreed = connection.deflate();
            let window_max = agreed.map_or(0, |agreed| agreed.sent_bytes_max() + agreed.received_bytes_max());
            assert!(connection.window_bytes() <= window_max, "{} bytes", connection.window_bytes());
        }
        let ended = Self {
            settings,
            events,
            output,
            state: connection.ready_state(),
            message_bytes_pending: connection.message_bytes_pending(),
            window_bytes: connection.window_bytes(),
        };
        ended.is_deaf_at_its_end(connection, inflater);
        ended
    }

    /// After Close and after a failure, nothing more is heard, answered or kept.
    fn is_deaf_at_its_end(&self, mut connection: Connection, mut inflater: Inflater) {
        if !self.events.last().is_some_and(is_end) {
            return;
        }
        let (mut ping, mut output) = (frame(FIN | PING, b"?"), Vec::new());
        let mut input = &mut ping[..];
        let event = connection.receive(&mut input, &self.settings.limits, &mut inflater, &mut output);
        assert_eq!(event, None, "after {:?}", self.events.last());
        assert!(input.is_empty() && output.is_empty() && connection.message_bytes_pending().is_none());
    }

    fn is_right(&self) {
        let closes = |event: &&Event<'_>| is_end(event);
        assert!(self.events.iter().filter(closes).count() <= 1, "there is one end");
        assert!(self.events.iter().rev().skip(1).all(|event| !is_end(event)), "and nothing behind it");
        for event in &self.events {
            self.may_be_heard(event);
        }
        let sent = sent_frames(&self.output, self.settings.deflates);
        let closed = sent.last().filter(|(first, _)| first & 0xf == CLOSE);
        if let Some(Event::Failed(error)) = self.events.last() {
            assert_eq!(self.state, ReadyState::Closed);
            let (_, payload) = closed.expect("a failure is told to the peer");
            if !self.settings.is_closing {
                let text = [&error.close_code().to_be_bytes()[..], error.to_string().as_bytes()].concat();
                assert_eq!(*payload, text);
            }
        }
        assert_eq!(
            self.state == ReadyState::Open,
            closed.is_none() && !self.events.last().is_some_and(is_end)
        );
    }

    fn may_be_heard(&self, event: &Event<'_>) {
        match event {
            Event::Message(Message { kind, payload }) => {
                assert!(!self.settings.is_closing, "a message after Close was sent");
                assert!(payload.len() <= self.settings.limits.message_bytes_max, "{} bytes", payload.len());
                assert!(*kind == Kind::Binary || std::str::from_utf8(payload).is_ok(), "a text is UTF-8");
            }
            Event::Ping(payload) | Event::Pong(payload) => {
                assert!(!self.settings.is_closing && payload.len() <= 125);
            }
            Event::CloseRequested(_) => assert!(!self.settings.is_closing, "this side closed first"),
            Event::CloseAnswered(_) => assert!(self.settings.is_closing, "no Close was sent"),
            Event::Failed(_) => {}
        }
    }
}

fn is_end(event: &Event<'_>) -> bool {
    matches!(event, Event::CloseRequested(_) | Event::CloseAnswered(_) | Event::Failed(_))
}

/// What a session would do, whether it is still allowed to or not.
fn answer(connection: &mut Connection, event: &Event<'_>, deflater: &mut Deflater, output: &mut Vec<u8>) {
    let before = output.len();
    let is_refused = match event {
        Event::Message(Message { kind, payload }) => {
            connection.send(*kind, payload, deflater, output).is_err()
        }
        Event::Ping(payload) => connection.pong(payload, output).is_err(),
        Event::CloseRequested(PeerClose { code, reason }) => {
            // 1010 is the client's alone.
            connection.close(*code, reason, output).or_else(|_| connection.close(None, "", output)).is_err()
        }
        Event::Pong(_) | Event::CloseAnswered(_) | Event::Failed(_) => false,
    };
    assert!(!is_refused || output.len() == before, "what is refused leaves nothing behind");
}
