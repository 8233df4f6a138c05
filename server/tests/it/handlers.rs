//! Libraries of every kind, sound and broken, and handlers that misbehave.

use std::path::Path;
use std::time::Duration;

use tungstenite::Message;

use crate::support::{
    Client, Raw, ServerProcess, TestServer, compile_c, compile_c_text, handler_library, masked,
};

/// A server with the Rust echo and whatever else `fill` puts beside it.
fn server_with(fill: impl FnOnce(&Path)) -> TestServer {
    TestServer::prepare(
        |config| config.handlers.load_seconds_max = Duration::from_secs(5),
        |folder| {
            std::fs::copy(handler_library("echo"), folder.join("libecho_wsh.so"))
                .expect("the handler was built");
            fill(folder);
        },
    )
    .unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

// ---- sound libraries ---------------------------------------------------------------------------------------------------

#[test]
fn handlers_in_c_and_rust_live_side_by_side() {
    let server = server_with(|folder| {
        compile_c("echo", folder, "plain_wsh.so");
        std::fs::create_dir(folder.join("sub")).unwrap();
        compile_c("echo", &folder.join("sub"), "libdeep_wsh.so");
        compile_c_text(&optimised_echo(), folder, "fast_wsh.so", &["-O3", "-fno-plt"]);
    });
    for path in ["/echo", "/plain", "/sub/deep", "/fast"] {
        server.assert_serves(path);
    }
    let mut client = server.connect("/plain");
    client.send_text("Goodbye");
    assert_eq!(client.text(), "Goodbye");
    assert_eq!(client.closed().0, 1000);
}

fn optimised_echo() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/echo.c");
    std::fs::read_to_string(source).unwrap()
}

#[test]
fn the_c_echo_is_a_whole_handler_in_forty_lines() {
    assert!(optimised_echo().lines().count() <= 40);
}

/// Tables only get longer: an older library has a shorter one, a newer library a longer one, and both are served.
#[test]
fn older_and_newer_tables_are_served() {
    let server = server_with(|folder| {
        compile_c("short_table", folder, "short_wsh.so");
        compile_c("long_table", folder, "long_wsh.so");
    });
    for path in ["/short", "/long"] {
        let mut client = server.connect(path);
        client.send_text("?");
        assert_eq!(client.text(), "ok", "{path}");
        client.close();
    }
}

#[test]
fn a_c_handler_uses_the_whole_opening_handshake() {
    let server = server_with(|folder| compile_c("handshake", folder, "hand_wsh.so"));
    let address = server.address();
    let origin = format!("http://{address}");
    let headers = [
        ("Sec-WebSocket-Protocol", "first, second"),
        ("Origin", origin.as_str()),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
    ];
    let mut client = Client::open(address, "/hand?x=%20y", &headers).expect("accepted");
    let answer = |name: &str| {
        client.response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    assert_eq!(answer("Sec-WebSocket-Protocol").as_deref(), Some("second"));
    assert_eq!(answer("X-Origin").as_deref(), Some(origin.as_str()));
    assert_eq!(client.text(), "/hand|x=%20y|second|b=2", "and the session can still be asked");

    let (status, answer) = server.request(&crate::support::upgrade_head("/hand?teapot"));
    assert_eq!(status, 418);
    assert!(
        answer.to_ascii_lowercase().contains("x-tea: green") && answer.ends_with("short and stout\n"),
        "{answer}"
    );
}

#[test]
fn what_must_not_be_sent_is_answered_with_an_error() {
    let server = server_with(|folder| compile_c("bad_sender", folder, "bad_wsh.so"));
    let mut client = server.connect("/bad");
    client.send_text("?");
    assert_eq!(client.text(), "ok");
}

// ---- broken libraries --------------------------------------------------------------------------------------------------

/// Each is refused in words that name the cause, and the server serves the others.
#[test]
fn broken_libraries_are_refused_in_words_while_the_server_serves() {
    let cases = [
        ("abi_mismatch", "ABI 9"),
        ("needs_newer_host", "999"),
        ("panics_abort", "panic"),
        ("no_entry", "wsh_handler_entry_v1"),
        ("no_info", "wsh_handler_info"),
        ("init_fails", "no database\\nat all"),
        ("null_table", "without a table"),
        ("no_on_message", "no on_message"),
        ("unhealthy", "health"),
        ("constructor_crashes", "signal 11"),
        ("constructor_hangs", "did not finish loading"),
        ("constructor_exits", "status 7"),
        ("entry_hangs", "did not finish initialising"),
    ];
    let server = server_with(|folder| {
        for (fixture, _) in cases {
            compile_c(fixture, folder, &format!("{fixture}_wsh.so"));
        }
        let undefined = ["-Wl,--unresolved-symbols=ignore-all"];
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/undefined_symbol.c");
        let text = std::fs::read_to_string(source).unwrap().replace("common.h", &common_header());
        compile_c_text(&text, folder, "undefined_wsh.so", &undefined);
    });
    for (fixture, words) in cases {
        let reason = server.refusal(fixture);
        assert!(reason.contains(words), "{fixture}: {reason}");
    }
    let reason = server.refusal("undefined_wsh");
    assert!(reason.contains("nobody_defines_this"), "{reason}");
    server.assert_serves("/echo");
    let gone = Client::open(server.address(), "/abi_mismatch", &[]).err().expect("it is not served");
    assert_eq!(gone.0, 404);
}

fn common_header() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/common.h").display().to_string()
}

