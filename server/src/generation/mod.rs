//! One loaded copy of a handler library with its own worker threads.
//!
//! In: opening handshakes and streams from the front. Out: sessions that run on a worker of this generation and nowhere else.
//!
//! Every call into the library, constructors and entry included, is made on a worker of its generation: worker 0 loads it and is
//! the *control thread* of wsh.h. The others start when the load asks for them. That one rule keeps a handler that blocks
//! from stalling any other handler, and it is what makes unloading decidable: when the workers are joined, the threads that
//! could hold the library's thread-local destructors are gone.

mod inbox;
mod poller;
mod table;
mod upgrade;
mod worker;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::warn;

pub(crate) use inbox::{Command, Inbox};
pub(crate) use upgrade::{Decision, Refusal, Ticket, UpgradeCall, UpgradeRequest};
pub(crate) use worker::{Desk, Env};

use poller::Poller;

use crate::admission::Admission;
use crate::config::{Config, Limits};
use crate::handler::{HandlerLibrary, Identity, LoadError};
use crate::registry::check::LibraryInfo;
use crate::registry::stage::Staged;

/// See the module.
pub(crate) struct Generation {
    name: Arc<str>,
    number: u64,
    path: String,
    /// The file in the handlers folder that this is a copy of.
    file: PathBuf,
    info: LibraryInfo,
    staged: Staged,
    config: Arc<Config>,
    admission: Arc<Admission>,
    workers: Vec<Worker>,
    /// Set by worker 0 when the library is loaded; the other workers start with it.
    library: OnceLock<Arc<HandlerLibrary>>,
    stopping: AtomicBool,
}

/// What the generation knows of one of its workers.
struct Worker {
    inbox: OnceLock<Arc<Inbox>>,
    /// Sessions and accepted upgrades; the basis of the choice between workers.
    load: Arc<AtomicUsize>,
    starting: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a generation is made from.
pub(crate) struct Blueprint {
    pub(crate) name: Arc<str>,
    pub(crate) number: u64,
    pub(crate) path: String,
    pub(crate) file: PathBuf,
    pub(crate) info: LibraryInfo,
    pub(crate) staged: Staged,
    pub(crate) config: Arc<Config>,
    pub(crate) admission: Arc<Admission>,
}

impl Generation {
    /// Loads the library on a new worker and returns when it is initialised and healthy. Blocks for at most
    /// `handlers.load_seconds_max`.
    pub(crate) fn load(blueprint: Blueprint) -> Result<Arc<Self>, LoadError> {
        let Blueprint { name, number, path, file, info, staged, config, admission } = blueprint;
        let worker = || Worker {
            inbox: OnceLock::new(),
            load: Arc::default(),
            starting: Mutex::default(),
            thread: Mutex::default(),
        };
        let workers = (0..config.handlers.workers.max(1)).map(|_| worker()).collect();
        let generation = Arc::new(Self {
            name,
            number,
            path,
            file,
            info,
            staged,
            config,
            admission,
            workers,
            library: OnceLock::new(),
            stopping: AtomicBool::new(false),
        });
        let limit = generation.config.handlers.load_seconds_max;
        let (loaded, outcome) = std::sync::mpsc::sync_channel(1);
        generation.start_worker(0, Some(loaded)).map_err(|error| LoadError::Thread(error.to_string()))?;
        match outcome.recv_timeout(limit) {
            Ok(result) => result.map(|()| generation),
            Err(RecvTimeoutError::Timeout) => Err(LoadError::TimedOut(limit)),
            Err(RecvTimeoutError::Disconnected) => {
                Err(LoadError::Thread("it ended before the library was loaded".into()))
            }
        }
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

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Asks the library, on one of its workers, whether it takes this peer.
    ///
    /// Cancel safe: if the caller gives up, an acceptance that comes later is taken back.
    pub(crate) async fn upgrade(self: &Arc<Self>, request: UpgradeRequest) -> Decision {
        if self.stopping.load(Ordering::Acquire) {
            return Decision::Refuse(Refusal::shutting_down());
        }
        let (inbox, load) = match self.pick_worker() {
            Ok(picked) => picked,
            Err(error) => {
                warn!(handler = self.name(), "cannot start a worker: {error}");
                return Decision::Refuse(Refusal::overloaded());
            }
        };
        let (reply, decision) = oneshot::channel();
        load.fetch_add(1, Ordering::Relaxed);
        if !inbox.post(Command::Upgrade(Box::new(request), reply)) {
            load.fetch_sub(1, Ordering::Relaxed);
            return Decision::Refuse(Refusal::shutting_down());
        }
        decision.await.unwrap_or_else(|_| Decision::Refuse(Refusal::shutting_down()))
    }

    /// The worker with the least load. One that was not started yet is started only when no other is idle.
    fn pick_worker(self: &Arc<Self>) -> std::io::Result<(&Arc<Inbox>, &Arc<AtomicUsize>)> {
        let mut best: Option<(usize, &Arc<Inbox>, &Arc<AtomicUsize>)> = None;
        for (index, worker) in self.workers.iter().enumerate() {
            let Some(inbox) = worker.inbox.get() else {
                if best.is_some_and(|(load, ..)| load == 0) {
                    break;
                }
                return Ok((self.started_inbox(index)?, &worker.load));
            };
            let load = worker.load.load(Ordering::Relaxed);
            if best.is_none_or(|(least, ..)| load < least) {
                best = Some((load, inbox, &worker.load));
            }
        }
        let (_, inbox, load) = best.expect("a generation has at least one worker");
        Ok((inbox, load))
    }

    /// The inbox of a worker, which is started if this is the first need of it.
    fn started_inbox(self: &Arc<Self>, index: usize) -> std::io::Result<&Arc<Inbox>> {
        let worker = &self.workers[index];
        let _starting = worker.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.inbox.get().is_none() {
            self.start_worker(index, None)?;
        }
        Ok(worker.inbox.get().expect("start_worker sets the inbox"))
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
            let library = match loaded {
                None => generation.library.get().cloned(),
                Some(loaded) => generation.load_library(&loaded),
            };
            if let Some(library) = library {
                worker::run(index, generation, library, poller, its_inbox);
            }
        })?;
        let worker = &self.workers[index];
        *worker.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        worker.inbox.set(inbox).expect("a worker is started once");
        Ok(())
    }

