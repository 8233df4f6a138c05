//! The blocking face: a thread for each session.
//!
//! Between the thread and the session's worker lie two short queues. A full one makes the peer wait (`WSH_HOLD`) or the thread.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::abi::{self, wsh_handler_api, wsh_session, wsh_status, wsh_upgrade};
use crate::export::{EMPTY_TABLE, Face, bytes, discard, fence, text};
use crate::message::OwnedMessage;
use crate::sequential::failed;
use crate::socket::{AsMessage, Closed, Failure};
use crate::{
    Close, CloseError, Handle, Message, RawError, ReadyState, Reject, SendStatus, Topic, Upgrade, WebSocket,
};

/// A handler that may block: one thread for each session.
///
/// ```
/// use handler_api::{BlockingHandler, BlockingSocket, Failure, Reject, Upgrade, export_handler};
///
/// struct Echo;
///
/// impl BlockingHandler for Echo {
///     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
///         Ok(Echo)
///     }
///     fn transfer_data(&mut self, socket: &mut BlockingSocket) -> Result<(), Failure> {
///         while let Some(message) = socket.receive() {
///             socket.send(&message)?;
///         }
///         Ok(())
///     }
/// }
///
/// export_handler!(Echo, blocking);
/// ```
///
/// A thread costs about 25 KiB and a message about 10 microseconds more than with the other faces. A session keeps the library
/// loaded until its thread has ended: one that never returns keeps an old version in memory for ever.
pub trait BlockingHandler: Sized + Send + 'static {
    /// As [`Handler::KEEPS_REQUEST`](crate::Handler::KEEPS_REQUEST).
    const KEEPS_REQUEST: bool = true;

    /// As [`Handler::on_upgrade`](crate::Handler::on_upgrade). Called on the worker: it should not block.
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject>;

    /// The whole conversation, on a thread of its own. `Ok` closes the session with 1000, an error with 1011 and a line in the
    /// log, unless it is closed already. A panic closes this session with 1011. The object is dropped on this thread.
    ///
    /// When the peer closes or is gone, `receive` returns `None` and `send` fails: return then.
    fn transfer_data(&mut self, socket: &mut BlockingSocket) -> Result<(), Failure>;

    /// The peer begins the closing handshake: the code of the answer, by default the peer's own. Called on the worker.
    fn on_closing(close: Close<'_>) -> u16 {
        close.code
    }

    /// As [`Handler::on_load`](crate::Handler::on_load).
    fn on_load() -> Result<(), String> {
        Ok(())
    }

    /// As [`Handler::on_quiesce`](crate::Handler::on_quiesce).
    fn on_quiesce() {}

    /// As [`Handler::on_unload`](crate::Handler::on_unload). The threads of the sessions have ended.
    fn on_unload() {}
}

/// A handler of the blocking face where a handler of any face can stand: `Fake::<Blocking<Echo>>`.
#[derive(Debug)]
pub struct Blocking<H>(PhantomData<H>);

impl<H: BlockingHandler> Face for Blocking<H> {
    const KEEPS_REQUEST: bool = H::KEEPS_REQUEST;

    fn on_load() -> Result<(), String> {
        H::on_load()
    }

    const TABLE: wsh_handler_api = wsh_handler_api {
        on_upgrade: Some(on_upgrade::<H>),
        on_open: Some(on_open::<H>),
        on_message: Some(on_message::<H>),
        on_wake: Some(on_wake::<H>),
        on_writable: Some(on_writable::<H>),
        on_closing: Some(on_closing::<H>),
        on_close: Some(on_close::<H>),
        free_session: Some(free_session::<H>),
        quiesce: Some(quiesce::<H>),
        shutdown: Some(shutdown::<H>),
        ..EMPTY_TABLE
    };
}

/// What a queue takes: so many messages, and one more when so many bytes wait.
const MESSAGES_MAX: usize = 16;
const BYTES_MAX: usize = 256 * 1024;

/// The session that [`transfer_data`](BlockingHandler::transfer_data) is about.
#[derive(Debug)]
pub struct BlockingSocket {
    shared: Arc<Shared>,
    handle: Handle,
    request: Request,
    /// The server's config grants it raw access.
    is_raw: bool,
}