/// A file that somebody is still writing, or that a disk cut off, would crash the dynamic loader.
#[test]
fn damaged_files_are_refused_in_words_while_the_server_serves() {
    let whole = std::fs::read(handler_library("counter")).expect("the handler was built");
    let server = server_with(|folder| {
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        write("empty_wsh.so", b"");
        write("text_wsh.so", &b"#!/bin/sh\necho this is not a library\n".repeat(100));
        for percent in [1, 10, 30, 50, 70, 90, 99] {
            write(&format!("cut{percent}_wsh.so"), &whole[..whole.len() * percent / 100]);
        }
        let mut zeroed = whole.clone();
        let start = zeroed.len() * 6 / 10;
        zeroed[start..].fill(0);
        write("zerotail_wsh.so", &zeroed);
        let mut foreign = whole.clone();
        // e_machine, at offset 18 of the ELF header: 183 is AArch64, 62 x86-64.
        let machine: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
        foreign[18..20].copy_from_slice(&machine.to_le_bytes());
        write("foreign_wsh.so", &foreign);
        std::fs::create_dir(folder.join("folder_wsh.so")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at_all_wsh.so", folder.join("dangling_wsh.so")).unwrap();
    });
    for percent in [1, 10, 30, 50, 70, 90, 99] {
        let reason = server.refusal(&format!("cut{percent}_wsh"));
        assert!(!reason.is_empty(), "{percent}");
    }
    assert!(server.refusal("cut50_wsh").contains("truncated"), "{}", server.refusal("cut50_wsh"));
    assert!(server.refusal("foreign_wsh").contains("this server for"), "{}", server.refusal("foreign_wsh"));
    for file in ["empty_wsh", "text_wsh", "zerotail_wsh", "dangling_wsh"] {
        assert!(!server.refusal(file).is_empty(), "{file}");
    }
    server.assert_serves("/echo");
}

#[test]
fn two_files_for_one_path_are_an_error_that_names_both() {
    let server = server_with(|folder| compile_c("echo", folder, "echo_wsh.so"));
    let refused = &server.report().refused;
    assert_eq!(refused.len(), 1, "{refused:?}");
    let text = format!("{} {}", refused[0].file.display(), refused[0].reason);
    assert!(text.contains("/echo_wsh.so") && text.contains("libecho_wsh.so"), "{text}");
    server.assert_serves("/echo");
}

#[test]
fn a_link_out_of_the_folder_is_refused_unless_the_config_allows_it() {
    let fill = |folder: &Path| {
        std::os::unix::fs::symlink(handler_library("echo"), folder.join("outside_wsh.so")).unwrap();
        std::fs::copy(handler_library("echo"), folder.join("libecho_wsh.so")).unwrap();
    };
    let server = TestServer::prepare(|_| {}, fill).expect("it starts");
    assert!(server.refusal("outside_wsh").contains("outside"), "{}", server.refusal("outside_wsh"));
    let server =
        TestServer::prepare(|config| config.handlers.follow_links_outside = true, fill).expect("it starts");
    server.assert_serves("/outside");
}

#[test]
fn an_empty_or_missing_folder_is_an_error_with_a_hint() {
    let error = TestServer::prepare(|_| {}, |_| {}).err().expect("it does not start").to_string();
    assert!(error.contains("_wsh") && error.contains("cargo build"), "{error}");
    let missing =
        |config: &mut wshd::config::Config| config.handlers.folders = vec!["/no/such/folder".into()];
    let error = TestServer::prepare(missing, |_| {}).err().expect("it does not start").to_string();
    assert!(error.contains("/no/such/folder"), "{error}");
}

/// Nothing of the staged copies stays behind, also when libraries were refused.
#[test]
fn the_private_copies_are_gone_after_the_server() {
    let server = server_with(|folder| compile_c("null_table", folder, "null_wsh.so"));
    let folder = server.folder();
    server.assert_serves("/echo");
    drop(server);
    assert!(!folder.exists(), "the test's folder is removed with everything in it");
}

// ---- handlers that misbehave -------------------------------------------------------------------------------------------

/// With `RUST_BACKTRACE=1` a default panic hook would print and keep the debug information of the process; ours does neither.
#[test]
fn a_panic_ends_its_own_session_with_1011_and_no_other() {
    let server = TestServer::start(&["misbehaving", "echo"]);
    let mut bystander = server.connect("/misbehaving");
    for action in ["panic", "panic-any"] {
        let mut client = server.connect("/misbehaving");
        client.send_text(action);
        assert_eq!(client.closed().0, 1011);
        client.wait_for_end();
    }
    let mut client = server.connect("/misbehaving?on_open=panic");
    assert_eq!(client.closed().0, 1011);
    let mut client = server.connect("/misbehaving?on_closing=panic");
    assert_eq!(client.close_with(1000, "").0, 1011);
    for end in ["on_close=panic", "drop=panic"] {
        let mut client = server.connect(&format!("/misbehaving?{end}"));
        assert_eq!(client.close_with(1000, "").0, 1000, "{end}: the peer does not notice");
    }
    let (status, _) =
        Client::open(server.address(), "/misbehaving?on_upgrade=panic", &[]).err().expect("refused");
    assert_eq!(status, 500);
    bystander.send_text("fragments still here");
    assert_eq!(bystander.text(), "stillhere");
    server.assert_serves("/echo");
}

#[test]
fn two_thousand_panics_leak_nothing() {
    let mut server = ServerProcess::start(&["misbehaving"], "[log]\nlevel = \"error\"\n");
    let log = server.discard_log();
    let server = server;
    let panic = |times: usize| {
        for _ in 0..times {
            let mut raw = Raw::upgraded(server.address(), "/misbehaving");
            raw.write(&masked(0x81, b"panic"));
            assert_eq!(raw.close_code(), 1011);
        }
    };
    panic(500);
    let before = server.resident_kib();
    panic(2000);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB for two thousand panics");
    drop(server);
    log.join().expect("the log is read to its end");
}

#[test]
fn a_handler_refuses_with_any_status() {
    let server = TestServer::start(&["misbehaving"]);
    for status in [302, 401, 403, 429, 503] {
        let path = format!("/misbehaving?on_upgrade={status}");
        let (found, answer) = server.request(&crate::support::upgrade_head(&path));
        assert_eq!(found, status);
        assert!(answer.to_ascii_lowercase().contains("x-why: asked"), "{answer}");
        assert!(answer.ends_with("as you wish\n"), "{answer}");
    }
    let (found, _) = server.request(&crate::support::upgrade_head("/misbehaving?on_upgrade=200"));
    assert_eq!(found, 403, "200 is no refusal");
}

#[test]
fn a_handler_that_blocks_stalls_no_other_handler() {
    let server = TestServer::start(&["misbehaving", "echo"]);
    let mut blocked: Vec<_> = (0..4).map(|_| server.connect("/misbehaving")).collect();
    for client in &mut blocked {
        client.send_text("block:2000");
        client.send_text("status");
    }
    let began = std::time::Instant::now();
    for _ in 0..50 {
        server.assert_serves("/echo");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "the others did not wait for it");
    for client in &mut blocked {
        assert_eq!(client.text(), "Accepted", "and its own sessions go on afterwards");
    }
}

#[test]
fn a_handle_sends_and_wakes_from_another_thread() {
    let server = TestServer::start(&["misbehaving"]);
    let mut client = server.connect("/misbehaving");
    client.send_text("from-thread hello from elsewhere");
    assert_eq!(client.text(), "hello from elsewhere");
    assert_eq!(client.text(), "woken");
    client.close();
}

#[test]
fn fragments_of_a_handler_are_one_message() {
    let server = TestServer::start(&["misbehaving"]);
    let mut client = server.connect("/misbehaving?on_open=fragments%20a%20b");
    assert_eq!(client.text(), "ab");
    client.send_text("fragments one two three");
    assert_eq!(client.text(), "onetwothree");
}

#[test]
fn a_handler_closes_pings_aborts_and_chooses_the_answer() {
    let server = TestServer::start(&["misbehaving"]);
    let mut client = server.connect("/misbehaving");
    client.send_text("close 4001 enough");
    assert_eq!(client.closed(), (4001, "enough".to_owned()));
    client.wait_for_end();

    let mut client = server.connect("/misbehaving");
    client.send_text("twice");
    assert_eq!(client.closed(), (4000, "first".to_owned()));
    client.wait_for_end();

    let mut client = server.connect("/misbehaving");
    client.send_text("close 1005 never");
    assert!(client.text().contains("1000-1003"), "and the session goes on");
    client.send_text("ping are you there");
    assert_eq!(client.next(), Message::Ping(b"are you there".to_vec().into()));

    let mut client = server.connect("/misbehaving?on_closing=3007");
    assert_eq!(client.close_with(1001, "leaving").0, 3007);

    let mut raw = Raw::upgraded(server.address(), "/misbehaving");
    raw.write(&masked(0x81, b"abort"));
    assert_eq!(raw.read_until_gone(), b"", "no Close frame");
}

#[test]
fn a_session_can_be_asked_what_its_request_said() {
    let server = TestServer::start(&["misbehaving"]);
    let address = server.address();
    let headers = [("User-Agent", "tester"), ("X-Odd", "1")];
    let mut client = Client::open(address, "/misbehaving?who=J%C3%B6rg", &headers).expect("accepted");
    client.send_text("whoami");
    let answer = client.text();
    assert!(answer.starts_with("/misbehaving?who=J%C3%B6rg Jörg 127.0.0.1 tester Open "), "{answer}");
    assert!(
        answer.contains("host") && answer.contains("x-odd") && !answer.contains("sec-websocket-key"),
        "{answer}"
    );
    client.send_text("buffered");
    assert_eq!(client.text(), "0");
}
