//! A worker: a thread with one event loop that runs sessions of its generation.
//!
//! The loop is one task of a tokio current-thread runtime. It waits for one thing only, the worker's private epoll, in which
//! every socket and the bell of the inbox are registered; tokio itself sees a single descriptor, however many sessions there
//! are. All sessions share one buffer for reading and one for writing (the *cork*: what the callbacks of a turn send is
//! written once, at its end).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use handler_api::abi;
use http::StatusCode;
use rustix::event::epoll::EventFlags;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};
use wshd_protocol::{Deflater, Inflater};

use super::Generation;
use super::inbox::{Command, Inbox};
use super::leaving::{Leaving, PACE};
use super::poller::{Batch, Poller, Ready};
use super::publishing::Publishing;
use super::table::Table;
use super::timers::{TIMERS_MAX, Timers};
use super::upgrade::{AcceptedKey, Decision, Refusal, Ticket, UpgradeCall, UpgradeRequest};
use crate::config::Limits;
use crate::handler::{Failure, HandlerLibrary, Instance};
use crate::session::{Head, Kept, Link, Next, Peer, Session, SessionKey, Stream};
use crate::topics::{Scope, Subscriptions};
use crate::windows::Agreed;

/// Batches of events before tokio's timers get their turn.
const BATCHES_PER_WAKE: usize = 8;

/// Fewer events than this in a batch: the rest of the world was quiet, and asking again would only cost a system call.
const SMALL_BATCH: usize = 16;

/// Timers of sessions that are heard before sockets get their turn.
const TIMERS_PER_TURN: usize = 256;

/// What all sessions of a worker share and write to.
pub(crate) struct Desk {
    /// What the session whose turn it is has sent; empty between turns.
    pub(crate) cork: Vec<u8>,
    /// Seconds since the server began, from 1 on: the same for every worker, so that a deadline stays what it is when a
    /// session moves. The only clock of sessions.
    pub(crate) now: u32,
    /// Of the sessions of this worker.
    pub(crate) timers: Timers<SessionKey>,
    pub(crate) topics: Subscriptions,
    /// Of all sessions. Taken out while messages that lie in it are delivered.
    pub(crate) inflater: Option<Box<Inflater>>,
    pub(crate) deflater: Deflater,
    /// Frames for sessions whose handler is sending a message in fragments, until that has ended.
    pub(crate) postponed: HashMap<SessionKey, Vec<u8>>,
}

impl Desk {
    /// The session is over.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        self.timers.take(key);
        self.topics.forget(key);
        self.postponed.remove(&key);
    }
}

/// What all sessions of a worker share and only read.
pub(crate) struct Env {
    pub(crate) library: Arc<HandlerLibrary>,
    pub(crate) generation: Arc<Generation>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) protocol_limits: wshd_protocol::Limits,
    pub(crate) keeps_request: bool,
    /// Of the topics that are the handler's own.
    pub(crate) scope: Scope,
}

pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) poller: Poller,
    pub(super) batch: Batch,
    pub(super) sessions: Table<Session>,
    /// Handler objects whose stream has not followed yet.
    pub(super) accepted: Table<Waiting>,
    buffer: Box<[u8]>,
    pub(super) desk: Desk,
    pub(super) env: Env,
    pub(super) load: Arc<AtomicUsize>,
    /// Objects of sessions that another generation was asked to take over.
    pub(super) in_transit: HashMap<SessionKey, Kept>,
    /// The last serial number that was given to a session or an accepted upgrade.
    serial: u32,
    /// Sessions that left input behind.
    again: Vec<SessionKey>,
    commands: Vec<Command>,
    pub(super) publishing: Publishing,
    pub(super) leaving: Option<Leaving>,
    /// When the next timer of the library is due; only on worker 0.
    library_due: Option<Instant>,
    exits: bool,
}

pub(super) struct Waiting {
    pub(super) instance: Instance,
    head: Head,
    /// What was agreed about compression.
    deflate: Option<Agreed>,
    serial: u32,
}

/// Runs worker `index` until it is told to exit.
pub(super) fn run(
    index: usize,
    generation: Arc<Generation>,
    library: Arc<HandlerLibrary>,
    poller: Poller,
    inbox: Arc<Inbox>,
) {
    let name = generation.name.clone();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            error!(handler = &*name, "worker {index} cannot start its event loop: {cause}");
            return inbox.close();
        }
    };
    let result = runtime.block_on(async {
        let mut worker = Worker::new(index, generation, library, poller, inbox.clone())?;
        worker.run().await
    });
    inbox.close();
    if let Err(cause) = result {
        error!(handler = &*name, "worker {index} ends: its event loop failed: {cause}");
    }
}

