//! Handlers that are written from top to bottom, one with a future and sockets of its own, and one with threads.

use wshd::config::HandlerRules;
use wshd::control::Request;

use crate::support::{Client, Raw, ServerProcess, TestServer, handler_library};

// ---- the proxy ---------------------------------------------------------------------------------------------------------

/// The proxy and its upstream are of one server, whose port is known when it has started.
fn proxy_to(path: &str) -> TestServer {
    let server = TestServer::start(&["proxy", "echo"]);
    let (status, body) = Client::open(server.address(), "/proxy", &[]).err().expect("refused");
    assert!(status == 503 && body.contains("[handlers.proxy.config]"), "{status} {body}");
    // A name, which takes a thread to look up.
    let upstream = format!(r#"{{"upstream":"ws://localhost:{}{path}"}}"#, server.address().port());
    server.reload_with(|config| {
        let rules = HandlerRules { config: Some(upstream), ..HandlerRules::default() };
        config.handlers.each.insert("proxy".into(), rules);
    });
    server.wait_for("the proxy knows its upstream", |status| {
        let proxy = status.handlers.iter().find(|handler| handler.path == "/proxy");
        proxy.and_then(|proxy| proxy.active.as_ref()).is_some_and(|active| active.number == 2)
    });
    server
}

#[test]
fn the_proxy_passes_messages_and_the_end_on_both_ways() {
    let server = proxy_to("/echo");
    let offer = [("Sec-WebSocket-Protocol", "echo.wsh, other")];
    let mut client = Client::open(server.address(), "/proxy", &offer).expect("accepted");
    assert_eq!(client.response.headers()["Sec-WebSocket-Protocol"], "echo.wsh");
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    for size in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
        let bytes: Vec<u8> = (0..size).map(|index| index as u8).collect();
        client.send_binary(&bytes);
        assert!(client.binary() == bytes, "{size} bytes");
    }
    for number in 0..100 {
        client.send_text(&number.to_string());
    }
    for number in 0..100 {
        assert_eq!(client.text(), number.to_string());
    }
    // The upstream ends it.
    client.send_text("Goodbye");
    assert_eq!(client.text(), "Goodbye");
    assert_eq!(client.closed().0, 1000);
    client.wait_for_end();
    // The peer ends it.
    let mut client = server.connect("/proxy");
    assert_eq!(client.close_with(4001, "enough"), (4001, "enough".into()));
    // The upstream's session has ended too.
    server.wait_for("nobody is left", |status| {
        status
            .handlers
            .iter()
            .all(|handler| handler.active.as_ref().is_some_and(|active| active.sessions == 0))
    });
}

#[test]
fn an_upstream_that_refuses_is_a_bad_gateway() {
    let server = proxy_to("/nothing_here");
    assert_eq!(Raw::upgraded(server.address(), "/proxy").close_code(), 1014);
}

/// A session with an upstream stays on the old code, whose runtime keeps no thread when it has ended.
#[test]
fn the_proxy_drains_and_is_taken_out_of_memory() {
    let server = proxy_to("/echo");
    let mut client = server.connect("/proxy");
    client.send_text("before");
    assert_eq!(client.text(), "before");
    std::fs::remove_file(server.folder().join(handler_library("proxy").file_name().unwrap())).unwrap();
    server.ask(Request::Reload(None));
    client.send_text("after");
    assert_eq!(client.text(), "after");
    client.close();
    let status = server.wait_for("it has ended", |status| status.handlers.len() == 1);
    assert_eq!(status.retained, []);
}

#[test]
fn without_a_config_the_proxy_starts_without_a_word() {
    let server = ServerProcess::start(&["proxy", "guess", "echo"], "");
    server.signal("TERM");
    let (screen, log, status) = server.wait();
    assert!(status.success() && screen.contains("/proxy"), "{screen}");
    assert!(!screen.contains("refused") && !log.contains("ERROR") && !log.contains("WARN"), "{screen}{log}");
}

// ---- the game ----------------------------------------------------------------------------------------------------------

#[test]
fn a_game_is_played_on_a_thread_that_ends_with_it() {
    let server = TestServer::start(&["guess", "echo"]);
    let mut players: Vec<_> = (0..20).map(|_| server.connect("/guess?seed=7")).collect();
    for player in &mut players {
        assert!(player.text().contains("1 to 100"));
        let (mut least, mut most) = (1_u32, 100);
        loop {
            let number = least.midpoint(most);
            player.send_text(&number.to_string());
            match player.text().as_str() {
                "more" => least = number + 1,
                "less" => most = number - 1,
                found => {
                    assert!(found.starts_with("yes, after "), "{found}");
                    break;
                }
            }
        }
        assert_eq!(player.closed().0, 1000);
        player.wait_for_end();
    }
    let mut leaver = server.connect("/guess");
    leaver.text();
    leaver.close();
    std::fs::remove_file(server.folder().join(handler_library("guess").file_name().unwrap())).unwrap();
    server.ask(Request::Reload(None));
    let status = server.wait_for("it has ended", |status| status.handlers.len() == 1);
    assert_eq!(status.retained, [], "its threads are gone, and so is it");
}
