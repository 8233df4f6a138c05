//! Loads a library in a child process first, so that one that crashes or hangs while it is loaded takes the child along and
//! not the server.
//!
//! The child is this program itself with the arguments `probe-library PATH`. It loads the library as the server would, looks
//! up the two symbols, and says on its standard error how far it came; the library's entry is not called.

use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use handler_api::abi;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Loads a private copy in a child process. Blocks the thread until the child has ended, at most a little more than `limit`.
///
/// # Errors
/// The child cannot be started, does not end in time, crashes, or cannot load the library; the loader's own text where it is the
/// loader that refuses.
pub fn probe(library: &Path, limit: Duration) -> Result<(), ProbeError> {
    probe_by(None, library, limit)
}

/// The same with another program as the child, for a caller that is not `wshd` itself, such as a test. `None` is this program.
///
/// # Errors
/// As [`probe`].
pub fn probe_by(program: Option<&Path>, library: &Path, limit: Duration) -> Result<(), ProbeError> {
    let mut child = match program {
        Some(program) => Command::new(program),
        // The link works also where the program was replaced by a newer one since it was started.
        None if cfg!(target_os = "linux") => Command::new("/proc/self/exe"),
        None => Command::new(std::env::current_exe().map_err(ProbeError::Start)?),
    };
    child.arg(PROBE_COMMAND).arg("--").arg(library);
    probe_with(child, library, limit)
}

/// The subcommand of the child; see `Command::ProbeLibrary` in `cli`.
const PROBE_COMMAND: &str = "probe-library";

/// The child's side: loads the library and ends the process with what it returns.
///
/// Called from `main` before anything else happens, because a library that crashes should find as little as possible to harm.
pub fn probe_library(path: &Path) -> ExitCode {
    ExitCode::from(probe_here(path))
}

fn probe_here(path: &Path) -> u8 {
    // A crash is expected here; nobody wants its core file.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    // A server that is killed meanwhile takes a child that hangs along.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    match load(path) {
        Ok(library) => {
            eprintln!("\n{REPORT}{LOADED}");
            // Closing it runs its destructors, in time for the server to see how they end.
            drop(library);
            0
        }
        Err(refusal) => {
            // The path of the private copy says nothing to the operator.
            let private = format!("{}: ", path.display());
            eprintln!("\n{REPORT}{}", refusal.replace(&private, "").replace('\n', " "));
            STATUS_REFUSED
        }
    }
}

/// What the child's own lines begin with, to tell them from what a library writes.
const REPORT: &str = "wshd probe: ";
const LOADED: &str = "loaded";
const STATUS_REFUSED: u8 = 81;

#[allow(
    unsafe_code,
    reason = "loading a library runs its constructors; this is the child that exists for it"
)]
fn load(path: &Path) -> Result<Library, String> {
    // RTLD_NOW: with lazy binding an undefined function would be found by the first peer that needs it.
    //
    // SAFETY: what constructors do to this process harms nobody, because it does nothing else. The symbols are looked up and
    // neither called nor read.
    unsafe {
        let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map_err(|error| words(&error))?;
        library.get::<*const u8>(abi::INFO_SYMBOL.as_bytes()).map_err(|error| words(&error))?;
        library.get::<*const u8>(abi::ENTRY_SYMBOL.as_bytes()).map_err(|error| words(&error))?;
        Ok(library)
    }
}

/// The loader's text without the name of the call that libloading puts before it.
fn words(error: &libloading::Error) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    if text.is_empty() { "the loader does not say why".into() } else { text }
}

