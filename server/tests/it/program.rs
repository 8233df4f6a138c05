//! The program as its user meets it: command line, screen, messages, signals, exit codes.

use std::process::Output;

use crate::support::{Client, ServerProcess, handler_library, wait_for, wshd};

fn run(arguments: &[&str], config: Option<&str>) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("handlers")).unwrap();
    std::fs::copy(handler_library("echo"), folder.path().join("handlers/libecho_wsh.so")).unwrap();
    if let Some(config) = config {
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
    }
    let output = wshd(folder.path()).args(arguments).output().expect("wshd was built with this test");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

#[test]
fn the_screen_says_where_it_listens_what_it_serves_and_what_it_refused() {
    let server = ServerProcess::start(&["echo", "chat"], "");
    std::fs::write(server.folder().join("handlers/later_wsh.so"), "too late").unwrap();
    server.signal("TERM");
    let (screen, log, status) = server.wait();
    for words in
        ["wshd 0.1.0", "listening on 127.0.0.1:", "/echo", "/chat", "libecho_wsh.so", "libchat_wsh.so"]
    {
        assert!(screen.contains(words), "{words}: {screen}");
    }
    assert!(status.success(), "{status}: {log}");
}

#[test]
fn sigterm_closes_sessions_with_1001_and_ends_with_0() {
    let server = ServerProcess::start(&["echo"], "");
    let mut client = Client::open(server.address(), "/echo", &[]).expect("accepted");
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    server.signal("TERM");
    assert_eq!(client.closed().0, 1001);
    client.wait_for_end();
    let (_, log, status) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = ServerProcess::start(&["echo"], "[listen]\nshutdown_seconds_max = 60\n");
    let mut client = Client::open(server.address(), "/echo", &[]).expect("accepted");
    server.signal("TERM");
    // The Close that arrives says that the first signal was taken; it is not answered.
    assert!(matches!(client.peek_close(), Some(1001)));
    server.signal("INT");
    let (_, _, status) = server.wait();
    assert_eq!(status.code(), Some(2));
}

/// As logrotate does it: the file is moved away, and the server told.
#[test]
fn the_log_file_is_begun_anew_on_sigusr1_and_another_one_when_the_config_names_it() {
    let server = ServerProcess::start(&["echo"], "[log]\nfile = \"a.log\"\nlevel = \"debug\"\n");
    let file = |name: &str| server.folder().join(name);
    let visit = || {
        let mut client = Client::open(server.address(), "/echo", &[]).expect("accepted");
        client.send_text("hello");
        assert_eq!(client.text(), "hello");
        client.close();
    };
    let has_lines = |name: &str| std::fs::read_to_string(file(name)).is_ok_and(|text| text.contains("/echo"));
    visit();
    wait_for("the first file", || has_lines("a.log"));
    std::fs::rename(file("a.log"), file("moved.log")).unwrap();
    server.signal("USR1");
    wait_for("a new file of the same name", || file("a.log").exists());
    visit();
    wait_for("lines in it", || has_lines("a.log"));
    std::fs::write(file("config.toml"), "[log]\nfile = \"b.log\"\nlevel = \"debug\"\n").unwrap();
    server.signal("HUP");
    wait_for("the other file", || file("b.log").exists());
    visit();
    wait_for("lines in that", || has_lines("b.log"));
    server.signal("TERM");
    let (_, log, status) = server.wait();
    assert!(status.success() && !log.contains("/echo"), "{status}: {log}");
}

#[test]
fn a_log_file_that_cannot_be_written_is_named_and_nothing_starts() {
    let (output, text) = run(&["--log-file", "nowhere/wshd.log"], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("cannot write the log file nowhere/wshd.log") && text.contains("folder"), "{text}");
    let (output, text) = run(&["--log-file", "wshd.log", "--strict", "configtest"], None);
    assert!(output.status.success() && text.contains("--strict does nothing"), "{text}");
}

#[test]
fn version_and_help_are_for_people() {
    let (output, text) = run(&["--version"], None);
    assert!(output.status.success() && text.starts_with("wshd "), "{text}");
    let (output, text) = run(&["--help"], None);
    assert!(output.status.success());
    for words in ["-p", "-w", "-d", "--config", "configtest", "ws://", "Examples"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let (output, text) = run(&["--prot", "1"], None);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--port"), "{text}");
}

#[test]
fn a_wrong_config_is_named_with_its_place_and_nothing_starts() {
    let (output, text) = run(&["--config", "config.toml"], Some("[limits]\nmesage_bytes_max = 100\n"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("config.toml:2:1") && text.contains("message_bytes_max"), "{text}");
    let (output, text) = run(&["--config", "config.toml"], Some("[listen]\nport = \"http\"\n"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("config.toml:2:8") && text.contains("listen.port"), "{text}");
}

#[test]
fn configtest_says_what_would_be_served() {
    let (output, text) = run(&["configtest"], None);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("/echo") && text.contains("libecho_wsh.so"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let (output, text) = run(&["-p", &port, "-H", "127.0.0.1"], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&port) && text.contains("-p"), "{text}");
}

/// A library finds these in the program before it finds those of the C library; that is how the server knows of its threads and
/// keys, without which it would have to keep every library in memory.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_program_exports_what_libraries_are_watched_by() {
    use object::read::elf::{ElfFile64, Sym};

    let bytes = std::fs::read(env!("CARGO_BIN_EXE_wshd")).unwrap();
    let file = ElfFile64::<object::Endianness>::parse(&*bytes).unwrap();
    let symbols = file.elf_dynamic_symbol_table();
    let defined = symbols.iter().filter(|symbol| !symbol.is_undefined(file.endian()));
    let mut names: Vec<_> =
        defined.map(|symbol| symbol.name(file.endian(), symbols.strings()).unwrap()).collect();
    names.sort_unstable();
    for name in [
        "pthread_create",
        "thrd_create",
        "pthread_key_create",
        "pthread_key_delete",
        "tss_create",
        "tss_delete",
        "__cxa_thread_atexit_impl",
    ] {
        assert!(names.binary_search(&name.as_bytes()).is_ok(), "{name}");
    }
}
