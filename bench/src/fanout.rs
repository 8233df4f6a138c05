//! CPU time per delivery: one publisher, a thousand subscribers.

use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::compare::{Round, compare};
use crate::load::{Load, Peers, masked_text};
use crate::target::{Kind, Target, pin_generator};

const SUBSCRIBERS: usize = 1000;

/// Messages that the publisher sends in one write before it waits until everybody has them.
const DEPTHS: [(&str, usize, usize); 3] =
    [("20 B, one at a time", 20, 1), ("20 B, 8 at a time", 20, 8), ("1 KiB, one at a time", 1024, 1)];

pub(crate) fn run(quick: bool, rounds: usize) -> Result<()> {
    pin_generator();
    let (rounds, time, subscribers) = if quick {
        (1, Duration::from_millis(300), 50)
    } else {
        (rounds.max(1), Duration::from_secs(3), SUBSCRIBERS)
    };
    println!(
        "CPU time of the server per delivery, {subscribers} subscribers; median of {rounds} alternating rounds\n"
    );
    println!("| workload | wshd ns | wshd deliveries/s | tokio-tungstenite ns | ratio |");
    println!("|---|---|---|---|---|");
    for (name, bytes, depth) in DEPTHS {
        let load = Load { connections: subscribers, bytes, depth };
        let kinds = [Kind::Wshd, Kind::TokioBroadcast];
        let compared = compare(kinds, rounds, |kind| measure(kind, load, time))?;
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.2} |",
            compared.one.cpu_nanos_per_message,
            compared.one.messages_per_second,
            compared.other.cpu_nanos_per_message,
            compared.ratio
        );
    }
    Ok(())
}

/// A message is one that one subscriber gets.
fn measure(kind: Kind, load: Load, time: Duration) -> Result<Round> {
    let target = Target::start(kind)?;
    // The chat's name is a colon and a space away from its text, and the other server has no names.
    let prefix = if kind == Kind::Wshd { "n: " } else { "" };
    let mut streams = Peers::connect(target.address(), "/chat?name=n", load.connections)?.into_streams();
    let text = "x".repeat(load.bytes - prefix.len());
    let question: Vec<u8> = (0..load.depth).flat_map(|_| masked_text(&text)).collect();
    let answer_bytes = load.depth * (load.bytes + if load.bytes < 126 { 2 } else { 4 });
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, stream) in streams.iter().enumerate() {
        epoll::add(&epoll, stream, EventData::new_u64(index as u64), EventFlags::IN)?;
    }
    if kind == Kind::Wshd {
        // Everybody hears of everybody who came later; a line says that the last one has come.
        settle(&mut streams)?;
    }
    let mut missing = vec![0_usize; streams.len()];
    let (mut deliveries, mut before) = (0_u64, 0);
    let began = Instant::now();
    let mut measured_from = None;
    loop {
        if measured_from.is_none() && began.elapsed() >= time / 4 {
            before = target.cpu_nanos()?;
            deliveries = 0;
            measured_from = Some(Instant::now());
        }
        if let Some(from) = measured_from.filter(|from: &Instant| from.elapsed() >= time) {
            let used = target.cpu_nanos()? - before;
            return Ok(Round {
                cpu_nanos_per_message: used as f64 / deliveries as f64,
                messages_per_second: deliveries as f64 / from.elapsed().as_secs_f64(),
            });
        }
        streams[0].write_all(&question)?;
        missing.fill(answer_bytes);
        hear(&epoll, &mut streams, &mut missing)?;
        deliveries += (load.depth * streams.len()) as u64;
    }
}

/// Reads until nobody misses anything.
fn hear(epoll: &impl std::os::fd::AsFd, streams: &mut [TcpStream], missing: &mut [usize]) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut events: Vec<Event> = Vec::with_capacity(256);
    let mut waiting = streams.len();
    while waiting > 0 {
        events.clear();
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        epoll::wait(epoll, spare_capacity(&mut events), Some(&patience))?;
        if events.is_empty() {
            return Err(Error::other("a delivery did not come for 10 s"));
        }
        for event in &events {
            let index = event.data.u64() as usize;
            let received = streams[index].read(&mut buffer)?;
            if received == 0 || received > missing[index] {
                return Err(Error::other("a subscriber got something else than what was published"));
            }
            missing[index] -= received;
            waiting -= usize::from(missing[index] == 0);
        }
    }
    Ok(())
}

/// Reads what the chat says of members that come, up to a line of the last one.
fn settle(streams: &mut [TcpStream]) -> Result<()> {
    const LAST: &str = "that is all";
    let last = streams.len() - 1;
    streams[last].write_all(&masked_text(LAST))?;
    let end = [&[0x81, 3 + LAST.len() as u8][..], b"n: ", LAST.as_bytes()].concat();
    for stream in streams {
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        while !heard.ends_with(&end) {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(Error::other("the server closed a subscriber"));
            }
            heard.extend_from_slice(&buffer[..count]);
        }
    }
    Ok(())
}
