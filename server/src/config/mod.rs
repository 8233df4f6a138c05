//! The config file as meant: every value checked, every default filled in, nothing to change afterwards.
//!
//! Each value comes from the last of these that has it: the built-in default, the config file, a flag of the command
//! line. Paths are relative to the folder that the server is started in. `config/config.toml` is the commented
//! reference of every key. Nothing else in the server reads TOML.

mod access;
mod check;
mod error;
mod file;
mod map_file;
mod route;
mod tables;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wshd_protocol::DeflateRules;

use crate::cli::Cli;

pub(crate) use access::cgi_path;
pub use access::{AuthRules, CertificateName, Cgi, Credential, NOBODY};
pub use error::{Complaint, ConfigError};
pub use map_file::MapError;
pub(crate) use route::bare_host;
pub use route::{Aliases, HostPattern, Route, RoutePath};
pub use value::{
    ClientAuth, Host, InvalidHost, InvalidProxy, InvalidWord, Level, Origins, Reload, SlowPeer, TlsVersion,
    TrustedProxies, TrustedProxy, WatchMode,
};

/// What a server needs to know to start. Immutable: a reload makes another one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Where peers connect.
    pub listen: Listen,
    /// What ports that speak TLS do it with.
    pub tls: Tls,
    /// Where handler libraries come from and what loading one may cost.
    pub handlers: Handlers,
    /// Paths that stand for others.
    pub aliases: Aliases,
    /// Paths on which handlers answer besides their own.
    pub routes: Vec<Route>,
    /// Static files beside the handlers.
    pub files: Files,
    /// Who may open a WebSocket.
    pub upgrade: UpgradeRules,
    /// Sections `[auth.NAME]`: how peers say who they are.
    pub auth: BTreeMap<String, AuthRules>,
    /// Programs that answer requests.
    pub cgi: Cgi,
    /// Whether and how messages are compressed (RFC 7692). Default not at all.
    pub deflate: Deflate,
    /// What a peer may cost.
    pub limits: Limits,
    /// What is written to the log.
    pub log: Log,
    /// How the server is told what to do.
    pub control: Control,
    /// The file this came from; `None` if there was none and the defaults apply.
    pub source: Option<PathBuf>,
}

/// Section `[listen]`: addresses and the threads that accept on them.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// TCP port. 0 takes any free one. Default 9998.
    pub port: u16,
    /// The port above speaks TLS. Default false.
    pub tls: bool,
    /// TCP port that speaks TLS, beside the one above. 0 takes any free one. Default none.
    pub tls_port: Option<u16>,
    /// Addresses or names to listen on; none only if there is a Unix socket. Default every IPv4 and every IPv6 address of the
    /// machine.
    pub hosts: Vec<Host>,
    /// Unix sockets to listen on, without TLS. Default none.
    pub unix: Vec<PathBuf>,
    /// Their mode bits. Default 0660.
    pub unix_mode: u32,
    /// Who is believed when it says for whom it connects, and how. Default nobody.
    pub trusted_proxies: TrustedProxies,
    /// Connections that the kernel keeps ready until a front thread accepts them. Default 1024.
    pub backlog: u32,
    /// Threads that accept and speak HTTP. 0 in the file means as many as cores, at most 4; here it is never 0.
    pub front_threads: usize,
    /// How long sessions may take for the closing handshake when the server stops. Default 10 s.
    pub shutdown_seconds_max: Duration,
}

/// Section `[tls]`: certificates, and what is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Files of certificate chains in PEM. A peer is shown the one for the name that it asks for, else the first.
    pub certificate: Vec<PathBuf>,
    /// Files of their private keys in PEM, in the same order.
    pub private_key: Vec<PathBuf>,
    /// Also take a private key that other users can read. Default false.
    pub private_key_may_be_shared: bool,
    /// The oldest version that is spoken. Default 1.2.
    pub version_min: TlsVersion,
    /// Whether clients are asked for a certificate. Default off.
    pub client_auth: ClientAuth,
    /// File of the certificates that may sign those of clients, in PEM.
    pub client_ca: Option<PathBuf>,
}

