//! What pywebsocket's users bring along: the options of its standalone.py, and its configuration files.

mod ini;
mod migrate;

pub use self::migrate::{MigrateError, migrate};

/// An option of standalone.py.
#[derive(Debug, Clone, Copy)]
pub struct PyOption {
    /// The long name, with dashes.
    pub name: &'static str,
    pub becomes: Becomes,
}

/// What takes the place of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// A key of the config, `section.key`, and what its value is.
    Key(&'static str, Kind),
    /// Nothing is left to do, and why.
    Nothing(&'static str),
    /// Everybody is asked who he is.
    Users,
    /// `wshd migrate` says how to go on.
    ByHand(&'static str),
}

/// What the value of an option is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Given is on, whatever the value says.
    Flag,
    Whole,
    Text,
    /// Of a list of one.
    Host,
    /// Relative to the document root in pywebsocket.
    Path,
    /// The same, as a list of one.
    Folder,
    /// Relative to where the server is started.
    Root,
    /// A level of the log.
    Level,
    /// A flag that stands for this word.
    Word(&'static str),
    /// Several, with commas between.
    Words,
}

/// Every option of both generations of pywebsocket, in the order of its help.
pub const OPTIONS: [PyOption; 30] = {
    use Becomes::{ByHand, Key, Nothing, Users};
    use Kind::{Flag, Folder, Host, Level, Path, Root, Text, Whole, Word, Words};
    const fn option(name: &'static str, becomes: Becomes) -> PyOption {
        PyOption { name, becomes }
    }
    [
        option("config", ByHand("a file that names another one is not followed: migrate that one too")),
        option("server-host", Key("listen.hosts", Host)),
        option("validation-host", Key("upgrade.validation_host", Text)),
        option("port", Key("listen.port", Whole)),
        option("validation-port", Key("upgrade.validation_port", Whole)),
        option("websock-handlers", Key("handlers.folders", Folder)),
        option("websock-handlers-map-file", Key("handlers.map_file", Path)),
        option("scan-dir", Key("handlers.scan_dir", Path)),
        option("allow-handlers-outside-root-dir", Key("handlers.follow_links_outside", Flag)),
        option("handler-encoding", Nothing("a library is compiled, and has no encoding")),
        option("document-root", Key("files.root", Root)),
        option("cgi-paths", Key("cgi.paths", Words)),
        option("tls", Key("listen.tls", Flag)),
        option("tls-module", Nothing("there is one TLS, rustls")),
        option("private-key", Key("tls.private_key", Path)),
        option("certificate", Key("tls.certificate", Path)),
        option("tls-client-auth", Key("tls.client_auth", Word("required"))),
        option("tls-client-cert-optional", Key("tls.client_auth", Word("optional"))),
        option("tls-client-ca", Key("tls.client_ca", Path)),
        option("basic-auth", Users),
        option("basic-auth-credential", ByHand("a password does not belong into a config")),
        option("log-file", Key("log.file", Path)),
        option("log-level", Key("log.level", Level)),
        option("deflate-log-level", Nothing("compression has no log lines of its own; log.level is for all")),
        option("log-max", Key("log.file_bytes_max", Whole)),
        option("log-count", Key("log.files_kept", Whole)),
        option(
            "thread-monitor-interval-in-sec",
            Nothing("a session has no thread; `wshd status` shows what there is"),
        ),
        option("queue", Key("listen.backlog", Whole)),
        option("allow-draft75", Nothing("no browser speaks that draft of the protocol any more")),
        option("strict", Nothing("requests are always judged strictly")),
    ]
};

/// Why an option, by its name with dashes, does nothing; `None` if it does something.
pub fn why_unused(option: &str) -> Option<&'static str> {
    OPTIONS.iter().find(|known| known.name == option).and_then(|known| match known.becomes {
        Becomes::Nothing(why) => Some(why),
        _ => None,
    })
}

/// Levels that have another name here.
pub const LEVELS: [(&str, &str); 3] = [("fine", "trace"), ("warning", "warn"), ("critical", "error")];
