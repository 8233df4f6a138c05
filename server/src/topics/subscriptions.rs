//! What the sessions of one worker have subscribed to.
//!
//! A session without subscriptions is not in here at all. One that is about to move hears what is published from then on in its
//! mailbox, which goes along; where it arrives, or stays after all, the mailbox is emptied first.

use std::collections::HashMap;
use std::sync::Arc;

use handler_api::abi::{self, wsh_status};

use super::{Ear, Letters, Mailbox, SUBSCRIPTIONS_MAX, Scope, Topic, Topics};
use crate::generation::Inbox;
use crate::session::SessionKey;

/// See the module. One for each worker.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    registry: Arc<Topics>,
    /// Of this worker.
    inbox: Arc<Inbox>,
    topics: HashMap<TopicId, Vec<Subscriber>>,
    sessions: HashMap<SessionKey, Seats>,
}

/// The address of a topic, which the seats of its subscribers keep.
type TopicId = usize;

/// A session of this worker that has subscribed to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) key: SessionKey,
    /// It hears here what has a higher number than this,
    after: u64,
    /// and no higher number than this.
    until: u64,
}

/// What a session has subscribed to.
#[derive(Debug, Default)]
struct Seats {
    seats: Vec<Seat>,
    /// While it moves: then it hears there, and nothing here.
    mailbox: Option<Arc<Mailbox>>,
}

#[derive(Debug)]
struct Seat {
    topic: Arc<Topic>,
    /// Its place among the subscribers of the topic on this worker.
    index: usize,
}

/// The subscriptions of a session that belongs to no worker at the moment. Dropped, they end.
#[derive(Debug)]
pub(crate) struct Travelling {
    registry: Arc<Topics>,
    mailbox: Arc<Mailbox>,
    topics: Vec<Arc<Topic>>,
}

impl Subscriber {
    pub(crate) fn hears(&self, number: u64) -> bool {
        self.after < number && number <= self.until
    }
}

impl Subscriptions {
    pub(crate) fn new(registry: Arc<Topics>, inbox: Arc<Inbox>) -> Self {
        Self { registry, inbox, topics: HashMap::new(), sessions: HashMap::new() }
    }

    /// A session hears from now on what is published to this topic. Twice is once.
    pub(crate) fn subscribe(&mut self, key: SessionKey, scope: &Scope, name: &str) -> wsh_status {
        let session = self.sessions.entry(key).or_default();
        if session.seats.iter().any(|seat| seat.topic.is(scope, name)) {
            return abi::WSH_OK;
        }
        if session.seats.len() >= SUBSCRIPTIONS_MAX {
            return abi::WSH_E_TOO_BIG;
        }
        let mailbox = session.mailbox.clone();
        let ear = mailbox.as_ref().map_or(Ear::Worker(&self.inbox), Ear::Mailbox);
        let (topic, last) = self.registry.join(scope, name, ear);
        let until = if mailbox.is_some() { last } else { u64::MAX };
        self.sit(topic, Subscriber { key, after: last, until });
        abi::WSH_OK
    }

    pub(crate) fn unsubscribe(&mut self, key: SessionKey, scope: &Scope, name: &str) -> wsh_status {
        let Some(session) = self.sessions.get(&key) else { return abi::WSH_E_NOT_FOUND };
        let Some(place) = session.seats.iter().position(|seat| seat.topic.is(scope, name)) else {
            return abi::WSH_E_NOT_FOUND;
        };
        self.stand_up(key, place);
        self.tidy(key);
        abi::WSH_OK
    }

