//! Arguments to config to server to exit code.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};
use wshd::auth::Made;
use wshd::cli::{Cli, Command};
use wshd::config::{Config, Log};
use wshd::control::{self, Answer, Ending, Request, Reread};
use wshd::dev::{self, Dev};
use wshd::{Server, auth, log, pywebsocket, registry, scaffold, screen};

fn main() -> ExitCode {
    let cli = Cli::of_this_process();
    // A trial load runs in a child process that does nothing else.
    if let Some(Command::ProbeLibrary { path }) = &cli.command {
        return registry::probe::probe_library(path);
    }
    if let Some(Command::New { name, lang, face }) = &cli.command {
        return show(scaffold::create(name, *lang, *face, Path::new("")));
    }
    if let Some(Command::Cert { hosts }) = &cli.command {
        return show(wshd::tls::make_certificate(hosts, Path::new("")));
    }
    let made = match &cli.command {
        Some(Command::Passwd { user, file }) => Some(auth::set_password(user, file)),
        Some(Command::Token { user, file }) => Some(auth::make_token(user, file)),
        _ => None,
    };
    if let Some(made) = made {
        return match made {
            Ok(Made { secret, note }) => {
                eprintln!("wshd: {note}");
                // Alone on standard output, for whatever it is piped into.
                if let Some(secret) = secret {
                    println!("{secret}");
                }
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        };
    }
    if let Some(Command::Migrate { file }) = &cli.command {
        return show(pywebsocket::migrate(file));
    }
    let config = Config::load(&cli);
    let request = match &cli.command {
        Some(Command::Reload { handler }) => Some(Request::Reload(handler.clone())),
        Some(Command::Rollback { handler }) => Some(Request::Rollback(handler.clone())),
        Some(Command::Status { .. }) => Some(Request::Status),
        Some(Command::Stop) => Some(Request::Stop),
        _ => None,
    };
    if let Some(request) = request {
        let json = matches!(cli.command, Some(Command::Status { json: true }));
        return tell(&control::socket_of(&config), &request, json);
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    for note in cli.notes() {
        eprintln!("wshd: {note}");
    }
    // A check leaves nothing behind, no empty log file either.
    let is_check = matches!(cli.command, Some(Command::Configtest));
    let log = if is_check { Log { file: None, ..config.log.clone() } } else { config.log.clone() };
    if let Err(error) = log::install(&log) {
        return fail(&error);
    }
    match &cli.command {
        Some(Command::Configtest) => configtest(&config),
        Some(Command::Dev { folder }) => match Dev::open(folder) {
            Ok(project) => {
                let handlers = project.handlers().to_owned();
                let config = dev::config(config, &cli, &handlers);
                let reread = move || Config::load(&cli).map(|config| dev::config(config, &cli, &handlers));
                serve(config, Box::new(reread), Some(project))
            }
            Err(error) => fail(&error),
        },
        _ => serve(config, Box::new(move || Config::load(&cli)), None),
    }
}

/// Tells the server behind this socket what to do, and shows its answer.
fn tell(socket: &Path, request: &Request, json: bool) -> ExitCode {
    match control::ask(socket, request) {
        Ok(Answer::Status(status)) if json => match serde_json::to_string_pretty(&status) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        },
        Ok(Answer::Status(status)) => {
            print!("{status}");
            ExitCode::SUCCESS
        }
        Ok(Answer::Done) => ExitCode::SUCCESS,
        Ok(Answer::Failed(why)) => fail(&why),
        Err(error) => fail(&error),
    }
}

/// Serves until it is told to end; with a project, what is built of it.
fn serve(config: Config, reread: Reread, project: Option<Dev>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.listen.front_threads)
        .thread_name("front")
        // Threads for what blocks, such as loading, are rarely needed.
        .thread_keep_alive(Duration::from_secs(1))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format_args!("cannot start the front threads: {error}")),
    };
    runtime.block_on(async {
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup), Ok(mut reopen)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::hangup()),
            signal(SignalKind::user_defined1()),
        ) else {
            return fail(&"cannot listen for signals");
        };
        let building = match project.map(Dev::start) {
            Some(Err(error)) => return fail(&format_args!("cannot start a thread that builds: {error}")),
            Some(Ok((building, first))) => {
                // Both branches are cancel safe: the build that is cut short is ended where `building` is dropped.
                tokio::select! {
                    _ = first => Some(building),
                    () = first_of(&mut terminate, &mut interrupt) => return ExitCode::SUCCESS,
                }
            }
            None => None,
        };
        let server = match Server::start(config, reread).await {
            Ok(server) => server,
            Err(error) => return fail(&error),
        };
        print!("{}", screen::started(server.report()));
        loop {
            // All branches are cancel safe: a signal that comes meanwhile is kept, and a reload that was asked for is done.
            tokio::select! {
                () = first_of(&mut terminate, &mut interrupt) => break,
                () = server.stop_asked() => break,
                _ = hangup.recv() => reload(&server).await,
                _ = reopen.recv() => {
                    if let Err(error) = log::reopen() {
                        error!("{error}");
                    }
                }
            }
        }
        eprintln!("wshd: shutting down; a second signal ends at once");
        // Both branches are cancel safe; what is cut short is the courtesy towards peers.
        let ending = tokio::select! {
            ending = server.stop() => Some(ending),
            () = first_of(&mut terminate, &mut interrupt) => None,
        };
        // Before the process may end without dropping anything.
        drop(building);
        match ending {
            Some(Ending::InOrder) => ExitCode::SUCCESS,
            Some(Ending::LoaderBlocked) => wshd::exit_at_once(0),
            None => ExitCode::from(2),
        }
    })
}

/// SIGHUP: what went wrong is in the log already.
async fn reload(server: &Server) {
    if let Answer::Status(_) = server.ask(Request::Reload(None)).await {
        info!("reloaded");
    }
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn configtest(config: &Config) -> ExitCode {
    if let Err(error) = wshd::tls::check(config) {
        return fail(&error);
    }
    if let Err(error) = auth::check(config) {
        return fail(&error);
    }
    match registry::check_all(config) {
        Ok(checked) => {
            print!("{}", screen::checked(&checked, config));
            if checked.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

/// Prints what was made, or why it was not.
fn show(made: Result<impl std::fmt::Display, impl std::fmt::Display>) -> ExitCode {
    match made {
        Ok(made) => {
            print!("{made}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("wshd: {error}");
    ExitCode::FAILURE
}
