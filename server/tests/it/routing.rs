//! Paths, hosts and aliases to handlers: what the config says of them, on the wire.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use wshd::control::{Answer, Request, Status};

use crate::support::{Client, Raw, ServerProcess, TestServer, compile_c_with, upgrade_head, wait_for, wshd};

/// Serves `routed.c`, whose sessions say by which way they came, on `/routed` and wherever the text says.
fn routed(text: &str) -> TestServer {
    let server = TestServer::prepare(|config| crate::support::say(config, text), |folder| build(folder, 1));
    server.unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

fn build(folder: &std::path::Path, version: u32) {
    compile_c_with("routed", folder, "routed_wsh.so", &[&format!("-DVERSION={version}")]);
}

/// Puts another version in the place of the one that runs.
fn rebuild(server: &TestServer, version: u32) {
    let built = tempfile::tempdir().unwrap();
    build(built.path(), version);
    server.put("routed_wsh.so", &std::fs::read(built.path().join("routed_wsh.so")).unwrap());
}

fn route(keys: &str) -> String {
    format!("[[routes]]\nhandler = \"routed\"\n{keys}\n")
}

/// Where a session is by its own account.
fn told(client: &mut Client) -> String {
    client.send_text("where am I");
    client.text()
}

fn way(server: &TestServer, path: &str) -> String {
    told(&mut server.connect(path))
}

/// The answer to an upgrade: 101, or the status that refuses it.
fn status_of(server: &TestServer, head: &str) -> u16 {
    let mut raw = server.raw();
    raw.write(head.as_bytes());
    let head = raw.read_head();
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"))
}

fn upgrade(server: &TestServer, target: &str) -> u16 {
    status_of(server, &upgrade_head(target))
}

fn upgrade_on(server: &TestServer, host: &str, target: &str) -> u16 {
    status_of(server, &upgrade_head(target).replace("Host: localhost", &format!("Host: {host}")))
}

fn done(answer: Answer) -> Status {
    match answer {
        Answer::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

// ---- parameters --------------------------------------------------------------------------------------------------------

/// They are in the hands of the handler when it is asked, in the session, and in the session after it has moved, although the library
/// keeps nothing else of its request.
#[test]
fn parameters_of_a_path_reach_the_handler_and_move_with_the_session() {
    let server =
        routed(&format!("{}{}", route("path = \"/rooms/{room}/{*rest}\""), route("path = \"/files/*\"")));
    let mut client = server.connect("/rooms/blue%20moon/a/b?x=1");
    let params = "room=blue%20moon&rest=a%2Fb";
    assert_eq!(client.response.headers()["X-Params"], params);
    assert_eq!(told(&mut client), format!("v1|/rooms/blue moon/a/b|{params}|{{}}"));
    assert_eq!(way(&server, "/routed?room=red"), "v1|/routed||{}");
    assert_eq!(way(&server, "/files"), "v1|/files|%2A=|{}");
    assert_eq!(way(&server, "/files/a"), "v1|/files/a|%2A=a|{}");
    rebuild(&server, 2);
    server.wait_for("the session has moved", |status| {
        let handler = &status.handlers[0];
        handler.active.as_ref().is_some_and(|active| active.number == 2) && handler.leaving.is_empty()
    });
    assert_eq!(told(&mut client), format!("v2|/rooms/blue moon/a/b|{params}|{{}}"));
    for path in ["/rooms/", "/rooms/blue", "/room/blue/a", "/file"] {
        assert_eq!(upgrade(&server, path), 404, "{path}");
    }
}

#[test]
fn a_plain_request_for_a_route_is_told_to_upgrade() {
    let server = routed(&route("path = \"/rooms/{room}\""));
    let get = |path: &str| {
        server.request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).0
    };
    assert_eq!((get("/rooms/blue"), get("/rooms/")), (426, 404));
}

// ---- variants ----------------------------------------------------------------------------------------------------------

/// One library under several paths, each with a config of its own, and each on its own: loaded, named, replaced.
#[test]
fn routes_with_a_config_have_variants_of_their_own() {
    let lobby = |motto: &str| {
        route(&format!("path = \"/lobby\"\nname = \"lobby\"\nconfig = {{ motto = \"{motto}\" }}"))
    };
    let den = route("path = \"/den\"\nconfig = { motto = \"den\" }");
    let server = routed(&format!("{}{den}", lobby("one")));
    let mut client = server.connect("/lobby");
    assert_eq!(told(&mut client), r#"v1|/lobby||{"motto":"one"}"#);
    assert_eq!(way(&server, "/den"), r#"v1|/den||{"motto":"den"}"#);
    assert_eq!(way(&server, "/routed"), "v1|/routed||{}");
    let numbers = |status: &Status| -> Vec<(String, u64)> {
        let number = |handler: &wshd::control::HandlerStatus| {
            handler.active.as_ref().map_or(0, |active| active.number)
        };
        status.handlers.iter().map(|handler| (handler.path.clone(), number(handler))).collect()
    };
    let at = |own: u64, den: u64, lobby: u64| {
        [("/routed".to_owned(), own), ("routed#/den".to_owned(), den), ("routed#lobby".to_owned(), lobby)]
    };
    let wait_until_at = |own, den, lobby| {
        server.wait_for("these versions serve, and nobody is on the way to them", |status| {
            numbers(status) == at(own, den, lobby)
                && status.handlers.iter().all(|handler| handler.leaving.is_empty())
        })
    };
    assert_eq!(numbers(&server.status()), at(1, 1, 1));
    // Another config is news for its variant alone, and its sessions move.
    let status = done(server.reload_configured(&format!("{}{den}", lobby("two"))));
    assert_eq!(numbers(&status), at(1, 1, 2));
    wait_until_at(1, 1, 2);
    assert_eq!(told(&mut client), r#"v1|/lobby||{"motto":"two"}"#);
    // Another file is news for all.
    rebuild(&server, 2);
    wait_until_at(2, 2, 3);
    assert_eq!(told(&mut client), r#"v2|/lobby||{"motto":"two"}"#);
    done(server.ask(Request::Rollback("routed#lobby".into())));
    wait_until_at(2, 2, 4);
    done(server.ask(Request::Reload(Some("routed#/den".into()))));
    assert!(matches!(server.ask(Request::Reload(Some("routed#none".into()))), Answer::Failed(_)));
    // Without its route a variant ends, as a handler does without its file.
    done(server.reload_configured(&den));
    assert_eq!(upgrade(&server, "/lobby"), 404);
    assert_eq!(way(&server, "/den"), r#"v2|/den||{"motto":"den"}"#);
    assert_eq!(
        told(&mut client),
        r#"v1|/lobby||{"motto":"two"}"#,
        "who is connected finishes, on the version rolled back to"
    );
}

/// Ends a thread that asks, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While a new variant is loaded, every route leads where it led before: nobody is turned away, and nobody meets another config.
#[test]
fn routes_that_get_and_lose_a_config_never_answer_with_404() {
    let shared = |path: &str| route(&format!("path = \"{path}\""));
    let own = |path: &str| route(&format!("path = \"{path}\"\nconfig = {{ motto = \"own\" }}"));
    let server = routed(&format!("{}{}", shared("/a"), own("/b")));
    let (address, stop) = (server.address(), &AtomicBool::new(false));
    let ask = move |path: &str| {
        let mut seen = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            seen.insert(told(&mut Client::open(address, path, &[]).expect("there is always somebody")));
        }
        seen
    };
    std::thread::scope(|scope| {
        let ending = Stop(stop);
        let asking = ["/a", "/b"].map(|path| (path, scope.spawn(move || ask(path))));
        for _ in 0..4 {
            done(server.reload_configured(&format!("{}{}", own("/a"), shared("/b"))));
            assert_eq!(way(&server, "/a"), r#"v1|/a||{"motto":"own"}"#);
            assert_eq!(way(&server, "/b"), "v1|/b||{}");
            done(server.reload_configured(&format!("{}{}", shared("/a"), own("/b"))));
            assert_eq!(way(&server, "/a"), "v1|/a||{}");
            assert_eq!(way(&server, "/b"), r#"v1|/b||{"motto":"own"}"#);
        }
        drop(ending);
        for (path, asking) in asking {
            let seen = asking.join().expect("nobody was turned away");
            let expected = [format!("v1|{path}||{{}}"), format!("v1|{path}||{{\"motto\":\"own\"}}")];
            assert!(seen.iter().all(|way| expected.contains(way)), "{seen:?}");
        }
    });
    server.wait_for("what no route leads to any more is gone", |status| status.handlers.len() == 2);
}

// ---- hosts -------------------------------------------------------------------------------------------------------------

#[test]
fn virtual_hosts_have_routes_of_their_own() {
    let server = routed(&format!(
        "[handlers.routed]\nown_path = false\n{}{}{}",
        route("path = \"/a\"\nhost = \"a.example\""),
        route("path = \"/{any}\"\nhost = \"*.b.example\""),
        route("path = \"/everywhere\"")
    ));
    for (host, path, status) in [
        ("a.example", "/a", 101),
        ("A.Example:9998", "/a", 101),
        ("a.example.:9998", "/a", 101),
        ("b.example", "/a", 404),
        ("x.b.example", "/a", 101),
        ("x.y.b.example:1", "/b", 101),
        ("xb.example", "/a", 404),
        ("a.example", "/everywhere", 101),
        ("localhost", "/everywhere", 101),
        ("localhost", "/routed", 404),
    ] {
        assert_eq!(upgrade_on(&server, host, path), status, "{host}{path}");
    }
    // The target goes before the header (RFC 9112 section 3.2.2).
    assert_eq!(upgrade_on(&server, "localhost", "ws://a.example:9998/a"), 101);
    assert_eq!(upgrade_on(&server, "a.example", "ws://localhost/a"), 404);
}

#[test]
fn a_target_with_a_host_is_held_against_the_config() {
    let server = TestServer::start(&["echo"]);
    for target in
        ["ws://localhost/echo", "ws://anybody:1/echo", "wss://localhost/echo", "http://localhost/echo"]
    {
        assert_eq!(upgrade(&server, target), 101, "{target}");
    }
    done(server.reload_configured("[upgrade]\nvalidation_host = \"a.example\"\nvalidation_port = 9998\n"));
    for (target, status) in [
        ("/echo", 101),
        ("ws://a.example:9998/echo", 101),
        ("ws://A.EXAMPLE:9998/echo?x", 101),
        ("ws://b.example:9998/echo", 404),
        ("ws://a.example:9999/echo", 404),
        ("ws://a.example/echo", 404),
    ] {
        assert_eq!(upgrade(&server, target), status, "{target}");
    }
}

// ---- rules of a route --------------------------------------------------------------------------------------------------

#[test]
fn a_route_has_origins_and_compression_of_its_own() {
    let server = routed(&format!(
        "[handlers.routed]\ndeflate = true\n{}",
        route("path = \"/open\"\norigins = \"*\"\ndeflate = false")
    ));
    let open = |path: &str| {
        let headers = [("Origin", "http://evil.example"), ("Sec-WebSocket-Extensions", "permessage-deflate")];
        Client::open(server.address(), path, &headers)
    };
    let client = open("/open").expect("any page may connect");
    assert!(client.response.headers().get("Sec-WebSocket-Extensions").is_none());
    assert_eq!(open("/routed").map(drop), Err((403, open("/routed").err().expect("refused").1)));
    let offered = [("Sec-WebSocket-Extensions", "permessage-deflate")];
    let client = Client::open(server.address(), "/routed", &offered).expect("not a browser");
    assert!(client.response.headers().get("Sec-WebSocket-Extensions").is_some());
}

// ---- aliases -----------------------------------------------------------------------------------------------------------

#[test]
fn an_alias_to_nothing_is_404_with_a_note_until_its_library_comes() {
    let server =
        TestServer::configured(&["counter"], "[aliases]\n\"/\" = \"/routed\"\n\"/count\" = \"/counter\"\n");
    server.connect("/count").close();
    assert_eq!(upgrade(&server, "/"), 404);
    let status = server.status();
    let note = "the alias / leads to /routed, which nothing serves: it answers with 404";
    assert!(status.notes.iter().any(|found| found == note), "{status}");
    assert!(status.to_string().contains("    /  /routed  (not there: 404)"), "{status}");
    rebuild(&server, 1);
    let status = server
        .wait_for("the alias leads to the library", |status| status.aliases.iter().all(|alias| alias.served));
    assert!(!status.notes.iter().any(|found| found == note), "{status}");
    assert_eq!(way(&server, "/"), "v1|/||{}");
}

/// The map file is taken up when it changes; one that is wrong leaves everything as it was.
#[test]
fn a_changed_map_file_is_in_force_at_once_and_a_broken_one_is_not() {
    let server = ServerProcess::start_with(&["echo"], "", |folder| {
        std::fs::write(folder.join("map.txt"), "# aliases\n/one /echo\n").unwrap();
        vec!["-m".into(), "map.txt".into()]
    });
    let answers = |path: &str| Client::open(server.address(), path, &[]).is_ok();
    assert!(answers("/one") && answers("/echo") && !answers("/two"));
    // Whole, and then renamed: half of a file would be taken for one too.
    let put = |text: &str| {
        std::fs::write(server.folder().join("new.txt"), text).unwrap();
        std::fs::rename(server.folder().join("new.txt"), server.folder().join("map.txt")).unwrap();
    };
    put("/two /echo\n");
    wait_for("what the map file says now", || answers("/two"));
    assert!(!answers("/one"));
    put("/three /echo\n/four\n");
    let output = wshd(server.folder())
        .args(["--config", "config.toml", "-m", "map.txt", "reload"])
        .output()
        .expect("wshd was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("map.txt:2:1: a line of a map file is ALIAS EXISTING"),
        "{said}"
    );
    assert!(answers("/two") && !answers("/three"));
}

// ---- what is shown -----------------------------------------------------------------------------------------------------

#[test]
fn screen_status_and_configtest_show_routes_and_aliases() {
    let config = "[handlers.echo]\nown_path = false\n[aliases]\n\"/\" = \"/echo\"\n\"/gone\" = \"/nope\"\n\
                  [[routes]]\npath = \"/rooms/{room}\"\nhandler = \"echo\"\n\
                  [[routes]]\npath = \"/own\"\nhost = \"a.example\"\nhandler = \"echo\"\nname = \"own\"\nconfig = {}\n\
                  [[routes]]\npath = \"/later\"\nhandler = \"later\"\n";
    let server = ServerProcess::start(&["echo"], config);
    let ask = |what: &str| {
        let arguments = ["--config", "config.toml", "-w", "handlers", what];
        let output = wshd(server.folder()).args(arguments).output().expect("wshd was built");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (status, checked) = (ask("status"), ask("configtest"));
    assert!(status.contains("/echo (only by routes and aliases)  generation 1"), "{status}");
    assert!(status.contains("echo#own  generation 1"), "{status}");
    server.signal("TERM");
    let (screen, ..) = server.wait();
    for shown in [&status, &checked, &screen] {
        let lines: Vec<_> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            "routes",
            "/rooms/{room} echo",
            "a.example/own echo#own",
            "/later later (not there: 404)",
            "aliases",
            "/ /echo",
            "/gone /nope (not there: 404)",
            "note: the route /later leads to later, which is not there: it answers with 404",
            "note: the alias /gone leads to /nope, which nothing serves: it answers with 404",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{line}: {shown}");
        }
    }
    for shown in [&checked, &screen] {
        assert!(!shown.contains("/echo  "), "it does not answer there: {shown}");
    }
}

// ---- fragments ---------------------------------------------------------------------------------------------------------

#[test]
fn a_fragment_is_refused_where_a_handler_is() {
    let server = TestServer::start(&["echo"]);
    for (target, status) in [
        ("/echo#x", 400),
        ("/echo?a#x", 400),
        ("ws://localhost/echo#x", 400),
        ("/echo#", 101),
        ("/nope#x", 404),
        ("/echo?a%23x", 101),
    ] {
        assert_eq!(upgrade(&server, target), status, "{target}");
    }
    // The connection is used again: what counts is the request that is answered.
    let mut raw: Raw = server.raw();
    raw.write(b"GET /nope#x HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = raw.read_head();
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    raw.read_exactly("there is nothing at this path\n".len());
    raw.write(upgrade_head("/echo").as_bytes());
    let head = raw.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}