/// Section `[handlers]`: the folders of handler libraries and the bounds of loading.
#[derive(Debug, Clone, PartialEq)]
pub struct Handlers {
    /// Folders that are scanned for `NAME_wsh` libraries, the first wins where two have one path. Default `handlers`.
    pub folders: Vec<PathBuf>,
    /// The only folder in them that is scanned. Resource paths are as without it. Default none: all of them are.
    pub scan_dir: Option<PathBuf>,
    /// File of aliases as pywebsocket has it. Default none.
    pub map_file: Option<PathBuf>,
    /// Also load libraries that a link in a handlers folder points at and that lie outside of it. Default false.
    pub follow_links_outside: bool,
    /// Start although no library was found. Default false, because a wrong folder is the likelier cause.
    pub allow_empty: bool,
    /// Worker threads of each generation. 0 in the file means as many as cores; here it is never 0.
    pub workers: usize,
    /// Load each library in a child process first. Default true.
    pub probe: bool,
    /// How long that may take. Default 2 s.
    pub probe_seconds_max: Duration,
    /// The program that tries a library out; `None` is this one. It has no key in the file: it is for tests, whose own program
    /// cannot be started as a probe.
    pub probe_program: Option<PathBuf>,
    /// How long a library may take from dlopen until its entry has returned. Default 10 s.
    pub load_seconds_max: Duration,
    /// Largest library file, because it is read into memory while it is staged. Default 256 MiB.
    pub library_bytes_max: u64,
    /// Where private copies of libraries live. `None`: in `.wsh-generations` inside each handlers folder.
    pub stage_folder: Option<PathBuf>,
    /// How the server learns that a library changed. Default by events of the system, with a look now and then.
    pub watch: WatchMode,
    /// Time between two looks at the handlers folders, in every mode that looks. Default 2 s.
    pub poll_seconds: Duration,
    /// How long sessions may stay on a version that another one follows; then they are closed with 1012. Zero: as long as they
    /// like. Default 30 s.
    pub drain_seconds_max: Duration,
    /// The time over which the sessions of a handler with the policy restart are closed. Default 5 s.
    pub restart_seconds: Duration,
    /// What one session may carry from a version to the next. Default 1 MiB.
    pub state_bytes_max: usize,
    /// How long each step of taking a library out of memory may take, before it stays there. Default 10 s.
    pub unload_seconds_max: Duration,
    /// So long after it was loaded a version that panics again and again gives way to the one before it. Default 10 s.
    pub rollback_seconds: Duration,
    /// So many panics are that; 0 is never. Default 3.
    pub rollback_panics: u32,
    /// Versions that ended and could not be unmapped; above it nothing is loaded any more. Default 200.
    pub retained_max: usize,
    /// Threads of each generation for what its library offloads. Default 8.
    pub offload_threads_max: usize,
    /// Work of one generation that waits for such a thread. Default 1024.
    pub offload_queue_max: usize,
    /// Sections `[handlers.NAME]`: what differs for one handler.
    pub each: BTreeMap<String, HandlerRules>,
}

/// Section `[handlers.NAME]`: the rules of one handler. What is not given is as for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandlerRules {
    /// Whether it answers on the path that the name of its file means. Default true.
    pub own_path: Option<bool>,
    /// What becomes of its sessions on a reload. `None`: what the library says of itself.
    pub reload: Option<Reload>,
    /// As in [`Handlers`].
    pub drain_seconds_max: Option<Duration>,
    /// As in [`Handlers`].
    pub restart_seconds: Option<Duration>,
    /// As in [`Limits`].
    pub slow_peer: Option<SlowPeer>,
    /// Whether and how its messages are compressed, where that differs from `[deflate]` in anything.
    pub deflate: Option<Deflate>,
    /// Which web pages may connect to it, where that differs from `[upgrade]`.
    pub origins: Option<Origins>,
    /// Which `[auth.NAME]` its peers have to pass, where that differs from `[upgrade]`.
    pub auth: Option<String>,
    /// Whether it may write what is no WebSocket, `wsh.raw/1`. Default false.
    pub raw: bool,
    /// The handler's own keys, `[handlers.NAME.config]`, as a JSON object.
    pub config: Option<String>,
}

/// What a handler without keys of its own is told.
pub const NO_CONFIG: &str = "{}";

