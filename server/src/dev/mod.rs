//! `wshd dev`: builds a handler project, serves it, and builds it again after each change of its sources.
//!
//! A thread looks at the sources, runs the build tool when they differ, and drops what it built into a private handlers folder. That
//! the server takes it up is the same reload as everywhere. Output of the build and log of the server share the terminal.

mod build;
mod sources;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use self::build::{Build, Stop, Tool};
use self::sources::Sources;
use crate::cli::Cli;
use crate::config::Config;

/// A project that is about to be served.
#[derive(Debug)]
pub struct Dev {
    project: PathBuf,
    tool: Tool,
    handlers: Private,
}

/// A project that is built after each change. Dropped, it ends the build that runs, and the private folder is gone.
#[derive(Debug)]
pub struct Building {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    _handlers: Private,
}

impl Dev {
    /// Finds out how the project is built. Nothing runs yet.
    ///
    /// # Errors
    /// It is no folder, nothing says how to build it, or there is no place for a private folder.
    pub fn open(project: &Path) -> Result<Self, DevError> {
        let project = project
            .canonicalize()
            .map_err(|error| DevError::Project(project.to_owned(), error.to_string()))?;
        let tool = Tool::of(&project).ok_or_else(|| {
            let reason = "it has neither a Cargo.toml nor a Makefile; `wshd new NAME` makes a project";
            DevError::Project(project.clone(), reason.to_owned())
        })?;
        let handlers = Private::make().map_err(DevError::Private)?;
        Ok(Self { project, tool, handlers })
    }

    /// The folder that the server is to serve. It is gone at the end.
    pub fn handlers(&self) -> &Path {
        &self.handlers.0
    }

    /// Begins to build. The receiver hears when the first build is over, whether or not it succeeded.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(self) -> io::Result<(Building, oneshot::Receiver<()>)> {
        let Self { project, tool, handlers } = self;
        let stop = Stop::default();
        let rounds = Rounds { project, tool, handlers: handlers.0.clone(), stop: stop.clone() };
        let (first, first_is_over) = oneshot::channel();
        let thread = std::thread::Builder::new().name("build".into()).spawn(move || rounds.run(first))?;
        Ok((Building { stop, thread: Some(thread), _handlers: handlers }, first_is_over))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// What differs from serving as `wshd` does: this project alone, to this machine alone, also as long as nothing could be built.
pub fn config(mut config: Config, cli: &Cli, handlers: &Path) -> Config {
    config.handlers.folders = vec![handlers.to_owned()];
    config.handlers.scan_dir = None;
    config.handlers.allow_empty = true;
    // Somebody who edits code makes a version that panics on purpose, and wants to meet it.
    config.handlers.rollback_panics = 0;
    config.control.enabled = false;
    if cli.server_host.is_empty() {
        config.listen.hosts = "localhost".parse().into_iter().collect();
    }
    if config.files.root.is_none() {
        // The console, from which a browser talks to the handler.
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../www");
        config.files.root = pages.canonicalize().ok();
    }
    config
}

/// The thread that builds.
struct Rounds {
    project: PathBuf,
    tool: Tool,
    handlers: PathBuf,
    stop: Stop,
}

impl Rounds {
    fn run(self, first: oneshot::Sender<()>) {
        let mut first = Some(first);
        let mut built = Sources::default();
        while !self.stop.is_asked() {
            match Sources::of(&self.project) {
                Ok(sources) if sources != built => {
                    self.round();
                    // As they were before the build: a change in the middle of it makes one more.
                    built = sources;
                }
                Ok(_) => {}
                // In the middle of a change, such as a switch to another branch. Said once, if it stays so from the start.
                Err(error) if first.is_some() => say(format_args!("cannot read the sources: {error}")),
                Err(_) => {}
            }
            if let Some(first) = first.take() {
                let _ = first.send(());
            }
            self.stop.pause();
        }
    }

    fn round(&self) {
        say(format_args!("building {} with {}", self.project.display(), self.tool));
        let began = Instant::now();
        let result = self.tool.build(&self.project, &self.stop).and_then(|build| match build {
            Build::Stopped => Ok(()),
            Build::Failed(status) => {
                say(format_args!("the build failed ({status}); what was served before goes on"));
                Ok(())
            }
            Build::Libraries(libraries) => self.serve(&libraries, began),
        });
        if let Err(error) = result {
            say(format_args!("{error}"));
        }
    }

    fn serve(&self, libraries: &[PathBuf], began: Instant) -> Result<(), String> {
        if libraries.is_empty() {
            return Err(
                "the build made no handler library; its name is NAME_wsh.so or libNAME_wsh.so, and in \
                        Rust its crate-type is cdylib"
                    .into(),
            );
        }
        let seconds = began.elapsed().as_secs_f64();
        for library in libraries {
            let name = library.file_name().unwrap_or_default();
            // A name that begins with a dot is no handler's; so it appears whole.
            let new = self.handlers.join(".new");
            fs::copy(library, &new)
                .and_then(|_| fs::rename(&new, self.handlers.join(name)))
                .map_err(|error| format!("cannot copy {}: {error}", library.display()))?;
            say(format_args!("built {} in {seconds:.1} s", name.display()));
        }
        Ok(())
    }
}

/// A line of the terminal that the build tool and the server share.
fn say(line: fmt::Arguments<'_>) {
    eprintln!("wshd dev: {line}");
}

/// A folder that only this user can open. Dropped, it is gone with everything in it.
#[derive(Debug)]
struct Private(PathBuf);

impl Private {
    fn make() -> io::Result<Self> {
        let temporary = std::env::temp_dir();
        let mut number = 0_u32;
        loop {
            let path = temporary.join(format!("wshd-dev-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Why a project cannot be served.
#[derive(Debug)]
pub enum DevError {
    /// The folder, and what is wrong with it.
    Project(PathBuf, String),
    /// There is no place for the private handlers folder.
    Private(io::Error),
}

impl fmt::Display for DevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(path, reason) => write!(f, "cannot serve the project {}: {reason}", path.display()),
            Self::Private(error) => write!(f, "cannot make a folder in the temporary folder: {error}"),
        }
    }
}

impl std::error::Error for DevError {}
