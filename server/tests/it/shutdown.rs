//! The end of the server.

use crate::support::{Client, TestServer};

#[test]
fn every_session_is_told_that_the_server_goes_away() {
    let server = TestServer::start(&["echo", "counter"]);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect("/echo")).collect();
    clients.extend((0..20).map(|_| server.connect("/counter")));
    server.stop_while(|| {
        for client in &mut clients {
            assert_eq!(client.closed(), (1001, "server is shutting down".to_owned()));
            client.wait_for_end();
        }
    });
}

#[test]
fn a_peer_that_does_not_answer_close_does_not_hold_the_server() {
    let server = TestServer::with(&["echo"], |config| {
        config.listen.shutdown_seconds_max = std::time::Duration::from_secs(1);
    });
    let silent = server.connect("/echo");
    server.stop_while(|| {});
    drop(silent);
}

#[test]
fn a_stopped_server_accepts_nobody() {
    let server = TestServer::start(&["echo"]);
    let address = server.address();
    server.stop_while(|| {});
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// Handlers get their last call after their last session, and a server can be started again beside the old libraries.
#[test]
fn a_second_server_in_the_same_process_serves() {
    for _ in 0..3 {
        let server = TestServer::start(&["echo", "chat"]);
        server.assert_serves("/echo");
        let client = Client::open(server.address(), "/chat?name=Ann", &[]);
        assert!(client.is_ok());
    }
}
