//! A session on its way from one generation of its handler to another.
//!
//! The old worker exports the state, keeps the frozen object, and posts everything else to a worker of the new generation: the
//! stream, the protocol state with what has arrived of a message, what the peer did not take yet, every deadline. The new worker
//! imports the state and says so, and only then is the old object freed. If the new code does not take it, the session
//! comes back and goes on as if nothing had happened. The peer notices nothing either way.

use std::fmt;
use std::sync::Arc;

use handler_api::abi;

use super::{Call, Handle, Link, Phase, Place, Session, SessionKey, Stream, Ticks};
use crate::generation::{Command, Desk, Env, Inbox, Timer};
use crate::handler::{Failure, Instance, Verdict};
use crate::topics::Travelling;

/// Whether a session may still leave the generation it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stay {
    /// It was not asked, or is to be asked again.
    #[default]
    Unasked,
    /// Its handler, or the code that follows, refused: it finishes where it is, unless yet another version follows.
    ForGood,
}

/// Why a session was not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoExport {
    /// It is in the middle of something. To be asked again after its next callback.
    Busy,
    /// It finishes on this generation.
    Refused,
    /// The handler panicked, and the session is being ended with 1011.
    Panicked,
}

/// What the old worker keeps until the new one has answered.
pub(crate) struct Kept {
    pub(crate) instance: Instance,
    pub(crate) handle: Option<Arc<Handle>>,
}

/// Everything of an open session but its object.
pub(crate) struct Moving {
    link: Link,
    ticks: Ticks,
    /// Of its handles.
    place: Option<Arc<Place>>,
    state: Vec<u8>,
    state_version: u32,
    timers: Vec<Timer>,
    subscriptions: Option<Travelling>,
    home: Arc<Inbox>,
    key: SessionKey,
}

/// Why a session came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// The new code did not take the state.
    Refused,
    /// The generation of this number is itself on its way out.
    NotServed { by: u64 },
}

/// A session that belongs to nobody at the moment. Dropped unread, as in the inbox of a worker that ends, it returns to where it
/// came from.
pub(crate) struct InTransit {
    moving: Option<Box<Moving>>,
    /// Number of the generation that it was sent to.
    to: u64,
}

impl Session {
    /// An open session that is on its way already.
    fn with(link: Link, instance: Instance, ticks: Ticks, stay: Stay) -> Self {
        let reads_on = link.stream.holds_input();
        Self { link, instance: Some(instance), phase: Phase::Open, stay, reads_on, ticks }
    }

    /// Has the handler write down the state of this session and freeze its object.
    pub(crate) fn export(&mut self, desk: &mut Desk, env: &Env) -> Result<Vec<u8>, NoExport> {
        let link = &mut self.link;
        let Some(instance) = &self.instance else { return Err(NoExport::Refused) };
        if self.phase != Phase::Open || link.fault.is_some() || link.sent_close || link.receives_raw() {
            // It ends by itself, soon: every phase but the open one has a deadline. What the handler reads by itself, the code that
            // follows would have to go on with in the middle.
            return Err(NoExport::Refused);
        }
        if link.connection.is_sending_fragments() {
            return Err(NoExport::Busy);
        }
        let most = env.generation.state_bytes_max();
        match env.library.export_state(instance, &mut Call::frozen(link, desk, env), most) {
            Ok(state) => Ok(state),
            Err(Failure::Status(abi::WSH_E_BUSY)) => Err(NoExport::Busy),
            Err(Failure::Status(_)) => Err(NoExport::Refused),
            Err(Failure::Panic) => {
                self.finish_after_panic(desk, env);
                Err(NoExport::Panicked)
            }
        }
    }

    /// Whether it may be asked to leave its generation.
    pub(crate) fn may_leave(&self) -> bool {
        self.stay == Stay::Unasked
    }

    pub(crate) fn stay_for_good(&mut self) {
        self.stay = Stay::ForGood;
    }

    pub(crate) fn ask_again(&mut self) {
        self.stay = Stay::Unasked;
    }

    /// What other threads ask of it from now on waits until it has arrived or stays.
    pub(crate) fn hold_requests(&self) {
        if let Some(handle) = &self.link.handle {
            handle.place().hold();
        }
    }

    /// It was not exported: what other threads asked meanwhile is run.
    pub(crate) fn release_requests(&self) {
        if let Some(handle) = &self.link.handle {
            handle.place().stay();
        }
    }