/// Why a library will not be loaded, from what became of the child.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeError {
    /// The child could not be started or watched.
    Start(io::Error),
    /// The loader refuses the library; its own words.
    Refused(String),
    /// The child was killed because it took longer than this.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// Whether the library was loaded by then, and it was its destructors that did not end.
        loaded: bool,
        /// The last that was written.
        output: String,
    },
    /// The child was ended by a signal.
    Crashed {
        /// Its number.
        signal: i32,
        /// Whether the library was loaded by then, and it was its destructors that crashed.
        loaded: bool,
        /// The last that was written.
        output: String,
    },
    /// The library ended the process itself.
    Ended {
        /// The status it gave.
        status: i32,
        /// Whether the library was loaded by then.
        loaded: bool,
        /// The last that was written.
        output: String,
    },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |loaded| if loaded { "destructor" } else { "constructor" };
        let output = match self {
            Self::Start(error) => return write!(f, "cannot try it out in a child process: {error}"),
            Self::Refused(text) => {
                write!(f, "it cannot be loaded: {text}")?;
                if text.contains("failed to map segment") {
                    f.write_str(
                        " (is the file system of the private copy mounted noexec? see handlers.stage_folder)",
                    )?;
                }
                return Ok(());
            }
            Self::TimedOut { limit, loaded, output } => {
                let what = if *loaded { "unloading" } else { "loading" };
                let limit = limit.as_secs_f64();
                write!(f, "it did not finish {what} within {limit} s (a {} hangs?)", of(*loaded))?;
                output
            }
            Self::Crashed { signal, loaded, output } => {
                let meaning = signal_meaning(*signal).map(|meaning| format!(" ({meaning})"));
                write!(f, "its {} crashed with signal {signal}{}", of(*loaded), meaning.unwrap_or_default())?;
                output
            }
            Self::Ended { status, loaded, output } => {
                write!(f, "a {} ended the process with status {status}", of(*loaded))?;
                output
            }
        };
        if output.is_empty() { Ok(()) } else { write!(f, "; it wrote: {output}") }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Start(error) = self { Some(error) } else { None }
    }
}

fn signal_meaning(signal: i32) -> Option<&'static str> {
    let meanings = [
        (Signal::SEGV, "segmentation fault"),
        (Signal::ABORT, "abort: an assertion, a panic that may not unwind, or an uncaught exception"),
        (Signal::BUS, "bus error: a part of a mapped file is missing"),
        (Signal::ILL, "illegal instruction: built for a newer processor?"),
        (Signal::FPE, "arithmetic error"),
        (Signal::KILL, "killed: out of memory?"),
        (Signal::SYS, "a system call that is not allowed here"),
        (Signal::TRAP, "trap"),
        (Signal::TERM, "termination"),
    ];
    meanings.into_iter().find(|(known, _)| known.as_raw() == signal).map(|(_, meaning)| meaning)
}

/// Runs the child that a command describes and judges how it ends.
fn probe_with(mut command: Command, library: &Path, limit: Duration) -> Result<(), ProbeError> {
    let deadline = Instant::now() + limit;
    let (reader, writer) = io::pipe().map_err(ProbeError::Start)?;
    let error_writer = writer.try_clone().map_err(ProbeError::Start)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(error_writer);
    // A group of its own, so that what a constructor starts can be ended together with the child.
    command.process_group(0);
    let child = command.spawn().map_err(ProbeError::Start)?;
    // The command holds the write ends of the pipe; without it the pipe ends when the last child does.
    drop(command);
    let mut child = Reaped(child);
    let ended = child.ended().map_err(ProbeError::Start)?;
    let mut output = Output::new(reader).map_err(ProbeError::Start)?;
    let in_time = output.gather_until(&ended, deadline).map_err(ProbeError::Start)?;
    let status = child.reap().map_err(ProbeError::Start)?;
    output.drain();
    judge(in_time, status, &output.text(), library, limit)
}

fn judge(
    in_time: bool,
    status: ExitStatus,
    output: &str,
    library: &Path,
    limit: Duration,
) -> Result<(), ProbeError> {
    let report = output.lines().rev().find_map(|line| line.strip_prefix(REPORT));
    let loaded = report == Some(LOADED);
    let output = last_words(output, library);
    if !in_time {
        return Err(ProbeError::TimedOut { limit, loaded, output });
    }
    if let Some(signal) = status.signal() {
        return Err(ProbeError::Crashed { signal, loaded, output });
    }
    match (status.code().unwrap_or_default(), report) {
        (0, Some(LOADED)) => Ok(()),
        (status, Some(refusal)) if status == i32::from(STATUS_REFUSED) && !loaded => {
            Err(ProbeError::Refused(refusal.to_owned()))
        }
        (status, _) => Err(ProbeError::Ended { status, loaded, output }),
    }
}

