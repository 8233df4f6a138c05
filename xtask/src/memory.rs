//! The tests of handler-api under valgrind: its unsafe code reads and writes where it may, and loses nothing.

use std::process::{Command, Stdio};

use crate::needs::{self, Need};
use crate::step::{StepResult, cargo_command, root, run};

/// What is lost on purpose, each with its reason.
const SUPPRESSIONS: &str = "xtask/src/memory.supp";

/// Installs valgrind where it is missing, and runs the unit tests and those of the faces under it.
pub(crate) fn check() -> StepResult {
    needs::programs(&[Need { program: "valgrind", package: "valgrind" }])?;
    for program in test_programs()? {
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--quiet", "--error-exitcode=1", "--fair-sched=yes"])
            .args(["--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"])
            .arg(format!("--suppressions={}", root().join(SUPPRESSIONS).display()))
            .arg(program)
            .arg("--quiet")
            .current_dir(root())
            // A backtrace of a panic that is wanted would be read from the debug information, at a twentieth of the speed.
            .env("RUST_BACKTRACE", "0");
        run(&mut valgrind)?;
    }
    Ok(())
}

/// Builds them, and returns where they are.
fn test_programs() -> Result<Vec<String>, String> {
    let mut build =
        cargo_command(&["test", "--package", "handler-api", "--all-features", "--lib", "--test", "faces"]);
    build.args(["--no-run", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = build.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo ended with {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<_> = text.lines().filter_map(executable).map(str::to_owned).collect();
    match programs.len() {
        2 => Ok(programs),
        other => Err(format!("cargo has built {other} test programs, and not 2")),
    }
}

/// Of a line of cargo's; `null` in lines about anything else.
fn executable(line: &str) -> Option<&str> {
    line.split_once(r#""executable":""#)?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_program_or_none() {
        let line = r#"{"reason":"compiler-artifact","filenames":["/t/faces-1"],"executable":"/t/faces-1","fresh":true}"#;
        assert_eq!(executable(line), Some("/t/faces-1"));
        assert_eq!(executable(&line.replace(r#""/t/faces-1","fresh""#, r#"null,"fresh""#)), None);
    }
}
