//! New code under connections that stay open: who moves, who stays, what is kept, what is refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wshd::config::{HandlerRules, Reload};
use wshd::control::{Answer, HandlerStatus, Request, Status};

use crate::support::{Client, Raw, TestServer, compile_c_with, handler_library, masked};

/// Libraries of `versioned.c`, compiled once each, and put into a handlers folder one after the other.
struct Versions {
    built: tempfile::TempDir,
}

impl Versions {
    fn new() -> Self {
        Self { built: tempfile::tempdir().unwrap() }
    }

    /// A version that answers with this number; `options` such as `-DREFUSES=1`.
    fn build(&self, number: u32, options: &[&str]) -> PathBuf {
        let version = format!("-DVERSION={number}");
        let name = format!("v{number}{}.so", options.concat().replace(['=', '(', ')', '<', ' ', '|'], "_"));
        let options: Vec<&str> = std::iter::once(version.as_str()).chain(options.iter().copied()).collect();
        compile_c_with("versioned", self.built.path(), &name, &options);
        self.built.path().join(name)
    }
}

/// Puts a version in the place of the one that runs.
fn replace(server: &TestServer, file: &str, library: &Path) {
    server.put(file, &std::fs::read(library).unwrap());
}

fn server_of(library: &Path) -> TestServer {
    server_with(library, |_| {})
}

fn server_with(library: &Path, change: impl FnOnce(&mut wshd::config::Config)) -> TestServer {
    TestServer::prepare(change, |folder| {
        std::fs::copy(library, folder.join("versioned_wsh.so")).unwrap();
    })
    .unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

fn versioned(status: &Status) -> &HandlerStatus {
    status.handlers.iter().find(|handler| handler.path == "/versioned").expect("it is listed")
}

fn active(status: &Status) -> u64 {
    versioned(status).active.as_ref().map_or(0, |active| active.number)
}

/// Waits until the generation of this number is active and every older one is over.
fn wait_until_moved(server: &TestServer, number: u64) -> Status {
    server.wait_for("the new generation has taken over", |status| {
        active(status) == number && versioned(status).leaving.is_empty()
    })
}

fn answer(client: &mut Client, text: &str) -> String {
    client.send_text(text);
    client.text()
}

// ---- policies ----------------------------------------------------------------------------------------------------------

#[test]
fn sessions_go_on_with_the_new_code_and_their_state() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let mut clients: Vec<_> = (0..20).map(|_| server.connect("/versioned")).collect();
    for client in &mut clients {
        assert_eq!(answer(client, "a"), "v1:1:a");
    }
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    let status = wait_until_moved(&server, 2);
    assert_eq!(versioned(&status).active.as_ref().unwrap().sessions, 20);
    assert_eq!(status.retained, [], "the old code is out of memory");
    for client in &mut clients {
        assert_eq!(answer(client, "b"), "v2:2:b");
    }
    assert_eq!(answer(&mut server.connect("/versioned"), "c"), "v2:1:c");
    clients.iter_mut().for_each(Client::close);
}

#[test]
fn a_hundred_reloads_lose_nothing() {
    let versions = Versions::new();
    let built = [versions.build(1, &[]), versions.build(2, &[])];
    let server = server_of(&built[0]);
    let mut clients: Vec<_> = (0..8).map(|_| server.connect("/versioned")).collect();
    for round in 1..=100_u32 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send_text(&format!("{index}-{round}"));
        }
        replace(&server, "versioned_wsh.so", &built[round as usize % 2]);
        server.ask(Request::Reload(Some("versioned".into())));
        for (index, client) in clients.iter_mut().enumerate() {
            let text = client.text();
            assert!(text.ends_with(&format!(":{round}:{index}-{round}")), "{text}");
        }
    }
    let status = wait_until_moved(&server, 101);
    assert_eq!(status.retained, []);
}

#[test]
fn a_handler_that_drains_finishes_its_sessions_on_the_old_code_until_the_deadline() {
    let versions = Versions::new();
    let flags = "-DFLAGS=0";
    let server = server_with(&versions.build(1, &[flags]), |config| {
        config.handlers.drain_seconds_max = Duration::from_secs(5);
    });
    let mut old = server.connect("/versioned");
    assert_eq!(answer(&mut old, "a"), "v1:1:a");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[flags]));
    server.wait_for("the new generation is active", |status| active(status) == 2);
    assert_eq!(answer(&mut server.connect("/versioned"), "new"), "v2:1:new");
    assert_eq!(answer(&mut old, "b"), "v1:2:b", "it finishes on the code it began with");
    let (code, reason) = old.closed();
    assert_eq!((code, reason.as_str()), (1012, "the handler was replaced, connect again"));
    old.wait_for_end();
    wait_until_moved(&server, 2);
}