/// The last line that the library wrote, fit for a log.
fn last_words(output: &str, library: &Path) -> String {
    let theirs = |line: &&str| !line.trim().is_empty() && !line.starts_with(REPORT);
    let line = output
        .lines()
        .rfind(theirs)
        .unwrap_or_default()
        .replace(&library.display().to_string(), "the library");
    line.trim().chars().take(200).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// A child that is ended and reaped whatever happens.
struct Reaped(Child);

impl Reaped {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// A pipe that ends when the child does. A thread waits for the child without reaping it, so that its number stays its own
    /// until it is reaped here.
    fn ended(&self) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        let pid = self.pid();
        std::thread::Builder::new().name("probe".into()).spawn(move || {
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), ended) {}
            drop(writer);
        })?;
        Ok(reader)
    }

    /// Ends the child and all that it started, and returns how the child ended.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
        self.0.wait()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // After reap() the status is kept and the number may be another process's.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.reap();
        }
    }
}

/// What a child writes, the end of it.
struct Output {
    reader: PipeReader,
    kept: Vec<u8>,
    open: bool,
}

impl Output {
    fn new(reader: PipeReader) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok(Self { reader, kept: Vec::new(), open: true })
    }

    /// Reads until the child has ended; false if the deadline came first.
    fn gather_until(&mut self, ended: &PipeReader, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
            let mut watched = [PollFd::new(ended, PollFlags::IN), PollFd::new(&self.reader, PollFlags::IN)];
            // A pipe that was closed is always ready, and would keep this loop busy.
            let watched = if self.open { &mut watched[..] } else { &mut watched[..1] };
            match rustix::event::poll(watched, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let has_ended = !watched[0].revents().is_empty();
            let has_output = watched.get(1).is_some_and(|output| !output.revents().is_empty());
            if has_ended {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            if has_output {
                self.read();
            }
        }
    }

    /// Reads what is left in the pipe. A process that escaped its group may hold it open and write on, so not to its end.
    fn drain(&mut self) {
        for _ in 0..PIPE_READS_MAX {
            if !self.open || !self.read() {
                return;
            }
        }
    }

    /// Reads once; false if there is nothing now.
    fn read(&mut self) -> bool {
        let mut chunk = [0; KEPT_BYTES_MAX];
        match self.reader.read(&mut chunk) {
            Ok(0) => self.open = false,
            Ok(size) => {
                self.kept.extend_from_slice(&chunk[..size]);
                self.kept.drain(..self.kept.len().saturating_sub(KEPT_BYTES_MAX));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => self.open = false,
        }
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

/// A report is one line, and the loader's lines are shorter than this.
const KEPT_BYTES_MAX: usize = 4096;

/// A pipe holds 64 KiB, which is 16 reads.
const PIPE_READS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::super::check::tests::{SOUND, compile};
    use super::*;

    const PATH_VARIABLE: &str = "WSHD_TEST_PROBE_LIBRARY";

    /// No test of its own: the child of the other tests, which is this test program with one test to run.
    #[test]
    fn child() {
        if let Some(path) = std::env::var_os(PATH_VARIABLE) {
            std::process::exit(probe_here(Path::new(&path)).into());
        }
    }

    fn probe_in(library: &Path, limit: Duration) -> Result<(), ProbeError> {
        let (_, module) = module_path!().split_once("::").expect("a module of a crate");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("{module}::child"), "--nocapture", "--test-threads=1"]);
        child.env(PATH_VARIABLE, library);
        probe_with(child, library, limit)
    }

    fn library(source: &str, flags: &[&str]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = compile(
            folder.path(),
            "it",
            &format!("#include <stdlib.h>\n#include <stdio.h>\n#include <unistd.h>\n{SOUND}\n{source}"),
            flags,
        );
        (folder, path)
    }

    fn refusal(source: &str, flags: &[&str]) -> String {
        let (_folder, path) = library(source, flags);
        probe_in(&path, Duration::from_secs(20)).expect_err("it must not be loaded").to_string()
    }

    /// A sound library passes, whatever it writes, also more than a pipe holds.
    #[test]
    fn sound_library_passes() {
        let (_folder, path) = library("", &[]);
        probe_in(&path, Duration::from_secs(20)).unwrap();
        let chatty = "__attribute__((constructor)) static void c(void) { for (int i = 0; i < 100000; i++) puts(\"hello\"); }";
        let (_folder, path) = library(chatty, &[]);
        probe_in(&path, Duration::from_secs(20)).unwrap();
    }

    /// A constructor that crashes is reported with the signal and its last words.
    #[test]
    fn crashing_constructor_is_refused() {
        let text =
            refusal("__attribute__((constructor)) static void c(void) { *(volatile int *)8 = 1; }", &[]);
        assert!(text.starts_with("its constructor crashed with signal 11 (segmentation fault)"), "{text}");
        let text = refusal(
            "__attribute__((constructor)) static void c(void) { fputs(\"no \\33 luck\\n\", stderr); abort(); }",
            &[],
        );
        assert!(text.starts_with("its constructor crashed with signal 6 (abort"), "{text}");
        assert!(text.contains("; it wrote: ") && text.ends_with("no \u{fffd} luck"), "{text}");
    }

    /// A constructor that hangs is ended at the limit, and what it started with it.
    #[test]
    fn hanging_constructor_is_refused() {
        let (folder, path) = library(
            "__attribute__((constructor)) static void c(void) { if (fork() == 0) { for (;;) pause(); } puts(\"waiting\"); fflush(stdout); for (;;) pause(); }",
            &[],
        );
        let begun = Instant::now();
        let text = probe_in(&path, Duration::from_millis(2500)).expect_err("it hangs").to_string();
        assert!(
            text.starts_with("it did not finish loading within 2.5 s (a constructor hangs?); it wrote: "),
            "{text}"
        );
        assert!(text.ends_with("waiting"), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        drop(folder);
    }

    /// A constructor that ends the process is refused, also where it claims that all is well.
    #[test]
    fn exiting_constructor_is_refused() {
        for status in [7, 0, i32::from(STATUS_REFUSED)] {
            let text = refusal(
                &format!("__attribute__((constructor)) static void c(void) {{ _exit({status}); }}"),
                &[],
            );
            assert!(
                text.starts_with(&format!("a constructor ended the process with status {status}")),
                "{text}"
            );
        }
    }

    /// A crash while the library is unloaded is told from one while it is loaded.
    #[test]
    fn crashing_destructor_is_refused() {
        let text =
            refusal("__attribute__((destructor)) static void c(void) { *(volatile int *)8 = 1; }", &[]);
        assert!(text.starts_with("its destructor crashed with signal 11 (segmentation fault)"), "{text}");
    }

    /// What the loader refuses is told in its words, without the path of the private copy.
    #[test]
    fn loader_speaks_for_itself() {
        let text = refusal("void nobody_has_this(void); WSH_EXPORT void f(void) { nobody_has_this(); }", &[]);
        assert_eq!(text, "it cannot be loaded: undefined symbol: nobody_has_this");
        let folder = tempfile::tempdir().unwrap();
        let needed = compile(
            folder.path(),
            "libneeded",
            "int needed(void) { return 1; }",
            &["-Wl,-soname,libneeded.so"],
        );
        let source = "int needed(void); WSH_EXPORT int g(void) { return needed(); }";
        let text = refusal(source, &[needed.to_str().unwrap()]);
        assert_eq!(
            text,
            "it cannot be loaded: libneeded.so: cannot open shared object file: No such file or directory"
        );
        let path = compile(folder.path(), "other", "int x;", &[]);
        let text = probe_in(&path, Duration::from_secs(20)).expect_err("no symbols").to_string();
        assert_eq!(text, "it cannot be loaded: undefined symbol: wsh_handler_info");
        let text =
            probe_in(Path::new("/no/such.so"), Duration::from_secs(20)).expect_err("no file").to_string();
        assert!(text.ends_with("cannot open shared object file: No such file or directory"), "{text}");
    }

    /// A file that is cut off, which kills the loader, kills only the child.
    #[test]
    fn truncated_file_is_survived() {
        let (_folder, path) = library("", &[]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();
        probe_in(&path, Duration::from_secs(20)).expect_err("it is cut off");
    }

    /// A program that is not there is an error and no panic.
    #[test]
    fn missing_program_is_an_error() {
        let child = Command::new("/no/such/program");
        let error = probe_with(child, Path::new("x"), Duration::from_secs(1)).expect_err("nothing to start");
        assert!(
            error.to_string().starts_with("cannot try it out in a child process: No such file"),
            "{error}"
        );
    }
}
