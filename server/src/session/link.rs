//! The part of a session that a callback may use: everything but the handler's object.

use std::io::IoSlice;
use std::sync::Arc;

use handler_api::abi::{self, wsh_status};
use rustix::io::Errno;
use wshd_protocol::{Connection, DeflateGroup, Kind, SendError, SentFrame, frame_head};

use super::SessionKey;
use super::handle::Handle;
use super::head::Head;
use super::outgoing::{Held, Outgoing, frame_end};
use super::stream::{Peer, Stream};
use crate::config::SlowPeer;
use crate::generation::{Desk, Env};
use crate::topics::Published;
use crate::windows::Agreed;

/// From this size on a message is written straight from the handler's memory; below it, copying into the cork is cheaper than
/// a system call of its own.
const DIRECT_BYTES: usize = 16 * 1024;

/// At this size the cork is written although the turn goes on.
const CORK_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct Link {
    pub(crate) stream: Stream,
    pub(super) connection: Connection,
    /// Exists exactly while something waits for the peer.
    pub(super) outgoing: Option<Box<Outgoing>>,
    /// Exists exactly while the handler is not ready for more.
    pub(super) held: Option<Box<Held>>,
    pub(super) head: Head,
    pub(super) handle: Option<Arc<Handle>>,
    pub(super) key: SessionKey,
    pub(crate) peer: Peer,
    /// What a callback or a write left to be dealt with when the callback has returned.
    pub(super) fault: Option<Fault>,
    /// The server's Close went out; no data may follow.
    pub(super) sent_close: bool,
    pub(super) course: Course,
}

/// What the session has come to. One byte, because every idle session has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Frames go both ways.
    Frames,
    /// Its handler has sent bytes that need not be frames.
    SentRaw,
    /// Its handler takes what comes as it comes, and may have sent such bytes.
    ReceivesRaw,
    /// It is over, and its handler was told.
    Over,
    /// And FIN was sent.
    SaidFin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The peer does not read and its queue is full.
    Overflow,
    /// What was published to its topics was lost.
    Missed,
    /// The handler drops the connection.
    Abort,
    /// The handler ends it behind what was sent.
    End,
    Io(Cause),
}

/// What the system said, in one byte where `Errno` has two, because every idle session has room for one. Linux has 133 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cause(u8);

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self(u8::try_from(errno.raw_os_error()).unwrap_or(Errno::IO.raw_os_error() as u8))
    }
}

impl Cause {
    pub(super) fn errno(self) -> Errno {
        Errno::from_raw_os_error(self.0.into())
    }
}

impl Link {
    pub(crate) fn new(
        stream: Stream,
        head: Head,
        key: SessionKey,
        peer: Peer,
        deflate: Option<Agreed>,
    ) -> Self {
        Self {
            stream,
            connection: deflate.map_or_else(Connection::new, Agreed::into_connection),
            outgoing: None,
            held: None,
            head,
            handle: None,
            key,
            peer,
            fault: None,
            sent_close: false,
            course: Course::Frames,
        }
    }

    /// Whether a callback left something that the session has to act on.
    #[inline]
    pub(super) fn needs_settling(&self) -> bool {
        self.fault.is_some() || self.sent_close
    }

    #[inline]
    pub(super) fn send(&mut self, kind: Kind, data: &[u8], desk: &mut Desk, env: &Env) -> wsh_status {
        if self.fault.is_some() {
            return if self.fault == Some(Fault::Overflow) { abi::WSH_E_FULL } else { abi::WSH_E_CLOSED };
        }
        if self.outgoing.is_some() {
            if let Err(error) = self.connection.may_send() {
                return status_of(error);
            }
            if env.limits.slow_peer == SlowPeer::DropOldest {
                // What may be dropped is not compressed, because those that follow would refer to it.
                let head = frame_head(kind, data.len());
                return self.queue(data.len(), true, env, |_, tail| {
                    tail.extend_from_slice(head.as_slice());
                    tail.extend_from_slice(data);
                    Ok(())
                });
            }
            let deflater = &mut desk.deflater;
            return self.queue(data.len(), true, env, |connection, tail| {
                connection.send(kind, data, deflater, tail).map_err(status_of)
            });
        }
        if data.len() >= DIRECT_BYTES && !self.connection.compresses(data.len()) {
            return self.send_directly(kind, data, desk, env);
        }
        if let Err(error) = self.connection.send(kind, data, &mut desk.deflater, &mut desk.cork) {
            return status_of(error);
        }
        self.relieve_cork(desk);
        self.status_after_send(env)
    }

