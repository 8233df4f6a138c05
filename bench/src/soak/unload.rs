//! Libraries that leave something behind in every way that a library can, loaded and taken out of memory again thousands of times.
//!
//! After every load a session runs the code; what it leaves behind is destroyed with the generation's threads. In the end
//! memory, threads and descriptors have to be what they were.

use std::io::{Error, Read, Result, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::claim;
use super::server::{Server, pause, release, version_of};
use crate::load::Peers;

/// What each one does: `server/tests/fixtures`.
const RUST: [&str; 2] = ["clinging", "runtime"];

pub(crate) fn run(quick: bool) -> Result<()> {
    // The first reloads fill the arenas of the allocator; what grows after them is lost for good.
    let (warm_up, rounds) = if quick { (60, 60) } else { (300, 3000) };
    let built = tempfile::tempdir()?;
    let mut libraries: Vec<_> = RUST.iter().map(|name| release().join(format!("lib{name}_wsh.so"))).collect();
    libraries.push(compile_cpp(built.path())?);
    libraries.push(release().join("libcounter_wsh.so"));
    let files: Vec<&Path> = libraries.iter().map(PathBuf::as_path).collect();
    let mut server =
        Server::start(&files, "[log]\nlevel = \"warn\"\n[handlers]\nworkers = 2\nwatch = \"off\"")?;
    println!(
        "{rounds} reloads of each: a library with thread-local destructors, thread::current, channels, threads of its own and a \
         caught panic; one with a tokio runtime of its own; one in C++ with thread_local strings; and counter\n"
    );

    let began = Instant::now();
    let mut before = None;
    for round in 1..=warm_up + rounds {
        for library in &libraries {
            server.replace(&file_name(library), &version_of(library, round)?)?;
        }
        let reload = |library: &PathBuf| {
            format!("{{\"version\":1,\"request\":\"reload\",\"handler\":\"{}\"}}", handler_name(library))
        };
        server.ask_all(&libraries.iter().map(reload).collect::<Vec<_>>())?;
        for library in &libraries {
            use_once(&server, &handler_name(library))?;
        }
        if round == warm_up {
            // What serves is of one round, as it is in the end.
            before = Some(Figures::of(&server, &libraries)?);
        }
    }
    let after = Figures::of(&server, &libraries)?;
    let before = before.expect("the warm-up is over");
    let took = began.elapsed().as_secs_f64() / (warm_up + rounds) as f64;
    println!("  {:.1} ms for each round of {} reloads\n", took * 1000.0, libraries.len());

    claim("the server lives", server.is_alive(), "yes")?;
    claim("versions that stayed in memory", after.retained == 0, after.retained)?;
    claim("libraries that are mapped", after.mapped == libraries.len(), after.mapped)?;
    claim("threads", after.threads == before.threads, format!("{} -> {}", before.threads, after.threads))?;
    let descriptors = format!("{} -> {}", before.descriptors, after.descriptors);
    claim("descriptors", after.descriptors == before.descriptors, descriptors)?;
    let reloads = rounds as f64 * libraries.len() as f64;
    let growth = (after.resident as f64 - before.resident as f64) / reloads;
    // A library that stays mapped costs hundreds. A short run ends before the arenas are full.
    let most = if quick { 64.0 } else { 1.0 };
    claim(
        "KiB of resident memory for each reload",
        growth < most,
        format!("{growth:.3}, less than {most} allowed"),
    )
}

/// What must not grow.
struct Figures {
    resident: u64,
    threads: u64,
    descriptors: u64,
    mapped: usize,
    retained: usize,
}

impl Figures {
    /// Waits until every generation but the active ones has ended, and the server's own threads for such work too.
    fn of(server: &Server, libraries: &[PathBuf]) -> Result<Self> {
        let mut status = serde_json::Value::Null;
        for library in libraries {
            status = server.wait_for(&format!("/{}", handler_name(library)), 1)?;
        }
        // The connections that asked for it are closed by then, too.
        pause(Duration::from_secs(3));
        Ok(Self {
            resident: server.resident_kib()?,
            threads: server.threads()?,
            descriptors: server.descriptors()?,
            mapped: server.mapped_libraries()?,
            retained: status["retained"].as_array().map_or(0, Vec::len),
        })
    }
}

/// Connects, has the handler run its code once, and closes in order.
fn use_once(server: &Server, handler: &str) -> Result<()> {
    let peers = Peers::connect(server.address(), &format!("/{handler}"), 1)?;
    let mut stream = peers.into_streams().remove(0);
    stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x'])?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut answer = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut answer)?;
    if head[0] != 0x81 || !matches!(&answer[..], b"1" | b"ok") {
        return Err(Error::other(format!("{handler} answered {:?}", String::from_utf8_lossy(&answer))));
    }
    // Close with 1000, answered, and then the end: the session is gone before the next round.
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn compile_cpp(folder: &Path) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench is a folder of the workspace");
    let library = folder.join("threadlocal_wsh.so");
    let status = Command::new("c++")
        .args(["-std=c++17", "-O2", "-shared", "-fPIC", "-fno-gnu-unique", "-I"])
        .arg(root.join("handler-api/include"))
        .arg(root.join("server/tests/fixtures/threadlocal.cc"))
        .arg("-o")
        .arg(&library)
        .status()?;
    if status.success() { Ok(library) } else { Err(Error::other("the library in C++ does not compile")) }
}

fn file_name(library: &Path) -> String {
    library.file_name().expect("a library has a name").to_string_lossy().into_owned()
}

/// `libclinging_wsh.so` serves `/clinging`.
fn handler_name(library: &Path) -> String {
    file_name(library).trim_start_matches("lib").trim_end_matches("_wsh.so").to_owned()
}
