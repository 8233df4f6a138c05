use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::handler_library;

/// The program itself, as its user starts it. For what concerns a process: memory, signals, the screen, exit codes.
pub(crate) struct ServerProcess {
    child: Child,
    /// What it said before the line that names the address, and that line.
    pub(crate) screen: String,
    address: SocketAddr,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
    folder: tempfile::TempDir,
}

impl ServerProcess {
    /// Serves these handlers of the workspace on a free port of the loopback address, with this text as its config file.
    pub(crate) fn start(handlers: &[&str], config: &str) -> Self {
        Self::start_with(handlers, config, |_| Vec::new())
    }

    /// The same after `prepare` has put more into its folder and said with which further arguments it is started.
    pub(crate) fn start_with(
        handlers: &[&str],
        config: &str,
        prepare: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let handlers_folder = folder.path().join("handlers");
        std::fs::create_dir(&handlers_folder).expect("a folder");
        for name in handlers {
            let library = handler_library(name);
            let file = library.file_name().expect("a library has a name");
            std::fs::copy(&library, handlers_folder.join(file)).expect("the handler was built");
        }
        let config_file = folder.path().join("config.toml");
        std::fs::write(&config_file, config).expect("the config is written");
        let more = prepare(folder.path());
        let mut child = wshd(folder.path())
            .args(more)
            .args(["--port", "0", "--server-host", "127.0.0.1", "--websock-handlers", "handlers"])
            .args(["--config", "config.toml"])
            // The trap that the handlers' own panic hook avoids.
            .env("RUST_BACKTRACE", "1")
            .spawn()
            .expect("wshd was built with this test");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stderr = child.stderr.take().expect("it is piped");
        let mut screen = String::new();
        let address = loop {
            let before = screen.len();
            stdout.read_line(&mut screen).expect("the screen is text");
            assert!(screen.len() > before, "the server ended: {screen}{}", rest(stderr));
            if let Some(address) = screen[before..].trim().strip_prefix("listening on ") {
                let address = address.split(' ').next().unwrap_or_default();
                break address.parse().expect("an address");
            }
        };
        Self { child, screen, address, stdout, stderr: Some(stderr), folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most that was ever resident.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel counts it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Reads the log on a thread and forgets it, so that a server that says much is not stopped by a full pipe.
    pub(crate) fn discard_log(&mut self) -> JoinHandle<()> {
        let mut stderr = self.stderr.take().expect("the log was not taken before");
        std::thread::spawn(move || drop(std::io::copy(&mut stderr, &mut std::io::sink())))
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill is everywhere").success());
    }

    /// As [`wait`](Self::wait), and its folder stays until the test is over.
    pub(crate) fn wait_and_keep(self) -> (String, String, ExitStatus) {
        let kept = self.folder.path().to_owned();
        let result = self.wait();
        assert!(!kept.join("wshd.sock").exists());
        result
    }

    /// Waits for its end; what it said on standard output and standard error, and how it ended.
    pub(crate) fn wait(mut self) -> (String, String, ExitStatus) {
        let mut screen = std::mem::take(&mut self.screen);
        self.stdout.read_to_string(&mut screen).expect("the screen is text");
        let log = self.stderr.take().map(rest).unwrap_or_default();
        (screen, log, self.child.wait().expect("it ends"))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program in this folder, with its output captured.
pub(crate) fn wshd(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wshd"));
    command.current_dir(folder).env_remove("WSHD_CONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn rest(mut stderr: ChildStderr) -> String {
    let mut text = String::new();
    let _ = stderr.read_to_string(&mut text);
    text
}

/// Waits for what no event tells, such as a file of another process. Panics if it does not come.
#[allow(clippy::disallowed_methods)]
pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
