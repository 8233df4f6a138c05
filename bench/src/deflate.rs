//! What compression costs (RFC 7692): a server that compresses beside the same one that does not, through sockets.
//!
//! Every message is JSON of about 1 KiB, each different, and comes back from the handler echo. A client that has agreed to compression
//! may send plain messages all the same; so the cost of a compressed reply, and that of a compressed request, can be told apart.

use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use zlib_rs::{Deflate, DeflateFlush};

use crate::compare::median;
use crate::idle::raise_file_limit;
use crate::load::{self, masked};
use crate::soak::claim;
use crate::target::{Kind, Target, pin_generator};

// The texts are those by which the protocol alone is measured.
#[path = "../../server/protocol/examples/support/json.rs"]
mod json;

/// What is sent, and what the server has agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    /// Plain requests, compressed replies.
    Replies,
    /// Compressed both ways.
    Both,
}

const WAYS: [Way; 3] = [Way::Plain, Way::Replies, Way::Both];

/// Connections, and messages sent in one write before any is awaited.
const WORKLOADS: [(&str, usize, usize); 2] =
    [("64 connections in turns", 64, 1), ("16 messages in a row on 4 connections", 4, 16)];

/// What a client is told to keep to, `deflate.client_window_bits_max`.
const WINDOW_BITS: u8 = 12;

/// As many different messages as are sent before they begin again.
const MESSAGES: usize = 208;

pub(crate) fn run(quick: bool, rounds: usize) -> Result<()> {
    pin_generator();
    let (rounds, time) =
        if quick { (1, Duration::from_millis(300)) } else { (rounds.max(1), Duration::from_secs(2)) };
    println!("CPU time of the server per echoed 1 KiB of JSON; median of {rounds} rounds of {time:?}\n");
    println!(
        "| workload | plain ns | compressed reply, ns more | compressed request, ns more | ratio of replies |"
    );
    println!("|---|---|---|---|---|");
    for (name, connections, depth) in WORKLOADS {
        let mut costs = [const { Vec::new() }; 3];
        let mut ratio = 1.0;
        for round in 0..rounds {
            for index in 0..WAYS.len() {
                // In another order each time: what drifts meets all alike.
                let at = (index + round) % WAYS.len();
                let measured = measure(WAYS[at], connections, depth, time)?;
                costs[at].push(measured.nanos);
                if WAYS[at] != Way::Plain {
                    ratio = measured.ratio;
                }
            }
        }
        let [plain, replies, both] = costs.map(median);
        println!("| {name} | {plain:.0} | {:.0} | {:.0} | {ratio:.3} |", replies - plain, both - replies);
    }
    println!();
    memory(if quick { 300 } else { 5_000 })?;
    bombs(if quick { 5 } else { 50 })
}

struct Measured {
    nanos: f64,
    /// Bytes of replies on the wire, headers included, by those of the messages in them.
    ratio: f64,
}

fn measure(way: Way, connections: usize, depth: usize, time: Duration) -> Result<Measured> {
    let target = Target::start(if way == Way::Plain { Kind::Wshd } else { Kind::WshdDeflate })?;
    let script = Script::new(way);
    let mut peers =
        (0..connections).map(|_| Peer::connect(target.address(), way)).collect::<Result<Vec<_>>>()?;
    // Everything once, and looked at: what comes back is what was sent, and compressed where that was agreed.
    for peer in &mut peers {
        peer.talk(&script, way, MESSAGES)?;
    }
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, peer) in peers.iter_mut().enumerate() {
        epoll::add(&epoll, &peer.socket, EventData::new_u64(index as u64), EventFlags::IN)?;
        peer.socket.write_all(script.piece(0, depth))?;
    }
    let mut buffer = vec![0; 1 << 20];
    let mut events: Vec<Event> = Vec::with_capacity(256);
    let (mut messages, mut wire) = (0_u64, 0_u64);
    let began = Instant::now();
    let mut measured: Option<(Instant, u64)> = None;
    let used = loop {
        if measured.is_none() && began.elapsed() >= time / 4 {
            (messages, wire) = (0, 0);
            measured = Some((Instant::now(), target.cpu_nanos()?));
        }
        if let Some((from, before)) = measured
            && from.elapsed() >= time
        {
            break target.cpu_nanos()? - before;
        }
        events.clear();
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience))?;
        if events.is_empty() {
            return Err(Error::other("no echo came back for 10 s"));
        }
        for event in &events {
            let peer = &mut peers[event.data.u64() as usize];
            let count = peer.socket.read(&mut buffer)?;
            if count == 0 {
                return Err(Error::other("the server closed a connection"));
            }
            wire += count as u64;
            let heard = peer.frames.count(&buffer[..count])?;
            messages += heard as u64;
            peer.awaited += heard;
            if peer.awaited == depth {
                peer.awaited = 0;
                peer.next = (peer.next + depth) % MESSAGES;
                peer.socket.write_all(script.piece(peer.next, depth))?;
            }
        }
    };
    let text_bytes = script.text_bytes as f64 / MESSAGES as f64;
    let ratio = wire as f64 / messages as f64 / text_bytes;
    Ok(Measured { nanos: used as f64 / messages as f64, ratio })
}

