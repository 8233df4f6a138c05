//! The sequential face: a future for each session, that receives and sends one message after the other.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::Poll;

use crate::abi::{self, wsh_handler_api, wsh_session, wsh_sink, wsh_status, wsh_upgrade};
use crate::export::{Face, Migrates, StartsEmpty, bytes, fence, text};
use crate::message::Kind;
use crate::reload::Reload;
use crate::socket::{Closed, Failure, Socket};
use crate::{Close, Migrate, ReadyState, Reject, Upgrade, WebSocket};

/// A handler that is written from top to bottom, as pywebsocket's are: one future for each session.
///
/// ```
/// use handler_api::{AsyncHandler, Failure, Reject, Socket, Upgrade, export_handler};
///
/// struct Echo;
///
/// impl AsyncHandler for Echo {
///     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
///         Ok(Echo)
///     }
///     async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
///         while let Some(message) = socket.receive().await {
///             socket.send(message).await?;
///         }
///         Ok(())
///     }
/// }
///
/// export_handler!(Echo, async);
/// ```
///
/// The future is polled inside the callbacks of its session, on the worker of that session; there is no executor. Futures of any
/// library work in it whose wakers may be called from any thread. While it waits for something else than
/// [`receive`](Socket::receive), nothing is read from the peer, which feels the backpressure. Blocking in it makes the other
/// sessions of the worker wait.
pub trait AsyncHandler: Sized + Send + 'static {
    /// As [`Handler::KEEPS_REQUEST`](crate::Handler::KEEPS_REQUEST).
    const KEEPS_REQUEST: bool = true;

    /// As [`Handler::on_upgrade`](crate::Handler::on_upgrade).
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject>;

    /// The whole conversation. `Ok` closes the session with 1000, an error with 1011 and a line in the log, unless it is closed
    /// already. A panic closes this session with 1011.
    ///
    /// When the peer closes or is gone, `receive` returns `None`, and the future is polled once more before it is dropped: what
    /// has to be done in any case belongs into a `Drop`.
    fn transfer_data(&mut self, socket: &Socket) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The peer begins the closing handshake: the code of the answer, by default the peer's own. A future that calls
    /// [`Socket::close`] when `receive` returns `None` has chosen before.
    fn on_closing(close: Close<'_>) -> u16 {
        close.code
    }

    /// As [`Handler::on_load`](crate::Handler::on_load).
    fn on_load() -> Result<(), String> {
        Ok(())
    }

    /// As [`Handler::on_quiesce`](crate::Handler::on_quiesce).
    fn on_quiesce() {}

    /// As [`Handler::on_unload`](crate::Handler::on_unload).
    fn on_unload() {}
}

/// A handler of the sequential face where a handler of any face can stand: `Fake::<Async<Echo>>`.
#[derive(Debug)]
pub struct Async<H>(PhantomData<H>);

impl<H: AsyncHandler> Face for Async<H> {
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
        ..crate::export::EMPTY_TABLE
    };
}

impl<H: AsyncHandler + Migrate> Migrates for Async<H> {
    const RELOAD: Reload = Reload {
        flags: abi::WSH_LIBRARY_MIGRATES,
        state_version: crate::reload::version_of::<H>(),
        export_state: Some(export_state::<H>),
        cancel_export: Some(cancel_export::<H>),
        import_state: Some(import_state::<H>),
    };
}

impl<H: AsyncHandler + Default> StartsEmpty for Async<H> {
    const RELOAD: Reload = Reload {
        flags: abi::WSH_LIBRARY_MIGRATES,
        state_version: 0,
        export_state: Some(export_nothing::<H>),
        cancel_export: Some(restart::<H>),
        import_state: Some(import_default::<H>),
    };
}

type Conversation = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// The object of a session. It stays where it is; its parts are only reached one by one, because the future borrows two of them.
struct Task<H> {
    /// Borrows the other two. Dropped first.
    future: Option<Conversation>,
    is_over: bool,
    socket: Socket,
    handler: UnsafeCell<H>,
}

/// What became of the future for now.
enum State {
    Receiving,
    /// It waits for something else.
    Elsewhere,
    Ended(wsh_status),
}