#[test]
fn a_handler_that_restarts_closes_its_sessions_with_1012() {
    let versions = Versions::new();
    let server = server_with(&versions.build(1, &["-DFLAGS=WSH_LIBRARY_RESTARTS"]), |config| {
        config.handlers.restart_seconds = Duration::from_millis(200);
    });
    let mut clients: Vec<_> = (0..50).map(|_| server.connect("/versioned")).collect();
    replace(&server, "versioned_wsh.so", &versions.build(2, &["-DFLAGS=WSH_LIBRARY_RESTARTS"]));
    for client in &mut clients {
        assert_eq!(client.closed().0, 1012);
        client.wait_for_end();
    }
    wait_until_moved(&server, 2);
    assert_eq!(answer(&mut server.connect("/versioned"), "a"), "v2:1:a");
}

#[test]
fn the_config_overrides_the_policy_of_a_handler() {
    let versions = Versions::new();
    let server = server_with(&versions.build(1, &[]), |config| {
        let rules = HandlerRules { reload: Some(Reload::Drain), ..HandlerRules::default() };
        config.handlers.each.insert("versioned".into(), rules);
    });
    let mut old = server.connect("/versioned");
    assert_eq!(answer(&mut old, "a"), "v1:1:a");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    let status = server.wait_for("the new generation is active", |status| active(status) == 2);
    assert_eq!(versioned(&status).reload.as_deref(), Some("drain"));
    assert_eq!(answer(&mut old, "b"), "v1:2:b");
    old.close();
    wait_until_moved(&server, 2);
}

#[test]
fn state_that_is_not_taken_leaves_the_session_on_the_old_code() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let mut old = server.connect("/versioned");
    assert_eq!(answer(&mut old, "a"), "v1:1:a");
    replace(&server, "versioned_wsh.so", &versions.build(2, &["-DREFUSES=1"]));
    server.wait_for("the new generation is active", |status| active(status) == 2);
    assert_eq!(answer(&mut old, "b"), "v1:2:b");
    assert_eq!(answer(&mut server.connect("/versioned"), "new"), "v2:1:new");
    // The version that follows may take it.
    replace(&server, "versioned_wsh.so", &versions.build(3, &[]));
    wait_until_moved(&server, 3);
    assert_eq!(answer(&mut old, "c"), "v3:3:c");
}

#[test]
fn a_busy_session_moves_when_it_is_free() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &["-DBUSY=1"]));
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "a"), "v1:1:a");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    server.wait_for("the new generation is active", |status| active(status) == 2);
    assert_eq!(answer(&mut client, "b"), "v1:2:b");
    assert_eq!(answer(&mut client, "free"), "v1:3:free");
    wait_until_moved(&server, 2);
    assert_eq!(answer(&mut client, "c"), "v2:4:c");
}

// ---- what is under way -------------------------------------------------------------------------------------------------

#[test]
fn a_message_that_is_half_sent_arrives_whole_at_the_new_code() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let mut fragmented = Raw::upgraded(server.address(), "/versioned");
    let mut cut = Raw::upgraded(server.address(), "/versioned");
    // A text in two fragments, the second one cut inside a character; and a frame that is cut inside its header.
    fragmented.write(&masked(0x01, "grü".as_bytes()));
    let rest = masked(0x80, "ße".as_bytes());
    fragmented.write(&rest[..7]);
    let frame = masked(0x81, b"whole");
    cut.write(&frame[..3]);
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    wait_until_moved(&server, 2);
    fragmented.write(&rest[7..]);
    cut.write(&frame[3..]);
    let expected = "v2:1:grüße";
    let received = fragmented.read_exactly(2 + expected.len());
    assert_eq!(&received[2..], expected.as_bytes());
    assert_eq!(&cut.read_exactly(12)[2..], b"v2:1:whole");
}

