//! What the documents say about the code is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("server is a folder of the workspace").to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') && name != "node_modules" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&root(), &mut found);
    found
}

/// What people read: README.md and its neighbours, and all of docs.
fn documents() -> Vec<String> {
    let mut documents = vec!["ARCHITECTURE.md".into(), "README.md".into(), "CONTRIBUTING.md".into()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            documents.push(format!("docs/{name}"));
        }
    }
    documents
}

/// A fenced block of a document: the line above it, what follows the fence, and its text.
struct Block {
    above: String,
    tag: String,
    text: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut above, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        if let Some(tag) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
            blocks.push(Block { above: std::mem::take(&mut above), tag: tag.to_owned(), text });
        } else {
            line.clone_into(&mut above);
        }
    }
    blocks
}

/// In `backticks`: what looks like a path of this repository.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    for document in documents() {
        let document = &document;
        let text = read(document);
        let is_path = |word: &&str| {
            word.ends_with(".rs")
                || word.ends_with(".h")
                || word.ends_with(".md")
                || word.ends_with(".c") && word.contains('/')
        };
        for path in quoted(&text).filter(is_path).filter(|path| path.contains('/')) {
            assert!(root().join(path).is_file(), "{document} names {path}");
        }
    }
}

/// Each invariant of ARCHITECTURE.md names the test that holds it, as "Held by `file::test`".
#[test]
fn every_invariant_names_a_test_that_exists() {
    let text = read("ARCHITECTURE.md");
    let names = functions();
    let mut invariants = 0;
    for paragraph in text.split("**Invariant:**").skip(1) {
        invariants += 1;
        let paragraph = paragraph.split("\n\n").next().unwrap_or_default();
        let (claim, held) =
            paragraph.split_once("Held by").unwrap_or_else(|| panic!("nothing holds: {paragraph}"));
        assert!(quoted(held).next().is_some(), "nothing holds: {claim}");
        for test in quoted(held).filter(|word| word.contains("::") || word.contains('_')) {
            let name = test.rsplit("::").next().unwrap_or(test);
            assert!(names.contains(name) || test.contains(' '), "{test} does not exist, but holds: {claim}");
        }
    }
    assert!(invariants >= 8, "{invariants} invariants");
}

/// Each demand in the table of conformance is held by a test.
#[test]
fn every_demand_of_the_rfcs_names_a_test_that_exists() {
    let held = held_by_tables(&read("docs/conformance.md"));
    assert!(held.len() > 60, "{}", held.len());
}

/// So is each option of pywebsocket's.
#[test]
fn every_option_of_pywebsocket_is_in_the_document_with_a_test_that_exists() {
    let text = read("docs/from-pywebsocket.md");
    let (_, options) = text.split_once("\n## Options\n").expect("the section");
    assert!(held_by_tables(options).len() > 12);
    for option in wshd::pywebsocket::OPTIONS {
        assert!(options.contains(&format!("`--{}`", option.name)), "--{} is missing", option.name);
    }
}

/// The tests in the last column of a document's tables. Each row has one, and each of them exists.
fn held_by_tables(text: &str) -> BTreeSet<String> {
    let (names, mut held) = (functions(), BTreeSet::new());
    for row in text.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let tests = row.rsplit('|').nth(1).expect("a row has columns");
        assert!(quoted(tests).next().is_some(), "nothing holds: {row}");
        for test in quoted(tests) {
            let name = test.rsplit("::").next().unwrap_or(test);
            assert!(names.contains(name), "{test} does not exist, but holds: {row}");
            held.insert(name.to_owned());
        }
    }
    held
}

/// The names of all functions of the workspace.
fn functions() -> BTreeSet<String> {
    let names_in = |source: &str| -> Vec<String> {
        let is_part = |char: &char| char.is_alphanumeric() || *char == '_';
        source
            .match_indices("fn ")
            .map(|(at, _)| source[at + 3..].chars().take_while(is_part).collect())
            .collect()
    };
    all_sources().iter().flat_map(|file| names_in(&fs::read_to_string(file).unwrap())).collect()
}

/// A block of Rust is compiled, because handler-api has its document as a doctest, or says in a comment above it why it is not.
#[test]
fn every_block_of_rust_in_the_documents_is_compiled_or_says_why_not() {
    let doctests = read("handler-api/src/lib.rs");
    let mut compiled = 0;
    for document in documents() {
        for Block { above, tag, text } in blocks(&read(&document)) {
            let mut words = tag.split(',');
            if words.next() != Some("rust") {
                assert!(!tag.is_empty(), "{document}: a block without a language: {text}");
                continue;
            }
            if words.any(|word| word == "ignore" || word == "no_run") {
                let reason =
                    above.strip_prefix("<!-- not compiled: ").and_then(|rest| rest.strip_suffix(" -->"));
                assert!(
                    reason.is_some_and(|reason| reason.len() > 10),
                    "{document}: no reason above: {text}"
                );
                continue;
            }
            let include = format!("#[doc = include_str!(\"../../{document}\")]\n#[cfg(doctest)]");
            assert!(doctests.contains(&include), "{document} is no doctest of handler-api, but has: {text}");
            compiled += 1;
        }
    }
    assert!(compiled >= 2, "{compiled} blocks are compiled");
}

