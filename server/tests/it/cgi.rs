//! Programs that answer requests, as real scripts.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use wshd::config::{AuthRules, Config, Credential};
use wshd::control::Answer;

use crate::support::{Raw, ServerProcess, TestServer, wait_for};

/// A document root with a folder of scripts.
struct Root(tempfile::TempDir);

impl Root {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("cgi-bin")).unwrap();
        std::fs::write(root.path().join("index.html"), "a page").unwrap();
        let own = Self(root);
        for (name, text) in scripts {
            own.script(name, text);
        }
        own
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join("cgi-bin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn serve(&self, change: impl FnOnce(&mut Config)) -> TestServer {
        TestServer::with(&["echo"], |config| {
            config.files.root = Some(self.path().to_owned());
            config.cgi.paths = vec!["/cgi-bin".into()];
            change(config);
        })
    }
}

fn get(server: &TestServer, path: &str) -> (u16, String) {
    ask(server, &format!("GET {path} HTTP/1.1"), "", "")
}

fn ask(server: &TestServer, line: &str, headers: &str, body: &str) -> (u16, String) {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    server
        .request(&format!("{line}\r\nHost: a.example:81\r\nConnection: close\r\n{length}{headers}\r\n{body}"))
}

/// The body of an answer in chunks.
fn body(answer: &str) -> String {
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{answer}");
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").unwrap_or_else(|| panic!("cut short: {answer}"));
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
}

const ENVIRONMENT: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\npwd\nenv | sort\ncat\n";

