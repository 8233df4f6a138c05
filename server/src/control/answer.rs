//! What the server says of itself, as a program reads it and as a person does.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Status(Box<Status>),
    Done,
    /// It was not done, and why.
    Failed(String),
}

/// The state of a server. Fields are added in later versions and not taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the server.
    pub server: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub config: Option<PathBuf>,
    pub document_root: Option<PathBuf>,
    pub listening: Vec<SocketAddr>,
    /// Those of them that speak TLS.
    #[serde(default)]
    pub listening_tls: Vec<SocketAddr>,
    /// Unix sockets.
    #[serde(default)]
    pub listening_unix: Vec<PathBuf>,
    /// Shown to peers that speak TLS; the first one to those that ask for no name or for another.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// Why the certificates are not those that are in the files by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_problem: Option<String>,
    /// Why the users are not those that are in the files by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users_problem: Option<String>,
    pub connections: usize,
    pub connections_max: usize,
    pub handlers: Vec<HandlerStatus>,
    /// Paths on which handlers answer besides their own.
    #[serde(default)]
    pub routes: Vec<WayStatus>,
    /// Paths that stand for others.
    #[serde(default)]
    pub aliases: Vec<WayStatus>,
    /// Files that are there and not served.
    pub refused: Vec<RefusedFile>,
    /// Versions that ended and stay in memory.
    pub retained: Vec<RetainedGeneration>,
    pub notes: Vec<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub file: PathBuf,
    /// Alternative names, each behind its kind, such as `DNS:`.
    pub names: Vec<String>,
    /// The last moment at which it is valid.
    pub valid_until: String,
}

/// A route or an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayStatus {
    /// Path, behind the host if it has one.
    pub from: String,
    /// Name of a handler or of a variant; of an alias, a path.
    pub to: String,
    /// Whether what it leads to is there; else it answers with 404.
    pub served: bool,
}

/// One handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerStatus {
    /// Resource path; for the variant that a route has for itself its name.
    pub path: String,
    /// Whether it answers on that path.
    #[serde(default = "yes")]
    pub own_path: bool,
    pub file: Option<PathBuf>,
    /// `migrate`, `drain` or `restart`.
    pub reload: Option<String>,
    /// What the handler counts.
    #[serde(default)]
    pub metrics: Vec<MetricStatus>,
    /// Of compression; `None` where it is off and nobody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionStatus>,
    /// Serves new peers. `None` after the library was deleted.
    pub active: Option<GenerationStatus>,
    /// Older ones with sessions that are going.
    pub leaving: Vec<GenerationStatus>,
}

fn yes() -> bool {
    true
}

/// One loaded copy of a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    pub number: u64,
    /// What the library says of itself.
    pub version: String,
    pub sessions: usize,
    pub panics: u32,
    /// Messages that were dropped because their peers do not read.
    #[serde(default)]
    pub dropped: u64,
    pub loaded_seconds_ago: u64,
}

/// What the sessions of one handler keep for compression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressionStatus {
    /// What they may keep at most, by what was agreed with their peers.
    pub reserved_bytes: usize,
    /// `memory_bytes_max`.
    pub reserved_bytes_max: usize,
    /// Peers so far with whom compression of each message by itself was agreed, because nothing was left.
    pub without_takeover: u64,
}

/// A figure that a handler keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricStatus {
    pub name: String,
    /// `counter` or `gauge`.
    pub kind: String,
    pub value: i64,
    pub help: String,
}

/// A file that is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFile {
    pub file: PathBuf,
    pub reason: String,
}

/// A version that ended and could not be taken out of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedGeneration {
    pub handler: String,
    pub generation: u64,
    pub reason: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "wshd {}, process {}, up {} s", self.server, self.pid, self.uptime_seconds)?;
        for address in &self.listening {
            let tls = if self.listening_tls.contains(address) { "  (TLS)" } else { "" };
            writeln!(f, "  listening on {address}{tls}")?;
        }
        for path in &self.listening_unix {
            writeln!(f, "  listening on unix:{}", path.display())?;
        }
        for CertificateStatus { file, names, valid_until } in &self.certificates {
            writeln!(f, "  certificate  {}  {}  valid until {valid_until}", file.display(), names.join(" "))?;
        }
        if let Some(problem) = &self.certificate_problem {
            writeln!(f, "  the certificates stay as they were: {problem}")?;
        }
        if let Some(problem) = &self.users_problem {
            writeln!(f, "  the users stay as they were: {problem}")?;
        }
        writeln!(f, "  {} of at most {} connections", self.connections, self.connections_max)?;
        writeln!(f, "\n  handlers")?;
        if self.handlers.is_empty() {
            writeln!(f, "    none")?;
        }
        for handler in &self.handlers {
            handler.fmt(f)?;
        }
        for (title, ways) in [("routes", &self.routes), ("aliases", &self.aliases)] {
            if !ways.is_empty() {
                writeln!(f, "\n  {title}")?;
            }
            ways.iter().try_for_each(|way| way.fmt(f))?;
        }
        if !self.refused.is_empty() {
            writeln!(f, "\n  refused")?;
        }
        for RefusedFile { file, reason } in &self.refused {
            writeln!(f, "    {}\n        {reason}", file.display())?;
        }
        if !self.retained.is_empty() {
            writeln!(f, "\n  ended, and still in memory")?;
        }
        for RetainedGeneration { handler, generation, reason } in &self.retained {
            writeln!(f, "    {handler} generation {generation}: {reason}")?;
        }
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

impl fmt::Display for WayStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_served = if self.served { "" } else { "  (not there: 404)" };
        writeln!(f, "    {}  {}{not_served}", self.from, self.to)
    }
}

impl fmt::Display for HandlerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let reload = self.reload.as_deref().unwrap_or("drain");
        match &self.active {
            Some(active) => {
                let hidden = if self.own_path || !self.path.starts_with('/') {
                    ""
                } else {
                    " (only by routes and aliases)"
                };
                writeln!(f, "    {}{hidden}  {active}, on reload: {reload}  {file}", self.path)?;
            }
            None => writeln!(f, "    {}  not served any more  {file}", self.path)?,
        }
        for MetricStatus { name, value, help, .. } in &self.metrics {
            writeln!(f, "        {name} {value}  {help}")?;
        }
        if let Some(CompressionStatus { reserved_bytes, reserved_bytes_max, without_takeover }) =
            self.compression
        {
            write!(
                f,
                "        compression: {reserved_bytes} of at most {reserved_bytes_max} bytes reserved"
            )?;
            if without_takeover > 0 {
                write!(f, ", {without_takeover} sessions got none")?;
            }
            writeln!(f)?;
        }
        self.leaving.iter().try_for_each(|leaving| writeln!(f, "        leaving: {leaving}"))
    }
}

impl fmt::Display for GenerationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, version, sessions, panics, dropped, loaded_seconds_ago } = self;
        write!(f, "generation {number}")?;
        if !version.is_empty() {
            write!(f, " ({version})")?;
        }
        write!(f, ", {sessions} sessions, loaded {loaded_seconds_ago} s ago")?;
        if *panics > 0 {
            write!(f, ", {panics} panics")?;
        }
        if *dropped > 0 { write!(f, ", {dropped} messages dropped") } else { Ok(()) }
    }
}
