//! The session as sequential code uses it: `receive`, `send`, `close`, one after the other.
//!
//! A future is polled inside the callbacks of its session and nowhere else. While it runs, the thread knows which session's
//! *turn* it is; every method asks for that first. So a socket may be lent to other threads, as safe code can, and a method
//! that is called there, or outside of a turn, panics before it touches anything.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use crate::abi::wsh_session;
use crate::message::{CloseError, Kind, Message, OwnedMessage, ReadyState, SendStatus};
use crate::raw::RawError;
use crate::topic::{Topic, TopicError};
use crate::websocket::{Handle, WebSocket};

/// What sequential code may end with: any error, or a text (`"no such room".into()`). It closes the session with 1011.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The session is closing or over: nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session is closed")
    }
}

impl std::error::Error for Closed {}

/// What can be sent. A [`Received`] is sent on as it came, without a copy.
pub trait AsMessage {
    /// Calls `send` with the message.
    #[doc(hidden)]
    fn lend<R>(&self, send: impl FnOnce(Message<'_>) -> R) -> R;
}

macro_rules! as_message {
    ($($type:ty),* $(,)?) => {$(
        impl AsMessage for $type {
            fn lend<R>(&self, send: impl FnOnce(Message<'_>) -> R) -> R {
                send(Message::from(self))
            }
        }
    )*};
}

as_message!(str, String, [u8], Vec<u8>, OwnedMessage);

impl<const N: usize> AsMessage for [u8; N] {
    fn lend<R>(&self, send: impl FnOnce(Message<'_>) -> R) -> R {
        send(Message::from(self))
    }
}

impl AsMessage for Message<'_> {
    fn lend<R>(&self, send: impl FnOnce(Message<'_>) -> R) -> R {
        send(*self)
    }
}

impl<T: AsMessage + ?Sized> AsMessage for &T {
    fn lend<R>(&self, send: impl FnOnce(Message<'_>) -> R) -> R {
        (**self).lend(send)
    }
}

/// Whose turn it is on this thread.
#[derive(Clone, Copy)]
struct Turn {
    socket: *const Socket,
    session: *mut wsh_session,
}

thread_local! {
    // Without a destructor, so that it is no reason to keep the library in memory.
    static TURN: Cell<Turn> = const { Cell::new(Turn { socket: std::ptr::null(), session: std::ptr::null_mut() }) };
}

/// The session that [`transfer_data`](crate::AsyncHandler::transfer_data) is about.
///
/// Its methods belong to that future: called on another thread, or when the future is dropped, they panic. What has to be done
/// there is done by a [`handle`](Self::handle).
pub struct Socket {
    state: UnsafeCell<State>,
    /// Made when the future takes a waker along.
    bell: OnceLock<(Arc<Bell>, Waker)>,
}

// SAFETY: a socket stays where it is, and its handles and wakers are `Send`. The pointer in `state` is only followed in a turn.
unsafe impl Send for Socket {}
// SAFETY: `state` is only touched in a turn of this socket, which is on one thread at a time; `bell` is `Sync`.
unsafe impl Sync for Socket {}

/// Touched in a turn only, and never borrowed while other code runs.
#[derive(Default)]
struct State {
    /// What the callback offers that is running.
    offer: Option<Offer>,
    /// Messages that outlive their callback, because somebody still has them, or because nobody has taken them.
    kept: Vec<Kept>,
    /// Of `kept`, the one that nobody has taken.
    pending: Option<u64>,
    serial: u64,
    /// How many wait for a message.
    receivers: usize,
    is_slow: bool,
    is_over: bool,
    /// Code and reason, when it is over.
    close: Option<(u16, Box<str>)>,
    /// Of parts of the future that have wakers of their own.
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy)]
struct Offer {
    kind: Kind,
    bytes: *const [u8],
    serial: u64,
    is_taken: bool,
}

struct Kept {
    serial: u64,
    message: OwnedMessage,
}

impl Socket {
    pub(crate) fn new() -> Self {
        Self { state: UnsafeCell::default(), bell: OnceLock::new() }
    }

    /// The next message; `None` when no more come: the peer has closed or is gone.
    ///
    /// A message that waits here is passed through without a copy. Cancel safe: a message that was not taken stays.
    pub fn receive(&self) -> Receive<'_> {
        Receive { socket: self, is_waiting: false }
    }

    /// Sends a message: `&str`, `&[u8]`, a [`Received`], a [`Message`] and so on. It is sent at once; waiting for the answer waits
    /// until a peer that reads slowly has taken enough.
    #[inline]
    pub fn send(&self, message: impl AsMessage) -> Sending<'_> {
        let socket = self.in_turn();
        let status = message.lend(|message| socket.send(message));
        if status == SendStatus::Slow {
            self.with_state(|state| state.is_slow = true);
        }
        Sending { socket: self, is_sent: status.is_accepted() }
    }

    /// As [`WebSocket::send_fragment`].
    pub fn send_fragment(&self, kind: Kind, part: &[u8], is_last: bool) -> Sending<'_> {
        let status = self.in_turn().send_fragment(kind, part, is_last);
        if status == SendStatus::Slow {
            self.with_state(|state| state.is_slow = true);
        }
        Sending { socket: self, is_sent: status.is_accepted() }
    }

    /// Begins the closing handshake, behind what was sent before; see [`WebSocket::close`]. After a `receive` that returned `None`
    /// because the peer closes, the code of the answer.
    ///
    /// # Errors
    /// [`CloseError::Invalid`] for a code or a reason that may not be sent, [`CloseError::Closed`] if it has begun already.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), CloseError> {
        self.in_turn().close(code, reason)
    }