fn accept<H>(handler: H) -> *mut c_void {
    let task =
        Task { future: None, is_over: false, socket: Socket::new(), handler: UnsafeCell::new(handler) };
    Box::into_raw(Box::new(task)).cast()
}

/// # Safety
/// The object came from `accept::<H>` and was not freed; calls for one object do not overlap; `session` is good for the length of
/// the call (wsh.h).
#[inline]
unsafe fn in_turn<H: AsyncHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    act: impl FnOnce(*mut Task<H>, &Socket) -> wsh_status,
) -> wsh_status {
    let task = ctx.cast::<Task<H>>();
    fence("transfer_data", abi::WSH_E_PANIC, || {
        // SAFETY: the caller's promise; a socket is only ever borrowed shared.
        let socket = unsafe { &(*task).socket };
        // SAFETY: the caller's promise.
        unsafe { socket.in_turn_of(session, || act(task, socket)) }
    })
}

/// Begins the conversation.
///
/// # Safety
/// As `in_turn`; there is no future that borrows the handler.
unsafe fn begin<H: AsyncHandler>(task: *mut Task<H>) {
    // SAFETY: the task stays where it is until `free`, which drops the future first; nothing else borrows the handler while
    // there is a future, and the socket is only borrowed shared.
    let (handler, socket) = unsafe { (&mut *(*task).handler.get(), &(*task).socket) };
    let future: Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + '_>> =
        Box::pin(H::transfer_data(handler, socket));
    // SAFETY: only the lifetime changes, for the reasons above.
    let future =
        unsafe { std::mem::transmute::<Pin<Box<dyn Future<Output = _> + Send + '_>>, Conversation>(future) };
    // SAFETY: the caller's promise.
    unsafe { (*task).future = Some(future) };
}

/// Polls the conversation, which begins if it has not yet.
///
/// # Safety
/// As `in_turn`, inside of its turn.
#[inline]
unsafe fn advance<H: AsyncHandler>(task: *mut Task<H>, socket: &Socket) -> State {
    #[cfg(feature = "tokio")]
    let _entered = crate::runtime::enter();
    // SAFETY: the caller's promise; what borrows the future borrows nothing else of the task.
    let conversation = unsafe {
        if (*task).is_over {
            return State::Ended(abi::WSH_OK);
        }
        if (*task).future.is_none() {
            begin(task);
        }
        let future = &mut (*task).future;
        future.as_mut().expect("it has begun")
    };
    let Poll::Ready(result) = socket.poll(conversation.as_mut()) else {
        return if socket.is_receiving() { State::Receiving } else { State::Elsewhere };
    };
    // SAFETY: the caller's promise; `conversation` is not used any more.
    unsafe { end(task, socket) };
    State::Ended(status_of(result, socket))
}

/// Drops the future, if there still is one, and for good.
///
/// # Safety
/// As `in_turn`, inside of its turn.
unsafe fn end<H: AsyncHandler>(task: *mut Task<H>, socket: &Socket) {
    // SAFETY: the caller's promise.
    unsafe {
        (*task).is_over = true;
        drop((*task).future.take());
    }
    socket.forget_future();
}

/// What the server is told when a conversation has ended.
pub(crate) fn status_of(result: Result<(), Failure>, socket: &Socket) -> wsh_status {
    match result {
        Ok(()) => abi::WSH_DONE,
        Err(error) if error.is::<Closed>() && socket.ready_state() != ReadyState::Open => abi::WSH_OK,
        Err(error) => failed(error),
    }
}

pub(crate) fn failed(error: impl Display) -> wsh_status {
    crate::log::error(format_args!("transfer_data failed: {error}"));
    abi::WSH_E_INTERNAL
}

impl State {
    /// What a callback of an open session returns. A session that is closing is not held: its answer has to be read, and what
    /// comes before that is dropped.
    fn status(self, socket: &Socket) -> wsh_status {
        match self {
            Self::Receiving => abi::WSH_OK,
            Self::Elsewhere if socket.ready_state() == ReadyState::Open => abi::WSH_HOLD,
            Self::Elsewhere => abi::WSH_OK,
            Self::Ended(status) => status,
        }
    }
}

unsafe extern "C" fn on_upgrade<H: AsyncHandler>(
    _: *mut c_void,
    upgrade: *mut wsh_upgrade,
    slot: *mut *mut c_void,
) -> wsh_status {
    // SAFETY: the host's pointers are good until this returns.
    unsafe { crate::export::upgrade(upgrade, slot, H::on_upgrade, accept) }
}

unsafe extern "C" fn on_open<H: AsyncHandler>(ctx: *mut c_void, session: *mut wsh_session) -> wsh_status {
    // SAFETY: the host passes the object of this session and a session that is good until this returns (wsh.h).
    unsafe { in_turn::<H>(ctx, session, |task, socket| advance(task, socket).status(socket)) }
}

unsafe extern "C" fn on_wake<H: AsyncHandler>(ctx: *mut c_void, session: *mut wsh_session) -> wsh_status {
    // SAFETY: as in `on_open`.
    unsafe { in_turn::<H>(ctx, session, |task, socket| advance(task, socket).status(socket)) }
}

unsafe extern "C" fn on_writable<H: AsyncHandler>(ctx: *mut c_void, session: *mut wsh_session) -> wsh_status {
    // SAFETY: as in `on_open`.
    unsafe {
        in_turn::<H>(ctx, session, |task, socket| {
            socket.set_writable();
            advance(task, socket).status(socket)
        })
    }
}

unsafe extern "C" fn on_message<H: AsyncHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    let kind = if kind == abi::WSH_TEXT { Kind::Text } else { Kind::Binary };
    // SAFETY: as in `on_open`; the bytes are readable until this returns (wsh.h), and the offer ends before.
    unsafe {
        in_turn::<H>(ctx, session, |task, socket| {
            if (*task).is_over {
                return abi::WSH_OK;
            }
            socket.offer(kind, bytes(data, len));
            let ends = EndOffer(socket);
            let state = advance(task, socket);
            drop(ends);
            match state {
                // One that nobody has taken waits for the next `receive`.
                State::Receiving if !socket.is_receiving() => State::Elsewhere.status(socket),
                state => state.status(socket),
            }
        })
    }
}

