//! Measures wshd beside other servers, in one run on one machine, and reports ratios.
//!
//! Absolute figures of a shared machine mean little; the ratio of two servers that ran in turn on the same core does. Each
//! server runs pinned to core 0 and the load generator to core 1, rounds alternate between the servers, and the median of the
//! rounds is reported. What is compared is the server's CPU time per message, which the kernel counts in nanoseconds.
//!
//! Run it with `cargo xtask bench`, which builds everything in release mode first.

mod compare;
mod deflate;
mod echo;
mod fanout;
mod idle;
mod load;
mod peer;
mod soak;
mod target;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Measures wshd beside other servers")]
struct Cli {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Debug, Subcommand)]
enum Experiment {
    /// CPU time per echoed message, beside a stock tokio-tungstenite server
    Echo {
        /// One short round of each, to see that everything works
        #[arg(long)]
        quick: bool,
        /// Rounds of each server; the median is reported
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// wshd with TLS beside wshd without
        #[arg(long)]
        tls: bool,
    },
    /// CPU time per delivery, one publisher and a thousand subscribers, beside a stock tokio-tungstenite server
    Fanout {
        /// One short round of each
        #[arg(long)]
        quick: bool,
        /// Rounds of each server; the median is reported
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// What compression costs: CPU time per message, memory per session, bombs; beside the same server without
    Deflate {
        /// One short round of each
        #[arg(long)]
        quick: bool,
        /// Rounds of each; the median is reported
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Resident memory per idle connection
    Idle {
        /// 500 connections instead of 10,000
        #[arg(long)]
        quick: bool,
        /// wshd with TLS beside wshd without
        #[arg(long)]
        tls: bool,
    },
    /// Handlers that panic; handlers that are replaced under thousands of connections; libraries loaded and unloaded thousands of
    /// times; files that are written badly
    Soak {
        #[command(subcommand)]
        soak: Soak,
    },
    /// The stock peer; prints its port and serves until it is killed
    #[command(hide = true)]
    Peer {
        /// Tell everybody what one says
        #[arg(long)]
        broadcast: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Soak {
    /// Certificates that are replaced while clients shake hands all the time
    Certificates {
        /// Ten of them
        #[arg(long)]
        quick: bool,
    },
    /// Panics in every callback, with neighbours that must not notice
    Panics {
        /// A thousand of them
        #[arg(long)]
        quick: bool,
    },
    /// Numbered messages in flight while the handlers are replaced; the cost of the hand-over
    Reload {
        /// 400 connections and 10 reloads
        #[arg(long)]
        quick: bool,
    },
    /// Libraries of every kind, loaded and taken out of memory again
    Unload {
        /// 60 reloads of each
        #[arg(long)]
        quick: bool,
    },
    /// Every way to write a library badly, and touches in a row
    Writes {
        /// One in ten of the ways
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().experiment {
        Experiment::Echo { quick, rounds, tls } => echo::run(quick, rounds, tls),
        Experiment::Fanout { quick, rounds } => fanout::run(quick, rounds),
        Experiment::Deflate { quick, rounds } => deflate::run(quick, rounds),
        Experiment::Idle { quick, tls } => idle::run(quick, tls),
        Experiment::Soak { soak: Soak::Certificates { quick } } => soak::certificates::run(quick),
        Experiment::Soak { soak: Soak::Panics { quick } } => soak::panics::run(quick),
        Experiment::Soak { soak: Soak::Reload { quick } } => soak::reload::run(quick),
        Experiment::Soak { soak: Soak::Unload { quick } } => soak::unload::run(quick),
        Experiment::Soak { soak: Soak::Writes { quick } } => soak::writes::run(quick),
        Experiment::Peer { broadcast } => peer::run(broadcast),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
