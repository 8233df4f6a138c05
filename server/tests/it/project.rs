//! `wshd new` and `wshd dev`: what they write builds and serves, and a change of the sources reaches an open connection.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Client, TestServer, wshd};

/// Longer than a build takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

fn new_project(parent: &Path, arguments: &[&str]) -> PathBuf {
    let output = wshd(parent).arg("new").args(arguments).output().expect("wshd was built with this test");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test ") && text.contains(&format!("wshd dev {}_wsh", arguments[0])), "{text}");
    parent.join(format!("{}_wsh", arguments[0]))
}

/// A tool of the build in a project's folder. It must not ask the network, nor share a folder with the build of this test.
fn tool(program: &str, project: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(project);
    isolate(&mut command, project);
    command
}

fn isolate(command: &mut Command, project: &Path) {
    command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", project.join("target"));
    // What the cargo that runs this test says to the programs it starts.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "MAKEFLAGS", "CARGO_MAKEFLAGS"]
    {
        command.env_remove(name);
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn assert_is_served(library: &Path, path: &str) {
    let server = TestServer::prepare(
        |_| {},
        |folder| {
            std::fs::copy(library, folder.join(library.file_name().unwrap())).expect("it was built");
        },
    );
    server.unwrap_or_else(|error| panic!("the server does not start: {error}")).assert_serves(path);
}

#[test]
fn a_new_project_in_rust_builds_passes_its_test_and_is_served() {
    let parent = tempfile::tempdir().unwrap();
    let project = new_project(parent.path(), &["first"]);
    let text = run(tool("cargo", &project).args(["test", "--quiet"]));
    assert!(text.contains("1 passed"), "{text}");
    run(tool("cargo", &project).args(["build", "--quiet"]));
    assert_is_served(&project.join("target/debug/libfirst_wsh.so"), "/first");
}

#[test]
fn a_new_project_in_c_builds_passes_its_test_and_is_served() {
    let parent = tempfile::tempdir().unwrap();
    for (name, library) in [("my-first", "my-first_wsh.so"), ("library", "liblibrary_wsh.so")] {
        let project = new_project(parent.path(), &[name, "--lang", "c", "--face", "callbacks"]);
        run(tool("make", &project).env("CFLAGS", "-Wall -Wextra -Wpedantic -Werror"));
        let text = run(tool("make", &project).arg("test"));
        assert!(text.contains("it comes back"), "{text}");
        assert_is_served(&project.join(library), &format!("/{name}"));
    }
}

#[test]
fn a_project_that_cannot_be_is_refused_with_the_reason() {
    let parent = tempfile::tempdir().unwrap();
    new_project(parent.path(), &["chat"]);
    for (arguments, words) in [
        (&["new", "chat"][..], "chat_wsh is there already, and nothing is overwritten"),
        (&["new", "a/b"], "one segment of the resource path"),
        (&["new", "a?b"], "which a resource path may not have"),
        (&["dev", "."], "neither a Cargo.toml nor a Makefile"),
        (&["dev", "nowhere"], "cannot serve the project nowhere"),
    ] {
        let output = wshd(parent.path()).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(words), "{arguments:?}: {text}");
    }
}

/// `wshd dev` in a terminal.
struct Terminal {
    child: Child,
    address: SocketAddr,
    lines: Arc<(Mutex<String>, Condvar)>,
    temporary: tempfile::TempDir,
}

impl Terminal {
    fn open(project: &Path) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = wshd(project);
        isolate(&mut command, project);
        let mut child = command
            .args(["dev", "-p", "0", "-H", "127.0.0.1"])
            .env("TMPDIR", temporary.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("wshd was built with this test");
        let lines = Arc::<(Mutex<String>, Condvar)>::default();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        read_into(stdout, lines.clone());
        read_into(stderr, lines.clone());
        let mut terminal = Self { child, address: ([127, 0, 0, 1], 0).into(), lines, temporary };
        terminal.wait_for("  handlers\n");
        let text = terminal.text();
        let address = text.lines().find_map(|line| line.trim().strip_prefix("listening on "));
        terminal.address = address.expect("it listens").parse().expect("an address");
        terminal
    }

    fn text(&self) -> String {
        self.lines.0.lock().unwrap().clone()
    }

    fn wait_for(&self, words: &str) {
        let lines = self.lines.0.lock().unwrap();
        let (lines, _) =
            self.lines.1.wait_timeout_while(lines, PATIENCE, |lines| !lines.contains(words)).unwrap();
        assert!(lines.contains(words), "{words:?} does not come: {lines}");
    }

    /// Asks until the answer is this one.
    fn wait_for_answer(&self, client: &mut Client, answer: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            client.send_text("hello");
            if client.text() == answer {
                return;
            }
            assert!(Instant::now() < deadline, "the answer {answer} does not come: {}", self.text());
        }
    }

    /// Ctrl-C, as far as the server sees it.
    fn interrupt(mut self) -> String {
        run(Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]));
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.text());
        let left: Vec<_> = std::fs::read_dir(self.temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        self.text()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_into(stream: impl Read + Send + 'static, lines: Arc<(Mutex<String>, Condvar)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut all = lines.0.lock().unwrap();
            all.push_str(&line);
            all.push('\n');
            lines.1.notify_all();
        }
    });
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

