//! A server process under measurement.

use std::io::{BufRead, BufReader, Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The core that servers run on; the generator has the other one.
const SERVER_CORE: usize = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Wshd,
    WshdTls,
    WshdDeflate,
    TokioTungstenite,
    /// Tells everybody what one says.
    TokioBroadcast,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wshd => "wshd",
            Self::WshdTls => "wshd with TLS",
            Self::WshdDeflate => "wshd with compression",
            Self::TokioTungstenite | Self::TokioBroadcast => "tokio-tungstenite",
        }
    }
}

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Target {
    child: Child,
    address: SocketAddr,
    kind: Kind,
    // Holds the config and the staged libraries; removed after the process.
    folder: tempfile::TempDir,
}

impl Target {
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let own = std::env::current_exe()?;
        let folder = tempfile::tempdir()?;
        let mut command = match kind {
            Kind::TokioTungstenite | Kind::TokioBroadcast => {
                let mut command = pinned(own);
                command.arg("peer");
                if kind == Kind::TokioBroadcast {
                    command.arg("--broadcast");
                }
                command
            }
            Kind::Wshd | Kind::WshdTls | Kind::WshdDeflate => {
                let release = own.parent().expect("an executable is in a folder").to_owned();
                let handlers = folder.path().join("handlers");
                std::fs::create_dir(&handlers)?;
                for library in ["libecho_wsh.so", "libchat_wsh.so"] {
                    std::fs::copy(release.join(library), handlers.join(library))?;
                }
                let config = folder.path().join("config.toml");
                // One worker, as the peer has one; the limits per address are for servers that meet strangers.
                let text = format!(
                    "[listen]\nport = 0\nhosts = [\"127.0.0.1\"]\nfront_threads = 1\n\
                     [handlers]\nfolders = [{handlers:?}]\nworkers = 1\n\
                     [limits]\nconnections_max = 19000\nconnections_per_peer_max = 0\nping_seconds = 0\n\
                     [log]\nlevel = \"error\"\n[deflate]\nenabled = {}\n",
                    kind == Kind::WshdDeflate
                );
                std::fs::write(&config, text)?;
                let program = release.join("wshd");
                let mut command = pinned(program.clone());
                if kind == Kind::WshdTls {
                    make_certificate(&program, folder.path())?;
                    command.arg("--tls").arg("--certificate").arg(folder.path().join("cert.pem"));
                    command.arg("--private-key").arg(folder.path().join("key.pem"));
                }
                command.arg("--config").arg(config);
                command
            }
        };
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().expect("stdout is piped");
        let address = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split("listening on ").nth(1)?.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| Error::other(format!("{} ended before it said where it listens", kind.name())))?;
        Ok(Self { child, address, kind, folder })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it shows, if it speaks TLS.
    pub(crate) fn certificate(&self) -> Option<PathBuf> {
        (self.kind == Kind::WshdTls).then(|| self.folder.path().join("cert.pem"))
    }

    /// CPU time of all threads so far, user and system, in nanoseconds.
    pub(crate) fn cpu_nanos(&self) -> Result<u64> {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = schedstat.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
            total += on_cpu.ok_or_else(|| Error::other("the kernel does not count CPU time in schedstat"))?;
        }
        Ok(total)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most that it was since [`forget_peak`](Self::forget_peak).
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) -> Result<()> {
        // 5 resets the peak of resident memory (proc(5)).
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")
    }

    fn status_bytes(&self, key: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .ok_or_else(|| Error::other(format!("no {key} in /proc/PID/status")))?;
        Ok(kib * 1024)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `cert.pem` and `key.pem` in this folder, as the program makes them.
pub(crate) fn make_certificate(program: &Path, folder: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["cert", "localhost"]).current_dir(folder).stdout(Stdio::null());
    if command.status()?.success() { Ok(()) } else { Err(Error::other("there is no certificate")) }
}

fn pinned(program: PathBuf) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(SERVER_CORE.to_string()).arg(program);
    command
}

/// Keeps the generator off the servers' core, where there is another one.
pub(crate) fn pin_generator() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut set = rustix::thread::CpuSet::new();
    set.set(if cores > 1 { 1 } else { SERVER_CORE });
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("bench: cannot pin the load generator: {error}");
    }
}
