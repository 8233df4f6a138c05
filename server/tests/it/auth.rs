//! Who is let in: passwords, tokens and certificates, for pages and WebSockets, and what handlers and logs see of it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustls::version;
use wshd::config::{AuthRules, CertificateName, ClientAuth, Config, Credential};
use wshd::control::{Answer, Request};

use crate::support::{
    Authority, Client, Pair, Raw, ServerProcess, TestServer, compile_c, masked, shake_hands, upgrade_head,
    wait_for, wshd,
};

/// Files of users as the program makes them: ann with a password and a token.
struct Users {
    folder: tempfile::TempDir,
    token: String,
}

impl Users {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        set_password(folder.path(), "ann", "s3cret: ü");
        let token = make_token(folder.path(), "ann");
        std::fs::write(folder.path().join("index.html"), "a page").unwrap();
        Self { folder, token }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Basic and Bearer, by these files.
    fn rules(&self) -> AuthRules {
        AuthRules {
            basic: Some(self.file("users.txt")),
            bearer: Some(self.file("tokens.txt")),
            ..AuthRules::default()
        }
    }
}

/// As with `echo PASSWORD | wshd passwd USER`.
fn set_password(folder: &Path, user: &str, password: &str) {
    let mut child = wshd(folder).args(["passwd", user]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("users.txt") && output.stdout.is_empty(), "{said}");
}