impl Worker {
    fn new(
        index: usize,
        generation: Arc<Generation>,
        library: Arc<HandlerLibrary>,
        poller: Poller,
        inbox: Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let limits = generation.limits();
        let protocol_limits = protocol_limits(&limits);
        let buffer = vec![0; limits.read_buffer_bytes].into_boxed_slice();
        let keeps_request = generation.info.flags & abi::WSH_LIBRARY_FORGETS_REQUEST == 0;
        let load = generation.workers[index].load.clone();
        let topics = Subscriptions::new(generation.topics().clone(), inbox.clone());
        let scope = Scope::Handler(generation.name.clone());
        Ok(Self {
            index,
            poller,
            batch: Batch::new(),
            sessions: Table::new(),
            accepted: Table::new(),
            buffer,
            desk: Desk {
                cork: Vec::new(),
                now: generation.surroundings.clock.now(),
                timers: Timers::default(),
                topics,
                inflater: None,
                deflater: Deflater::new(),
                postponed: HashMap::new(),
            },
            env: Env { library, generation, inbox, limits, protocol_limits, keeps_request, scope },
            load,
            in_transit: HashMap::new(),
            serial: 0,
            again: Vec::new(),
            commands: Vec::new(),
            publishing: Publishing::default(),
            leaving: None,
            library_due: None,
            exits: false,
        })
    }

