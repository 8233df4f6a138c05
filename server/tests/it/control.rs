//! Telling a running server what to do: config, signals, the control socket.

use std::net::TcpListener;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use wshd::control::{Answer, Status};

use crate::support::{Client, ServerProcess, TestServer, wshd};

// ---- config ------------------------------------------------------------------------------------------------------------

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port()
}

fn done(answer: Answer) -> Status {
    match answer {
        Answer::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_changed_limit_holds_for_sessions_that_are_open_and_for_new_ones() {
    let server = TestServer::start(&["echo"]);
    let mut open = server.connect("/echo");
    open.send_binary(&[1; 2000]);
    assert_eq!(open.binary().len(), 2000);
    done(server.reload_with(|config| config.limits.message_bytes_max = 1000));
    let mut new = server.connect("/echo");
    for client in [&mut open, &mut new] {
        client.send_binary(&[1; 1000]);
        assert_eq!(client.binary().len(), 1000);
        client.send_binary(&[1; 1001]);
        assert_eq!(client.closed().0, 1009);
    }
}

#[test]
fn a_changed_port_answers_and_the_sessions_of_the_old_one_live_on() {
    let server = TestServer::start(&["echo"]);
    let old = server.address();
    let mut client = server.connect("/echo");
    let port = free_port();
    let status = done(server.reload_with(|config| config.listen.port = port));
    assert_eq!(status.listening, [(old.ip(), port).into()]);
    let mut new = Client::open(status.listening[0], "/echo", &[]).expect("the new port answers");
    for client in [&mut client, &mut new] {
        client.send_text("hello");
        assert_eq!(client.text(), "hello");
    }
    assert!(std::net::TcpStream::connect(old).is_err(), "the old port does not answer any more");
}

#[test]
fn a_port_that_changes_back_and_forth_under_load_loses_nobody() {
    let server = TestServer::start(&["counter"]);
    let ports = [server.address().port(), free_port()];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut clients: Vec<_> = (0..4).map(|_| server.connect("/counter")).collect();
        let stop = &stop;
        for mut client in clients.drain(..) {
            scope.spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    client.send_text("x");
                    assert_eq!(client.text(), count.to_string());
                }
                client.close();
            });
        }
        for round in 1..=10 {
            let port = ports[round % 2];
            let status = done(server.reload_with(|config| config.listen.port = port));
            // The answer comes when it is in force: no waiting is needed for the new port.
            let mut new = Client::open(status.listening[0], "/counter", &[]).expect("the new port answers");
            new.send_text("x");
            assert_eq!((status.listening[0].port(), new.text().as_str()), (port, "1"));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_port_that_cannot_be_had_leaves_everything_as_it_was() {
    let server = TestServer::start(&["echo"]);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let answer = server.reload_with(|config| {
        config.listen.port = taken;
        config.limits.message_bytes_max = 10;
    });
    let Answer::Failed(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains(&format!("cannot listen on 127.0.0.1 port {taken}")), "{why}");
    let mut client = server.connect("/echo");
    client.send_text("longer than ten bytes");
    assert_eq!(client.text(), "longer than ten bytes", "nothing of the config is in force");
}

#[test]
fn other_folders_bring_other_handlers() {
    let server = TestServer::start(&["echo"]);
    let other = TestServer::start(&["counter"]);
    let mut client = server.connect("/echo");
    let folder = other.folder();
    done(server.reload_with(|config| config.handlers.folders = vec![folder]));
    server.wait_for("the handlers of the new folder are served", |status| {
        status.handlers.iter().any(|handler| handler.path == "/counter" && handler.active.is_some())
    });
    server.connect("/counter").close();
    client.send_text("hello");
    assert_eq!(client.text(), "hello", "who is connected finishes");
    assert!(Client::open(server.address(), "/echo", &[]).is_err(), "/echo has no library any more");
}

/// A hundred ways to be wrong in small: each is refused with its place, and nothing changes.
#[test]
fn broken_config_files_leave_the_old_config_in_force() {
    let server = ServerProcess::start(&["echo"], "");
    let sound = "[limits]\nmessage_bytes_max = 1000\n";
    let broken = [
        "[limits\n",
        "limits]\n",
        "[limits]\nx = 1\n",
        "[limits]\nmessage_bytes_max = \"1\"\n",
        "= 1\n",
        "[limits]\nmessage_bytes_max = -1\n",
        "[listen]\nport = 65536\n",
        "[listen]\nport = 1.5\n",
        "[nope]\n",
        "[listen]\nhosts = []\n",
        "[listen]\nhosts = [\"a b\"]\n",
        "[log]\nlevel = \"loud\"\n",
        "\u{0}",
        "[handlers]\nwatch = 1\n",
        "[handlers]\nfolders = \"\"\n",
        "[handlers.echo]\nreload = \"never\"\n",
        "[handlers.echo]\nrelode = \"drain\"\n",
        "[limits]\nidle_seconds_max = 1\n",
        "[limits]\nping_seconds = true\n",
        "[limits]\noutgoing_bytes_low = 999999999\n",
        "[upgrade]\norigins = 1\n",
        "[files]\nroot = \"missing\"\n",
        "[control]\nenabled = \"yes\"\n",
        "port = 1\n",
        "[limits]\n[limits]\n",
        "[limits]\nmessage_bytes_max = 1\nmessage_bytes_max = 2\n",
        "[handlers]\nworkers = 99999\n",
        "[limits]\nmessage_bytes_max = 99999999999999999999\n",
        "x",
        "[handlers]\nretained_max = -1\n",
    ];
    assert!(broken.len() >= 30);
    for text in broken {
        std::fs::write(server.folder().join("config.toml"), text).unwrap();
        server.signal("HUP");
        let (output, said) = tell(&server, &["reload"]);
        assert_eq!(output.status.code(), Some(1), "{text:?}: {said}");
        let has_place = said.contains("config.toml:") || said.contains("missing");
        assert!(has_place, "{text:?}: {said}");
        let mut client = Client::open(server.address(), "/echo", &[]).expect("served");
        client.send_binary(&[7; 5000]);
        assert_eq!(client.binary().len(), 5000, "{text:?}: the old limit is in force");
    }
    std::fs::write(server.folder().join("config.toml"), sound).unwrap();
    let (output, said) = tell(&server, &["reload"]);
    assert!(output.status.success(), "{said}");
    let mut client = Client::open(server.address(), "/echo", &[]).expect("served");
    client.send_binary(&[7; 5000]);
    assert_eq!(client.closed().0, 1009);
}

// ---- control socket and signals ----------------------------------------------------------------------------------------

/// Runs wshd with these arguments and the server's config.
fn tell(server: &ServerProcess, arguments: &[&str]) -> (Output, String) {
    let mut command = wshd(server.folder());
    let output = command.args(["--config", "config.toml"]).args(arguments).output().expect("wshd was built");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn status_says_what_is_served_to_people_and_to_programs() {
    let server = ServerProcess::start(&["echo", "chat"], "");
    let _client = Client::open(server.address(), "/echo", &[]).expect("accepted");
    let (output, said) = tell(&server, &["status"]);
    assert!(output.status.success(), "{said}");
    for words in ["/echo  generation 1", "/chat", "1 sessions", "on reload: migrate", "libecho_wsh.so"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (_, said) = tell(&server, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(status["handlers"][1]["path"], "/echo");
    assert_eq!(status["handlers"][1]["active"]["number"], 1);
    assert_eq!(status["listening"][0], server.address().to_string());
}

#[test]
fn rollback_and_reload_are_answered_in_words() {
    let server = ServerProcess::start(&["echo"], "");
    let (output, said) = tell(&server, &["rollback", "echo"]);
    assert_eq!(
        (output.status.code(), said.as_str()),
        (Some(1), "wshd: /echo has had no version before this one\n")
    );
    let (output, said) = tell(&server, &["reload", "nothing"]);
    assert_eq!((output.status.code(), said.as_str()), (Some(1), "wshd: there is no handler nothing\n"));
    let (output, said) = tell(&server, &["reload", "echo"]);
    assert!(output.status.success() && said.contains("/echo  generation 1"), "{said}");
}

#[test]
fn stop_ends_the_server_as_sigterm_does() {
    let server = ServerProcess::start(&["echo"], "");
    let mut client = Client::open(server.address(), "/echo", &[]).expect("accepted");
    let (output, said) = tell(&server, &["stop"]);
    assert!(output.status.success(), "{said}");
    assert_eq!(client.closed().0, 1001);
    client.wait_for_end();
    let socket = server.folder().join("wshd.sock");
    let (_, log, status) = server.wait_and_keep();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!socket.exists(), "it does not leave its socket behind");
}

#[test]
fn without_a_server_there_is_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    let output = wshd(folder.path()).args(["--config", "config.toml", "status"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("wshd.sock") && said.contains("is it running"), "{said}");
}

#[test]
fn only_the_owner_may_open_the_socket_and_nonsense_is_answered() {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    let server = ServerProcess::start(&["echo"], "");
    let path = server.folder().join("wshd.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for (request, expected) in [
        ("nonsense", "this is no request"),
        ("{\"version\":9,\"request\":\"status\"}", "speaks version 1"),
        ("{\"version\":1,\"request\":\"dance\"}", "there are reload, rollback, status, stop"),
        ("{\"version\":1,\"request\":\"status\"}", "\"ok\":true"),
    ] {
        writeln!(stream, "{request}").unwrap();
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        assert!(answer.contains(expected), "{request}: {answer}");
    }
}

#[test]
fn sighup_reads_the_config_again() {
    // Without a watch only the signal can make the server look.
    let server = ServerProcess::start(&["echo"], "[handlers]\nwatch = \"off\"\n");
    std::fs::write(
        server.folder().join("config.toml"),
        "[limits]\nmessage_bytes_max = 10\n[handlers]\nwatch = \"off\"\n",
    )
    .unwrap();
    let mut client = Client::open(server.address(), "/echo", &[]).expect("accepted");
    client.send_text("longer than ten bytes");
    assert_eq!(client.text(), "longer than ten bytes");
    server.signal("HUP");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let mut client = Client::open(server.address(), "/echo", &[]).expect("accepted");
        client.send_text("longer than ten bytes");
        if matches!(client.next(), tungstenite::Message::Close(_)) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the signal changes nothing");
    }
}