/// Section `[control]`: how a running server is told what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Whether there is a control socket. Default true.
    pub enabled: bool,
    /// Its path. `None`: `wshd.sock` beside the config file, `/run/wshd.sock` where there is none.
    pub socket: Option<PathBuf>,
}

/// Section `[files]`: static files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// Folder whose files are served for requests that are not a WebSocket's. `None` serves no files.
    pub root: Option<PathBuf>,
    /// Which `[auth.NAME]` says who may have them, programs included. Default: everybody may.
    pub auth: Option<String>,
}

/// Section `[upgrade]`: rules of the opening handshake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpgradeRules {
    /// Which web pages may connect. Default: pages of this host.
    pub origins: Origins,
    /// The host that a request target with a host must have. Default any.
    pub validation_host: Option<Host>,
    /// The port that a request target with a host must have. Default any.
    pub validation_port: Option<u16>,
    /// Which `[auth.NAME]` says who may. Default: everybody may.
    pub auth: Option<String>,
}

/// Section `[deflate]`: compression of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// What is agreed to with a peer. Default nothing.
    pub rules: DeflateRules,
    /// What the sessions of one handler may keep together of messages, for later ones to refer to. Each counts with the most that
    /// was agreed. Those for whom nothing is left keep nothing and have each message compressed by itself. Default 64 MiB.
    pub memory_bytes_max: usize,
}

/// Section `[limits]`: what a peer may cost. Each has a default, and its unit in its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Payload of one message, after decompression. Larger is failed with 1009. Default 1 MiB.
    pub message_bytes_max: usize,
    /// Fragments without payload in one message. More is failed with 1008. Default 1024.
    pub empty_fragments_max: u32,
    /// A message may take this long; from then on it must progress at the rate below. Default 30 s.
    pub message_seconds_max: Duration,
    /// The rate that a message must keep once it took longer than the limit above. Default 1024.
    pub message_bytes_per_second_min: usize,
    /// Bytes waiting for a slow peer; what happens to a send beyond it, `slow_peer` says. Default 256 KiB.
    pub outgoing_bytes_max: usize,
    /// Bytes from which a send answers that the peer is slow. Default 64 KiB.
    pub outgoing_bytes_high: usize,
    /// Bytes at which a session that was slow is told that it can send again. Default 16 KiB.
    pub outgoing_bytes_low: usize,
    /// Messages of one session from other threads, waiting in the inbox of its worker. Default 256.
    pub outgoing_messages_max: usize,
    /// What becomes of a message for which there is no room. Default close.
    pub slow_peer: SlowPeer,
    /// Bytes that were published to topics and wait for one worker. Default 16 MiB.
    pub published_bytes_max: usize,
    /// Connections at a time. The number of open files the process may have bounds it further at start. Default 10 000.
    pub connections_max: usize,
    /// Connections of one IP address at a time, nobody exempt; 0 is no bound. Default 256.
    pub connections_per_peer_max: usize,
    /// From accept to the end of the request head. Default 10 s.
    pub handshake_seconds_max: Duration,
    /// Bytes of a request head. More is answered with 431. Default 16 KiB.
    pub head_bytes_max: usize,
    /// Header lines of a request head. More is answered with 431. Default 100.
    pub head_lines_max: usize,
    /// Passwords that are verified at a time; others wait. Default 2.
    pub password_checks_max: usize,
    /// Wrong passwords from one address within a minute; more are answered with 429. 0 is no bound. Default 30.
    pub password_failures_per_minute_max: u32,
    /// Verified passwords that are remembered, as keyed hashes. Default 1024.
    pub passwords_remembered_max: usize,
    /// How long each is. Default 300 s.
    pub passwords_remembered_seconds_max: Duration,
    /// A ping is sent after this long without bytes from the peer; zero sends none. Default 20 s.
    pub ping_seconds: Duration,
    /// How long a peer may take to answer a ping. Default 20 s.
    pub pong_seconds_max: Duration,
    /// How long a session may stay without bytes from its peer, pongs included. Default 120 s.
    pub idle_seconds_max: Duration,
    /// How long a peer may take no byte of what waits for it. Default 10 s.
    pub write_seconds_max: Duration,
    /// How long a peer may take to answer a Close. Default 5 s.
    pub close_seconds_max: Duration,
    /// How long to read and discard after the last byte was sent, so that a reset does not overtake it. Default 1 s.
    pub linger_seconds_max: Duration,
    /// Read buffer of a worker, shared by its sessions. Default 256 KiB.
    pub read_buffer_bytes: usize,
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least important lines that are still written. Default info.
    pub level: Level,
    /// Where lines are written to. `None`, the default, is standard error.
    pub file: Option<PathBuf>,
    /// A file that would get longer becomes an older one; 0 is no bound. Default 10 MiB.
    pub file_bytes_max: u64,
    /// Older files that stay beside it. Default 5.
    pub files_kept: u32,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            port: 9998,
            tls: false,
            tls_port: None,
            hosts: vec![
                Host::Address(IpAddr::from([0, 0, 0, 0])),
                Host::Address(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 0])),
            ],
            unix: Vec::new(),
            unix_mode: 0o660,
            trusted_proxies: TrustedProxies::default(),
            backlog: 1024,
            front_threads: cores().min(FRONT_THREADS_UNASKED_MAX),
            shutdown_seconds_max: Duration::from_secs(10),
        }
    }
}

