//! Topics: what is published to one, all of its subscribers hear.
//!
//! In: subscriptions of sessions, by their workers; messages, from any thread. Out: each message once in the inbox of each worker
//! that has a subscriber, and once in the mailbox of each subscriber that is moving to another worker.
//!
//! A topic belongs to a handler and all of its generations, or on purpose to every handler of the server. Messages are numbered and
//! posted under the lock of their topic, so all of its subscribers hear the same order. A subscription knows the numbers between
//! which it hears, so that a session which moves from one worker to another hears each message once.

mod broker;
mod subscriptions;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};

use handler_api::abi::{self, wsh_status};
use wshd_protocol::{Kind, SentFrame, frame_head};

pub(crate) use broker::{Broker, InProcess};
pub(crate) use subscriptions::{Subscriber, Subscriptions, Travelling};

use crate::generation::{Command, Inbox};
use crate::session::{SessionKey, message_kind};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Topics that one session may have subscribed to. What one peer can make the server remember is bounded by it.
const SUBSCRIPTIONS_MAX: usize = 1024;

/// Whose name it is: the same name in two scopes is two topics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Of the handler with this name, in all of its generations.
    Handler(Arc<str>),
    /// Of every handler that asks for it.
    Server,
}

/// All topics that have a subscriber. One for each server.
pub(crate) struct Topics {
    names: Mutex<Names>,
    broker: Box<dyn Broker>,
    /// Bytes of messages that may wait for one worker.
    waiting_bytes_max: AtomicUsize,
}

type Names = HashMap<Scope, HashMap<Box<str>, Arc<Topic>>>;

/// A name that has a subscriber.
#[derive(Debug)]
pub(crate) struct Topic {
    scope: Scope,
    name: Box<str>,
    audience: Mutex<Audience>,
}

#[derive(Debug, Default)]
struct Audience {
    /// Number of the last message.
    last: u64,
    /// Sessions that have subscribed, those that are moving included.
    subscribers: usize,
    workers: Vec<Listening>,
    moving: Vec<Arc<Mailbox>>,
}

/// A worker with subscribers.
#[derive(Debug)]
struct Listening {
    inbox: Arc<Inbox>,
    subscribers: usize,
    /// First and last number of what it had no room for.
    missed: Option<(u64, u64)>,
}

/// What is published to a session while it moves.
#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<Letters>);

#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// In the order in which they were published.
    pub(crate) messages: Vec<Arc<Published>>,
    bytes: usize,
    /// There was no room for some more.
    pub(crate) has_missed: bool,
}

/// Where what is published is heard.
#[derive(Debug, Clone, Copy)]
enum Ear<'a> {
    Worker(&'a Arc<Inbox>),
    Mailbox(&'a Arc<Mailbox>),
}

/// A message that is to be published.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// As it goes to each peer that has not agreed to compression.
    pub(crate) frame: Box<[u8]>,
    /// Does not hear it: a session, by its worker and its key there.
    pub(crate) publisher: Option<(Arc<Inbox>, SessionKey)>,
}

/// A message that was published, and the number it has in its topic.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: Arc<Topic>,
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) frame: Box<[u8]>,
    publisher: Option<(Arc<Inbox>, SessionKey)>,
}

impl Published {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.frame[SentFrame::at(&self.frame).map_or(0, |frame| frame.head_len)..]
    }

    /// Whether this session of this worker has published it and does not want to hear it.
    pub(crate) fn is_by(&self, inbox: &Arc<Inbox>, key: SessionKey) -> bool {
        self.publisher.as_ref().is_some_and(|(its, by)| *by == key && Arc::ptr_eq(its, inbox))
    }
}

impl Message {
    /// To everybody. `WSH_E_INVALID` for a kind that there is not, and for text that is not UTF-8.
    pub(crate) fn framed(kind: u32, data: &[u8]) -> Result<Self, wsh_status> {
        let kind = message_kind(kind, data).ok_or(abi::WSH_E_INVALID)?;
        let frame = [frame_head(kind, data.len()).as_slice(), data].concat();
        Ok(Self { kind, frame: frame.into(), publisher: None })
    }
}