/// Every line of the program that a document shows is one that it understands, whole.
#[test]
fn every_command_line_of_wshd_in_the_documents_is_understood() {
    use clap::Parser;

    let mut seen = BTreeSet::new();
    for document in documents() {
        let text = read(&document);
        let shown = blocks(&text);
        let shown = shown.iter().filter(|block| block.tag == "sh").flat_map(|block| block.text.lines());
        let prose = text.split("```").step_by(2);
        let quoted = prose.flat_map(|prose| quoted(prose).map(str::to_owned).collect::<Vec<_>>());
        for line in shown.map(str::to_owned).chain(quoted) {
            let line = line.split('#').next().unwrap_or_default();
            for command in line.split("&&").map(str::trim).filter(|command| command.starts_with("wshd ")) {
                match wshd::cli::Cli::try_parse_from(command.split_whitespace()) {
                    Ok(cli) => drop(seen.insert(format!("{:?}", cli.command))),
                    Err(error) if error.exit_code() == 0 => {}
                    Err(error) => panic!("{document} shows `{command}`: {error}"),
                }
            }
        }
    }
    for command in ["New", "Dev", "Status", "Reload", "Rollback", "Stop", "Configtest"] {
        assert!(seen.iter().any(|seen| seen.contains(command)), "no document shows {command}: {seen:?}");
    }
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = read("README.md");
    let block = readme.split("```").nth(1).expect("a block of commands");
    let commands: Vec<_> = block.lines().filter(|line| line.starts_with("cargo ")).collect();
    assert!(
        commands[0].starts_with("cargo run --release") && commands[1].starts_with("cargo xtask test"),
        "{block}"
    );
    let ci = read(".ci/run");
    assert!(ci.trim_end().ends_with("cargo xtask test"), "CI runs the command of the README and no other");
}

/// With a `default-run` cargo would build the program alone, and a fresh clone would find no handlers to serve.
#[test]
fn cargo_run_builds_the_handlers_too() {
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("default-members = [\"server\", \"handlers/*\"]"), "{manifest}");
    let mut manifests = Vec::new();
    for entry in fs::read_dir(root().join("handlers")).unwrap() {
        manifests.push(entry.unwrap().path().join("Cargo.toml"));
    }
    manifests.push(root().join("server/Cargo.toml"));
    for manifest in manifests.iter().filter(|manifest| manifest.is_file()) {
        let text = fs::read_to_string(manifest).unwrap();
        assert!(!text.contains("default-run"), "{}", manifest.display());
    }
}

/// The protocol does no I/O and reads no clock: neither its manifest nor its sources have what that takes.
#[test]
fn the_protocol_has_no_io() {
    let manifest = read("server/protocol/Cargo.toml");
    let dependencies =
        manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    for forbidden in ["tokio", "hyper", "rustix", "socket2"] {
        assert!(!dependencies.contains(forbidden), "{forbidden}");
    }
    let mut files = Vec::new();
    sources(&root().join("server/protocol/src"), &mut files);
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for forbidden in ["std::net", "std::fs", "std::io::", "Instant::now", "SystemTime", "std::thread"] {
            assert!(!text.contains(forbidden), "{}: {forbidden}", file.display());
        }
    }
}

/// Unsafe code has its rooms, and every one is named where it is opened.
#[test]
fn unsafe_code_stays_in_its_rooms() {
    let rooms = [
        "handler-api/src/",
        "handler-api/examples/",
        "server/src/handler/",
        "server/src/generation/poller.rs",
        "server/src/registry/probe.rs",
    ];
    // This file speaks of it.
    let itself = Path::new(file!()).file_name().unwrap();
    for file in all_sources() {
        let path = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if rooms.iter().any(|room| path.starts_with(room)) || file.file_name() == Some(itself) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("unsafe {") && !text.contains("unsafe impl"), "{path} has unsafe code");
    }
}

/// Front threads never run a line of a handler library: no module before the hand-over knows the room that calls one.
#[test]
fn the_front_does_not_know_the_handler_room() {
    let mut front = vec![root().join("server/src/listener.rs"), root().join("server/src/router.rs")];
    sources(&root().join("server/src/http"), &mut front);
    for file in front {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("crate::handler") && !text.contains("HandlerLibrary"), "{}", file.display());
    }
}
