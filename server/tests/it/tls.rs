//! The same inside of TLS, certificates, and clients that show theirs.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::{HandshakeKind, SupportedProtocolVersion, version};
use wshd::config::{ClientAuth, Config, SlowPeer, TlsVersion};
use wshd::control::Answer;

use crate::support::{
    Authority, Client, Pair, PairFiles, Raw, ServerProcess, TestServer, TlsStream, compile_c, compile_c_with,
    connect, masked, shake_hands, shake_hands_over, upgrade_head, wshd,
};

/// A server whose only port speaks TLS, for `localhost`.
struct Secure {
    authority: Authority,
    server: TestServer,
}

fn speak_tls(config: &mut Config, files: &[PairFiles]) {
    config.listen.tls = true;
    config.tls.certificate = files.iter().map(|files| files.certificate.clone()).collect();
    config.tls.private_key = files.iter().map(|files| files.private_key.clone()).collect();
}

impl Secure {
    fn start(handlers: &[&str]) -> Self {
        Self::with(handlers, |_, _| {})
    }

    fn with(handlers: &[&str], change: impl FnOnce(&mut Config, &Authority)) -> Self {
        let authority = Authority::new();
        let files = authority.files("server", &authority.pair("server", &["localhost"]));
        let server = TestServer::with(handlers, |config| {
            speak_tls(config, &[files]);
            change(config, &authority);
        });
        Self { authority, server }
    }

    fn tls(&self) -> TlsStream {
        shake_hands(self.server.address(), "localhost", self.authority.client()).expect("a handshake")
    }

    fn connect(&self, path: &str) -> Client {
        Client::open_secure(self.tls(), path, &[]).expect("the upgrade is accepted")
    }

    fn raw(&self, path: &str) -> Raw {
        let mut raw = Raw::secure(self.tls());
        raw.upgrade(path);
        raw
    }

    fn assert_serves(&self) {
        let mut client = self.connect("/echo");
        client.send_text("are you there");
        assert_eq!(client.text(), "are you there");
        client.close();
    }
}

// ---- conversations -----------------------------------------------------------------------------------------------------

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[test]
fn messages_of_every_length_come_back_in_every_version() {
    let secure = Secure::start(&["echo"]);
    for version in VERSIONS {
        let config = secure.authority.client_with(&[version], None);
        let stream = shake_hands(secure.server.address(), "localhost", config).expect("a handshake");
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        let mut client = Client::open_secure(stream, "/echo", &[]).expect("accepted");
        client.send_text("grüße, 世界 🌍");
        assert_eq!(client.text(), "grüße, 世界 🌍");
        for length in [0, 1, 125, 126, 16_383, 16_384, 65_535, 65_536, 300_000, 1024 * 1024] {
            let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            client.send_binary(&bytes);
            assert!(client.binary() == bytes, "{length} bytes came back changed");
        }
        client.close();
    }
}

/// Records of a few bytes, each byte sent by itself, from the first of the handshake on.
#[test]
fn records_in_pieces_are_put_together() {
    let secure = Secure::start(&["echo"]);
    for version in VERSIONS {
        let mut config = secure.authority.client_with(&[version], None);
        config.max_fragment_size = Some(64);
        let socket = connect(secure.server.address());
        let stream = shake_hands_over(socket, true, "localhost", Arc::new(config)).expect("a handshake");
        let mut client = Client::open_secure(stream, "/echo", &[]).expect("accepted");
        client.send_binary(&[7; 2000]);
        assert_eq!(client.binary(), [7; 2000]);
        client.close();
    }
}

/// A client that does not wait for 101 loses nothing, in whichever record its message is.
#[test]
fn a_message_behind_the_request_is_delivered_after_the_answer() {
    let secure = Secure::start(&["echo"]);
    for count in [1, 2000] {
        let mut raw = Raw::secure(secure.tls());
        let mut bytes = upgrade_head("/echo").into_bytes();
        for _ in 0..count {
            bytes.extend(masked(0x82, b"early bird"));
        }
        raw.write(&bytes);
        assert!(raw.read_head().starts_with("HTTP/1.1 101 "));
        for _ in 0..count {
            assert_eq!(raw.read_exactly(12), b"\x82\x0aearly bird");
        }
    }
}

