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

/// Who may say on whose behalf it connects. Default nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Vec<TrustedProxy>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Whoever may connect to a Unix socket of this server.
    Unix,
    /// Every address that begins with so many bits of this one.
    Network(IpAddr, u32),
}

impl TrustedProxies {
    /// Whether this peer is one; `None` is one that connects by a Unix socket.
    pub fn include(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|proxy| match (proxy, peer) {
            (TrustedProxy::Unix, None) => true,
            (TrustedProxy::Network(network, bits), Some(peer)) => is_in(peer.to_canonical(), *network, *bits),
            _ => false,
        })
    }
}

impl FromIterator<TrustedProxy> for TrustedProxies {
    fn from_iter<T: IntoIterator<Item = TrustedProxy>>(proxies: T) -> Self {
        Self(proxies.into_iter().collect())
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}

impl FromStr for TrustedProxy {
    type Err = InvalidProxy;

    /// Takes `unix`, `127.0.0.1`, `10.0.0.0/8` and `fd00::/8`.
    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(text, bits)| (text, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| InvalidProxy)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| InvalidProxy)?;
        if bits > most { Err(InvalidProxy) } else { Ok(Self::Network(address, bits)) }
    }
}

/// The text is neither an address, nor a network, nor `unix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidProxy;

impl fmt::Display for InvalidProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("but a proxy is an address such as 127.0.0.1, a network such as 10.0.0.0/8, or \"unix\"")
    }
}

impl std::error::Error for InvalidProxy {}

/// An enumeration whose variants are words in the config file.
macro_rules! words {
    ($(#[$doc:meta])* enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The words that the file takes, in the order of the variants.
            pub const NAMES: &'static [&'static str] = &[$($word),*];

            /// The word for this one.
            pub fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::config::InvalidWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err($crate::config::InvalidWord(Self::NAMES)),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(super) use words;

/// The text is none of these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidWord(pub(super) &'static [&'static str]);

impl fmt::Display for InvalidWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "but must be one of {}", self.0.join(", "))
    }
}

impl std::error::Error for InvalidWord {}

words! {
    /// How the server learns that something in the handlers folders changed.
    #[derive(Default)]
    enum WatchMode {
        /// The system tells (inotify). A look every `handlers.poll_seconds` finds what it does not tell: on network file systems,
        /// and when it had more to tell than it can queue.
        #[default]
        Auto = "auto",
        /// Only by a look every `handlers.poll_seconds`.
        Poll = "poll",
        /// Not at all.
        Off = "off",
    }
}

words! {
    /// What becomes of the sessions of a version that another one follows.
    enum Reload {
        /// They go on with the new code, if the handler can carry their state over; otherwise as with `Drain`.
        Migrate = "migrate",
        /// They finish on the code they began with, for a time.
        Drain = "drain",
        /// They are closed with 1012, over a span of time, and may come back at once.
        Restart = "restart",
    }
}

words! {
    /// What becomes of a message for a peer that does not read and whose queue is full.
    #[derive(Default)]
    enum SlowPeer {
        /// The session is closed with 1013: what its peer gets is complete, or it knows that it is not.
        #[default]
        Close = "close",
        /// The message is dropped. The peer gets what was sent first.
        DropNewest = "drop-newest",
        /// Messages that were sent earlier, and have not begun to go out, are dropped for it. The peer gets what was sent last.
        DropOldest = "drop-oldest",
    }
}

words! {
    /// Whether clients are asked for a certificate.
    #[derive(Default)]
    enum ClientAuth {
        /// They are not.
        #[default]
        Off = "off",
        /// They are, and one that has none is served too. One that shows a wrong one is not.
        Optional = "optional",
        /// One without is not served.
        Required = "required",
    }
}

words! {
    /// The oldest version of TLS that is spoken. There is nothing below 1.2.
    #[derive(Default)]
    enum TlsVersion {
        /// RFC 5246.
        #[default]
        V1_2 = "1.2",
        /// RFC 8446.
        V1_3 = "1.3",
    }
}

words! {
    /// How important a log line is, the most important first.
    #[derive(Default)]
    enum Level {
        /// Something does not work.
        Error = "error",
        /// Something will not work, or was refused.
        Warn = "warn",
        /// What an operator wants to see.
        #[default]
        Info = "info",
        /// What explains the above.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
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

/// The `Origin` headers that an opening handshake may bear. A peer without one is no browser: a list without
/// `"same-host"` refuses it, the others do not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// `"same-host"`: the host and port of the `Host` header.
    #[default]
    SameHost,
    /// `"*"`: any web page may use its visitors' access to this server.
    Any,
    /// These and no others, in lower case, such as `https://a.example`, `null` or `same-host`.
    List(Vec<String>),
}

impl Origins {
    /// The entry of a list that lets in what `Origins::SameHost` lets in.
    pub const SAME_HOST: &'static str = "same-host";
}

/// RFC 6454 §7: scheme, host and a port that is not the scheme's own; no path. Browsers send exactly this, and `null` for pages
/// that have no origin of their own, such as those of `file://`.
pub(super) fn origin(text: &str) -> Result<(), &'static str> {
    if text == "*" {
        return Err("which stands alone: write it as a string, not in a list");
    }
    if text == "null" || text == Origins::SAME_HOST {
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