/// Ends the offer of a message also when the future panics.
struct EndOffer<'s>(&'s Socket);

impl Drop for EndOffer<'_> {
    fn drop(&mut self) {
        self.0.end_offer();
    }
}

unsafe extern "C" fn on_closing<H: AsyncHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    code: u16,
    reason: *const u8,
    len: usize,
    reply: *mut u16,
) -> wsh_status {
    // SAFETY: as in `on_open`; the reason is readable UTF-8, the reply writable (wsh.h).
    unsafe {
        in_turn::<H>(ctx, session, |task, socket| {
            let reason = text(reason, len);
            socket.set_over(code, reason);
            let ended = advance(task, socket);
            *reply = H::on_closing(Close { code, reason, was_clean: true });
            match ended {
                State::Ended(status) if status < abi::WSH_OK => status,
                _ => abi::WSH_OK,
            }
        })
    }
}

unsafe extern "C" fn on_close<H: AsyncHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    code: u16,
    reason: *const u8,
    len: usize,
    _: u32,
) {
    // SAFETY: as in `on_open`; the reason is readable UTF-8 (wsh.h).
    unsafe {
        in_turn::<H>(ctx, session, |task, socket| {
            socket.set_over(code, text(reason, len));
            // One that was never begun has nothing to end.
            if (*task).future.is_some() {
                advance(task, socket);
            }
            end(task, socket);
            abi::WSH_OK
        });
    }
}

unsafe extern "C" fn free_session<H: AsyncHandler>(ctx: *mut c_void) {
    let task = ctx.cast::<Task<H>>();
    // SAFETY: the object came from `accept::<H>`, and this is the last call for it (wsh.h). Each part is dropped within a fence
    // of its own, the future before what it borrows.
    unsafe {
        fence("free_session", (), || (*task).socket.retire());
        fence("free_session", (), || drop((*task).future.take()));
        fence("free_session", (), || drop(Box::from_raw(task)));
    }
}

unsafe extern "C" fn quiesce<H: AsyncHandler>(_: *mut c_void) {
    fence("quiesce", (), H::on_quiesce);
}

