//! Fuzzing: every target of `fuzz/`, from the corpora that are committed, each for a given time.
//!
//! Built by cargo-fuzz with the address sanitizer, and then run as the programs that they are, as many at a time as there are cores.
//! What is found on the way goes to the target folder and never into the source tree; what is worth keeping is copied by hand.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::needs;
use crate::step::{StepResult, cargo, root, run, target_folder};

/// How long each target runs when nobody says otherwise,
const SECONDS: u32 = 60;

/// and in the test run.
const SECONDS_QUICK: u32 = 4;

/// Of one input. The slowest takes a fiftieth of that, so what takes longer is a finding.
const SECONDS_MAX: u32 = 10;

/// Of one allocation. Inputs are short and limits low, so nothing has a reason to ask for so much.
const ALLOCATION_MIB_MAX: u32 = 64;

/// Of one input; longer ones find no more and run slower.
const INPUT_BYTES_MAX: u32 = 4096;

/// `[TARGET] [--seconds N | --quick]`.
pub(crate) fn command(arguments: &[&str]) -> StepResult {
    let mut targets = targets()?;
    let mut seconds = SECONDS;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--quick" => seconds = SECONDS_QUICK,
            "--seconds" => {
                let given = arguments.next().and_then(|given| given.parse().ok());
                seconds = given.filter(|given| *given > 0).ok_or("--seconds needs a number above 0")?;
            }
            name if targets.iter().any(|target| target == name) => targets = vec![name.to_owned()],
            other => return Err(format!("{other} is no fuzz target; there are {}", targets.join(", "))),
        }
    }
    let programs = build()?;
    fuzz_all(&programs, &targets, seconds)
}

/// Every one, for a few seconds.
pub(crate) fn quick() -> StepResult {
    command(&["--quick"])
}

/// The sources of the targets are no part of the workspace that the other steps look at.
pub(crate) fn lints() -> StepResult {
    let manifest = "fuzz/Cargo.toml";
    cargo(&["fmt", "--manifest-path", manifest, "--check"])?;
    // In the folder of the workspace, whose libraries it needs too. --locked: both lock files belong to a commit.
    let target_folder = target_folder();
    let target_folder = target_folder.to_str().ok_or("the path of the target folder is not UTF-8")?;
    let place = ["--manifest-path", manifest, "--target-dir", target_folder];
    cargo(&[&["clippy", "--locked"], &place[..], &["--", "-D", "warnings"]].concat())
}

/// By the names of their sources.
fn targets() -> Result<Vec<String>, String> {
    let folder = root().join("fuzz/targets");
    let failed = |error| format!("cannot read {}: {error}", folder.display());
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        targets.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

/// Builds all of them; returns the folder where the programs are.
fn build() -> Result<PathBuf, String> {
    let machine = machine()?;
    let mut command = Command::new(needs::cargo_tool("cargo-fuzz")?);
    command.args(["fuzz", "build", "--sanitizer", "address", "--target", &machine, "--target-dir"]);
    command.arg(folder("")).current_dir(root());
    // Sanitizers are in every toolchain, but a stable one takes the option only if it is told to.
    run(command.env("RUSTC_BOOTSTRAP", "1"))?;
    Ok(folder(&machine).join("release"))
}

/// This one, as rustc calls it.
fn machine() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| format!("cannot run rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".into())
}

fn folder(name: &str) -> PathBuf {
    target_folder().join("fuzz").join(name)
}

fn fuzz_all(programs: &Path, targets: &[String], seconds: u32) -> StepResult {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let lane = || {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            match fuzz(&programs.join(target), target, seconds) {
                Ok(line) => println!("{target:>10}: {line}"),
                Err(error) => {
                    println!("{target:>10}: FAILED: {error}");
                    failures.lock().expect("no lane panics").push(target.as_str());
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from).min(targets.len()) {
            scope.spawn(lane);
        }
    });
    let failures = failures.into_inner().expect("no lane panics");
    if failures.is_empty() { Ok(()) } else { Err(format!("found an exception in {}", failures.join(", "))) }
}