    /// Drops the connection without a Close frame; browsers see the code 1006.
    pub fn abort(&self) {
        self.in_turn().abort();
    }

    /// As [`WebSocket::end`].
    pub fn end(&self) {
        self.in_turn().end();
    }

    /// As [`WebSocket::send_raw`]. Waiting for the answer waits until a peer that reads slowly has taken enough.
    ///
    /// # Errors
    /// As there.
    pub fn send_raw(&self, bytes: &[u8]) -> Result<Sending<'_>, RawError> {
        let status = self.in_turn().send_raw(bytes)?;
        if status == SendStatus::Slow {
            self.with_state(|state| state.is_slow = true);
        }
        Ok(Sending { socket: self, is_sent: status.is_accepted() })
    }

    /// As [`WebSocket::receive_raw`]: [`receive`](Self::receive) brings bytes from here on.
    ///
    /// # Errors
    /// As there.
    pub fn receive_raw(&self) -> Result<(), RawError> {
        self.in_turn().receive_raw()
    }

    /// Sends a ping of at most 125 bytes.
    ///
    /// # Errors
    /// [`CloseError::Invalid`] for more than 125 bytes, [`CloseError::Closed`] when nothing can be sent any more.
    pub fn ping(&self, payload: &[u8]) -> Result<(), CloseError> {
        self.in_turn().ping(payload)
    }

    /// Open, or closing from the first Close frame of either side, or closed. Nothing can be sent but in the first.
    pub fn ready_state(&self) -> ReadyState {
        self.in_turn().ready_state()
    }

    /// The code with which the session was closed by the peer, or ended; `None` while messages come.
    pub fn close_code(&self) -> Option<u16> {
        self.in_turn();
        self.with_state(|state| state.close.as_ref().map(|(code, _)| *code))
    }

    /// The reason that the peer closed with; empty if it gave none, and while messages come.
    pub fn close_reason(&self) -> String {
        self.in_turn();
        self.with_state(|state| {
            state.close.as_ref().map_or_else(String::new, |(_, reason)| (**reason).into())
        })
    }

    /// Bytes that were sent here and not yet written to the network.
    pub fn buffered_amount(&self) -> u64 {
        self.in_turn().buffered_amount()
    }

    /// The agreed subprotocol; empty if none was.
    pub fn protocol(&self) -> String {
        self.in_turn().protocol().to_owned()
    }

    /// Resource path, percent-decoded.
    pub fn path(&self) -> String {
        self.in_turn().path().to_owned()
    }

    /// What followed the first `?` of the request. Empty where `KEEPS_REQUEST` is false.
    pub fn query(&self) -> String {
        self.in_turn().query().to_owned()
    }

    /// Path and query: `/chat?room=blue`.
    pub fn url(&self) -> String {
        self.in_turn().url()
    }

    /// A parameter of the query, as in [`Upgrade::param`](crate::Upgrade::param).
    pub fn param(&self, name: &str) -> Option<String> {
        self.in_turn().param(name)
    }

    /// A parameter of the route, as in [`Upgrade::path_param`](crate::Upgrade::path_param).
    pub fn path_param(&self, name: &str) -> Option<String> {
        self.in_turn().path_param(name)
    }

    /// The first value of a header of the request, if it is text. `None` where `KEEPS_REQUEST` is false.
    pub fn header(&self, name: &str) -> Option<String> {
        self.in_turn().header(name).map(str::to_owned)
    }

    /// Address and port of the peer; see [`WebSocket::peer`](crate::WebSocket::peer).
    pub fn peer(&self) -> Option<SocketAddr> {
        self.in_turn().peer()
    }

    /// As [`WebSocket::subscribe`].
    ///
    /// # Errors
    /// As there.
    pub fn subscribe<'t>(&self, topic: impl Into<Topic<'t>>) -> Result<(), TopicError> {
        self.in_turn().subscribe(topic)
    }

    /// As [`WebSocket::unsubscribe`].
    pub fn unsubscribe<'t>(&self, topic: impl Into<Topic<'t>>) -> bool {
        self.in_turn().unsubscribe(topic)
    }

    /// As [`WebSocket::publish`]: to every subscriber but this session.
    pub fn publish<'t>(&self, topic: impl Into<Topic<'t>>, message: impl AsMessage) -> SendStatus {
        message.lend(|message| self.in_turn().publish(topic, message))
    }

    /// As [`Upgrade::is_secure`](crate::Upgrade::is_secure).
    pub fn is_secure(&self) -> bool {
        self.in_turn().is_secure()
    }

    /// As [`Upgrade::user`](crate::Upgrade::user).
    pub fn user(&self) -> Option<String> {
        self.in_turn().user().map(str::to_owned)
    }

    /// As [`Upgrade::tls_subject`](crate::Upgrade::tls_subject).
    pub fn tls_subject(&self) -> Option<String> {
        self.in_turn().tls_subject().map(str::to_owned)
    }

    /// A handle to this session, for any thread and any time.
    pub fn handle(&self) -> Handle {
        self.in_turn().handle()
    }

    /// The session, if it is this socket's turn on this thread.
    #[inline]
    fn turn(&self) -> Option<WebSocket> {
        let turn = TURN.get();
        // SAFETY: the session was lent to `in_turn_of` for longer than the turn, and no `WebSocket` leaves this module.
        std::ptr::eq(turn.socket, self).then(|| unsafe { WebSocket::new(turn.session) })
    }

    #[inline]
    #[track_caller]
    pub(crate) fn in_turn(&self) -> WebSocket {
        self.turn()
            .expect("a socket is used inside its transfer_data, on that thread; elsewhere its handle()")
    }

    /// For callers that have asked for the turn.
    #[inline]
    fn with_state<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        debug_assert!(std::ptr::eq(TURN.get().socket, self), "asked before");
        // SAFETY: it is this socket's turn on this thread and on no other; `act` is of this module, and calls nothing that comes
        // back here.
        act(unsafe { &mut *self.state.get() })
    }

    // ---- what the callbacks do -----------------------------------------------------------------------------------------

    /// Makes it this socket's turn while `act` runs.
    ///
    /// # Safety
    /// `session` is the host's pointer, good until this returns, and this is called inside its callback.
    #[inline]
    pub(crate) unsafe fn in_turn_of<R>(&self, session: *mut wsh_session, act: impl FnOnce() -> R) -> R {
        struct Restore(Turn);
        impl Drop for Restore {
            fn drop(&mut self) {
                TURN.set(self.0);
            }
        }
        let _restore = Restore(TURN.replace(Turn { socket: self, session }));
        act()
    }

    /// In a turn: a message came. Its bytes are good until [`end_offer`](Self::end_offer).
    #[inline]
    pub(crate) fn offer(&self, kind: Kind, bytes: &[u8]) {
        let wakers = self.with_state(|state| {
            state.serial += 1;
            // Held, it gets no message; a server that delivered one all the same would not make it lose the one before.
            if state.pending.is_none() && !state.is_over {
                let bytes: *const [u8] = bytes;
                state.offer = Some(Offer { kind, bytes, serial: state.serial, is_taken: false });
            }
            std::mem::take(&mut state.wakers)
        });
        wakers.into_iter().for_each(Waker::wake);
    }

    /// In a turn: what is left of the offer is copied. The callback returns next.
    #[inline]
    pub(crate) fn end_offer(&self) {
        self.with_state(|state| {
            let Some(offer) = state.offer.take() else { return };
            // SAFETY: the callback that offered it has not returned.
            let message = unsafe { offer.owned() };
            state.kept.push(Kept { serial: offer.serial, message });
            if !offer.is_taken {
                state.pending = Some(offer.serial);
            }
        });
    }

    /// In a turn: the peer takes messages again.
    pub(crate) fn set_writable(&self) {
        self.wake_after(|state| state.is_slow = false);
    }

    /// In a turn: no more messages come.
    pub(crate) fn set_over(&self, code: u16, reason: &str) {
        self.wake_after(|state| {
            state.is_over = true;
            state.close = Some((code, reason.into()));
        });
    }

    fn wake_after(&self, change: impl FnOnce(&mut State)) {
        let wakers = self.with_state(|state| {
            change(state);
            std::mem::take(&mut state.wakers)
        });
        wakers.into_iter().for_each(Waker::wake);
    }

    /// In a turn: whether the future waits for a message and for nothing that has come.
    #[inline]
    pub(crate) fn is_receiving(&self) -> bool {
        self.with_state(|state| state.receivers > 0 && state.pending.is_none())
    }

    /// In a turn: nothing is left of the future that was dropped. A message that nobody has taken stays.
    pub(crate) fn forget_future(&self) {
        let wakers = self.with_state(|state| {
            state.receivers = 0;
            let pending = state.pending;
            state.kept.retain(|kept| Some(kept.serial) == pending);
            std::mem::take(&mut state.wakers)
        });
        drop(wakers);
    }

    /// In a turn: polls a future with a waker that has `on_wake` called.
    #[inline]
    pub(crate) fn poll<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        if let Some((_, waker)) = self.bell.get() {
            return future.poll(&mut Context::from_waker(waker));
        }
        // SAFETY: the table's functions take the pointer for this socket, which outlives the waker; clones do not have it.
        let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(self).cast(), &LENT_WAKER)) };
        let polled = future.poll(&mut Context::from_waker(&waker));
        self.arm();
        polled
    }

    /// In a turn: gives the bell its handle, if one was made without.
    fn arm(&self) {
        if let Some((bell, _)) = self.bell.get() {
            bell.arm(|| self.in_turn().handle());
        }
    }

    /// Outside of a turn, when the future is gone: wakers that somebody still has do nothing, and hold nothing of the server.
    pub(crate) fn retire(&self) {
        if let Some((bell, _)) = self.bell.get() {
            bell.retire();
        }
    }

    fn bell(&self) -> &(Arc<Bell>, Waker) {
        self.bell.get_or_init(|| {
            let bell = Arc::new(Bell(Mutex::new(Clapper::New { is_rung: false })));
            (bell.clone(), Waker::from(bell))
        })
    }

    fn message<R>(&self, serial: u64, act: impl FnOnce(Message<'_>) -> R) -> R {
        self.in_turn();
        let borrowed = self.with_state(|state| state.offer.filter(|offer| offer.serial == serial));
        match borrowed {
            // SAFETY: the callback that offered it has not returned, because it is this socket's turn and the offer is there;
            // the lifetime ends with `act`.
            Some(offer) => act(unsafe { offer.message() }),
            None => act(self.kept(serial)),
        }
    }

    /// A message that was kept, or is kept from now on; for as long as its [`Received`] is there.
    fn kept(&self, serial: u64) -> Message<'_> {
        let (kind, bytes): (Kind, *const [u8]) = self.with_state(|state| {
            if let Some(offer) = state.offer
                && offer.serial == serial
            {
                state.offer = None;
                // SAFETY: as in `message`.
                state.kept.push(Kept { serial, message: unsafe { offer.owned() } });
            }
            let kept = state.kept.iter().find(|kept| kept.serial == serial);
            let message = kept.expect("a message is kept as long as it is there").message.as_message();
            (message.kind(), std::ptr::from_ref(message.as_bytes()))
        });
        // SAFETY: it is this socket's turn. What is returned lies on the heap, where neither a growing `kept` nor one that other
        // messages are taken from moves it; it is freed by the drop of its `Received`, which is borrowed as long.
        unsafe { Offer { kind, bytes, serial, is_taken: true }.message() }
    }
}

