//! The control plane: one task that owns everything that changes while the server runs.
//!
//! In: signals and requests, changes of files, the end of what was begun. Out: a table of routes, listeners and limits, each put in
//! the place of the one before in one step. The data plane never waits for it.

mod answer;
mod credentials;
mod socket;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{info, warn};

pub use answer::{
    Answer, CertificateStatus, CompressionStatus, GenerationStatus, HandlerStatus, MetricStatus, RefusedFile,
    RetainedGeneration, Status, WayStatus,
};
pub(crate) use socket::ControlSocket;
pub use socket::{ControlError, ask};

use self::credentials::Credentials;
use crate::admission::{self, Admission};
use crate::auth::AuthError;
use crate::config::{AuthRules, Config, ConfigError};
use crate::generation::{Clock, Generation, Leave, Surroundings};
use crate::http::Front;
use crate::listener::{self, BindError, Listeners};
use crate::registry::scan::ScanError;
use crate::registry::watcher::{Watched, Watcher};
use crate::registry::{Event, Loaded, Registry, own_policy};
use crate::router::{Listed, Router, Way};
use crate::tls::{self, Identity, TlsError};
use crate::topics::{InProcess, Topics};

/// Reads the config once more, with the flags the server was started with.
pub type Reread = Box<dyn Fn() -> Result<Config, ConfigError> + Send>;

/// What can be asked of a running server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Read the config and look at the handlers again; or load one handler again.
    Reload(Option<String>),
    /// Put the version in service that was active before.
    Rollback(String),
    Status,
    /// Stop as with SIGTERM.
    Stop,
}

/// A request and where its answer goes.
pub(crate) type Asked = (Request, oneshot::Sender<Answer>);

/// See the module.
pub(crate) struct Control {
    config: Arc<Config>,
    reread: Reread,
    registry: Registry,
    front: Arc<Front>,
    admission: Arc<Admission>,
    listeners: Listeners,
    socket: Option<ControlSocket>,
    watcher: Watcher,
    /// What the watcher had to say; it says each thing once, and not many.
    watch_notes: Vec<String>,
    /// Rung by the watcher.
    changed: Arc<Notify>,
    panicked: Arc<Notify>,
    sender: mpsc::Sender<Asked>,
    requests: mpsc::Receiver<Asked>,
    /// Who waits until everything is loaded, and what went wrong so far.
    waiting: Vec<(oneshot::Sender<Answer>, Option<String>)>,
    /// Rung when somebody asks for the end.
    stop: Arc<Notify>,
    /// The bytes of the config file and of its map file, as they were read last.
    config_text: Vec<Option<Vec<u8>>>,
    /// The config whose routes and aliases are in force: those of another one are when all is loaded that they lead to.
    routed: Arc<Config>,
    listed: Listed,
    /// What was in the files of certificates when they were looked at last, and what is wrong with it.
    certificates: Certificates,
    /// The same for files of users.
    credentials: Credentials,
    began: Instant,
}