#[test]
fn a_broken_protocol_gets_its_code_and_an_orderly_end() {
    let secure = Secure::start(&["echo"]);
    let mut raw = secure.raw("/echo");
    raw.write(&masked(0xc1, b"hi"));
    raw.write(&masked(0x82, &[1; 1000]));
    assert_eq!(raw.close_code(), 1002);
    assert_eq!(raw.read_to_end(), b"", "close_notify, and no reset");
    let mut client = secure.connect("/echo");
    assert_eq!(client.close_with(3000, "bye").0, 3000);
}

#[test]
fn a_peer_that_ends_tls_ends_its_session() {
    let secure = Secure::start(&["echo"]);
    let mut stream = secure.tls();
    stream.write_all(upgrade_head("/echo").as_bytes()).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    secure.server.wait_for("the session is open", |status| sessions(status) == 1);
    // A message and the end in one segment, and the connection stays open: only TLS says that it is over.
    stream.conn.writer().write_all(&masked(0x81, b"last")).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut stream.sock).unwrap();
    }
    secure.server.wait_for("the session is over", |status| sessions(status) == 0);
}

fn sessions(status: &wshd::control::Status) -> usize {
    status.handlers.iter().filter_map(|handler| handler.active.as_ref()).map(|active| active.sessions).sum()
}

#[test]
fn plain_pages_are_served_over_https_too() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("index.html"), "<h1>hello</h1>").unwrap();
    std::fs::write(root.path().join("large.bin"), vec![7; 3_000_000]).unwrap();
    let path = root.path().to_owned();
    let secure = Secure::with(&["echo"], |config, _| config.files.root = Some(path));
    let get = |path: &str| {
        let mut raw = Raw::secure(secure.tls());
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
        raw.read_to_end()
    };
    let answer = String::from_utf8(get("/")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("<h1>hello</h1>"), "{answer}");
    let large = get("/large.bin");
    assert!(large.ends_with(&[7; 1000]) && large.len() > 3_000_000, "{} bytes", large.len());
}

