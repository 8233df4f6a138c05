use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wshd::config::Config;
use wshd::control::{Answer, Request, Status};
use wshd::{Server, StartError};

use super::{Client, Raw, handler_library};

/// A server in this process, with its own runtime and its own handlers folder. Stopped when dropped.
pub(crate) struct TestServer {
    runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    folder: tempfile::TempDir,
    /// What a reload reads.
    config: Arc<Mutex<Config>>,
}

/// The built-in config on a free port of the loopback address.
pub(crate) fn test_config() -> Config {
    let mut config = Config::default();
    config.listen.port = 0;
    config.listen.hosts = vec!["127.0.0.1".parse().expect("an address")];
    config.listen.front_threads = 1;
    config.handlers.workers = 2;
    config.control.enabled = false;
    // The probe runs the server's own executable, which a test program is not.
    config.handlers.probe_program = Some(env!("CARGO_BIN_EXE_wshd").into());
    config
}

/// Puts what a config file says of handlers, routes, aliases and the opening handshake into a config.
pub(crate) fn say(config: &mut Config, text: &str) {
    let said = Config::parse(text, Path::new("config.toml")).unwrap_or_else(|error| panic!("{error}"));
    config.handlers.each = said.handlers.each;
    config.handlers.scan_dir = said.handlers.scan_dir;
    config.aliases = said.aliases;
    config.routes = said.routes;
    config.upgrade = said.upgrade;
}

impl TestServer {
    /// Serves these handlers of the workspace, for instance `echo`.
    pub(crate) fn start(handlers: &[&str]) -> Self {
        Self::with(handlers, |_| {})
    }

    /// The same with a changed config.
    pub(crate) fn with(handlers: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        Self::prepare(change, |folder| {
            for name in handlers {
                let library = handler_library(name);
                let file = library.file_name().expect("a library has a name");
                std::fs::copy(&library, folder.join(file)).expect("the handler was built beside this test");
            }
        })
        .unwrap_or_else(|error| panic!("the server does not start: {error}"))
    }

    /// The same with what a config file says of handlers, routes, aliases and the opening handshake.
    pub(crate) fn configured(handlers: &[&str], text: &str) -> Self {
        Self::with(handlers, |config| say(config, text))
    }

    /// Reloads with what a config file says now, as in [`TestServer::configured`].
    pub(crate) fn reload_configured(&self, text: &str) -> Answer {
        self.reload_with(|config| say(config, text))
    }

    /// Serves what `fill` puts into the handlers folder.
    pub(crate) fn prepare(
        change: impl FnOnce(&mut Config),
        fill: impl FnOnce(&Path),
    ) -> Result<Self, StartError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fill(folder.path());
        let mut config = test_config();
        config.handlers.folders = vec![folder.path().to_owned()];
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let again = Arc::new(Mutex::new(config.clone()));
        let reread = again.clone();
        let reread = Box::new(move || Ok(reread.lock().expect("no test panics with it").clone()));
        let server = runtime.block_on(Server::start(config, reread))?;
        Ok(Self { runtime, server: Some(server), folder, config: again })
    }

    pub(crate) fn report(&self) -> &Status {
        self.server.as_ref().expect("the server runs").report()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.report().listening[0]
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Puts a library in the place of another as a careful person does: whole, and then renamed.
    pub(crate) fn put(&self, file: &str, library: &[u8]) {
        let new = self.folder().join(".new");
        std::fs::write(&new, library).expect("the folder can be written");
        std::fs::rename(new, self.folder().join(file)).expect("the folder can be written");
    }

    /// Puts another version of a library there, which does the same: what follows the last section of a file is never mapped.
    pub(crate) fn put_version(&self, library: &Path, version: u8) {
        let mut bytes = std::fs::read(library).expect("the library was built");
        bytes.push(version);
        let file = library.file_name().and_then(|name| name.to_str()).expect("a library has a name");
        self.put(file, &bytes);
    }

    /// Why a library with this in its file name was refused.
    pub(crate) fn refusal(&self, file: &str) -> String {
        let refused =
            self.report().refused.iter().find(|refused| refused.file.to_string_lossy().contains(file));
        refused.unwrap_or_else(|| panic!("{file} was not refused: {:?}", self.report())).reason.clone()
    }

    /// Opens a WebSocket; panics if it is refused.
    pub(crate) fn connect(&self, path: &str) -> Client {
        Client::open(self.address(), path, &[]).expect("the upgrade is accepted")
    }

    /// Opens a TCP connection that says nothing yet.
    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(self.address())
    }

    /// Sends this head and returns the answer's status and whole text.
    pub(crate) fn request(&self, head: &str) -> (u16, String) {
        let mut raw = self.raw();
        raw.write(head.as_bytes());
        let answer = raw.read_to_end();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no HTTP answer: {answer:?}")), answer)
    }

    /// Asks the running server, and waits until it has done what it was asked.
    pub(crate) fn ask(&self, request: Request) -> Answer {
        self.block_on(self.server.as_ref().expect("the server runs").ask(request))
    }

    pub(crate) fn status(&self) -> Status {
        match self.ask(Request::Status) {
            Answer::Status(status) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Reloads with a config that differs in this.
    pub(crate) fn reload_with(&self, change: impl FnOnce(&mut Config)) -> Answer {
        change(&mut self.config.lock().expect("no test panics with it"));
        self.ask(Request::Reload(None))
    }

    /// Waits until the status is as wanted; panics with the last one if it does not become so.
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what}: {status}");
            self.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        }
    }

    /// An echo comes back: the server serves.
    pub(crate) fn assert_serves(&self, path: &str) {
        let mut client = self.connect(path);
        client.send_text("are you there");
        assert_eq!(client.text(), "are you there");
        client.close();
    }

    /// Begins to stop and runs `meanwhile` beside it; returns when the server has stopped.
    pub(crate) fn stop_while<T>(mut self, meanwhile: impl FnOnce() -> T) -> T {
        let server = self.server.take().expect("the server runs");
        let stopping = self.runtime.spawn(server.stop());
        let result = meanwhile();
        self.block_on(stopping).expect("the server stops without a panic");
        result
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}
