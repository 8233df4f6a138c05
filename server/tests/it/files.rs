//! Static files.

use crate::support::TestServer;

fn server() -> (TestServer, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("index.html"), "<h1>hello</h1>").unwrap();
    std::fs::create_dir(root.path().join("sub")).unwrap();
    std::fs::write(root.path().join("sub/page.js"), "let x").unwrap();
    std::fs::write(root.path().join(".htpasswd"), "secret").unwrap();
    let path = root.path().to_owned();
    (TestServer::with(&["echo"], |config| config.files.root = Some(path)), root)
}

fn get(server: &TestServer, path: &str) -> (u16, String) {
    server.request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
}

#[test]
fn a_folder_serves_its_index_and_files_have_their_type() {
    let (server, _root) = server();
    let (status, answer) = get(&server, "/");
    assert_eq!(status, 200);
    assert!(answer.ends_with("<h1>hello</h1>") && answer.contains("text/html"), "{answer}");
    let (status, answer) = get(&server, "/sub/page.js");
    assert_eq!(status, 200);
    assert!(answer.contains("javascript") && answer.contains("nosniff"), "{answer}");
}

#[test]
fn what_is_not_there_or_not_for_peers_is_404() {
    let (server, _root) = server();
    for path in [
        "/none",
        "/.htpasswd",
        "/sub/../.htpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/sub/%00",
        "/sub/..%2f.htpasswd",
    ] {
        let (status, answer) = get(&server, path);
        assert!(matches!(status, 400 | 404), "{path}: {answer}");
        assert!(!answer.contains("secret"), "{path}: {answer}");
    }
}

#[test]
fn only_get_and_head_read_files() {
    let (server, _root) = server();
    let (status, answer) =
        server.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 405, "{answer}");
    let (status, answer) = server.request("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 200);
    assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
    assert!(answer.contains("content-type: text/html"), "{answer}");
}

/// One range is served; a list of them, which could ask for the same bytes a thousand times, is not (RFC 9110 section 14.2).
#[test]
fn many_ranges_of_a_file_are_answered_with_the_file_once() {
    let (server, _root) = server();
    let ranged = |range: &str| {
        server.request(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes={range}\r\nConnection: close\r\n\r\n"
        ))
    };
    let (status, answer) = ranged("4-8");
    assert_eq!(status, 206);
    assert!(answer.ends_with("\r\n\r\nhello") && answer.contains("content-type: text/html"), "{answer}");
    let (status, answer) = ranged("0-,0-,0-,0-");
    assert_eq!(status, 200);
    assert_eq!(answer.matches("<h1>").count(), 1, "{answer}");
}

#[test]
fn pages_and_handlers_live_side_by_side() {
    let (server, _root) = server();
    assert_eq!(get(&server, "/").0, 200);
    server.assert_serves("/echo");
    assert_eq!(get(&server, "/echo").0, 426);
}
