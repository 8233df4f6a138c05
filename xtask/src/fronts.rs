//! Apache httpd and nginx in front of the release build, each with the file of `config/` that the documents name.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clients::{copy_folder, folder, make_certificate};
use crate::needs::{self, Need};
use crate::server::{Server, program};
use crate::step::{StepResult, Steps, root, run, target_folder};

/// apache2-bin is the program alone: the package apache2 would also start a server on port 80.
const NEEDS: [Need; 2] =
    [Need { program: "apache2", package: "apache2-bin" }, Need { program: "nginx", package: "nginx" }];

/// A server that stands in front.
#[derive(Debug, Clone, Copy)]
struct Front {
    name: &'static str,
    start: fn(&Behind, &Doors) -> Result<Server, String>,
}

const FRONTS: [Front; 2] =
    [Front { name: "Apache httpd", start: start_apache }, Front { name: "nginx", start: start_nginx }];

/// What comes without a byte for so long is cut by the front. wshd asks silent peers each second.
const SILENCE_SECONDS: u32 = 5;

/// Holds conversations through each of them.
pub(crate) fn run_all(steps: &mut Steps, has_node: bool) {
    let name = |front: &Front| format!("client, through {}", front.name);
    let mut behind = None;
    let is_ready = has_node
        && steps.run("install Apache httpd and nginx", || needs::programs(&NEEDS))
        && steps.run("start the release build behind another server", || {
            behind = Some(Behind::start()?);
            Ok(())
        });
    let Some(behind) = behind.filter(|_| is_ready) else {
        for front in &FRONTS {
            steps.fail(&name(front), "what it needs is not there");
        }
        return;
    };
    for front in &FRONTS {
        steps.run(&name(front), || {
            let doors = Doors::new()?;
            let server = (front.start)(&behind, &doors)?;
            // One that fails is looked at where the other one begins.
            let talked = behind.talk(front, &doors);
            server.stop().and(talked)
        });
    }
    steps.run("stop the release build behind another server", || behind.stop());
}

/// The server behind, with a folder of its own: other users than the one of this run have to reach what is in it.
#[derive(Debug)]
struct Behind {
    folder: PathBuf,
    server: Option<Server>,
    port: u16,
}

const CONFIG: &str = r#"
[listen]
port = 0
hosts = ["127.0.0.1"]
unix = "ws.sock"
# The front may run as another user.
unix_mode = "0666"
trusted_proxies = ["unix", "127.0.0.1"]

[handlers]
folders = ["handlers"]

[limits]
ping_seconds = 1

[log]
file = "wshd.log"
"#;