    /// A session is over.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        if self.sessions.is_empty() {
            return;
        }
        while let Some(place) = self.last_seat(key) {
            self.stand_up(key, place);
        }
        self.sessions.remove(&key);
    }

    /// The subscribers of a topic on this worker.
    pub(crate) fn subscribers(&self, topic: &Arc<Topic>) -> &[Subscriber] {
        self.topics.get(&id(topic)).map_or(&[], Vec::as_slice)
    }

    // ---- moving --------------------------------------------------------------------------------------------------------

    /// A session is about to move: what is published from now on goes to its mailbox.
    pub(crate) fn depart(&mut self, key: SessionKey) {
        // Also one without any: it may subscribe on its way.
        let session = self.sessions.entry(key).or_default();
        if session.mailbox.is_some() {
            return;
        }
        let mailbox = session.mailbox.insert(Arc::default());
        for seat in &session.seats {
            let last = seat.topic.switch(Ear::Worker(&self.inbox), Ear::Mailbox(mailbox));
            let subscribers =
                self.topics.get_mut(&id(&seat.topic)).expect("a seat is in a topic of this worker");
            subscribers[seat.index].until = last;
        }
    }

    /// Takes the subscriptions of a session that has [departed](Self::depart).
    pub(crate) fn take(&mut self, key: SessionKey) -> Option<Travelling> {
        let session = self.sessions.get_mut(&key)?;
        let mailbox = session.mailbox.clone()?;
        let topics = session.seats.iter().map(|seat| seat.topic.clone()).collect();
        while let Some(place) = self.last_seat(key) {
            self.take_seat(key, place);
        }
        self.sessions.remove(&key);
        Some(Travelling { registry: self.registry.clone(), mailbox, topics })
            .filter(|it| !it.topics.is_empty())
    }

    /// Gives a session its subscriptions under a key of this worker. It is still on its way.
    pub(crate) fn put(&mut self, key: SessionKey, mut travelling: Travelling) {
        let session = Seats { seats: Vec::new(), mailbox: Some(travelling.mailbox.clone()) };
        self.sessions.insert(key, session);
        for topic in std::mem::take(&mut travelling.topics) {
            self.sit(topic, Subscriber { key, after: 0, until: 0 });
        }
    }

    /// A session moves no more: it has arrived, or stays. Returns what it is to hear before anything else.
    pub(crate) fn arrive(&mut self, key: SessionKey) -> Letters {
        let Some(session) = self.sessions.get_mut(&key) else { return Letters::default() };
        let Some(mailbox) = session.mailbox.take() else { return Letters::default() };
        for seat in &session.seats {
            let last = seat.topic.switch(Ear::Mailbox(&mailbox), Ear::Worker(&self.inbox));
            let subscribers =
                self.topics.get_mut(&id(&seat.topic)).expect("a seat is in a topic of this worker");
            let subscriber = &mut subscribers[seat.index];
            (subscriber.after, subscriber.until) = (last, u64::MAX);
        }
        self.tidy(key);
        mailbox.take()
    }

    /// The new code did not take the session: what it has changed of the subscriptions is undone.
    pub(crate) fn restore(&mut self, key: SessionKey, before: &[Arc<Topic>]) {
        let is_seated = |session: &Seats, topic: &Arc<Topic>| {
            session.seats.iter().any(|seat| Arc::ptr_eq(&seat.topic, topic))
        };
        while let Some(place) = self.sessions.get(&key).and_then(|session| {
            session.seats.iter().position(|seat| !before.iter().any(|topic| Arc::ptr_eq(topic, &seat.topic)))
        }) {
            self.stand_up(key, place);
        }
        for topic in before {
            if !self.sessions.get(&key).is_some_and(|session| is_seated(session, topic)) {
                self.subscribe(key, &topic.scope, &topic.name);
            }
        }
    }

    /// A session without subscriptions is not in here.
    fn tidy(&mut self, key: SessionKey) {
        if self
            .sessions
            .get(&key)
            .is_some_and(|session| session.seats.is_empty() && session.mailbox.is_none())
        {
            self.sessions.remove(&key);
        }
    }

    // ---- seats ---------------------------------------------------------------------------------------------------------

    fn last_seat(&self, key: SessionKey) -> Option<usize> {
        self.sessions.get(&key)?.seats.len().checked_sub(1)
    }

    fn sit(&mut self, topic: Arc<Topic>, subscriber: Subscriber) {
        let subscribers = self.topics.entry(id(&topic)).or_default();
        let index = subscribers.len();
        subscribers.push(subscriber);
        let session = self.sessions.entry(subscriber.key).or_default();
        session.seats.push(Seat { topic, index });
    }

    /// Ends one subscription.
    fn stand_up(&mut self, key: SessionKey, place: usize) {
        let Some(seat) = self.take_seat(key, place) else { return };
        let mailbox = self.sessions.get(&key).and_then(|session| session.mailbox.as_ref());
        let ear = mailbox.map_or(Ear::Worker(&self.inbox), Ear::Mailbox);
        self.registry.leave(&seat.topic, ear);
    }

    /// Takes a seat out of both tables; the last subscriber of the topic moves up to its place.
    fn take_seat(&mut self, key: SessionKey, place: usize) -> Option<Seat> {
        let seat = self.sessions.get_mut(&key)?.seats.swap_remove(place);
        let subscribers = self.topics.get_mut(&id(&seat.topic))?;
        subscribers.swap_remove(seat.index);
        if let Some(moved) = subscribers.get(seat.index) {
            let seats = self.sessions.get_mut(&moved.key).map(|session| &mut session.seats);
            let its =
                seats.and_then(|seats| seats.iter_mut().find(|its| Arc::ptr_eq(&its.topic, &seat.topic)));
            its.expect("every subscriber has a seat").index = seat.index;
        } else if subscribers.is_empty() {
            self.topics.remove(&id(&seat.topic));
        }
        Some(seat)
    }
}

impl Travelling {
    pub(crate) fn topics(&self) -> &[Arc<Topic>] {
        &self.topics
    }
}

impl Drop for Travelling {
    fn drop(&mut self) {
        for topic in &self.topics {
            self.registry.leave(topic, Ear::Mailbox(&self.mailbox));
        }
    }
}

fn id(topic: &Arc<Topic>) -> TopicId {
    Arc::as_ptr(topic).addr()
}
