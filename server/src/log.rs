//! Log lines on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::{Registry, fmt};

use crate::config::Level;

/// The filter of this process's logger, which is one for the whole process.
static FILTER: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Installs the logger of the process. Colours only where a person looks at a terminal.
pub fn install(level: Level) {
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let subscriber = Registry::default().with(filter).with(lines);
    // Fails only if a logger was installed before, which then is the one the caller wants.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// From now on lines of this level and above are written. Without effect on a logger that somebody else installed.
pub(crate) fn set_level(level: Level) {
    if let Some(filter) = FILTER.get() {
        // Fails only if the logger is gone, and nothing is written then anyway.
        let _ = filter.reload(filter_of(level));
    }
}

fn filter_of(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
