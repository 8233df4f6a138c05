//! Log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::config::Level;

/// Installs the logger of the process. Colours only where a person looks at a terminal.
pub fn install(level: Level) {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    // Fails only if a logger was installed before, which then is the one the caller wants.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
