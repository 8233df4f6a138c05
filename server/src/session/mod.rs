//! One upgraded peer: a stream, its protocol state, its handler object, and what it did not take yet.
//!
//! In: readiness of the socket, commands from the worker's inbox, the passing of seconds. Out: calls of the handler, bytes to
//! the socket, and in the end one [`Outcome`]. Everything here happens on the session's worker; nothing is locked.
//!
//! A session runs through three phases. *Open*: messages flow. *Closing*: the server sent Close and waits for the peer's.
//! *Lingering*: the WebSocket is over and the handler object freed; what is unsent goes out, then FIN, and the rest of what
//! the peer sends is read and thrown away, because closing a socket with unread input makes the kernel send RST, and RST can
//! overtake the Close frame.

mod call;
mod handle;
mod head;
mod link;
mod moving;
mod outcome;
mod outgoing;
mod stream;

use std::borrow::Cow;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use wshd_protocol::{Event, Inflater, Kind, Message, PeerClose, close};

pub(crate) use call::{Call, message_kind};
pub(crate) use handle::{Handle, Place, Request};
pub(crate) use head::{Head, Line};
use link::Course;
pub(crate) use link::{Fault, Link};
pub(crate) use moving::{InTransit, Kept, Moving, NoExport, Returned};
pub(crate) use outcome::{Outcome, Side};
pub(crate) use stream::{Peer, Stream};

use crate::config::SlowPeer;
use crate::generation::{Desk, Env};
use crate::handler::{Failure, Instance, Verdict};
use crate::topics::Published;
use moving::Stay;
use outgoing::Held;

/// Full buffers read from one session before the others of its worker get their turn.
const READS_PER_TURN: usize = 8;

/// Which session of a worker. Slots are used again, serial numbers are not: an event that was meant for the session that had
/// the slot before finds another serial number and is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionKey {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

pub(crate) struct Session {
    pub(crate) link: Link,
    /// The handler's object, until it was freed.
    instance: Option<Instance>,
    phase: Phase,
    stay: Stay,
    /// The socket may hold input whose edge is spent: it is to be read without waiting for another.
    reads_on: bool,
    ticks: Ticks,
}

/// When what happened; the basis of every deadline.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    /// The peer was last heard.
    heard: u32,
    /// Our unanswered ping; 0 if there is none.
    pinged: u32,
    /// The message that is arriving began; 0 if none is.
    message_began: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Since this tick.
    Closing(u32),
    /// Since this tick.
    Lingering(u32),
    /// Nothing more can be read or written; to be removed.
    Gone,
}

/// What the worker does with a session after it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The socket will say when there is more.
    Wait,
    /// It left input behind to let others run; run it again.
    Again,
    /// Remove it.
    Remove,
}

impl Session {
    pub(crate) fn new(link: Link, instance: Instance, now: u32) -> Self {
        let ticks = Ticks { heard: now, pinged: 0, message_began: 0 };
        Self {
            link,
            instance: Some(instance),
            phase: Phase::Open,
            stay: Stay::default(),
            reads_on: false,
            ticks,
        }
    }

    pub(crate) fn key(&self) -> SessionKey {
        self.link.key
    }

    /// The peer is told 101: the handler may send. `early` is what the peer sent right behind its request.
    pub(crate) fn open(&mut self, early: &mut [u8], desk: &mut Desk, env: &Env) -> Next {
        self.call(desk, env, |library, instance, call| library.on_open(instance, call));
        if !early.is_empty() {
            self.deliver(early, desk, env);
        }
        self.flush(desk, env);
        // What the front has read of the ciphertext is in no socket any more.
        self.reads_on |= self.link.stream.holds_input();
        self.next()
    }