impl Offer {
    /// # Safety
    /// The callback that offered it does not return while the message is used.
    unsafe fn message<'a>(self) -> Message<'a> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { &*self.bytes };
        match self.kind {
            // SAFETY: the server has checked what it delivers as text (wsh.h).
            Kind::Text => Message::Text(unsafe { std::str::from_utf8_unchecked(bytes) }),
            Kind::Binary => Message::Binary(bytes),
        }
    }

    /// # Safety
    /// As `message`.
    unsafe fn owned(self) -> OwnedMessage {
        // SAFETY: the caller's promise.
        unsafe { self.message() }.into()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

// ---- receiving ---------------------------------------------------------------------------------------------------------

/// Waits for a message; see [`Socket::receive`].
#[must_use = "nothing is received before it is awaited"]
#[derive(Debug)]
pub struct Receive<'s> {
    socket: &'s Socket,
    is_waiting: bool,
}

impl<'s> Future for Receive<'s> {
    type Output = Option<Received<'s>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let socket = this.socket;
        socket.in_turn();
        let taken = socket.with_state(|state| {
            let serial = match &mut state.offer {
                _ if state.pending.is_some() => state.pending.take(),
                Some(offer) if !offer.is_taken => {
                    offer.is_taken = true;
                    Some(offer.serial)
                }
                _ => None,
            };
            if serial.is_none() && !state.is_over {
                if !this.is_waiting {
                    this.is_waiting = true;
                    state.receivers += 1;
                }
                return Poll::Pending;
            }
            if std::mem::take(&mut this.is_waiting) {
                state.receivers = state.receivers.saturating_sub(1);
            }
            Poll::Ready(serial)
        });
        match taken {
            Poll::Pending => {
                socket.remember(cx.waker());
                Poll::Pending
            }
            Poll::Ready(serial) => {
                Poll::Ready(serial.map(|serial| Received { socket, serial, one_thread: PhantomData }))
            }
        }
    }
}