/// A topic as a handler names it by the contract, whose own scope this is. `None` if there is no such scope or the name is none.
pub(crate) fn named<'n>(scope: u32, name: &'n [u8], own: &'n Scope) -> Option<(&'n Scope, &'n str)> {
    let scope = match scope {
        abi::WSH_TOPIC_OWN => own,
        abi::WSH_TOPIC_SERVER => &Scope::Server,
        _ => return None,
    };
    let name = std::str::from_utf8(name).ok().filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()))?;
    Some((scope, name))
}

impl Topics {
    /// `waiting_bytes_max` bounds the bytes of messages that wait for one worker.
    pub(crate) fn new(broker: impl Broker + 'static, waiting_bytes_max: usize) -> Self {
        let waiting_bytes_max = AtomicUsize::new(waiting_bytes_max);
        Self { names: Mutex::new(HashMap::new()), broker: Box::new(broker), waiting_bytes_max }
    }

    pub(crate) fn configure(&self, waiting_bytes_max: usize) {
        self.waiting_bytes_max.store(waiting_bytes_max, Ordering::Relaxed);
    }

    /// Passes a message to every subscriber. `WSH_E_FULL` if some worker was too far behind to take it; the others have it.
    pub(crate) fn publish(&self, scope: &Scope, name: &str, message: Message) -> wsh_status {
        self.broker.publish(self, scope, name, message)
    }

    /// Passes a message to the subscribers on this server.
    pub(crate) fn deliver(&self, scope: &Scope, name: &str, message: Message) -> wsh_status {
        let Some(topic) = self.find(scope, name) else { return abi::WSH_OK };
        let mut audience = topic.audience();
        audience.last += 1;
        let number = audience.last;
        let Message { kind, frame, publisher } = message;
        let waiting_bytes_max = self.waiting_bytes_max.load(Ordering::Relaxed);
        let message = Arc::new(Published { topic: topic.clone(), number, kind, frame, publisher });
        let mut status = abi::WSH_OK;
        for listening in &mut audience.workers {
            if listening.inbox.publish(&message, waiting_bytes_max) {
                continue;
            }
            status = abi::WSH_E_FULL;
            let is_told = listening.missed.is_some();
            listening.missed = Some((listening.missed.map_or(number, |(first, _)| first), number));
            if !is_told {
                // A worker that has ended has no subscribers left.
                let _ = listening.inbox.post(Command::Missed(topic.clone()));
            }
        }
        audience.moving.iter().for_each(|mailbox| mailbox.put(&message, waiting_bytes_max));
        status
    }

    /// Sessions that have subscribed.
    pub(crate) fn subscribers(&self, scope: &Scope, name: &str) -> usize {
        self.find(scope, name).map_or(0, |topic| topic.audience().subscribers)
    }

    fn find(&self, scope: &Scope, name: &str) -> Option<Arc<Topic>> {
        self.names().get(scope)?.get(name).cloned()
    }

    /// One more session listens. It hears what has a higher number than the one that is returned.
    fn join(&self, scope: &Scope, name: &str, ear: Ear<'_>) -> (Arc<Topic>, u64) {
        let mut names = self.names();
        let topics = match names.get_mut(scope) {
            Some(topics) => topics,
            None => names.entry(scope.clone()).or_default(),
        };
        let topic = match topics.get(name) {
            Some(topic) => topic.clone(),
            None => {
                let audience = Mutex::new(Audience::default());
                let topic = Arc::new(Topic { scope: scope.clone(), name: name.into(), audience });
                topics.insert(name.into(), topic.clone());
                self.broker.on_first_subscriber(scope, name);
                topic
            }
        };
        let mut audience = topic.audience();
        audience.subscribers += 1;
        audience.begin(ear);
        let last = audience.last;
        drop(audience);
        (topic, last)
    }

