//! The server under a soak: the release build, with handlers that are replaced while it runs.

use std::io::{BufRead, BufReader, Error, Result, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves these libraries, each under the file name it has, with this more in its config, which goes on in `[listen]`.
    pub(super) fn start(libraries: &[&Path], more: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let handlers = folder.path().join("handlers");
        std::fs::create_dir(&handlers)?;
        for library in libraries {
            let name = library.file_name().expect("a library has a name");
            std::fs::copy(library, handlers.join(name)).map_err(|error| named(library, error))?;
        }
        let text = format!(
            "[limits]\nconnections_max = 15000\nconnections_per_peer_max = 0\n\
             [listen]\nport = 0\nhosts = [\"127.0.0.1\"]\n{more}\n"
        );
        std::fs::write(folder.path().join("config.toml"), text)?;
        let program = release().join("wshd");
        let mut child = Command::new(&program)
            .current_dir(folder.path())
            .args(["--config", "config.toml"])
            .env("RUST_BACKTRACE", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| named(&program, error))?;
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (lines, errors) = (log.clone(), child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                // Session lines are thousands and say nothing here.
                if !line.contains(" access: ") {
                    lines.lock().expect("nobody panics with it").push(line);
                }
            }
        });
        let address = BufReader::new(child.stdout.take().expect("it is piped"))
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                line.trim().strip_prefix("listening on ")?.split_whitespace().next()?.parse().ok()
            })
            .ok_or_else(|| Error::other("the server ended before it said where it listens"))?;
        Ok(Self { child, address, folder, log })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A file in its handlers folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("handlers").join(name)
    }

    /// Log lines that hold this text.
    pub(super) fn log_lines(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().expect("nobody panics with it");
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    pub(super) fn last_log(&self) -> String {
        let log = self.log.lock().expect("nobody panics with it");
        log[log.len().saturating_sub(10)..].join("\n")
    }

    /// Puts other content in the place of a library, whole and then renamed.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let new = self.file(".new");
        std::fs::write(&new, content)?;
        std::fs::rename(new, self.file(name))
    }

    /// Asks by the control socket, as `wshd status` does.
    pub(super) fn ask(&self, request: &str) -> Result<Value> {
        Ok(self.ask_all(&[request.to_owned()])?.remove(0))
    }

    /// Asks everything at once, and waits for every answer.
    pub(super) fn ask_all(&self, requests: &[String]) -> Result<Vec<Value>> {
        let ask = |request: &String| {
            let mut stream = UnixStream::connect(self.folder.path().join("wshd.sock"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            writeln!(stream, "{request}")?;
            Ok(stream)
        };
        let streams = requests.iter().map(ask).collect::<Result<Vec<_>>>()?;
        let hear = |stream| {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        streams.into_iter().map(hear).collect()
    }

    pub(super) fn status(&self) -> Result<Value> {
        Ok(self.ask(r#"{"version":1,"request":"status"}"#)?["status"].take())
    }

    /// Waits until this generation of the handler is active and no older one is left.
    pub(super) fn wait_for(&self, path: &str, generation: u64) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status()?;
            let handlers = status["handlers"].as_array().cloned().unwrap_or_default();
            let handler = handlers.iter().find(|handler| handler["path"] == path);
            let is_there = handler.is_some_and(|handler| {
                handler["active"]["number"].as_u64() >= Some(generation)
                    && handler["leaving"].as_array().is_none_or(Vec::is_empty)
            });
            if is_there {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Error::other(format!(
                    "{path} generation {generation} does not come: {status}\n{}",
                    self.last_log()
                )));
            }
            pause(Duration::from_millis(5));
        }
    }

    pub(super) fn resident_kib(&self) -> Result<u64> {
        self.proc_status("VmRSS:")
    }

    pub(super) fn threads(&self) -> Result<u64> {
        self.proc_status("Threads:")
    }

    pub(super) fn descriptors(&self) -> Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count() as u64)
    }

    /// Mappings of private copies of libraries.
    pub(super) fn mapped_libraries(&self) -> Result<usize> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        let copies: std::collections::BTreeSet<_> = maps
            .lines()
            .filter(|line| line.contains(".wsh-generations/"))
            .filter_map(|line| line.split_whitespace().nth(5))
            .collect();
        Ok(copies.len())
    }

    fn proc_status(&self, key: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| Error::other(format!("no {key} in /proc/PID/status")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where cargo puts the release build, this program included.
pub(super) fn release() -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    own.parent().expect("a program is in a folder").to_owned()
}

/// A library that says that it is this version: its code is the same, its content is not.
pub(super) fn version_of(library: &Path, number: u64) -> Result<Vec<u8>> {
    const MAGIC: &[u8] = b"WSHLIB\r\n";
    // Magic, sizes and flags take 32 bytes, and so does the name (wsh.h).
    const VERSION_AT: usize = 64;
    let mut content = std::fs::read(library).map_err(|error| named(library, error))?;
    let info = content.windows(MAGIC.len()).position(|window| window == MAGIC);
    let info = info.ok_or_else(|| named(library, Error::other("it has no wsh_handler_info")))?;
    let field = &mut content[info + VERSION_AT..info + VERSION_AT + 32];
    field.fill(0);
    let text = number.to_string();
    field[..text.len()].copy_from_slice(text.as_bytes());
    Ok(content)
}

pub(super) fn named(path: &Path, error: Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Lets the server work for a moment. A soak has no thread that could wait for an event of it.
#[allow(clippy::disallowed_methods)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
