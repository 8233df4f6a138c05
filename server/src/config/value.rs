//! Values with rules of their own: hosts, ways to watch and to reload, origins, log levels.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What to listen on: an address, or a name that is resolved when the listener binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A name for the resolver; every address it has is bound.
    Name(String),
}

impl FromStr for Host {
    type Err = InvalidHost;

    /// Takes `127.0.0.1`, `::1`, `[::1]` and `localhost`; no port, because there is one port for all hosts.
    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let name = text.strip_suffix('.').unwrap_or(text);
        if digits || text.len() > 255 || !name.split('.').all(label) {
            return Err(InvalidHost);
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The text is neither an address nor a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHost;

impl fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "but a host is an address such as 127.0.0.1 or ::1, or a name such as localhost, without a port",
        )
    }
}

impl std::error::Error for InvalidHost {}

/// How the server learns that something in the handlers folders changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchMode {
    /// The system tells (inotify). A look every `handlers.poll_seconds` finds what it does not tell: on network file systems,
    /// and when it had more to tell than it can queue.
    #[default]
    Auto,
    /// Only by a look every `handlers.poll_seconds`.
    Poll,
    /// Not at all.
    Off,
}

impl WatchMode {
    /// The words that the file takes, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["auto", "poll", "off"];

    const ALL: [Self; 3] = [Self::Auto, Self::Poll, Self::Off];

    /// The word for this mode.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl FromStr for WatchMode {
    type Err = InvalidWatchMode;

    fn from_str(text: &str) -> Result<Self, InvalidWatchMode> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or(InvalidWatchMode)
    }
}

impl fmt::Display for WatchMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not one of [`WatchMode::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidWatchMode;

impl fmt::Display for InvalidWatchMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "but must be one of {}", WatchMode::NAMES.join(", "))
    }
}

impl std::error::Error for InvalidWatchMode {}

/// What becomes of the sessions of a version that another one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// They go on with the new code, if the handler can carry their state over; otherwise as with `Drain`.
    Migrate,
    /// They finish on the code they began with, for a time.
    Drain,
    /// They are closed with 1012, over a span of time, and may come back at once.
    Restart,
}

impl Reload {
    /// The words that the file takes, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["migrate", "drain", "restart"];

    const ALL: [Self; 3] = [Self::Migrate, Self::Drain, Self::Restart];

    /// The word for this policy.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl FromStr for Reload {
    type Err = InvalidReload;

    fn from_str(text: &str) -> Result<Self, InvalidReload> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or(InvalidReload)
    }
}

/// The text is not one of [`Reload::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidReload;

impl fmt::Display for InvalidReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "but must be one of {}", Reload::NAMES.join(", "))
    }
}

impl std::error::Error for InvalidReload {}

/// How important a log line is, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something will not work, or was refused.
    Warn,
    /// What an operator wants to see.
    #[default]
    Info,
    /// What explains the above.
    Debug,
    /// Every step.
    Trace,
}

impl Level {
    /// The words that the file and `--log-level` take, in the order of the variants.
    pub const NAMES: [&'static str; 5] = ["error", "warn", "info", "debug", "trace"];

    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The word for this level.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl FromStr for Level {
    type Err = InvalidLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLevel> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or(InvalidLevel)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Level> for tracing::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// The text is not one of [`Level::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidLevel;

impl fmt::Display for InvalidLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "but must be one of {}", Level::NAMES.join(", "))
    }
}

impl std::error::Error for InvalidLevel {}

/// The `Origin` headers that an opening handshake may bear. A peer without one is no browser: a list
/// refuses it, the others do not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// `"same-host"`: the host and port of the `Host` header.
    #[default]
    SameHost,
    /// `"*"`: any web page may use its visitors' access to this server.
    Any,
    /// These and no others, in lower case, such as `https://a.example`.
    List(Vec<String>),
}

/// RFC 6454 §7: scheme, host and a port that is not the scheme's own; no path. Browsers send exactly this.
pub(super) fn origin(text: &str) -> Result<(), &'static str> {
    if text == "*" || text == "same-host" {
        return Err("which stands alone: write it as a string, not in a list");
    }
    if text == "null" {
        return Ok(());
    }
    let usage = "but an origin is written like \"https://a.example\" or \"http://localhost:8080\"";
    let (scheme, host) = text.split_once("://").ok_or(usage)?;
    let letters = |char: char| char.is_ascii_alphanumeric() || "+-.".contains(char);
    if scheme.is_empty() || !scheme.chars().all(letters) || host.is_empty() {
        return Err(usage);
    }
    if host.contains(['/', '?', '#', '@', '*']) || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "but an origin is scheme, host and port only, without path, wildcard or \"/\" at its end",
        );
    }
    Ok(())
}
