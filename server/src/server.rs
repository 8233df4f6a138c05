//! Puts the two planes together and owns the end: the composition root.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::admission::Admission;
use crate::config::Config;
use crate::generation::Generation;
use crate::http::Front;
use crate::listener::{self, BindError};
use crate::registry;
use crate::registry::check::LibraryInfo;
use crate::registry::scan::{Refused, ScanError};
use crate::router::Router;

/// Descriptors that are kept for files, logs, reloads and probes when connections are counted against the system's limit.
const DESCRIPTORS_KEPT: u64 = 256;

/// A running server. Nothing of it is global: a process may run several.
#[derive(Debug)]
pub struct Server {
    config: Arc<Config>,
    router: Arc<Router>,
    /// One task for each bound address. Dropping them closes the listeners.
    accepting: JoinSet<()>,
    report: Report,
}

/// What a server serves, for the screen that it shows at its start.
#[derive(Debug)]
pub struct Report {
    pub addresses: Vec<SocketAddr>,
    pub routes: Vec<Served>,
    pub refused: Vec<Refused>,
    pub notes: Vec<String>,
    pub document_root: Option<PathBuf>,
    pub connections_max: usize,
}

/// One handler in service.
#[derive(Debug)]
pub struct Served {
    pub path: String,
    pub file: PathBuf,
    pub info: LibraryInfo,
}

/// Why a server could not be started.
#[derive(Debug)]
pub enum StartError {
    Handlers(ScanError),
    Bind(BindError),
    Files(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Handlers(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Files(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl Server {
    /// Loads the handlers, binds every address and begins to accept. Runs on a tokio runtime with I/O and time.
    ///
    /// Ports are bound before libraries are loaded, so that a port that is taken costs no time, and accepted from after, so
    /// that the first peer finds every handler.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let listeners = listener::bind_all(&config).map_err(StartError::Bind)?;
        let connections_max = connections_max(config.limits.connections_max);
        let admission = Arc::new(Admission::new(connections_max, config.limits.connections_per_peer_max));

        let loading = tokio::task::spawn_blocking({
            let (config, admission) = (config.clone(), admission.clone());
            move || registry::load_all(&config, &admission)
        });
        let loaded = loading.await.expect("loading catches its panics").map_err(StartError::Handlers)?;
        let router = Arc::new(Router::new(loaded.generations));
        let front = Arc::new(Front::new(config.clone(), router.clone()).map_err(StartError::Files)?);

        let report = Report {
            addresses: listeners.iter().map(listener::Listener::address).collect(),
            routes: router.generations().map(|generation| Served::of(generation)).collect(),
            refused: loaded.refused,
            notes: loaded.notes,
            document_root: config.files.root.clone(),
            connections_max,
        };
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let front = front.clone();
            accepting.spawn(listener.run(admission.clone(), move |stream, permit| {
                let front = front.clone();
                front.serve(stream, permit)
            }));
        }
        Ok(Self { config, router, accepting, report })
    }

    /// What it serves and where.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Stops accepting, closes every session with 1001, lets the libraries shut down. Returns when all of that is done, or
    /// `listen.shutdown_seconds_max` has passed.
    pub async fn stop(mut self) {
        self.accepting.abort_all();
        while self.accepting.join_next().await.is_some() {}
        let deadline = Instant::now() + self.config.listen.shutdown_seconds_max;
        let mut stopping = JoinSet::new();
        for generation in self.router.generations() {
            let generation = generation.clone();
            stopping.spawn(async move { generation.stop(deadline).await });
        }
        while let Some(result) = stopping.join_next().await {
            if let Err(error) = result {
                warn!("stopping a handler failed: {error}");
            }
        }
    }

    /// Serves until `shutdown` is ready, then stops.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        info!("shutting down");
        self.stop().await;
    }
}

impl Served {
    fn of(generation: &Generation) -> Self {
        Self {
            path: generation.path().to_owned(),
            file: generation.file().to_owned(),
            info: generation.info().clone(),
        }
    }
}

/// Connections that the configured limit and the system's limit on open files allow together.
fn connections_max(configured: usize) -> usize {
    // Asks for what the system would give anyway: the soft limit is often far below the hard one.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = (configured as u64).saturating_add(DESCRIPTORS_KEPT);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        limit.current = Some(raised);
        if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
            warn!("cannot raise the limit on open files: {error}");
        }
        limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    }
    let Some(current) = limit.current else { return configured };
    let possible = usize::try_from(current.saturating_sub(DESCRIPTORS_KEPT).max(16)).unwrap_or(usize::MAX);
    if possible < configured {
        warn!(
            "limits.connections_max is {configured}, but the system allows {current} open files: serving {possible}"
        );
    }
    configured.min(possible)
}