impl Default for Handlers {
    fn default() -> Self {
        Self {
            folders: vec![PathBuf::from("handlers")],
            scan_dir: None,
            map_file: None,
            follow_links_outside: false,
            allow_empty: false,
            workers: cores(),
            probe: true,
            probe_seconds_max: Duration::from_secs(2),
            probe_program: None,
            load_seconds_max: Duration::from_secs(10),
            library_bytes_max: 256 << 20,
            stage_folder: None,
            watch: WatchMode::default(),
            poll_seconds: Duration::from_secs(2),
            drain_seconds_max: Duration::from_secs(30),
            restart_seconds: Duration::from_secs(5),
            state_bytes_max: 1 << 20,
            unload_seconds_max: Duration::from_secs(10),
            rollback_seconds: Duration::from_secs(10),
            rollback_panics: 3,
            retained_max: 200,
            offload_threads_max: 8,
            offload_queue_max: 1024,
            each: BTreeMap::new(),
        }
    }
}

impl Default for Deflate {
    fn default() -> Self {
        Self { rules: DeflateRules::default(), memory_bytes_max: 64 << 20 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            empty_fragments_max: 1024,
            message_seconds_max: Duration::from_secs(30),
            message_bytes_per_second_min: 1024,
            outgoing_bytes_max: 256 << 10,
            outgoing_bytes_high: 64 << 10,
            outgoing_bytes_low: 16 << 10,
            outgoing_messages_max: 256,
            slow_peer: SlowPeer::Close,
            published_bytes_max: 16 << 20,
            connections_max: 10_000,
            connections_per_peer_max: 256,
            handshake_seconds_max: Duration::from_secs(10),
            head_bytes_max: 16 << 10,
            head_lines_max: 100,
            password_checks_max: 2,
            password_failures_per_minute_max: 30,
            passwords_remembered_max: 1024,
            passwords_remembered_seconds_max: Duration::from_secs(300),
            ping_seconds: Duration::from_secs(20),
            pong_seconds_max: Duration::from_secs(20),
            idle_seconds_max: Duration::from_secs(120),
            write_seconds_max: Duration::from_secs(10),
            close_seconds_max: Duration::from_secs(5),
            linger_seconds_max: Duration::from_secs(1),
            read_buffer_bytes: 256 << 10,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::default(), file: None, file_bytes_max: 10 << 20, files_kept: 5 }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { enabled: true, socket: None }
    }
}

impl Listen {
    /// The ports to listen on, and whether each speaks TLS.
    pub fn ports(&self) -> impl Iterator<Item = (u16, bool)> {
        let ports = [(self.port, self.tls)].into_iter().chain(self.tls_port.map(|port| (port, true)));
        ports.filter(|_| !self.hosts.is_empty())
    }

    /// Whether a certificate is needed.
    pub fn speaks_tls(&self) -> bool {
        self.ports().any(|(_, tls)| tls)
    }
}

impl Tls {
    /// All files that are named.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.certificate.iter().chain(&self.private_key).chain(&self.client_ca)
    }
}