fn make_token(folder: &Path, user: &str) -> String {
    let output = wshd(folder).args(["token", user]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert_eq!(token.len(), 43, "256 bits in base64");
    token
}

/// `user:password` as a header has it.
fn basic(credential: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for chunk in credential.as_bytes().chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

/// Everything goes to this section.
fn demand(config: &mut Config, rules: AuthRules) {
    config.auth.insert("staff".into(), rules);
    config.upgrade.auth = Some("staff".into());
    config.files.auth = Some("staff".into());
}

fn serve(change: impl FnOnce(&mut Config)) -> TestServer {
    let fill = |folder: &Path| compile_c("user", folder, "user_wsh.so");
    TestServer::prepare(change, fill).unwrap_or_else(|error| panic!("{error}"))
}

fn with_lines(head: &str, lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{}{lines}\r\n", head.strip_suffix("\r\n").unwrap())
}

fn page_head() -> String {
    "GET /index.html HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".into()
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

// ---- the matrix --------------------------------------------------------------------------------------------------------

/// Every way to say who one is, right, wrong and not at all, by a browser and by another client, for pages and for WebSockets.
#[test]
fn every_way_lets_in_who_is_right_and_nobody_else() {
    let (users, authority) = (Users::new(), Authority::new());
    let certificates = users.file("certificates.txt");
    std::fs::write(&certificates, "# what the certificate says\nann:Ann B.\n").unwrap();
    std::fs::set_permissions(&certificates, std::fs::Permissions::from_mode(0o600)).unwrap();
    let files = authority.files("server", &authority.pair("server", &["localhost"]));
    let server = serve(|config| {
        config.listen.tls = true;
        config.tls.certificate = vec![files.certificate];
        config.tls.private_key = vec![files.private_key];
        config.tls.client_auth = ClientAuth::Optional;
        config.tls.client_ca = Some(authority.file());
        config.files.root = Some(users.folder.path().to_owned());
        let client_certificate = Some(CertificateName::Cn);
        demand(config, AuthRules { client_certificate, certificates: Some(certificates), ..users.rules() });
        config.limits.password_failures_per_minute_max = 0;
    });
    let (ann, bob) = (authority.pair("Ann B.", &[]), authority.pair("Bob", &[]));
    let token = &users.token;
    let protocols = |token: &str| format!("Sec-WebSocket-Protocol: chat.v1, wshd.bearer.{token}");
    let header = |value: String| format!("Authorization: {value}");
    struct Case<'a> {
        way: &'static str,
        line: Option<String>,
        certificate: Option<&'a Pair>,
        /// For a page, and for a WebSocket.
        is_let_in: (bool, bool),
    }
    let case = |way, line, certificate, is_let_in| Case { way, line, certificate, is_let_in };
    let (both, neither) = ((true, true), (false, false));
    let cases = [
        case("nothing", None, None, neither),
        case("password, right", Some(header(basic("ann:s3cret: ü"))), None, both),
        case(
            "password, scheme in other letters",
            Some(header(basic("ann:s3cret: ü").replace("Basic", "bAsIc"))),
            None,
            both,
        ),
        case("password, wrong", Some(header(basic("ann:secret"))), None, neither),
        case("password, nobody's", Some(header(basic("bob:s3cret: ü"))), None, neither),
        case("password, empty", Some(header(basic("ann:"))), None, neither),
        case("password, no base64", Some(header("Basic ???".into())), None, neither),
        case("password, nothing behind the scheme", Some(header("Basic".into())), None, neither),
        case("token, right", Some(header(format!("Bearer {token}"))), None, both),
        case("token, wrong", Some(header(format!("Bearer {}x", &token[..42]))), None, neither),
        case("token, missing", Some(header("Bearer ".into())), None, neither),
        case("another scheme", Some(header("Digest username=ann".into())), None, neither),
        case("token among subprotocols, right", Some(protocols(token)), None, (false, true)),
        case("token among subprotocols, wrong", Some(protocols("abc")), None, neither),
        case(
            "token among subprotocols, missing",
            Some("Sec-WebSocket-Protocol: chat.v1".into()),
            None,
            neither,
        ),
        case("certificate, right", None, Some(&ann), both),
        case("certificate, somebody else's", None, Some(&bob), neither),
        case("certificate, right, and a wrong password", Some(header(basic("ann:a"))), Some(&ann), neither),
    ];
    for Case { way, line, certificate, is_let_in } in &cases {
        for browser in [false, true] {
            let mut lines: Vec<_> = line.iter().cloned().collect();
            if browser {
                lines.push("Origin: https://localhost".into());
                lines.push("User-Agent: Mozilla/5.0".into());
            }
            let raw = || {
                let client = authority.client_with(&[&version::TLS13], *certificate);
                Raw::secure(shake_hands(server.address(), "localhost", client).expect("a handshake"))
            };
            let who = format!("{way}, {}", if browser { "browser" } else { "other client" });

            let mut page = raw();
            page.write(with_lines(&page_head(), &lines).as_bytes());
            let answer = String::from_utf8(page.read_to_end()).unwrap();
            if is_let_in.0 {
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("a page"), "{who}: {answer}");
            } else {
                assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("a page"), "{who}: {answer}");
                let challenges: Vec<_> =
                    answer.lines().filter_map(|line| line.strip_prefix("www-authenticate: ")).collect();
                assert_eq!(challenges[0], "Basic realm=\"staff\", charset=\"UTF-8\"", "{who}");
                assert!(challenges[1].starts_with("Bearer realm=\"staff\""), "{who}: {answer}");
            }

            let mut socket = raw();
            socket.write(with_lines(&upgrade_head("/user"), &lines).as_bytes());
            let head = socket.read_head();
            if !is_let_in.1 {
                assert!(
                    head.starts_with("HTTP/1.1 401 ") && value(&head, "x-user").is_none(),
                    "{who}: {head}"
                );
                continue;
            }
            assert!(head.starts_with("HTTP/1.1 101 "), "{who}: {head}");
            assert_eq!(value(&head, "x-user"), Some("ann"), "{who}");
            assert_eq!(value(&head, "x-authorization"), None, "{who}");
            assert!(!head.contains(token.as_str()), "{who}: {head}");
            let has_protocols = line.as_ref().is_some_and(|line| line.starts_with("Sec-"));
            let protocol = has_protocols.then_some("chat.v1");
            assert_eq!(value(&head, "x-protocols"), protocol, "{who}");
            assert_eq!(value(&head, "x-offered"), protocol, "{who}");
            assert_eq!(value(&head, "sec-websocket-protocol"), protocol, "{who}");
            socket.write(&masked(0x81, b"who am I"));
            assert_eq!(socket.read_exactly(5), b"\x81\x03ann", "{who}");
        }
    }
}

