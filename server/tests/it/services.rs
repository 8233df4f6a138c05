//! What a handler can ask of the server beyond its session: timers.

use std::path::Path;

use crate::support::{TestServer, compile_c, handler_library};

/// Another version of a library that does the same: what follows the last section of a file is never mapped.
fn write_version(library: &Path, version: u8, file: &Path) {
    let mut bytes = std::fs::read(library).expect("the handler was built");
    bytes.push(version);
    let new = file.with_file_name(".new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, file).unwrap();
}

// ---- timers ------------------------------------------------------------------------------------------------------------

#[test]
fn the_clock_tells_the_time_and_goes_on_with_new_code() {
    let server = TestServer::start(&["clock"]);
    let mut client = server.connect("/clock?every_ms=20");
    for _ in 0..5 {
        let time = client.text();
        assert_eq!((time.len(), time.matches(':').count()), (12, 2), "{time}");
    }
    let library = handler_library("clock");
    write_version(&library, 2, &server.folder().join(library.file_name().unwrap()));
    let status = server.wait_for("the session has moved", |status| {
        let clock = &status.handlers[0];
        clock.active.as_ref().is_some_and(|active| active.number == 2 && active.sessions == 1)
            && clock.leaving.is_empty()
    });
    assert_eq!(status.retained, []);
    // What the old code sent may still lie in between; this is more than can.
    for _ in 0..50 {
        client.text();
    }
    client.close();
}

#[test]
fn timers_of_sessions_and_libraries_are_heard_in_c() {
    let server = TestServer::prepare(
        |config| config.handlers.workers = 1,
        |folder| compile_c("timers", folder, "timers_wsh.so"),
    )
    .unwrap_or_else(|error| panic!("the server does not start: {error}"));
    let mut client = server.connect("/timers");
    client.send_text("a");
    assert_eq!(client.text(), "a");
    client.send_text("x");
    assert_eq!(client.text(), "ok");
    loop {
        client.send_text("#");
        if client.text() == "9" {
            break;
        }
    }
    let mut other = server.connect("/timers");
    other.send_text("d");
    assert_eq!(other.closed().0, 1000, "a timer may end the session");
    other.wait_for_end();
    // Its sixty-four timers end with it.
    client.close();
}