impl Drop for Receive<'_> {
    fn drop(&mut self) {
        // Outside of a turn the whole future is dropped, and its socket next.
        if self.is_waiting && self.socket.turn().is_some() {
            self.socket.with_state(|state| state.receivers = state.receivers.saturating_sub(1));
        }
    }
}

impl Socket {
    /// Keeps the waker of a part of the future. The future's own is not kept: it is polled by the callback.
    #[inline]
    fn remember(&self, waker: &Waker) {
        let is_lent = std::ptr::eq(waker.data(), std::ptr::from_ref(self).cast());
        if is_lent || self.bell.get().is_some_and(|(_, own)| own.will_wake(waker)) {
            return;
        }
        let waker = waker.clone();
        self.with_state(|state| {
            if !state.wakers.iter().any(|known| known.will_wake(&waker)) {
                state.wakers.push(waker);
            }
        });
    }
}

/// A message, as long as it is there.
///
/// Sent on or looked at with [`with`](Self::with), it is not copied. [`as_text`](Self::as_text) and
/// [`as_bytes`](Self::as_bytes) copy it once, because what they return may be kept across an `await`; and so does an `await`
/// while it is there.
pub struct Received<'s> {
    socket: &'s Socket,
    serial: u64,
    /// Methods are called in a turn only; sharing it between threads would be of no use.
    one_thread: PhantomData<Cell<()>>,
}