/// A change is answered on a connection that stayed open, a mistake is shown while the old version serves on, and Ctrl-C ends it.
fn follows_its_sources(project: &Path, path: &str, source: &str, sound: (&str, &str), mistake: &str) {
    let source = project.join(source);
    let terminal = Terminal::open(project);
    let mut client = Client::open(terminal.address, path, &[]).expect("accepted");
    client.send_text("hello");
    assert_eq!(client.text(), "hello");

    edit(&source, sound.0, sound.1);
    terminal.wait_for_answer(&mut client, "changed");

    edit(&source, sound.1, &format!("{} {mistake}", sound.1));
    terminal.wait_for("the build failed");
    terminal.wait_for("this_is_a_mistake");
    client.send_text("hello");
    assert_eq!(client.text(), "changed", "the version before serves on");

    edit(&source, &format!("{} {mistake}", sound.1), sound.0);
    terminal.wait_for_answer(&mut client, "hello");

    let text = terminal.interrupt();
    assert_eq!(client.closed().0, 1001, "{text}");
}

#[test]
fn dev_follows_the_sources_of_a_project_in_c() {
    let parent = tempfile::tempdir().unwrap();
    let project = new_project(parent.path(), &["follow", "--lang", "c"]);
    let sound = (
        "host->session_send(session, kind, data, len);",
        "(void)data, (void)len; host->session_send(session, kind, (const uint8_t *)\"changed\", 7);",
    );
    follows_its_sources(&project, "/follow", "follow.c", sound, "this_is_a_mistake");
}

#[test]
fn dev_follows_the_sources_of_a_project_in_rust() {
    let parent = tempfile::tempdir().unwrap();
    let project = new_project(parent.path(), &["follow"]);
    let sound = ("socket.send(message);", "let _ = message; socket.send(\"changed\");");
    follows_its_sources(&project, "/follow", "src/lib.rs", sound, "this_is_a_mistake();");
}

/// Where nothing could be built yet, it waits for the sources to become sound.
#[test]
fn dev_begins_with_a_project_that_does_not_build() {
    let parent = tempfile::tempdir().unwrap();
    let project = new_project(parent.path(), &["late", "--lang", "c"]);
    let source = project.join("late.c");
    edit(&source, "static const wsh_host_api *host;", "this_is_a_mistake");
    let terminal = Terminal::open(&project);
    terminal.wait_for("the build failed");
    edit(&source, "this_is_a_mistake", "static const wsh_host_api *host;");
    terminal.wait_for("wshd dev: built late_wsh.so");
    let deadline = Instant::now() + PATIENCE;
    let mut client = loop {
        match Client::open(terminal.address, "/late", &[]) {
            Ok(client) => break client,
            Err((404, _)) => assert!(Instant::now() < deadline, "{}", terminal.text()),
            Err(other) => panic!("{other:?}"),
        }
    };
    terminal.wait_for_answer(&mut client, "hello");
    terminal.interrupt();
}
