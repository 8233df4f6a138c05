//! What an operator sees of right and wrong config files.

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("config/config.toml")).map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("the text is wrong")
}

fn reference() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/config.toml");
    let text = std::fs::read_to_string(&path).expect("the repository has config/config.toml");
    (path, text)
}

/// The commented reference says what the server does without it, except where it names folders of the repository.
#[test]
fn reference_file_equals_the_defaults() {
    let (path, text) = reference();
    let mut config = Config::parse(&text, &path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.handlers.folders, [Path::new("handlers"), Path::new("target/release")]);
    assert_eq!(config.files.root.as_deref(), Some(Path::new("www")));
    config.handlers.folders = Handlers::default().folders;
    config.files = Files::default();
    assert_eq!(config, Config { source: Some(path), ..Config::default() });
}

/// Every key of every section stands in the reference, in its section, and is explained above.
#[test]
fn reference_file_mentions_every_key() {
    let (_, text) = reference();
    for (section, keys) in file::sections() {
        let (_, body) =
            text.split_once(&format!("\n[{section}]\n")).unwrap_or_else(|| panic!("no [{section}]"));
        let body = body.split("\n[").next().expect("split has a first part");
        for key in keys {
            let line = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            let at = body.lines().position(|text| line(&text));
            let at = at.unwrap_or_else(|| panic!("no {section}.{key}"));
            let above = body.lines().nth(at.wrapping_sub(1)).unwrap_or_default();
            assert!(above.starts_with("# "), "{section}.{key} has no comment above it");
        }
    }
}

/// No file, an empty file and a file of empty sections are the same.
#[test]
fn empty_file_is_the_defaults() {
    let plain = Config { source: Some(PathBuf::from("config/config.toml")), ..Config::default() };
    assert_eq!(parse("").unwrap(), plain);
    assert_eq!(parse("[listen]\n[limits]\n").unwrap(), plain);
    assert_eq!(Config::default_with(&Cli::default()), Config::default());
}

/// An unknown key is shown with its line and the key that was meant.
#[test]
fn unknown_key_names_the_nearest_one() {
    assert_eq!(
        refusal("# eleven lines\n[limits]\nmesage_bytes_max = 100\n"),
        "config/config.toml:3:1: unknown key `limits.mesage_bytes_max`\n    3 | mesage_bytes_max = 100\n      | \
         ^^^^^^^^^^^^^^^^\n   did you mean `message_bytes_max`?"
    );
}

/// A key that resembles none gets the list of the section; one of another section gets that section's name.
#[test]
fn unknown_key_names_its_section() {
    assert!(
        refusal("[log]\ncolour = 1\n")
            .ends_with("   the keys of [log] are: level, file, file_bytes_max, files_kept")
    );
    assert!(refusal("[limits]\nport = 1\n").ends_with("   `port` belongs to the section [listen]"));
    assert!(refusal("port = 1\n").ends_with("   `port` belongs to the section [listen]"));
    assert!(refusal("[limit]\n").contains("unknown section or key `limit`"));
    assert!(refusal("[limit]\n").ends_with("   did you mean [limits]?"));
    assert!(
        refusal("[x]\n").ends_with(
            "the sections are: listen, tls, handlers, files, upgrade, deflate, limits, log, control"
        )
    );
}

/// One run reports every unknown key and every wrong type, in the order of the file.
#[test]
fn all_problems_are_reported_at_once() {
    let text = "[listen]\nport = \"80\"\nprot = 1\n[limits]\nping_seconds = true\nhead_lines_max = 1.5\nx = 1\n[nope]\n";
    let error = Config::parse(text, Path::new("c.toml")).expect_err("all of it is wrong");
    let ConfigError::Wrong { problems, .. } = &error else { panic!("{error}") };
    let keys: Vec<_> = problems.iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    let expected = [
        (2, "listen.port"),
        (3, "listen.prot"),
        (5, "limits.ping_seconds"),
        (6, "limits.head_lines_max"),
        (7, "limits.x"),
        (8, "nope"),
    ];
    assert_eq!(keys, expected);
    let text = error.to_string();
    assert!(text.contains("c.toml:2:8: wrong type for `listen.port`: invalid type: string \"80\", expected a whole number without quotes\n    2 | port = \"80\"\n      |        ^^^^"), "{text}");
    assert!(text.contains("expected a number of seconds without quotes, such as 10 or 0.5"), "{text}");
}