/// A page that has nothing but its token to offer: browsers end a connection where none of their subprotocols is agreed to.
#[test]
fn a_page_whose_handler_has_no_subprotocol_agrees_to_the_name_of_the_way() {
    let users = Users::new();
    let server = serve(|config| demand(config, users.rules()));
    let offered = format!("wshd.bearer, wshd.bearer.{}", users.token);
    let mut client =
        Client::open(server.address(), "/user", &[("Sec-WebSocket-Protocol", &offered)]).unwrap();
    let answered = client.response.headers().get("sec-websocket-protocol").unwrap();
    assert_eq!(answered, "wshd.bearer");
    client.send_text("who am I");
    assert_eq!(client.text(), "ann");
    let twice = format!("wshd.bearer.{}, wshd.bearer.x", users.token);
    let (status, _) =
        Client::open(server.address(), "/user", &[("Sec-WebSocket-Protocol", &twice)]).err().unwrap();
    assert_eq!(status, 401, "two tokens");
    let headers = [("Authorization", "Basic YTpi"), ("Authorization", "Basic YTpi")];
    assert_eq!(Client::open(server.address(), "/user", &headers).err().unwrap().0, 401, "two headers");
}

/// Without authentication the headers, and what looks like a token, are the handler's own.
#[test]
fn where_nobody_is_asked_handlers_have_their_headers() {
    let users = Users::new();
    let server = serve(|config| {
        demand(config, users.rules());
        config.upgrade.auth = None;
    });
    let mut raw = server.raw();
    let lines = ["Authorization: Basic YTpi".to_owned(), "Sec-WebSocket-Protocol: wshd.bearer.x".to_owned()];
    raw.write(with_lines(&upgrade_head("/user"), &lines).as_bytes());
    let head = raw.read_head();
    assert_eq!(value(&head, "x-authorization"), Some("Basic YTpi"));
    assert_eq!(value(&head, "x-protocols"), Some("wshd.bearer.x"));
    assert_eq!(value(&head, "x-user"), None);
    raw.write(&masked(0x81, b"?"));
    assert_eq!(raw.read_exactly(8), b"\x81\x06nobody");
}

// ---- where it holds ----------------------------------------------------------------------------------------------------

#[test]
fn each_handler_has_its_own_rule_and_paths_without_one_that_of_all() {
    let users = Users::new();
    let change = |config: &mut Config| {
        demand(config, users.rules());
        config.files.auth = None;
        config.handlers.each.entry("lobby".into()).or_default().auth = Some("none".into());
    };
    let server = TestServer::prepare(change, |folder| {
        compile_c("user", folder, "user_wsh.so");
        compile_c("user", folder, "lobby_wsh.so");
    })
    .unwrap();
    let open = |path: &str| Client::open(server.address(), path, &[]).map(drop);
    assert!(open("/lobby").is_ok());
    let (status, body) = open("/user").unwrap_err();
    assert_eq!(
        (status, body.as_str()),
        (401, "this path is for known users: send a user name and a password, or a token\n")
    );
    assert_eq!(open("/none").unwrap_err().0, 401, "who is not known learns nothing of the paths");
    let known = [("Authorization", &*basic("ann:s3cret: ü"))];
    assert_eq!(Client::open(server.address(), "/none", &known).err().unwrap().0, 404);
    let foreign = [known[0], ("Origin", "http://evil.example")];
    assert_eq!(
        Client::open(server.address(), "/user", &foreign).err().unwrap().0,
        403,
        "the page counts as well"
    );
}

#[test]
fn certificates_alone_are_asked_for_with_403() {
    let (authority, files);
    authority = Authority::new();
    files = authority.files("server", &authority.pair("server", &["localhost"]));
    let server = serve(|config| {
        config.listen.tls = true;
        config.tls.certificate = vec![files.certificate];
        config.tls.private_key = vec![files.private_key];
        config.tls.client_auth = ClientAuth::Optional;
        config.tls.client_ca = Some(authority.file());
        demand(config, AuthRules { client_certificate: Some(CertificateName::Dns), ..AuthRules::default() });
    });
    let ask = |own: Option<&Pair>| {
        let client = authority.client_with(&[&version::TLS13], own);
        let mut raw = Raw::secure(shake_hands(server.address(), "localhost", client).unwrap());
        raw.write(upgrade_head("/user").as_bytes());
        let head = raw.read_head();
        (head[9..12].to_owned(), value(&head, "x-user").map(str::to_owned))
    };
    let device = authority.pair("a device", &["sensor-7.example"]);
    assert_eq!(ask(Some(&device)), ("101".into(), Some("sensor-7.example".into())));
    assert_eq!(ask(Some(&authority.pair("without a name", &[]))).0, "403");
    assert_eq!(ask(None).0, "403");
}