/// What the session was asked with; for the thread, because the server's own is lent to callbacks only.
#[derive(Debug)]
struct Request {
    path: String,
    query: String,
    params: String,
    protocol: String,
    peer: Option<SocketAddr>,
    headers: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// Something came for the thread, or there is room again.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queues {
    incoming: Queue<OwnedMessage>,
    outgoing: Queue<Out>,
    /// The peer waits for room in `incoming`.
    is_held: bool,
    /// The worker waits for `on_writable`.
    is_slow: bool,
    /// No more messages come.
    is_over: bool,
    /// Nothing can be sent any more.
    is_closed: bool,
    /// Code and reason, when no more messages come.
    close: Option<(u16, String)>,
    /// The thread has ended, and this is what the server is to be told behind everything that was sent.
    ended: Option<wsh_status>,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<T>,
    bytes: usize,
}

#[derive(Debug)]
enum Out {
    Message(OwnedMessage),
    Ping(Vec<u8>),
    Close(u16, String),
    Abort,
    End,
    Raw(Vec<u8>),
    ReceiveRaw,
    /// The topic by scope and name.
    Subscribe(u32, String),
    Unsubscribe(u32, String),
}

trait Size {
    fn size(&self) -> usize;
}

impl Size for OwnedMessage {
    fn size(&self) -> usize {
        self.as_bytes().len()
    }
}

impl Size for Out {
    fn size(&self) -> usize {
        match self {
            Self::Message(message) => message.size(),
            Self::Raw(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Size> Queue<T> {
    fn is_full(&self) -> bool {
        self.waiting.len() >= MESSAGES_MAX || self.bytes >= BYTES_MAX
    }

    fn push(&mut self, item: T) {
        self.bytes += item.size();
        self.waiting.push_back(item);
    }

    fn pop(&mut self) -> Option<T> {
        let item = self.waiting.pop_front()?;
        self.bytes -= item.size();
        Some(item)
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&'q self, queues: MutexGuard<'q, Queues>) -> MutexGuard<'q, Queues> {
        self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockingSocket {
    /// The next message, when it is there; `None` when no more come: the peer has closed or is gone.
    pub fn receive(&mut self) -> Option<OwnedMessage> {
        let mut queues = self.shared.queues();
        loop {
            if let Some(message) = queues.incoming.pop() {
                let wakes = queues.is_held && !queues.incoming.is_full();
                drop(queues);
                if wakes {
                    self.handle.wake();
                }
                return Some(message);
            }
            if queues.is_over {
                return None;
            }
            queues = self.shared.wait(queues);
        }
    }

    /// Sends a message; waits while the peer is slow.
    ///
    /// # Errors
    /// The session is closing or over; the message is lost.
    pub fn send(&mut self, message: impl AsMessage) -> Result<(), Closed> {
        let message = message.lend(|message| OwnedMessage::from(message));
        self.post(Out::Message(message))
    }

    /// Sends a ping of at most 125 bytes.
    ///
    /// # Errors
    /// [`CloseError::Invalid`] for more than 125 bytes, [`CloseError::Closed`] when the session is closing or over.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), CloseError> {
        if payload.len() > 125 {
            return Err(CloseError::Invalid);
        }
        self.post(Out::Ping(payload.to_owned())).map_err(|Closed| CloseError::Closed)
    }

    /// Begins the closing handshake, behind what was sent before; see [`WebSocket::close`]. A code that may not be sent is
    /// answered with 1011 instead, and a line in the log.
    ///
    /// # Errors
    /// [`CloseError::Invalid`] for a reason of more than 123 bytes, [`CloseError::Closed`] if the session is closing or over.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), CloseError> {
        if reason.len() > 123 {
            return Err(CloseError::Invalid);
        }
        self.post(Out::Close(code, reason.to_owned())).map_err(|Closed| CloseError::Closed)
    }

    /// Drops the connection without a Close frame, behind what was sent before.
    pub fn abort(&mut self) {
        let _ = self.post(Out::Abort);
    }

    /// As [`WebSocket::end`], behind what was sent before.
    pub fn end(&mut self) {
        let _ = self.post(Out::End);
    }

    /// As [`WebSocket::send_raw`]; waits while the peer is slow. Behind [`close`](Self::close) nothing can be sent.
    ///
    /// # Errors
    /// [`RawError::Forbidden`], [`RawError::Closed`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        self.post_raw(Out::Raw(bytes.to_owned()))
    }

    /// As [`WebSocket::receive_raw`], behind what was sent before: [`receive`](Self::receive) brings bytes then, behind what has arrived
    /// meanwhile.
    ///
    /// # Errors
    /// [`RawError::Forbidden`], [`RawError::Closed`].
    pub fn receive_raw(&mut self) -> Result<(), RawError> {
        self.post_raw(Out::ReceiveRaw)
    }

    fn post_raw(&self, out: Out) -> Result<(), RawError> {
        if !self.is_raw {
            return Err(RawError::Forbidden);
        }
        self.post(out).map_err(|Closed| RawError::Closed)
    }

    /// From now on the peer gets what is published to the topic, see [`WebSocket::subscribe`], behind what was sent before. What is
    /// published does not come to this thread.
    ///
    /// # Errors
    /// The session is closed. A name that is empty or too long, and more than 1024 topics, are a line in the log.
    pub fn subscribe<'t>(&mut self, topic: impl Into<Topic<'t>>) -> Result<(), Closed> {
        let Topic { scope, name } = topic.into();
        self.post(Out::Subscribe(scope, name.to_owned()))
    }

    /// Ends what [`subscribe`](Self::subscribe) began.
    ///
    /// # Errors
    /// The session is closed.
    pub fn unsubscribe<'t>(&mut self, topic: impl Into<Topic<'t>>) -> Result<(), Closed> {
        let Topic { scope, name } = topic.into();
        self.post(Out::Unsubscribe(scope, name.to_owned()))
    }