#[test]
fn what_the_peer_has_not_taken_yet_follows_in_its_order() {
    let versions = Versions::new();
    let server = server_with(&versions.build(1, &[]), |config| {
        config.limits.outgoing_bytes_max = 64 << 20;
    });
    let mut raw = Raw::upgraded(server.address(), "/versioned");
    // More than the kernel's buffers take: the echoes wait in the server.
    let payload: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut sent = 0;
    while sent < 30 && raw.try_write(&masked(0x82, &payload), Duration::from_millis(200)) {
        sent += 1;
    }
    assert!(sent < 30, "the server stops reading when its answers are not taken");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    wait_until_moved(&server, 2);
    for number in 0..sent {
        let head = raw.read_exactly(10);
        assert_eq!(head[..2], [0x82, 127], "message {number}");
        assert_eq!(raw.read_exactly(payload.len()), payload, "message {number}");
    }
}

#[test]
fn members_of_a_room_stay_in_it_and_hear_each_other() {
    let server = TestServer::start(&["chat"]);
    let join = |name: &str| server.connect(&format!("/chat?room=a&name={name}"));
    let mut ann = join("Ann");
    // Only then: the answer 101 comes before the handler is told, and Bob might be the first in the room.
    assert_eq!(ann.text(), "* Ann joined");
    let mut bob = join("Bob");
    assert_eq!(ann.text(), "* Bob joined");
    assert_eq!(bob.text(), "* Bob joined");
    for round in 2..=10 {
        server.put_version(&handler_library("chat"), round);
        server.wait_for("both are on the new code", |status| {
            let chat = &status.handlers[0];
            let is_new = chat.active.as_ref().is_some_and(|active| active.number == u64::from(round));
            is_new && chat.leaving.is_empty()
        });
        ann.send_text("hello");
        assert_eq!((ann.text(), bob.text()), ("Ann: hello".into(), "Ann: hello".into()));
        bob.send_text("hi");
        assert_eq!((ann.text(), bob.text()), ("Bob: hi".into(), "Bob: hi".into()));
    }
    assert_eq!(server.status().retained, []);
    bob.close();
    assert_eq!(ann.text(), "* Bob left");
}

/// Peers that connect while one version follows another are served by one of the two.
#[test]
fn nobody_is_turned_away_while_versions_change() {
    let versions = Versions::new();
    let built = [versions.build(1, &[]), versions.build(2, &[])];
    let server = server_of(&built[0]);
    let address = server.address();
    let connecting = std::thread::spawn(move || {
        for number in 0..400 {
            let mut client = Client::open(address, "/versioned", &[])
                .unwrap_or_else(|refusal| panic!("peer {number}: {refusal:?}"));
            let text = answer(&mut client, "a");
            assert!(text.ends_with(":1:a"), "{text}");
            client.close();
        }
    });
    let mut round = 0;
    while !connecting.is_finished() {
        round += 1;
        replace(&server, "versioned_wsh.so", &built[round % 2]);
        server.ask(Request::Reload(Some("versioned".into())));
    }
    connecting.join().expect("every peer was served");
}

// ---- ways to write -----------------------------------------------------------------------------------------------------

#[test]
fn a_new_file_is_served_and_a_deleted_one_is_not() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let second = versions.build(7, &["-DFLAGS=0"]);
    std::fs::create_dir(server.folder().join("sub")).unwrap();
    std::fs::copy(&second, server.folder().join("sub/later_wsh.so")).unwrap();
    let is_served = |status: &Status| {
        status.handlers.iter().any(|handler| handler.path == "/sub/later" && handler.active.is_some())
    };
    server.wait_for("the new handler is served", is_served);
    let mut client = server.connect("/sub/later");
    assert_eq!(answer(&mut client, "a"), "v7:1:a");
    std::fs::remove_file(server.folder().join("sub/later_wsh.so")).unwrap();
    server.wait_for("it is not served any more", |status| {
        status.handlers.iter().any(|handler| handler.path == "/sub/later" && handler.active.is_none())
    });
    assert_eq!(Client::open(server.address(), "/sub/later", &[]).err().map(|(status, _)| status), Some(404));
    assert_eq!(answer(&mut client, "b"), "v7:2:b", "who is connected stays");
    client.close();
    server.wait_for("it is forgotten", |status| status.handlers.len() == 1);
    // And back again.
    std::fs::copy(&second, server.folder().join("sub/later_wsh.so")).unwrap();
    server.wait_for("it is served again", is_served);
    assert_eq!(answer(&mut server.connect("/sub/later"), "c"), "v7:1:c");
}