unsafe extern "C" fn shutdown<H: AsyncHandler>(_: *mut c_void) {
    crate::export::unload(H::on_unload);
}

// ---- reloads -----------------------------------------------------------------------------------------------------------

/// Drops the future, if it waits for a message; its object then has everything that the session is. It begins anew with the next
/// callback.
///
/// # Safety
/// As `in_turn`, inside of its turn.
unsafe fn pause<H: AsyncHandler>(task: *mut Task<H>, socket: &Socket) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if (*task).is_over || ((*task).future.is_some() && !socket.is_receiving()) {
            return false;
        }
        drop((*task).future.take());
    }
    socket.forget_future();
    true
}

unsafe extern "C" fn export_state<H: AsyncHandler + Migrate>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    sink: wsh_sink,
    sink_ctx: *mut c_void,
) -> wsh_status {
    // SAFETY: as in `on_open`; the sink is good until this returns (wsh.h). After `pause` nothing borrows the handler.
    unsafe {
        in_turn::<H>(ctx, session, |task, socket| {
            if !pause(task, socket) {
                return abi::WSH_E_BUSY;
            }
            let (handler, web_socket) = (&mut *(*task).handler.get(), &WebSocket::new(session));
            let status = match handler.export_state(web_socket) {
                Ok(state) => {
                    let status = sink(sink_ctx, state.as_ptr(), state.len());
                    if status < abi::WSH_OK {
                        handler.cancel_export(web_socket);
                    }
                    status
                }
                Err(_) => abi::WSH_E_BUSY,
            };
            if status < abi::WSH_OK {
                // Nothing can be sent from here, so it begins anew as soon as something can.
                web_socket.handle().wake();
            }
            status
        })
    }
}

unsafe extern "C" fn export_nothing<H: AsyncHandler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    _: wsh_sink,
    _: *mut c_void,
) -> wsh_status {
    // SAFETY: as in `on_open`.
    unsafe {
        in_turn::<H>(
            ctx,
            session,
            |task, socket| {
                if pause(task, socket) { abi::WSH_OK } else { abi::WSH_E_BUSY }
            },
        )
    }
}

unsafe extern "C" fn cancel_export<H: AsyncHandler + Migrate>(
    ctx: *mut c_void,
    session: *mut wsh_session,
) -> wsh_status {
    // SAFETY: as in `on_open`; since `export_state` there is no future.
    unsafe {
        in_turn::<H>(ctx, session, |task, socket| {
            (*(*task).handler.get()).cancel_export(&WebSocket::new(session));
            advance(task, socket).status(socket)
        })
    }
}

unsafe extern "C" fn restart<H: AsyncHandler>(ctx: *mut c_void, session: *mut wsh_session) -> wsh_status {
    // SAFETY: as in `on_open`.
    unsafe { in_turn::<H>(ctx, session, |task, socket| advance(task, socket).status(socket)) }
}

unsafe extern "C" fn import_state<H: AsyncHandler + Migrate>(
    _: *mut c_void,
    session: *mut wsh_session,
    from_version: u32,
    state: *const u8,
    len: usize,
    slot: *mut *mut c_void,
) -> wsh_status {
    fence("import_state", abi::WSH_E_PANIC, || {
        // SAFETY: the session is good and the state readable until this returns (wsh.h).
        let (socket, state) = unsafe { (&WebSocket::new(session), bytes(state, len)) };
        let Some(handler) = H::import_state(from_version, state, socket) else { return abi::WSH_E_REJECTED };
        // SAFETY: the slot is writable (wsh.h).
        unsafe { *slot = accept(handler) };
        // The conversation begins as soon as something can be sent.
        socket.handle().wake();
        abi::WSH_OK
    })
}

unsafe extern "C" fn import_default<H: AsyncHandler + Default>(
    _: *mut c_void,
    session: *mut wsh_session,
    _: u32,
    _: *const u8,
    _: usize,
    slot: *mut *mut c_void,
) -> wsh_status {
    fence("import_default", abi::WSH_E_PANIC, || {
        let handler = H::default();
        // SAFETY: the slot is writable, the session good until this returns (wsh.h).
        unsafe {
            *slot = accept(handler);
            WebSocket::new(session).handle().wake();
        }
        abi::WSH_OK
    })
}
