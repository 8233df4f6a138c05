//! `cargo xtask test`: installs what the tests need and is missing, then runs every test.
//!
//! It exists because a plain `cargo test` cannot do all of it: real browsers and clients in other languages talk to the release
//! build, and on a fresh machine they have to be installed first. What is one cargo command stays one cargo command; this
//! program only runs them in order and says in one line how it went.

mod clients;
mod differential;
mod fronts;
mod fuzz;
mod memory;
mod needs;
mod server;
mod step;

use std::process::ExitCode;

use step::{Steps, cargo};

const USAGE: &str = "usage:
  cargo xtask test               everything: format, lints, docs, tests, clients in other languages, a real browser
  cargo xtask test --fast        what needs nothing installed: format, lints, docs, cargo test
  cargo xtask clients            of it, only the clients in other languages and the browser, also through Apache httpd and nginx
  cargo xtask fronts             of these, only those through Apache httpd and nginx
  cargo xtask fuzz               looks for input that breaks a property, 60 s for each target (TARGET, --seconds N, --quick)
  cargo xtask bench echo         CPU per message beside a stock server (--quick, --rounds N, --tls: beside itself without TLS)
  cargo xtask bench deflate      what compression costs: CPU per message, memory per session, bombs (--quick, --rounds N)
  cargo xtask bench fanout       CPU per delivery, one publisher and a thousand subscribers (--quick, --rounds N)
  cargo xtask bench idle         memory per idle connection (--quick, --tls)
  cargo xtask soak certificates  a hundred new certificates while fifty clients a second shake hands (--quick)
  cargo xtask soak differential  100,000 conversations with other implementations (--quick, --seed N, --conversation N)
  cargo xtask soak panics        ten thousand panics in every callback, beside sessions that must not notice (--quick)
  cargo xtask soak reload        numbered messages in flight while the handlers are replaced (--quick)
  cargo xtask soak unload        libraries of every kind, loaded and taken out of memory 3,000 times (--quick)
  cargo xtask soak writes        every way to write a library badly over a server that runs it (--quick)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["test"] => test(true),
        ["test", "--fast"] => test(false),
        ["clients"] => clients(),
        ["fuzz", ref rest @ ..] => exit_code(compilers().and_then(|()| fuzz::command(rest))),
        ["fronts"] => fronts(),
        ["bench", ref rest @ ..] => bench(rest),
        ["soak", "differential", ref rest @ ..] => differential(rest),
        ["soak", ..] => bench(&arguments),
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// What handlers in other languages are built with.
const COMPILERS: [needs::Need; 3] = [
    needs::Need { program: "cc", package: "gcc" },
    needs::Need { program: "c++", package: "g++" },
    needs::Need { program: "make", package: "make" },
];

fn compilers() -> step::StepResult {
    needs::programs(&COMPILERS)
}

fn test(everything: bool) -> ExitCode {
    let mut steps = Steps::new();
    if everything {
        steps.run("compilers that the tests use", compilers);
    }
    steps.run("format", || cargo(&["fmt", "--all", "--check"]));
    steps.run("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    steps.run("tests", || cargo(&["test", "--workspace", "--all-features"]));
    steps.run("models of every order of threads", || {
        step::run(
            step::cargo_command(&["test", "--package", "wshd", "--lib", "model_"])
                .env("RUSTFLAGS", "--cfg wshd_loom")
                .env("CARGO_TARGET_DIR", step::target_folder().join("models")),
        )
    });
    steps.run("documentation", || {
        step::run(
            step::cargo_command(&[
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
                "--all-features",
            ])
            .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    if everything {
        steps.run("memory of handler-api, under valgrind", memory::check);
        run_clients(&mut steps);
        steps.run("benchmark, quick", || {
            cargo(&["build", "--release", "--package", "wshd-bench"])?;
            bench_command(&["echo", "--quick"])?;
            bench_command(&["deflate", "--quick"])?;
            bench_command(&["fanout", "--quick"])?;
            bench_command(&["idle", "--quick"])?;
            bench_command(&["echo", "--quick", "--tls"])?;
            bench_command(&["idle", "--quick", "--tls"])
        });
        steps.run("fixtures of the soaks", build_fixtures);
        for soak in ["certificates", "panics", "reload", "unload", "writes"] {
            steps.run(&format!("soak, quick: {soak}"), || bench_command(&["soak", soak, "--quick"]));
        }
        remove_fixtures();
        steps.run("soak, quick: differential", || {
            clients::install_python()?;
            differential::run(&differential::Plan::quick())
        });
        steps.run("lints of the fuzz targets", fuzz::lints);
        steps.run("fuzzing, quick", fuzz::quick);
        steps.run("dependencies", needs::cargo_deny);
    }
    steps.summary()
}

fn differential(arguments: &[&str]) -> ExitCode {
    let Some(plan) = differential::Plan::parse(arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match clients::install_python().and_then(|()| differential::run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn clients() -> ExitCode {
    let mut steps = Steps::new();
    run_clients(&mut steps);
    steps.summary()
}

fn fronts() -> ExitCode {
    let mut steps = Steps::new();
    steps.run("release build", || cargo(&["build", "--release"]));
    let node = clients::install_node(&mut steps);
    fronts::run_all(&mut steps, node);
    steps.summary()
}

fn run_clients(steps: &mut Steps) {
    // The README's first command, which has to build the handlers too; it ends with a check of what it would serve.
    steps.run("release build, as the README says", || cargo(&["run", "--release", "--", "configtest"]));
    clients::Clients::install(steps).run_all(steps);
}

/// Libraries that panic, and that are loaded and unloaded, in the soaks of these names.
const SOAK_FIXTURES: [&str; 4] = ["misbehaving_wsh", "sequential_wsh", "clinging_wsh", "runtime_wsh"];

fn build_fixtures() -> Result<(), String> {
    let packages = SOAK_FIXTURES.iter().flat_map(|package| ["--package", package]);
    cargo(&["build", "--release"].into_iter().chain(packages).collect::<Vec<_>>())
}

/// They are built to where the config of the repository looks for handlers, and are nothing that a server should serve.
fn remove_fixtures() {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    for package in SOAK_FIXTURES {
        // One that was not built is not there.
        let library = format!("release/{DLL_PREFIX}{package}{DLL_SUFFIX}");
        let _ = std::fs::remove_file(step::target_folder().join(library));
    }
}

fn bench(arguments: &[&str]) -> ExitCode {
    let result = cargo(&["build", "--release"])
        .and_then(|()| build_fixtures())
        .and_then(|()| cargo(&["build", "--release", "--package", "wshd-bench"]))
        .and_then(|()| bench_command(arguments));
    remove_fixtures();
    exit_code(result)
}

fn exit_code(result: step::StepResult) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench_command(arguments: &[&str]) -> Result<(), String> {
    step::run(std::process::Command::new(step::target_folder().join("release/wshd-bench")).args(arguments))
}
