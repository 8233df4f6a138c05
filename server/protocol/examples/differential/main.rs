//! Random conversations for other implementations to judge: `cargo xtask soak differential`.
//!
//! `tungstenite COUNT SEED` holds them with tungstenite here. `write COUNT SEED` prints each as a line of JSON, with what our side
//! heard and answered, for `server/tests/clients/python/differential.py`; `write-one NUMBER SEED` prints one of them.

#[path = "../../tests/support/mod.rs"]
mod support;

mod conversation;
mod hearing;
mod sending;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use support::by_tungstenite;

const USAGE: &str = "usage: differential tungstenite|write COUNT SEED, or differential write-one NUMBER SEED";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [what, count, seed] => match (&what[..], count.parse(), seed.parse()) {
            ("tungstenite", Ok(count), Ok(seed)) => with_tungstenite(count, seed),
            ("write", Ok(count), Ok(seed)) => write(0..count, seed),
            ("write-one", Ok(number), Ok(seed)) => write(number..number + 1, seed),
            _ => Err(USAGE.into()),
        },
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn with_tungstenite(count: u64, seed: u64) -> Result<(), String> {
    let mut ends: BTreeMap<by_tungstenite::End, u64> = BTreeMap::new();
    for number in 0..count {
        *ends.entry(by_tungstenite::compare(seed, number)?).or_default() += 1;
    }
    println!("{count} conversations of seed {seed} with tungstenite, the same in all: {ends:?}");
    Ok(())
}

fn write(numbers: std::ops::Range<u64>, seed: u64) -> Result<(), String> {
    let mut output = BufWriter::new(io::stdout().lock());
    for number in numbers {
        let conversation = conversation::Conversation::new(seed, number);
        let line = serde_json::json!({
            "number": number,
            "deflate": conversation.agreed(),
            "limit": conversation.limits.message_bytes_max,
            "input": hex(&conversation.input),
            "heard": hearing::heard(&conversation),
            "own_close": conversation.close.as_ref().map(conversation::OwnClose::value),
            "sent": sending::sent(&conversation),
        });
        writeln!(output, "{line}").map_err(|error| format!("cannot write to the other program: {error}"))?;
    }
    output.flush().map_err(|error| format!("cannot write to the other program: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).expect("it has four bits");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
