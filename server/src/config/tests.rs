//! What an operator sees of right and wrong config files.

use clap::Parser as _;

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

/// The commented reference says what the server does without it, except where it names folders of the repository and an example
/// handler of it that decides by itself.
#[test]
fn reference_file_equals_the_defaults() {
    let (path, text) = reference();
    let mut config = Config::parse(&text, &path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.handlers.folders, [Path::new("handlers"), Path::new("target/release")]);
    assert_eq!(config.files.root.as_deref(), Some(Path::new("www")));
    config.handlers.folders = Handlers::default().folders;
    config.files = Files::default();
    let echo = config.handlers.each.remove("echo").expect("pages of file:// may talk to the handler echo");
    let origins = Some(Origins::List(vec!["same-host".into(), "null".into()]));
    assert_eq!(echo, HandlerRules { origins, ..HandlerRules::default() });
    let decides = config.handlers.each.remove("origin_check").expect("it has a section");
    assert_eq!(decides, HandlerRules { origins: Some(Origins::Any), ..HandlerRules::default() });
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

/// So does every key of a route, and of one handler.
#[test]
fn reference_file_mentions_every_key_of_routes_and_handlers() {
    let (_, text) = reference();
    let is_shown = |section: &str, key: &str| {
        let lines = text.lines().skip_while(move |line| *line != section);
        lines.take_while(|line| !line.is_empty()).any(|line| line.starts_with(&format!("# {key} = ")))
    };
    for key in tables::route_keys() {
        assert!(
            is_shown("# [[routes]]", key) || *key == "config" && text.contains("\n# [routes.config]\n"),
            "{key}"
        );
    }
    for key in file::keys::<file::HandlerRules>() {
        assert!(
            is_shown("# [handlers.chat]", key) || *key == "config" && text.contains("[handlers.chat.config]"),
            "{key}"
        );
    }
}

/// What the reference shows of routes and aliases can be taken as it stands.
#[test]
fn the_examples_of_the_reference_are_sound() {
    let (_, text) = reference();
    let (_, shown) = text.split_once("\n# ---- Routes and aliases").expect("the section");
    let (shown, _) = shown.split_once("\n# ---- Static files").expect("the one behind it");
    let is_toml = |line: &&str| match line.chars().next() {
        Some('[') => line.ends_with(']'),
        Some('"') => true,
        _ => line.contains(" = ") && !line.contains(", "),
    };
    let lines = shown.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_toml);
    // The users that a route asks for stand in a section of their own.
    let lines = lines.chain(["[auth.staff]", "basic = \"users.txt\""]);
    let config = parse(&lines.collect::<Vec<_>>().join("\n")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.aliases.own.len(), config.routes.len()), (2, 2));
    assert_eq!(config.routes[1].variant.as_deref(), Some("chat#lobby"));
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
    assert!(refusal("[x]\n").ends_with(
        "the sections are: listen, tls, handlers, files, upgrade, auth, cgi, deflate, limits, log, control, aliases, routes"
    ));
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