impl Behind {
    fn start() -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("wshd-fronts-{}", std::process::id()));
        make_certificate(&folder)?;
        let mut behind = Self { folder: folder.clone(), server: None, port: 0 };
        fs::create_dir(folder.join("handlers")).map_err(|error| error.to_string())?;
        for handler in ["chat", "counter", "echo"] {
            let library = format!("lib{handler}_wsh.so");
            let built = target_folder().join("release").join(&library);
            fs::copy(&built, folder.join("handlers").join(library))
                .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
        }
        copy_folder(&root().join("www"), &folder.join("www"))?;
        fs::write(folder.join("config.toml"), CONFIG).map_err(|error| error.to_string())?;
        let mut command = Command::new(program());
        let (server, port) =
            Server::start_wshd(command.args(["--config", "config.toml"]).current_dir(&folder))?;
        (behind.server, behind.port) = (Some(server), port);
        Ok(behind)
    }

    fn talk(&self, front: &Front, doors: &Doors) -> StepResult {
        let mut node = Command::new("node");
        node.args(["--test", "fronts.test.mjs"]).current_dir(folder("node"));
        node.env("FRONT_NAME", front.name)
            .env("FRONT_PLAIN", format!("ws://localhost:{}", doors.plain.port()))
            .env("FRONT_TLS", format!("wss://localhost:{}", doors.tls.port()))
            .env("FRONT_SILENCE_SECONDS", SILENCE_SECONDS.to_string())
            .env("NODE_EXTRA_CA_CERTS", self.folder.join("cert.pem"))
            .env("WSHD", program())
            .env("WSHD_FOLDER", &self.folder);
        run(&mut node)
    }

    fn stop(mut self) -> StepResult {
        self.server.take().map_or(Ok(()), Server::stop)?;
        if self.folder.join("ws.sock").exists() {
            Err("its Unix socket is still there".into())
        } else {
            Ok(())
        }
    }

    /// The folder of one front, with the pair.
    fn folder_of(&self, front: &str) -> Result<PathBuf, String> {
        let own = self.folder.join(front);
        fs::create_dir(&own).map_err(|error| error.to_string())?;
        for file in ["cert.pem", "key.pem"] {
            fs::copy(self.folder.join(file), own.join(file)).map_err(|error| error.to_string())?;
        }
        Ok(own)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.server = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where a front listens.
#[derive(Debug)]
struct Doors {
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Doors {
    /// Ports that were free a moment ago: neither of these servers can choose one by itself and tell.
    fn new() -> Result<Self, String> {
        let listeners = [bind()?, bind()?];
        let [plain, tls] = listeners.map(|listener| listener.local_addr());
        let failed = |error: std::io::Error| error.to_string();
        Ok(Self { plain: plain.map_err(failed)?, tls: tls.map_err(failed)? })
    }

    fn are_open(&self) -> bool {
        [self.plain, self.tls].iter().all(|door| TcpStream::connect(door).is_ok())
    }
}

fn bind() -> Result<TcpListener, String> {
    TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no port is free: {error}"))
}

fn start_apache(behind: &Behind, doors: &Doors) -> Result<Server, String> {
    let own = behind.folder_of("apache")?;
    let mut apache = Command::new("apache2");
    apache.arg("-d").arg(own).arg("-f").arg(root().join("config/apache.conf"));
    let mut define = |name: &str, value: &str| {
        apache.arg("-C").arg(format!("Define {name} {value}"));
    };
    define("HTTP", &doors.plain.to_string());
    define("HTTPS", &doors.tls.to_string());
    define("SITE", &shown(&behind.folder.join("www")));
    define("WSHD", &format!("127.0.0.1:{}", behind.port));
    define("WSHD_SOCKET", &shown(&behind.folder.join("ws.sock")));
    define("SECONDS", &SILENCE_SECONDS.to_string());
    Server::start_other(apache.args(["-D", "FOREGROUND"]), || doors.are_open())
}

/// nginx knows no definitions: what is different here is replaced in the text, and has to be there.
fn start_nginx(behind: &Behind, doors: &Doors) -> Result<Server, String> {
    let own = behind.folder_of("nginx")?;
    let mut text = fs::read_to_string(root().join("config/nginx.conf")).map_err(|error| error.to_string())?;
    for (documented, here) in [
        ("listen 127.0.0.1:8080;", format!("listen {};", doors.plain)),
        ("listen 127.0.0.1:8443 ssl;", format!("listen {} ssl;", doors.tls)),
        ("root www;", format!("root {};", shown(&behind.folder.join("www")))),
        ("http://127.0.0.1:9998;", format!("http://127.0.0.1:{};", behind.port)),
        (
            "http://unix:/tmp/front/ws.sock:/;",
            format!("http://unix:{}:/;", shown(&behind.folder.join("ws.sock"))),
        ),
        ("proxy_read_timeout 60s;", format!("proxy_read_timeout {SILENCE_SECONDS}s;")),
        ("proxy_send_timeout 60s;", format!("proxy_send_timeout {SILENCE_SECONDS}s;")),
    ] {
        if text.matches(documented).count() != 1 {
            return Err(format!("config/nginx.conf has {documented:?} not once"));
        }
        text = text.replace(documented, &here);
    }
    fs::write(own.join("nginx.conf"), text).map_err(|error| error.to_string())?;
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(&own).args(["-c", "nginx.conf", "-g", "daemon off;"]);
    Server::start_other(&mut nginx, || doors.are_open())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