/// Runs one; returns in a line how far it got, or what it found.
fn fuzz(program: &Path, target: &str, seconds: u32) -> Result<String, String> {
    let (finds, artifacts, logs) =
        (folder("corpus").join(target), folder("artifacts").join(target), folder("logs"));
    for folder in [&finds, &artifacts, &logs] {
        fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    }
    let log = logs.join(format!("{target}.log"));
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", log.display());
    let output = File::create(&log).map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args([format!("-max_total_time={seconds}"), format!("-timeout={SECONDS_MAX}")])
        .args([format!("-malloc_limit_mb={ALLOCATION_MIB_MAX}"), format!("-max_len={INPUT_BYTES_MAX}")])
        .args(["-print_final_stats=1", &format!("-artifact_prefix={}/", artifacts.display())]);
    let dictionary = format!("fuzz/dictionaries/{target}.dict");
    if root().join(&dictionary).is_file() {
        command.arg(format!("-dict={dictionary}"));
    }
    // Into the first folder it writes, from the others it only reads.
    command.arg(&finds).arg(format!("fuzz/corpus/{target}")).current_dir(root());
    let output_too = output.try_clone().map_err(failed)?;
    let status = command.stdout(output).stderr(output_too).status();
    let status = status.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log).map_err(failed)?).into_owned();
    if status.success() { Ok(progress(&text, seconds)) } else { Err(finding(&text, program, &log)) }
}

/// How far it got, from what libFuzzer says at its end.
fn progress(log: &str, seconds: u32) -> String {
    let last = log.lines().rfind(|line| line.contains(" cov: ")).unwrap_or_default();
    let inputs = number_after(log, "stat::number_of_executed_units:");
    format!(
        "{seconds} s, {inputs} inputs, {} places, {} features reached",
        number_after(last, " cov:"),
        number_after(last, " ft:")
    )
}

fn number_after<'l>(text: &'l str, name: &str) -> &'l str {
    text.split_once(name).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?")
}

/// What was found, in which input, and how to see it again.
fn finding(log: &str, program: &Path, log_path: &Path) -> String {
    let mut lines = log.lines();
    let panicked = lines.by_ref().find(|line| line.contains("panicked at")).map(|line| {
        let message = lines.next().unwrap_or_default();
        format!("{line} {message}")
    });
    let error = || log.lines().find(|line| line.contains("ERROR: ")).map(str::to_owned);
    let what = panicked.or_else(error).unwrap_or_else(|| "it ended early".into());
    let input = log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path);
    let again = input.map_or_else(String::new, |input| {
        format!("\n  the input: {input}\n  again:     {} {input}", program.display())
    });
    format!("{what}{again}\n  the log:   {}", log_path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                       #900\tDONE   cov: 407 ft: 668 corp: 60/2376b lim: 4096 exec/s: 450 rss: 47Mb\n\
                       stat::number_of_executed_units: 900\n";

    #[test]
    fn a_line_says_how_far_a_target_got() {
        assert_eq!(progress(LOG, 60), "60 s, 900 inputs, 407 places, 668 features reached");
        assert_eq!(progress("", 60), "60 s, ? inputs, ? places, ? features reached");
    }

    #[test]
    fn a_finding_names_its_input_and_the_command_that_repeats_it() {
        let log = "thread '<unnamed>' (1) panicked at a.rs:1:2:\nit is wrong\n==1== ERROR: libFuzzer: deadly signal\n\
                   artifact_prefix='t/'; Test unit written to t/crash-0\n";
        assert_eq!(
            finding(log, Path::new("t/close"), Path::new("t/close.log")),
            "thread '<unnamed>' (1) panicked at a.rs:1:2: it is wrong\n  the input: t/crash-0\n  \
             again:     t/close t/crash-0\n  the log:   t/close.log"
        );
        let log = "==1== ERROR: libFuzzer: timeout after 10 seconds\n";
        assert!(finding(log, Path::new("p"), Path::new("l")).starts_with("==1== ERROR: libFuzzer: timeout"));
    }

    #[test]
    fn what_is_no_target_is_told_which_there_are() {
        let error = command(&["frame"]).unwrap_err();
        assert!(error.starts_with("frame is no fuzz target; there are close, config, "), "{error}");
        assert_eq!(command(&["--seconds", "0"]), Err("--seconds needs a number above 0".into()));
    }
}
