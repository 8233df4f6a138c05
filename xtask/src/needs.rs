//! Installs what a test run needs and a fresh machine lacks.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::step::{StepResult, cargo_command, run, target_folder};

/// A program, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// Installs the packages of all programs that are missing, by apt.
pub(crate) fn programs(needs: &[Need]) -> StepResult {
    let missing: Vec<_> = needs.iter().filter(|need| !is_there(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    println!("installing {}", packages.join(", "));
    let by_hand = format!("install by hand: {}", packages.join(", "));
    if !is_there("apt-get") {
        return Err(format!("this system has no apt-get; {by_hand}"));
    }
    apt_update().map_err(|error| format!("{error}; {by_hand}"))?;
    let mut command = apt(&["install", "--yes", "--no-install-recommends"]);
    run(command.args(&packages)).map_err(|error| format!("{error}; {by_hand}"))
}

/// The lists are fetched once in a run.
fn apt_update() -> StepResult {
    static UPDATED: OnceLock<StepResult> = OnceLock::new();
    UPDATED.get_or_init(|| run(&mut apt(&["update", "--quiet"]))).clone()
}

fn apt(arguments: &[&str]) -> Command {
    // Root installs as it is; anybody else needs sudo, which asks for no password or fails.
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut command = if is_root { Command::new("apt-get") } else { Command::new("sudo") };
    if !is_root {
        command.args(["--non-interactive", "apt-get"]);
    }
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

fn is_there(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is, on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Licences, duplicate versions and sources of all dependencies, with cargo-deny.
///
/// Advisories are not part of it: their database is a repository of its own that a closed network does not reach. Run
/// `cargo deny check advisories` where it is.
pub(crate) fn cargo_deny() -> StepResult {
    let mut command = Command::new(cargo_tool("cargo-deny")?);
    command.args(["--locked", "check", "bans", "licenses", "sources"]).current_dir(crate::step::root());
    run(&mut command)
}

/// Where a program of crates.io is; it is installed into the target folder where there is none.
pub(crate) fn cargo_tool(name: &str) -> Result<PathBuf, String> {
    if let Some(program) = find(name) {
        return Ok(program);
    }
    let tools = target_folder().join("tools");
    let installed = tools.join("bin").join(name);
    if !installed.is_file() {
        println!("installing {name}; this takes some minutes, once");
        let mut command = cargo_command(&["install", name, "--locked", "--debug", "--quiet", "--root"]);
        command.arg(&tools).env("CARGO_TARGET_DIR", tools.join("build"));
        run(&mut command)?;
    }
    Ok(installed)
}