    /// The code with which the session was closed by the peer, or ended; `None` while messages come.
    pub fn close_code(&self) -> Option<u16> {
        self.shared.queues().close.as_ref().map(|(code, _)| *code)
    }

    /// The reason that the peer closed with; empty if it gave none, and while messages come.
    pub fn close_reason(&self) -> String {
        self.shared.queues().close.as_ref().map_or_else(String::new, |(_, reason)| reason.clone())
    }

    /// A handle to this session, for any thread and any time. What it sends may overtake what this socket has sent.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The agreed subprotocol; empty if none was.
    pub fn protocol(&self) -> &str {
        &self.request.protocol
    }

    /// Resource path, percent-decoded.
    pub fn path(&self) -> &str {
        &self.request.path
    }

    /// What followed the first `?` of the request. Empty where `KEEPS_REQUEST` is false.
    pub fn query(&self) -> &str {
        &self.request.query
    }

    /// A parameter of the query, as in [`Upgrade::param`].
    pub fn param(&self, name: &str) -> Option<String> {
        crate::upgrade::param(&self.request.query, name)
    }

    /// A parameter of the route, as in [`Upgrade::path_param`].
    pub fn path_param(&self, name: &str) -> Option<String> {
        crate::upgrade::param(&self.request.params, name)
    }

    /// The first value of a header of the request, if it is text. `None` where `KEEPS_REQUEST` is false.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.request.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Address and port of the peer; see [`WebSocket::peer`](crate::WebSocket::peer).
    pub fn peer(&self) -> Option<SocketAddr> {
        self.request.peer
    }

    fn post(&self, out: Out) -> Result<(), Closed> {
        let mut queues = self.shared.queues();
        while queues.outgoing.is_full() && !queues.is_closed {
            queues = self.shared.wait(queues);
        }
        if queues.is_closed {
            return Err(Closed);
        }
        queues.outgoing.push(out);
        // The worker that waits for the peer needs no word; it comes when the peer has taken enough.
        let wakes = !queues.is_slow;
        drop(queues);
        if wakes {
            self.handle.wake();
        }
        Ok(())
    }
}

// ---- the thread --------------------------------------------------------------------------------------------------------

/// Threads that were started and not joined yet.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

