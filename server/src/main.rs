//! Arguments to config to server to exit code.

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wshd::cli::{Cli, Command};
use wshd::config::Config;
use wshd::{Server, log, registry, screen};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A trial load runs in a child process that does nothing else.
    if let Some(Command::ProbeLibrary { path }) = &cli.command {
        return registry::probe::probe_library(path);
    }
    let config = match Config::load(&cli) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    log::install(config.log.level);
    match cli.command {
        Some(Command::Configtest) => configtest(&config),
        _ => serve(config),
    }
}

fn serve(config: Config) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.listen.front_threads)
        .thread_name("front")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format_args!("cannot start the front threads: {error}")),
    };
    runtime.block_on(async {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return fail(&"cannot listen for signals");
        };
        let server = match Server::start(config).await {
            Ok(server) => server,
            Err(error) => return fail(&error),
        };
        print!("{}", screen::started(server.report()));
        first_of(&mut terminate, &mut interrupt).await;
        eprintln!("wshd: shutting down; a second signal ends at once");
        // Both branches are cancel safe; what is cut short is the courtesy towards peers.
        tokio::select! {
            () = server.stop() => ExitCode::SUCCESS,
            () = first_of(&mut terminate, &mut interrupt) => ExitCode::from(2),
        }
    })
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn configtest(config: &Config) -> ExitCode {
    match registry::check_all(config) {
        Ok(checked) => {
            print!("{}", screen::checked(&checked, config.listen.port));
            if checked.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("wshd: {error}");
    ExitCode::FAILURE
}