    /// The socket is ready for what `flags` say.
    pub(crate) fn on_ready(
        &mut self,
        flags: EventFlags,
        buffer: &mut [u8],
        desk: &mut Desk,
        env: &Env,
    ) -> Next {
        if flags.contains(EventFlags::OUT) && self.link.outgoing.is_some() && !self.drain(desk, env) {
            return self.next();
        }
        if self.link.held.is_some() && flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            // Both directions are gone: there is nobody left to wait for the handler.
            self.on_broken(Errno::CONNRESET, desk, env);
            return self.next();
        }
        let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let next = self.read(hung_up, buffer, desk, env);
        if next == Next::Again { next } else { self.next() }
    }

    // ---- input ---------------------------------------------------------------------------------------------------------

    /// Reads until the socket is empty, the peer's replies do not go out, or others should have their turn.
    fn read(&mut self, hung_up: bool, buffer: &mut [u8], desk: &mut Desk, env: &Env) -> Next {
        self.reads_on = false;
        for _ in 0..READS_PER_TURN {
            if let Some(held) = &mut self.link.held {
                held.has_more = true;
                return Next::Wait;
            }
            // A peer that does not take its replies is not read from: that is how it feels the backpressure.
            if self.link.outgoing.is_some() && !matches!(self.phase, Phase::Lingering(_)) {
                return Next::Wait;
            }
            match self.link.stream.read(buffer) {
                Ok(0) => {
                    self.on_eof(desk, env);
                    return Next::Wait;
                }
                Ok(count) => {
                    self.ticks.heard = desk.now;
                    self.ticks.pinged = 0;
                    if matches!(self.phase, Phase::Open | Phase::Closing(_)) {
                        self.deliver(&mut buffer[..count], desk, env);
                        self.flush(desk, env);
                    }
                    if self.phase == Phase::Gone {
                        return Next::Remove;
                    }
                    if let Some(held) = &mut self.link.held {
                        held.has_more |= hung_up || count == buffer.len();
                        return Next::Wait;
                    }
                    // A short read emptied the socket: asking again would only cost a system call. After a hang-up there
                    // is no further edge, so then it has to be read to the end.
                    if count < buffer.len() && !hung_up && !self.link.stream.holds_input() {
                        return Next::Wait;
                    }
                }
                Err(Errno::AGAIN) => return Next::Wait,
                Err(error) => {
                    self.on_broken(error, desk, env);
                    return Next::Wait;
                }
            }
        }
        // The edge is spent although the socket may hold more.
        Next::Again
    }

    /// Delivers what `input` holds, until it is used up, a backlog begins, or the handler is not ready for more.
    fn deliver(&mut self, input: &mut [u8], desk: &mut Desk, env: &Env) {
        // A message that was inflated is borrowed from it while the handler answers by the desk.
        let mut inflater = desk.inflater.take().unwrap_or_default();
        self.deliver_with(&mut inflater, input, desk, env);
        desk.inflater = Some(inflater);
    }

    fn deliver_with(&mut self, inflater: &mut Inflater, mut input: &mut [u8], desk: &mut Desk, env: &Env) {
        loop {
            // Nothing is read while either of these exists, so the input of one read is all that is kept, in one place.
            if let Some(held) = &mut self.link.held {
                held.unread.extend_from_slice(input);
                break;
            }
            if let Some(outgoing) = &mut self.link.outgoing {
                outgoing.unread.extend_from_slice(input);
                break;
            }
            if self.link.receives_raw() {
                if input.is_empty() {
                    break;
                }
                self.on_raw(input, desk, env);
                input = &mut [];
                if !matches!(self.phase, Phase::Open | Phase::Closing(_)) {
                    return;
                }
                self.link.relieve_cork(desk);
                continue;
            }
            let Some(event) =
                self.link.connection.receive(&mut input, &env.protocol_limits, inflater, &mut desk.cork)
            else {
                break;
            };
            match event {
                Event::Message(message) => {
                    self.ticks.message_began = 0;
                    self.on_message(message, desk, env);
                }
                Event::Ping(payload) => self.link.pong(&payload, desk),
                Event::Pong(payload) => {
                    self.call(desk, env, |library, instance, call| library.on_pong(instance, call, &payload));
                }
                Event::CloseRequested(close) => self.on_closing(close, desk, env),
                Event::CloseAnswered(answer) => {
                    let (code, reason) = code_and_reason(answer);
                    let outcome = Outcome::Closed { code, reason: reason.into_owned(), by: Side::Server };
                    self.finish(outcome, desk, env);
                }
                Event::Failed(error) => {
                    let outcome = Outcome::Failed { code: error.close_code(), why: error.to_string() };
                    self.finish(outcome, desk, env);
                }
            }
            if !matches!(self.phase, Phase::Open | Phase::Closing(_)) {
                return;
            }
            self.link.relieve_cork(desk);
        }
        if self.link.receives_raw() || self.link.connection.message_bytes_pending().is_none() {
            self.ticks.message_began = 0;
        } else if self.ticks.message_began == 0 {
            self.ticks.message_began = desk.now.max(1);
        }
    }

    /// A callback that a session gets while it is held, too: unless it holds on, what was kept back is delivered.
    fn call_and_go_on(
        &mut self,
        desk: &mut Desk,
        env: &Env,
        callback: impl FnOnce(&crate::handler::HandlerLibrary, &Instance, &mut Call<'_>) -> Verdict,
    ) {
        let held = self.link.held.take();
        self.call(desk, env, callback);
        let Some(held) = held else { return };
        match &mut self.link.held {
            Some(still) => *still = held,
            None => self.deliver_held(*held, desk, env),
        }
    }

    /// Its object is new and ready for what was kept back from the one before.
    pub(crate) fn go_on(&mut self, desk: &mut Desk, env: &Env) -> Next {
        if let Some(held) = self.link.held.take() {
            self.deliver_held(*held, desk, env);
            self.flush(desk, env);
        }
        self.next()
    }

    fn deliver_held(&mut self, mut held: Held, desk: &mut Desk, env: &Env) {
        self.reads_on |= held.has_more;
        // Nobody was listening meanwhile: the peer's time begins now.
        self.ticks.heard = desk.now;
        self.ticks.pinged = 0;
        if self.ticks.message_began != 0 {
            self.ticks.message_began = desk.now.max(1);
        }
        if matches!(self.phase, Phase::Open | Phase::Closing(_)) && !held.unread.is_empty() {
            self.deliver(&mut held.unread, desk, env);
        }
    }

    #[inline]
    fn on_message(&mut self, message: Message<'_>, desk: &mut Desk, env: &Env) {
        let kind = match message.kind {
            Kind::Text => handler_api::abi::WSH_TEXT,
            Kind::Binary => handler_api::abi::WSH_BINARY,
        };
        self.call(desk, env, |library, instance, call| {
            library.on_message(instance, call, kind, &message.payload)
        });
    }

    /// What the peer sent, to a handler that wants it as it is.
    fn on_raw(&mut self, bytes: &[u8], desk: &mut Desk, env: &Env) {
        let kind = handler_api::abi::WSH_RAW;
        self.call(desk, env, |library, instance, call| library.on_message(instance, call, kind, bytes));
    }

    /// The peer began the closing handshake: the handler chooses the answer.
    fn on_closing(&mut self, request: PeerClose<'_>, desk: &mut Desk, env: &Env) {
        let (code, reason) = code_and_reason(request);
        let mut reply = code;
        self.call(desk, env, |library, instance, call| {
            let (verdict, chosen) = library.on_closing(instance, call, code, &reason);
            reply = chosen;
            // It ends now: there is nothing that could be held.
            if verdict == Verdict::Hold { Verdict::Continue } else { verdict }
        });
        if self.instance.is_none() {
            return;
        }
        // The handler may have closed by itself, or chosen a code that must not be sent; then the peer's own is returned.
        let reply =
            if reply == close::NO_STATUS || close::may_be_sent_by_server(reply) { reply } else { code };
        let sendable = if close::may_be_sent_by_server(reply) { reply } else { 0 };
        self.link.close(sendable, if reply == code { &reason } else { "" }, desk);
        self.finish(Outcome::Closed { code, reason: reason.into_owned(), by: Side::Peer }, desk, env);
    }

    fn on_eof(&mut self, desk: &mut Desk, env: &Env) {
        if self.instance.is_some() {
            self.finish(Outcome::Lost("peer ended the connection without a Close frame".into()), desk, env);
        }
        self.phase = Phase::Gone;
    }

    fn on_broken(&mut self, error: Errno, desk: &mut Desk, env: &Env) {
        if self.instance.is_some() {
            self.finish(Outcome::Lost(std::io::Error::from(error).to_string()), desk, env);
        }
        self.phase = Phase::Gone;
    }

    // ---- output --------------------------------------------------------------------------------------------------------

    /// Writes what the callbacks of this turn sent.
    fn flush(&mut self, desk: &mut Desk, env: &Env) {
        self.link.flush(desk);
        if self.link.needs_settling() {
            self.settle(Verdict::Continue, desk, env);
            // What it is closed with.
            self.link.flush(desk);
        }
        self.say_goodbye();
    }

    /// Writes what waits. True if nothing is left and the session may read on.
    fn drain(&mut self, desk: &mut Desk, env: &Env) -> bool {
        let Some(outgoing) = &mut self.link.outgoing else { return true };
        let emptied = match outgoing.write_to(&mut self.link.stream, desk.now) {
            Ok(emptied) => emptied,
            Err(error) => {
                self.on_broken(error, desk, env);
                return false;
            }
        };
        if outgoing.above_high && outgoing.len() <= env.limits.outgoing_bytes_low {
            outgoing.above_high = false;
            if let Some(handle) = &self.link.handle {
                handle.place().set_above_high(false);
            }
            if emptied {
                // What on_writable sends goes to the empty socket; held input is delivered after it.
                let mut unread =
                    self.link.outgoing.take().map(|outgoing| outgoing.unread).unwrap_or_default();
                self.call_and_go_on(desk, env, |library, instance, call| library.on_writable(instance, call));
                self.deliver(&mut unread, desk, env);
                self.flush(desk, env);
                return self.link.outgoing.is_none() && self.phase != Phase::Gone;
            }
            self.call_and_go_on(desk, env, |library, instance, call| library.on_writable(instance, call));
            self.flush(desk, env);
            return false;
        }
        if !emptied {
            return false;
        }
        let mut unread = self.link.outgoing.take().map(|outgoing| outgoing.unread).unwrap_or_default();
        if matches!(self.phase, Phase::Open | Phase::Closing(_)) {
            self.deliver(&mut unread, desk, env);
        }
        self.flush(desk, env);
        self.link.outgoing.is_none() && self.phase != Phase::Gone
    }

    /// After the WebSocket is over and everything was written: FIN.
    fn say_goodbye(&mut self) {
        if matches!(self.phase, Phase::Lingering(_))
            && self.link.outgoing.is_none()
            && self.link.course != Course::SaidFin
        {
            self.link.course = Course::SaidFin;
            if self.link.stream.finish_writing().is_err() {
                self.phase = Phase::Gone;
            }
        }
    }

    // ---- commands from the worker's inbox ------------------------------------------------------------------------------

    /// Does what another thread asks.
    pub(crate) fn on_request(&mut self, request: Request, desk: &mut Desk, env: &Env) {
        match request {
            Request::Send(message) => {
                if let Some(handle) = &self.link.handle {
                    handle.place().taken(message.data.len());
                }
                if self.instance.is_some() {
                    self.link.send_from_elsewhere(message.kind, &message.data, desk, env);
                }
            }
            Request::Close(code, reason) => self.close(code, &reason, desk, env),
            Request::Wake => {
                if let Some(handle) = &self.link.handle {
                    handle.place().wake_is_taken();
                }
                self.call_and_go_on(desk, env, |library, instance, call| library.on_wake(instance, call));
            }
            Request::Overflow => {
                self.link.fault.get_or_insert(Fault::Overflow);
                self.settle(Verdict::Continue, desk, env);
            }
        }
    }

    /// What was published to a topic that it has subscribed to: whole messages, framed.
    pub(crate) fn hear(&mut self, frames: &[u8], desk: &mut Desk, env: &Env) -> Next {
        if self.instance.is_some() {
            self.link.send_frames(frames, desk, env);
        }
        self.finish_commands(desk, env)
    }

    /// The same for a message that was compressed for all sessions that have agreed to it; the worker finishes.
    pub(crate) fn hear_compressed(&mut self, frame: &[u8], message: &Published, desk: &mut Desk, env: &Env) {
        if self.instance.is_some() {
            self.link.send_compressed(frame, message, desk, env);
        }
    }

    /// So many messages to a topic, or more, were published when its worker was too far behind.
    pub(crate) fn miss(&mut self, messages: u64, desk: &mut Desk, env: &Env) -> Next {
        if env.limits.slow_peer == SlowPeer::Close {
            self.link.fault.get_or_insert(Fault::Missed);
        } else {
            env.generation.on_dropped(messages);
        }
        self.finish_commands(desk, env)
    }

    /// Begins the closing handshake for the handler or the server.
    pub(crate) fn close(&mut self, code: u16, reason: &str, desk: &mut Desk, env: &Env) {
        if self.instance.is_some() {
            self.link.close(code, reason, desk);
            self.settle(Verdict::Continue, desk, env);
        }
    }

    /// After a batch of commands: writes what they sent.
    pub(crate) fn finish_commands(&mut self, desk: &mut Desk, env: &Env) -> Next {
        self.flush(desk, env);
        self.next()
    }

    // ---- time ----------------------------------------------------------------------------------------------------------

    /// Once a second: enforces every deadline of this session.
    pub(crate) fn on_tick(&mut self, desk: &mut Desk, env: &Env) -> Next {
        let limits = &*env.limits;
        let now = desk.now;
        let since = |then: u32| u64::from(now.saturating_sub(then));
        if let Some(outgoing) = &self.link.outgoing
            && since(outgoing.progress) > limits.write_seconds_max.as_secs()
        {
            let why = format!("peer took nothing for {} s", limits.write_seconds_max.as_secs());
            self.drop_connection(Outcome::Lost(why), desk, env);
            return self.next();
        }
        match self.phase {
            // A peer that is not listened to is not silent.
            Phase::Open if self.link.held.is_some() => {}
            Phase::Open => {
                let silent = since(self.ticks.heard);
                let ping = limits.ping_seconds.as_secs();
                if let Some(why) = self.is_too_slow(limits, now) {
                    self.fail(close::POLICY, why, desk, env);
                } else if self.ticks.pinged != 0
                    && since(self.ticks.pinged) > limits.pong_seconds_max.as_secs()
                {
                    let why =
                        format!("peer did not answer a ping within {} s", limits.pong_seconds_max.as_secs());
                    self.fail(close::POLICY, why, desk, env);
                } else if silent > limits.idle_seconds_max.as_secs() {
                    let why = format!("peer was silent for {} s", limits.idle_seconds_max.as_secs());
                    self.fail(close::POLICY, why, desk, env);
                } else if ping > 0 && silent >= ping && self.ticks.pinged == 0 && !self.link.receives_raw() {
                    self.link.ping(b"", desk);
                    self.ticks.pinged = now.max(1);
                }
                self.flush(desk, env);
            }
            Phase::Closing(began)
                if since(began) > limits.close_seconds_max.as_secs() && self.link.held.is_some() =>
            {
                let why = format!("handler held it for {} s after Close", limits.close_seconds_max.as_secs());
                self.finish(Outcome::Lost(why), desk, env);
                self.flush(desk, env);
            }
            Phase::Closing(began) if since(began) > limits.close_seconds_max.as_secs() => {
                let why =
                    format!("peer did not answer Close within {} s", limits.close_seconds_max.as_secs());
                self.drop_connection(Outcome::Lost(why), desk, env);
            }
            // Replies that still go out keep the socket; their own deadline is above.
            Phase::Lingering(began)
                if self.link.outgoing.is_none() && since(began) > limits.linger_seconds_max.as_secs() =>
            {
                self.phase = Phase::Gone;
            }
            _ => {}
        }
        self.next()
    }

    /// A timer of the handler is due.
    pub(crate) fn on_timer(&mut self, token: u64, desk: &mut Desk, env: &Env) -> Next {
        self.call(desk, env, |library, instance, call| library.on_timer(instance, call, token));
        self.flush(desk, env);
        self.next()
    }

    /// A message must arrive at a minimum rate after its first seconds, so that dribbling does not hold memory.
    fn is_too_slow(&self, limits: &crate::config::Limits, now: u32) -> Option<String> {
        if self.ticks.message_began == 0 {
            return None;
        }
        let seconds = u64::from(now.saturating_sub(self.ticks.message_began));
        let received = self.link.connection.message_bytes_pending()? as u64;
        let slow = seconds > limits.message_seconds_max.as_secs()
            && received < seconds * limits.message_bytes_per_second_min as u64;
        slow.then(|| format!("peer sent {received} bytes of a message in {seconds} s"))
    }

    // ---- the end -------------------------------------------------------------------------------------------------------

    /// Fails the connection by a policy of the server: Close with this code, then an orderly end.
    fn fail(&mut self, code: u16, why: String, desk: &mut Desk, env: &Env) {
        self.link.fail(code, &why, desk);
        self.finish(Outcome::Failed { code, why }, desk, env);
    }

    /// Ends without any further byte.
    pub(crate) fn drop_connection(&mut self, outcome: Outcome, desk: &mut Desk, env: &Env) {
        if self.instance.is_some() {
            self.finish(outcome, desk, env);
        }
        self.link.outgoing = None;
        self.phase = Phase::Gone;
    }

    /// The WebSocket is over: tells the handler, frees its object, logs. The stream lingers.
    fn finish(&mut self, outcome: Outcome, desk: &mut Desk, env: &Env) {
        let Some(instance) = self.instance.take() else { return };
        self.phase = Phase::Lingering(desk.now);
        self.link.course = Course::Over;
        self.reads_on |= self.link.held.take().is_some();
        if let Some(handle) = &self.link.handle {
            handle.set_gone();
        }
        // It hears nothing more, and does not count as a subscriber any more.
        desk.topics.forget(self.link.key);
        let (code, reason, was_clean) = outcome.close();
        let mut call = Call::new(&mut self.link, desk, env);
        if let Some(error) = outcome.error() {
            env.library.on_error(&instance, &mut call, error);
        }
        env.library.on_close(&instance, &mut call, code, reason, was_clean);
        env.library.free(instance);
        desk.forget(self.link.key);
        outcome.log(&env.generation, &self.link);
    }

    /// After a panic the object may be in any state: it is freed and nothing else is called.
    fn finish_after_panic(&mut self, desk: &mut Desk, env: &Env) {
        let Some(instance) = self.instance.take() else { return };
        self.phase = Phase::Lingering(desk.now);
        self.link.course = Course::Over;
        self.reads_on |= self.link.held.take().is_some();
        if let Some(handle) = &self.link.handle {
            handle.set_gone();
        }
        env.generation.on_panic();
        let why = "handler panicked".to_owned();
        self.link.fail(close::INTERNAL, "", desk);
        env.library.free(instance);
        desk.forget(self.link.key);
        Outcome::Failed { code: close::INTERNAL, why }.log(&env.generation, &self.link);
    }

    // ---- calling the handler -------------------------------------------------------------------------------------------

    /// Runs a callback, if the handler's object still lives, and does what it asked for.
    #[inline]
    fn call(
        &mut self,
        desk: &mut Desk,
        env: &Env,
        callback: impl FnOnce(&crate::handler::HandlerLibrary, &Instance, &mut Call<'_>) -> Verdict,
    ) {
        let Some(instance) = &self.instance else { return };
        let verdict = callback(&env.library, instance, &mut Call::new(&mut self.link, desk, env));
        if verdict != Verdict::Continue || self.link.needs_settling() {
            self.settle(verdict, desk, env);
        }
    }

    /// Does what a callback asked for, by its verdict or through the functions it called.
    #[cold]
    fn settle(&mut self, verdict: Verdict, desk: &mut Desk, env: &Env) {
        match verdict {
            Verdict::Continue => {}
            Verdict::Done => {
                self.link.close(close::NORMAL, "", desk);
            }
            Verdict::Hold if self.instance.is_some() => {
                self.link.held.get_or_insert_default();
            }
            Verdict::Hold => {}
            Verdict::Fail(Failure::Panic) => return self.finish_after_panic(desk, env),
            Verdict::Fail(failure @ Failure::Status(_)) if self.instance.is_some() => {
                return self.fail(close::INTERNAL, format!("handler {failure}"), desk, env);
            }
            Verdict::Fail(_) => {}
        }
        match self.link.fault.take() {
            None => {}
            Some(Fault::Abort) => return self.drop_connection(Outcome::Aborted, desk, env),
            Some(Fault::End) => return self.finish(Outcome::Aborted, desk, env),
            Some(Fault::Io(cause)) => return self.on_broken(cause.errno(), desk, env),
            Some(Fault::Overflow) if self.instance.is_some() => {
                let why = format!(
                    "peer does not read: more than {} bytes wait for it",
                    env.limits.outgoing_bytes_max
                );
                return self.fail(close::TRY_AGAIN, why, desk, env);
            }
            Some(Fault::Missed) if self.instance.is_some() => {
                let why = "messages to its topics were lost: its worker was too far behind".to_owned();
                return self.fail(close::TRY_AGAIN, why, desk, env);
            }
            Some(Fault::Overflow | Fault::Missed) => {}
        }
        if self.phase == Phase::Open && self.link.sent_close {
            self.phase = Phase::Closing(desk.now);
        }
    }

    fn next(&self) -> Next {
        match self.phase {
            Phase::Gone => Next::Remove,
            _ if self.reads_on => Next::Again,
            _ => Next::Wait,
        }
    }
}

fn code_and_reason(close: PeerClose<'_>) -> (u16, Cow<'_, str>) {
    (close.code.unwrap_or(close::NO_STATUS), close.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand idle sessions are to cost little; what is added here is paid by every one of them.
    #[test]
    fn an_idle_session_is_at_most_two_cache_lines() {
        assert!(size_of::<Session>() <= 128, "{} bytes", size_of::<Session>());
    }
}
