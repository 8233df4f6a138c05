//! One WebSocket after its opening handshake, on the server's side.

use std::borrow::Cow;

use crate::Limits;
use crate::close::{self, PeerClose};
use crate::deflate::{DeflateGroup, DeflateParameters, Deflater, Inflater, Windows};
use crate::error::{CloseError, ProtocolError, SendError};
use crate::frame::{self, CONTROL_BYTES_MAX, FrameHead, HEAD_BYTES_MAX, Head, Opcode, RSV1};
use crate::message::{self, Assembly, Kind, Message};

/// The protocol state of a connection. Sixteen bytes and no heap while nothing is under way, which is nearly always; even the
/// beginning of a header is put into the box that the rest of its message will need anyway. Where permessage-deflate was agreed,
/// the box is there for good and holds the windows.
#[derive(Debug, Default)]
pub struct Connection {
    /// What has begun and not ended, and what an extension has to remember.
    kept: Option<Box<Kept>>,
    /// The peer sent Close, or broke the protocol: its input is thrown away.
    is_deaf: bool,
    /// Close was sent: nothing may follow it.
    is_mute: bool,
    /// The kind of the message that is being sent in fragments.
    sending: Option<Kind>,
    /// RSV1 where permessage-deflate was agreed, and 0 elsewhere.
    agreed_bits: u8,
}

#[derive(Debug, Default)]
struct Kept {
    /// The beginning of a header.
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// A frame whose payload has not arrived whole.
    frame: Option<Incoming>,
    /// The payload of a control frame that came in pieces.
    control: Vec<u8>,
    /// A message whose frames have not arrived whole.
    message: Option<Assembly>,
    /// Exist exactly where permessage-deflate was agreed.
    windows: Option<Box<Windows>>,
}

/// A frame whose header was read and found right.
#[derive(Debug, Clone, Copy)]
struct Incoming {
    opcode: Opcode,
    is_final: bool,
    /// Begins a message that is compressed.
    is_compressed: bool,
    /// Rotated to the next byte.
    mask: [u8; 4],
    /// Payload bytes that have not arrived; within the limits, which the header was held against.
    missing: usize,
}