/// Values outside of their range are refused with the range, every one of them.
#[test]
fn value_out_of_range_is_refused() {
    let text = refusal("[listen]\nport = 65536\n[limits]\nmessage_bytes_max = -1\nclose_seconds_max = nan\n");
    assert!(text.contains("2:8: `listen.port` is 65536, but must be 0 to 65535\n"), "{text}");
    assert!(text.contains("`limits.message_bytes_max` is -1, but must be 1 to 1073741824 bytes"), "{text}");
    assert!(text.contains("`limits.close_seconds_max` is NaN, but must be 0.001 to 86400 seconds"), "{text}");
}

/// Values that contradict each other are refused, also where one of them is a default.
#[test]
fn contradictions_are_refused() {
    let text = refusal("[limits]\noutgoing_bytes_high = 1000\n");
    assert!(text.contains(":2:23: `limits.outgoing_bytes_low` is 16384, but must be less than"), "{text}");
    let text = refusal("[limits]\noutgoing_bytes_max = 20000\n");
    assert!(text.contains("`limits.outgoing_bytes_high` is 65536, but must not be more than"), "{text}");
    let text = refusal("[limits]\nidle_seconds_max = 20\n");
    assert!(text.contains("`limits.idle_seconds_max` is 20, but must be more than"), "{text}");
}

/// A section that is not a table, a table that is not a section, and text that is not TOML.
#[test]
fn wrong_shapes_are_refused() {
    assert!(refusal("limits = 3\n").contains("`limits` is a section: write [limits]"));
    assert!(refusal("[[limits]]\n").contains("`limits` is a section: write [limits]"));
    assert!(
        refusal("[limits.message_bytes_max]\na = 1\n").contains("wrong type for `limits.message_bytes_max`")
    );
    assert!(refusal("[limits\n").starts_with("config/config.toml:1:"));
    assert!(refusal("[log]\nlevel = \"info\"\nlevel = \"warn\"\n").contains("duplicate key"));
    assert!(
        refusal("[log]\nlevel = \"loud\"\n")
            .contains("`log.level` is \"loud\", but must be one of error, warn")
    );
}

/// Hosts and folders are a list or one string; an empty list is refused.
#[test]
fn lists_take_one_string() {
    let config = parse("[listen]\nhosts = \"localhost\"\n[handlers]\nfolders = \"here\"\n").unwrap();
    assert_eq!(config.listen.hosts, [Host::Name("localhost".into())]);
    assert_eq!(config.handlers.folders, [Path::new("here")]);
    assert!(refusal("[listen]\nhosts = []\n").contains("needs at least one entry"));
    assert!(refusal("[handlers]\nfolders = [\"\"]\n").contains("empty path"));
    assert!(refusal("[files]\nroot = \"\"\n").contains("`files.root` is empty"));
    let text = refusal("[listen]\nhosts = [\"::1\", \"127.0.0.1:80\"]\n");
    assert!(text.contains("2:17: `listen.hosts` has \"127.0.0.1:80\", but a host is an address"), "{text}");
}

/// Origins are two words or a list of what browsers send.
#[test]
fn origins_are_checked() {
    let origins =
        |text: &str| parse(&format!("[upgrade]\norigins = {text}\n")).map(|config| config.upgrade.origins);
    assert_eq!(origins("\"*\""), Ok(Origins::Any));
    assert_eq!(origins("\"same-host\""), Ok(Origins::SameHost));
    let list = vec!["https://a.example".to_owned(), "http://[::1]:8080".to_owned(), "null".to_owned()];
    assert_eq!(origins("[\"https://A.example\", \"http://[::1]:8080\", \"null\"]"), Ok(Origins::List(list)));
    for wrong in
        ["[]", "[\"*\"]", "\"https://a.example/\"", "\"a.example\"", "[\"https://*.a.example\"]", "1"]
    {
        origins(wrong).expect_err(wrong);
    }
}