/// What is granted is granted to one handler, and to none by default.
#[test]
fn one_handler_may_be_open_to_all_pages_and_have_raw_access() {
    let config =
        parse("[handlers.\"sub/odd\"]\norigins = \"*\"\nraw = true\n[handlers.echo]\nraw = false\n").unwrap();
    assert!(config.handlers.grants_raw("sub/odd"));
    assert_eq!(config.origins_of("sub/odd"), &Origins::Any);
    for other in ["echo", "odd", ""] {
        assert!(!config.handlers.grants_raw(other), "{other}");
        assert_eq!(config.origins_of(other), &Origins::SameHost, "{other}");
    }
    for wrong in
        ["[handlers]\nraw = true\n", "[handlers.echo]\nraw = \"yes\"\n", "[handlers.echo]\norigins = []\n"]
    {
        parse(wrong).expect_err(wrong);
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
        scan_dir: Some("a/s".into()),
        allow_handlers_outside_root_dir: true,
        validation_host: Some("a.example".parse().unwrap()),
        validation_port: Some(80),
        ..Cli::default()
    };
    let config = Config::load_file(&path, &cli).unwrap();
    assert_eq!((config.listen.port, config.listen.backlog), (3, 2));
    assert_eq!(config.handlers.folders, [Path::new("a"), Path::new("b")]);
    assert_eq!(config.handlers.scan_dir.as_deref(), Some(Path::new("a/s")));
    assert!(config.handlers.follow_links_outside);
    let UpgradeRules { validation_host, validation_port, .. } = config.upgrade;
    assert_eq!((validation_host, validation_port), (Some("a.example".parse().unwrap()), Some(80)));
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

/// Routes and aliases that cannot be meant are refused with their place, and with what is right.
#[test]
fn wrong_routes_and_aliases_are_refused() {
    for (text, place, words) in [
        ("[aliases]\n\"a\" = \"/b\"\n", "2:1", "`aliases` has \"a\", but a path begins with /"),
        ("[aliases]\n\"/a\" = \"/b?x\"\n", "2:8", "may not have the character '?'"),
        ("[aliases]\n\"/a\" = 1\n", "2:8", "expected a path in quotes"),
        ("[aliases]\n\"/a\" = \"/b\"\n\"/b\" = \"/c\"\n\"/c\" = \"/a\"\n", "2:8", "leads back to itself"),
        ("[aliases]\n\"/a\" = \"/a\"\n", "2:8", "leads back to itself"),
        ("aliases = 1\n", "1:11", "write [aliases]"),
        ("[routes]\npath = \"/a\"\n", "1:1", "write [[routes]]"),
        ("routes = [1]\n", "1:11", "write [[routes]]"),
        ("[[routes]]\npath = \"/a\"\n", "1:1", "this route has no `handler`"),
        ("[[routes]]\nhandler = \"a\"\n", "1:1", "this route has no `path`"),
        ("[[routes]]\nhandler = \"\"\npath = \"/\"\n", "2:11", "a name has letters"),
        ("[[routes]]\nhandler = \"a\"\npath = \"/a/{\"\n", "3:8", "a parameter is written {NAME}"),
        ("[[routes]]\nhandler = \"a\"\npath = \"/{a}{b}\"\n", "3:8", "one parameter at most"),
        ("[[routes]]\nhandler = \"a\"\npath = \"/{*a}/b\"\n", "3:8", "{*NAME} stands only at the end"),
        ("[[routes]]\nhandler = \"a\"\npath = \"/*/b\"\n", "3:8", "* stands only at the end"),
        ("[[routes]]\nhandler = \"a\"\npath = \"/a//b\"\n", "3:8", "no path has //"),
        ("[[routes]]\nhandler = \"a\"\npath = \"/a%20b\"\n", "3:8", "written decoded"),
        ("[[routes]]\nhandler = \"a\"\npath = \"/a\"\nhost = \"a:80\"\n", "4:8", "without a port"),
        (
            "[[routes]]\nhandler = \"a\"\npath = \"/a\"\nprefix = \"/b\"\n",
            "4:1",
            "unknown key `routes.prefix`",
        ),
        ("[[routes]]\nhandler = 1\npath = \"/a\"\n", "2:11", "wrong type for `routes.handler`"),
        (
            "[[routes]]\nhandler = \"a\"\npath = \"/a\"\nslow_peer = \"close\"\n",
            "4:13",
            "write config = {} if it is to have one",
        ),
        (
            "[[routes]]\nhandler = \"a\"\npath = \"/a\"\nconfig = {}\nreload = \"never\"\n",
            "5:10",
            "`routes.reload` is \"never\"",
        ),
        ("[[route]]\n", "1:3", "did you mean [[routes]]?"),
    ] {
        let refused = refusal(text);
        assert!(
            refused.contains(&format!("config.toml:{place}: ")) && refused.contains(words),
            "{text}: {refused}"
        );
    }
    let two = |first: &str, second: &str| {
        let route = |keys: &str| format!("[[routes]]\nhandler = \"a\"\n{keys}\n");
        parse(&format!("{}{}", route(first), route(second)))
    };
    for (first, second, words) in [
        ("path = \"/a\"", "path = \"/a\"", "there is a route for /a already"),
        ("path = \"/a/*\"", "path = \"/a/*\"", "there is a route for /a/* already"),
        ("path = \"/{a}\"", "path = \"/{b}\"", "cannot be told from /{a}"),
        (
            "path = \"/a\"\nhost = \"A.example\"",
            "path = \"/a\"\nhost = \"a.example.\"",
            "a route for a.example/a already",
        ),
        (
            "path = \"/a\"\nname = \"x\"\nconfig = {}",
            "path = \"/b\"\nname = \"x\"\nconfig = {}",
            "there is a variant a#x already",
        ),
    ] {
        let refused = two(first, second).expect_err(words);
        assert!(refused.contains(words), "{refused}");
    }
    two("path = \"/a\"\nhost = \"a.example\"", "path = \"/a\"").unwrap();
    two("path = \"/{a}\"", "path = \"/{*a}\"\nhost = \"*.example\"").unwrap();
    let section = refusal(
        "[[routes]]\nhandler = \"a\"\npath = \"/a\"\nname = \"x\"\nconfig = {}\n[handlers.\"a#x\"]\nreload = \"drain\"\n",
    );
    assert!(section.contains("its keys belong into this route"), "{section}");
}

/// A variant goes by what its route says, else by what its handler goes by; its config is its own.
#[test]
fn a_variant_goes_by_its_route_and_then_by_its_handler() {
    let config = parse(
        "[handlers.chat]\nreload = \"drain\"\nslow_peer = \"drop-oldest\"\ndeflate = true\n[handlers.chat.config]\nmotto = \"all\"\n\
         [[routes]]\npath = \"/lobby\"\nhandler = \"/chat\"\nreload = \"restart\"\nconfig = { motto = \"lobby\" }\n",
    )
    .unwrap();
    let name = config.routes[0].variant.as_deref().unwrap();
    assert_eq!(name, "chat#/lobby");
    assert_eq!(config.handlers.rules_of(name).0, Some(Reload::Restart));
    assert_eq!(config.limits_of(name).slow_peer, SlowPeer::DropOldest);
    assert!(config.deflate_of(name).rules.is_on);
    assert_eq!(config.handlers.config_of(name), r#"{"motto":"lobby"}"#);
    assert_eq!(config.handlers.config_of("chat"), r#"{"motto":"all"}"#);
}

/// The map file is read with the config, and a server whose map file is broken by now can still be told so.
#[test]
fn a_broken_map_file_is_an_error_of_the_config_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, map) = (folder.path().join("c.toml"), folder.path().join("map.txt"));
    std::fs::write(&path, format!("[control]\nsocket = \"s\"\n[handlers]\nmap_file = {map:?}\n")).unwrap();
    std::fs::write(&map, "# all of it\n/ /echo\n").unwrap();
    let config = Config::load_file(&path, &Cli::default()).unwrap();
    assert_eq!(config.aliases.iter().collect::<Vec<_>>(), [("/", "/echo")]);
    assert_eq!(config.sources().collect::<Vec<_>>(), [&path, &map]);
    std::fs::write(&map, "/ /echo\n/x\n").unwrap();
    let error = Config::load_file(&path, &Cli::default()).expect_err("a wrong line");
    assert!(error.to_string().contains("map.txt:2:1: a line of a map file is ALIAS EXISTING"), "{error}");
    assert_eq!(error.control_socket(), Path::new("s"));
}

/// A handler's compression is a switch or a table; what the table does not name is as for all, wherever that stands in the file.
#[test]
fn a_handler_has_compression_of_its_own() {
    let text = "[handlers.on]\ndeflate = true\n[handlers.off]\ndeflate = { enabled = false }\n\
                [handlers.deep.deflate]\nlevel = 9\nmemory_bytes_max = 0\nclient_no_context_takeover = true\n\
                [deflate]\nlevel = 3\nmessage_bytes_min = 100\n";
    let config = parse(text).unwrap();
    let for_all = config.deflate;
    assert_eq!((for_all.rules.is_on, for_all.rules.level), (false, 3));
    assert_eq!(config.deflate_of("other"), for_all);
    let rules = DeflateRules { is_on: true, ..for_all.rules };
    assert_eq!(config.deflate_of("on"), Deflate { rules, ..for_all });
    assert_eq!(config.deflate_of("off"), for_all);
    let rules = DeflateRules { level: 9, client_no_context_takeover: true, ..for_all.rules };
    assert_eq!(config.deflate_of("deep"), Deflate { rules, memory_bytes_max: 0 });
    let config = parse("[deflate]\nenabled = true\n[handlers.deep.deflate]\nlevel = 9\n").unwrap();
    assert!(config.deflate_of("deep").rules.is_on);
    // Every key of the section is one of the table.
    let (_, text) = reference();
    let (_, section) = text.split_once("\n[deflate]\n").unwrap();
    let section = section.split("\n# ----").next().unwrap();
    let config =
        parse(&format!("[handlers.all.deflate]\n{section}")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.deflate_of("all"), Deflate::default());
}

/// What is wrong in the table of a handler is said with its place, all at once.
#[test]
fn wrong_keys_of_a_handlers_compression_are_refused() {
    let text = "[handlers.chat]\ndeflate = { levl = 6, level = 10, colour = 1, enabled = \"no\" }\n[handlers.echo]\ndeflate = 3\n";
    let text = refusal(text);
    for words in [
        ":2:13: unknown key `handlers.chat.deflate.levl`\n",
        "did you mean `level`?",
        ":2:35: unknown key `handlers.chat.deflate.colour`\n",
        "the keys of [handlers.NAME.deflate] are: enabled, level, message_bytes_min,",
        ":2:57: wrong type for `handlers.chat.deflate.enabled`: invalid type: string \"no\", expected a boolean",
        ":4:11: wrong type for `handlers.echo.deflate`: invalid type: integer `3`, expected true, false, or a table",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let text =
        refusal("[handlers.chat.deflate]\nlevel = 10\nserver_window_bits_max = 7\nmemory_bytes_max = -1\n");
    for words in [
        ":2:9: `handlers.chat.deflate.level` is 10, but must be 1 to 9\n",
        ":3:26: `handlers.chat.deflate.server_window_bits_max` is 7, but must be 8 to 15 bits\n",
        ":4:20: `handlers.chat.deflate.memory_bytes_max` is -1, but must be 0 to 1099511627776 bytes\n",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
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

/// Who is asked where: the rule of a handler before that of all, and files by their own.
#[test]
fn auth_is_looked_up_by_handler() {
    let text = "[auth.staff]\nbasic = \"users.txt\"\n[auth.devices]\nbearer = \"tokens.txt\"\nrealm = \"things\"\n\
                [upgrade]\nauth = \"staff\"\n[handlers.sensor]\nauth = \"devices\"\n[handlers.lobby]\nauth = \"none\"\n";
    let config = parse(text).unwrap();
    assert_eq!(config.auth_of(Some("chat"), None), Some("staff"));
    assert_eq!(config.auth_of(Some("sensor"), None), Some("devices"));
    assert_eq!(config.auth_of(Some("lobby"), None), None);
    assert_eq!(config.auth_of(None, None), Some("staff"), "a path without a handler");
    assert_eq!(config.auth_of_files(), None);
    assert_eq!(config.auth["devices"].realm.as_deref(), Some("things"));
}

/// A route asks as it says, else as its handler does; the variant of a handler is as closed as the handler.
#[test]
fn auth_of_a_route_comes_before_that_of_its_handler() {
    let text = "[auth.staff]\nbasic = \"users.txt\"\n[handlers.chat]\nauth = \"staff\"\n\
                [[routes]]\npath = \"/open\"\nhandler = \"chat\"\nauth = \"none\"\n\
                [[routes]]\npath = \"/own\"\nhandler = \"chat\"\nconfig = {}\n\
                [[routes]]\npath = \"/echo\"\nhandler = \"echo\"\nauth = \"staff\"\n";
    let config = parse(text).unwrap();
    let auth_of = |index: usize| {
        let route = &config.routes[index];
        config.auth_of(Some(route.target()), Some(route))
    };
    assert_eq!([0, 1, 2].map(auth_of), [None, Some("staff"), Some("staff")]);
    let refused = refusal("[[routes]]\npath = \"/a\"\nhandler = \"a\"\nauth = \"staff\"\n");
    assert!(refused.contains(":4:8: `routes.auth` is \"staff\", but there is no section"), "{refused}");
}

#[test]
fn auth_that_lets_nobody_in_or_does_not_exist_is_refused() {
    let wrong = |text: &str, expected: &str| {
        let refused = refusal(text);
        assert!(refused.contains(expected), "{text}: {refused}");
    };
    wrong(
        "[upgrade]\nauth = \"staff\"\n",
        ":2:8: `upgrade.auth` is \"staff\", but there is no section [auth.staff]",
    );
    wrong("[handlers.chat]\nauth = \"staff\"\n", "`handlers.chat.auth` is \"staff\"");
    wrong("[auth.staff]\n", ":1:7: `auth.staff` lets nobody in");
    wrong("[auth.none]\nbasic = \"a\"\n", "no section can have the name \"none\"");
    wrong("[auth.\"ü\"]\nbasic = \"a\"\n", "printable ASCII");
    wrong("[auth.staff]\nbasik = \"a\"\n", "did you mean `basic`?");
    wrong("[auth.staff]\nbasic = 1\n", "wrong type for `auth.staff.basic`");
    wrong("[auth.staff]\nbasic = \"a\"\ncertificates = \"b\"\n", "without `client_certificate`");
    wrong("[auth.staff]\nclient_certificate = \"name\"\n", "must be one of cn, dns, email, uri");
    wrong("[auth]\nstaff = \"users.txt\"\n", "its keys stand in sections of their own: [auth.NAME]");
}

/// pywebsocket's flag: every request, whatever the file says, and no credential of its own.
#[test]
fn basic_auth_of_the_command_line_is_for_every_request() {
    let cli = |line: &str| Cli::try_parse_from(line.split(' '));
    let given = cli("wshd --basic-auth --basic-auth-credential test:a:b").unwrap();
    let mut config = parse("[handlers.lobby]\nauth = \"none\"\n").unwrap();
    config.override_with(&given);
    let name = config.auth_of(Some("lobby"), None).unwrap();
    assert_eq!(config.auth_of_files(), Some(name));
    let credential = config.auth[name].credential.clone().unwrap();
    assert_eq!((credential.user.as_str(), credential.password.as_str()), ("test", "a:b"));
    assert!(!format!("{config:?}{given:?}").contains("a:b"), "a config can be shown");
    assert!(cli("wshd --basic-auth").unwrap_err().to_string().contains("--basic-auth-credential"));
    assert!(
        cli("wshd --basic-auth --basic-auth-credential test")
            .unwrap_err()
            .to_string()
            .contains("USER:PASSWORD")
    );
}

#[test]
fn folders_of_programs_are_paths_beneath_the_root() {
    let config = parse("[cgi]\npaths = [\"/cgi-bin/\", \"/a/b\"]\n").unwrap();
    assert_eq!(config.cgi.paths, ["/cgi-bin", "/a/b"]);
    for path in ["/", "", "cgi-bin", "/a//b", "/../a", "/.git"] {
        assert!(refusal(&format!("[cgi]\npaths = \"{path}\"\n")).contains("`cgi.paths` has"), "{path}");
    }
    let cli = Cli::try_parse_from(["wshd", "-x", "/cgi-bin,/htbin/", "-d", "www"]).unwrap();
    assert_eq!(Config::default_with(&cli).cgi.paths, ["/cgi-bin", "/htbin"]);
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