    /// Takes an exported session apart.
    pub(crate) fn leave(mut self, state: Vec<u8>, desk: &mut Desk, env: &Env) -> (Moving, Kept) {
        let instance = self.instance.take().expect("a session that was exported has an object");
        let handle = self.link.handle.take();
        let place = handle.as_ref().map(|handle| handle.place().clone());
        let key = self.link.key;
        let state_version = env.generation.info().state_version;
        let (timers, subscriptions) = (desk.timers.take(key), desk.topics.take(key));
        let Self { link, ticks, .. } = self;
        let home = env.inbox.clone();
        let moving = Moving { link, ticks, place, state, state_version, timers, subscriptions, home, key };
        (moving, Kept { instance, handle })
    }
}

impl Moving {
    /// Gives the session to the code of another generation, under a key of its worker. Its socket is not watched yet.
    ///
    /// # Errors
    /// The new code does not take the state: the session is as it was.
    pub(crate) fn import(
        mut self: Box<Self>,
        key: SessionKey,
        desk: &mut Desk,
        env: &Env,
    ) -> Result<(Session, Arrived), Box<Self>> {
        let link = &mut self.link;
        link.key = key;
        let handle = |place: &Arc<Place>| Arc::new(Handle::at(place.clone(), env.generation.clone()));
        link.handle = self.place.as_ref().map(handle);
        desk.timers.put(key, &self.timers);
        let topics = self.subscriptions.as_ref().map(|travelling| travelling.topics().to_vec());
        if let Some(travelling) = self.subscriptions.take() {
            desk.topics.put(key, travelling);
        }
        let imported =
            env.library.import_state(&mut Call::frozen(link, desk, env), self.state_version, &self.state);
        let Ok((instance, verdict)) = imported else {
            // What the new code took a handle for is not its session after all.
            if let Some(handle) = link.handle.take() {
                handle.set_gone();
            }
            link.key = self.key;
            desk.timers.take(key);
            desk.topics.restore(key, &topics.unwrap_or_default());
            self.subscriptions = desk.topics.take(key);
            desk.topics.forget(key);
            return Err(self);
        };
        let Self { mut link, ticks, place, home, key: old, .. } = *self;
        let goes_on = verdict != Verdict::Hold;
        if !goes_on {
            link.held.get_or_insert_default();
        }
        Ok((Session::with(link, instance, ticks, Stay::Unasked), Arrived { home, old, place, goes_on }))
    }

    /// Puts the session together again on the worker that it came from, and tells its object that it goes on.
    pub(crate) fn come_home(
        self,
        kept: Kept,
        key: SessionKey,
        why: Returned,
        desk: &mut Desk,
        env: &Env,
    ) -> Session {
        let Self { mut link, ticks, timers, subscriptions, .. } = self;
        link.key = key;
        desk.timers.put(key, &timers);
        if let Some(travelling) = subscriptions {
            desk.topics.put(key, travelling);
        }
        link.handle = kept.handle;
        let stay = if why == Returned::Refused { Stay::ForGood } else { Stay::Unasked };
        let mut session = Session::with(link, kept.instance, ticks, stay);
        session.call(desk, env, |library, instance, call| library.cancel_export(instance, call));
        if let Some(handle) = &session.link.handle {
            handle.place().arrive(env.inbox.clone(), key);
        }
        session
    }

    /// The socket, to be watched by the worker that takes the session over.
    pub(crate) fn stream(&self) -> &Stream {
        &self.link.stream
    }

    pub(crate) fn send_back(self: Box<Self>, why: Returned) {
        let (home, key) = (self.home.clone(), self.key);
        // The worker of the old generation does not end before it has heard of each session that it sent away.
        let _ = home.post(Command::Returned(key, self, why));
    }
}

/// What is to be said when the session is in the table of its new worker.
pub(crate) struct Arrived {
    home: Arc<Inbox>,
    old: SessionKey,
    place: Option<Arc<Place>>,
    /// Whether its new object is ready for what was kept back.
    pub(crate) goes_on: bool,
}

impl Arrived {
    pub(crate) fn tell(self, inbox: &Arc<Inbox>, key: SessionKey) {
        if let Some(place) = self.place {
            place.arrive(inbox.clone(), key);
        }
        // The worker of the old generation does not end before it has heard of each session that it sent away.
        let _ = self.home.post(Command::Moved(self.old));
    }
}

impl InTransit {
    pub(crate) fn new(moving: Moving, to: u64) -> Self {
        Self { moving: Some(Box::new(moving)), to }
    }

    pub(crate) fn take(mut self) -> Box<Moving> {
        self.moving.take().expect("it is taken once, by value")
    }
}

impl Drop for InTransit {
    fn drop(&mut self) {
        if let Some(moving) = self.moving.take() {
            moving.send_back(Returned::NotServed { by: self.to });
        }
    }
}

impl fmt::Debug for InTransit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InTransit").field("to", &self.to).finish_non_exhaustive()
    }
}

impl fmt::Debug for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moving").field("key", &self.key).finish_non_exhaustive()
    }
}
