//! Clients that we did not write, against the release build: Node's `ws`, Python's `websockets`, libcurl, and Chromium.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fronts;
use crate::needs::{self, Need};
use crate::server::{Server, program};
use crate::step::{StepResult, Steps, root, run, target_folder};

/// How the server speaks to the clients.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    tls: bool,
    deflate: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "plain", tls: false, deflate: false },
    Way { name: "with TLS", tls: true, deflate: false },
    Way { name: "with compression", tls: false, deflate: true },
    Way { name: "with TLS and compression", tls: true, deflate: true },
];

/// The suites whose programs could be installed.
#[derive(Debug)]
pub(crate) struct Clients {
    node: bool,
    python: bool,
}

impl Clients {
    /// Installs programs by apt, and packages under `target/clients`, from where a second run takes them.
    pub(crate) fn install(steps: &mut Steps) -> Self {
        let node = install_node(steps);
        let python = steps.run("install the Python clients", install_python);
        Self { node, python }
    }

    /// Runs every suite against the release build, with and without TLS and compression, and through other servers; in the end it has
    /// to stop cleanly.
    pub(crate) fn run_all(&self, steps: &mut Steps) {
        for way in WAYS {
            self.run_over(way, steps);
        }
        self.run_with_users(steps);
    }

    /// A server that lets in only whom it knows.
    fn run_with_users(&self, steps: &mut Steps) {
        const SUITE: &str = "client, with users: Node ws and Chromium";
        let mut started = None;
        steps.run("start the release build, with users", || {
            let users = Users::make()?;
            let (server, port) =
                Server::start_wshd(command().arg("--config").arg(folder("users/config.toml")))?;
            started = Some((server, port, users));
            Ok(())
        });
        let Some((server, port, users)) = started else {
            return steps.fail(SUITE, "the server did not start");
        };
        if self.node {
            steps.run(SUITE, || {
                let mut node = node("auth.test.mjs", &format!("ws://127.0.0.1:{port}"));
                node.env("WSHD_USER", USER).env("WSHD_PASSWORD", PASSWORD).env("WSHD_TOKEN", &users.token);
                run(&mut node)
            });
        } else {
            steps.fail(SUITE, "it is not installed");
        }
        steps.run("stop the release build with SIGTERM", || server.stop());
        fronts::run_all(steps, self.node);
    }

    fn run_over(&self, way: Way, steps: &mut Steps) {
        let suites = ["Node ws", "Chromium", "Python websockets", "libcurl"];
        let [ws, chromium, python, curl] = suites.map(|suite| format!("client, {}: {suite}", way.name));
        let mut server = None;
        steps.run(&format!("start the release build, {}", way.name), || {
            server = Some(start(way)?);
            Ok(())
        });
        let Some((server, url)) = server else {
            for suite in [&ws, &chromium, &python, &curl] {
                steps.fail(suite, "the server did not start");
            }
            return;
        };
        if self.node {
            steps.run(&ws, || node_test("ws.test.mjs", way, &url));
            steps.run(&chromium, || node_test("browser.test.mjs", way, &url));
        } else {
            steps.fail(&ws, "it is not installed");
            steps.fail(&chromium, "it is not installed");
        }
        if self.python {
            steps.run(&python, || python_test("test_websockets", way, &url));
            steps.run(&curl, || python_test("test_curl", way, &url));
        } else {
            steps.fail(&python, "it is not installed");
            steps.fail(&curl, "it is not installed");
        }
        steps.run("stop the release build with SIGTERM", || server.stop());
    }
}

/// Tells whether the Node clients and Chromium could be installed.
pub(crate) fn install_node(steps: &mut Steps) -> bool {
    steps.run("install the Node clients and Chromium", || {
        needs::programs(&[
            Need { program: "node", package: "nodejs" },
            Need { program: "npm", package: "npm" },
            Need { program: "chromium", package: "chromium" },
        ])?;
        copy_folder(&source("node"), &folder("node"))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(folder("node"));
        run(&mut npm)
    })
}

/// Installs the packages of the clients in Python, and copies the clients to where they run.
pub(crate) fn install_python() -> StepResult {
    needs::programs(&[Need { program: "python3", package: "python3" }])?;
    copy_folder(&source("python"), &folder("python"))?;
    let environment = folder("python").join("venv");
    if !environment.join("bin/pip").is_file() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&environment);
        // Debian's python3 comes without the module's parts.
        if run(&mut venv).is_err() {
            needs::programs(&[Need { program: "python3-venv", package: "python3-venv" }])?;
            run(&mut venv)?;
        }
    }
    let mut pip = Command::new(environment.join("bin/pip"));
    run(pip.args(["install", "--quiet", "--requirement"]).arg(folder("python").join("requirements.txt")))
}

/// Runs one of the clients in Python.
pub(crate) fn python() -> Command {
    let mut python = Command::new(folder("python").join("venv/bin/python"));
    python.current_dir(folder("python"));
    python
}

