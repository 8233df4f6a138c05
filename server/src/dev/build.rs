//! Runs the build tool of a project, so that it can be ended at any time.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::registry::scan::is_handler_name;

/// Time between two looks at the sources.
const PAUSE: Duration = Duration::from_millis(250);

/// How a project is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Cargo,
    Make,
}

/// What became of a build.
#[derive(Debug)]
pub(super) enum Build {
    /// The handler libraries that there are now.
    Libraries(Vec<PathBuf>),
    /// What is wrong is on the terminal.
    Failed(ExitStatus),
    /// The server is ending.
    Stopped,
}

impl Tool {
    pub(super) fn of(project: &Path) -> Option<Self> {
        let has = |file: &str| project.join(file).is_file();
        if has("Cargo.toml") {
            Some(Self::Cargo)
        } else if has("Makefile") || has("makefile") {
            Some(Self::Make)
        } else {
            None
        }
    }

    /// Blocks until it is through. What the tool says about the sources goes to standard error.
    pub(super) fn build(self, project: &Path, stop: &Stop) -> Result<Build, String> {
        let mut command = match self {
            Self::Cargo => {
                let mut cargo = Command::new("cargo");
                // Messages for people on standard error, the names of what was built on standard output.
                cargo.args(["build", "--message-format", "json-render-diagnostics"]);
                cargo
            }
            Self::Make => Command::new("make"),
        };
        // A group of its own: Ctrl-C is for the server, which ends the group.
        command.current_dir(project).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let Some(mut child) =
            stop.spawn(&mut command).map_err(|error| format!("cannot run {self}: {error}"))?
        else {
            return Ok(Build::Stopped);
        };
        let mut libraries = Vec::new();
        for line in BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok) {
            match self {
                Self::Cargo => libraries.extend(built(&line)),
                Self::Make => eprintln!("{line}"),
            }
        }
        let status = stop.wait(&mut child).map_err(|error| format!("{self} was lost: {error}"))?;
        if stop.is_asked() {
            return Ok(Build::Stopped);
        }
        if !status.success() {
            return Ok(Build::Failed(status));
        }
        if self == Self::Make {
            libraries = in_folder(project).map_err(|error| format!("{}: {error}", project.display()))?;
        }
        Ok(Build::Libraries(libraries))
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cargo => "cargo",
            Self::Make => "make",
        })
    }
}

/// The handler libraries that a line of cargo names: `{"reason":"compiler-artifact","filenames":["..."],...}`.
fn built(line: &str) -> Vec<PathBuf> {
    let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { return Vec::new() };
    if line["reason"] != "compiler-artifact" {
        return Vec::new();
    }
    let files = line["filenames"].as_array().into_iter().flatten().filter_map(|file| file.as_str());
    files.map(PathBuf::from).filter(|file| file.file_name().is_some_and(is_handler_name)).collect()
}

fn in_folder(project: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for entry in std::fs::read_dir(project)? {
        let entry = entry?;
        if is_handler_name(&entry.file_name()) {
            libraries.push(entry.path());
        }
    }
    Ok(libraries)
}

/// Asks the building thread to end, together with the build that runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    asked: bool,
    /// The group of the build that runs. As long as it stands here its first process was not waited for, so its number is its own.
    group: Option<Pid>,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.asked = true;
        if let Some(group) = state.group {
            // It may have ended in this moment.
            let _ = kill_process_group(group, Signal::TERM);
        }
        self.0.1.notify_all();
    }

    pub(super) fn is_asked(&self) -> bool {
        self.lock().asked
    }

    /// Waits until it is time to look again, or to end.
    pub(super) fn pause(&self) {
        let state = self.lock();
        let _ = self.0.1.wait_timeout_while(state, PAUSE, |state| !state.asked);
    }

    /// `None` if the end was asked for.
    fn spawn(&self, command: &mut Command) -> std::io::Result<Option<Child>> {
        let mut state = self.lock();
        if state.asked {
            return Ok(None);
        }
        let child = command.spawn()?;
        state.group = Pid::from_raw(child.id() as i32);
        Ok(Some(child))
    }

    fn wait(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        if let Some(pid) = Pid::from_raw(child.id() as i32) {
            // Leaves it as it is, so that the number is not given away before nobody signals it any more.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
        let mut state = self.lock();
        state.group = None;
        child.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_the_libraries_it_built() {
        let line = r#"{"reason":"compiler-artifact","filenames":["/x/libchat_wsh.so","/x/libserde.rlib"],"fresh":true}"#;
        assert_eq!(built(line), [PathBuf::from("/x/libchat_wsh.so")]);
        assert!(built(r#"{"reason":"build-finished","success":true}"#).is_empty());
        assert!(built("   Compiling chat_wsh").is_empty());
    }

    /// A build that would take for ever ends at once, with everything it started.
    #[test]
    fn a_build_that_runs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Makefile"), "all:\n\t@echo began; sleep 1000; sleep 1000\n")
            .unwrap();
        let stop = Stop::default();
        let building = {
            let (stop, folder) = (stop.clone(), folder.path().to_owned());
            std::thread::spawn(move || Tool::Make.build(&folder, &stop))
        };
        while stop.lock().group.is_none() {
            std::thread::yield_now();
        }
        stop.stop();
        let result = building.join().unwrap();
        assert!(matches!(result, Ok(Build::Stopped)), "{result:?}");
    }
}