    async fn run(&mut self) -> std::io::Result<()> {
        let epoll = self.poller.register()?;
        let mut second = interval(Duration::from_secs(1));
        let mut pace = interval(PACE);
        let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        while !self.exits {
            let needs_clock = !self.sessions.is_empty() || self.leaving.is_some();
            let next_timer = self.next_timer();
            if let Some(due) = next_timer.map(Into::into).filter(|due| *due != alarm.deadline()) {
                alarm.as_mut().reset(due);
            }
            // All branches are cancel safe: readiness stays set, a missed tick comes at once, and the alarm goes on.
            let ready = tokio::select! {
                ready = epoll.readable() => Some(ready?),
                _ = second.tick(), if needs_clock => None,
                _ = pace.tick(), if self.is_paced() => None,
                () = &mut alarm, if next_timer.is_some() => None,
                () = tokio::task::yield_now(), if self.is_sweeping() || !self.again.is_empty() => None,
            };
            self.advance_clock();
            self.sweep();
            if next_timer.is_some() {
                self.run_timers();
            }
            let Some(mut ready) = ready else {
                self.run_again();
                continue;
            };
            if self.turn()? {
                // Clears what tokio had seen when the turn began; what became ready since then is a new event.
                ready.clear_ready();
            } else {
                ready.retain_ready();
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Runs what is ready. True if nothing was left behind, so that the next event will be a new one.
    fn turn(&mut self) -> std::io::Result<bool> {
        self.run_again();
        for _ in 0..BATCHES_PER_WAKE {
            self.poller.fetch(&mut self.batch)?;
            for index in 0..self.batch.len() {
                match self.batch.event(index) {
                    Ready::Inbox => self.run_commands(),
                    Ready::Session(key, flags) => self.run_session(key, flags),
                }
            }
            if self.batch.len() < SMALL_BATCH {
                return Ok(self.again.is_empty());
            }
        }
        Ok(false)
    }

    /// Runs the sessions whose input has no event any more. They read to its end, because that a peer hung up has none either.
    fn run_again(&mut self) {
        for key in std::mem::take(&mut self.again) {
            self.run_session(key, EventFlags::IN | EventFlags::RDHUP);
        }
    }

    pub(super) fn read_on(&mut self, key: SessionKey) {
        self.again.push(key);
    }

    fn run_session(&mut self, key: SessionKey, flags: EventFlags) {
        let Some(session) = session_of(&mut self.sessions, key) else { return };
        let next = session.on_ready(flags, &mut self.buffer, &mut self.desk, &self.env);
        self.after(key, next);
    }

    pub(super) fn after(&mut self, key: SessionKey, next: Next) {
        debug_assert!(self.desk.cork.is_empty(), "a turn ends with everything written or queued");
        match next {
            Next::Wait => {}
            Next::Again => self.again.push(key),
            Next::Remove => return self.remove(key),
        }
        if self.leaving.is_some() {
            self.leave_later(key);
        }
    }

    pub(super) fn remove(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.remove(key.slot) else { return };
        self.env.generation.admission().leave(session.link.peer.ip());
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.report_if_empty();
    }

    // ---- commands ------------------------------------------------------------------------------------------------------

    pub(super) fn run_commands(&mut self) {
        let mut commands = self.env.inbox.take(std::mem::take(&mut self.commands));
        // Commands for one session follow each other often; what they send is written once.
        let mut corked: Option<SessionKey> = None;
        for command in commands.drain(..) {
            let key = command.session();
            if corked != key
                && let Some(previous) = corked.take()
            {
                self.finish_commands(previous);
            }
            corked = key;
            if !matches!(command, Command::Published(_)) {
                self.publish();
            }
            self.run_command(command);
        }
        if let Some(previous) = corked {
            self.finish_commands(previous);
        }
        self.publish();
        // One burst does not decide how much memory the queue keeps.
        commands.shrink_to(1024);
        self.commands = commands;
    }

    fn run_command(&mut self, command: Command) {
        let Self { sessions, desk, env, .. } = self;
        match command {
            Command::Upgrade(request, reply) => self.decide(request, reply),
            Command::Open { accepted, stream, early, peer } => self.open(accepted, stream, early, peer),
            Command::Abandon(accepted) => {
                if let Some(waiting) = self.take_accepted(accepted) {
                    self.env.library.free(waiting.instance);
                    self.load.fetch_sub(1, Ordering::Relaxed);
                    self.report_if_empty();
                }
            }
            Command::Session(key, request) => {
                if let Some(session) = session_of(sessions, key) {
                    session.on_request(request, desk, env);
                }
            }
            Command::Published(message) => self.collect(message),
            Command::Missed(topic) => self.miss(&topic),
            Command::Adopt(session) => self.adopt(session),
            Command::Moved(key) => self.forget(key),
            Command::Returned(key, moving, why) => self.take_back(key, *moving, why),
            Command::Configure(limits) => self.configure(limits),
            Command::Leave(leave) => self.begin_to_leave(leave),
            Command::LibraryTimers => self.look_at_library_timers(),
            Command::Quiesce => self.env.library.quiesce(),
            Command::Exit => self.exit(),
        }
    }

    pub(super) fn finish_commands(&mut self, key: SessionKey) {
        self.with_session(key, Session::finish_commands);
    }

    /// Has a session do something, if it is still there, and what is to be done after it.
    pub(super) fn with_session(
        &mut self,
        key: SessionKey,
        act: impl FnOnce(&mut Session, &mut Desk, &Env) -> Next,
    ) {
        let Some(session) = session_of(&mut self.sessions, key) else { return };
        let next = act(session, &mut self.desk, &self.env);
        self.after(key, next);
    }

    // ---- upgrades ------------------------------------------------------------------------------------------------------

    /// Asks the library whether it takes this peer, and keeps its object if it does.
    fn decide(&mut self, request: Box<UpgradeRequest>, reply: oneshot::Sender<Decision>) {
        if self.leaving.is_some() {
            self.load.fetch_sub(1, Ordering::Relaxed);
            let _ = reply.send(Decision::AskAgain(request));
            return;
        }
        let mut call = UpgradeCall::new(*request, self.env.generation.clone());
        let decision = match self.env.library.on_upgrade(&mut call) {
            Ok(instance) if call.is_aborted() => {
                self.env.library.free(instance);
                Decision::Refuse(call.refused())
            }
            Ok(instance) => {
                let serial = self.next_serial();
                let head = call.head(self.env.keeps_request, self.env.generation.path());
                let deflate = call.take_deflate();
                let slot = self.accepted.insert(Waiting { instance, head, deflate, serial });
                let ticket = Ticket::new(self.env.inbox.clone(), AcceptedKey { slot, serial });
                Decision::Accept(call.accepted(ticket))
            }
            Err(Failure::Status(abi::WSH_E_REJECTED)) => Decision::Refuse(call.refused()),
            Err(failure) => {
                if failure == Failure::Panic {
                    self.env.generation.on_panic();
                }
                let handler = self.env.generation.name();
                warn!(handler, "on_upgrade {failure}");
                Decision::Refuse(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed\n"))
            }
        };
        if matches!(decision, Decision::Refuse(_)) {
            self.load.fetch_sub(1, Ordering::Relaxed);
        }
        // If the peer is gone the decision comes back and is dropped here, and with it the ticket.
        let _ = reply.send(decision);
    }

    fn open(&mut self, accepted: AcceptedKey, stream: Stream, mut early: Vec<u8>, peer: Peer) {
        let Some(Waiting { instance, head, deflate, .. }) = self.take_accepted(accepted) else { return };
        let serial = self.next_serial();
        let key = SessionKey { slot: self.sessions.next_slot(), serial };
        if let Err(cause) = self.poller.add(&stream, key) {
            warn!("cannot watch a socket: {cause}");
            self.env.library.free(instance);
            self.load.fetch_sub(1, Ordering::Relaxed);
            self.env.generation.admission().leave(peer.ip());
            self.report_if_empty();
            return;
        }
        let link = Link::new(stream, head, key, peer, deflate);
        self.sessions.insert(Session::new(link, instance, self.desk.now));
        let Some(session) = session_of(&mut self.sessions, key) else { return };
        debug!(target: "access", %peer, "{} opened", self.env.generation.path());
        let next = session.open(&mut early, &mut self.desk, &self.env);
        self.after(key, next);
        self.close_if_late(key);
    }

    fn take_accepted(&mut self, accepted: AcceptedKey) -> Option<Waiting> {
        let waiting = self.accepted.get_mut(accepted.slot)?;
        if waiting.serial == accepted.serial { self.accepted.remove(accepted.slot) } else { None }
    }

    pub(super) fn next_serial(&mut self) -> u32 {
        // Serial numbers begin at 1; 0 belongs to the bell.
        self.serial = self.serial.wrapping_add(1).max(1);
        self.serial
    }

    // ---- time ----------------------------------------------------------------------------------------------------------

    fn advance_clock(&mut self) {
        let now = self.env.generation.surroundings.clock.now();
        if now == self.desk.now {
            return;
        }
        self.desk.now = now;
        for slot in self.sessions.slots() {
            let Some(session) = self.sessions.get_mut(slot) else { continue };
            let key = session.key();
            let next = session.on_tick(&mut self.desk, &self.env);
            self.after(key, next);
        }
    }

    /// When the next timer is due, of a session or of the library.
    fn next_timer(&self) -> Option<Instant> {
        let of_sessions = self.desk.timers.next_due();
        of_sessions.into_iter().chain(self.library_due).min()
    }

    /// Lets the timers be heard whose time has come, some at a time.
    fn run_timers(&mut self) {
        let now = Instant::now();
        for _ in 0..TIMERS_PER_TURN {
            let Some((key, token)) = self.desk.timers.take_due(now) else { break };
            self.with_session(key, |session, desk, env| session.on_timer(token, desk, env));
        }
        if self.library_due.is_none_or(|due| due > now) {
            return;
        }
        let generation = self.env.generation.clone();
        let Some(services) = generation.services.get() else { return };
        for _ in 0..TIMERS_MAX {
            let Some(token) = services.take_due(now) else { break };
            self.env.library.on_library_timer(token);
        }
        self.look_at_library_timers();
    }

    fn look_at_library_timers(&mut self) {
        self.library_due = self.env.generation.services.get().and_then(|services| services.next_due());
    }

    fn configure(&mut self, limits: Arc<Limits>) {
        if limits.read_buffer_bytes != self.buffer.len() {
            self.buffer = vec![0; limits.read_buffer_bytes].into_boxed_slice();
        }
        self.env.protocol_limits = protocol_limits(&limits);
        self.env.limits = limits;
    }

    fn exit(&mut self) {
        self.drop_all_sessions();
        if self.index == 0 {
            if let Some(services) = self.env.generation.services.get() {
                services.offload().end();
            }
            self.env.library.shutdown();
        }
        self.exits = true;
    }
}

fn protocol_limits(limits: &Limits) -> wshd_protocol::Limits {
    wshd_protocol::Limits {
        message_bytes_max: limits.message_bytes_max,
        empty_fragments_max: limits.empty_fragments_max,
    }
}

fn interval(time: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(time);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

pub(super) fn session_of(sessions: &mut Table<Session>, key: SessionKey) -> Option<&mut Session> {
    sessions.get_mut(key.slot).filter(|session| session.key() == key)
}