    /// On worker 0: maps and initialises the library.
    fn load_library(&self, loaded: &SyncSender<Result<(), LoadError>>) -> Option<Arc<HandlerLibrary>> {
        let identity = Identity::new(self.name.clone(), self.number);
        let result = HandlerLibrary::open(self.staged.path(), identity).map(Arc::new);
        let library = result.as_ref().ok().cloned();
        if let Some(library) = &library {
            self.library.set(library.clone()).expect("a library is loaded once");
        }
        if loaded.send(result.map(|_| ())).is_err() {
            // The loader waited long enough and has refused this library meanwhile.
            if let Some(library) = &library {
                library.quiesce();
                library.shutdown();
            }
            return None;
        }
        library
    }

    /// Closes every session with 1001, lets the library shut down, and joins the workers. What has not ended by then is left
    /// to the end of the process, and the log says so.
    pub(crate) async fn stop(self: &Arc<Self>, deadline: tokio::time::Instant) {
        self.stopping.store(true, Ordering::Release);
        let started: Vec<_> =
            self.workers.iter().filter_map(|worker| Some((worker, worker.inbox.get()?))).collect();
        let mut emptied = Vec::new();
        for (_, inbox) in &started {
            let (done, is_done) = oneshot::channel();
            inbox.post(Command::Stop(deadline.into_std(), done));
            emptied.push(is_done);
        }
        // A worker that sits in a handler that blocks does not answer; a second more than the sessions get is enough.
        let grace = deadline + Duration::from_secs(1);
        for is_done in emptied {
            if tokio::time::timeout_at(grace, is_done).await.is_err() {
                warn!(
                    handler = self.name(),
                    "a worker did not end its sessions in time: does the handler block?"
                );
                return;
            }
        }
        // Worker 0 goes last: it makes the library's last call, and by then no other thread may be in its code.
        for (worker, inbox) in started.iter().rev() {
            inbox.post(Command::Exit);
            let thread = worker.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(thread) = thread else { continue };
            let joined = tokio::task::spawn_blocking(move || thread.join());
            match tokio::time::timeout_at(grace, joined).await {
                Ok(Ok(Ok(()))) => {}
                Ok(_) => warn!(handler = self.name(), "a worker ended with a panic"),
                Err(_) => {
                    warn!(handler = self.name(), "a worker did not end: does the handler's shutdown block?");
                }
            }
        }
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("name", &self.name)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