    /// A session listens no more. With its last subscriber the topic is gone.
    fn leave(&self, topic: &Arc<Topic>, ear: Ear<'_>) {
        let mut names = self.names();
        let mut audience = topic.audience();
        audience.end(ear);
        audience.subscribers -= 1;
        let is_empty = audience.subscribers == 0;
        drop(audience);
        let Some(topics) = names.get_mut(&topic.scope).filter(|_| is_empty) else { return };
        topics.remove(&topic.name);
        if topics.is_empty() {
            names.remove(&topic.scope);
        }
        self.broker.on_no_subscriber(&topic.scope, &topic.name);
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl Topic {
    fn is(&self, scope: &Scope, name: &str) -> bool {
        *self.name == *name && self.scope == *scope
    }

    /// A session listens elsewhere from now on. What has the number that is returned, or a lower one, is heard at the old place; what
    /// has a higher one, at the new.
    fn switch(&self, from: Ear<'_>, to: Ear<'_>) -> u64 {
        let mut audience = self.audience();
        audience.end(from);
        audience.begin(to);
        audience.last
    }

    /// Numbers of what this worker had no room for, first and last.
    pub(crate) fn take_missed(&self, inbox: &Arc<Inbox>) -> Option<(u64, u64)> {
        let mut audience = self.audience();
        audience.workers.iter_mut().find(|worker| Arc::ptr_eq(&worker.inbox, inbox))?.missed.take()
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audience {
    fn begin(&mut self, ear: Ear<'_>) {
        match ear {
            Ear::Worker(inbox) => {
                match self.workers.iter_mut().find(|worker| Arc::ptr_eq(&worker.inbox, inbox)) {
                    Some(worker) => worker.subscribers += 1,
                    None => {
                        self.workers.push(Listening { inbox: inbox.clone(), subscribers: 1, missed: None });
                    }
                }
            }
            Ear::Mailbox(mailbox) => self.moving.push(mailbox.clone()),
        }
    }

    fn end(&mut self, ear: Ear<'_>) {
        match ear {
            Ear::Worker(inbox) => {
                let Some(index) = self.workers.iter().position(|worker| Arc::ptr_eq(&worker.inbox, inbox))
                else {
                    return;
                };
                self.workers[index].subscribers -= 1;
                if self.workers[index].subscribers == 0 {
                    self.workers.swap_remove(index);
                }
            }
            Ear::Mailbox(mailbox) => self.moving.retain(|other| !Arc::ptr_eq(other, mailbox)),
        }
    }
}

impl Mailbox {
    fn put(&self, message: &Arc<Published>, waiting_bytes_max: usize) {
        let mut letters = self.letters();
        let bytes = letters.bytes + message.frame.len();
        if letters.bytes > 0 && bytes > waiting_bytes_max {
            letters.has_missed = true;
            return;
        }
        letters.bytes = bytes;
        letters.messages.push(message.clone());
    }

    fn take(&self) -> Letters {
        std::mem::take(&mut *self.letters())
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod support {
    use super::*;

    pub(super) fn inbox() -> Arc<Inbox> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Arc::new(Inbox::new(rustix::event::eventfd(0, flags).expect("an eventfd")))
    }

    pub(super) fn key(slot: u32) -> SessionKey {
        SessionKey { slot, serial: 1 }
    }

    pub(super) fn publish(topics: &Topics, text: &[u8]) -> wsh_status {
        topics.publish(
            &Scope::Server,
            "news",
            Message { kind: Kind::Binary, frame: text.into(), publisher: None },
        )
    }
}

#[cfg(all(test, wshd_loom))]
mod models {
    use loom::thread;

    use super::support::{inbox, key, publish};
    use super::*;

    /// What a worker passes on to a session of what lies in its inbox.
    fn heard(inbox: &Inbox, subscriptions: &Subscriptions, key: SessionKey) -> Vec<u8> {
        let hear = |command| match command {
            Command::Published(message) => {
                let subscribers = subscriptions.subscribers(&message.topic);
                let hears = subscribers.iter().any(|it| it.key == key && it.hears(message.number));
                hears.then(|| message.frame[0])
            }
            other => panic!("{other:?}"),
        };
        inbox.take(Vec::new()).into_iter().filter_map(hear).collect()
    }

    /// Somebody publishes while a session leaves one worker, travels, and arrives at another, which has a subscriber already.
    #[test]
    fn model_what_is_published_during_a_move_is_heard_once() {
        loom::model(|| {
            let topics = Arc::new(Topics::new(InProcess, usize::MAX));
            let (old, new) = (inbox(), inbox());
            let mut there = Subscriptions::new(topics.clone(), new.clone());
            let mut here = Subscriptions::new(topics.clone(), old.clone());
            here.subscribe(key(1), &Scope::Server, "news");
            there.subscribe(key(1), &Scope::Server, "news");
            let publisher = {
                let topics = topics.clone();
                thread::spawn(move || [[1], [2]].map(|number| publish(&topics, &number)))
            };
            here.depart(key(1));
            let mut seen = heard(&old, &here, key(1));
            let travelling = here.take(key(1)).expect("it has subscribed");
            there.put(key(2), travelling);
            let letters = there.arrive(key(2));
            seen.extend(letters.messages.iter().map(|message| message.frame[0]));
            publisher.join().unwrap();
            seen.extend(heard(&new, &there, key(2)));
            assert_eq!(seen, [1, 2]);
        });
    }
}

#[cfg(all(test, not(wshd_loom)))]
mod tests {
    use super::support::{inbox, key, publish};
    use super::*;

    #[test]
    fn a_topic_is_there_while_it_has_a_subscriber() {
        let topics = Arc::new(Topics::new(InProcess, usize::MAX));
        let mut worker = Subscriptions::new(topics.clone(), inbox());
        for slot in 0..100 {
            worker.subscribe(key(slot), &Scope::Server, "news");
        }
        // In an order that moves others to the places that become free.
        for slot in (0..100).step_by(3).chain((0..100).rev()) {
            worker.forget(key(slot));
        }
        assert_eq!(topics.subscribers(&Scope::Server, "news"), 0);
        assert!(topics.names().is_empty());
    }

    #[test]
    fn subscriptions_that_belong_to_nobody_any_more_end() {
        let topics = Arc::new(Topics::new(InProcess, usize::MAX));
        let mut worker = Subscriptions::new(topics.clone(), inbox());
        worker.subscribe(key(1), &Scope::Server, "news");
        worker.depart(key(1));
        worker.subscribe(key(1), &Scope::Server, "later");
        let travelling = worker.take(key(1)).expect("it has subscribed");
        assert_eq!(travelling.topics().len(), 2);
        assert_eq!(topics.subscribers(&Scope::Server, "news"), 1, "who moves counts");
        drop(travelling);
        assert!(topics.names().is_empty());
    }

    #[test]
    fn what_new_code_has_changed_is_undone_if_it_does_not_take_the_session() {
        let topics = Arc::new(Topics::new(InProcess, usize::MAX));
        let (mut old, mut new) =
            (Subscriptions::new(topics.clone(), inbox()), Subscriptions::new(topics.clone(), inbox()));
        old.subscribe(key(1), &Scope::Server, "news");
        old.depart(key(1));
        publish(&topics, b"while it moves");
        let travelling = old.take(key(1)).expect("it has subscribed");
        let before = travelling.topics().to_vec();
        new.put(key(2), travelling);
        new.subscribe(key(2), &Scope::Server, "other");
        new.restore(key(2), &before);
        old.put(key(1), new.take(key(2)).expect("it is still subscribed"));
        let letters = old.arrive(key(1));
        assert_eq!(letters.messages.len(), 1);
        assert_eq!(topics.subscribers(&Scope::Server, "other"), 0);
        assert_eq!(topics.subscribers(&Scope::Server, "news"), 1);
    }

    #[test]
    fn what_waits_for_a_worker_and_in_a_mailbox_has_a_bound() {
        let topics = Arc::new(Topics::new(InProcess, 10));
        let here = inbox();
        let mut worker = Subscriptions::new(topics.clone(), here.clone());
        worker.subscribe(key(1), &Scope::Server, "news");
        let statuses = [b"12345", b"12345", b"12345"].map(|text| publish(&topics, text));
        assert_eq!(statuses, [abi::WSH_OK, abi::WSH_OK, abi::WSH_E_FULL]);
        publish(&topics, b"x");
        let topic = topics.find(&Scope::Server, "news").expect("it has a subscriber");
        assert_eq!(topic.take_missed(&here), Some((3, 4)));
        assert_eq!(topic.take_missed(&here), None);
        worker.depart(key(1));
        for text in [b"12345", b"12345", b"12345"] {
            publish(&topics, text);
        }
        let letters = worker.arrive(key(1));
        assert_eq!((letters.messages.len(), letters.has_missed), (2, true));
    }
}
