//! What is published, and who hears it.

use std::path::Path;

use wshd::config::SlowPeer;
use wshd::control::{Request, Status};

use crate::support::{Client, Raw, TestServer, compile_example, handler_library, masked};

fn ask(client: &mut Client, text: &str) -> String {
    client.send_text(text);
    client.text()
}

/// A session that has subscribed to `news`.
fn subscriber(server: &TestServer, path: &str) -> Client {
    let mut client = server.connect(path);
    assert_eq!(ask(&mut client, "join news"), "joined");
    client
}

fn dropped(status: &Status) -> u64 {
    status.handlers.iter().filter_map(|handler| handler.active.as_ref()).map(|active| active.dropped).sum()
}

// ---- who hears ---------------------------------------------------------------------------------------------------------

#[test]
fn subscribers_hear_and_nobody_else_does() {
    let server = TestServer::start(&["misbehaving"]);
    let (mut ann, mut bob) = (subscriber(&server, "/misbehaving"), subscriber(&server, "/misbehaving"));
    let mut eve = server.connect("/misbehaving");
    assert_eq!(ask(&mut eve, "count news"), "2");
    ann.send_text("others news one");
    assert_eq!(bob.text(), "one");
    bob.send_text("all news two");
    assert_eq!((ann.text(), bob.text()), ("two".into(), "two".into()), "and not what it said itself");
    eve.send_text("all news three");
    assert_eq!((ann.text(), bob.text()), ("three".into(), "three".into()), "without a subscription");
    assert_eq!(ask(&mut bob, "leave news"), "left");
    assert_eq!(ask(&mut bob, "leave news"), "was not there");
    ann.send_text("all news four");
    assert_eq!(ann.text(), "four");
    ann.close();
    assert_eq!(ask(&mut eve, "count news"), "0");
    assert_eq!(ask(&mut eve, "join "), "the name of a topic has 1 to 255 bytes");
    assert_eq!(ask(&mut eve, "status"), "Accepted", "nobody needs to hear");
}

#[test]
fn a_topic_is_the_handlers_own_unless_it_is_shared_on_purpose() {
    let library = handler_library("misbehaving");
    let server = TestServer::prepare(
        |_| {},
        |folder| {
            for name in ["a_wsh.so", "b_wsh.so"] {
                std::fs::copy(&library, folder.join(name)).unwrap();
            }
        },
    );
    let server = server.unwrap_or_else(|error| panic!("the server does not start: {error}"));
    let (mut ann, mut bob) = (subscriber(&server, "/a"), subscriber(&server, "/b"));
    assert_eq!(
        (ask(&mut ann, "join *news"), ask(&mut bob, "join *news")),
        ("joined".into(), "joined".into())
    );
    ann.send_text("all news mine");
    ann.send_text("all *news ours");
    assert_eq!((ann.text(), ann.text()), ("mine".into(), "ours".into()));
    assert_eq!(bob.text(), "ours");
}