/// pywebsocket's flags: every request, pages and WebSockets, with a word about what others can see.
#[test]
fn basic_auth_of_the_command_line_protects_everything() {
    let folder = tempfile::tempdir().unwrap();
    let output = wshd(folder.path()).arg("--basic-auth").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--basic-auth-credential <USER:PASSWORD>"), "{said}");

    let arguments = ["--basic-auth", "--basic-auth-credential", "ann:s3cret", "configtest"];
    let output = wshd(folder.path()).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("can be seen by other users") && !said.contains("s3cret"), "{said}");

    let server = serve(|config| {
        let credential = Credential { user: "ann".into(), password: "s3cret".into() };
        demand(config, AuthRules { credential: Some(credential), ..AuthRules::default() });
    });
    for head in [page_head(), upgrade_head("/user")] {
        let status = |value: &str| {
            let (status, _) = server.request(&with_lines(&head, &[format!("Authorization: {value}")]));
            status
        };
        assert_eq!(status(&basic("ann:wrong")), 401);
    }
    let mut client = Client::open(server.address(), "/user", &[("Authorization", &basic("ann:s3cret"))])
        .expect("accepted");
    client.send_text("who am I");
    assert_eq!(client.text(), "ann");
}

// ---- limits ------------------------------------------------------------------------------------------------------------

#[test]
fn who_guesses_passwords_is_stopped_and_tokens_go_on() {
    let users = Users::new();
    let server = serve(|config| {
        demand(config, users.rules());
        config.limits.password_failures_per_minute_max = 2;
    });
    let open = |value: &str| Client::open(server.address(), "/user", &[("Authorization", value)]).map(drop);
    for _ in 0..2 {
        assert_eq!(open(&basic("ann:guess")).unwrap_err().0, 401);
    }
    let (status, body) = open(&basic("ann:s3cret: ü")).unwrap_err();
    assert_eq!((status, body.contains("try again in a minute")), (429, true), "{body}");
    assert!(open(&format!("Bearer {}", users.token)).is_ok(), "nobody guesses a token");
    assert_eq!(open("Bearer guess").unwrap_err().0, 401);
}

// ---- files -------------------------------------------------------------------------------------------------------------

/// A user comes, a broken line changes nothing, a user goes.
#[test]
fn files_are_read_again_when_they_change_and_a_broken_one_changes_nothing() {
    let users = Users::new();
    let server = serve(|config| demand(config, users.rules()));
    let open = |credential: &str| {
        Client::open(server.address(), "/user", &[("Authorization", &basic(credential))])
            .map(drop)
            .map_err(|e| e.0)
    };
    assert_eq!(open("bob:pass"), Err(401));
    set_password(users.folder.path(), "bob", "pass");
    wait_for("bob is known", || open("bob:pass").is_ok());
    let sound = std::fs::read(users.file("users.txt")).unwrap();
    std::fs::write(users.file("users.txt"), "# nobody\neve:plain\n").unwrap();
    let status = server.wait_for("it is noticed", |status| status.users_problem.is_some());
    let problem = status.users_problem.unwrap();
    assert!(
        problem.contains("users.txt:2 (`auth.staff.basic`)") && problem.contains("wshd passwd"),
        "{problem}"
    );
    assert_eq!(open("bob:pass"), Ok(()));
    let Answer::Failed(why) = server.ask(Request::Reload(None)) else { panic!("it is not sound") };
    assert!(why.contains("users.txt:2"), "{why}");
    std::fs::write(users.file("users.txt"), sound).unwrap();
    server.wait_for("it is sound again", |status| status.users_problem.is_none());
    set_password(users.folder.path(), "bob", "other");
    wait_for("the old password is nobody's", || open("bob:pass") == Err(401));
    assert_eq!(open("bob:other"), Ok(()));
    std::fs::set_permissions(users.file("tokens.txt"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let Answer::Failed(why) = server.ask(Request::Reload(None)) else { panic!("others can read it") };
    assert!(why.contains("tokens.txt") && why.contains("mode 640") && why.contains("chmod 600"), "{why}");
}

#[test]
fn a_server_without_sound_files_does_not_start_and_says_why() {
    let users = Users::new();
    let fails = |change: &dyn Fn(&mut AuthRules)| {
        let mut rules = users.rules();
        change(&mut rules);
        let server = TestServer::prepare(|config| demand(config, rules), |_| {});
        server.err().expect("it does not start").to_string()
    };
    let missing = fails(&|rules| rules.basic = Some(users.file("none.txt")));
    assert!(missing.contains("none.txt") && missing.contains("wshd passwd USER"), "{missing}");
    let swapped = fails(&|rules| rules.bearer.clone_from(&rules.basic));
    assert!(
        swapped.contains("users.txt:1 (`auth.staff.bearer`)") && swapped.contains("wshd token"),
        "{swapped}"
    );
    let unasked = fails(&|rules| rules.client_certificate = Some(CertificateName::Cn));
    assert!(unasked.contains("set tls.client_auth"), "{unasked}");
}

#[test]
fn the_program_keeps_what_else_is_in_a_file_and_refuses_what_is_no_user() {
    let users = Users::new();
    let path = users.file("users.txt");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("# staff\n{before}zoe:x")).unwrap();
    set_password(users.folder.path(), "ann", "new");
    let after = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = after.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "# staff", "zoe:x"));
    assert!(lines[1].starts_with("ann:$argon2id$") && !before.contains(lines[1]), "{after}");
    make_token(users.folder.path(), "bob");
    assert_eq!(std::fs::read_to_string(users.file("tokens.txt")).unwrap().lines().count(), 2);
    for user in ["a:b", "", "#a"] {
        let output = wshd(users.folder.path()).args(["passwd", "--", user]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("cannot be a user"), "{said}");
    }
    let output = wshd(users.folder.path()).args(["passwd", "ann"]).output().unwrap();
    assert!(!output.status.success(), "an empty password");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
}