/// Addresses, names, and what is neither.
#[test]
fn hosts_are_addresses_or_names() {
    assert_eq!("[::1]".parse(), Ok(Host::Address("::1".parse().unwrap())));
    assert_eq!("my-host.local.".parse(), Ok(Host::Name("my-host.local.".into())));
    for wrong in ["", "1.2.3", "1.2.3.4.5", "a b", "a:80", "http://a", "a..b", "."] {
        assert_eq!(wrong.parse::<Host>(), Err(InvalidHost), "{wrong}");
    }
}

/// Three ways to watch, and a bounded time between two looks.
#[test]
fn ways_to_watch_are_checked() {
    let handlers = |text: &str| parse(&format!("[handlers]\n{text}\n")).map(|config| config.handlers);
    for (word, mode) in [("auto", WatchMode::Auto), ("poll", WatchMode::Poll), ("off", WatchMode::Off)] {
        assert_eq!(handlers(&format!("watch = \"{word}\"")).map(|handlers| handlers.watch), Ok(mode));
    }
    let poll = handlers("watch = \"poll\"\npoll_seconds = 0.25").unwrap();
    assert_eq!(poll.poll_seconds, Duration::from_millis(250));
    assert_eq!(handlers("watch = \"poll\"").unwrap().poll_seconds, Duration::from_secs(2));
    let text = refusal("[handlers]\nwatch = \"inotify\"\npoll_seconds = 0.01\n");
    assert!(
        text.contains(":2:9: `handlers.watch` is \"inotify\", but must be one of auto, poll, off\n"),
        "{text}"
    );
    assert!(
        text.contains(":3:16: `handlers.poll_seconds` is 0.01, but must be 0.05 to 3600 seconds\n"),
        "{text}"
    );
    let text = refusal("[handlers]\nwatch = false\n");
    assert!(text.contains("wrong type for `handlers.watch`: "), "{text}");
    assert!(refusal("[handlers]\npoll_second = 1\n").ends_with("did you mean `poll_seconds`?"));
}

/// Zero threads in the file means as many as cores, and at most four that accept.
#[test]
fn zero_threads_are_resolved() {
    let config = parse("[listen]\nfront_threads = 0\n[handlers]\nworkers = 0\n").unwrap();
    assert!((1..=4).contains(&config.listen.front_threads));
    assert_eq!(config.handlers.workers, cores());
    assert_eq!(parse("[handlers]\nworkers = 7\n").unwrap().handlers.workers, 7);
}

/// A flag beats the file, the file beats the default.
#[test]
fn flag_beats_file_beats_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[listen]\nport = 1\nbacklog = 2\n[log]\nlevel = \"debug\"\n").unwrap();
    let cli = Cli {
        port: Some(3),
        websock_handlers: vec!["a".into(), "b".into()],
        document_root: Some("d".into()),
        ..Cli::default()
    };
    let config = Config::load_file(&path, &cli).unwrap();
    assert_eq!((config.listen.port, config.listen.backlog), (3, 2));
    assert_eq!(config.handlers.folders, [Path::new("a"), Path::new("b")]);
    assert_eq!((config.files.root, config.log.level), (Some("d".into()), Level::Debug));
    assert_eq!(config.limits, Limits::default());
}

/// The search takes the flag, then the environment, then the first file that exists, then the defaults.
#[test]
fn search_goes_from_the_nearest_to_the_farthest() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, port: u16| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("[listen]\nport = {port}\n")).unwrap();
        path
    };
    let (flag, environment, first, second) = (file("f", 1), file("e", 2), file("1", 3), file("2", 4));
    let missing = folder.path().join("missing");
    let none = Cli::default();
    let asked = Cli { config: Some(flag.clone()), ..Cli::default() };
    let port = |cli: &Cli, environment: Option<&Path>, searched: &[&Path]| {
        let found = Config::search_in(cli, environment.map(|path| path.as_os_str().to_owned()), searched);
        found.map(|config| config.listen.port).map_err(|error| error.to_string())
    };
    assert_eq!(port(&asked, Some(&environment), &[&first]), Ok(1));
    assert_eq!(port(&none, Some(&environment), &[&first]), Ok(2));
    assert_eq!(port(&none, Some(Path::new("")), &[&first, &second]), Ok(3));
    assert_eq!(port(&none, None, &[&missing, &second]), Ok(4));
    assert_eq!(port(&none, None, &[&missing]), Ok(9998));
    let refused = port(&none, Some(&missing), &[&first]).expect_err("what was asked for must exist");
    assert!(refused.contains("missing (from $WSHD_CONFIG): No such file or directory"), "{refused}");
}