impl Handlers {
    /// The policy for one handler where the config has one, and the times that go with it.
    pub fn rules_of(&self, name: &str) -> (Option<Reload>, Duration, Duration) {
        let own = self.each.get(name).cloned().unwrap_or_default();
        (
            own.reload,
            own.drain_seconds_max.unwrap_or(self.drain_seconds_max),
            own.restart_seconds.unwrap_or(self.restart_seconds),
        )
    }

    /// Whether a library answers on the path that the name of its file means.
    pub fn has_own_path(&self, name: &str) -> bool {
        self.each.get(name).and_then(|own| own.own_path).unwrap_or(true)
    }

    /// What this handler is told of the config: a JSON object.
    pub fn config_of(&self, name: &str) -> &str {
        self.each.get(name).and_then(|own| own.config.as_deref()).unwrap_or(NO_CONFIG)
    }

    /// Whether this handler may write what is no WebSocket.
    pub fn grants_raw(&self, name: &str) -> bool {
        self.each.get(name).is_some_and(|own| own.raw)
    }
}

impl Config {
    /// The limits for the sessions of one handler.
    pub fn limits_of(&self, name: &str) -> Limits {
        let own = self.handlers.each.get(name).and_then(|own| own.slow_peer);
        Limits { slow_peer: own.unwrap_or(self.limits.slow_peer), ..self.limits.clone() }
    }

    /// Whether and how the messages of one handler are compressed.
    pub fn deflate_of(&self, name: &str) -> Deflate {
        self.handlers.each.get(name).and_then(|own| own.deflate).unwrap_or(self.deflate)
    }

    /// Whether a route has a variant of this name for itself.
    pub fn has_variant(&self, name: &str) -> bool {
        self.routes.iter().any(|route| route.variant.as_deref() == Some(name))
    }

    /// Which web pages may connect to one handler.
    pub fn origins_of(&self, name: &str) -> &Origins {
        let own = self.handlers.each.get(name).and_then(|own| own.origins.as_ref());
        own.unwrap_or(&self.upgrade.origins)
    }

    /// Where the control socket is.
    pub fn control_socket(&self) -> PathBuf {
        let beside = |source: &PathBuf| source.with_file_name("wshd.sock");
        let default = || self.source.as_ref().map_or_else(|| PathBuf::from("/run/wshd.sock"), beside);
        self.control.socket.clone().unwrap_or_else(default)
    }

    /// Finds the config file and reads it: `--config`, else `$WSHD_CONFIG`, else `config/config.toml`, else
    /// `/etc/wshd/config.toml`, else none, which leaves the built-in defaults.
    ///
    /// # Errors
    /// As [`Config::load_file`]. A file that was asked for must exist; one that was only looked for need not.
    pub fn load(cli: &Cli) -> Result<Self, ConfigError> {
        Self::search_in(cli, std::env::var_os("WSHD_CONFIG"), &SEARCHED.map(Path::new))
    }

    fn search_in(cli: &Cli, environment: Option<OsString>, searched: &[&Path]) -> Result<Self, ConfigError> {
        if let Some(path) = &cli.config {
            return Self::load_for(path, cli, Some("--config"));
        }
        if let Some(path) = environment.filter(|path| !path.is_empty()) {
            return Self::load_for(Path::new(&path), cli, Some("$WSHD_CONFIG"));
        }
        // A file that is there but cannot be read is an error, not a reason to look further.
        let exists = |path: &&&Path| !matches!(path.try_exists(), Ok(false));
        searched
            .iter()
            .find(exists)
            .map_or_else(|| Self::default_with(cli).mapped(), |path| Self::load_file(path, cli))
    }

    /// Reads one file and lets the flags of the command line override its values.
    ///
    /// # Errors
    /// A file that cannot be read, that is not TOML, or that has keys or values the server cannot do what it says with.
    /// One error lists everything that was found wrong.
    pub fn load_file(path: &Path, cli: &Cli) -> Result<Self, ConfigError> {
        Self::load_for(path, cli, None)
    }