/// What a frame, or a part of it, brought.
enum Received<'b> {
    Nothing,
    Event(Event<'b>),
    /// A compressed message: its plain text lies in the inflater.
    Inflated(Kind),
}

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'b> {
    /// A whole message.
    Message(Message<'b>),
    /// Is to be answered with [`Connection::pong`]; where the peer does not read, with the newest one only (RFC 6455 section
    /// 5.5.3). At most 125 bytes.
    Ping(Cow<'b, [u8]>),
    /// An answer to a ping, or a sign of life that nobody asked for (RFC 6455 section 5.5.3). At most 125 bytes.
    Pong(Cow<'b, [u8]>),
    /// The peer begins the closing handshake; it is to be answered with [`Connection::close`]. Nothing more is received.
    CloseRequested(PeerClose<'b>),
    /// The peer answers our Close: the closing handshake is complete.
    CloseAnswered(PeerClose<'b>),
    /// The peer broke the protocol. The Close frame for it was appended to the output, unless Close was sent before, and
    /// nothing more is received (RFC 6455 section 7.1.7).
    Failed(ProtocolError),
}

/// As in HTML5; a connection of this crate is past `CONNECTING`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyState {
    /// Messages go both ways.
    Open,
    /// One side sent Close.
    Closing,
    /// Both sides sent Close, or the connection failed: when the output has been written, the stream may end.
    Closed,
}

impl Connection {
    /// A connection whose opening handshake has just been answered with 101, and no extension. Does not allocate.
    pub const fn new() -> Self {
        Self { kept: None, is_deaf: false, is_mute: false, sending: None, agreed_bits: 0 }
    }

    /// The same where permessage-deflate was agreed (RFC 7692).
    pub fn with_deflate(parameters: DeflateParameters) -> Self {
        let windows = Some(Box::new(Windows::new(parameters)));
        Self { kept: Some(Box::new(Kept { windows, ..Kept::default() })), agreed_bits: RSV1, ..Self::new() }
    }

    /// Drops this when it drops its windows, and at once if it has none: a share of the memory that they may take.
    #[must_use]
    pub fn guarded_by(mut self, guard: Box<dyn Send + Sync>) -> Self {
        if let Some(windows) = self.windows_mut() {
            windows.guard.set(guard);
        }
        self
    }

    // ---- receiving -----------------------------------------------------------------------------------------------------

    /// Takes the next event from the front of `input`; `None` when `input` is used up. What is left of a frame or message that
    /// has not arrived whole is kept here, so the caller's buffer is free again.
    ///
    /// A message that lies whole in `input` is neither copied nor does it allocate. For one that comes in pieces, memory
    /// follows the bytes received, whatever its header announces. Only a failure appends to `output`.
    ///
    /// A compressed message is inflated when its last byte has come, into `inflater`, up to the limit and no further (RFC 7692
    /// section 7.2.2). The compressed bytes may be an eighth more than the limit, because there are messages that compression
    /// makes longer.
    ///
    /// Once Close was sent, only [`Event::CloseAnswered`] and [`Event::Failed`] follow: messages are thrown away unread, as
    /// HTML5 does while closing, and so are pings and pongs. After [`Event::CloseRequested`], [`Event::CloseAnswered`] and
    /// [`Event::Failed`] all input is thrown away (RFC 6455 section 5.5.1).
    #[inline]
    pub fn receive<'e, 'b: 'e>(
        &mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
        inflater: &'e mut Inflater,
        output: &mut Vec<u8>,
    ) -> Option<Event<'e>> {
        if self.kept.is_none()
            && !self.is_deaf
            && !self.is_mute
            && let Some((kind, head_len, payload_len)) = frame::ordinary(input)
            && payload_len <= limits.message_bytes_max
        {
            let (head, payload) = take(input, head_len + payload_len).split_at_mut(head_len);
            let mask = *head.last_chunk().expect("a header ends with its mask");
            frame::unmask(payload, mask);
            if !message::is_right(kind, payload) {
                return Some(self.violated(ProtocolError::InvalidText, output));
            }
            return Some(Event::Message(Message { kind, payload: Cow::Borrowed(payload) }));
        }
        self.receive_any(input, limits, inflater, output)
    }

    /// Everything but the ordinary message.
    #[inline(never)]
    fn receive_any<'e, 'b: 'e>(
        &mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
        inflater: &'e mut Inflater,
        output: &mut Vec<u8>,
    ) -> Option<Event<'e>> {
        while !input.is_empty() && !self.is_deaf {
            let received = self.receive_frame(input, limits, inflater);
            if self.kept.as_ref().is_some_and(|kept| kept.windows.is_none() && !kept.is_partial()) {
                self.kept = None;
            }
            match received {
                Ok(Received::Nothing) => {}
                Ok(Received::Event(event)) => return Some(event),
                Ok(Received::Inflated(kind)) => {
                    return Some(Event::Message(Message { kind, payload: Cow::Borrowed(inflater.text()) }));
                }
                Err(error) => return Some(self.violated(error, output)),
            }
        }
        if self.is_deaf {
            take(input, input.len());
        }
        None
    }

    /// Takes a frame, or as much of it as there is.
    fn receive_frame<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
        inflater: &mut Inflater,
    ) -> Result<Received<'b>, ProtocolError> {
        let mut frame = match self.kept.as_mut().and_then(|kept| kept.frame.take()) {
            Some(frame) => frame,
            None => match self.receive_head(input, limits)? {
                Some(frame) => frame,
                None => return Ok(Received::Nothing),
            },
        };
        let available = frame.missing.min(input.len());
        let payload = take(input, available);
        frame::unmask(payload, frame.mask);
        frame.mask = frame::rotated(frame.mask, available);
        frame.missing -= available;
        let received = if frame.opcode.is_control() {
            self.receive_control(frame, payload)?
        } else {
            self.receive_data(frame, payload, limits, inflater)?
        };
        if frame.missing > 0 {
            self.kept.get_or_insert_default().frame = Some(frame);
        }
        Ok(received)
    }

    /// Takes the header of the next frame and holds it against the limits; `None` if it is incomplete.
    fn receive_head(
        &mut self,
        input: &mut &mut [u8],
        limits: &Limits,
    ) -> Result<Option<Incoming>, ProtocolError> {
        let Some(head) = self.take_head(input)? else { return Ok(None) };
        let room = match (head.opcode, self.kept.as_mut().and_then(|kept| kept.message.as_mut())) {
            (Opcode::Data(_), Some(_)) => return Err(ProtocolError::InterruptedMessage),
            (Opcode::Continuation, None) => return Err(ProtocolError::LoneContinuation),
            (Opcode::Continuation, Some(message)) => {
                message.on_continuation(head.payload_len, limits)?;
                bytes_max(message.is_compressed(), limits).saturating_sub(message.len())
            }
            (Opcode::Data(_), None) => bytes_max(head.is_compressed, limits),
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => CONTROL_BYTES_MAX,
        };
        let missing = usize::try_from(head.payload_len).ok().filter(|payload_len| *payload_len <= room);
        let missing = missing.ok_or(ProtocolError::TooBig { limit: limits.message_bytes_max })?;
        let Head { opcode, is_final, is_compressed, mask, .. } = head;
        Ok(Some(Incoming { opcode, is_final, is_compressed, mask, missing }))
    }

    fn take_head(&mut self, input: &mut &mut [u8]) -> Result<Option<Head>, ProtocolError> {
        let begun = self.kept.as_ref().map_or(0, |kept| usize::from(kept.head_len));
        if begun == 0
            && let Some(head) = Head::parse(input, self.agreed_bits)?
        {
            take(input, head.len);
            return Ok(Some(head));
        }
        // Cut inside the header: the bytes are kept, and parsed again with those that follow.
        let kept = self.kept.get_or_insert_default();
        let added = (HEAD_BYTES_MAX - begun).min(input.len());
        kept.head[begun..begun + added].copy_from_slice(&input[..added]);
        match Head::parse(&kept.head[..begun + added], self.agreed_bits)? {
            Some(head) => {
                kept.head_len = 0;
                take(input, head.len - begun);
                Ok(Some(head))
            }
            None => {
                kept.head_len = (begun + added) as u8;
                take(input, added);
                Ok(None)
            }
        }
    }

    /// Takes the next bytes of a text, binary or continuation frame.
    fn receive_data<'b>(
        &mut self,
        frame: Incoming,
        payload: &'b [u8],
        limits: &Limits,
        inflater: &mut Inflater,
    ) -> Result<Received<'b>, ProtocolError> {
        let ends_message = frame.is_final && frame.missing == 0;
        let is_begun = self.kept.as_ref().is_some_and(|kept| kept.message.is_some());
        // Once Close was sent, messages are read only to find the frames behind them (RFC 6455 section 5.5.1, and HTML5's rule
        // for the state CLOSING).
        if ends_message && !is_begun && self.is_mute {
            return Ok(Received::Nothing);
        }
        if let Opcode::Data(kind) = frame.opcode
            && ends_message
            && !is_begun
        {
            if frame.is_compressed {
                return self.inflate(kind, payload, limits, inflater);
            }
            if !message::is_right(kind, payload) {
                return Err(ProtocolError::InvalidText);
            }
            return Ok(Received::Event(Event::Message(Message { kind, payload: Cow::Borrowed(payload) })));
        }
        let kept = self.kept.get_or_insert_default();
        let message = match frame.opcode {
            Opcode::Data(kind) => {
                kept.message.get_or_insert_with(|| Assembly::new(kind, frame.is_compressed))
            }
            _ => kept.message.as_mut().expect("receive_head refuses to continue what was not begun"),
        };
        if !self.is_mute {
            let frame_end = message.len() + payload.len() + frame.missing;
            let len_max = bytes_max(message.is_compressed(), limits);
            message.push(payload, if frame.is_final { frame_end } else { len_max })?;
        }
        if !ends_message {
            return Ok(Received::Nothing);
        }
        let message = kept.message.take().expect("it was there a moment ago");
        if self.is_mute {
            return Ok(Received::Nothing);
        }
        if message.is_compressed() {
            return self.inflate(message.kind(), message.compressed(), limits, inflater);
        }
        message.finish().map(|message| Received::Event(Event::Message(message)))
    }

    /// Inflates a whole compressed message, and keeps what the next one may refer to (RFC 7692 section 7.2.2).
    fn inflate<'b>(
        &mut self,
        kind: Kind,
        payload: &[u8],
        limits: &Limits,
        inflater: &mut Inflater,
    ) -> Result<Received<'b>, ProtocolError> {
        let windows = self.windows_mut().expect("RSV1 passes only where it was agreed");
        inflater.inflate(payload, windows.received.bytes(), limits.message_bytes_max)?;
        if !message::is_right(kind, inflater.text()) {
            return Err(ProtocolError::InvalidText);
        }
        windows.received.push(inflater.text());
        Ok(Received::Inflated(kind))
    }

    /// Takes the next bytes of a control frame.
    fn receive_control<'b>(
        &mut self,
        frame: Incoming,
        payload: &'b [u8],
    ) -> Result<Received<'b>, ProtocolError> {
        if frame.missing > 0 {
            self.kept.get_or_insert_default().control.extend_from_slice(payload);
            return Ok(Received::Nothing);
        }
        let begun = self.kept.as_mut().map(|kept| std::mem::take(&mut kept.control));
        let payload = match begun {
            Some(mut whole) if !whole.is_empty() => {
                whole.extend_from_slice(payload);
                Cow::Owned(whole)
            }
            _ => Cow::Borrowed(payload),
        };
        match frame.opcode {
            Opcode::Close => {
                let close = PeerClose::parse(payload)?;
                self.stop_receiving();
                Ok(Received::Event(if self.is_mute {
                    Event::CloseAnswered(close)
                } else {
                    Event::CloseRequested(close)
                }))
            }
            // Once Close was sent, no pong may follow.
            _ if self.is_mute => Ok(Received::Nothing),
            Opcode::Ping => Ok(Received::Event(Event::Ping(payload))),
            _ => Ok(Received::Event(Event::Pong(payload))),
        }
    }

    /// Fails the connection for what the peer did (RFC 6455 section 7.1.7).
    #[cold]
    fn violated<'b>(&mut self, error: ProtocolError, output: &mut Vec<u8>) -> Event<'b> {
        self.fail(error.close_code(), &error.to_string(), output);
        Event::Failed(error)
    }

    fn stop_receiving(&mut self) {
        self.is_deaf = true;
        // What may still be sent goes on with its window.
        let windows = self.kept.take().and_then(|kept| kept.windows);
        self.kept = windows.map(|windows| Box::new(Kept { windows: Some(windows), ..Kept::default() }));
    }

    // ---- sending -------------------------------------------------------------------------------------------------------

    /// Appends a message as one unmasked frame (RFC 6455 section 5.6). The caller vouches that a text is UTF-8. Where
    /// permessage-deflate was agreed, it is compressed if [that is tried](Self::compresses) and makes it shorter (RFC 7692 section
    /// 7.2.1).
    ///
    /// # Errors
    /// [`SendError::Closed`] once Close was sent, [`SendError::InFragments`] inside a message that is being sent in fragments.
    #[inline]
    pub fn send(
        &mut self,
        kind: Kind,
        payload: &[u8],
        deflater: &mut Deflater,
        output: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let head = self.message_head(kind, payload.len())?;
        if self.agreed_bits == 0 || !self.send_compressed(kind, payload, deflater, output) {
            frame::append(output, head, payload);
        }
        Ok(())
    }

    /// False if the message is better sent as it is. Then it does not enter the window either: what the peer's inflater has not
    /// seen, it has not got (RFC 7692 section 7.2.2).
    #[inline(never)]
    fn send_compressed(
        &mut self,
        kind: Kind,
        payload: &[u8],
        deflater: &mut Deflater,
        output: &mut Vec<u8>,
    ) -> bool {
        let Some(windows) = self.windows_mut() else { return false };
        let Some(compressed) = windows.compress(payload, deflater) else { return false };
        frame::append(output, FrameHead::compressed(kind, compressed.len()), compressed);
        true
    }

    /// Appends a frame that [`Deflater::compress_alone`] made of `payload` for the [group](Self::deflate_group) of this
    /// connection. Costs a copy of the frame, and of as much of the payload as the window holds.
    ///
    /// # Errors
    /// As with [`send`](Self::send).
    pub fn send_alone(
        &mut self,
        frame: &[u8],
        payload: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.may_send()?;
        output.extend_from_slice(frame);
        let is_compressed = frame.first().is_some_and(|first| first & RSV1 != 0);
        if let Some(windows) = self.windows_mut().filter(|_| is_compressed) {
            windows.on_sent(payload);
        }
        Ok(())
    }

    fn windows_mut(&mut self) -> Option<&mut Windows> {
        self.kept.as_mut()?.windows.as_deref_mut()
    }

    /// Appends a part of a message as a frame of its own; `is_last` ends the message (RFC 6455 section 5.4). A text may be cut
    /// inside a character. Control frames may be sent between the parts. Such a message is not compressed: each part goes out
    /// when it is there, and a receiver takes both kinds (RFC 7692 section 6).
    ///
    /// # Errors
    /// [`SendError::Closed`] once Close was sent, [`SendError::InFragments`] if the message was begun with another kind.
    pub fn send_fragment(
        &mut self,
        kind: Kind,
        payload: &[u8],
        is_last: bool,
        output: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        frame::append(output, self.fragment_head(kind, payload.len(), is_last)?, payload);
        Ok(())
    }

    /// The header of a message that is not compressed, for a payload that is written from where it lies. The caller writes both,
    /// with nothing between them. Errors as with [`send`](Self::send).
    #[inline]
    pub fn message_head(&self, kind: Kind, payload_len: usize) -> Result<FrameHead, SendError> {
        self.may_send()?;
        Ok(frame::frame_head(kind, payload_len))
    }

    /// The header of a part of a message, for a payload that is written from where it lies. The part counts as sent from here
    /// on. Errors as with [`send_fragment`](Self::send_fragment).
    pub fn fragment_head(
        &mut self,
        kind: Kind,
        payload_len: usize,
        is_last: bool,
    ) -> Result<FrameHead, SendError> {
        if self.is_mute {
            return Err(SendError::Closed);
        }
        let opcode = match self.sending {
            None => Opcode::Data(kind),
            Some(begun) if begun == kind => Opcode::Continuation,
            Some(_) => return Err(SendError::InFragments),
        };
        self.sending = (!is_last).then_some(kind);
        Ok(FrameHead::new(opcode, is_last, payload_len))
    }

    /// Whether a whole message may be sent now. Errors as with [`send`](Self::send).
    #[inline]
    pub fn may_send(&self) -> Result<(), SendError> {
        if self.is_mute {
            return Err(SendError::Closed);
        }
        if self.sending.is_some() { Err(SendError::InFragments) } else { Ok(()) }
    }

    /// Appends a ping (RFC 6455 section 5.5.2).
    ///
    /// # Errors
    /// [`SendError::Closed`] once Close was sent, [`SendError::TooLong`] above [`CONTROL_BYTES_MAX`] bytes.
    pub fn ping(&mut self, payload: &[u8], output: &mut Vec<u8>) -> Result<(), SendError> {
        self.send_control(Opcode::Ping, payload, output)
    }

    /// Appends a pong (RFC 6455 section 5.5.3): the answer to a ping with its payload. Errors as with [`ping`](Self::ping).
    pub fn pong(&mut self, payload: &[u8], output: &mut Vec<u8>) -> Result<(), SendError> {
        self.send_control(Opcode::Pong, payload, output)
    }

    fn send_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if self.is_mute {
            return Err(SendError::Closed);
        }
        if payload.len() > CONTROL_BYTES_MAX {
            return Err(SendError::TooLong);
        }
        frame::append(output, FrameHead::new(opcode, true, payload.len()), payload);
        Ok(())
    }

    /// Appends Close, to begin the closing handshake or to answer the peer's (RFC 6455 sections 7.1.2 and 5.5.1). Without a
    /// code its payload is empty, and then there can be no reason. Nothing can be sent afterwards, and what has arrived of a
    /// message is thrown away.
    ///
    /// # Errors
    /// [`CloseError::Closed`] if it was sent before, [`CloseError::Code`] for a code that the server
    /// [may not send](close::may_be_sent_by_server), [`CloseError::Reason`] for a reason of more than 123 bytes or without a code.
    pub fn close(&mut self, code: Option<u16>, reason: &str, output: &mut Vec<u8>) -> Result<(), CloseError> {
        if self.is_mute {
            return Err(CloseError::Closed);
        }
        if reason.len() > close::REASON_BYTES_MAX || code.is_none() && !reason.is_empty() {
            return Err(CloseError::Reason);
        }
        if let Some(code) = code.filter(|code| !close::may_be_sent_by_server(*code)) {
            return Err(CloseError::Code(code));
        }
        self.append_close(code, reason, output);
        Ok(())
    }

    /// Fails the connection by a policy of the caller (RFC 6455 section 7.1.7): appends Close, unless it was sent before, and
    /// receives nothing more. A reason that is too long is cut. A code that may not be sent is the caller's own failure, and
    /// 1011 says so.
    pub fn fail(&mut self, code: u16, reason: &str, output: &mut Vec<u8>) {
        if !self.is_mute {
            let code = if close::may_be_sent_by_server(code) { code } else { close::INTERNAL };
            self.append_close(Some(code), close::fitting(reason), output);
        }
        self.stop_receiving();
    }

    fn append_close(&mut self, code: Option<u16>, reason: &str, output: &mut Vec<u8>) {
        let code = code.map(u16::to_be_bytes);
        let code = code.as_ref().map_or(&[][..], |code| &code[..]);
        frame::append(output, FrameHead::new(Opcode::Close, true, code.len() + reason.len()), code);
        output.extend_from_slice(reason.as_bytes());
        self.is_mute = true;
        if let Some(message) = self.kept.as_mut().and_then(|kept| kept.message.as_mut()) {
            message.discard();
        }
    }

    // ---- asking --------------------------------------------------------------------------------------------------------

    /// How far the closing handshake has come, from this side's view.
    pub fn ready_state(&self) -> ReadyState {
        match (self.is_deaf, self.is_mute) {
            (false, false) => ReadyState::Open,
            (true, true) => ReadyState::Closed,
            _ => ReadyState::Closing,
        }
    }

    /// Whether [`send`](Self::send) tries to compress a message of so many bytes. Whoever writes payloads from where they lie asks
    /// this first.
    #[inline]
    pub fn compresses(&self, payload_len: usize) -> bool {
        self.windows().is_some_and(|windows| payload_len >= windows.parameters.message_bytes_min())
    }

    /// What was agreed of permessage-deflate (RFC 7692); `None` where it was not.
    pub fn deflate(&self) -> Option<DeflateParameters> {
        self.windows().map(|windows| windows.parameters)
    }

    /// Which frames this connection can share with others, where permessage-deflate was agreed: those that were
    /// [compressed alone](Deflater::compress_alone) for the same group. Context takeover does not hinder that: it allows
    /// to refer to earlier messages, and does not ask for it (RFC 7692 section 7.1.1).
    pub fn deflate_group(&self) -> Option<DeflateGroup> {
        self.windows().map(|windows| windows.parameters.group())
    }

    /// Bytes of plain text that are kept for messages to come, sent and received.
    pub fn window_bytes(&self) -> usize {
        self.windows().map_or(0, Windows::bytes)
    }

    /// Whether a message is being sent in fragments and its last one was not.
    pub fn is_sending_fragments(&self) -> bool {
        self.sending.is_some()
    }

    /// Payload bytes of the message that is arriving; `None` if no header, frame or message is under way. Whoever has a clock
    /// puts a deadline on it. What was thrown away while closing does not count.
    pub fn message_bytes_pending(&self) -> Option<usize> {
        let kept = self.kept.as_ref().filter(|kept| kept.is_partial())?;
        Some(kept.message.as_ref().map_or(0, Assembly::len))
    }

    fn windows(&self) -> Option<&Windows> {
        self.kept.as_ref()?.windows.as_deref()
    }
}