impl Received<'_> {
    /// Looks at the message without copying it.
    pub fn with<R>(&self, look: impl FnOnce(Message<'_>) -> R) -> R {
        self.socket.message(self.serial, look)
    }

    /// Text or binary. Copies nothing.
    pub fn kind(&self) -> Kind {
        self.with(|message| message.kind())
    }

    /// How many bytes it has. Copies nothing.
    pub fn len(&self) -> usize {
        self.with(|message| message.as_bytes().len())
    }

    /// Whether it has none. Copies nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        self.as_message().as_text()
    }

    /// The payload of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        self.as_message().as_bytes()
    }

    /// As `as_text` and `as_bytes`.
    pub fn as_message(&self) -> Message<'_> {
        self.socket.in_turn();
        self.socket.kept(self.serial)
    }

    /// The message for any thread and any time.
    pub fn into_owned(self) -> OwnedMessage {
        self.with(|message| OwnedMessage::from(message))
    }
}

impl Drop for Received<'_> {
    #[inline]
    fn drop(&mut self) {
        // Outside of a turn the whole future is dropped, and its socket with everything in it next.
        if self.socket.turn().is_none() {
            return;
        }
        self.socket.with_state(|state| {
            if state.offer.is_some_and(|offer| offer.serial == self.serial) {
                state.offer = None;
            } else if let Some(index) = state.kept.iter().position(|kept| kept.serial == self.serial) {
                state.kept.swap_remove(index);
            }
        });
    }
}

