//! CPU time per echoed message.

use std::io::Result;
use std::time::Duration;

use crate::load::{self, Load, Peers, median};
use crate::target::{Kind, Target, pin_generator};

const WORKLOADS: [(&str, Load); 6] = [
    ("20 B, 64 connections", Load { connections: 64, bytes: 20, depth: 1 }),
    ("20 B, 64 connections, 16 deep", Load { connections: 64, bytes: 20, depth: 16 }),
    ("20 B, 16 connections, 64 deep", Load { connections: 16, bytes: 20, depth: 64 }),
    ("1 KiB, 16 connections, 16 deep", Load { connections: 16, bytes: 1024, depth: 16 }),
    ("16 KiB, 64 connections", Load { connections: 64, bytes: 16 * 1024, depth: 1 }),
    ("1 MiB, 4 connections", Load { connections: 4, bytes: 1024 * 1024, depth: 1 }),
];

/// What one round of one server measured.
#[derive(Debug, Clone, Copy)]
struct Round {
    cpu_nanos_per_message: f64,
    messages_per_second: f64,
}

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
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            // A, B, B, A, ...: what drifts during a run meets both alike.
            let order = if round % 2 == 0 { [one, other] } else { [other, one] };
            let mut cost = [0.0; 2];
            for kind in order {
                let measured = measure(kind, load, time)?;
                let (index, list) = if kind == one { (0, &mut ours) } else { (1, &mut theirs) };
                cost[index] = measured.cpu_nanos_per_message;
                list.push(measured);
            }
            ratios.push(cost[0] / cost[1]);
        }
        let nanos = |list: &[Round]| median(list.iter().map(|round| round.cpu_nanos_per_message).collect());
        let rate = |list: &[Round]| median(list.iter().map(|round| round.messages_per_second).collect());
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
            nanos(&ours),
            rate(&ours),
            nanos(&theirs),
            rate(&theirs),
            median(ratios)
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
