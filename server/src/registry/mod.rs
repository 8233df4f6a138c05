//! From files in the handlers folders to generations in service.
//!
//! A library passes through *scan* (which files are handlers, and for which path), *stage* (a private copy, because a file that
//! somebody may write to must never be mapped), *check* (the file is what it says, before any of its code runs), *probe* (a
//! child process loads it first) and *load* (on a worker of its generation). Whatever fails, fails for this library alone: the
//! reason is kept in words and the server serves the others.

pub mod check;
pub mod probe;
pub mod scan;
pub mod stage;
#[allow(dead_code, reason = "the reloads that it starts are not written yet")]
mod watcher;

use std::path::PathBuf;
use std::sync::Arc;

use tracing::{debug, warn};

use self::scan::{Found, Refused, Scan, ScanError};
use crate::admission::Admission;
use crate::config::{Config, Handlers};
use crate::generation::{Blueprint, Generation};

/// What became of the libraries that were found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// In the order of their paths.
    pub(crate) generations: Vec<Arc<Generation>>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) notes: Vec<String>,
}

/// Scans the handlers folders and takes every sound library into service. Libraries load side by side; each one is bounded in
/// time. Blocks; call it where that does not matter.
pub(crate) fn load_all(config: &Arc<Config>, admission: &Arc<Admission>) -> Result<Loaded, ScanError> {
    let Scan { found, mut refused, notes, .. } = scan::scan(&config.handlers)?;
    let stage = stage::Stage::new(&config.handlers);
    let results: Vec<_> = std::thread::scope(|scope| {
        let loads: Vec<_> = found
            .iter()
            .map(|library| scope.spawn(|| take_into_service(library, &stage, config, admission)))
            .collect();
        loads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut generations = Vec::new();
    for (library, result) in found.iter().zip(results) {
        match result {
            Ok(Ok(generation)) => generations.push(generation),
            Ok(Err(reason)) => refused.push(Refused { path: library.path.clone(), reason }),
            Err(_) => {
                refused.push(Refused { path: library.path.clone(), reason: "loading it panicked".into() });
            }
        }
    }
    for Refused { path, reason } in &refused {
        warn!("refused {}: {reason}", path.display());
    }
    Ok(Loaded { generations, refused, notes })
}

/// One library from the file to a generation. The error is the reason in words.
fn take_into_service(
    found: &Found,
    stage: &stage::Stage,
    config: &Arc<Config>,
    admission: &Arc<Admission>,
) -> Result<Arc<Generation>, String> {
    let (staged, info) = check_library(found, stage, config)?;
    debug!(handler = %found.name, "staged as {}", staged.path().display());
    let blueprint = Blueprint {
        name: found.name.as_str().into(),
        number: 1,
        path: found.resource.clone(),
        file: found.path.clone(),
        info,
        staged,
        config: config.clone(),
        admission: admission.clone(),
    };
    Generation::load(blueprint).map_err(|error| error.to_string())
}

/// Stages, checks and probes a library without taking it into service.
fn check_library(
    found: &Found,
    stage: &stage::Stage,
    config: &Config,
) -> Result<(stage::Staged, check::LibraryInfo), String> {
    let mut staged = stage.stage(found).map_err(|error| error.to_string())?;
    let info = check::check(staged.bytes()).map_err(|error| error.to_string())?;
    staged.prepare(&info).map_err(|error| error.to_string())?;
    let Handlers { probe, probe_program, probe_seconds_max, .. } = &config.handlers;
    if *probe {
        probe::probe_by(probe_program.as_deref(), staged.path(), *probe_seconds_max)
            .map_err(|error| error.to_string())?;
    }
    Ok((staged, info))
}

/// For `wshd configtest`: what would be served, and what would be refused. No library code runs in this process.
#[derive(Debug)]
pub struct Checked {
    /// Resource path, file, and what the library says of itself.
    pub sound: Vec<(String, PathBuf, check::LibraryInfo)>,
    pub refused: Vec<Refused>,
    pub notes: Vec<String>,
}

/// Scans and checks, and loads nothing.
pub fn check_all(config: &Config) -> Result<Checked, ScanError> {
    let Scan { found, mut refused, notes, .. } = scan::scan(&config.handlers)?;
    let stage = stage::Stage::new(&config.handlers);
    let mut sound = Vec::new();
    for library in found {
        match check_library(&library, &stage, config) {
            Ok((_, info)) => sound.push((library.resource, library.path, info)),
            Err(reason) => refused.push(Refused { path: library.path, reason }),
        }
    }
    Ok(Checked { sound, refused, notes })
}