#[test]
fn every_way_of_writing_is_noticed() {
    let versions = Versions::new();
    let built = [versions.build(1, &[]), versions.build(2, &[])];
    let server = server_of(&built[0]);
    let mut client = server.connect("/versioned");
    let file = server.folder().join("versioned_wsh.so");
    let run = |program: &str, arguments: &[&Path]| {
        let status = Command::new(program).args(arguments).status().unwrap();
        assert!(status.success(), "{program}");
    };
    let mut number = 1;
    for (way, write) in [
        ("cp", &(|new: &Path| run("cp", &[new, &file])) as &dyn Fn(&Path)),
        ("install", &|new| run("install", &[new, &file])),
        ("mv", &|new| {
            let copy = new.with_extension("copy");
            std::fs::copy(new, &copy).unwrap();
            run("mv", &[&copy, &file]);
        }),
        ("ln", &|new| run("ln", &[Path::new("-f"), new, &file])),
        ("in pieces", &|new| {
            let bytes = std::fs::read(new).unwrap();
            std::fs::remove_file(&file).unwrap();
            let mut out = std::fs::File::create(&file).unwrap();
            for piece in bytes.chunks(4096) {
                std::io::Write::write_all(&mut out, piece).unwrap();
            }
        }),
    ] {
        number += 1;
        write(&built[(number as usize + 1) % 2]);
        // A half-written file may have been looked at in between, and refused; it does not count as a version.
        server.wait_for(way, |status| active(status) == number && versioned(status).leaving.is_empty());
        let version = if number % 2 == 0 { "v2" } else { "v1" };
        assert!(answer(&mut client, way).starts_with(version), "{way}");
    }
}

#[test]
fn a_link_that_is_switched_is_a_new_version() {
    let versions = Versions::new();
    let server = TestServer::prepare(
        |_| {},
        |folder| {
            for number in [1, 2] {
                let file = folder.join(format!("release-{number}"));
                std::fs::copy(versions.build(number, &[]), file).unwrap();
            }
            std::os::unix::fs::symlink("release-1", folder.join("versioned_wsh.so")).unwrap();
        },
    )
    .unwrap();
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "a"), "v1:1:a");
    let link = server.folder().join("new");
    std::os::unix::fs::symlink("release-2", &link).unwrap();
    std::fs::rename(link, server.folder().join("versioned_wsh.so")).unwrap();
    wait_until_moved(&server, 2);
    assert_eq!(answer(&mut client, "b"), "v2:2:b");
}

#[test]
fn the_same_content_is_not_loaded_again() {
    let versions = Versions::new();
    let library = versions.build(1, &[]);
    let server = server_of(&library);
    for _ in 0..3 {
        replace(&server, "versioned_wsh.so", &library);
        server.ask(Request::Reload(None));
    }
    // Something that is loaded after it was looked at: by then the touch has been dealt with.
    std::fs::copy(handler_library("echo"), server.folder().join("libecho_wsh.so")).unwrap();
    let status = server.wait_for("echo is served", |status| {
        status.handlers.iter().any(|handler| handler.path == "/echo" && handler.active.is_some())
    });
    assert_eq!(active(&status), 1);
}

// ---- what is refused ---------------------------------------------------------------------------------------------------

#[test]
fn a_broken_file_leaves_the_running_version_as_it_is() {
    let versions = Versions::new();
    let sound = versions.build(1, &[]);
    let server = server_of(&sound);
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "a"), "v1:1:a");
    let bytes = std::fs::read(versions.build(2, &[])).unwrap();
    let unhealthy = std::fs::read(versions.build(3, &["-DUNHEALTHY=1"])).unwrap();
    for (broken, reason) in [
        (&bytes[..bytes.len() / 2], "truncated"),
        (b"not a library at all, but long enough to be one".repeat(50).as_slice(), "it is no shared library"),
        (&unhealthy, "its health check returned WSH_E_INTERNAL"),
    ] {
        std::fs::write(server.folder().join("versioned_wsh.so"), broken).unwrap();
        server
            .wait_for(reason, |status| status.refused.iter().any(|refused| refused.reason.contains(reason)));
        assert!(answer(&mut client, "b").starts_with("v1:"));
        assert!(answer(&mut server.connect("/versioned"), "c").starts_with("v1:1:"));
    }
    std::fs::write(server.folder().join("versioned_wsh.so"), &bytes).unwrap();
    let status = wait_until_moved(&server, 2);
    assert_eq!(status.refused, []);
    assert_eq!(answer(&mut client, "d"), "v2:5:d");
}

