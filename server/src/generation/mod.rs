//! One loaded copy of a handler library with its own worker threads.
//!
//! In: opening handshakes and streams from the front. Out: sessions that run on a worker of this generation and nowhere else.
//!
//! Every call into the library, constructors and entry included, is made on a worker of its generation: worker 0 loads it and is
//! the *control thread* of wsh.h. The others start when the load asks for them. That one rule keeps a handler that blocks
//! from stalling any other handler, and it is what makes unloading decidable: when the workers are joined, the threads that
//! could hold the library's thread-local destructors are gone.

mod gate;
mod inbox;
mod leave;
mod leaving;
mod poller;
mod publishing;
mod services;
mod table;
mod timers;
mod upgrade;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use handler_api::abi::{self, wsh_status};
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

pub(crate) use inbox::{Command, Inbox};
pub(crate) use leave::Leave;
pub(crate) use services::Services;
pub(crate) use timers::Timer;
pub(crate) use upgrade::{Decision, Manner, Refusal, Ticket, UpgradeCall, UpgradeRequest};
pub(crate) use worker::{Desk, Env};

use gate::Gate;
use poller::Poller;

use crate::admission::Admission;
use crate::config::Limits;
use crate::handler::{HandlerLibrary, Identity, LoadError, Offload, OffloadLimits, Owner, Retained};
use crate::metrics::Metrics;
use crate::registry::check::LibraryInfo;
use crate::registry::stage::Staged;
use crate::session::InTransit;
use crate::topics::Topics;
use crate::windows::{WindowMemory, Windows};

/// See the module.
pub(crate) struct Generation {
    name: Arc<str>,
    number: u64,
    path: String,
    /// The file in the handlers folder that this is a copy of.
    file: PathBuf,
    info: LibraryInfo,
    staged: Arc<Staged>,
    /// The handler's own table of the config file, as JSON.
    config: Arc<str>,
    /// The config grants it raw access.
    is_raw: bool,
    /// It has asked for raw access without having it, and the log says so.
    was_forbidden: AtomicBool,
    loaded_at: Instant,
    surroundings: Surroundings,
    /// What sessions of its handler keep for compression.
    windows: Arc<WindowMemory>,
    limits: ArcSwap<Limits>,
    state_bytes_max: usize,
    offload: OffloadLimits,
    workers: Vec<Worker>,
    /// The threads that run the library's code, and the keys they made.
    owner: Arc<Owner>,
    /// What the library can ask for; made with worker 0.
    services: OnceLock<Arc<Services>>,
    /// Set by worker 0 when the library is mapped; the other workers start with it. Taken out again at the end.
    library: Mutex<Option<Arc<HandlerLibrary>>>,
    gate: Gate,
    /// When it was told to leave, and how many sessions it had then.
    left: OnceLock<(Instant, usize)>,
    /// Rung when the last worker has no session left, and none will come.
    emptied: Notify,
    /// Callbacks that panicked.
    panics: AtomicU32,
    /// Messages that were dropped because their peers do not read.
    dropped: AtomicU64,
    /// Handles to sessions, held by the library or by the sessions themselves.
    handles: AtomicUsize,
}

/// What the generation knows of one of its workers.
struct Worker {
    inbox: OnceLock<Arc<Inbox>>,
    /// Sessions and accepted upgrades; the basis of the choice between workers.
    load: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a generation is made from.
pub(crate) struct Blueprint {
    pub(crate) name: Arc<str>,
    /// Counted from 1 for each handler.
    pub(crate) number: u64,
    pub(crate) path: String,
    pub(crate) file: PathBuf,
    pub(crate) info: LibraryInfo,
    pub(crate) staged: Staged,
    /// The handler's own table of the config file, as JSON.
    pub(crate) config: Arc<str>,
    /// The config grants it raw access.
    pub(crate) is_raw: bool,
    pub(crate) limits: Arc<Limits>,
    pub(crate) offload: OffloadLimits,
    /// Worker threads, at least one.
    pub(crate) workers: usize,
    pub(crate) load_seconds_max: Duration,
    /// What one session may carry to the version that follows.
    pub(crate) state_bytes_max: usize,
    pub(crate) surroundings: Surroundings,
}

/// What the generations of a server share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) admission: Arc<Admission>,
    pub(crate) clock: Clock,
    /// Rung when a callback panicked.
    pub(crate) panicked: Arc<Notify>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) windows: Arc<Windows>,
}