    pub(super) fn send_fragment(
        &mut self,
        kind: Kind,
        data: &[u8],
        last: bool,
        desk: &mut Desk,
        env: &Env,
    ) -> wsh_status {
        if self.fault.is_some() {
            return if self.fault == Some(Fault::Overflow) { abi::WSH_E_FULL } else { abi::WSH_E_CLOSED };
        }
        if self.outgoing.is_some() {
            let status = self.queue(data.len(), false, env, |connection, tail| {
                connection.send_fragment(kind, data, last, tail).map_err(status_of)
            });
            self.send_postponed(desk, env);
            return status;
        }
        if let Err(error) = self.connection.send_fragment(kind, data, last, &mut desk.cork) {
            return status_of(error);
        }
        self.relieve_cork(desk);
        let status = self.status_after_send(env);
        self.send_postponed(desk, env);
        status
    }

    /// Whether the handler was told that the session is over.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.course, Course::Over | Course::SaidFin)
    }

    /// Nothing that comes is read as frames any more.
    pub(super) fn receive_raw(&mut self) {
        self.course = Course::ReceivesRaw;
    }

    pub(super) fn receives_raw(&self) -> bool {
        self.course == Course::ReceivesRaw
    }

    /// Sends bytes as they are, behind what was sent before. Also behind a Close frame, as long as the session lasts.
    pub(super) fn send_raw(&mut self, data: &[u8], desk: &mut Desk, env: &Env) -> wsh_status {
        if self.fault.is_some() {
            return if self.fault == Some(Fault::Overflow) { abi::WSH_E_FULL } else { abi::WSH_E_CLOSED };
        }
        if self.is_over() {
            return abi::WSH_E_CLOSED;
        }
        if self.course == Course::Frames {
            self.course = Course::SentRaw;
        }
        if self.outgoing.is_some() {
            return self.queue(data.len(), false, env, |_, tail| {
                tail.extend_from_slice(data);
                Ok(())
            });
        }
        desk.cork.extend_from_slice(data);
        self.relieve_cork(desk);
        self.status_after_send(env)
    }

    /// Sends a message that does not come from a callback of this session. While its handler is sending one in fragments, it waits.
    pub(super) fn send_from_elsewhere(&mut self, kind: Kind, data: &[u8], desk: &mut Desk, env: &Env) {
        if !self.connection.is_sending_fragments() {
            self.send(kind, data, desk, env);
            return;
        }
        let head = frame_head(kind, data.len());
        self.postpone(&[head.as_slice(), data], desk, env);
    }

    /// Sends messages that are framed already: whole ones, one behind the other. Nothing is copied of what the peer takes at once.
    pub(super) fn send_frames(&mut self, frames: &[u8], desk: &mut Desk, env: &Env) {
        if self.fault.is_some() {
            return;
        }
        match self.connection.may_send() {
            Ok(()) => {}
            Err(SendError::InFragments) => return self.postpone(&[frames], desk, env),
            Err(_) => return,
        }
        if self.outgoing.is_some() {
            return self.queue_frames(frames, env);
        }
        if !desk.cork.is_empty() {
            desk.cork.extend_from_slice(frames);
            return self.relieve_cork(desk);
        }
        self.write_or_keep(frames, desk.now);
    }

    /// Which frames that were compressed elsewhere the peer can take.
    pub(crate) fn deflate_group(&self) -> Option<DeflateGroup> {
        self.connection.deflate_group()
    }

    /// Sends a message to a topic by the frame that was compressed of it for the [group](Self::deflate_group).
    pub(super) fn send_compressed(&mut self, frame: &[u8], message: &Published, desk: &mut Desk, env: &Env) {
        if self.fault.is_some() {
            return;
        }
        let is_droppable = self.outgoing.is_some() && env.limits.slow_peer == SlowPeer::DropOldest;
        if is_droppable || self.connection.may_send().is_err() {
            return self.send_frames(&message.frame, desk, env);
        }
        if self.outgoing.is_some() {
            self.queue(frame.len(), true, env, |connection, tail| {
                connection.send_alone(frame, message.payload(), tail).map_err(status_of)
            });
            return;
        }
        // Cannot fail: it was asked above.
        let _ = self.connection.send_alone(frame, message.payload(), &mut desk.cork);
        self.relieve_cork(desk);
    }

    fn queue_frames(&mut self, mut frames: &[u8], env: &Env) {
        while let Some(frame) = SentFrame::at(frames) {
            let (message, rest) = frames.split_at(frame.len);
            self.queue(message.len(), true, env, |_, tail| {
                tail.extend_from_slice(message);
                Ok(())
            });
            frames = rest;
        }
    }

    /// Keeps whole frames until the message that is being sent in fragments has ended.
    fn postpone(&mut self, parts: &[&[u8]], desk: &mut Desk, env: &Env) {
        let waiting = desk.postponed.entry(self.key).or_default();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if waiting.len().saturating_add(len) <= env.limits.outgoing_bytes_max {
            parts.iter().for_each(|part| waiting.extend_from_slice(part));
        } else if env.limits.slow_peer == SlowPeer::Close {
            self.fault.get_or_insert(Fault::Overflow);
        } else {
            env.generation.on_dropped(1);
        }
    }

    fn send_postponed(&mut self, desk: &mut Desk, env: &Env) {
        if desk.postponed.is_empty() || self.connection.is_sending_fragments() {
            return;
        }
        if let Some(frames) = desk.postponed.remove(&self.key) {
            self.send_frames(&frames, desk, env);
        }
    }

    /// Appends to what waits already, within the bound.
    fn queue(
        &mut self,
        len: usize,
        is_message: bool,
        env: &Env,
        append: impl FnOnce(&mut Connection, &mut Vec<u8>) -> Result<(), wsh_status>,
    ) -> wsh_status {
        let outgoing = self.outgoing.as_mut().expect("the caller saw a backlog");
        let excess = outgoing.len().saturating_add(len).saturating_sub(env.limits.outgoing_bytes_max);
        // Between raw bytes there are no messages that could be found and dropped.
        let makes_room = |outgoing| {
            self.course == Course::Frames && make_room(outgoing, excess, self.stream.committed(), env)
        };
        if excess > 0 && !makes_room(outgoing) {
            if env.limits.slow_peer == SlowPeer::Close || !is_message {
                self.fault = Some(Fault::Overflow);
            } else {
                env.generation.on_dropped(1);
                self.status_after_send(env);
            }
            return abi::WSH_E_FULL;
        }
        if let Err(status) = append(&mut self.connection, outgoing.tail()) {
            return status;
        }
        self.status_after_send(env)
    }

    /// Whether the handler should pause: the high watermark is reached.
    fn status_after_send(&mut self, env: &Env) -> wsh_status {
        let Some(outgoing) = &mut self.outgoing else { return abi::WSH_OK };
        if outgoing.len() <= env.limits.outgoing_bytes_high {
            return abi::WSH_OK;
        }
        outgoing.above_high = true;
        if let Some(handle) = &self.handle {
            handle.place().set_above_high(true);
        }
        abi::WSH_SLOW
    }

    /// Writes cork, frame header and the handler's bytes in one call; only what the peer does not take is copied.
    fn send_directly(&mut self, kind: Kind, data: &[u8], desk: &mut Desk, env: &Env) -> wsh_status {
        if let Err(error) = self.connection.may_send() {
            return status_of(error);
        }
        let head = frame_head(kind, data.len());
        let head = head.as_slice();
        let parts = [IoSlice::new(&desk.cork), IoSlice::new(head), IoSlice::new(data)];
        let written = match self.stream.write_parts(&parts) {
            Ok(written) => written,
            Err(Errno::AGAIN) => 0,
            Err(error) => {
                self.fault = Some(Fault::Io(error.into()));
                return abi::WSH_E_CLOSED;
            }
        };
        let total = desk.cork.len() + head.len() + data.len();
        if written < total {
            let mut unsent = Vec::with_capacity(total - written);
            let mut skip = written;
            for part in [&desk.cork[..], head, data] {
                unsent.extend_from_slice(&part[skip.min(part.len())..]);
                skip = skip.saturating_sub(part.len());
            }
            let begun = if written <= desk.cork.len() {
                frame_end(&desk.cork, 0, written) - written
            } else {
                unsent.len()
            };
            self.outgoing = Some(Box::new(Outgoing::new(unsent, begun, desk.now)));
        }
        desk.cork.clear();
        self.status_after_send(env)
    }

    pub(super) fn ping(&mut self, payload: &[u8], desk: &mut Desk) -> wsh_status {
        let (connection, output) = self.connection_and_output(desk);
        if connection.ping(payload, output).is_ok() { abi::WSH_OK } else { abi::WSH_E_CLOSED }
    }

    pub(super) fn pong(&mut self, payload: &[u8], desk: &mut Desk) {
        let (connection, output) = self.connection_and_output(desk);
        // Fails only after Close, and then no answer is due.
        let _ = connection.pong(payload, output);
    }

    /// Sends Close once; code 0 sends an empty one.
    pub(super) fn close(&mut self, code: u16, reason: &str, desk: &mut Desk) -> wsh_status {
        let code = (code != 0).then_some(code);
        let (connection, output) = self.connection_and_output(desk);
        if connection.close(code, reason, output).is_err() {
            return abi::WSH_E_CLOSED;
        }
        self.sent_close = true;
        abi::WSH_OK
    }

    /// Sends Close for a policy of the server, if none was sent yet.
    pub(super) fn fail(&mut self, code: u16, reason: &str, desk: &mut Desk) {
        let (connection, output) = self.connection_and_output(desk);
        connection.fail(code, reason, output);
        self.sent_close = true;
    }

    /// Frames go behind what waits, or into the cork.
    fn connection_and_output<'a>(&'a mut self, desk: &'a mut Desk) -> (&'a mut Connection, &'a mut Vec<u8>) {
        let output = match &mut self.outgoing {
            Some(outgoing) => outgoing.tail(),
            None => &mut desk.cork,
        };
        (&mut self.connection, output)
    }

    /// Writes a full cork before the turn is over, so that it does not grow with what one read brought.
    #[inline]
    pub(super) fn relieve_cork(&mut self, desk: &mut Desk) {
        if desk.cork.len() >= CORK_BYTES_MAX {
            self.flush(desk);
        }
    }

    /// Writes the cork.
    pub(super) fn flush(&mut self, desk: &mut Desk) {
        if desk.cork.is_empty() {
            return;
        }
        self.write_or_keep(&desk.cork, desk.now);
        desk.cork.clear();
    }

    /// Writes whole frames; what the peer does not take becomes the backlog.
    fn write_or_keep(&mut self, frames: &[u8], now: u32) {
        let written = match self.stream.write(frames) {
            Ok(written) => written,
            Err(Errno::AGAIN) => 0,
            Err(error) => {
                self.fault.get_or_insert_with(|| Fault::Io(error.into()));
                return;
            }
        };
        if written < frames.len() {
            self.outgoing = Some(Box::new(Outgoing::of_frames(frames, written, now)));
        }
    }
}

/// Whether so many bytes could be freed by dropping what the peer does not read, which only one policy does.
#[cold]
fn make_room(outgoing: &mut Outgoing, excess: usize, committed: usize, env: &Env) -> bool {
    if env.limits.slow_peer != SlowPeer::DropOldest {
        return false;
    }
    let before = outgoing.len();
    env.generation.on_dropped(outgoing.drop_oldest(excess, committed));
    before - outgoing.len() >= excess
}

fn status_of(error: SendError) -> wsh_status {
    match error {
        SendError::Closed => abi::WSH_E_CLOSED,
        SendError::InFragments => abi::WSH_E_STATE,
        SendError::TooLong => abi::WSH_E_INVALID,
    }
}