// ---- rollback ----------------------------------------------------------------------------------------------------------

#[test]
fn a_rollback_by_hand_puts_the_version_before_in_service() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "a"), "v1:1:a");
    let failed = server.ask(Request::Rollback("versioned".into()));
    assert_eq!(failed, Answer::Failed("/versioned has had no version before this one".into()));
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    wait_until_moved(&server, 2);
    assert_eq!(answer(&mut client, "b"), "v2:2:b");
    assert!(matches!(server.ask(Request::Rollback("/versioned".into())), Answer::Status(_)));
    wait_until_moved(&server, 3);
    assert_eq!(answer(&mut client, "c"), "v1:3:c");
    // A touch of the file that was rolled back from changes nothing; asking for it does.
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    server.ask(Request::Reload(None));
    assert_eq!(answer(&mut client, "d"), "v1:4:d");
    server.ask(Request::Reload(Some("versioned".into())));
    wait_until_moved(&server, 4);
    assert_eq!(answer(&mut client, "e"), "v2:5:e");
}

#[test]
fn a_version_that_panics_again_and_again_gives_way() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "a"), "v1:1:a");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    wait_until_moved(&server, 2);
    for _ in 0..3 {
        let mut victim = server.connect("/versioned");
        victim.send_text("panic");
        assert_eq!(victim.closed().0, 1011);
    }
    wait_until_moved(&server, 3);
    assert_eq!(answer(&mut client, "b"), "v1:2:b", "its session went along, with its state");
    assert!(answer(&mut server.connect("/versioned"), "c").starts_with("v1:"));
}

// ---- the end of a generation -------------------------------------------------------------------------------------------

#[test]
fn a_handle_that_is_never_given_back_keeps_the_old_code_in_memory_and_says_so() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "hold"), "v1:1:hold");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    let status = wait_until_moved(&server, 2);
    let [retained] = &status.retained[..] else { panic!("{status}") };
    assert_eq!((retained.handler.as_str(), retained.generation), ("/versioned", 1));
    assert!(retained.reason.contains("handle"), "{}", retained.reason);
    assert_eq!(answer(&mut client, "a"), "v2:2:a");
}

#[test]
fn a_thread_that_never_ends_keeps_the_old_code_in_memory_and_is_named() {
    let versions = Versions::new();
    let server = server_with(&versions.build(1, &[]), |config| {
        config.handlers.unload_seconds_max = Duration::from_millis(300);
    });
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "thread"), "v1:1:thread");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    let status = wait_until_moved(&server, 2);
    let [retained] = &status.retained[..] else { panic!("{status}") };
    assert!(retained.reason.contains("threads that may run its code are still there"), "{}", retained.reason);
    assert_eq!(answer(&mut client, "a"), "v2:2:a");
}

#[test]
fn above_the_limit_of_retained_versions_nothing_more_is_loaded() {
    let versions = Versions::new();
    let server = server_with(&versions.build(1, &[]), |config| config.handlers.retained_max = 1);
    let mut client = server.connect("/versioned");
    assert_eq!(answer(&mut client, "hold"), "v1:1:hold");
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    wait_until_moved(&server, 2);
    replace(&server, "versioned_wsh.so", &versions.build(3, &[]));
    let status = server.wait_for("it is refused", |status| !status.refused.is_empty());
    assert!(status.refused[0].reason.contains("handlers.retained_max is 1"), "{status}");
    assert_eq!(answer(&mut client, "a"), "v2:2:a");
}

#[test]
fn a_server_that_stops_in_the_middle_of_a_reload_closes_everybody() {
    let versions = Versions::new();
    let server = server_of(&versions.build(1, &[]));
    let mut clients: Vec<_> = (0..100).map(|_| server.connect("/versioned")).collect();
    replace(&server, "versioned_wsh.so", &versions.build(2, &[]));
    server.wait_for("the new generation is active", |status| active(status) == 2);
    server.stop_while(|| {
        for client in &mut clients {
            assert_eq!(client.closed().0, 1001);
            client.wait_for_end();
        }
    });
}