/// Counts the seconds of a server, from 1 on, so that 0 can mean never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> u32 {
        self.0.elapsed().as_secs() as u32 + 1
    }
}

impl Generation {
    /// Loads the library on a new worker and returns when it is initialised and healthy. Blocks for at most
    /// `load_seconds_max`.
    ///
    /// # Errors
    /// The library could not be taken into service. What was mapped of it is unmapped again, or stays mapped where that is
    /// in doubt.
    pub(crate) fn load(blueprint: Blueprint) -> Result<Arc<Self>, LoadError> {
        let Blueprint {
            name,
            number,
            path,
            file,
            info,
            staged,
            config,
            is_raw,
            limits,
            offload,
            surroundings,
            ..
        } = blueprint;
        let limit = blueprint.load_seconds_max;
        let workers = blueprint.workers.max(1);
        let worker = || Worker { inbox: OnceLock::new(), load: Arc::default(), thread: Mutex::default() };
        let generation = Arc::new(Self {
            owner: Owner::new(format!("{name}.g{number}")),
            windows: surroundings.windows.of(&name),
            name,
            number,
            path,
            file,
            info,
            staged: Arc::new(staged),
            config,
            is_raw,
            was_forbidden: AtomicBool::new(false),
            loaded_at: Instant::now(),
            surroundings,
            limits: ArcSwap::new(limits),
            state_bytes_max: blueprint.state_bytes_max,
            offload,
            workers: (0..workers).map(|_| worker()).collect(),
            services: OnceLock::new(),
            library: Mutex::new(None),
            gate: Gate::new(workers),
            left: OnceLock::new(),
            emptied: Notify::new(),
            panics: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
            handles: AtomicUsize::new(0),
        });
        let (loaded, outcome) = std::sync::mpsc::sync_channel(1);
        let start = || generation.start_worker(0, Some(loaded));
        generation.gate.start(0, start).map_err(|error| LoadError::Thread(error.to_string()))?;
        let error = match outcome.recv_timeout(limit) {
            Ok(Ok(())) => return Ok(generation),
            Ok(Err(error)) => error,
            // Its thread is lost in there, and the library with it.
            Err(RecvTimeoutError::Timeout) => return Err(LoadError::TimedOut(limit)),
            Err(RecvTimeoutError::Disconnected) => {
                LoadError::Thread("it ended before the library was loaded".into())
            }
        };
        generation.join_worker(0);
        if let Err(retained) = generation.unmap(limit) {
            warn!(handler = generation.name(), "the refused library stays mapped: {retained}");
        }
        Err(error)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Counted from 1 for each handler.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The resource path it serves.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn info(&self) -> &LibraryInfo {
        &self.info
    }

    /// The copy that is mapped.
    pub(crate) fn staged(&self) -> &Arc<Staged> {
        &self.staged
    }

    /// What the library was told of the config.
    pub(crate) fn config(&self) -> &Arc<str> {
        &self.config
    }

    /// Whether the config grants it raw access.
    pub(crate) fn is_raw(&self) -> bool {
        self.is_raw
    }

    /// `WSH_OK`, or `WSH_E_FORBIDDEN` where the config does not grant raw access; the first time the log says what to do.
    pub(crate) fn may_be_raw(&self) -> wsh_status {
        if self.is_raw {
            return abi::WSH_OK;
        }
        if !self.was_forbidden.swap(true, Ordering::Relaxed) {
            let handler = self.name();
            warn!(
                handler,
                "it asks for raw access and does not have it: set raw = true in [handlers.\"{handler}\"] of the config"
            );
        }
        abi::WSH_E_FORBIDDEN
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    pub(crate) fn state_bytes_max(&self) -> usize {
        self.state_bytes_max
    }

    pub(crate) fn topics(&self) -> &Arc<Topics> {
        &self.surroundings.topics
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.surroundings.admission
    }

    pub(crate) fn windows(&self) -> &Arc<WindowMemory> {
        &self.windows
    }

    pub(crate) fn loaded_at(&self) -> Instant {
        self.loaded_at
    }

    /// Sessions and upgrades that were accepted.
    pub(crate) fn sessions(&self) -> usize {
        self.workers.iter().map(|worker| worker.load.load(Ordering::Relaxed)).sum()
    }

    /// Callbacks that panicked so far.
    pub(crate) fn panics(&self) -> u32 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn on_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        self.surroundings.panicked.notify_one();
    }

    /// Messages that were dropped so far, by `limits.slow_peer`.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn on_dropped(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn handle_is_made(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn handle_is_dropped(&self) {
        self.handles.fetch_sub(1, Ordering::Release);
    }