impl Kept {
    /// A header, a frame or a message is under way.
    fn is_partial(&self) -> bool {
        self.head_len > 0 || self.frame.is_some() || !self.control.is_empty() || self.message.is_some()
    }
}

/// Bytes that a message may have as it comes. Compression can make one longer, by an eighth where a compressor uses the fixed
/// codes of RFC 1951 section 3.2.6 for bytes that have no pattern.
fn bytes_max(is_compressed: bool, limits: &Limits) -> usize {
    let bytes = limits.message_bytes_max;
    if is_compressed { bytes.saturating_add(bytes / 8).saturating_add(64) } else { bytes }
}

/// Takes `count` bytes from the front of `input`.
#[inline]
fn take<'b>(input: &mut &'b mut [u8], count: usize) -> &'b mut [u8] {
    let (taken, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand idle sessions are to cost little: their protocol state is two words, and no heap.
    #[test]
    fn an_idle_connection_is_two_words() {
        assert_eq!(size_of::<Connection>(), 16);
        let mut connection = Connection::new();
        let mut bytes = b"\x82\x82\x00\x00\x00\x00hi".to_vec();
        let mut output = Vec::new();
        let mut inflater = Inflater::new();
        let event = connection.receive(&mut &mut bytes[..], &Limits::default(), &mut inflater, &mut output);
        assert!(matches!(event, Some(Event::Message(Message { payload: Cow::Borrowed(b"hi"), .. }))));
        assert!(connection.kept.is_none());
    }

    /// What a piece needed is given back with the event it belonged to: header, control frame, message.
    #[test]
    fn the_heap_is_given_back_after_every_event() {
        let mut connection = Connection::new();
        let (limits, mut inflater, mut output) = (Limits::default(), Inflater::new(), Vec::new());
        for bytes in
            [&b"\x82\x82\x00\x00\x00\x00hi"[..], b"\x89\x82\x00\x00\x00\x00hi", b"\x81\x80\x00\x00\x00\x00"]
        {
            for cut in 1..bytes.len() {
                let (mut first, mut second) = (bytes[..cut].to_vec(), bytes[cut..].to_vec());
                let nothing = connection.receive(&mut &mut first[..], &limits, &mut inflater, &mut output);
                assert_eq!(nothing, None);
                assert!(connection.kept.is_some());
                let event = connection.receive(&mut &mut second[..], &limits, &mut inflater, &mut output);
                assert!(event.is_some());
                assert!(connection.kept.is_none(), "{bytes:?} cut at {cut}");
            }
        }
    }

    /// A connection moves with its stream to the worker of another generation.
    #[test]
    fn a_connection_may_move_between_threads() {
        fn moves<T: Send>() {}
        moves::<Connection>();
    }
}
