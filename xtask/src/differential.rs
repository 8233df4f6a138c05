//! `cargo xtask soak differential`: random conversations that other implementations have to hear as we do.
//!
//! `server/protocol/examples/differential` holds them with our side and with tungstenite, and writes what our side made of each to
//! `server/tests/clients/python/differential.py`, which holds it with Python's `websockets`. Needs no server.

use std::process::{Command, Stdio};

use crate::clients;
use crate::step::{self, StepResult, cargo, target_folder};

/// Which conversations.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    seed: u64,
    count: u64,
    /// Only this one, shown whole.
    conversation: Option<u64>,
}

impl Plan {
    pub(crate) fn quick() -> Self {
        Self { count: 5000, ..Self::long() }
    }

    fn long() -> Self {
        Self { seed: 1, count: 100_000, conversation: None }
    }

    /// `None` if the arguments are wrong.
    pub(crate) fn parse(mut arguments: &[&str]) -> Option<Self> {
        let mut plan = Self::long();
        while let [name, rest @ ..] = arguments {
            arguments = match (*name, rest) {
                ("--quick", _) => {
                    plan.count = Self::quick().count;
                    rest
                }
                ("--seed", [value, rest @ ..]) => {
                    plan.seed = value.parse().ok()?;
                    rest
                }
                ("--conversation", [value, rest @ ..]) => {
                    plan.conversation = Some(value.parse().ok()?);
                    rest
                }
                _ => return None,
            };
        }
        Some(plan)
    }
}

/// What the clients need has to be [installed](clients::install_python).
pub(crate) fn run(plan: &Plan) -> StepResult {
    cargo(&["build", "--release", "--package", "wshd-protocol", "--example", "differential"])?;
    if let Some(number) = plan.conversation {
        return with_websockets(&["write-one", &number.to_string(), &plan.seed.to_string()], &["--show"]);
    }
    let (count, seed) = (plan.count.to_string(), plan.seed.to_string());
    println!("seed {seed}; a conversation is repeated by its number N with --seed {seed} --conversation N");
    step::run(ours().args(["tungstenite", &count, &seed]))?;
    with_websockets(&["write", &count, &seed], &[])
}

fn ours() -> Command {
    Command::new(target_folder().join("release/examples/differential"))
}

/// What ours writes, the other reads; both have to end well.
fn with_websockets(arguments: &[&str], judging: &[&str]) -> StepResult {
    let mut writer = ours()
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run the example differential: {error}"))?;
    let lines = writer.stdout.take().expect("stdout is piped");
    let mut judge = clients::python();
    judge.arg("differential.py").args(judging).stdin(lines);
    let judged = step::run(&mut judge);
    // It holds the other end of the pipe, on which a writer would wait for ever.
    drop(judge);
    let status = writer.wait().map_err(|error| error.to_string())?;
    judged?;
    if status.success() { Ok(()) } else { Err(format!("the example differential ended with {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_repeated_by_its_seed_and_a_conversation_by_its_number() {
        assert_eq!(Plan::parse(&[]), Some(Plan::long()));
        assert_eq!(Plan::parse(&["--quick"]), Some(Plan::quick()));
        let one = Plan { seed: 7, conversation: Some(31), ..Plan::quick() };
        assert_eq!(Plan::parse(&["--seed", "7", "--quick", "--conversation", "31"]), Some(one));
        for wrong in [&["--seed"][..], &["--seed", "x"], &["--rounds", "1"], &["--conversation"]] {
            assert_eq!(Plan::parse(wrong), None, "{wrong:?}");
        }
    }
}
