//! What a handler can ask of the server beyond its session: timers, its own config, threads for what blocks.

use std::time::Duration;

use wshd::config::HandlerRules;
use wshd::control::{Answer, Request, Status};

use crate::support::{Client, TestServer, compile_c, compile_c_with, handler_library};

// ---- timers ------------------------------------------------------------------------------------------------------------

#[test]
fn the_clock_tells_the_time_and_goes_on_with_new_code() {
    let server = TestServer::start(&["clock"]);
    let mut client = server.connect("/clock?every_ms=20");
    for _ in 0..5 {
        let time = client.text();
        assert_eq!((time.len(), time.matches(':').count()), (12, 2), "{time}");
    }
    server.put_version(&handler_library("clock"), 2);
    let status = server.wait_for("the session has moved", |status| {
        let clock = &status.handlers[0];
        clock.active.as_ref().is_some_and(|active| active.number == 2 && active.sessions == 1)
            && clock.leaving.is_empty()
    });
    assert_eq!(status.retained, []);
    // What the old code sent may still lie in between; this is more than can.
    for _ in 0..50 {
        client.text();
    }
    client.close();
}

#[test]
fn timers_of_sessions_and_libraries_are_heard_in_c() {
    let server = TestServer::prepare(
        |config| config.handlers.workers = 1,
        |folder| compile_c("timers", folder, "timers_wsh.so"),
    )
    .unwrap_or_else(|error| panic!("the server does not start: {error}"));
    let mut client = server.connect("/timers");
    client.send_text("a");
    assert_eq!(client.text(), "a");
    client.send_text("x");
    assert_eq!(client.text(), "ok");
    loop {
        client.send_text("#");
        if client.text() == "9" {
            break;
        }
    }
    let mut other = server.connect("/timers");
    other.send_text("d");
    assert_eq!(other.closed().0, 1000, "a timer may end the session");
    other.wait_for_end();
    // Its sixty-four timers end with it.
    client.close();
}

/// The table of callbacks only gets longer: an older library has the first of them, a newer one more than this server calls.
#[test]
fn timers_of_older_and_newer_libraries_are_heard_as_far_as_they_are_known() {
    let server = TestServer::prepare(
        |config| config.handlers.workers = 1,
        |folder| {
            compile_c_with("timers", folder, "short_wsh.so", &["-DSHORT", "-Wno-unused-function"]);
            compile_c_with("timers", folder, "long_wsh.so", &["-DLONG"]);
        },
    )
    .unwrap_or_else(|error| panic!("the server does not start: {error}"));
    for path in ["/short", "/long"] {
        let mut client = server.connect(path);
        // Many times those of the library, which come every 5 ms.
        for _ in 0..20 {
            client.send_text("a");
            assert_eq!(client.text(), "a", "{path}");
        }
        client.send_text("#");
        let ticks = client.text();
        assert_eq!(ticks != "0", path == "/long", "{path}: {ticks}");
        client.close();
    }
}

// ---- config ------------------------------------------------------------------------------------------------------------

#[test]
fn a_handler_is_told_its_own_config_and_loaded_again_when_that_changes() {
    let said = |json: &str| HandlerRules { config: Some(json.into()), ..HandlerRules::default() };
    let server = TestServer::prepare(
        |config| drop(config.handlers.each.insert("configured".into(), said(r#"{"mood":"good"}"#))),
        |folder| compile_c("configured", folder, "configured_wsh.so"),
    )
    .unwrap_or_else(|error| panic!("the server does not start: {error}"));
    let mut client = server.connect("/configured");
    let ask = |client: &mut Client| {
        client.send_text("?");
        client.text()
    };
    let active = |status: &Status| status.handlers[0].active.as_ref().map_or(0, |active| active.number);
    let change = |rules: HandlerRules| {
        let answer = server.reload_with(|config| {
            config.handlers.each.insert("configured".into(), rules);
        });
        assert!(!matches!(answer, Answer::Failed(_)) || server.status().refused.len() == 1, "{answer:?}");
    };
    assert_eq!(ask(&mut client), r#"{"mood":"good"}"#);

    change(HandlerRules { drain_seconds_max: Some(Duration::from_secs(7)), ..said(r#"{"mood":"good"}"#) });
    assert_eq!(active(&server.status()), 1, "a key of the server's loads nothing");

    change(said(r#"{"mood":"better"}"#));
    server.wait_for("it moves", |status| active(status) == 2 && status.handlers[0].leaving.is_empty());
    assert_eq!(ask(&mut client), r#"{"mood":"better"}"#, "the session moved");

    change(said(r#"{"mood":"bad"}"#));
    let status = server.wait_for("it is refused", |status| !status.refused.is_empty());
    assert!(status.refused[0].reason.contains("config.mood is bad"), "{status}");
    assert_eq!((active(&status), ask(&mut client)), (2, r#"{"mood":"better"}"#.into()));

    change(HandlerRules::default());
    let status =
        server.wait_for("it moves", |status| active(status) == 3 && status.handlers[0].leaving.is_empty());
    assert_eq!(status.refused, []);
    assert_eq!((ask(&mut client).as_str(), status.retained.len()), ("{}", 0));

    // The version before comes back as it was: with what it had been told.
    server.ask(Request::Rollback("configured".into()));
    server.wait_for("it moves back", |status| active(status) == 4 && status.handlers[0].leaving.is_empty());
    assert_eq!(ask(&mut client), r#"{"mood":"better"}"#);
    client.close();
}

// ---- work that blocks --------------------------------------------------------------------------------------------------

#[test]
fn offloaded_work_makes_no_session_wait_and_its_panic_ends_none() {
    let server = TestServer::with(&["misbehaving"], |config| config.handlers.workers = 1);
    let mut client = server.connect("/misbehaving");
    client.send_text("offload panic never");
    client.send_text("offload block:300 slow");
    client.send_text("offload now quick");
    client.send_text("buffered");
    // Of these two nothing says which is first: one comes from the worker, the other from a thread.
    let mut first = [client.text(), client.text()];
    first.sort();
    assert_eq!(first, ["0", "quick"], "the only worker goes on");
    assert_eq!(client.text(), "slow");
    client.close();
}

#[test]
fn the_end_of_a_library_waits_for_what_it_has_offloaded() {
    let server = TestServer::with(&["misbehaving", "echo"], |config| {
        config.handlers.offload_threads_max = 2;
    });
    let mut client = server.connect("/misbehaving");
    for _ in 0..6 {
        client.send_text("offload block:100 done");
    }
    client.send_text("buffered");
    client.text();
    client.close();
    std::fs::remove_file(server.folder().join(handler_library("misbehaving").file_name().unwrap())).unwrap();
    server.ask(Request::Reload(None));
    let status = server.wait_for("it has ended", |status| status.handlers.len() == 1);
    assert_eq!(status.retained, [], "its threads are gone, and so is it");
}
