//! CPU time per echoed message.

use std::io::Result;
use std::time::Duration;

use crate::compare::{Round, compare};
use crate::load::{self, Load, Peers};
use crate::target::{Kind, Target, pin_generator};

const WORKLOADS: [(&str, Load); 6] = [
    ("20 B, 64 connections", Load { connections: 64, bytes: 20, depth: 1 }),
    ("20 B, 64 connections, 16 deep", Load { connections: 64, bytes: 20, depth: 16 }),
    ("20 B, 16 connections, 64 deep", Load { connections: 16, bytes: 20, depth: 64 }),
    ("1 KiB, 16 connections, 16 deep", Load { connections: 16, bytes: 1024, depth: 16 }),
    ("16 KiB, 64 connections", Load { connections: 64, bytes: 16 * 1024, depth: 1 }),
    ("1 MiB, 4 connections", Load { connections: 4, bytes: 1024 * 1024, depth: 1 }),
];

pub(crate) fn run(quick: bool, rounds: usize, tls: bool) -> Result<()> {
    let [one, other] = if tls { [Kind::WshdTls, Kind::Wshd] } else { [Kind::Wshd, Kind::TokioTungstenite] };
    pin_generator();
    let (rounds, time) =
        if quick { (1, Duration::from_millis(300)) } else { (rounds.max(1), Duration::from_secs(2)) };
    println!(
        "CPU time of the server per echoed message; median of {rounds} alternating rounds of {time:?}\n"
    );
    let (name, other_name) = (one.name(), other.name());
    println!("| workload | {name} ns | {name} msg/s | {other_name} ns | {other_name} msg/s | ratio |");
    println!("|---|---|---|---|---|---|");
    for (name, load) in WORKLOADS {
        let compared = compare([one, other], rounds, |kind| measure(kind, load, time))?;
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
            compared.one.cpu_nanos_per_message,
            compared.one.messages_per_second,
            compared.other.cpu_nanos_per_message,
            compared.other.messages_per_second,
            compared.ratio
        );
    }
    Ok(())
}

fn measure(kind: Kind, load: Load, time: Duration) -> Result<Round> {
    let target = Target::start(kind)?;
    let peers = Peers::connect_to(&target, "/echo", load.connections)?;
    let mut before = 0;
    let warm_up = time / 4;
    let messages = load::run(peers, load, warm_up, time, || {
        before = target.cpu_nanos()?;
        Ok(())
    })?;
    let used = target.cpu_nanos()? - before;
    Ok(Round {
        cpu_nanos_per_message: used as f64 / messages as f64,
        messages_per_second: messages as f64 / time.as_secs_f64(),
    })
}