/// What is the handler's stands in a table of its own and arrives as JSON; a typo in the server's keys stays an error.
#[test]
fn a_handlers_own_keys_are_json() {
    let config = parse(
        "[handlers.chat]\nreload = \"drain\"\n[handlers.chat.config]\nmotto = \"be \\\"kind\\\"\"\nrooms = 3\n\
         since = 2026-01-02\n[handlers.chat.config.limits]\nratio = 0.5\nlist = [1, true]\n",
    );
    let config = config.unwrap();
    let json =
        r#"{"limits":{"list":[1,true],"ratio":0.5},"motto":"be \"kind\"","rooms":3,"since":"2026-01-02"}"#;
    assert_eq!(config.handlers.config_of("chat"), json);
    assert_eq!(config.handlers.config_of("echo"), "{}");

    let typo = refusal("[handlers.chat]\nmotto = \"be kind\"\n");
    assert!(typo.contains("unknown key `handlers.chat.motto`"), "{typo}");
    assert!(typo.ends_with("the handler's own stand in [handlers.chat.config]"), "{typo}");
    let endless = refusal("[handlers.chat.config.limits]\nratio = inf\n");
    assert!(endless.contains("`handlers.chat.config.limits.ratio` is inf"), "{endless}");
    let wrong = refusal("[handlers.chat]\nconfig = 3\n");
    assert!(wrong.contains("wrong type for `handlers.chat.config`"), "{wrong}");
}

/// A file that is not text is refused with the line where it stops being text.
#[test]
fn binary_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, b"[log]\n\xff\n").unwrap();
    let error = Config::load_file(&path, &Cli::default()).expect_err("no text").to_string();
    assert!(error.ends_with("c.toml:2: the file is not UTF-8 text"), "{error}");
}

/// No text makes the reader panic.
#[test]
fn broken_text_never_panics() {
    let (_, text) = reference();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = state as usize % bytes.len();
            bytes[at] = b"[]=\"'\n.{}#0ax \xc3"[(state >> 40) as usize % 15];
        }
        let _ = parse(&String::from_utf8_lossy(&bytes)).map_err(|error| assert!(!error.is_empty()));
    }
}

/// A Unix socket, who may connect to it, and who is believed.
#[test]
fn unix_sockets_and_proxies_are_read() {
    let text = "[listen]\nunix = \"a.sock\"\nunix_mode = \"600\"\nhosts = []\ntrusted_proxies = [\"unix\", \"10.0.0.0/8\"]\n";
    let listen = parse(text).unwrap().listen;
    assert_eq!((listen.unix, listen.unix_mode), (vec![PathBuf::from("a.sock")], 0o600));
    assert!(listen.hosts.is_empty(), "the socket is enough");
    let ip = |text: &str| Some(text.parse().unwrap());
    for (peer, is_trusted) in [
        (None, true),
        (ip("10.255.0.1"), true),
        (ip("::ffff:10.0.0.1"), true),
        (ip("11.0.0.1"), false),
        (ip("::1"), false),
    ] {
        assert_eq!(listen.trusted_proxies.include(peer), is_trusted, "{peer:?}");
    }
    for (wrong, why) in [
        ("hosts = []", "needs at least one entry"),
        ("unix = \"\"", "must name a file"),
        ("unix_mode = \"0999\"", "the digits that chmod takes"),
        ("unix_mode = \"4755\"", "the digits that chmod takes"),
        ("trusted_proxies = \"10.0.0.0/33\"", "a network such as 10.0.0.0/8"),
        ("trusted_proxies = \"proxy.example\"", "a proxy is an address"),
    ] {
        let error = parse(&format!("[listen]\n{wrong}\n")).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