/// Why a server could not be started.
#[derive(Debug)]
pub enum StartError {
    Handlers(ScanError),
    Bind(BindError),
    Files(std::io::Error),
    Tls(TlsError),
    Auth(AuthError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Handlers(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Files(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Auth(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl Control {
    /// Binds every address, loads the handlers, and begins to accept.
    ///
    /// Ports are bound before libraries are loaded, so that a port that is taken costs no time, and accepted from after, so
    /// that the first peer finds every handler.
    pub(crate) async fn start(config: Config, reread: Reread) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let (identity, certificates) = Certificates::first(&config).map_err(StartError::Tls)?;
        let (auth, credentials) = Credentials::first(&config).map_err(StartError::Auth)?;
        let bound = listener::bind_all(&config).map_err(StartError::Bind)?;
        let connections_max = admission::possible(config.limits.connections_max);
        let admission = Arc::new(Admission::new(connections_max, &config));
        let front = Arc::new(Front::new(config.clone(), identity, auth).map_err(StartError::Files)?);
        let (changed, panicked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let surroundings = Surroundings {
            admission: admission.clone(),
            clock: Clock::start(),
            panicked: panicked.clone(),
            topics: Arc::new(Topics::new(InProcess, config.limits.published_bytes_max)),
            metrics: Arc::default(),
            windows: Arc::default(),
        };
        let rung = changed.clone();
        let watcher =
            Watcher::start(config.handlers.watch, config.handlers.poll_seconds, move || rung.notify_one());
        let (sender, requests) = mpsc::channel(16);
        let mut control = Self {
            registry: Registry::new(config.clone(), surroundings),
            config_text: text_of(&config),
            routed: config.clone(),
            listed: Listed::default(),
            config,
            certificates,
            credentials,
            reread,
            front: front.clone(),
            admission: admission.clone(),
            listeners: Listeners::default(),
            socket: None,
            watcher,
            watch_notes: Vec::new(),
            changed,
            panicked,
            sender,
            requests,
            waiting: Vec::new(),
            stop: Arc::new(Notify::new()),
            began: Instant::now(),
        };
        control.registry.look();
        while !control.registry.is_settled() {
            let event = control.registry.next_event().await;
            control.registry.on_event(event).map_err(StartError::Handlers)?;
        }
        control.publish();
        for listener in bound {
            control.listeners.add(listener, &admission, &front);
        }
        control.open_socket();
        Ok(control)
    }

    pub(crate) fn sender(&self) -> mpsc::Sender<Asked> {
        self.sender.clone()
    }

    /// Rung when somebody asks for the end by the control socket.
    pub(crate) fn stop_asked(&self) -> Arc<Notify> {
        self.stop.clone()
    }

    /// Serves requests until `end` is ready; then stops everything within `listen.shutdown_seconds_max`.
    pub(crate) async fn run(mut self, mut end: oneshot::Receiver<()>) -> Ending {
        loop {
            // Every branch is cancel safe: what is not taken here stays where it is.
            tokio::select! {
                _ = &mut end => break,
                event = self.registry.next_event() => self.on_event(event),
                () = self.changed.notified() => self.on_change(),
                () = self.panicked.notified() => self.registry.on_panic(),
                Some((request, answer)) = self.requests.recv() => self.on_request(request, answer).await,
            }
            self.publish();
            self.answer_waiting();
        }
        self.end().await
    }

    fn on_event(&mut self, event: Event) {
        if let Err(error) = self.registry.on_event(event) {
            warn!("what is served stays as it is: {error}");
            self.note_failure(&error.to_string());
        }
    }

    /// A file that is watched has changed.
    fn on_change(&mut self) {
        // A file that is gone may be gone for the moment in which it is replaced.
        let is_new = |(now, then): (&Option<_>, &Option<_>)| now.is_some() && now != then;
        if text_of(&self.config).iter().zip(&self.config_text).any(is_new) {
            let _ = self.reload_config();
        } else {
            let _ = self.reread_certificates();
            let _ = self.reread_credentials();
        }
        self.registry.look();
    }

    async fn on_request(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        let answered = match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Stop => {
                self.stop.notify_one();
                Answer::Done
            }
            Request::Reload(None) => {
                let failed = self.reload_config().err();
                self.registry.insist();
                self.waiting.push((answer, failed));
                return;
            }
            Request::Reload(Some(name)) if self.registry.insist_on(&name) => {
                self.waiting.push((answer, None));
                return;
            }
            Request::Reload(Some(name)) => Answer::Failed(format!("there is no handler {name}")),
            Request::Rollback(name) => match self.registry.roll_back(&name) {
                Ok(()) => {
                    self.waiting.push((answer, None));
                    return;
                }
                Err(why) => Answer::Failed(why),
            },
        };
        // Whoever asked may have gone meanwhile.
        let _ = answer.send(answered);
    }

    fn note_failure(&mut self, why: &str) {
        for (_, failed) in &mut self.waiting {
            failed.get_or_insert_with(|| why.to_owned());
        }
    }

    /// Those who asked for a reload hear how it went once there is nothing left to load.
    fn answer_waiting(&mut self) {
        if self.waiting.is_empty() || !self.registry.is_settled() {
            return;
        }
        for (answer, failed) in std::mem::take(&mut self.waiting) {
            let answered = match failed {
                Some(why) => Answer::Failed(why),
                None => Answer::Status(Box::new(self.status())),
            };
            let _ = answer.send(answered);
        }
    }

    /// Puts a new table of routes in the place of the old one, if it changed, and watches what decides it.
    fn publish(&mut self) {
        let mut is_changed = self.registry.take_routes_changed();
        if !Arc::ptr_eq(&self.routed, &self.config) && self.registry.is_settled() {
            self.routed = self.config.clone();
            self.registry.routed_by(&self.routed);
            is_changed = true;
        }
        if is_changed {
            let router = Router::new(&self.routed, self.registry.libraries());
            let listed = router.listed().clone();
            for note in listed.notes.iter().filter(|note| !self.listed.notes.contains(note)) {
                warn!("{note}");
            }
            self.listed = listed;
            self.front.route(router);
        }
        let (folders, links) = self.registry.watched();
        let certificates = self.config.listen.speaks_tls().then(|| self.config.tls.files());
        let credentials = self.config.auth.values().flat_map(AuthRules::files);
        let files = self.config.sources().chain(links).chain(certificates.into_iter().flatten());
        let files = files.chain(credentials);
        let files = files.cloned().collect();
        self.watcher.watch(Watched { folders: folders.to_vec(), files });
        for note in self.watcher.notes() {
            warn!("{note}");
            self.watch_notes.push(note);
        }
    }

    // ---- config --------------------------------------------------------------------------------------------------------

    /// Reads the config again and puts it in force as a whole, or not at all. The error is in words, and was logged.
    fn reload_config(&mut self) -> Result<(), String> {
        self.config_text = text_of(&self.config);
        let applied =
            (self.reread)().map_err(|error| error.to_string()).and_then(|config| self.apply(config));
        match &applied {
            Ok(true) => info!("the config was read again and is in force"),
            Ok(false) => {}
            Err(error) => warn!("the config stays as it was: {error}"),
        }
        applied?;
        let certificates = self.reread_certificates();
        self.reread_credentials().and(certificates)
    }

    /// Lets in whom the files of users name by now, or name before if they are not sound. The error is in words, and was logged.
    fn reread_credentials(&mut self) -> Result<(), String> {
        match self.credentials.again(&self.config) {
            Ok(Some(auth)) => {
                self.front.know(auth);
                info!("the files of users were read again and are in force");
                Ok(())
            }
            Ok(None) => self.credentials.problem.clone().map_or(Ok(()), Err),
            Err(error) => {
                warn!("the users stay as they were: {error}");
                Err(error)
            }
        }
    }

    /// Shows new peers the certificates that are in the files by now, or the old ones if those are not sound. The error is in words,
    /// and was logged.
    fn reread_certificates(&mut self) -> Result<(), String> {
        if !self.config.listen.speaks_tls() {
            return Ok(());
        }
        match self.certificates.again(&self.config) {
            Ok(Some(identity)) => {
                self.front.be(identity);
                info!("the certificates were read again and are shown to new peers");
                Ok(())
            }
            Ok(None) => self.certificates.problem.clone().map_or(Ok(()), Err),
            Err(error) => {
                warn!("the certificates stay as they were: {error}");
                Err(error)
            }
        }
    }

    /// False if nothing is different.
    fn apply(&mut self, config: Config) -> Result<bool, String> {
        if config == *self.config {
            return Ok(false);
        }
        let config = Arc::new(config);
        // First everything that can fail.
        let mut certificates = None;
        let identity = if !config.listen.speaks_tls() {
            None
        } else if config.tls == self.config.tls && self.config.listen.speaks_tls() {
            // Whether the files have changed is another question, and no reason to refuse the config.
            self.front.identity()
        } else {
            let (identity, read) = Certificates::first(&config).map_err(|error| error.to_string())?;
            certificates = Some(read);
            identity
        };
        let mut credentials = None;
        // Here too: whether the files have changed is another question.
        let auth = if config.auth == self.config.auth && config.tls.client_auth == self.config.tls.client_auth
        {
            self.front.auth()
        } else {
            let (auth, read) = Credentials::first(&config).map_err(|error| error.to_string())?;
            credentials = Some(read);
            auth
        };
        let served = self.front.prepare(&config, identity, auth).map_err(|error| error.to_string())?;
        let rebound = if config.listen.ports().eq(self.config.listen.ports())
            && config.listen.hosts == self.config.listen.hosts
            && config.listen.unix == self.config.listen.unix
        {
            None
        } else {
            let bound = listener::bind_beside(&config, &self.config.listen, &self.listeners);
            Some(bound.map_err(|error| error.to_string())?)
        };
        let log = crate::log::Prepared::new(&config.log).map_err(|error| error.to_string())?;
        // Nothing below fails.
        self.front.serve_by(served);
        self.certificates = certificates.unwrap_or_else(|| std::mem::take(&mut self.certificates));
        self.credentials = credentials.unwrap_or_else(|| std::mem::take(&mut self.credentials));
        if let Some(rebound) = rebound {
            self.listeners.keep(&rebound.kept);
            for listener in rebound.new {
                info!("listening on {}", listener.address());
                self.listeners.add(listener, &self.admission, &self.front);
            }
        }
        self.listeners.set_unix_mode(config.listen.unix_mode);
        let connections_max = admission::possible(config.limits.connections_max);
        self.admission.configure(connections_max, &config);
        log.take_effect();
        self.registry.configure(&config);
        if config.handlers.watch != self.config.handlers.watch
            || config.handlers.poll_seconds != self.config.handlers.poll_seconds
        {
            let rung = self.changed.clone();
            self.watcher = Watcher::start(config.handlers.watch, config.handlers.poll_seconds, move || {
                rung.notify_one();
            });
        }
        let old = std::mem::replace(&mut self.config, config);
        if old.handlers.map_file != self.config.handlers.map_file {
            self.config_text = text_of(&self.config);
        }
        if old.listen.front_threads != self.config.listen.front_threads {
            warn!("listen.front_threads changes with the next start of the server");
        }
        if old.control_socket() != self.config.control_socket() || old.control != self.config.control {
            self.open_socket();
        }
        self.registry.look();
        Ok(true)
    }

    fn open_socket(&mut self) {
        self.socket = None;
        if !self.config.control.enabled {
            return;
        }
        match ControlSocket::open(&self.config.control_socket(), self.sender.clone()) {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => {
                warn!("this server cannot be told what to do by `wshd reload` and the like: {error}");
            }
        }
    }

    // ---- asking --------------------------------------------------------------------------------------------------------

    /// `None` where nothing is compressed.
    fn compression_of(&self, generation: &Generation) -> Option<CompressionStatus> {
        let (deflate, windows) = (self.config.deflate_of(generation.name()), generation.windows());
        let status = CompressionStatus {
            reserved_bytes: windows.reserved(),
            reserved_bytes_max: deflate.memory_bytes_max,
            without_takeover: windows.refused(),
        };
        (deflate.rules.is_on || status.reserved_bytes > 0).then_some(status)
    }

    pub(crate) fn status(&self) -> Status {
        let generation = |generation: &Arc<Generation>| GenerationStatus {
            number: generation.number(),
            version: generation.info().version.clone(),
            sessions: generation.sessions(),
            panics: generation.panics(),
            dropped: generation.dropped(),
            loaded_seconds_ago: generation.loaded_at().elapsed().as_secs(),
        };
        let handlers = self.registry.generations().map(|(path, active, leaving)| {
            let name = path.trim_start_matches('/');
            let name = if name.is_empty() { path } else { name };
            let (own, ..) = self.config.handlers.rules_of(name);
            let any = active.or_else(|| leaving.last());
            let policy = own.or_else(|| any.map(|generation| own_policy(generation.info())));
            let compression = any.and_then(|generation| self.compression_of(generation));
            HandlerStatus {
                path: path.to_owned(),
                file: any.map(|generation| generation.file().to_owned()),
                reload: policy.map(|policy| policy.name().to_owned()),
                metrics: self.registry.metrics_of(any.map_or("", |generation| generation.name())),
                own_path: path.starts_with('/') && self.config.handlers.has_own_path(name),
                compression,
                active: active.map(generation),
                leaving: leaving.iter().map(generation).collect(),
            }
        });
        let refused = |refused: crate::registry::scan::Refused| RefusedFile {
            file: refused.path,
            reason: refused.reason,
        };
        let way = |way: &Way| WayStatus { from: way.from.clone(), to: way.to.clone(), served: way.is_served };
        let retained = |kept: &crate::registry::Kept| RetainedGeneration {
            handler: kept.handler.clone(),
            generation: kept.generation,
            reason: kept.reason.clone(),
        };
        Status {
            server: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs(),
            config: self.config.source.clone(),
            document_root: self.config.files.root.clone(),
            listening: self.listeners.tcp_addresses(),
            listening_tls: self.listeners.tls_addresses(),
            listening_unix: self.listeners.unix_sockets(),
            certificates: self.front.identity().map(|own| own.certificates().to_vec()).unwrap_or_default(),
            certificate_problem: self.certificates.problem.clone(),
            users_problem: self.credentials.problem.clone(),
            connections: self.admission.count(),
            connections_max: self.admission.connections_max(),
            handlers: handlers.collect(),
            routes: self.listed.routes.iter().map(way).collect(),
            aliases: self.listed.aliases.iter().map(way).collect(),
            refused: self.registry.refused().into_iter().map(refused).collect(),
            retained: self.registry.retained().iter().map(retained).collect(),
            notes: self.notes(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let notes = self.registry.notes().iter().chain(&self.listed.notes).chain(&self.watch_notes);
        let mut notes: Vec<_> = notes.cloned().collect();
        if !self.config.listen.speaks_tls() && self.config.tls.files().next().is_some() {
            let text = "[tls] names files, but no port speaks TLS: set listen.tls (-t) or listen.tls_port";
            notes.push(text.to_owned());
        }
        notes
    }

    // ---- the end -------------------------------------------------------------------------------------------------------

    /// Accepts nobody, closes every session with 1001, lets the libraries shut down. Returns when all of that is done, or the
    /// time for it is over.
    async fn end(mut self) -> Ending {
        self.socket = None;
        self.listeners.keep(&[]);
        self.listeners.closed().await;
        let time = self.config.listen.shutdown_seconds_max;
        let cut = Instant::now() + time;
        let limit = self.config.handlers.unload_seconds_max;
        let leave = Leave::shut_down(time / 2, cut);
        let mut is_blocked = self.registry.loader_is_blocked();
        let (generations, mut tasks) = self.registry.into_generations();
        let mut under_way = BTreeSet::new();
        for generation in generations {
            let_go(generation, &leave, limit, &mut tasks, &mut under_way);
        }
        // A worker that sits in a handler that blocks does not answer; a second more than the sessions get is enough.
        let grace = cut + Duration::from_secs(1);
        while !under_way.is_empty() || !tasks.is_empty() {
            match tokio::time::timeout_at(grace.into(), tasks.join_next()).await {
                Ok(Some(Ok(Event::Ended { resource, number, result }))) => {
                    if let Err(retained) = result {
                        warn!("{resource} generation {number} stays mapped: {retained}");
                        is_blocked |= retained.blocks_the_loader();
                    }
                    under_way.remove(&(resource, number));
                }
                // One that was being loaded when the end began.
                Ok(Some(Ok(Event::Loaded { loaded: Loaded::Ready(generation), .. }))) => {
                    let_go(generation, &leave, limit, &mut tasks, &mut under_way);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        for (resource, number) in under_way {
            warn!("{resource} generation {number} did not end its sessions in time: does the handler block?");
        }
        tasks.detach_all();
        if is_blocked { Ending::LoaderBlocked } else { Ending::InOrder }
    }
}

/// What is in the files that a config came from; `None` for one that cannot be read.
fn text_of(config: &Config) -> Vec<Option<Vec<u8>>> {
    config.sources().map(|source| std::fs::read(source).ok()).collect()
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    InOrder,
    /// A library does not come back from its destructors. The process can only be ended with
    /// [`exit_at_once`](crate::exit_at_once): the usual end waits for the loader.
    LoaderBlocked,
}

/// Has a generation end, if it is not ending already.
fn let_go(
    generation: Arc<Generation>,
    leave: &Leave,
    limit: Duration,
    tasks: &mut JoinSet<Event>,
    under_way: &mut BTreeSet<(String, u64)>,
) {
    let (resource, number) = (generation.path().to_owned(), generation.number());
    under_way.insert((resource.clone(), number));
    if generation.leave(leave) {
        tasks.spawn(async move {
            let result = generation.end(limit).await;
            Event::Ended { resource, number, result }
        });
    }
}

/// The state of the files with certificates and keys.
#[derive(Debug, Default)]
struct Certificates {
    /// Of what was looked at last, sound or not; `None` if it could not be read.
    hash: Option<[u8; 32]>,
    problem: Option<String>,
}

impl Certificates {
    /// Reads them for the first time, if a port speaks TLS. One that is not valid any more is better than none.
    fn first(config: &Config) -> Result<(Option<Arc<Identity>>, Self), TlsError> {
        if !config.listen.speaks_tls() {
            return Ok((None, Self::default()));
        }
        let files = tls::Files::read(&config.tls)?;
        let identity = Identity::new(&config.tls, &files)?;
        let problem = identity.check_dates().err().map(|error| error.to_string());
        if let Some(problem) = &problem {
            warn!("{problem}");
        }
        Ok((Some(Arc::new(identity)), Self { hash: Some(files.hash()), problem }))
    }

    /// Reads them again. `None` if they are what they were when they were looked at last.
    fn again(&mut self, config: &Config) -> Result<Option<Arc<Identity>>, String> {
        let files = tls::Files::read(&config.tls);
        let hash = files.as_ref().ok().map(tls::Files::hash);
        if hash.is_some() && hash == self.hash {
            return Ok(None);
        }
        let identity = files.and_then(|files| {
            let identity = Identity::new(&config.tls, &files)?;
            identity.check_dates()?;
            Ok(Arc::new(identity))
        });
        let problem = identity.as_ref().err().map(ToString::to_string);
        if hash.is_none() && problem == self.problem {
            // Said already.
            return Ok(None);
        }
        self.hash = hash;
        self.problem.clone_from(&problem);
        identity.map(Some).map_err(|_| problem.unwrap_or_default())
    }
}

/// Where the server that runs with this config can be told what to do. It may run with an older and sound state of a file that
/// is broken by now.
pub fn socket_of(config: &Result<Config, ConfigError>) -> PathBuf {
    match config {
        Ok(config) => config.control_socket(),
        Err(error) => error.control_socket(),
    }
}