/// What is kept of idle sessions that have exchanged compressed messages, beside those that have exchanged plain ones.
fn memory(connections: usize) -> Result<()> {
    raise_file_limit();
    let mut bytes = [0; 2];
    for (way, kept) in [Way::Plain, Way::Both].into_iter().zip(&mut bytes) {
        let target = Target::start(if way == Way::Plain { Kind::Wshd } else { Kind::WshdDeflate })?;
        let script = Script::new(way);
        // The first ones start threads and fill pools that the others share.
        let connect = |count: usize| -> Result<Vec<Peer>> {
            let mut peers =
                (0..count).map(|_| Peer::connect(target.address(), way)).collect::<Result<Vec<_>>>()?;
            for peer in &mut peers {
                peer.talk(&script, way, 16)?;
            }
            Ok(peers)
        };
        let first = connect(50)?;
        let base = target.resident_bytes()?;
        let peers = connect(connections)?;
        *kept = target.resident_bytes()?.saturating_sub(base) / connections as u64;
        drop((first, peers));
    }
    let [plain, compressed] = bytes;
    println!("{connections} idle sessions that have exchanged 16 messages each");
    println!("  {plain} bytes a session, {compressed} where they were compressed both ways, with takeover");
    let more = compressed.saturating_sub(plain);
    // Two windows of 4 KiB, and what holds them.
    claim("bytes more for a session that compresses, at most 9 KiB", more <= 9 << 10, more)
}

/// Small messages that would inflate to a thousand times as much.
fn bombs(count: usize) -> Result<()> {
    const LIMIT: u64 = 1 << 20;
    let mut compress = Compress::new(Compression::best(), false);
    let mut payload = Vec::with_capacity(1 << 20);
    let plain = vec![0; 64 << 20];
    compress.compress_vec(&plain, &mut payload, FlushCompress::Sync).map_err(Error::other)?;
    payload.truncate(payload.len() - 4);
    let times = plain.len() / payload.len();
    drop(plain);
    let bomb = masked(0xc2, &payload);

    let target = Target::start(Kind::WshdDeflate)?;
    let script = Script::new(Way::Both);
    Peer::connect(target.address(), Way::Both)?.talk(&script, Way::Both, 16)?;
    let (resident, before) = (target.resident_bytes()?, target.cpu_nanos()?);
    target.forget_peak()?;
    let mut refused = 0;
    for _ in 0..count {
        let mut peer = Peer::connect(target.address(), Way::Both)?;
        peer.socket.write_all(&bomb)?;
        let mut head = [0; 4];
        peer.socket.read_exact(&mut head)?;
        refused += usize::from(head[0] == 0x88 && head[2..] == 1009_u16.to_be_bytes());
    }
    let nanos = (target.cpu_nanos()? - before) / count as u64;
    let peak = target.peak_bytes()?.saturating_sub(resident);
    println!("\n{count} bombs of {} KiB that inflate to {times} times as much", payload.len() / 1024);
    claim("that ended with 1009", refused == count, refused)?;
    claim("ms of CPU each, with the handshake, less than 50", nanos < 50_000_000, nanos as f64 / 1e6)?;
    let figure = format!("{} KiB, {:.2} times the limit", peak / 1024, peak as f64 / LIMIT as f64);
    claim("memory at the peak, at most twice the limit of a message", peak <= 2 * LIMIT, figure)
}

// ---- the client --------------------------------------------------------------------------------------------------------

struct Peer {
    socket: TcpStream,
    frames: Frames,
    /// The message that was sent last, or the first of several.
    next: usize,
    /// Replies that have come of those that were sent for.
    awaited: usize,
}