    fn load_for(path: &Path, cli: &Cli, asked_by: Option<&'static str>) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            error,
            asked_by,
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            ConfigError::NotText {
                path: path.to_owned(),
                line: sound.iter().filter(|byte| **byte == b'\n').count() + 1,
            }
        })?;
        let mut config = Self::parse(&text, path)?;
        config.override_with(cli);
        config.mapped()
    }

    /// With the aliases of the map file.
    fn mapped(mut self) -> Result<Self, ConfigError> {
        let Some(path) = &self.handlers.map_file else { return Ok(self) };
        match map_file::read(path) {
            Ok(aliases) => self.aliases.of_map_file = aliases,
            Err(error) => return Err(ConfigError::Map { config: Box::new(self), error }),
        }
        Ok(self)
    }

    /// The files that it came from.
    pub fn sources(&self) -> impl Iterator<Item = &PathBuf> {
        self.source.iter().chain(&self.handlers.map_file)
    }

    /// Reads the text of a config file. `path` is what errors and [`Config::source`] call it.
    ///
    /// # Errors
    /// As [`Config::load_file`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let checked = file::File::read(text).and_then(|file| {
            let config = Self { source: Some(path.to_owned()), ..Self::default() };
            check::filled(config, &file)
        });
        checked.map_err(|mut problems| {
            problems.sort_by_key(|problem| problem.span.start);
            ConfigError::Wrong {
                path: path.to_owned(),
                problems: problems.into_iter().map(|problem| problem.place(text)).collect(),
            }
        })
    }

    /// The built-in defaults with the flags of the command line. Flags are checked where they are parsed.
    pub fn default_with(cli: &Cli) -> Self {
        let mut config = Self::default();
        config.override_with(cli);
        config
    }

    fn override_with(&mut self, cli: &Cli) {
        if let Some(port) = cli.port {
            self.listen.port = port;
        }
        self.listen.tls |= cli.tls;
        if !cli.certificate.is_empty() {
            self.tls.certificate.clone_from(&cli.certificate);
        }
        if !cli.private_key.is_empty() {
            self.tls.private_key.clone_from(&cli.private_key);
        }
        if cli.tls_client_auth {
            let optional = cli.tls_client_cert_optional;
            self.tls.client_auth = if optional { ClientAuth::Optional } else { ClientAuth::Required };
        }
        if let Some(ca) = &cli.tls_client_ca {
            self.tls.client_ca = Some(ca.clone());
        }
        if !cli.server_host.is_empty() {
            self.listen.hosts.clone_from(&cli.server_host);
        }
        if !cli.unix.is_empty() {
            self.listen.unix.clone_from(&cli.unix);
        }
        if !cli.websock_handlers.is_empty() {
            self.handlers.folders.clone_from(&cli.websock_handlers);
        }
        if let Some(folder) = &cli.scan_dir {
            self.handlers.scan_dir = Some(folder.clone());
        }
        if let Some(file) = &cli.websock_handlers_map_file {
            self.handlers.map_file = Some(file.clone());
        }
        self.handlers.follow_links_outside |= cli.allow_handlers_outside_root_dir;
        if let Some(host) = &cli.validation_host {
            self.upgrade.validation_host = Some(host.clone());
        }
        if let Some(port) = cli.validation_port {
            self.upgrade.validation_port = Some(port);
        }
        if let Some(root) = &cli.document_root {
            self.files.root = Some(root.clone());
        }
        if !cli.cgi_paths.is_empty() {
            self.cgi.paths.clone_from(&cli.cgi_paths);
        }
        if let Some(credential) = cli.basic_auth_credential.as_ref().filter(|_| cli.basic_auth) {
            self.demand(credential);
        }
        if let Some(backlog) = cli.queue {
            self.listen.backlog = backlog;
        }
        if let Some(level) = cli.log_level {
            self.log.level = level;
        }
        if let Some(file) = &cli.log_file {
            self.log.file = Some(file.clone());
        }
        if let Some(bytes) = cli.log_max {
            self.log.file_bytes_max = bytes;
        }
        if let Some(files) = cli.log_count {
            self.log.files_kept = files;
        }
    }
}

/// Looked for in this order where no config file was asked for.
const SEARCHED: [&str; 2] = ["config/config.toml", "/etc/wshd/config.toml"];

/// Accepting is cheap; more front threads than this only help who asks for them.
const FRONT_THREADS_UNASKED_MAX: usize = 4;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

#[cfg(test)]
mod tests;
