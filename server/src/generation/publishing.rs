//! How a worker passes on what is published to topics.
//!
//! In: messages from the inbox. Out: to each of the sessions that have subscribed, what it hears, in one piece.

use std::borrow::Cow;
use std::sync::Arc;

use wshd_protocol::{DeflateGroup, Deflater};

use super::worker::{Worker, session_of};
use crate::session::SessionKey;
use crate::topics::{Published, Subscriber, Topic};

/// Messages to a topic that are passed on in one piece.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// What was taken from the inbox and is passed on together.
#[derive(Default)]
pub(super) struct Publishing {
    /// To one topic, in the order in which they were published.
    messages: Vec<Arc<Published>>,
    bytes: usize,
    /// Whom they are for. Kept for its memory.
    subscribers: Vec<Subscriber>,
}

impl Worker {
    /// Messages to one topic that follow each other are passed on in one piece.
    pub(super) fn collect(&mut self, message: Arc<Published>) {
        let Publishing { messages, bytes, .. } = &self.publishing;
        let is_other = |first: &Arc<Published>| !Arc::ptr_eq(&first.topic, &message.topic);
        if messages.first().is_some_and(is_other) || bytes + message.frame.len() > PIECE_BYTES_MAX {
            self.publish();
        }
        self.publishing.bytes += message.frame.len();
        self.publishing.messages.push(message);
    }

    /// Passes on what was collected.
    pub(super) fn publish(&mut self) {
        if self.publishing.messages.is_empty() {
            return;
        }
        let Publishing { mut messages, bytes, mut subscribers } = std::mem::take(&mut self.publishing);
        self.env.inbox.published_is_taken(bytes);
        subscribers.extend_from_slice(self.desk.topics.subscribers(&messages[0].topic));
        let joined = joined(messages.iter());
        let mut compressed = Compressed::default();
        for subscriber in subscribers.drain(..) {
            let hears = |message: &&Arc<Published>| {
                subscriber.hears(message.number) && !message.is_by(&self.env.inbox, subscriber.key)
            };
            let heard = messages.iter().filter(hears).count();
            let Some(session) = session_of(&mut self.sessions, subscriber.key).filter(|_| heard > 0) else {
                continue;
            };
            if let Some(group) = session.link.deflate_group() {
                let frames = compressed.frames(group, &messages, &mut self.desk.deflater);
                for (message, frame) in messages.iter().zip(frames).filter(|(message, _)| hears(message)) {
                    session.hear_compressed(frame, message, &mut self.desk, &self.env);
                }
                self.finish_commands(subscriber.key);
            } else if heard == messages.len() {
                self.pass_on(subscriber.key, &joined);
            } else {
                let frames: Vec<_> = messages.iter().filter(hears).collect();
                self.pass_on(subscriber.key, &self::joined(frames.into_iter()));
            }
        }
        drop(joined);
        messages.clear();
        self.publishing = Publishing { messages, bytes: 0, subscribers };
    }

    fn pass_on(&mut self, key: SessionKey, frames: &[u8]) {
        self.with_session(key, |session, desk, env| session.hear(frames, desk, env));
    }

    /// A session has arrived here, or stays after all: it hears what was published on the way, and from now on what is passed on here.
    pub(super) fn hear_letters(&mut self, key: SessionKey) {
        let letters = self.desk.topics.arrive(key);
        for message in &letters.messages {
            self.pass_on(key, &message.frame);
        }
        if letters.has_missed {
            self.miss_some(key, 1);
        }
    }

    /// This worker was too far behind for what was published to a topic.
    pub(super) fn miss(&mut self, topic: &Arc<Topic>) {
        let Some((first, last)) = topic.take_missed(&self.env.inbox) else { return };
        let subscribers: Vec<_> = self.desk.topics.subscribers(topic).to_vec();
        for subscriber in subscribers.into_iter().filter(|it| it.hears(first) || it.hears(last)) {
            self.miss_some(subscriber.key, last - first + 1);
        }
    }

    fn miss_some(&mut self, key: SessionKey, messages: u64) {
        self.with_session(key, |session, desk, env| session.miss(messages, desk, env));
    }
}

/// The frames of messages one behind the other; nothing is copied of a single one.
fn joined<'m>(messages: impl ExactSizeIterator<Item = &'m Arc<Published>> + Clone) -> Cow<'m, [u8]> {
    let mut first = messages.clone();
    match (messages.len(), first.next()) {
        (1, Some(only)) => Cow::Borrowed(&only.frame),
        _ => messages.flat_map(|message| &message.frame[..]).copied().collect(),
    }
}

/// The messages as they are sent to sessions that have agreed to compression: made once for all that have agreed to the same window.
#[derive(Default)]
struct Compressed(Vec<(DeflateGroup, Vec<Vec<u8>>)>);

impl Compressed {
    /// A frame for each message.
    fn frames(
        &mut self,
        group: DeflateGroup,
        messages: &[Arc<Published>],
        deflater: &mut Deflater,
    ) -> &[Vec<u8>] {
        let index = self.0.iter().position(|(its, _)| *its == group).unwrap_or_else(|| {
            let frame = |message: &Arc<Published>| {
                let mut frame = Vec::new();
                deflater.compress_alone(group, message.kind, message.payload(), &mut frame);
                frame
            };
            self.0.push((group, messages.iter().map(frame).collect()));
            self.0.len() - 1
        });
        &self.0[index].1
    }
}
