//! Behind another server: Unix sockets, and for whom a proxy comes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use wshd::StartError;
use wshd::config::{Config, Origins};
use wshd::control::Answer;

use crate::support::{Client, Raw, ServerProcess, TestServer, compile_c, upgrade_head, wshd};

// ---- Unix sockets ------------------------------------------------------------------------------------------------------

/// A folder for sockets, and a server that listens on one of them.
fn with_socket(
    handlers: &[&str],
    change: impl FnOnce(&mut Config),
) -> (tempfile::TempDir, PathBuf, TestServer) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("ws.sock");
    let server = TestServer::with(handlers, |config| {
        config.listen.unix = vec![socket.clone()];
        change(config);
    });
    (folder, socket, server)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_unix_socket_serves_all_that_a_port_serves() {
    let (_folder, socket, server) = with_socket(&["echo"], |_| {});
    assert_eq!(server.status().listening_unix, std::slice::from_ref(&socket));
    assert_eq!(mode(&socket), 0o660);
    let mut client = Client::open_unix(&socket, "/echo", &[]).expect("the upgrade is accepted");
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    // More than the kernel keeps, both ways, in frames of every length.
    for length in [0, 1, 125, 126, 65_536, 1 << 20] {
        let message = vec![7; length];
        client.send_binary(&message);
        assert!(client.binary() == message, "{length} bytes");
    }
    assert_eq!(client.close_with(3001, "bye"), (3001, "bye".to_owned()));
    let refused = Client::open_unix(&socket, "/nowhere", &[]).err().expect("there is no such path");
    assert_eq!(refused.0, 404);
    server.assert_serves("/echo");
}