fn start<H: BlockingHandler>(mut handler: H, mut socket: BlockingSocket) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("session".to_owned()).spawn(move || {
        let talk = AssertUnwindSafe(|| {
            let result = handler.transfer_data(&mut socket);
            drop(handler);
            result
        });
        let status = match std::panic::catch_unwind(talk) {
            Ok(Ok(())) => abi::WSH_DONE,
            Ok(Err(error)) if error.is::<Closed>() => abi::WSH_DONE,
            Ok(Err(error)) => failed(error),
            Err(payload) => {
                discard(payload);
                abi::WSH_E_PANIC
            }
        };
        socket.shared.queues().ended = Some(status);
        socket.handle.wake();
    })?;
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let ended: Vec<_> = threads.extract_if(.., |thread| thread.is_finished()).collect();
    threads.push(thread);
    drop(threads);
    ended.into_iter().for_each(join);
    Ok(())
}

fn join(thread: JoinHandle<()>) {
    if let Err(payload) = thread.join() {
        discard(payload);
    }
}

fn join_all() {
    let threads = std::mem::take(&mut *THREADS.lock().unwrap_or_else(PoisonError::into_inner));
    threads.into_iter().for_each(join);
}

// ---- the callbacks -----------------------------------------------------------------------------------------------------

/// The object of a session, on the worker's side.
struct Session<H> {
    shared: Arc<Shared>,
    /// Until its thread is started.
    handler: Option<H>,
}

impl<H: BlockingHandler> Session<H> {
    fn open(&mut self, socket: &WebSocket) -> wsh_status {
        let Some(handler) = self.handler.take() else { return abi::WSH_OK };
        let request = Request {
            path: socket.path().to_owned(),
            query: socket.query().to_owned(),
            params: socket.params().to_owned(),
            protocol: socket.protocol().to_owned(),
            peer: socket.peer(),
            headers: socket.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        let is_raw = crate::raw::granted();
        let blocking =
            BlockingSocket { shared: self.shared.clone(), handle: socket.handle(), request, is_raw };
        match start(handler, blocking) {
            Ok(()) => abi::WSH_OK,
            Err(error) => failed(format_args!("no thread can be started: {error}")),
        }
    }

    fn take(&mut self, message: Message<'_>) -> wsh_status {
        let mut queues = self.shared.queues();
        if queues.ended.is_none() {
            queues.incoming.push(message.into());
        }
        self.shared.changed.notify_all();
        queues.hold()
    }

    /// Sends what the thread has left, as far as the peer takes it, and in the end says what it ended with.
    fn send(&mut self, socket: &WebSocket) -> wsh_status {
        let mut queues = self.shared.queues();
        while !queues.is_slow
            && let Some(out) = queues.outgoing.pop()
        {
            match out {
                Out::Message(message) => {
                    queues.is_slow = socket.send(message.as_message()) == SendStatus::Slow;
                }
                Out::Ping(payload) => drop(socket.ping(&payload)),
                Out::Close(code, reason) => {
                    if socket.close(code, &reason) == Err(CloseError::Invalid) {
                        failed(format_args!("{code} is no code that may be sent"));
                        let _ = socket.close(1011, "");
                    }
                }
                Out::Abort => socket.abort(),
                Out::End => socket.end(),
                Out::Raw(bytes) => queues.is_slow = socket.send_raw(&bytes) == Ok(SendStatus::Slow),
                Out::ReceiveRaw => drop(socket.receive_raw()),
                Out::Subscribe(scope, name) => {
                    if let Err(error) = socket.subscribe(Topic { scope, name: &name }) {
                        failed(format_args!("it does not hear {name}: {error}"));
                    }
                }
                Out::Unsubscribe(scope, name) => drop(socket.unsubscribe(Topic { scope, name: &name })),
            }
        }
        queues.is_closed = socket.ready_state() != ReadyState::Open;
        self.shared.changed.notify_all();
        match queues.ended {
            Some(status) if queues.outgoing.waiting.is_empty() => {
                queues.is_held = false;
                if queues.is_closed && status >= abi::WSH_OK { abi::WSH_OK } else { status }
            }
            _ => queues.hold(),
        }
    }

    fn end(&mut self, code: u16, reason: &str) {
        let mut queues = self.shared.queues();
        (queues.is_over, queues.is_closed) = (true, true);
        queues.close.get_or_insert_with(|| (code, reason.to_owned()));
        self.shared.changed.notify_all();
    }
}

impl Queues {
    /// Whether the peer has to wait.
    fn hold(&mut self) -> wsh_status {
        self.is_held = self.ended.is_none() && !self.is_over && self.incoming.is_full();
        if self.is_held { abi::WSH_HOLD } else { abi::WSH_OK }
    }
}

/// # Safety
/// The object came from `on_upgrade::<H>` and was not freed; calls for one object do not overlap; `session` is good for the length
/// of the call (wsh.h).
unsafe fn with<H: BlockingHandler, R>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    on_panic: R,
    act: impl FnOnce(&mut Session<H>, &WebSocket) -> R,
) -> R {
    // SAFETY: the caller's promise.
    fence("the session", on_panic, || unsafe { act(&mut *ctx.cast(), &WebSocket::new(session)) })
}