/// Members live on different workers, and speak at the same time.
#[test]
fn everybody_hears_the_same_order() {
    const SPEAKERS: usize = 4;
    const LINES: usize = 200;
    let server = TestServer::start(&["chat"]);
    let mut members: Vec<Client> = Vec::new();
    for index in 0..SPEAKERS {
        members.push(server.connect(&format!("/chat?room=blue&name=m{index}")));
        for member in &mut members {
            assert_eq!(member.text(), format!("* m{index} joined"));
        }
    }
    let heard: Vec<Vec<String>> = std::thread::scope(|scope| {
        let speak = |mut member: Client| {
            move || {
                (0..LINES).for_each(|line| member.send_text(&line.to_string()));
                (0..LINES * SPEAKERS).map(|_| member.text()).collect()
            }
        };
        let threads: Vec<_> = members.into_iter().map(|member| scope.spawn(speak(member))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it hears all")).collect()
    });
    assert!(heard.iter().all(|lines| *lines == heard[0]));
    for index in 0..SPEAKERS {
        let name = format!("m{index}: ");
        let own = heard[0].iter().filter_map(|line| line.strip_prefix(&name)).collect::<Vec<_>>();
        assert_eq!(
            own,
            (0..LINES).map(|line| line.to_string()).collect::<Vec<_>>(),
            "in the speaker's order"
        );
    }
}

#[test]
fn a_session_subscribes_to_so_many_topics_and_no_more() {
    let server = TestServer::start(&["misbehaving"]);
    let mut client = server.connect("/misbehaving");
    assert_eq!(ask(&mut client, "join-many 2000"), "1024");
    assert_eq!(ask(&mut client, "join more"), "the session has subscribed to 1024 topics already");
    assert_eq!(ask(&mut client, "leave 7"), "left");
    assert_eq!(ask(&mut client, "join more"), "joined");
    let mut other = server.connect("/misbehaving");
    assert_eq!(ask(&mut other, "count more"), "1");
    client.close();
    assert_eq!(ask(&mut other, "count more"), "0");
    assert_eq!(ask(&mut other, "count 8"), "0");
}

// ---- reloads -----------------------------------------------------------------------------------------------------------

#[test]
fn who_moves_to_new_code_hears_everything_once_and_in_order() {
    const LISTENERS: usize = 6;
    const LINES: usize = 3000;
    const RELOADS: u8 = 8;
    let server = TestServer::start(&["chat"]);
    let mut speaker = server.connect("/chat?name=speaker");
    assert_eq!(speaker.text(), "* speaker joined");
    let listeners: Vec<_> = (0..LISTENERS)
        .map(|index| {
            let mut listener = server.connect(&format!("/chat?name=l{index}"));
            assert_eq!(listener.text(), format!("* l{index} joined"));
            assert_eq!(speaker.text(), format!("* l{index} joined"));
            listener
        })
        .collect();
    std::thread::scope(|scope| {
        for mut listener in listeners {
            scope.spawn(move || {
                let mut next = 0;
                while next < LINES {
                    let line = listener.text();
                    if line.starts_with('*') {
                        continue;
                    }
                    assert_eq!(line, format!("speaker: {next}"));
                    next += 1;
                }
            });
        }
        scope.spawn(move || {
            // Some are always on the way, and never more than wait for a peer. It stays until it has heard the last one: a connection that
            // is dropped with something unread is reset, and what it has sent last may be lost.
            for line in 0..LINES + 50 {
                if line < LINES {
                    speaker.send_text(&line.to_string());
                }
                if line >= 50 {
                    assert_eq!(speaker.text(), format!("speaker: {}", line - 50));
                }
            }
        });
        for version in 1..=RELOADS {
            server.put_version(&handler_library("chat"), version);
            server.ask(Request::Reload(Some("chat".into())));
        }
    });
    let status = server.wait_for("the old code is gone", |status| status.handlers[0].leaving.is_empty());
    assert_eq!(status.handlers[0].active.as_ref().map(|active| active.number), Some(u64::from(RELOADS) + 1));
    assert_eq!(status.retained, []);
}

#[test]
fn what_a_handler_counts_is_in_the_status_and_goes_on_with_new_code() {
    let server = TestServer::start(&["chat"]);
    let mut ann = server.connect("/chat?name=Ann");
    ann.text();
    let said = |status: &Status| {
        let metrics = &status.handlers[0].metrics;
        metrics
            .iter()
            .map(|metric| (metric.name.clone(), metric.kind.clone(), metric.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(&mut ann, "one"), "Ann: one");
    assert_eq!(said(&server.status()), [("messages_said".into(), "counter".into(), 1)]);
    server.put_version(&handler_library("chat"), 1);
    server.wait_for("the session has moved", |status| {
        status.handlers[0].active.as_ref().is_some_and(|active| active.number == 2 && active.sessions == 1)
    });
    assert_eq!(ask(&mut ann, "two"), "Ann: two");
    let status = server.status();
    assert_eq!(said(&status), [("messages_said".into(), "counter".into(), 2)]);
    assert!(status.to_string().contains("messages_said 2  Messages that members have said"), "{status}");
}

// ---- peers that do not read --------------------------------------------------------------------------------------------

/// So much does not fit into the sockets of a peer that does not read.
const FLOOD: (u32, usize) = (2000, 20_000);

#[test]
fn a_subscriber_that_does_not_read_is_closed_with_1013_and_the_others_hear_everything() {
    let server = TestServer::start(&["misbehaving"]);
    let mut deaf = Raw::upgraded(server.address(), "/misbehaving");
    deaf.write(&masked(0x81, b"join news"));
    assert_eq!(deaf.read_exactly(8), b"\x81\x06joined");
    let mut listeners: Vec<_> = (0..3).map(|_| subscriber(&server, "/misbehaving")).collect();
    let mut speaker = server.connect("/misbehaving");
    let (count, size) = FLOOD;
    for number in 0..count {
        speaker.send_text(&format!("publish-number news {number} {size}"));
        for listener in &mut listeners {
            assert_eq!(listener.binary()[..4], number.to_be_bytes());
        }
    }
    assert_eq!(deaf.close_code(), 1013);
}

/// The numbers of the messages that a peer finds when it begins to read, up to the answer `done`.
fn numbers_until_done(client: &mut Client) -> Vec<u32> {
    let mut numbers = Vec::new();
    loop {
        match client.next() {
            tungstenite::Message::Binary(bytes) => {
                assert_eq!(bytes.len(), FLOOD.1, "whole messages only");
                numbers.push(u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")));
            }
            tungstenite::Message::Text(text) if text == "done" => return numbers,
            tungstenite::Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What a peer gets that reads only after the flood, by the policy.
fn flooded(slow_peer: SlowPeer, published: bool) -> (Vec<u32>, u64) {
    let server = TestServer::with(&["misbehaving"], |config| {
        config.limits.slow_peer = slow_peer;
        // All of it is published in one callback, and waits until that is over.
        config.limits.published_bytes_max = 1 << 30;
    });
    let mut client = subscriber(&server, "/misbehaving");
    let (count, size) = FLOOD;
    if published {
        client.send_text(&format!("publish-numbers news {count} {size}"));
    } else {
        client.send_text(&format!("numbers {count} {size}"));
    }
    server.wait_for("messages were dropped", |status| dropped(status) > 100);
    client.send_text("say done");
    let numbers = numbers_until_done(&mut client);
    let dropped = dropped(&server.status());
    assert_eq!(numbers.len() as u64 + dropped, u64::from(count), "each was heard or counted");
    assert!(numbers.is_sorted(), "in order");
    client.close();
    (numbers, dropped)
}

#[test]
fn drop_newest_keeps_what_was_sent_first() {
    for published in [false, true] {
        let (numbers, _) = flooded(SlowPeer::DropNewest, published);
        let first: Vec<u32> = (0..100).collect();
        assert_eq!(numbers[..100], first, "published: {published}");
    }
}

#[test]
fn drop_oldest_keeps_what_was_sent_last() {
    for published in [false, true] {
        let (numbers, _) = flooded(SlowPeer::DropOldest, published);
        assert_eq!(numbers.last(), Some(&(FLOOD.0 - 1)), "published: {published}");
    }
}

#[test]
fn a_handler_has_a_policy_of_its_own() {
    let server = TestServer::with(&["misbehaving"], |config| {
        let rules = config.handlers.each.entry("misbehaving".into()).or_default();
        rules.slow_peer = Some(SlowPeer::DropOldest);
        config.handlers.workers = 1;
    });
    let mut client = server.connect("/misbehaving");
    client.send_text(&format!("numbers {} {}", FLOOD.0, FLOOD.1));
    server.wait_for("messages were dropped", |status| dropped(status) > 100);
    // Another one, while it runs.
    server.reload_with(|config| config.handlers.each.clear());
    client.send_text("say done");
    assert_eq!(numbers_until_done(&mut client).last(), Some(&(FLOOD.0 - 1)));
    let mut raw = Raw::upgraded(server.address(), "/misbehaving");
    raw.write(&masked(0x81, b"numbers 2000 20000"));
    raw.wait_readable();
    // Both are on one worker, which answers when it has sent all of that.
    assert_eq!(ask(&mut client, "say here"), "here");
    assert_eq!(raw.close_code(), 1013);
}

/// A worker that sits in a handler that blocks does not make the server keep all that is published.
#[test]
fn a_worker_that_is_too_far_behind_misses_and_its_subscribers_know() {
    for slow_peer in [SlowPeer::Close, SlowPeer::DropOldest] {
        let server = TestServer::with(&["misbehaving"], |config| {
            config.limits.slow_peer = slow_peer;
            config.limits.published_bytes_max = 100_000;
        });
        // The first two sessions are on different workers.
        let mut slow = subscriber(&server, "/misbehaving");
        let mut speaker = server.connect("/misbehaving");
        slow.send_text("block:1000");
        speaker.send_text("publish-numbers news 200 1000");
        assert_eq!(ask(&mut speaker, "status"), "Full");
        if slow_peer == SlowPeer::Close {
            assert_eq!(slow.closed().0, 1013);
        } else {
            server.wait_for("they are counted", |status| dropped(status) >= 100);
            slow.send_text("say still here");
            loop {
                if slow.next() == tungstenite::Message::text("still here") {
                    break;
                }
            }
        }
    }
}

// ---- fragments ---------------------------------------------------------------------------------------------------------

/// RFC 6455 section 5.4: the fragments of one message are not interleaved with another one.
#[test]
fn what_comes_while_a_message_is_sent_in_fragments_waits_for_its_end() {
    let server = TestServer::start(&["misbehaving"]);
    let mut ann = subscriber(&server, "/misbehaving");
    let mut bob = subscriber(&server, "/misbehaving");
    ann.send_text("begin one ");
    bob.send_text("all news two");
    assert_eq!(bob.text(), "two");
    ann.send_text("from-thread three");
    ann.send_text("end end");
    assert_eq!(ann.text(), "one end");
    let mut rest = vec![ann.text(), ann.text()];
    // What its own callback sends in between is refused, and on_wake may come before the end or after it.
    if let Some(woken) = rest.iter().position(|text| text == "woken") {
        rest[woken] = ann.text();
    }
    rest.sort();
    assert_eq!(rest, ["three", "two"], "nothing is lost");
}

// ---- other languages ---------------------------------------------------------------------------------------------------

fn examples(fill: impl FnOnce(&Path)) -> TestServer {
    TestServer::prepare(|_| {}, fill).unwrap_or_else(|error| panic!("the server does not start: {error}"))
}

#[test]
fn the_chat_in_c_has_rooms_and_moves_to_new_code() {
    let server = examples(|folder| compile_example("chat.c", folder, "chat_wsh.so"));
    let refused = Client::open(server.address(), "/chat?room=a%20b&name=Ann", &[]).err().expect("refused");
    assert_eq!((refused.0, refused.1.starts_with("say who you are")), (403, true));
    let mut ann = server.connect("/chat?room=blue&name=Ann");
    assert_eq!(ann.text(), "* Ann joined");
    let mut bob = server.connect("/chat?name=Bob&room=blue");
    assert_eq!((ann.text(), bob.text()), ("* Bob joined".into(), "* Bob joined".into()));
    let mut eve = server.connect("/chat?room=red&name=Eve");
    assert_eq!(eve.text(), "* Eve joined");
    ann.send_text("hello");
    assert_eq!((ann.text(), bob.text()), ("Ann: hello".into(), "Ann: hello".into()));
    server.put_version(&server.folder().join("chat_wsh.so"), 1);
    let status = server.wait_for("the sessions have moved", |status| {
        status.handlers[0].active.as_ref().is_some_and(|active| active.number == 2 && active.sessions == 3)
            && status.handlers[0].leaving.is_empty()
    });
    assert_eq!(status.retained, []);
    bob.send_text("back");
    assert_eq!((ann.text(), bob.text()), ("Bob: back".into(), "Bob: back".into()));
    bob.close();
    assert_eq!(ann.text(), "* Bob left");
    ann.send_binary(b"\0");
    assert_eq!(ann.closed(), (1003, "this room speaks text".into()));
    assert_eq!(ask(&mut eve, "alone"), "Eve: alone");
}

#[test]
fn the_board_in_cpp_is_one_text_for_everybody_and_leaves_nothing_behind() {
    let server = examples(|folder| compile_example("board.cc", folder, "board_wsh.so"));
    let mut ann = server.connect("/board");
    assert_eq!(ann.text(), "(empty)");
    assert_eq!(ask(&mut ann, "one"), "one");
    let mut bob = server.connect("/board");
    assert_eq!(bob.text(), "one");
    bob.send_text("two");
    assert_eq!((ann.text(), bob.text()), ("two".into(), "two".into()));
    bob.close();
    assert_eq!(ask(&mut ann, "three"), "three");
    ann.send_binary(b"\0");
    assert_eq!(ann.closed().0, 1003);
    ann.wait_for_end();
    std::fs::remove_file(server.folder().join("board_wsh.so")).unwrap();
    let status = server.wait_for("the library is gone", |status| {
        status.handlers.iter().all(|handler| handler.active.is_none() && handler.leaving.is_empty())
    });
    assert_eq!(status.retained, []);
}