#[test]
fn a_program_is_told_the_request_and_nothing_of_the_servers_environment() {
    let root = Root::new(&[("env.sh", ENVIRONMENT)]);
    let server = root.serve(|_| {});
    let headers = "Content-Type: text/x-test\r\nCookie: a=1\r\nProxy: http://evil.example\r\nX_Odd: 1\r\n\
                   Authorization: Basic YTpi\r\n";
    let (status, answer) =
        ask(&server, "POST /cgi-bin/env.sh/more/of%20it?a=1&b=%20 HTTP/1.1", headers, "the body");
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("content-type: text/plain\r\n"), "{answer}");
    let body = body(&answer);
    let root = root.path().to_str().unwrap();
    let (folder, body) = body.split_once('\n').unwrap();
    assert_eq!(folder, format!("{root}/cgi-bin"));
    let body = body.strip_suffix("the body").unwrap_or_else(|| panic!("{body}"));
    // What a shell sets itself.
    let own = ["PWD=", "SHLVL=", "_=", "OLDPWD=", "REMOTE_PORT="];
    let lines: Vec<_> = body.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).collect();
    let expected = [
        "CONTENT_LENGTH=8".to_owned(),
        "CONTENT_TYPE=text/x-test".to_owned(),
        format!("DOCUMENT_ROOT={root}"),
        "GATEWAY_INTERFACE=CGI/1.1".to_owned(),
        "HTTP_COOKIE=a=1".to_owned(),
        "HTTP_HOST=a.example:81".to_owned(),
        "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
        "PATH_INFO=/more/of it".to_owned(),
        format!("PATH_TRANSLATED={root}/more/of it"),
        "QUERY_STRING=a=1&b=%20".to_owned(),
        "REMOTE_ADDR=127.0.0.1".to_owned(),
        "REMOTE_HOST=127.0.0.1".to_owned(),
        "REQUEST_METHOD=POST".to_owned(),
        "REQUEST_URI=/cgi-bin/env.sh/more/of%20it?a=1&b=%20".to_owned(),
        format!("SCRIPT_FILENAME={root}/cgi-bin/env.sh"),
        "SCRIPT_NAME=/cgi-bin/env.sh".to_owned(),
        "SERVER_NAME=a.example".to_owned(),
        "SERVER_PORT=81".to_owned(),
        "SERVER_PROTOCOL=HTTP/1.1".to_owned(),
        concat!("SERVER_SOFTWARE=wshd/", env!("CARGO_PKG_VERSION")).to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_program_of_python_answers_and_says_so_with_any_status() {
    let root = Root::new(&[
        (
            "hello.py",
            "#!/usr/bin/env python3\nimport sys\nsys.stdout.write('Status: 201 Made\\r\\nContent-Type: text/html\\r\\n\
             Set-Cookie: a=1\\r\\nSet-Cookie: b=2\\r\\nContent-Length: 3\\r\\nConnection: keep-alive\\r\\n\\r\\nHi from Python')\n",
        ),
        ("away.sh", "#!/bin/sh\nprintf 'Location: /index.html\\n\\n'\n"),
        ("nothing.sh", "#!/bin/sh\nprintf 'Status: 204\\n\\n'\n"),
    ]);
    let server = root.serve(|_| {});
    let (status, answer) = get(&server, "/cgi-bin/hello.py");
    assert_eq!((status, body(&answer).as_str()), (201, "Hi from Python"), "{answer}");
    assert_eq!(answer.matches("set-cookie: ").count(), 2, "{answer}");
    assert!(!answer.contains("content-length") && !answer.contains("keep-alive"), "{answer}");
    let (status, answer) = ask(&server, "HEAD /cgi-bin/hello.py HTTP/1.1", "", "");
    assert_eq!(status, 201);
    assert!(answer.ends_with("\r\n\r\n") && answer.contains("text/html"), "{answer}");
    let (status, answer) = get(&server, "/cgi-bin/away.sh");
    assert!(status == 302 && answer.contains("location: /index.html\r\n"), "{answer}");
    assert_eq!(get(&server, "/cgi-bin/nothing.sh").0, 204);
    assert_eq!(get(&server, "/").0, 200, "pages are where they were");
    server.assert_serves("/echo");
}

/// Neither a spelling of its path nor a missing right shows a file of a folder of programs, and nothing outside of it is run.
#[test]
fn a_program_is_never_shown_and_nothing_else_is_run() {
    let root =
        Root::new(&[("run.sh", ENVIRONMENT), ("sub/.hidden.sh", ENVIRONMENT), ("lib_wsh.so", ENVIRONMENT)]);
    let folder = root.path().join("cgi-bin");
    std::fs::write(folder.join("notes.txt"), "SECRET").unwrap();
    std::fs::write(folder.join("index.html"), "SECRET").unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("run.sh"), outside.path().join("run.sh")).unwrap();
    symlink(outside.path().join("run.sh"), folder.join("link.sh")).unwrap();
    symlink("cgi-bin", root.path().join("alias")).unwrap();
    std::fs::copy(folder.join("run.sh"), root.path().join("page.sh")).unwrap();
    let server = root.serve(|_| {});
    assert_eq!(get(&server, "/cgi-bin/run.sh").0, 200);
    for (path, expected) in [
        ("/cgi-bin/notes.txt", 403),
        ("/cgi-bin/index.html", 403),
        ("/cgi-bin/none", 404),
        ("/cgi-bin", 404),
        ("/cgi-bin/", 404),
        ("/cgi-bin/sub", 404),
        ("/cgi-bin/sub/.hidden.sh", 404),
        ("/cgi-bin/lib_wsh.so", 404),
        ("/cgi-bin/link.sh", 404),
        ("/alias/run.sh", 404),
        ("//cgi-bin/run.sh", 404),
        ("/./cgi-bin/run.sh", 404),
        ("/cgi-bin//run.sh", 404),
        ("/a/../cgi-bin/run.sh", 404),
        ("/cgi-bin/../cgi-bin/run.sh", 404),
        ("/%63gi-bin/notes.txt", 403),
        ("/cgi-bin%2fnotes.txt", 403),
        ("/cgi-bin/%2e%2e/cgi-bin/notes.txt", 404),
    ] {
        let (status, answer) = get(&server, path);
        assert!(status == expected || status == 400, "{path}: {answer}");
        assert!(!answer.contains("SECRET") && !answer.contains("#!/bin/sh"), "{path}: {answer}");
        assert!(!answer.contains("GATEWAY_INTERFACE"), "{path}: {answer}");
    }
    let (status, answer) = get(&server, "/page.sh");
    assert!(status == 200 && answer.contains("#!/bin/sh"), "a file elsewhere is a file: {answer}");
    let (status, answer) = ask(&server, "PUT /cgi-bin/run.sh HTTP/1.1", "", "");
    assert!(status == 405 && answer.contains("allow: GET, HEAD, POST"), "{answer}");
}