#[test]
fn what_the_peer_sends_right_behind_its_request_is_not_lost() {
    let (_folder, socket, _server) = with_socket(&["echo"], |_| {});
    let mut raw = Raw::connect_unix(&socket);
    let mut bytes = upgrade_head("/echo").into_bytes();
    bytes.extend(crate::support::masked(0x81, b"early"));
    raw.write(&bytes);
    assert!(raw.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(raw.read_exactly(7), b"\x81\x05early");
}

/// The deadlines of a session and of a handshake are the same as over TCP.
#[test]
fn who_says_nothing_on_a_unix_socket_is_given_up() {
    let second = std::time::Duration::from_secs(1);
    let (_folder, socket, _server) = with_socket(&["echo"], |config| {
        config.limits.handshake_seconds_max = second;
        config.limits.ping_seconds = second;
        config.limits.pong_seconds_max = second;
    });
    Raw::connect_unix(&socket).read_until_gone();
    let mut raw = Raw::connect_unix(&socket);
    raw.upgrade("/echo");
    assert_eq!(raw.read_exactly(2), b"\x89\x00", "a ping");
    assert_eq!(raw.close_code(), 1008);
    raw.read_to_end();
}

#[test]
fn a_session_on_a_unix_socket_goes_on_after_a_reload() {
    let (_folder, socket, server) = with_socket(&["counter"], |_| {});
    let mut client = Client::open_unix(&socket, "/counter", &[]).expect("the upgrade is accepted");
    client.send_text("one");
    assert_eq!(client.text(), "1");
    server.put_version(&crate::support::handler_library("counter"), 2);
    server.wait_for("the session has moved to the new version", |status| {
        status.handlers[0].active.as_ref().is_some_and(|active| active.number == 2 && active.sessions == 1)
    });
    client.send_text("two");
    assert_eq!(client.text(), "2");
}

#[test]
fn sockets_come_go_and_change_their_mode_with_the_config() {
    let (folder, first, server) = with_socket(&["echo"], |_| {});
    let second = folder.path().join("second.sock");
    let mut open = Client::open_unix(&first, "/echo", &[]).expect("the first socket answers");
    let done = |answer: Answer| assert!(matches!(answer, Answer::Status(_)), "{answer:?}");
    done(server.reload_with(|config| {
        config.listen.unix = vec![first.clone(), second.clone()];
        config.listen.unix_mode = 0o600;
    }));
    assert_eq!([mode(&first), mode(&second)], [0o600, 0o600]);
    done(server.reload_with(|config| config.listen.unix = vec![second.clone()]));
    assert!(!first.exists(), "it is removed");
    Client::open_unix(&second, "/echo", &[]).expect("the second socket answers").close();
    open.send_text("still here");
    assert_eq!(open.text(), "still here", "who came by the first one stays");
    // At once, as somebody does who has changed the wrong line.
    done(server.reload_with(|config| config.listen.unix = vec![first.clone()]));
    Client::open_unix(&first, "/echo", &[]).expect("the first socket is back").close();
    server.assert_serves("/echo");
}

#[test]
fn a_socket_that_cannot_be_had_leaves_everything_as_it_was() {
    let (folder, socket, server) = with_socket(&["echo"], |_| {});
    let missing = folder.path().join("missing/ws.sock");
    let answer = server.reload_with(|config| config.listen.unix = vec![missing.clone()]);
    let Answer::Failed(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains("missing/ws.sock") && why.contains("its folder has to exist"), "{why}");
    Client::open_unix(&socket, "/echo", &[]).expect("the old socket answers").close();
}

#[test]
fn a_socket_of_a_server_that_is_gone_is_replaced_and_one_that_answers_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("ws.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    assert!(socket.exists());
    let start = || {
        TestServer::prepare(
            |config| {
                config.listen.unix = vec![socket.clone()];
                config.handlers.allow_empty = true;
            },
            |_| {},
        )
    };
    let server = start().unwrap_or_else(|error| panic!("{error}"));
    let error = start().err().expect("another server answers there");
    assert!(matches!(error, StartError::Bind(_)));
    let error = error.to_string();
    assert!(error.contains("ws.sock: another server answers there: stop that one"), "{error}");
    UnixStream::connect(&socket).expect("the first one still answers");
    server.stop_while(|| {});
    assert!(!socket.exists(), "it is removed at the end");
}

#[test]
fn a_server_that_only_those_on_its_machine_reach_has_no_port() {
    let (_folder, socket, server) = with_socket(&["echo"], |config| config.listen.hosts.clear());
    assert_eq!(server.status().listening, []);
    Client::open_unix(&socket, "/echo", &[]).expect("the socket answers").close();
    let screen = wshd::screen::started(server.report());
    assert!(!screen.contains("localhost") && screen.contains("    /echo  "), "{screen}");
}

/// As its user starts it, with a screen that says so, and a socket that is gone afterwards.
#[test]
fn the_program_says_where_its_unix_socket_is_and_takes_it_away_at_the_end() {
    let server = ServerProcess::start(&["echo"], "[listen]\nunix = \"ws.sock\"\n");
    let socket = server.folder().join("ws.sock");
    Client::open_unix(&socket, "/echo", &[]).expect("the upgrade is accepted").close();
    let folder = server.folder().to_owned();
    let status = wshd(&folder).args(["--config", "config.toml", "status"]).output().expect("it runs");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("listening on unix:ws.sock"), "{status}");
    let other = wshd(&folder)
        .args(["--unix", "ws.sock", "--port", "0", "--websock-handlers", "handlers"])
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(1), "{error}");
    assert!(
        error.contains("cannot listen on the Unix socket ws.sock: another server answers there"),
        "{error}"
    );
    let checked = wshd(&folder)
        .args(["--unix", "ws.sock", "--websock-handlers", "handlers", "configtest"])
        .output()
        .expect("it runs");
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains("and the same on unix:ws.sock"), "{checked}");
    server.signal("TERM");
    let (screen, log, ended) = server.wait_and_keep();
    assert!(ended.success(), "{log}");
    assert!(screen.contains("listening on unix:ws.sock"), "{screen}");
    assert!(log.contains("peer=unix"), "{log}");
    assert!(!socket.exists());
}

// ---- for whom a proxy comes --------------------------------------------------------------------------------------------

/// A server whose handler says who its peer is.
fn asking(change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, PathBuf, TestServer) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("ws.sock");
    let server = TestServer::prepare(
        |config| {
            config.listen.unix = vec![socket.clone()];
            change(config);
        },
        |folder| compile_c("identity", folder, "identity_wsh.so"),
    );
    (folder, socket, server.unwrap_or_else(|error| panic!("{error}")))
}

fn trust(config: &mut Config, proxies: &[&str]) {
    config.listen.trusted_proxies = proxies.iter().map(|proxy| proxy.parse().expect("a proxy")).collect();
}