impl AsMessage for Received<'_> {
    #[inline]
    fn lend<R>(&self, send: impl FnOnce(Message<'_>) -> R) -> R {
        self.with(send)
    }
}

impl PartialEq<str> for Received<'_> {
    fn eq(&self, text: &str) -> bool {
        self.with(|message| message == Message::Text(text))
    }
}

impl PartialEq<&str> for Received<'_> {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
    }
}

impl PartialEq<Message<'_>> for Received<'_> {
    fn eq(&self, other: &Message<'_>) -> bool {
        self.with(|message| message == *other)
    }
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket.turn() {
            Some(_) => self.with(|message| f.debug_tuple("Received").field(&message).finish()),
            None => f.debug_struct("Received").finish_non_exhaustive(),
        }
    }
}

// ---- sending -----------------------------------------------------------------------------------------------------------

/// A message that was sent, and waits while the peer is slow; see [`Socket::send`]. Dropping it takes nothing back.
#[must_use = "await it, so that a slow peer is waited for; `let _ =` if it need not be"]
#[derive(Debug)]
pub struct Sending<'s> {
    socket: &'s Socket,
    is_sent: bool,
}

impl Future for Sending<'_> {
    type Output = Result<(), Closed>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_sent {
            return Poll::Ready(Err(Closed));
        }
        self.socket.in_turn();
        let (is_slow, is_over) = self.socket.with_state(|state| (state.is_slow, state.is_over));
        match (is_slow, is_over) {
            (false, _) => Poll::Ready(Ok(())),
            (true, true) => Poll::Ready(Err(Closed)),
            (true, false) => {
                self.socket.remember(cx.waker());
                Poll::Pending
            }
        }
    }
}

// ---- waking ------------------------------------------------------------------------------------------------------------

/// What the wakers of a future ring: it has `on_wake` called. When the session is over it holds nothing and does nothing.
struct Bell(Mutex<Clapper>);

enum Clapper {
    /// Made in a poll that has not ended, on whatever thread.
    New {
        is_rung: bool,
    },
    Hung(Handle),
    Gone,
}

impl Bell {
    fn arm(&self, handle: impl FnOnce() -> Handle) {
        let mut clapper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Clapper::New { is_rung } = *clapper {
            let handle = handle();
            if is_rung {
                handle.wake();
            }
            *clapper = Clapper::Hung(handle);
        }
    }

    fn retire(&self) {
        let before = {
            let mut clapper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *clapper, Clapper::Gone)
        };
        drop(before);
    }

    fn ring(&self) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Clapper::New { is_rung } => *is_rung = true,
            Clapper::Hung(handle) => drop(handle.wake()),
            Clapper::Gone => {}
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// A waker for one poll, which costs nothing unless the future takes it along. It may be used on other threads during the poll.
static LENT_WAKER: RawWakerVTable = RawWakerVTable::new(clone_lent, wake_lent, wake_lent, |_| {});

unsafe fn clone_lent(socket: *const ()) -> RawWaker {
    // SAFETY: `poll` passes its socket, which outlives the poll that the lent waker is for.
    let (_, waker) = unsafe { &*socket.cast::<Socket>() }.bell();
    let clone = std::mem::ManuallyDrop::new(waker.clone());
    RawWaker::new(clone.data(), clone.vtable())
}

unsafe fn wake_lent(socket: *const ()) {
    // SAFETY: as in `clone_lent`.
    let (bell, _) = unsafe { &*socket.cast::<Socket>() }.bell();
    bell.ring();
}