fn node(file: &str, url: &str) -> Command {
    let mut node = Command::new("node");
    node.args(["--test", file]).current_dir(folder("node"));
    node.env("WSHD_URL", url).env("SCREENSHOTS", target_folder().join("screenshots"));
    if let Some(chromium) = needs::find("chromium") {
        node.env("CHROMIUM", chromium);
    }
    node
}

fn node_test(file: &str, way: Way, url: &str) -> StepResult {
    let mut node = node(file, url);
    if way.deflate {
        node.env("WSHD_DEFLATE", "1");
    }
    if way.tls {
        node.env("NODE_EXTRA_CA_CERTS", certificates().join("cert.pem"));
    }
    run(&mut node)
}

fn python_test(module: &str, way: Way, url: &str) -> StepResult {
    let mut python = python();
    python.args(["-m", "unittest", "-v", module]);
    if way.deflate {
        python.env("WSHD_DEFLATE", "1");
    }
    if way.tls {
        python.env("SSL_CERT_FILE", certificates().join("cert.pem"));
    }
    run(python.env("WSHD_URL", url))
}

fn source(client: &str) -> PathBuf {
    root().join("server/tests/clients").join(client)
}

/// Where the pair is that `wshd cert` makes for a run.
fn certificates() -> PathBuf {
    folder("certificates")
}

/// Where one of them is installed.
pub(crate) fn folder(client: &str) -> PathBuf {
    target_folder().join("clients").join(client)
}

/// Copies the files of one folder, without what the copy has grown meanwhile.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> StepResult {
    let failed =
        |error: std::io::Error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed)?;
        }
    }
    Ok(())
}

/// The release build as it is started in the tutorial, but for the number of the port.
fn command() -> Command {
    let mut command = Command::new(program());
    command.args(["-p", "0", "-w"]).arg(target_folder().join("release")).args(["--log-level", "warn"]);
    command.current_dir(root());
    command
}

/// Starts it, and returns its address.
fn start(way: Way) -> Result<(Server, String), String> {
    let mut command = command();
    if way.deflate {
        command.arg("--config").arg(config_with_deflate()?);
    }
    let scheme = if way.tls { "wss" } else { "ws" };
    if way.tls {
        make_certificate(&certificates())?;
        command.arg("--tls").arg("--certificate").arg(certificates().join("cert.pem"));
        command.arg("--private-key").arg(certificates().join("key.pem"));
    }
    let (server, port) = Server::start_wshd(&mut command)?;
    Ok((server, format!("{scheme}://127.0.0.1:{port}")))
}

const USER: &str = "ann";
const PASSWORD: &str = "s3cret";

/// Who is known to the server that asks: `USER`, with `PASSWORD` and this token.
struct Users {
    token: String,
}

impl Users {
    /// Files of users as the program itself makes them, and a config that asks everybody.
    fn make() -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let folder = folder("users");
        // There are none in the first run.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut passwd = Command::new(program());
        passwd.args(["passwd", USER]).current_dir(&folder).stdin(Stdio::piped());
        let mut passwd = passwd.spawn().map_err(failed)?;
        let mut input = passwd.stdin.take().expect("it is piped");
        writeln!(input, "{PASSWORD}").map_err(failed)?;
        drop(input);
        if !passwd.wait().map_err(failed)?.success() {
            return Err("wshd passwd failed".into());
        }
        let token =
            Command::new(program()).args(["token", USER]).current_dir(&folder).output().map_err(failed)?;
        let token = String::from_utf8_lossy(&token.stdout).trim().to_owned();
        let text = fs::read_to_string(root().join("config/config.toml")).map_err(failed)?;
        // A page that has sent no password has to be of another origin.
        let text = text.replace("origins = [\"same-host\", \"null\"]", "origins = \"*\"");
        let (before, after) =
            text.split_once("origins = \"same-host\"").ok_or("config.toml has no origins")?;
        let (files, rest) = before.split_once("root = \"www\"").ok_or("config.toml has no root")?;
        let users = format!(
            "[auth.staff]\nbasic = {:?}\nbearer = {:?}\n",
            folder.join("users.txt"),
            folder.join("tokens.txt")
        );
        let config = format!(
            "{files}root = \"www\"\nauth = \"staff\"{rest}origins = \"*\"\nauth = \"staff\"{after}\n{users}"
        );
        fs::write(folder.join("config.toml"), config).map_err(failed)?;
        Ok(Self { token })
    }
}

/// The config of the repository, with compression turned on.
fn config_with_deflate() -> Result<PathBuf, String> {
    let text = fs::read_to_string(root().join("config/config.toml")).map_err(|error| error.to_string())?;
    let (before, section) = text.split_once("\n[deflate]\n").ok_or("config.toml has no section [deflate]")?;
    let section = section.replacen("enabled = false", "enabled = true", 1);
    let path = folder("deflate.toml");
    fs::write(&path, format!("{before}\n[deflate]\n{section}")).map_err(|error| error.to_string())?;
    Ok(path)
}

/// A new pair; the one of an earlier run may be over.
pub(crate) fn make_certificate(folder: &Path) -> StepResult {
    // There is none in the first run.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    run(Command::new(program()).args(["cert", "localhost", "127.0.0.1"]).current_dir(folder))
}
