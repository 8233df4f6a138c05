//! From one library file to a generation that can serve: stage, check, probe, load.
//!
//! Blocks for as long as the file changes, the probe takes and the library initialises; each of them is bounded. The code of the
//! library runs in the probe's child process and then on a worker of the generation, never on the thread that calls this.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tracing::debug;

use super::Found;
use super::check::{self, LibraryInfo};
use super::probe;
use super::slot::{Loaded, Refusal, Source, Version};
use super::stage::{Stage, Staged};
use crate::config::{Config, Handlers, NO_CONFIG};
use crate::generation::{Blueprint, Generation, Surroundings};
use crate::handler::OffloadLimits;

/// One load: everything it needs, so that it can run on a thread of its own.
pub(super) struct Load {
    pub(super) source: Source<Arc<Generation>>,
    pub(super) number: u64,
    /// Content that is not to be loaded again.
    pub(super) known: Vec<[u8; 32]>,
    pub(super) stage: Arc<Stage>,
    pub(super) config: Arc<Config>,
    pub(super) surroundings: Surroundings,
}

impl Version for Arc<Generation> {
    fn number(&self) -> u64 {
        Generation::number(self)
    }

    fn hash(&self) -> [u8; 32] {
        content(self.staged().hash(), self.config(), self.is_raw())
    }
}

/// What tells a version from another: its code, what it was told of the config, and what that grants it.
fn content(code: &[u8; 32], config: &str, is_raw: bool) -> [u8; 32] {
    if config == NO_CONFIG && !is_raw {
        return *code;
    }
    Sha256::new().chain_update(code).chain_update([u8::from(is_raw)]).chain_update(config).finalize().into()
}

/// A library that may be loaded: a checked copy with a name of its own.
pub(super) struct Prepared {
    name: String,
    resource: String,
    file: PathBuf,
    staged: Staged,
    info: LibraryInfo,
    /// The handler's own table of the config file, as JSON.
    config: Arc<str>,
    /// The config grants it raw access.
    is_raw: bool,
    hash: [u8; 32],
}

impl Load {
    /// Copies, checks and probes, without mapping anything into this process. `Err` is how the load ends already.
    pub(super) fn prepare(&self) -> Result<Prepared, Loaded<Arc<Generation>>> {
        match &self.source {
            Source::File(found) => self.prepare_file(found),
            Source::Copy(generation) => self.prepare_again(generation),
        }
    }

    fn prepare_file(&self, found: &Found) -> Result<Prepared, Loaded<Arc<Generation>>> {
        let staged = self.stage.stage(found).map_err(|error| refused(error, None))?;
        let config: Arc<str> = self.config.handlers.config_of(&found.name).into();
        let is_raw = self.config.handlers.grants_raw(&found.name);
        let hash = content(staged.hash(), &config, is_raw);
        if self.known.contains(&hash) {
            return Err(Loaded::Same(hash));
        }
        let (staged, info) =
            check_staged(staged, &self.config.handlers).map_err(|reason| refused(reason, Some(hash)))?;
        let Found { path, resource, name, .. } = found.clone();
        Ok(Prepared { name, resource, file: path, staged, info, config, is_raw, hash })
    }

    /// A copy was checked when it was made; it needs another name, because two files of one name are one library. It gets the
    /// config that it had.
    fn prepare_again(&self, generation: &Arc<Generation>) -> Result<Prepared, Loaded<Arc<Generation>>> {
        let hash = generation.hash();
        let staged = self.stage.copy(generation.staged(), generation.name());
        Ok(Prepared {
            name: generation.name().to_owned(),
            resource: generation.path().to_owned(),
            file: generation.file().to_owned(),
            staged: staged.map_err(|error| refused(error, Some(hash)))?,
            info: generation.info().clone(),
            config: generation.config().clone(),
            is_raw: generation.is_raw(),
            hash,
        })
    }

    /// Maps and initialises it, on a worker of a new generation.
    pub(super) fn finish(&self, prepared: Prepared) -> Loaded<Arc<Generation>> {
        let Prepared { name, resource, file, staged, info, config, is_raw, hash } = prepared;
        debug!(handler = name, "staged as {}", staged.path().display());
        let limits = Arc::new(self.config.limits_of(&name));
        let blueprint = Blueprint {
            name: name.into(),
            number: self.number,
            path: resource,
            file,
            info,
            staged,
            config,
            is_raw,
            limits,
            offload: OffloadLimits {
                threads_max: self.config.handlers.offload_threads_max,
                queue_max: self.config.handlers.offload_queue_max,
            },
            workers: self.config.handlers.workers,
            load_seconds_max: self.config.handlers.load_seconds_max,
            state_bytes_max: self.config.handlers.state_bytes_max,
            surroundings: self.surroundings.clone(),
        };
        match Generation::load(blueprint) {
            Ok(generation) => Loaded::Ready(generation),
            Err(error) => refused(error, Some(hash)),
        }
    }
}

/// The whole of it.
pub(super) async fn run(load: Load) -> Loaded<Arc<Generation>> {
    let prepared = aside(move || {
        let prepared = load.prepare();
        (load, prepared)
    });
    let lost = || refused("no thread could be had to load it", None);
    let Some((load, prepared)) = prepared.await else { return lost() };
    match prepared {
        // Not aside: the workers of the generation inherit what the thread is that starts them.
        Ok(prepared) => {
            let loaded = tokio::task::spawn_blocking(move || load.finish(prepared)).await;
            loaded.unwrap_or_else(|error| refused(error, None))
        }
        Err(ended) => ended,
    }
}

/// Runs what has time on a thread that leaves the processor to whoever has none: a reload should not be felt by the sessions.
/// Child processes that it starts are as patient. `None` if no thread can be had, or it panicked.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, result) = oneshot::channel();
    let patient = move || {
        // Refused only where the system allows nothing less than what there is.
        let _ = rustix::process::setpriority_process(None, NICE);
        let _ = sender.send(work());
    };
    std::thread::Builder::new().name("stage".into()).spawn(patient).ok()?;
    result.await.ok()
}

/// On the scale from -20 to 19, where 0 is usual; about a tenth of the usual share when others want the processor too.
const NICE: i32 = 10;

pub(super) fn refused(reason: impl ToString, hash: Option<[u8; 32]>) -> Loaded<Arc<Generation>> {
    Loaded::Refused(Refusal { reason: reason.to_string(), hash })
}

/// Stages, checks and probes a library without taking it into service. The error is the reason in words.
pub(super) fn check_file(
    found: &Found,
    stage: &Stage,
    handlers: &Handlers,
) -> Result<(Staged, LibraryInfo), String> {
    check_staged(stage.stage(found).map_err(|error| error.to_string())?, handlers)
}

fn check_staged(mut staged: Staged, handlers: &Handlers) -> Result<(Staged, LibraryInfo), String> {
    let info = check::check(staged.bytes()).map_err(|error| error.to_string())?;
    staged.prepare(&info).map_err(|error| error.to_string())?;
    let Handlers { probe, probe_program, probe_seconds_max, .. } = handlers;
    if *probe {
        probe::probe_by(probe_program.as_deref(), staged.path(), *probe_seconds_max)
            .map_err(|error| error.to_string())?;
    }
    Ok((staged, info))
}