    /// Other limits hold from the next event of each session on.
    pub(crate) fn configure(&self, limits: &Arc<Limits>) {
        self.limits.store(limits.clone());
        for inbox in self.inboxes() {
            // A worker that has ended has nobody to limit.
            let _ = inbox.post(Command::Configure(limits.clone()));
        }
    }

    fn inboxes(&self) -> impl Iterator<Item = &Arc<Inbox>> {
        self.workers.iter().filter_map(|worker| worker.inbox.get())
    }

    // ---- coming in -----------------------------------------------------------------------------------------------------

    /// Asks the library, on one of its workers, whether it takes this peer.
    ///
    /// Cancel safe: if the caller gives up, an acceptance that comes later is taken back.
    pub(crate) async fn upgrade(self: &Arc<Self>, request: UpgradeRequest) -> Decision {
        let request = Box::new(request);
        let (inbox, load) = match self.pick_worker() {
            Ok(Some(picked)) => picked,
            Ok(None) => return Decision::AskAgain(request),
            Err(error) => {
                warn!(handler = self.name(), "cannot start a worker: {error}");
                return Decision::Refuse(Refusal::overloaded());
            }
        };
        let (reply, decision) = oneshot::channel();
        load.fetch_add(1, Ordering::Relaxed);
        match inbox.post(Command::Upgrade(request, reply)) {
            Err(Command::Upgrade(request, _)) => {
                load.fetch_sub(1, Ordering::Relaxed);
                Decision::AskAgain(request)
            }
            _ => decision.await.unwrap_or_else(|_| Decision::Refuse(Refusal::shutting_down())),
        }
    }

    /// Takes over a session of another generation. One that cannot be taken over returns to where it came from.
    pub(crate) fn adopt(self: &Arc<Self>, session: InTransit) {
        let (inbox, load) = match self.pick_worker() {
            Ok(Some(picked)) => picked,
            Ok(None) => return,
            Err(error) => return warn!(handler = self.name(), "cannot start a worker: {error}"),
        };
        load.fetch_add(1, Ordering::Relaxed);
        if let Err(returned) = inbox.post(Command::Adopt(session)) {
            load.fetch_sub(1, Ordering::Relaxed);
            drop(returned);
        }
    }

    /// The worker with the least load. One that was not started yet is started only when no other is idle. `None` once the
    /// generation is leaving.
    fn pick_worker(self: &Arc<Self>) -> std::io::Result<Option<(&Arc<Inbox>, &Arc<AtomicUsize>)>> {
        if self.gate.is_leaving() {
            return Ok(None);
        }
        let mut best: Option<(usize, &Arc<Inbox>, &Arc<AtomicUsize>)> = None;
        for (index, worker) in self.workers.iter().enumerate() {
            let Some(inbox) = worker.inbox.get() else {
                if best.is_some_and(|(load, ..)| load == 0) {
                    break;
                }
                return Ok(self.started_inbox(index)?.map(|inbox| (inbox, &worker.load)));
            };
            let load = worker.load.load(Ordering::Relaxed);
            if best.is_none_or(|(least, ..)| load < least) {
                best = Some((load, inbox, &worker.load));
            }
        }
        let (_, inbox, load) = best.expect("a generation has at least one worker");
        Ok(Some((inbox, load)))
    }

    /// The inbox of a worker, which is started if this is the first need of it.
    fn started_inbox(self: &Arc<Self>, index: usize) -> std::io::Result<Option<&Arc<Inbox>>> {
        let is_started = self.gate.start(index, || self.start_worker(index, None))?;
        Ok(if is_started { self.workers[index].inbox.get() } else { None })
    }

