//! Log lines: on standard error, or in a file that is kept short.

mod file;

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, reload};

pub use self::file::LogFileError;

use self::file::LogFile;
use crate::config::{Level, Log};

/// The logger of this process, which is one for the whole process.
static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    filter: reload::Handle<LevelFilter, Registry>,
    /// `None` is standard error.
    file: Mutex<Option<LogFile>>,
}

/// Installs the logger of the process. Colours only where a person looks at a terminal.
///
/// # Errors
/// The log file cannot be opened.
pub fn install(log: &Log) -> Result<(), LogFileError> {
    let file = open(log)?;
    let (filter, handle) = reload::Layer::new(filter_of(log.level));
    let is_coloured = file.is_none() && io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(Lines).with_ansi(is_coloured);
    let subscriber = Registry::default().with(filter).with(lines);
    // Fails only if a logger was installed before, which then is the one the caller wants.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = LOGGER.set(Logger { filter: handle, file: Mutex::new(file) });
    }
    Ok(())
}

/// What a changed section needs before it can be in force.
#[derive(Debug)]
pub(crate) struct Prepared {
    level: Level,
    file: Option<LogFile>,
}

impl Prepared {
    /// # Errors
    /// The log file cannot be opened.
    pub(crate) fn new(log: &Log) -> Result<Self, LogFileError> {
        Ok(Self { level: log.level, file: open(log)? })
    }

    /// From now on lines are written as the section says. Without effect on a logger that somebody else installed.
    pub(crate) fn take_effect(self) {
        if let Some(logger) = LOGGER.get() {
            *logger.lock() = self.file;
            // Fails only if the logger is gone, and nothing is written then anyway.
            let _ = logger.filter.reload(filter_of(self.level));
        }
    }
}

/// Opens the log file by its name once more, for programs that have moved it away. On standard error nothing happens.
///
/// # Errors
/// It cannot be opened. Then lines go on into the file that was moved.
pub fn reopen() -> Result<(), LogFileError> {
    match LOGGER.get().map(|logger| logger.lock()).as_deref_mut() {
        Some(Some(file)) => file.reopen(),
        _ => Ok(()),
    }
}

fn open(log: &Log) -> Result<Option<LogFile>, LogFileError> {
    let open = |path: &std::path::PathBuf| LogFile::open(path, log.file_bytes_max, log.files_kept);
    log.file.as_ref().map(open).transpose()
}

impl Logger {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<LogFile>> {
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Writes each line to where lines go at the moment.
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match LOGGER.get().map(Logger::lock).as_deref_mut() {
            Some(Some(file)) => file.write_line(line).map(|()| line.len()),
            _ => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
