//! Resident memory per idle connection.

use std::io::Result;

use crate::load::Peers;
use crate::target::{Kind, Target, pin_generator};

pub(crate) fn run(quick: bool, tls: bool) -> Result<()> {
    pin_generator();
    raise_file_limit();
    let connections: usize = if quick { 500 } else { 10_000 };
    println!("Resident memory per idle connection, {connections} connections, bytes\n");
    println!("| server | with none, KiB | idle | after one 1 KiB echo each |");
    println!("|---|---|---|---|");
    for kind in if tls { [Kind::WshdTls, Kind::Wshd] } else { [Kind::Wshd, Kind::TokioTungstenite] } {
        let target = Target::start(kind)?;
        // The first connections start threads and fill pools that the others share.
        let mut first = Peers::connect_to(&target, "/echo", 100)?;
        first.echo_once(1024)?;
        let base = target.resident_bytes()?;
        let mut peers = Peers::connect_to(&target, "/echo", connections)?;
        let per_connection = |bytes: u64| bytes.saturating_sub(base) / connections as u64;
        let idle = per_connection(target.resident_bytes()?);
        peers.echo_once(1024)?;
        let after = per_connection(target.resident_bytes()?);
        println!("| {} | {} | {idle} | {after} |", kind.name(), base / 1024);
    }
    Ok(())
}

/// The generator needs a descriptor for each connection too.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("bench: cannot raise the limit on open files: {error}");
    }
}