    /// Starts the thread of a worker. With `loaded` it loads the library first and reports there how that went.
    fn start_worker(
        self: &Arc<Self>,
        index: usize,
        loaded: Option<SyncSender<Result<(), LoadError>>>,
    ) -> std::io::Result<()> {
        let poller = Poller::new()?;
        let inbox = Arc::new(Inbox::new(poller.waker()?));
        let name: String = format!("{}.g{}.{index}", self.name, self.number).chars().take(15).collect();
        let (generation, its_inbox) = (self.clone(), inbox.clone());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            generation.owner.claim_thread();
            let library = match loaded {
                None => lock(&generation.library).clone(),
                Some(loaded) => generation.load_library(&its_inbox, &loaded),
            };
            if let Some(library) = library {
                worker::run(index, generation, library, poller, its_inbox);
            }
        })?;
        let worker = &self.workers[index];
        *lock(&worker.thread) = Some(thread);
        worker.inbox.set(inbox).expect("a worker is started once");
        Ok(())
    }

    /// On worker 0: maps and initialises the library.
    fn load_library(
        &self,
        inbox: &Arc<Inbox>,
        loaded: &SyncSender<Result<(), LoadError>>,
    ) -> Option<Arc<HandlerLibrary>> {
        let name = format!("{}.g{}", self.name, self.number);
        let offload = Offload::new(self.offload, name, self.owner.clone());
        let services = Arc::new(Services::new(
            self.name.clone(),
            inbox.clone(),
            self.config.clone(),
            self.is_raw,
            offload,
            &self.surroundings,
        ));
        let services = self.services.get_or_init(|| services);
        let identity = Identity::new(self.name.clone(), self.number, services.clone());
        let mut library = match HandlerLibrary::map(self.staged.path(), identity, &self.owner) {
            Ok(library) => library,
            Err(error) => {
                // The loader may have stopped waiting; then there is nothing to undo either.
                let _ = loaded.send(Err(error));
                return None;
            }
        };
        let entered = library.enter();
        let is_entered = entered.is_ok();
        if !is_entered {
            services.offload().end();
        }
        let library = Arc::new(library);
        *lock(&self.library) = Some(library.clone());
        let is_awaited = loaded.send(entered).is_ok();
        if is_entered && !is_awaited {
            // The loader waited long enough and has refused this library meanwhile.
            library.quiesce();
            services.offload().end();
            library.shutdown();
        }
        (is_entered && is_awaited).then_some(library)
    }

    // ---- going ---------------------------------------------------------------------------------------------------------

    /// Takes no new peers, and lets the sessions go. May be called again with another order; true for the first one.
    pub(crate) fn leave(&self, how: &Leave) -> bool {
        let is_first = self.gate.close();
        self.left.get_or_init(|| (Instant::now(), self.sessions()));
        for inbox in self.inboxes() {
            // A worker that has ended has no session left.
            let _ = inbox.post(Command::Leave(how.clone()));
        }
        is_first
    }

    /// A worker has no session left, and none will come.
    fn worker_is_empty(&self, index: usize) {
        if self.gate.is_last_out(index) {
            self.emptied.notify_one();
        }
    }

    /// Waits until the last session is gone, ends the library and its threads, and unmaps it. To be called once, after
    /// [`leave`](Self::leave). What is done after the last session is gone may take `limit` for each step.
    ///
    /// # Errors
    /// The library stays mapped, with the reason.
    pub(crate) async fn end(self: Arc<Self>, limit: Duration) -> Result<(), Retained> {
        self.emptied.notified().await;
        if let Some((since, sessions)) = self.left.get() {
            let (path, number, micros) = (&self.path, self.number, since.elapsed().as_micros());
            info!("{path} generation {number}: {sessions} sessions left it in {micros} us");
        }
        let order = |index: usize, command: Command| {
            // A worker that has ended needs no order.
            let _ = self.workers[index].inbox.get().map(|inbox| inbox.post(command));
        };
        order(0, Command::Quiesce);
        // Worker 0 goes last: it makes the library's last call, and by then no other thread may be in its code.
        for index in (0..self.workers.len()).rev() {
            order(index, Command::Exit);
            let generation = self.clone();
            let joined = tokio::task::spawn_blocking(move || generation.join_worker(index));
            if tokio::time::timeout(limit, joined).await.is_err() {
                return Err(Retained::WorkerHangs(index));
            }
        }
        let unmapped = tokio::task::spawn_blocking(move || self.unmap(limit)).await;
        unmapped.unwrap_or(Err(Retained::InUse))
    }

    fn join_worker(&self, index: usize) {
        let thread = lock(&self.workers[index].thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!(handler = self.name(), "worker {index} ended with a panic");
        }
    }

    /// After every worker was joined: takes the library out of memory.
    fn unmap(&self, limit: Duration) -> Result<(), Retained> {
        let Some(library) = lock(&self.library).take() else { return Ok(()) };
        let handles = self.handles.load(Ordering::Acquire);
        let library = Arc::into_inner(library).ok_or(Retained::InUse)?;
        if handles > 0 {
            return Err(library.retain(Retained::Handles(handles)));
        }
        if self.info.never_unloads() {
            return Err(library.retain(Retained::NeverUnloads));
        }
        library.unmap(&self.owner, limit)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("name", &self.name)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
