//! Why a library stays in memory, in words for whoever wrote it.

use std::fmt;
use std::time::Duration;

/// See the module. `Display` continues the sentence "it stays in memory: ".
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(wshd_interposes),
    allow(dead_code, reason = "most is asked only where something is interposed")
)]
pub(crate) enum Retained {
    /// Threads that may run its code; their names.
    ThreadsAlive(Vec<String>),
    /// `WSH_LIBRARY_NO_UNLOAD` in its info.
    NeverUnloads,
    /// It has so many `wsh_handle`s.
    Handles(usize),
    /// It handles this signal.
    SignalHandler(i32),
    /// Symbols that the loader never gives up: how many, and one of them.
    UniqueSymbols { count: usize, one: String },
    /// `DF_1_NODELETE` in the file.
    NoDelete,
    /// The loader has it still, and the file does not say why.
    StillMapped,
    /// The loader's own words.
    Refused(String),
    /// Its destructors did not return in this time.
    CloseTimedOut(Duration),
    /// There is no thread to run its destructors on; what the system said.
    NoThread(String),
    /// The loader does not know the handle.
    NotFound,
    /// The functions of this program are not the ones that libraries find.
    NotWatched,
    /// Unloading was never tried on this platform.
    #[cfg_attr(wshd_interposes, allow(dead_code, reason = "it is said where nothing is interposed"))]
    Platform,
    /// This worker did not end in time.
    WorkerHangs(usize),
    /// Somebody in this server has it still, which is a mistake of ours.
    InUse,
}

impl Retained {
    /// Whether the loader waits for this library, for as long as its destructor does not return. Until then no library can be
    /// loaded or unloaded; a thread that is started waits at its beginning, because the C library asks the loader about the
    /// destructors of thread-local values; and `exit` does not return, but `_exit` does.
    pub(crate) fn blocks_the_loader(&self) -> bool {
        matches!(self, Self::CloseTimedOut(_))
    }
}

impl fmt::Display for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThreadsAlive(names) => {
                write!(f, "threads that may run its code are still there: {}", names.join(", "))?;
                f.write_str("; end and join in shutdown (on_unload in Rust) what the library has started")
            }
            Self::NeverUnloads => f.write_str("its info says WSH_LIBRARY_NO_UNLOAD"),
            Self::Handles(count) => write!(f, "it did not release {count} handles of sessions by the end of shutdown"),
            Self::SignalHandler(signal) => write!(
                f,
                "its handler of signal {signal}{} is still installed; restore in shutdown (on_unload in Rust) the one \
                 that was there before",
                signal_name(*signal)
            ),
            Self::UniqueSymbols { count, one } => write!(
                f,
                "the loader never gives up its {count} unique symbols, such as {one}; compile it with -fno-gnu-unique"
            ),
            Self::NoDelete => f.write_str("it is linked with -z nodelete; link it without"),
            Self::StillMapped => f.write_str(
                "the loader does not let go of it: it was opened a second time, perhaps by itself, or another library uses \
                 what it exports, as libstdc++ does; close what is opened, and export the two symbols of wsh.h only (wsh.map)",
            ),
            Self::Refused(text) => write!(f, "the loader refused to close it: {text}"),
            Self::CloseTimedOut(limit) => write!(
                f,
                "closing it took more than {} s: its destructors, or a constructor or destructor of another library, \
                 do not return, and the loader waits for them; restart the server",
                limit.as_secs_f64()
            ),
            Self::NoThread(text) => write!(f, "no thread could be had to close it: {text}"),
            Self::NotFound => f.write_str("the loader does not know it"),
            Self::NotWatched => f.write_str(
                "this program does not export pthread_create and the like, so that threads of libraries are not seen",
            ),
            Self::Platform => f.write_str("unloading is not proven on this platform"),
            Self::WorkerHangs(index) => write!(
                f,
                "worker {index} does not end: its shutdown (on_unload in Rust) or a destructor of a thread-local value does not return"
            ),
            Self::InUse => f.write_str("the server did not let go of it, which is a mistake of the server"),
        }
    }
}

impl std::error::Error for Retained {}

/// ` (SIGHUP)` for the signals that libraries are known to handle, nothing for others.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGHUP => " (SIGHUP)",
        libc::SIGINT => " (SIGINT)",
        libc::SIGQUIT => " (SIGQUIT)",
        libc::SIGILL => " (SIGILL)",
        libc::SIGABRT => " (SIGABRT)",
        libc::SIGBUS => " (SIGBUS)",
        libc::SIGFPE => " (SIGFPE)",
        libc::SIGUSR1 => " (SIGUSR1)",
        libc::SIGSEGV => " (SIGSEGV)",
        libc::SIGUSR2 => " (SIGUSR2)",
        libc::SIGPIPE => " (SIGPIPE)",
        libc::SIGALRM => " (SIGALRM)",
        libc::SIGTERM => " (SIGTERM)",
        libc::SIGCHLD => " (SIGCHLD)",
        libc::SIGPROF => " (SIGPROF)",
        _ => "",
    }
}
