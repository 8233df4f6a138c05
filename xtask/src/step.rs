//! Runs the steps of a test run in order and remembers how each one went.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What one step ends with; the error is for a person.
pub(crate) type StepResult = Result<(), String>;

/// The steps that ran so far. A step that fails does not keep the others from running.
#[derive(Debug)]
pub(crate) struct Steps {
    began: Instant,
    done: Vec<(String, StepResult, Duration)>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), done: Vec::new() }
    }

    /// Runs a step and tells whether it passed.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> StepResult) -> bool {
        println!("\n==== {name}");
        let began = Instant::now();
        let result = step();
        if let Err(error) = &result {
            println!("==== {name} FAILED: {error}");
        }
        let passed = result.is_ok();
        self.done.push((name.to_owned(), result, began.elapsed()));
        passed
    }

    /// Records a step that could not begin because of another one.
    pub(crate) fn fail(&mut self, name: &str, why: &str) {
        println!("\n==== {name} FAILED: {why}");
        self.done.push((name.to_owned(), Err(why.to_owned()), Duration::ZERO));
    }

    /// Prints a line for each step and, as the last one, how many passed and failed.
    pub(crate) fn summary(self) -> ExitCode {
        println!("\n==== summary, {:.0} s", self.began.elapsed().as_secs_f64());
        let mut failed = 0;
        for (name, result, time) in &self.done {
            let seconds = time.as_secs_f64();
            match result {
                Ok(()) => println!("  passed  {seconds:6.1} s  {name}"),
                Err(error) => {
                    failed += 1;
                    println!("  FAILED  {seconds:6.1} s  {name}: {error}");
                }
            }
        }
        println!("{} passed, {failed} failed", self.done.len() - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs cargo at the root of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> StepResult {
    run(&mut cargo_command(arguments))
}

pub(crate) fn cargo_command(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Runs a program with its output shown; an error names the program and what became of it.
pub(crate) fn run(command: &mut Command) -> StepResult {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("cannot run {program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}")) }
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Where cargo builds.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}