/// What an argument to a shell would be, is text.
#[test]
fn no_shell_sees_the_request() {
    let root = Root::new(&[(
        "args.sh",
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s|%s' $# \"$QUERY_STRING\"\n",
    )]);
    let server = root.serve(|_| {});
    let (_, answer) = get(&server, "/cgi-bin/args.sh?-s+$(touch%20x);`id`");
    assert_eq!(body(&answer), "0|-s+$(touch%20x);`id`");
}

#[test]
fn what_makes_no_sense_is_502_and_what_cannot_be_started_500() {
    let root = Root::new(&[
        ("silent.sh", "#!/bin/sh\n"),
        ("headless.sh", "#!/bin/sh\necho hello; echo; echo world\n"),
        ("typeless.sh", "#!/bin/sh\nprintf 'X-A: b\\n\\nhello'\n"),
        ("endless.sh", "#!/bin/sh\nwhile printf 'X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\\n'; do :; done\n"),
        ("broken.sh", "#!/nowhere/interpreter\n"),
        ("fails.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello'; exit 3\n"),
    ]);
    let server = root.serve(|_| {});
    for name in ["silent", "headless", "typeless", "endless"] {
        let (status, answer) = get(&server, &format!("/cgi-bin/{name}.sh"));
        assert!(status == 502 && answer.contains("the program gave no answer"), "{name}: {answer}");
    }
    assert_eq!(get(&server, "/cgi-bin/broken.sh").0, 500);
    let (status, answer) = get(&server, "/cgi-bin/fails.sh");
    assert_eq!((status, body(&answer).as_str()), (200, "hello"), "its status is for the log");
}

/// A program whose process writes its number to a file, and waits for ever with a child of its own.
fn waiting(root: &Root, name: &str, before: &str) -> PathBuf {
    let mark = root.path().join(format!("{name}.pid"));
    let text = format!(
        "#!/bin/sh\n{before}sleep 1000 &\necho $$ $! > '{0}.new'\nmv '{0}.new' '{0}'\nwait\n",
        mark.display()
    );
    root.script(name, &text);
    mark
}

/// Waits until the two of it are there.
fn processes(mark: &Path) -> Vec<PathBuf> {
    wait_for("the program runs", || mark.exists());
    let text = std::fs::read_to_string(mark).unwrap();
    text.split_whitespace().map(|pid| Path::new("/proc").join(pid)).collect()
}