impl Peer {
    fn connect(address: SocketAddr, way: Way) -> Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let offer = match way {
            Way::Plain => "",
            _ => "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        };
        let head = load::open(&mut socket, address, "/echo", offer)?.to_ascii_lowercase();
        let agreed = head.contains("permessage-deflate; client_max_window_bits=12");
        if agreed != (way != Way::Plain) {
            return Err(Error::other(format!("not what was to be agreed:\n{head}")));
        }
        Ok(Self { socket, frames: Frames::default(), next: 0, awaited: 0 })
    }

    /// So many of the first messages, one after another; each reply has to be what was sent.
    fn talk(&mut self, script: &Script, way: Way, count: usize) -> Result<()> {
        let mut inflate = Decompress::new(false);
        for (question, text) in script.first.iter().zip(&script.texts).take(count) {
            self.socket.write_all(question)?;
            let (first, payload) = read_frame(&mut self.socket)?;
            let is_compressed = first & 0x40 != 0;
            let heard = if is_compressed { inflated(&mut inflate, payload)? } else { payload };
            if heard != *text || is_compressed != (way != Way::Plain) {
                return Err(Error::other("an echo differs from what was sent, or is not as it was agreed"));
            }
        }
        Ok(())
    }
}

fn inflated(inflate: &mut Decompress, mut payload: Vec<u8>) -> Result<Vec<u8>> {
    payload.extend([0, 0, 0xff, 0xff]);
    let mut text = Vec::with_capacity(4096);
    inflate.decompress_vec(&payload, &mut text, FlushDecompress::Sync).map_err(Error::other)?;
    Ok(text)
}

fn read_frame(socket: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    let mut len = usize::from(head[1]);
    if len == 126 {
        let mut long = [0; 2];
        socket.read_exact(&mut long)?;
        len = usize::from(u16::from_be_bytes(long));
    }
    let mut payload = vec![0; len];
    socket.read_exact(&mut payload)?;
    Ok((head[0], payload))
}

/// Counts frames of less than 64 KiB as they arrive, cut anywhere.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    missing: usize,
}

impl Frames {
    fn count(&mut self, mut bytes: &[u8]) -> Result<usize> {
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                bytes = &bytes[taken..];
                frames += usize::from(self.missing == 0);
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            match self.head[..] {
                [0x88, ..] => return Err(Error::other("the server closed a session")),
                [_, len] if len < 126 => self.missing = usize::from(len),
                [_, 126, high, low] => self.missing = usize::from(u16::from_be_bytes([high, low])),
                _ => continue,
            }
            self.head.clear();
        }
        Ok(frames)
    }
}

/// The messages, and their frames as a client sends them.
struct Script {
    texts: Vec<Vec<u8>>,
    text_bytes: usize,
    /// In the first round.
    first: Vec<Vec<u8>>,
    /// In every later one, where the first message follows the last; twice, so that a piece may begin anywhere.
    again: Vec<u8>,
    /// Where each message begins in that.
    starts: Vec<usize>,
}

impl Script {
    fn new(way: Way) -> Self {
        let texts = json::texts(MESSAGES);
        let text_bytes = texts.iter().map(Vec::len).sum();
        let mut compress = Deflate::new(6, false, WINDOW_BITS);
        let mut round = || -> Vec<Vec<u8>> {
            let frame_of = |text: &Vec<u8>| match way {
                Way::Both => masked(0xc1, &compressed(&mut compress, text)),
                _ => masked(0x81, text),
            };
            texts.iter().map(frame_of).collect()
        };
        let (first, later) = (round(), round());
        let (mut again, mut starts) = (Vec::new(), Vec::new());
        for frame in later.iter().chain(&later) {
            starts.push(again.len());
            again.extend_from_slice(frame);
        }
        Self { texts, text_bytes, first, again, starts }
    }

    fn piece(&self, next: usize, depth: usize) -> &[u8] {
        &self.again[self.starts[next]..self.starts[next + depth]]
    }
}

fn compressed(compress: &mut Deflate, text: &[u8]) -> Vec<u8> {
    let (mut payload, before) = (vec![0; 2 * text.len() + 64], compress.total_out());
    compress.compress(text, &mut payload, DeflateFlush::SyncFlush).expect("there is room");
    payload.truncate((compress.total_out() - before) as usize - 4);
    payload
}