// ---- sessions and logs -------------------------------------------------------------------------------------------------

#[test]
fn a_session_keeps_its_user_when_its_code_is_replaced() {
    let users = Users::new();
    let server = serve(|config| demand(config, users.rules()));
    let mut client = Client::open(server.address(), "/user", &[("Authorization", &basic("ann:s3cret: ü"))])
        .expect("accepted");
    client.send_text("?");
    assert_eq!(client.text(), "ann");
    server.put_version(&server.folder().join("user_wsh.so"), 1);
    server.wait_for("the session has moved", |status| {
        status.handlers[0].active.as_ref().is_some_and(|active| active.number > 1 && active.sessions == 1)
    });
    client.send_text("?");
    assert_eq!(client.text(), "ann");
    client.close();
}

/// With everything in the log that there is, it names the user and no secret.
#[test]
fn the_log_names_users_and_no_secrets() {
    let users = Users::new();
    let config = "[log]\nlevel = \"trace\"\n[auth.staff]\nbasic = \"users.txt\"\nbearer = \"tokens.txt\"\n\
                  [upgrade]\nauth = \"staff\"\n[files]\nauth = \"staff\"\n";
    let folder = users.folder.path().display();
    let config = config
        .replace("= \"users", &format!("= \"{folder}/users"))
        .replace("= \"tokens", &format!("= \"{folder}/tokens"));
    let server = ServerProcess::start(&["echo"], &config);
    let open = |lines: &[(&'static str, &str)]| Client::open(server.address(), "/echo", lines);
    let (right, wrong) = (basic("ann:s3cret: ü"), basic("ann:gue55ed"));
    let offered = format!("wshd.bearer, wshd.bearer.{}", users.token);
    for lines in [[("Authorization", &*right)], [("Sec-WebSocket-Protocol", &*offered)]] {
        open(&lines).expect("accepted").close();
    }
    for lines in [
        [("Authorization", &*wrong)],
        [("Sec-WebSocket-Protocol", "wshd.bearer.gue55ed")],
        [("Authorization", "Bearer gue55ed")],
        [("Authorization", "Basic gue55ed!")],
    ] {
        assert_eq!(open(&lines).err().expect("refused").0, 401);
    }
    server.signal("TERM");
    let (_, log, status) = server.wait();
    assert!(status.success());
    assert_eq!(log.matches("user=\"ann\"").count(), 3, "two sessions and a wrong password: {log}");
    assert!(log.contains("wrong user name or password") && log.contains("this token is not known"), "{log}");
    for secret in [&users.token, "s3cret", "gue55ed", &right[6..], &wrong[6..]] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}
