//! What pywebsocket's users bring along: the names of its options, and its configuration files.

/// Options that have nothing left to do, and why.
const UNUSED: [(&str, &str); 6] = [
    ("allow-draft75", "no browser speaks that draft of the protocol any more"),
    ("strict", "requests are always judged strictly"),
    ("tls-module", "there is one TLS, rustls"),
    ("handler-encoding", "a library is compiled, and has no encoding"),
    ("deflate-log-level", "compression has no log lines of its own; --log-level is for all"),
    ("thread-monitor-interval-in-sec", "a session has no thread; `wshd status` shows what there is"),
];

/// Why an option, by its name with dashes, does nothing; `None` if it does something.
pub fn why_unused(option: &str) -> Option<&'static str> {
    UNUSED.iter().find(|(name, _)| *name == option).map(|(_, why)| *why)
}

/// Levels that have another name here.
pub const LEVELS: [(&str, &str); 3] = [("fine", "trace"), ("warning", "warn"), ("critical", "error")];
