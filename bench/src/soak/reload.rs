//! Reloads under load: thousands of connections with numbered messages in flight in both directions, while the code they talk to
//! is replaced again and again.
//!
//! Half of the connections talk to `echo`, which shows that no message is lost, doubled or overtaken on its way; the other half to
//! `counter`, whose numbers show that the state of each session is carried over.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::server::{Server, release, version_of};
use super::{claim, quantile};
use crate::load::Peers;

pub(crate) fn run(quick: bool) -> Result<()> {
    let (connections, reloads, baseline) =
        if quick { (400, 10, Duration::from_secs(1)) } else { (5000, 200, Duration::from_secs(10)) };
    let (echo, counter) = (release().join("libecho_wsh.so"), release().join("libcounter_wsh.so"));
    let mut server = Server::start(&[&echo, &counter], "[log]\nlevel = \"info\"")?;
    println!(
        "{connections} connections with a message in flight each, {reloads} reloads of two handlers each\n"
    );

    let mut crowd = Crowd::gather(&server, connections)?;
    let calm = crowd.talk_for(baseline, |_| Ok(true))?;
    let mut round = 0;
    let mut next = Instant::now();
    let stirred = crowd.talk_for(Duration::from_secs(3600), |_| {
        if Instant::now() < next {
            return Ok(true);
        }
        if round > 0 && !has_arrived(&server, round)? {
            next = Instant::now() + Duration::from_millis(10);
            return Ok(true);
        }
        if round == reloads {
            return Ok(false);
        }
        round += 1;
        server.replace("libecho_wsh.so", &version_of(&echo, round)?)?;
        server.replace("libcounter_wsh.so", &version_of(&counter, round)?)?;
        next = Instant::now() + Duration::from_millis(260);
        Ok(true)
    })?;
    crowd.hear_the_rest()?;
    let status = server.wait_for("/echo", reloads + 1)?;
    server.wait_for("/counter", reloads + 1)?;

    println!("  baseline        {calm}");
    println!("  during reloads  {stirred}\n");
    let messages = crowd.messages;
    let enough = if quick { 1000 } else { 100_000 };
    claim("messages that came back, each once and in its order", messages >= enough, messages)?;
    claim("connections that were closed", true, 0)?;
    claim("the server lives", server.is_alive(), "yes")?;
    let retained = status["retained"].as_array().map_or(0, Vec::len);
    claim("old versions that stayed in memory", retained == 0, retained)?;
    let ratio = stirred.p99 as f64 / calm.p99.max(1) as f64;
    // A short run has too few messages for a quantile that means something.
    claim(
        "p99 during reloads, as a multiple of the baseline's",
        quick || ratio <= 3.0,
        format!("{ratio:.2}"),
    )?;
    hand_over(if quick { 500 } else { 10_000 })
}

/// Whether both handlers have moved on.
fn has_arrived(server: &Server, round: u64) -> Result<bool> {
    let status = server.status()?;
    let handlers = status["handlers"].as_array().cloned().unwrap_or_default();
    Ok(handlers.iter().all(|handler| {
        handler["active"]["number"].as_u64() == Some(round + 1)
            && handler["leaving"].as_array().is_none_or(Vec::is_empty)
    }))
}

/// What the hand-over of many idle sessions costs, by the server's own log.
fn hand_over(connections: usize) -> Result<()> {
    let counter = release().join("libcounter_wsh.so");
    let server = Server::start(&[&counter], "[log]\nlevel = \"info\"")?;
    let _peers = Peers::connect(server.address(), "/counter", connections)?;
    let mut best = f64::MAX;
    for round in 1..=5 {
        server.replace("libcounter_wsh.so", &version_of(&counter, round)?)?;
        server.wait_for("/counter", round + 1)?;
        let lines = server.log_lines("sessions left it in ");
        let line = lines.last().ok_or_else(|| Error::other("the log says nothing of the hand-over"))?;
        let micros: f64 = line
            .rsplit("sessions left it in ")
            .next()
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| Error::other(format!("not understood: {line}")))?;
        best = best.min(micros);
        println!("  {connections} sessions handed over in {:.1} ms", micros / 1000.0);
    }
    let each = best / connections as f64;
    claim("microseconds for each session, best of 5", each <= 10.0, format!("{each:.2}"))
}

/// Latencies of one phase, in microseconds.
struct Latencies {
    count: usize,
    p50: u64,
    p99: u64,
    max: u64,
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50, p99, max } = self;
        write!(f, "{count} messages, p50 {p50} us, p99 {p99} us, max {max} us")
    }
}