/// Also where what was asked for was a WebSocket: without it a peer has to take the answer for a part of one.
#[test]
fn a_refusal_ends_with_close_notify() {
    let secure = Secure::start(&["echo"]);
    let mut raw = Raw::secure(secure.tls());
    raw.write(upgrade_head("/nowhere").as_bytes());
    let answer = String::from_utf8(raw.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn a_page_of_this_host_has_to_have_come_by_tls() {
    let secure = Secure::start(&["echo"]);
    let open = |origin: &str| Client::open_secure(secure.tls(), "/echo", &[("Origin", origin)]);
    assert!(open("https://localhost").is_ok());
    assert_eq!(open("http://localhost").err().expect("refused").0, 403);
}

#[test]
fn two_hundred_sessions_share_the_workers() {
    let secure = Secure::start(&["counter"]);
    let mut clients: Vec<_> = (0..200).map(|_| secure.connect("/counter")).collect();
    for round in 1..=3 {
        for client in &mut clients {
            client.send_text("next");
        }
        for client in &mut clients {
            assert_eq!(client.text(), round.to_string(), "each session counts for itself");
        }
    }
}

// ---- slow peers --------------------------------------------------------------------------------------------------------

/// As for a plain peer: replies wait, the server stops reading, and nothing is lost.
#[test]
fn a_peer_that_reads_late_gets_everything_in_order() {
    const MESSAGES: u32 = 400;
    let secure = Secure::start(&["echo"]);
    let mut stream = secure.tls();
    stream.write_all(upgrade_head("/echo").as_bytes()).unwrap();
    let mut head = vec![0; 4];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream.conn.set_buffer_limit(None);
    for number in 0..MESSAGES {
        let mut message = number.to_be_bytes().to_vec();
        message.resize(50_000, 7);
        stream.conn.writer().write_all(&masked(0x82, &message)).unwrap();
    }
    // Until nothing moves any more: the replies fill the server's side and ours, and it has stopped reading.
    stream.sock.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while stream.conn.write_tls(&mut stream.sock).is_ok() {}
    assert!(stream.conn.wants_write(), "twenty megabytes are more than fits");
    stream.sock.socket.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    stream.sock.socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let (mut received, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(120));
    while received.len() < MESSAGES as usize * 50_004 {
        assert!(Instant::now() < deadline, "{} bytes came", received.len());
        if stream.conn.wants_write() {
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
        if stream.conn.read_tls(&mut stream.sock).is_ok() {
            stream.conn.process_new_packets().unwrap();
        }
        let _ = stream.conn.reader().read_to_end(&mut received);
    }
    for (number, message) in received.chunks(50_004).enumerate() {
        assert_eq!(message[..4], [0x82, 126, 0xc3, 0x50]);
        assert_eq!(message[4..8], (number as u32).to_be_bytes(), "in order");
    }
    secure.assert_serves();
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let secure =
        Secure::with(&["echo"], |config, _| config.limits.write_seconds_max = Duration::from_secs(1));
    let mut raw = secure.raw("/echo");
    let message = masked(0x82, &[1; 60_000]);
    while raw.try_write(&message, Duration::from_millis(500)) {}
    let began = Instant::now();
    while !raw.is_reset() {
        assert!(began.elapsed() < Duration::from_secs(30), "the server still holds the connection");
        raw.try_write(b"\0", Duration::from_millis(200));
    }
    secure.assert_serves();
}

#[test]
fn a_flooded_peer_is_closed_with_1013() {
    let secure = Secure::start(&["misbehaving"]);
    let mut raw = secure.raw("/misbehaving");
    raw.write(&masked(0x81, b"flood 20000"));
    assert_eq!(raw.close_code(), 1013);
}

// ---- what is refused ---------------------------------------------------------------------------------------------------

#[test]
fn http_on_a_port_that_speaks_tls_is_told_so() {
    let secure = Secure::start(&["echo"]);
    let (status, answer) = secure.server.request("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status, 400);
    assert!(answer.contains("speaks TLS") && answer.contains("wss://"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = answer.split("Content-Length: ").nth(1).and_then(|rest| rest.split('\r').next()).unwrap();
    assert_eq!(body.len().to_string(), length);
    let mut nonsense = secure.server.raw();
    nonsense.write(&[0; 100]);
    nonsense.read_until_gone();
    secure.assert_serves();
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    let secure =
        Secure::with(&["echo"], |config, _| config.limits.handshake_seconds_max = Duration::from_secs(1));
    let mut silent = secure.server.raw();
    let mut slow = secure.server.raw();
    slow.write(&[22, 3, 1, 1, 0, 1, 0]);
    let mut without_request = Raw::secure(secure.tls());
    silent.read_until_gone();
    slow.read_until_gone();
    without_request.read_until_gone();
    secure.assert_serves();
}

/// No words outside of TLS, which a client would take for a broken record.
#[test]
fn one_connection_too_many_of_an_address_is_closed_without_a_word() {
    let secure = Secure::with(&["echo"], |config, _| config.limits.connections_per_peer_max = 2);
    let _kept = [secure.connect("/echo"), secure.connect("/echo")];
    let mut socket = connect(secure.server.address());
    let mut received = Vec::new();
    let end = socket.read_to_end(&mut received);
    assert!(end.is_ok() && received.is_empty(), "{end:?} {received:x?}");
}

#[test]
fn an_older_version_than_the_least_is_refused() {
    let secure = Secure::with(&["echo"], |config, _| config.tls.version_min = TlsVersion::V1_3);
    let old = secure.authority.client_with(&[&version::TLS12], None);
    let refused = shake_hands(secure.server.address(), "localhost", old).expect_err("it is too old");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    secure.assert_serves();
}

/// A browser that would rather speak HTTP/2 is told that this is HTTP/1.1; one that insists is refused.
#[test]
fn the_protocol_inside_is_agreed_to_be_http_1_1() {
    let secure = Secure::start(&["echo"]);
    let offer = |protocols: &[&[u8]]| {
        let mut config = secure.authority.client();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        shake_hands(secure.server.address(), "localhost", config)
    };
    let stream = offer(&[b"h2", b"http/1.1"]).expect("there is one in common");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(offer(&[b"h2"]).unwrap_err().to_string().contains("NoApplicationProtocol"));
}

// ---- who the server is -------------------------------------------------------------------------------------------------

fn shown(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().expect("a server shows one")[0].to_vec()
}

#[test]
fn a_peer_is_shown_the_certificate_for_the_name_it_asks_for() {
    let authority = Authority::new();
    let first = authority.pair("first", &["localhost", "other.example"]);
    let second = authority.pair("second", &["a.example", "*.b.example", "other.example"]);
    let files = [authority.files("first", &first), authority.files("second", &second)];
    let server = TestServer::with(&["echo"], |config| speak_tls(config, &files));
    for (name, pair) in [
        ("localhost", &first),
        ("a.example", &second),
        ("A.Example", &second),
        ("x.b.example", &second),
        ("other.example", &first),
    ] {
        let stream = shake_hands(server.address(), name, authority.client()).unwrap();
        assert!(shown(&stream) == pair.certificate.to_vec(), "{name}");
    }
    // None asked for, or one that nobody has: the first, and whoever asked decides.
    let mut config = authority.client();
    config.enable_sni = false;
    assert!(
        shown(&shake_hands(server.address(), "localhost", config).unwrap()) == first.certificate.to_vec()
    );
    let unknown = shake_hands(server.address(), "x.y.b.example", authority.client()).unwrap_err();
    assert!(unknown.to_string().contains("certificate not valid for name"), "{unknown}");
}

/// One port with TLS beside one without, and a port that changes its mind.
#[test]
fn a_server_speaks_with_tls_and_without() {
    let authority = Authority::new();
    let files = authority.files("server", &authority.pair("server", &["localhost"]));
    let server = TestServer::with(&["echo"], |config| {
        speak_tls(config, &[files]);
        config.listen.tls = false;
        config.listen.tls_port = Some(0);
    });
    let status = server.status();
    let [plain, secure] = status.listening[..] else { panic!("{status}") };
    assert_eq!(status.listening_tls, [secure]);
    let try_both = |plain, secure| {
        Client::open(plain, "/echo", &[]).expect("without").close();
        let stream = shake_hands(secure, "localhost", authority.client()).expect("with");
        Client::open_secure(stream, "/echo", &[]).expect("with").close();
    };
    try_both(plain, secure);
    let mut kept = Client::open(plain, "/echo", &[]).expect("without");
    let answer = server.reload_with(|config| {
        config.listen.port = secure.port();
        config.listen.tls_port = Some(plain.port());
    });
    assert!(matches!(answer, Answer::Status(_)), "{answer:?}");
    try_both(secure, plain);
    kept.send_text("whoever is there stays");
    assert_eq!(kept.text(), "whoever is there stays");
}

// ---- who the client is -------------------------------------------------------------------------------------------------

/// A server that asks its clients who they are.
fn asking(client_auth: ClientAuth) -> Secure {
    let authority = Authority::new();
    let files = authority.files("server", &authority.pair("server", &["localhost"]));
    let server = TestServer::prepare(
        |config| {
            speak_tls(config, &[files]);
            config.tls.client_auth = client_auth;
            config.tls.client_ca = Some(authority.file());
        },
        |folder| compile_c("identity", folder, "identity_wsh.so"),
    );
    Secure { authority, server: server.unwrap_or_else(|error| panic!("{error}")) }
}

/// What the handler is told of a client with this certificate. The refusal may come with the first byte that is read.
fn who_am_i(
    secure: &Secure,
    version: &'static SupportedProtocolVersion,
    own: Option<&Pair>,
) -> Result<String, String> {
    let config = secure.authority.client_with(&[version], own);
    let mut stream =
        shake_hands(secure.server.address(), "localhost", config).map_err(|error| error.to_string())?;
    stream.write_all(upgrade_head("/identity").as_bytes()).map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|error| error.to_string())?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let header = |name: &str| {
        let value = head.split(&format!("{name}: ")).nth(1).and_then(|rest| rest.split('\r').next());
        value.unwrap_or_default().to_owned()
    };
    let mut raw = Raw::secure(stream);
    raw.write(&masked(0x81, b"?"));
    let length = usize::from(raw.read_exactly(2)[1]);
    let text = String::from_utf8(raw.read_exactly(length)).unwrap();
    assert_eq!(header("x-scheme"), "wss");
    assert_eq!(
        header("x-subject"),
        text.split('|').nth(1).unwrap().to_ascii_lowercase(),
        "in on_upgrade as later"
    );
    Ok(text)
}

#[test]
fn handlers_see_who_a_verified_client_is() {
    let required = asking(ClientAuth::Required);
    let optional = asking(ClientAuth::Optional);
    let stranger = Authority::new().pair("Ann", &["ann.example"]);
    for version in VERSIONS {
        for secure in [&required, &optional] {
            let ann = secure.authority.pair("Ann", &["ann.example", "192.0.2.7"]);
            assert_eq!(
                who_am_i(secure, version, Some(&ann)).unwrap(),
                "wss|CN=Ann|DNS:ann.example\nIP:192.0.2.7"
            );
            let wrong = who_am_i(secure, version, Some(&stranger)).expect_err("signed by somebody else");
            assert!(wrong.contains("UnknownCA") || wrong.contains("DecryptError"), "{wrong}");
        }
        assert_eq!(who_am_i(&optional, version, None).unwrap(), "wss||");
        let without = who_am_i(&required, version, None).expect_err("it has to show one");
        assert!(without.contains("CertificateRequired") || without.contains("HandshakeFailure"), "{without}");
    }
    // A session that knows its peer tells it after a resumption too.
    let off = asking(ClientAuth::Off);
    let ann = off.authority.pair("Ann", &["ann.example"]);
    assert_eq!(who_am_i(&off, &version::TLS13, Some(&ann)).unwrap(), "wss||", "nobody asked");
}

/// A resumed session is as good as a full handshake, and ends with the certificates it was made under.
#[test]
fn sessions_are_resumed_until_the_certificates_change() {
    let secure = Secure::start(&["echo"]);
    for version in VERSIONS {
        let config = Arc::new(secure.authority.client_with(&[version], None));
        let kind = || {
            let socket = connect(secure.server.address());
            let stream = shake_hands_over(socket, false, "localhost", config.clone()).expect("a handshake");
            let kind = stream.conn.handshake_kind();
            let mut client = Client::open_secure(stream, "/echo", &[]).expect("accepted");
            client.send_text("hello");
            assert_eq!(client.text(), "hello");
            client.close();
            kind
        };
        assert_eq!((kind(), kind()), (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)));
        let files = secure.authority.files("server", &secure.authority.pair("again", &["localhost"]));
        assert!(files.certificate.is_file());
        assert!(matches!(secure.server.reload_with(|_| {}), Answer::Status(_)));
        assert_ne!(kind(), Some(HandshakeKind::Resumed));
    }
}

// ---- new certificates and new code -------------------------------------------------------------------------------------

/// A hundred times, in each of the ways in which people and programs replace files, while others connect all the time.
#[test]
fn certificates_are_rotated_without_a_failed_handshake() {
    const ROTATIONS: usize = 100;
    let authority = Authority::new();
    let current = authority.folder().join("current");
    let folders = ["even", "odd"].map(|name| authority.folder().join(name));
    folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let files_in = |folder: &std::path::Path| PairFiles {
        certificate: folder.join("cert.pem"),
        private_key: folder.join("key.pem"),
    };
    authority.pair("first", &["localhost"]).write(&files_in(&folders[0]));
    symlink("even", &current).unwrap();
    let files = files_in(&current);
    let server = TestServer::with(&["echo"], |config| speak_tls(config, std::slice::from_ref(&files)));
    let address = server.address();
    let (stop, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let (stop, handshakes) = (&stop, &handshakes);
        let config = authority.client();
        let begun = shake_hands(address, "localhost", config.clone()).unwrap();
        let mut kept = Client::open_secure(begun, "/echo", &[]).expect("accepted");
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // Every time in full: a resumed session shows no certificate.
                let mut config = config.clone();
                config.resumption = rustls::client::Resumption::disabled();
                let stream = shake_hands(address, "localhost", config).expect("no handshake fails");
                drop(stream);
                handshakes.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..ROTATIONS {
            let pair = authority.pair(&format!("number {round}"), &["localhost"]);
            let began = Instant::now();
            match round % 4 {
                0 => {
                    // The whole folder at once.
                    let next = if std::fs::read_link(&current).unwrap().ends_with("even") { 1 } else { 0 };
                    pair.write(&files_in(&folders[next]));
                    let link = authority.folder().join("next");
                    symlink(["even", "odd"][next], &link).unwrap();
                    std::fs::rename(link, &current).unwrap();
                }
                1 => {
                    let new = files_in(authority.folder());
                    pair.write(&new);
                    std::fs::rename(&new.private_key, &files.private_key).unwrap();
                    std::fs::rename(&new.certificate, &files.certificate).unwrap();
                }
                2 => {
                    let new = files_in(authority.folder());
                    pair.write(&new);
                    std::fs::rename(&new.certificate, &files.certificate).unwrap();
                    std::fs::rename(&new.private_key, &files.private_key).unwrap();
                }
                _ => pair.write(&files),
            }
            loop {
                let stream =
                    shake_hands(address, "localhost", authority.client()).expect("no handshake fails");
                if shown(&stream) == pair.certificate.to_vec() {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(30), "rotation {round} is not taken up");
            }
            times.push(began.elapsed());
        }
        kept.send_text("still here");
        assert_eq!(kept.text(), "still here", "whoever is connected stays");
        stop.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let (median, worst) = (times[ROTATIONS / 2], times[ROTATIONS - 1]);
    println!(
        "{} handshakes; taken up after {median:?}, at most {worst:?}",
        handshakes.load(Ordering::Relaxed)
    );
    assert!(median < Duration::from_secs(1), "{median:?}");
    assert_eq!(server.status().certificate_problem, None);
}

#[test]
fn certificates_that_no_port_uses_are_noted() {
    let authority = Authority::new();
    let files = authority.files("server", &authority.pair("server", &["localhost"]));
    let server = TestServer::with(&["echo"], |config| {
        speak_tls(config, &[files]);
        config.listen.tls = false;
    });
    let notes = server.status().notes.join("\n");
    assert!(notes.contains("no port speaks TLS") && notes.contains("listen.tls_port"), "{notes}");
}

#[test]
fn a_bad_pair_leaves_the_old_one_and_says_so() {
    let secure = Secure::start(&["echo"]);
    let old = shown(&secure.tls());
    let other = secure.authority.pair("other", &["localhost"]);
    let files = PairFiles {
        certificate: secure.authority.folder().join("server.crt"),
        private_key: secure.authority.folder().join("server.key"),
    };
    // The certificate alone: it does not belong to the key.
    other.write_certificate(&files.certificate);
    let status = secure.server.wait_for("it is noticed", |status| status.certificate_problem.is_some());
    let problem = status.certificate_problem.clone().unwrap();
    assert!(problem.contains("server.key") && problem.contains("does not belong to"), "{problem}");
    assert!(status.to_string().contains(&problem), "{status}");
    assert!(shown(&secure.tls()) == old, "the old one is shown");
    let Answer::Failed(why) = secure.server.reload_with(|_| {}) else { panic!("it is still wrong") };
    assert!(why.contains("does not belong to"), "{why}");
    // It is no reason to refuse the rest of the config.
    secure.server.reload_with(|config| config.limits.message_bytes_max = 10);
    let mut client = secure.connect("/echo");
    client.send_text("longer than ten bytes");
    assert_eq!(client.closed().0, 1009);
    // The key follows, and all is well.
    other.write_key(&files.private_key);
    secure.server.wait_for("it is sound again", |status| status.certificate_problem.is_none());
    assert!(shown(&secure.tls()) == other.certificate.to_vec());
}

#[test]
fn a_secure_session_moves_to_new_code_with_its_state_and_what_is_in_flight() {
    let authority = Authority::new();
    let files = authority.files("server", &authority.pair("server", &["localhost"]));
    let built = tempfile::tempdir().unwrap();
    let build = |number: u32| {
        let (name, version) = (format!("v{number}.so"), format!("-DVERSION={number}"));
        compile_c_with("versioned", built.path(), &name, &[&version]);
        built.path().join(name)
    };
    let server = TestServer::prepare(
        |config| speak_tls(config, &[files]),
        |folder| {
            std::fs::copy(build(1), folder.join("versioned_wsh.so")).unwrap();
        },
    );
    let secure = Secure { authority, server: server.unwrap_or_else(|error| panic!("{error}")) };
    let mut clients: Vec<_> = (0..20).map(|_| secure.connect("/versioned")).collect();
    let mut raw = secure.raw("/versioned");
    for client in &mut clients {
        client.send_text("a");
        assert_eq!(client.text(), "v1:1:a");
    }
    // Half a message is on its way when the code changes.
    let message = masked(0x81, b"in two halves");
    raw.write(&message[..10]);
    for (number, name) in [(2, "new2"), (3, "new3")] {
        let new = secure.server.folder().join(name);
        std::fs::copy(build(number), &new).unwrap();
        std::fs::rename(&new, secure.server.folder().join("versioned_wsh.so")).unwrap();
        secure.server.wait_for("the new code has taken over", |status| {
            status.handlers.iter().all(|handler| {
                handler.leaving.is_empty()
                    && handler.active.as_ref().is_some_and(|active| active.number == u64::from(number))
            })
        });
        for client in &mut clients {
            client.send_text("b");
            assert_eq!(client.text(), format!("v{number}:{number}:b"));
        }
    }
    raw.write(&message[10..]);
    let answer = b"\x81\x12v3:1:in two halves";
    assert_eq!(raw.read_exactly(answer.len()), answer);
    clients.iter_mut().for_each(Client::close);
}

// ---- the program -------------------------------------------------------------------------------------------------------

#[test]
fn a_certificate_for_development_is_one_command_away() {
    let folder = tempfile::tempdir().unwrap();
    let output = wshd(folder.path()).args(["cert", "localhost", "127.0.0.1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    for words in ["--tls", "certificate = \"cert.pem\"", "private_key = \"key.pem\"", "https://localhost"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let config =
        format!("[listen]\ntls = true\n[tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n");
    let server = ServerProcess::start(&["echo"], &config);
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(&certificate).unwrap();
    let trusted = rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = shake_hands(server.address(), "localhost", client).expect("the certificate is sound");
    let mut socket = Client::open_secure(stream, "/echo", &[]).expect("accepted");
    socket.send_text("hello");
    assert_eq!(socket.text(), "hello");
    server.signal("TERM");
    assert_eq!(socket.closed().0, 1001);
    socket.wait_for_end();
    let (screen, log, status) = server.wait();
    assert!(status.success(), "{log}");
    for words in ["  (TLS)", "wss://localhost:", "DNS:localhost"] {
        assert!(screen.contains(words), "{words}: {screen}");
    }
}

#[test]
fn tls_without_a_certificate_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["--tls"][..], &["--tls", "configtest"]] {
        let output = wshd(folder.path()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("`tls.certificate`") && said.contains("wshd cert"), "{said}");
    }
}

// ---- peers that do not read --------------------------------------------------------------------------------------------

/// What is dropped for a slow peer is never what TLS has encrypted already.
#[test]
fn a_peer_that_reads_late_finds_whole_messages_and_the_last_one() {
    const COUNT: u32 = 2000;
    const SIZE: usize = 20_000;
    let secure = Secure::with(&["misbehaving"], |config, _| {
        config.limits.slow_peer = SlowPeer::DropOldest;
        config.limits.published_bytes_max = 1 << 30;
    });
    let mut client = secure.connect("/misbehaving");
    client.send_text("join news");
    assert_eq!(client.text(), "joined");
    for flood in [format!("numbers {COUNT} {SIZE}"), format!("publish-numbers news {COUNT} {SIZE}")] {
        let dropped =
            || secure.server.status().handlers[0].active.as_ref().map_or(0, |active| active.dropped);
        let before = dropped();
        client.send_text(&flood);
        secure.server.wait_for("messages were dropped", |_| dropped() > before + 100);
        client.send_text("say done");
        let mut numbers = Vec::new();
        while let tungstenite::Message::Binary(bytes) = client.next() {
            assert_eq!(bytes.len(), SIZE);
            numbers.push(u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")));
        }
        assert!(numbers.is_sorted(), "in order");
        assert_eq!(numbers.last(), Some(&(COUNT - 1)));
        assert_eq!(numbers.len() as u64 + dropped() - before, u64::from(COUNT), "each came or was counted");
    }
}
