//! Thousands of panics, in every place where code of a handler runs, beside sessions of the same workers that talk on.
//!
//! Each panic has to end its own session and no other, and the log has to say where it was. Then the libraries are replaced again and
//! again, so that it also happens on the way from one version to the next. Nothing may be left behind.

use std::collections::BTreeMap;
use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::claim;
use super::server::{Server, pause, release, version_of};
use crate::load::Peers;

const CALLBACKS: &str = "libmisbehaving_wsh.so";
const SEQUENTIAL: &str = "libsequential_wsh.so";

/// Sessions that panic while their state is written down, and as many while it is read.
const SESSIONS_PER_RELOAD: u64 = 20;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

/// One place where code of a handler runs, and how a peer gets it there.
struct Way {
    /// As the log names it; empty where no callback is at fault.
    callback: &'static str,
    handler: &'static str,
    /// What the session is opened with; `!` stands for the kind of panic.
    query: &'static str,
    /// A frame of the peer's, if it takes one.
    frame: Option<(u8, &'static [u8])>,
    ends: Ends,
}

enum Ends {
    /// Refused with this status.
    Refused(&'static str),
    /// With a Close of this code.
    Closed(u16),
    /// This is heard, and the session goes on.
    Not(&'static str),
}

const fn way(
    callback: &'static str,
    query: &'static str,
    frame: Option<(u8, &'static [u8])>,
    ends: Ends,
) -> Way {
    Way { callback, handler: "misbehaving", query, frame, ends }
}

const GOODBYE: Option<(u8, &[u8])> = Some((CLOSE, &[0x03, 0xe8]));

const WAYS: [Way; 15] = [
    way("on_upgrade", "?on_upgrade=!", None, Ends::Refused(" 500 ")),
    way("on_open", "?on_open=!", None, Ends::Closed(1011)),
    way("on_message", "", Some((TEXT, b"!")), Ends::Closed(1011)),
    way("on_pong", "?on_pong=!", Some((0x8a, b"")), Ends::Closed(1011)),
    way("on_wake", "?on_wake=!", Some((TEXT, b"wake")), Ends::Closed(1011)),
    way("on_writable", "?on_writable=!", Some((TEXT, b"fill")), Ends::Closed(1011)),
    way("on_timer", "?on_timer=!", Some((TEXT, b"timer")), Ends::Closed(1011)),
    way("on_closing", "?on_closing=!", GOODBYE, Ends::Closed(1011)),
    // A frame that is not masked: the peer's own fault, and it is told that.
    way("on_error", "?on_error=!", None, Ends::Closed(1002)),
    way("on_close", "?on_close=!", GOODBYE, Ends::Closed(1000)),
    // Its session was over already.
    way("drop", "?drop=!", GOODBYE, Ends::Closed(1000)),
    way("", "", Some((TEXT, b"thread !")), Ends::Not("the thread panicked")),
    way("offloaded work", "", Some((TEXT, b"offload ! never")), Ends::Not("")),
    Way {
        callback: "transfer_data",
        handler: "sequential",
        query: "",
        frame: Some((TEXT, b"!")),
        ends: Ends::Closed(1011),
    },
    Way {
        callback: "transfer_data",
        handler: "sequential",
        query: "",
        frame: Some((TEXT, b"! later")),
        ends: Ends::Closed(1011),
    },
];

pub(crate) fn run(quick: bool) -> Result<()> {
    // The first ones fill the arenas of the allocator.
    let (warm_up, rounds) = if quick { (20, 60) } else { (60, 600) };
    let (first_reloads, reloads) = if quick { (1, 4) } else { (20, 40) };
    let (callbacks, sequential) = (release().join(CALLBACKS), release().join(SEQUENTIAL));
    let config = "[log]\nlevel = \"error\"\n\
                  [handlers]\nworkers = 1\nwatch = \"off\"\nrollback_panics = 0";
    let mut server = Server::start(&[&callbacks, &sequential], config)?;
    let calm = rounds * WAYS.len() as u64;
    let moving = reloads * 2 * SESSIONS_PER_RELOAD;
    println!(
        "{calm} panics in {} places, and {moving} on the way from one version to the next in {reloads} reloads\n",
        WAYS.len()
    );

    let mut neighbours = Neighbours::gather(&server)?;
    let mut before = 0;
    for round in 1..=warm_up + rounds {
        for way in &WAYS {
            neighbours.speak()?;
            let payload = if round % 2 == 0 { "panic" } else { "panic-any" };
            panic_once(&server, &mut neighbours, way, payload).map_err(|error| {
                Error::other(format!("{} {payload}: {error}\n{}", way.callback, server.last_log()))
            })?;
            neighbours.hear()?;
        }
        if round == warm_up {
            before = settled_kib(&server)?;
        }
    }
    let after = settled_kib(&server)?;
    let mut moved_before = 0;
    for reload in 1..=first_reloads + reloads {
        panic_on_the_way(&server, &mut neighbours, reload)?;
        if reload == first_reloads {
            moved_before = settled_kib(&server)?;
        }
    }
    let moved = settled_kib(&server)?;

    claim("the server lives", server.is_alive(), "yes")?;
    claim("messages of neighbours that came back, each in its order", true, neighbours.heard())?;
    log_names_every_panic(&server, warm_up + rounds, first_reloads + reloads)?;
    let retained = server.status()?["retained"].as_array().map_or(0, Vec::len);
    claim("versions that stayed in memory", retained == 0, retained)?;
    claim_growth(
        "KiB of resident memory for each panic",
        (before, after),
        calm,
        if quick { 1.0 } else { 0.1 },
    )?;
    // New threads and old arenas: what that costs in the end is what the soak of unloading measures, over more of them.
    let most = if quick { 256.0 } else { 16.0 };
    claim_growth("KiB for each on the way, with its part of a reload", (moved_before, moved), moving, most)
}

fn claim_growth(what: &str, (before, after): (u64, u64), panics: u64, most: f64) -> Result<()> {
    let growth = (after as f64 - before as f64) / panics as f64;
    claim(what, growth < most, format!("{growth:.3} ({before} -> {after} KiB), less than {most} allowed"))
}

fn panic_once(server: &Server, neighbours: &mut Neighbours, way: &Way, payload: &str) -> Result<()> {
    let path = format!("/{}{}", way.handler, way.query.replace('!', payload));
    let mut peer = match (&way.ends, Peer::open(server, &path)) {
        (Ends::Refused(status), Err(error)) if error.to_string().contains(status) => return Ok(()),
        (Ends::Refused(_), Ok(_)) => return Err(Error::other("it was accepted")),
        (_, opened) => opened?,
    };
    if way.callback == "on_writable" {
        // The worker has it, and not only the front.
        peer.send(TEXT, b"say here")?;
        peer.expect("here")?;
    }
    match way.frame {
        Some((first, text)) if first == TEXT => {
            peer.send(first, String::from_utf8_lossy(text).replace('!', payload).as_bytes())?;
        }
        Some((first, bytes)) => peer.send(first, bytes)?,
        None if way.callback == "on_error" => peer.0.write_all(&[TEXT, 0])?,
        None => {}
    }
    if way.callback == "on_writable" {
        // Read from is only what is slow already. The handler has one worker, which has filled it before it answers twice.
        for _ in 0..3 {
            neighbours.hear()?;
            neighbours.speak()?;
        }
    }
    match way.ends {
        Ends::Closed(code) => peer.expect_close(code),
        Ends::Not(heard) => {
            if !heard.is_empty() {
                peer.expect(heard)?;
            }
            peer.send(TEXT, b"say still here")?;
            peer.expect("still here")?;
            peer.send(CLOSE, &[0x03, 0xe8])?;
            peer.expect_close(1000)
        }
        Ends::Refused(_) => Ok(()),
    }
}

/// Replaces both libraries under sessions that panic while they are written down, or while they are read.
fn panic_on_the_way(server: &Server, neighbours: &mut Neighbours, reload: u64) -> Result<()> {
    let open = |query: &str| {
        let path = format!("/misbehaving?{query}=panic");
        (0..SESSIONS_PER_RELOAD).map(|_| Peer::open(server, &path)).collect::<Result<Vec<_>>>()
    };
    let (leaving, arriving) = (open("export_state")?, open("import_state")?);
    neighbours.speak()?;
    for name in [CALLBACKS, SEQUENTIAL] {
        server.replace(name, &version_of(&release().join(name), reload)?)?;
    }
    let request = |handler| format!("{{\"version\":1,\"request\":\"reload\",\"handler\":\"{handler}\"}}");
    server.ask_all(&["misbehaving", "sequential"].map(request))?;
    for mut peer in leaving {
        peer.expect_close(1011)?;
    }
    neighbours.hear()?;
    // A state that could not be read leaves its session where it was.
    let expected = (reload * SESSIONS_PER_RELOAD) as usize;
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.log_lines("the panic was in import_state").len() < expected {
        if Instant::now() > deadline {
            return Err(Error::other(format!("no panic in import_state: {}", server.last_log())));
        }
        pause(Duration::from_millis(1));
    }
    for mut peer in arriving {
        peer.send(TEXT, b"say still here")?;
        peer.expect("still here")?;
        peer.send(CLOSE, &[0x03, 0xe8])?;
        peer.expect_close(1000)?;
    }
    for path in ["/misbehaving", "/sequential"] {
        server.wait_for(path, reload + 1)?;
    }
    Ok(())
}

/// What the server needs when nobody but the neighbours is there.
fn settled_kib(server: &Server) -> Result<u64> {
    // Sessions that linger after their Close, and the threads of the versions that ended.
    pause(Duration::from_secs(3));
    server.resident_kib()
}

/// Each panic has a line that says where in the source it was, and one that says in which callback.
fn log_names_every_panic(server: &Server, rounds: u64, reloads: u64) -> Result<()> {
    let mut expected = BTreeMap::new();
    for way in &WAYS {
        *expected.entry(way.callback).or_insert(0) += rounds;
    }
    expected.insert("export_state", reloads * SESSIONS_PER_RELOAD);
    expected.insert("import_state", reloads * SESSIONS_PER_RELOAD);
    let all = expected.values().sum();
    claim_lines(server, "panicked at ", "_wsh/src/lib.rs:", all, reloads + 1)?;
    // A thread of the handler's own is in no callback.
    expected.remove("");
    for (callback, count) in expected {
        claim_lines(server, &format!("the panic was in {callback}"), "", count, reloads + 1)?;
    }
    Ok(())
}

fn claim_lines(server: &Server, words: &str, place: &str, count: u64, newest: u64) -> Result<()> {
    let lines = server.log_lines(words);
    let marked = lines.iter().filter(|line| line.contains(place) && is_marked(line, newest)).count();
    claim(
        &format!("log lines of handler and generation, \"{words}{place}\""),
        lines.len() as u64 == count && marked == lines.len(),
        format!("{marked} of {count}"),
    )
}

fn is_marked(line: &str, newest: u64) -> bool {
    let number =
        line.split("generation=").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let is_known =
        number.and_then(|number| number.parse().ok()).is_some_and(|number| (1..=newest).contains(&number));
    is_known && (line.contains("handler=\"misbehaving\"") || line.contains("handler=\"sequential\""))
}

/// Sessions of the same handlers, each of which has one worker.
struct Neighbours {
    peers: Vec<(Peer, &'static str)>,
    said: u64,
}

impl Neighbours {
    fn gather(server: &Server) -> Result<Self> {
        let mut peers = Vec::new();
        for (path, prefix) in [("/misbehaving", "say "), ("/sequential", "")] {
            for _ in 0..4 {
                peers.push((Peer::open(server, path)?, prefix));
            }
        }
        Ok(Self { peers, said: 0 })
    }

    fn speak(&mut self) -> Result<()> {
        self.said += 1;
        for (peer, prefix) in &mut self.peers {
            peer.send(TEXT, format!("{prefix}{}", self.said).as_bytes())?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        for (peer, _) in &mut self.peers {
            peer.expect(&self.said.to_string())
                .map_err(|error| Error::other(format!("a neighbour noticed: {error}")))?;
        }
        Ok(())
    }

    fn heard(&self) -> u64 {
        self.said * self.peers.len() as u64
    }
}

struct Peer(TcpStream);

impl Peer {
    fn open(server: &Server, path: &str) -> Result<Self> {
        let peers = Peers::connect(server.address(), path, 1)?;
        let stream = peers.into_streams().remove(0);
        // The kernel is to take little for it, so that a peer that does not read is felt soon.
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 128 * 1024)?;
        Ok(Self(stream))
    }

    /// A frame of at most 125 bytes, masked with zeros.
    fn send(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.0.write_all(&frame)
    }

    /// The next frame that is neither ping nor binary.
    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head)?;
            let length = match head[1] {
                126 => {
                    let mut bytes = [0; 2];
                    self.0.read_exact(&mut bytes)?;
                    u16::from_be_bytes(bytes).into()
                }
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload)?;
            if !matches!(head[0], 0x89 | 0x82) {
                return Ok((head[0], payload));
            }
        }
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        match self.frame()? {
            (TEXT, payload) if payload == text.as_bytes() => Ok(()),
            other => Err(Error::other(format!("expected {text:?}, got {other:?}"))),
        }
    }

    /// A Close of this code, which is answered, and then the end.
    fn expect_close(&mut self, code: u16) -> Result<()> {
        match self.frame()? {
            (CLOSE, payload) if payload.starts_with(&code.to_be_bytes()) => {}
            other => return Err(Error::other(format!("expected a Close of {code}, got {other:?}"))),
        }
        // One that has begun the closing handshake is not heard any more.
        let _ = self.send(CLOSE, &code.to_be_bytes());
        let _ = self.0.read_to_end(&mut Vec::new());
        Ok(())
    }
}
