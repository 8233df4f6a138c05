//! One handler, built in every way that its author may choose: all of them are served by one server.

use std::path::Path;
use std::process::Command;

use crate::support::{Client, TestServer, wshd};

/// The name of the build, and what makes it of the plain one.
const BUILDS: [(&str, &[(&str, &str)]); 7] = [
    ("plain", &[("CARGO_PROFILE_DEV_OPT_LEVEL", "0")]),
    ("optimised", &[("CARGO_PROFILE_DEV_OPT_LEVEL", "3"), ("CARGO_PROFILE_DEV_DEBUG", "0")]),
    ("size", &[("CARGO_PROFILE_DEV_OPT_LEVEL", "z"), ("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false")]),
    ("fat_lto", &[("CARGO_PROFILE_DEV_OPT_LEVEL", "3"), ("CARGO_PROFILE_DEV_LTO", "fat")]),
    ("stripped", &[("CARGO_PROFILE_DEV_STRIP", "symbols")]),
    ("native", &[("RUSTFLAGS", "-C target-cpu=native")]),
    ("aborts", &[("CARGO_PROFILE_DEV_PANIC", "abort")]),
];

#[test]
fn one_handler_in_every_build_is_served_by_one_server_and_panic_abort_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let status =
        wshd(work.path()).args(["new", "built"]).stdout(std::process::Stdio::null()).status().unwrap();
    assert!(status.success());
    let project = work.path().join("built_wsh");
    let libraries = work.path().join("libraries");
    std::fs::create_dir(&libraries).unwrap();
    for (name, settings) in BUILDS {
        build(&project, settings);
        let library = project.join("target/debug/libbuilt_wsh.so");
        std::fs::copy(library, libraries.join(format!("{name}_wsh.so"))).unwrap();
    }
    let server = TestServer::prepare(
        |_| {},
        |folder| {
            for (name, _) in BUILDS {
                let file = format!("{name}_wsh.so");
                std::fs::copy(libraries.join(&file), folder.join(&file)).unwrap();
            }
        },
    );
    let server = server.unwrap_or_else(|error| panic!("the server does not start: {error}"));
    let mut clients: Vec<_> = BUILDS
        .iter()
        .filter(|(name, _)| *name != "aborts")
        .map(|(name, _)| (name, server.connect(&format!("/{name}"))))
        .collect();
    for (name, client) in &mut clients {
        client.send_text(name);
    }
    for (name, client) in &mut clients {
        assert_eq!(client.text(), **name);
    }
    assert!(server.refusal("aborts_wsh").contains("panic"), "{}", server.refusal("aborts_wsh"));
    assert_eq!(Client::open(server.address(), "/aborts", &[]).err().expect("it is refused").0, 404);
}

fn build(project: &Path, settings: &[(&str, &str)]) {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--offline"]).current_dir(project);
    // What the cargo that runs this test says to the programs it starts.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_MAKEFLAGS", "MAKEFLAGS"]
    {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_TARGET_DIR", project.join("target")).envs(settings.iter().copied());
    let output = cargo.output().expect("cargo built this test");
    assert!(output.status.success(), "{settings:?}: {}", String::from_utf8_lossy(&output.stderr));
}