/// What the handler is told of the peer, and of its scheme, which has to be the same in on_upgrade and later.
fn who(mut client: Client) -> (Option<String>, String) {
    let header = |name| client.response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (peer, scheme) = (header("x-peer"), header("x-scheme").unwrap());
    client.send_text("peer");
    assert_eq!(client.text(), peer.clone().unwrap_or_else(|| "none".into()));
    client.send_text("?");
    assert_eq!(client.text().split('|').next(), Some(scheme.as_str()));
    (peer, scheme)
}

const FORWARDED: [(&str, &str); 2] =
    [("X-Forwarded-For", "203.0.113.9, 192.0.2.7"), ("X-Forwarded-Proto", "https")];

#[test]
fn nobody_is_believed_unless_the_config_trusts_it() {
    let (_folder, socket, server) = asking(|config| trust(config, &["192.0.2.0/24"]));
    let by_tcp = who(Client::open(server.address(), "/identity", &FORWARDED).unwrap());
    assert!(by_tcp.0.is_some_and(|peer| peer.starts_with("127.0.0.1:")));
    assert_eq!(by_tcp.1, "ws");
    let by_unix = who(Client::open_unix(&socket, "/identity", &FORWARDED).unwrap());
    assert_eq!(by_unix, (None, "ws".into()));
}

#[test]
fn a_trusted_proxy_says_for_whom_it_comes_and_how() {
    let (_folder, socket, server) = asking(|config| trust(config, &["unix", "127.0.0.0/8"]));
    let told = (Some("192.0.2.7:0".to_owned()), "wss".to_owned());
    assert_eq!(who(Client::open(server.address(), "/identity", &FORWARDED).unwrap()), told);
    assert_eq!(who(Client::open_unix(&socket, "/identity", &FORWARDED).unwrap()), told);
    // One that says nothing comes for itself.
    assert_eq!(who(Client::open_unix(&socket, "/identity", &[]).unwrap()), (None, "ws".into()));
}

/// A page that came without TLS is anybody's on the way, also where the proxy takes TLS off.
#[test]
fn a_page_without_tls_is_foreign_where_a_trusted_proxy_was_asked_by_tls() {
    let open = |socket: &Path, origin: &str, proto: &str| {
        let headers = [("Origin", origin), ("X-Forwarded-Proto", proto)];
        Client::open_unix(socket, "/identity", &headers).map(drop).map_err(|(status, _)| status)
    };
    let (_folder, socket, server) = asking(|config| trust(config, &["unix"]));
    assert_eq!(open(&socket, "https://localhost", "https"), Ok(()));
    assert_eq!(open(&socket, "http://localhost", "https"), Err(403));
    assert_eq!(open(&socket, "http://localhost", "http"), Ok(()));
    let answer = server.reload_with(|config| {
        trust(config, &[]);
        config.upgrade.origins = Origins::SameHost;
    });
    assert!(matches!(answer, Answer::Status(_)), "{answer:?}");
    assert_eq!(open(&socket, "http://localhost", "https"), Ok(()), "who is not trusted is not heard");
}

#[test]
fn those_behind_a_trusted_proxy_have_their_own_share_of_connections() {
    let (_folder, socket, server) = asking(|config| {
        trust(config, &["unix", "127.0.0.1"]);
        config.limits.connections_per_peer_max = 2;
    });
    let open = |address: &str| {
        let headers = [("X-Forwarded-For", address)];
        Client::open_unix(&socket, "/identity", &headers)
    };
    let ann = [open("192.0.2.1").unwrap(), open("192.0.2.1").unwrap()];
    let (status, why) = open("192.0.2.1").err().expect("two are all that it may have");
    assert_eq!((status, why.as_str()), (503, "too many connections from your address now\n"));
    let by_tcp = Client::open(server.address(), "/identity", &[("X-Forwarded-For", "192.0.2.1")]);
    assert_eq!(by_tcp.err().expect("whatever way it comes").0, 503);
    open("192.0.2.2").expect("another address is not concerned");
    // Nobody said for whom these come: there is nothing to count them by.
    let _many: Vec<_> = (0..5).map(|_| Client::open_unix(&socket, "/identity", &[]).unwrap()).collect();
    drop(ann);
    server.wait_for("the sessions have ended", |status| status.connections <= 6);
    open("192.0.2.1").expect("its places are free again");
}