unsafe extern "C" fn on_upgrade<H: BlockingHandler>(
    _: *mut c_void,
    upgrade: *mut wsh_upgrade,
    slot: *mut *mut c_void,
) -> wsh_status {
    let object = |handler: H| {
        let session = Session { shared: Arc::default(), handler: Some(handler) };
        Box::into_raw(Box::new(session)).cast()
    };
    // SAFETY: the host's pointers are good until this returns (wsh.h).
    unsafe { crate::export::upgrade(upgrade, slot, H::on_upgrade, object) }
}

unsafe extern "C" fn on_open<H: BlockingHandler>(ctx: *mut c_void, session: *mut wsh_session) -> wsh_status {
    // SAFETY: the host passes the object of this session and a session that is good until this returns (wsh.h).
    unsafe { with::<H, _>(ctx, session, abi::WSH_E_PANIC, Session::open) }
}

unsafe extern "C" fn on_message<H: BlockingHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: as in `on_open`; the bytes are readable until this returns, and UTF-8 if they are a text (wsh.h).
    unsafe {
        let message = match kind {
            abi::WSH_TEXT => Message::Text(text(data, len)),
            _ => Message::Binary(bytes(data, len)),
        };
        with::<H, _>(ctx, session, abi::WSH_E_PANIC, |session, _| session.take(message))
    }
}

unsafe extern "C" fn on_wake<H: BlockingHandler>(ctx: *mut c_void, session: *mut wsh_session) -> wsh_status {
    // SAFETY: as in `on_open`.
    unsafe { with::<H, _>(ctx, session, abi::WSH_E_PANIC, Session::send) }
}

unsafe extern "C" fn on_writable<H: BlockingHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
) -> wsh_status {
    // SAFETY: as in `on_open`.
    unsafe {
        with::<H, _>(ctx, session, abi::WSH_E_PANIC, |session, socket| {
            session.shared.queues().is_slow = false;
            session.send(socket)
        })
    }
}

unsafe extern "C" fn on_closing<H: BlockingHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    code: u16,
    reason: *const u8,
    len: usize,
    reply: *mut u16,
) -> wsh_status {
    // SAFETY: as in `on_open`; the reason is readable UTF-8, the reply writable (wsh.h).
    unsafe {
        with::<H, _>(ctx, session, abi::WSH_E_PANIC, |session, socket| {
            // What the thread has sent so far goes out before the answer.
            let status = session.send(socket);
            let reason = text(reason, len);
            session.end(code, reason);
            *reply = H::on_closing(Close { code, reason, was_clean: true });
            status.min(abi::WSH_OK)
        })
    }
}

unsafe extern "C" fn on_close<H: BlockingHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    code: u16,
    reason: *const u8,
    len: usize,
    _: u32,
) {
    // SAFETY: as in `on_open`; the reason is readable UTF-8 (wsh.h).
    unsafe { with::<H, _>(ctx, session, (), |session, _| session.end(code, text(reason, len))) }
}

unsafe extern "C" fn free_session<H: BlockingHandler>(ctx: *mut c_void) {
    fence("free_session", (), || {
        // SAFETY: the object came from `on_upgrade::<H>`, and this is the last call for it (wsh.h).
        let mut session = unsafe { Box::from_raw(ctx.cast::<Session<H>>()) };
        session.end(1006, "");
    });
}

unsafe extern "C" fn quiesce<H: BlockingHandler>(_: *mut c_void) {
    fence("quiesce", (), H::on_quiesce);
}

unsafe extern "C" fn shutdown<H: BlockingHandler>(_: *mut c_void) {
    fence("shutdown", (), join_all);
    crate::export::unload(H::on_unload);
}