fn wait_for_the_end(processes: &[PathBuf]) {
    // A process that nobody has waited for yet is still there, as a zombie.
    let is_gone = |path: &PathBuf| {
        std::fs::read_to_string(path.join("stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    wait_for("the program and its child are ended", || processes.iter().all(is_gone));
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_what_it_started() {
    let root = Root::new(&[]);
    let mark = waiting(&root, "slow.sh", "");
    let begun = waiting(&root, "begun.sh", "printf 'Content-Type: text/plain\\n\\nhello'\n");
    // Long enough for a shell to begin, also when other work slows it.
    let server = root.serve(|config| config.cgi.seconds_max = std::time::Duration::from_secs(5));
    let (slow, begun_answer) = std::thread::scope(|scope| {
        let begun = scope.spawn(|| get(&server, "/cgi-bin/begun.sh"));
        (get(&server, "/cgi-bin/slow.sh"), begun.join().unwrap())
    });
    assert!(slow.0 == 504 && slow.1.contains("did not answer in time"), "{slow:?}");
    wait_for_the_end(&processes(&mark));
    let (status, answer) = begun_answer;
    assert_eq!(status, 200);
    assert!(
        answer.contains("hello") && !answer.ends_with("0\r\n\r\n"),
        "a part is not taken for all: {answer}"
    );
    wait_for_the_end(&processes(&begun));
}

#[test]
fn a_program_is_ended_when_its_peer_leaves() {
    let root = Root::new(&[]);
    let before = waiting(&root, "before.sh", "");
    let within = waiting(&root, "within.sh", "printf 'Content-Type: text/plain\\n\\nhello'\n");
    let server = root.serve(|_| {});
    for (name, mark) in [("before.sh", before), ("within.sh", within)] {
        let mut raw = server.raw();
        raw.write(format!("GET /cgi-bin/{name} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let processes = processes(&mark);
        if name == "within.sh" {
            assert!(raw.read_head().starts_with("HTTP/1.1 200 "));
        }
        drop(raw);
        wait_for_the_end(&processes);
    }
}

/// What a program leaves behind when it ends does not keep its answer open, nor its place.
#[test]
fn a_child_that_is_left_behind_ends_with_its_program() {
    let root = Root::new(&[]);
    let mark = root.path().join("left");
    let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello'\nsleep 1000 &\necho $! > MARK\n";
    root.script("leaves.sh", &text.replace("MARK", mark.to_str().unwrap()));
    let server = root.serve(|_| {});
    let (_, answer) = get(&server, "/cgi-bin/leaves.sh");
    assert_eq!(body(&answer), "hello");
    wait_for_the_end(&processes(&mark));
}

#[test]
fn so_many_run_at_a_time_and_one_more_is_503() {
    let root = Root::new(&[]);
    let mark = waiting(&root, "slow.sh", "");
    let server = root.serve(|config| config.cgi.processes_max = 1);
    let mut first = server.raw();
    first.write(b"GET /cgi-bin/slow.sh HTTP/1.1\r\nHost: a\r\n\r\n");
    let running = processes(&mark);
    let (status, answer) = get(&server, "/cgi-bin/slow.sh");
    assert!(status == 503 && answer.contains("retry-after: 1"), "{answer}");
    // Also by the rules of another config, which has the same bound.
    assert!(matches!(
        server.reload_with(|config| config.cgi.seconds_max = std::time::Duration::from_secs(60)),
        Answer::Status(_)
    ));
    assert_eq!(get(&server, "/cgi-bin/slow.sh").0, 503);
    drop(first);
    wait_for_the_end(&running);
    root.script("quick.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello'\n");
    wait_for("there is a place again", || get(&server, "/cgi-bin/quick.sh").0 == 200);
}

#[test]
fn a_body_has_a_bound_and_a_program_need_not_read_it() {
    let root = Root::new(&[
        ("deaf.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello'\n"),
        ("env.sh", ENVIRONMENT),
    ]);
    let server = root.serve(|config| config.cgi.body_bytes_max = 200_000);
    // More than a pipe holds.
    let (status, answer) = ask(&server, "POST /cgi-bin/deaf.sh HTTP/1.1", "", &"x".repeat(200_000));
    assert_eq!((status, body(&answer).as_str()), (200, "hello"));
    let (_, answer) = ask(&server, "POST /cgi-bin/env.sh HTTP/1.1", "", &"x".repeat(200_000));
    assert_eq!(body(&answer).matches('x').count() / 200_000, 1);
    let too_long = "POST /cgi-bin/env.sh HTTP/1.1\r\nHost: a\r\nContent-Length: 200001\r\n\r\n";
    let mut raw = server.raw();
    raw.write(too_long.as_bytes());
    assert!(raw.read_head().starts_with("HTTP/1.1 413 "));
    // In chunks the length is only known at the end.
    let chunked =
        "POST /cgi-bin/env.sh HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let (status, answer) = server.request(&format!("{chunked}5\r\nhello\r\n0\r\n\r\n"));
    assert!(status == 200 && body(&answer).contains("CONTENT_LENGTH=5\n"), "{answer}");
    let mut raw = server.raw();
    raw.write(format!("{chunked}30d41\r\n{}\r\n0\r\n\r\n", "x".repeat(200_001)).as_bytes());
    assert!(raw.read_head().starts_with("HTTP/1.1 413 "));
}

/// A large answer at the pace of a peer that begins late to read it.
#[test]
fn an_answer_of_any_length_is_passed_on() {
    let root = Root::new(&[(
        "large.sh",
        "#!/bin/sh\nprintf 'Content-Type: application/octet-stream\\n\\n'\nhead -c 20000000 /dev/zero\n",
    )]);
    let server = root.serve(|_| {});
    let mut raw: Raw = server.raw();
    // HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
    raw.write(b"GET /cgi-bin/large.sh HTTP/1.0\r\nHost: a\r\n\r\n");
    raw.wait_readable();
    let answer = raw.read_to_end();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert_eq!(answer.len() - head - 4, 20_000_000);
}

#[test]
fn programs_ask_for_the_same_users_as_pages_and_are_told_who_it_is() {
    let root = Root::new(&[("env.sh", ENVIRONMENT)]);
    let server = root.serve(|config| {
        let credential = Credential { user: "a".into(), password: "b".into() };
        config
            .auth
            .insert("staff".into(), AuthRules { credential: Some(credential), ..AuthRules::default() });
        config.files.auth = Some("staff".into());
    });
    assert_eq!(get(&server, "/cgi-bin/env.sh").0, 401);
    let (status, answer) = ask(&server, "GET /cgi-bin/env.sh HTTP/1.1", "Authorization: Basic YTpi\r\n", "");
    let body = body(&answer);
    assert!(
        status == 200 && body.contains("REMOTE_USER=a\n") && body.contains("AUTH_TYPE=Basic\n"),
        "{body}"
    );
    assert!(!body.contains("AUTHORIZATION"), "{body}");
}

#[test]
fn programs_without_a_document_root_are_a_contradiction() {
    let server = TestServer::prepare(|config| config.cgi.paths = vec!["/cgi-bin".into()], |_| {});
    let error = server.err().expect("it does not start").to_string();
    assert!(error.contains("set files.root (-d)"), "{error}");
}

/// What it says on standard error is in the log, a line each, and a running one does not keep the server from ending.
#[test]
fn complaints_of_programs_are_in_the_log() {
    let root = Root::new(&[]);
    root.script(
        "says.sh",
        "#!/bin/sh\necho one >&2\nprintf 'two\\033[31m\\n' >&2\nprintf 'Content-Type: a/b\\n\\n'\n",
    );
    let mark = waiting(&root, "slow.sh", "");
    let log = root.path().join("a.log");
    let config = format!(
        "[files]\nroot = \"{}\"\n[cgi]\npaths = [\"/cgi-bin\"]\n[log]\nfile = \"{}\"\n",
        root.path().display(),
        log.display()
    );
    let server = ServerProcess::start(&["echo"], &config);
    let mut raw = Raw::connect(server.address());
    raw.write(b"GET /cgi-bin/says.sh HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(raw.read_to_end().starts_with(b"HTTP/1.0 200 "));
    let text = || std::fs::read_to_string(&log).unwrap();
    wait_for("both lines", || text().matches("/cgi-bin/says.sh").count() == 2);
    let mut slow = Raw::connect(server.address());
    slow.write(b"GET /cgi-bin/slow.sh HTTP/1.0\r\nHost: a\r\n\r\n");
    let running = processes(&mark);
    server.signal("TERM");
    let (_, _, status) = server.wait();
    assert!(status.success());
    wait_for_the_end(&running);
    let log = text();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("/cgi-bin/says.sh")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].ends_with("one") || lines[0].contains("one "), "{log}");
    assert!(lines[1].contains("two\u{fffd}[31m"), "{log}");
}
