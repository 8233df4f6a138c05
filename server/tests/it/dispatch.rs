//! What pywebsocket's dispatcher does with files and requests, rule by rule, and what this server does with the same.
//!
//! Where the two differ it is on purpose, and the row says why; a row that differs without a reason fails, and so does one with a
//! reason that does not differ. Paths are asked for with a whole opening handshake unless the row is about another request.

use std::fmt::Debug;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use wshd::cli::Cli;
use wshd::config::Config;

use crate::support::{Raw, TestServer, compile_c, upgrade_head};

/// One rule, by an example.
struct Row<'a, T> {
    /// What is asked for, or given.
    example: &'a str,
    /// What pywebsocket answers,
    there: T,
    /// and what this server does.
    here: T,
    /// Why they differ.
    why: &'a str,
}

fn same<T: Clone>(example: &str, both: T) -> Row<'_, T> {
    Row { example, there: both.clone(), here: both, why: "" }
}

fn differs<'a, T>(example: &'a str, there: T, here: T, why: &'a str) -> Row<'a, T> {
    Row { example, there, here, why }
}

fn check<T: PartialEq + Debug>(section: &str, rows: &[Row<'_, T>], ask: impl Fn(&str) -> T) {
    let mut wrong = Vec::new();
    for Row { example, there, here, why } in rows {
        assert_eq!(
            there != here,
            !why.is_empty(),
            "{section}: {example}: a difference has a reason, and only a difference"
        );
        let found = ask(example);
        if found != *here {
            wrong.push(format!("{section}: {example}: {found:?} and not {here:?} (pywebsocket: {there:?})"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The status of the answer, and the whole of its head.
fn ask(server: &TestServer, request: &str) -> (u16, String) {
    let mut raw: Raw = server.raw();
    raw.write(request.as_bytes());
    let head = raw.read_head();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{request}: {head}")), head)
}

/// What a WebSocket that is asked for here is answered with.
fn upgrade(server: &TestServer, target: &str) -> u16 {
    ask(server, &upgrade_head(target)).0
}

/// Puts an echo under each of these names.
fn fill(folder: &Path, files: &[&str]) {
    let built = tempfile::tempdir().unwrap();
    compile_c("echo", built.path(), "echo.so");
    for file in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(built.path().join("echo.so"), path).unwrap();
    }
}

fn serve(change: impl FnOnce(&mut Config), filled: impl FnOnce(&Path)) -> TestServer {
    TestServer::prepare(change, filled).unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

// ---- 3.1: from file to resource path -----------------------------------------------------------------------------------

const FILES: &[&str] = &[
    "a_wsh.so",
    "sub/b_wsh.so",
    "_wsh.so",
    "sub/_wsh.so",
    "UP_WSH.SO",
    "mix_wsh.SO",
    ".hid_wsh.so",
    "dot.name_wsh.so",
    "sp ace_wsh.so",
    "foo.so",
    "libcargo_wsh.so",
];

/// With the links of section 3.1: to a file inside, to one outside, to a folder.
fn with_links(root: &Path) -> PathBuf {
    let handlers = root.join("h");
    fill(&handlers, FILES);
    fill(root, &["outside/far_wsh.so"]);
    symlink("a_wsh.so", handlers.join("alias_wsh.so")).unwrap();
    symlink(root.join("outside/far_wsh.so"), handlers.join("link_wsh.so")).unwrap();
    symlink("sub", handlers.join("linked")).unwrap();
    handlers
}

fn server_with_links(root: &Path, change: impl FnOnce(&mut Config)) -> TestServer {
    let handlers = with_links(root);
    serve(
        |config| {
            config.handlers.folders = vec![handlers];
            change(config);
        },
        |_| {},
    )
}

#[test]
fn files_answer_on_the_resource_paths_of_pywebsocket() {
    let root = tempfile::tempdir().unwrap();
    let server = server_with_links(root.path(), |_| {});
    let rows = [
        same("/a", 101),
        same("/sub/b", 101),
        same("/", 101),
        same("/sub/", 101),
        differs("/sub", 404, 101, "a library for a folder is asked for with and without the slash"),
        same("/UP", 404),
        same("/mix", 404),
        differs("/.hid", 101, 404, "a hidden file may be half of one that is being copied"),
        same("/dot.name", 101),
        differs("/sp%20ace", 404, 101, "paths are compared decoded (RFC 3986 section 6.2.2.2)"),
        same("/alias", 101),
        same("/link", 404),
        same("/linked/b", 404),
        same("/foo", 404),
        differs("/cargo", 404, 101, "cargo puts lib before the name of a library"),
        differs("/libcargo", 101, 404, "the same"),
        // Matching is exact: case, wildcards, parameters, prefixes, slashes, dot segments.
        same("/A", 404),
        same("/*", 404),
        same("/a/x", 404),
        same("/ax", 404),
        same("/a/", 404),
        same("/./a", 404),
        same("/sub/../a", 404),
        differs(
            "//a",
            101,
            404,
            "an empty segment is another path; only the HTTP library of Python drops it",
        ),
    ];
    check("3.1", &rows, |target| upgrade(&server, target));
    let status = server.status();
    let loaded =
        |path: &str| status.handlers.iter().any(|handler| handler.path == path && handler.active.is_some());
    assert!(loaded("/a") && loaded("/alias"), "a link inside is loaded by itself: {status}");
    let refused = server.refusal("link_wsh.so");
    assert!(refused.contains("outside of its handlers folder"), "not at level DEBUG: {refused}");
}

#[test]
fn links_that_lead_outside_are_loaded_where_that_is_allowed() {
    let root = tempfile::tempdir().unwrap();
    let server = server_with_links(root.path(), |config| config.handlers.follow_links_outside = true);
    let rows = [same("/link", 101), same("/linked/b", 404), same("/a", 101)];
    check("3.1, --allow-handlers-outside-root-dir", &rows, |target| upgrade(&server, target));
}

// ---- 3.2: root and scan-dir --------------------------------------------------------------------------------------------

#[test]
fn a_folder_to_be_scanned_has_to_lie_in_the_root() {
    let root = tempfile::tempdir().unwrap();
    let handlers = with_links(root.path());
    fill(root.path(), &["h2/c_wsh.so"]);
    let rows = [
        same("h", "scanned"),
        same("h/sub", "scanned"),
        same("outside", "error"),
        differs("h2", "scanned", "error", "it begins with the same letters and lies elsewhere"),
    ];
    check("3.2", &rows, |scan_dir| {
        let started = TestServer::prepare(
            |config| {
                config.handlers.folders = vec![handlers.clone()];
                config.handlers.scan_dir = Some(root.path().join(scan_dir));
            },
            |_| {},
        );
        if let Ok(server) = &started {
            let is_whole = scan_dir == "h";
            assert_eq!(upgrade(server, "/sub/b"), 101, "paths begin at the root");
            assert_eq!(upgrade(server, "/a"), if is_whole { 101 } else { 404 });
        }
        started.map_or("error", |_| "scanned")
    });
}

// ---- 3.3: duplicates ---------------------------------------------------------------------------------------------------

#[test]
fn of_two_files_for_one_path_the_first_serves_and_the_other_is_named() {
    let files = ["chat_wsh.so", "libchat_wsh.so", "sub_wsh.so", "sub/_wsh.so"];
    let server = serve(|_| {}, |folder| fill(folder, &files));
    let rows = [
        same("/chat", 101),
        // There these are two handlers, because a slash tells them apart.
        same("/sub", 101),
    ];
    check("3.3", &rows, |target| upgrade(&server, target));
    assert!(server.refusal("libchat_wsh.so").contains("it would answer on /chat, and"), "never silently");
    assert_eq!(server.report().refused.len(), 2, "{:?}", server.report().refused);
}

// ---- 3.4: alias map file -----------------------------------------------------------------------------------------------

// It is read there once, and here whenever it changes: `routing::a_changed_map_file_is_in_force_at_once_and_a_broken_one_is_not`.

/// What this map file makes of a request: the status, or that it is wrong.
fn mapped(files: &[&str], map: &str, target: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.txt");
    std::fs::write(&file, map).unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "").unwrap();
    let cli = Cli { websock_handlers_map_file: Some(file), ..Cli::default() };
    match Config::load_file(&config, &cli) {
        Err(error) => {
            assert!(error.to_string().contains("map.txt:"), "with its line: {error}");
            "error".into()
        }
        Ok(loaded) => {
            let server = serve(|config| config.aliases = loaded.aliases, |folder| fill(folder, files));
            upgrade(&server, target).to_string()
        }
    }
}

#[test]
fn the_map_file_is_that_of_pywebsocket() {
    let text = |text: &str| text.to_owned();
    let rows = [
        same("# a comment\n\n/z /a\n", text("101")),
        same("/z\t  /a", text("101")),
        same("/x /a\n/z /x\n", text("101")),
        same("/z /x\n/x /a\n", text("404")),
        same("/z /nope\n", text("404")),
        same("/z /nope\n/z /a\n", text("101")),
        differs(
            "/z /a  \n",
            text("404"),
            text("101"),
            "blanks that nobody sees; before version 3 they were allowed",
        ),
        differs(
            "/z\n/z /a\n",
            text("101"),
            text("error"),
            "a line that means nothing is a mistake, and not a warning",
        ),
        differs("/z /a /b\n", text("404"), text("error"), "the same"),
        differs("z /a\n", text("404"), text("error"), "no request could ask for it"),
    ];
    check("3.4", &rows, |map| mapped(&["a_wsh.so"], map, "/z"));
    // An alias takes the place of a library: /b is answered by nobody when it leads to nobody.
    let rows = [
        same("/b /a\n", text("101")),
        differs("/b /nope\n", text("101"), text("404"), "it was not meant to be answered by its own library"),
    ];
    check("3.4", &rows, |map| mapped(&["a_wsh.so", "b_wsh.so"], map, "/b"));
}

// ---- 3.5: query and fragment -------------------------------------------------------------------------------------------

#[test]
fn a_query_is_for_the_handler_and_a_fragment_for_nobody() {
    let server = serve(|_| {}, |folder| compile_c("handshake", folder, "a_wsh.so"));
    let rows = [
        same("/a?x=1", 101),
        same("/a?", 101),
        same("/nope?x=1", 404),
        same("/a#x", 400),
        same("/a?x#y", 400),
        same("/a#", 101),
        same("/nope#x", 404),
        same("/nope#", 404),
    ];
    check("3.5", &rows, |target| upgrade(&server, target));
    for (target, query) in [("/a?x=1", "x=1"), ("/a?b?c", "b?c"), ("/a?x=%20", "x=%20"), ("/a", "")] {
        assert_eq!(
            server.connect(target).text(),
            format!("/a|{query}||"),
            "cut at the first ?, and as it was sent"
        );
    }
}

// ---- 3.6: broken handlers ----------------------------------------------------------------------------------------------

#[test]
fn a_broken_handler_is_left_out_and_the_others_serve() {
    const BROKEN: [&str; 6] = [
        "init_fails",
        "no_on_message",
        "no_entry",
        "constructor_exits",
        "constructor_crashes",
        "constructor_hangs",
    ];
    let server = serve(
        |config| config.handlers.probe_seconds_max = std::time::Duration::from_millis(500),
        |folder| {
            fill(folder, &["a_wsh.so"]);
            BROKEN.iter().for_each(|name| compile_c(name, folder, &format!("{name}_wsh.so")));
            std::fs::write(folder.join("text_wsh.so"), "this is no library").unwrap();
        },
    );
    let rows = [
        same("/a", "101"),
        same("/init_fails", "404"),
        same("/no_on_message", "404"),
        same("/no_entry", "404"),
        differs(
            "/text",
            "no start",
            "404",
            "one file that cannot be read is no reason for the others not to serve",
        ),
        differs("/constructor_exits", "no start", "404", "the same"),
        differs("/constructor_crashes", "no start", "404", "it is tried out in another process"),
        differs("/constructor_hangs", "no start", "404", "the same, within a time"),
    ];
    check("3.6", &rows, |target| if upgrade(&server, target) == 101 { "101" } else { "404" });
    for name in BROKEN.iter().chain(&["text"]) {
        assert!(!server.refusal(&format!("{name}_wsh.so")).is_empty(), "{name} is named with a reason");
    }
}

// ---- 3.7: no hot reload ------------------------------------------------------------------------------------------------

#[test]
fn a_file_that_comes_later_is_served_without_a_restart() {
    let server = serve(|_| {}, |folder| fill(folder, &["a_wsh.so"]));
    let rows = [differs("/new", 404, 101, "this server is made for it")];
    check("3.7", &rows, |target| {
        assert_eq!(upgrade(&server, target), 404);
        fill(&server.folder(), &["new_wsh.so"]);
        server.wait_for("the new file is served", |status| {
            status.handlers.iter().any(|handler| handler.path == target && handler.active.is_some())
        });
        upgrade(&server, target)
    });
}

// ---- 3.8: requests that are not a valid WebSocket ------------------------------------------------------------------------

/// An echo on /a, and pages beside it: one that is also a library's folder.
fn server_with_pages() -> (TestServer, tempfile::TempDir) {
    let pages = tempfile::tempdir().unwrap();
    let root = pages.path().to_owned();
    std::fs::create_dir_all(root.join("folder")).unwrap();
    std::fs::write(root.join("console.html"), "a page").unwrap();
    std::fs::write(root.join("folder/page.html"), "a page").unwrap();
    fill(&root, &["a_wsh.so"]);
    let server = serve(
        |config| {
            config.files.root = Some(root.clone());
            config.handlers.folders = vec![root];
        },
        |_| {},
    );
    (server, pages)
}

fn plain(line: &str, headers: &str) -> String {
    format!("{line}\r\nHost: a\r\n{headers}Connection: close\r\n\r\n")
}

#[test]
fn requests_that_no_handler_takes_are_answered_as_http_has_it() {
    let (server, _pages) = server_with_pages();
    const POST: &str = "Content-Length: 0\r\n";
    let rows = [
        same("GET /console.html HTTP/1.1", 200),
        same("HEAD /console.html HTTP/1.1", 200),
        differs("GET /folder/ HTTP/1.1", 200, 404, "what is in a folder is not shown"),
        same("GET /folder HTTP/1.1", 301),
        same("GET /none HTTP/1.1", 404),
        differs(
            "POST /console.html HTTP/1.1",
            501,
            405,
            "the method is known, and not for files (RFC 9110 section 15.5.6)",
        ),
        differs("DELETE /console.html HTTP/1.1", 501, 405, "the same"),
        differs("GET /a_wsh.so HTTP/1.1", 200, 404, "handlers are not for download"),
        differs("GET /../x HTTP/1.1", 0, 404, "there the connection ends without an answer, by an exception"),
        // On the path of a handler.
        differs("GET /a HTTP/1.1", 400, 426, "426 says what is missing (RFC 9110 section 15.5.22)"),
        differs("GET /a HTTP/1.0", 400, 426, "the same"),
        differs("POST /a HTTP/1.1", 400, 405, "the method is the first thing that is wrong"),
    ];
    check("3.8, plain requests", &rows, |line| {
        ask(&server, &plain(line, if line.starts_with("GET") { "" } else { POST })).0
    });
    let rows = [
        same("/none", 404),
        differs("/console.html", 200, 404, "who asks for a WebSocket is not helped by a page"),
    ];
    check("3.8, upgrades without a handler", &rows, |target| upgrade(&server, target));
    let (_, head) = ask(&server, &plain("GET /none HTTP/1.1", ""));
    // There: HTTP/1.0, and a header Server with the version of Python.
    assert!(head.starts_with("HTTP/1.1 ") && !head.to_ascii_lowercase().contains("\r\nserver:"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{head}");
}

#[test]
fn handshakes_that_break_a_rule_are_refused() {
    let (server, _pages) = server_with_pages();
    let sound = upgrade_head("/a");
    let line =
        |name: &str| sound.lines().find(|line| line.starts_with(name)).expect("it is there").to_owned();
    // The example is what is changed: a line of the head, or what comes in its place.
    let rows = [
        same("", 101),
        same("GET:POST /a HTTP/1.1", 405),
        same("GET:GET /a HTTP/1.0", 505),
        same("Host:", 400),
        same("Connection:", 400),
        same("Connection:Connection: keep-alive", 400),
        same("Connection:Connection: keep-alive, UPGRADE", 101),
        same("Upgrade:Upgrade: WebSocket", 101),
        same("Sec-WebSocket-Key:", 400),
        same("Sec-WebSocket-Key:Sec-WebSocket-Key: short", 400),
        same("Sec-WebSocket-Version:", 426),
        same("Sec-WebSocket-Version:Sec-WebSocket-Version: 8", 426),
    ];
    // Where one number stands, pywebsocket has 400 for all: these are the rules that say more.
    let there = |row: &Row<'_, u16>| if row.here == 101 { 101 } else { 400 };
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let there = there(&row);
            let why = if there == row.here { "" } else { "a status of its own says what to do" };
            Row { there, why, ..row }
        })
        .chain([
            differs("Upgrade:", 400, 426, "without it, it is a plain request for what only speaks WebSocket"),
            differs("Upgrade:Upgrade: h2c, websocket", 400, 101, "it is a list (RFC 9110 section 7.8)"),
        ])
        .collect();
    check("3.8, handshakes", &rows, |change| {
        let (name, instead) = change.split_once(':').unwrap_or(("nothing", ""));
        let head = if name == "nothing" {
            sound.clone()
        } else if instead.is_empty() {
            sound.replace(&format!("{}\r\n", line(name)), "")
        } else {
            sound.replace(&line(name), instead)
        };
        ask(&server, &head).0
    });
}

/// The bounds are those of this server's config and not those of Python's library: 16 KiB and 100 lines.
#[test]
fn heads_that_are_too_large_are_refused() {
    let (server, _pages) = server_with_pages();
    let rows = [
        differs("a target of 70 KiB", 414, 431, "the head as a whole has one bound, `limits.head_bytes_max`"),
        same("a header of 70 KiB", 431),
        same("101 headers", 431),
    ];
    check("3.8, bounds", &rows, |what| {
        let long = "x".repeat(70 << 10);
        let head = match what {
            "a target of 70 KiB" => format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            "a header of 70 KiB" => format!("GET /a HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            _ => format!("GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)),
        };
        let mut raw = server.raw();
        // The answer may come before the last byte is taken.
        raw.try_write(head.as_bytes(), std::time::Duration::from_secs(30));
        let answer = String::from_utf8_lossy(&raw.read_until_gone()).into_owned();
        answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("{what}: {answer}"))
    });
}

/// A script in the document root is a file like any other, unless its folder is named with -x.
#[test]
fn a_script_is_run_in_the_folders_of_cgi_and_read_elsewhere() {
    let pages = tempfile::tempdir().unwrap();
    std::fs::create_dir(pages.path().join("cgi")).unwrap();
    let script = pages.path().join("cgi/run.sh");
    std::fs::write(&script, "#!/bin/sh\necho\necho run\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (paths, both) in [(&[][..], "read"), (&["/cgi"][..], "run")] {
        let root = pages.path().to_owned();
        let change = |config: &mut Config| {
            config.files.root = Some(root);
            config.cgi.paths = paths.iter().map(ToString::to_string).collect();
        };
        let server = serve(change, |folder| fill(folder, &["a_wsh.so"]));
        check("3.8, -x", &[same("GET /cgi/run.sh HTTP/1.1", both)], |line| {
            let (_, answer) = server.request(&plain(line, ""));
            if answer.contains("#!/bin/sh") { "read" } else { "run" }
        });
    }
}
