//! The release build, or a server in front of it, as a child process that ends with its value.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::step::{StepResult, run, target_folder};

/// The release build.
pub(crate) fn program() -> PathBuf {
    target_folder().join("release/wshd")
}

/// A server that runs. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Kept open: a server whose screen has no reader must not be disturbed, and the test does not want to rely on it.
    _screen: Option<Box<dyn Unnamed>>,
}

trait Unnamed: Read + std::fmt::Debug {}
impl<T: Read + std::fmt::Debug> Unnamed for T {}

impl Server {
    /// Starts wshd and waits until it says on which port it listens.
    pub(crate) fn start_wshd(command: &mut Command) -> Result<(Self, u16), String> {
        let mut child = spawn(command.stdout(Stdio::piped()))?;
        let mut screen = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        let port = loop {
            line.clear();
            let length = screen.read_line(&mut line).map_err(|error| error.to_string())?;
            if length == 0 {
                return Err("the server ended before it said where it listens".into());
            }
            print!("{line}");
            if let Some(port) = port_of(&line) {
                break port;
            }
        };
        Ok((Self { child, _screen: Some(Box::new(screen)) }, port))
    }

    /// Starts another server, which is there when `is_there` says so.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn start_other(command: &mut Command, is_there: impl Fn() -> bool) -> Result<Self, String> {
        let mut server = Self { child: spawn(command)?, _screen: None };
        // It tells nobody when it begins to listen.
        while !is_there() {
            if let Some(status) = server.child.try_wait().map_err(|error| error.to_string())? {
                let program = command.get_program().to_string_lossy().into_owned();
                return Err(format!("{program} ended with {status} before it listened"));
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Tells it to end, which has to go well.
    pub(crate) fn stop(mut self) -> StepResult {
        let pid = self.child.id().to_string();
        run(Command::new("kill").args(["-TERM", &pid]))?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    command.spawn().map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))
}

/// The port in `  listening on 0.0.0.0:9998 ...`.
fn port_of(line: &str) -> Option<u16> {
    let address = line.split("listening on ").nth(1)?.split_whitespace().next()?;
    address.rsplit(':').next()?.parse().ok()
}