/// Connections that talk all the time.
struct Crowd {
    members: Vec<Member>,
    epoll: rustix::fd::OwnedFd,
    messages: u64,
}

struct Member {
    stream: TcpStream,
    counts: bool,
    sent: u64,
    heard: u64,
    /// When each message in flight was sent.
    in_flight: VecDeque<Instant>,
    partial: Vec<u8>,
}

impl Crowd {
    fn gather(server: &Server, connections: usize) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut members = Vec::with_capacity(connections);
        for path in ["/echo", "/counter"] {
            for stream in Peers::connect(server.address(), path, connections / 2)?.into_streams() {
                stream.set_nonblocking(true)?;
                epoll::add(&epoll, &stream, EventData::new_u64(members.len() as u64), EventFlags::IN)?;
                let counts = path == "/counter";
                members.push(Member {
                    stream,
                    counts,
                    sent: 0,
                    heard: 0,
                    in_flight: VecDeque::new(),
                    partial: Vec::new(),
                });
            }
        }
        Ok(Self { members, epoll, messages: 0 })
    }

    /// Keeps a message in flight on every connection, and asks `goes_on` in between.
    fn talk_for(
        &mut self,
        time: Duration,
        mut goes_on: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<Latencies> {
        let began = Instant::now();
        let mut latencies = Vec::new();
        for member in self.members.iter_mut().filter(|member| member.in_flight.is_empty()) {
            member.speak()?;
        }
        while began.elapsed() < time && goes_on(self)? {
            self.hear(Duration::from_millis(1), true, &mut latencies)?;
        }
        latencies.sort_unstable();
        Ok(Latencies {
            count: latencies.len(),
            p50: quantile(&latencies, 0.5),
            p99: quantile(&latencies, 0.99),
            max: latencies.last().copied().unwrap_or_default(),
        })
    }

    /// Waits until nothing is in flight any more.
    fn hear_the_rest(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.members.iter().any(|member| !member.in_flight.is_empty()) {
            if Instant::now() > deadline {
                let lost: usize = self.members.iter().map(|member| member.in_flight.len()).sum();
                return Err(Error::other(format!("{lost} messages did not come back")));
            }
            self.hear(Duration::from_millis(10), false, &mut Vec::new())?;
        }
        Ok(())
    }

    fn hear(&mut self, patience: Duration, answers: bool, latencies: &mut Vec<u64>) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        let patience = Timespec { tv_sec: 0, tv_nsec: patience.as_nanos() as _ };
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience))?;
        for event in &events {
            let index = event.data.u64() as usize;
            let heard = self.members[index]
                .hear(latencies)
                .map_err(|error| Error::other(format!("connection {index}: {error}")))?;
            self.messages += heard;
            for _ in 0..if answers { heard } else { 0 } {
                self.members[index].speak()?;
            }
        }
        Ok(())
    }
}

impl Member {
    fn speak(&mut self) -> Result<()> {
        self.sent += 1;
        let text = self.sent.to_string();
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        // A few dozen bytes always fit into the socket of a peer that is heard regularly.
        self.stream.write_all(&frame)?;
        self.in_flight.push_back(Instant::now());
        Ok(())
    }

    /// Both handlers answer the message of number N with N: echo because it was sent, counter because it has counted.
    fn hear(&mut self, latencies: &mut Vec<u64>) -> Result<u64> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Error::other("the server closed it")),
            Ok(count) => self.partial.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        }
        let mut heard = 0;
        while let [first, length, rest @ ..] = &self.partial[..] {
            let length = usize::from(*length);
            if *first == 0x89 && rest.len() >= length {
                // A ping of the server; a crowd that talks all the time need not answer it, only not count it.
                self.partial.drain(..2 + length);
                continue;
            }
            if *first != 0x81 || length > 125 {
                return Err(Error::other(format!("a frame that begins with {first:#x} {length:#x}")));
            }
            if rest.len() < length {
                break;
            }
            let text = String::from_utf8_lossy(&rest[..length]).into_owned();
            self.heard += 1;
            if text != self.heard.to_string() {
                let who = if self.counts { "counter" } else { "echo" };
                return Err(Error::other(format!("{who} answered {text}, expected {}", self.heard)));
            }
            self.partial.drain(..2 + length);
            let sent = self.in_flight.pop_front().ok_or_else(|| Error::other("an answer to nothing"))?;
            latencies.push(sent.elapsed().as_micros() as u64);
            heard += 1;
        }
        Ok(heard)
    }
}
