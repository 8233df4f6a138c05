//! Libraries that are written badly over a running server, and libraries that are written again and again.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::claim;
use super::server::{Server, pause, release, version_of};
use crate::load::Peers;

const NAME: &str = "libecho_wsh.so";

pub(crate) fn run(quick: bool) -> Result<()> {
    bad_writes(if quick { 10 } else { 1 })?;
    touches(if quick { 100 } else { 1000 })
}

/// One way to leave something else than a whole library behind.
enum Way {
    /// Copied over the file in place, and stopped after so many bytes.
    Stopped(usize),
    /// Of its full length, and zeros from here on.
    ZeroedFrom(usize),
    /// Truncated in place, without a byte written.
    CutTo(usize),
    Text(&'static str),
    Deleted,
    Directory,
}

fn bad_writes(step: usize) -> Result<()> {
    let library = release().join(NAME);
    let mut server = Server::start(&[&library], "[log]\nlevel = \"warn\"")?;
    let good = fs::read(&library)?;
    let part = |percent: usize| good.len() * percent / 100;
    let ways = (0..100)
        .map(|percent| Way::Stopped(part(percent)))
        .chain((1..100).step_by(2).map(|percent| Way::ZeroedFrom(part(percent))))
        .chain((0..100).step_by(3).map(|percent| Way::CutTo(part(percent))))
        .chain(["#!/bin/sh\n", "", "\u{7f}ELF", "<html>404 not found</html>\n"].map(Way::Text))
        .chain([Way::Deleted, Way::Directory])
        .chain((0..12).map(|_| Way::Text("half of a download, over and over again\n")));
    let ways: Vec<_> = ways.step_by(step).collect();
    println!("{} ways to write a library badly over a server that runs it\n", ways.len());

    let mut session = Session::open(&server)?;
    let (mut explained, count) = (0, ways.len());
    for (number, way) in ways.into_iter().enumerate() {
        let file = server.file(NAME);
        // Every way begins with the sound file that is served, or a refusal of the one before would be taken for its own.
        clean(&file)?;
        server.replace(NAME, &good)?;
        wait_for(&server, |status| {
            status["refused"].as_array().is_none_or(Vec::is_empty)
                && !status["handlers"][0]["active"].is_null()
        })?;
        make(&file, &good, &way)?;
        explained += u64::from(is_explained(&server, &way)?);
        session.echo(&format!("after way {number}"))?;
        if !server.is_alive() {
            return Err(Error::other(format!("the server ended after way {number}:\n{}", server.last_log())));
        }
    }
    claim("ways after which the old version answered on", true, count)?;
    claim("ways that were explained in words", explained == count as u64, explained)?;
    clean(&server.file(NAME))?;
    server.replace(NAME, &version_of(&library, 2)?)?;
    wait_for_version(&server, "2")?;
    session.echo("with the new version")?;
    claim("a sound library after all of that is served", server.is_alive(), "yes")
}

fn make(file: &Path, good: &[u8], way: &Way) -> Result<()> {
    match way {
        Way::Stopped(bytes) => File::create(file)?.write_all(&good[..*bytes]),
        Way::ZeroedFrom(at) => {
            let mut content = good.to_vec();
            content[*at..].fill(0);
            File::create(file)?.write_all(&content)
        }
        Way::CutTo(bytes) => {
            fs::write(file, good)?;
            OpenOptions::new().write(true).open(file)?.set_len(*bytes as u64)
        }
        Way::Text(text) => fs::write(file, text),
        Way::Deleted => fs::remove_file(file),
        Way::Directory => {
            fs::remove_file(file)?;
            fs::create_dir(file)
        }
    }
}

fn clean(file: &Path) -> Result<()> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(file),
        Ok(_) => fs::remove_file(file),
        Err(_) => Ok(()),
    }
}

/// Waits until the server says why it does not serve the file, or that there is none.
fn is_explained(server: &Server, way: &Way) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = server.status()?;
        let refused = status["refused"].as_array().is_some_and(|refused| {
            refused.iter().any(|refused| refused["reason"].as_str().is_some_and(|reason| !reason.is_empty()))
        });
        let is_gone = status["handlers"][0]["active"].is_null();
        let has_ended = match way {
            Way::Deleted | Way::Directory => is_gone,
            _ => refused,
        };
        if has_ended {
            return Ok(true);
        }
        if Instant::now() > deadline {
            println!("  not explained: {status}");
            return Ok(false);
        }
        pause(Duration::from_millis(5));
    }
}

fn wait_for_version(server: &Server, version: &str) -> Result<()> {
    wait_for(server, |status| status["handlers"][0]["active"]["version"] == version)
}

fn wait_for(server: &Server, is_so: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = server.status()?;
        if is_so(&status) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::other(format!("it does not become so: {status}")));
        }
        pause(Duration::from_millis(5));
    }
}

/// Versions in a row, faster than anybody could load them.
fn touches(count: u64) -> Result<()> {
    let library = release().join(NAME);
    let server = Server::start(&[&library], "[log]\nlevel = \"warn\"")?;
    println!("\n{count} versions in a row, one every 10 ms\n");
    let began = Instant::now();
    for number in 1..=count {
        server.replace(NAME, &version_of(&library, number)?)?;
        let due = Duration::from_millis(10) * number as u32;
        pause(due.saturating_sub(began.elapsed()));
    }
    let took = began.elapsed();
    wait_for_version(&server, &count.to_string())?;
    let status = server.wait_for("/echo", 2)?;
    let loads = status["handlers"][0]["active"]["number"].as_u64().unwrap_or_default() - 1;
    // One more may begin right at the start, and one after the last write.
    let most = took.as_millis() as u64 / 250 + 2;
    claim("loads", loads <= most, format!("{loads} in {:.1} s, at most {most} allowed", took.as_secs_f64()))?;
    claim("the last version is the one that answers", true, count)
}

/// A session that began before the first bad write.
struct Session(TcpStream);

impl Session {
    fn open(server: &Server) -> Result<Self> {
        let peers = Peers::connect(server.address(), "/echo", 1)?;
        Ok(Self(peers.into_streams().remove(0)))
    }

    fn echo(&mut self, text: &str) -> Result<()> {
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame)?;
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head)?;
            let mut payload = vec![0; usize::from(head[1])];
            self.0.read_exact(&mut payload)?;
            match head[0] {
                // A ping that the server sent while nothing happened.
                0x89 => continue,
                0x81 if payload == text.as_bytes() => return Ok(()),
                _ => return Err(Error::other(format!("expected {text:?}, got {head:?} {payload:?}"))),
            }
        }
    }
}
