//! What `export_handler!` puts into a library: the two symbols, and a function behind each field of the table.
//!
//! Each function here is the library's side of the boundary: it turns pointers into the safe types of this crate, calls the
//! handler inside a fence, and turns what comes back into a status. Not for use by hand.

use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::abi::{
    self, wsh_handler_api, wsh_handler_info_t, wsh_host_api, wsh_library, wsh_session, wsh_status,
    wsh_upgrade,
};
use crate::handler::{Close, Handler};
use crate::host;
use crate::message::Message;
use crate::reload::Reload;
use crate::timer;
use crate::upgrade::{Reject, Upgrade};
use crate::websocket::WebSocket;

/// Exports a type that implements [`Handler`] as this library's handler. Once in a library, at file level.
///
/// A second word says what becomes of open sessions when the library is replaced while the server runs:
///
/// - `export_handler!(Chat)`: they finish on the code they began with, up to a deadline of the server.
/// - `export_handler!(Chat, migrate)`: they move to the new code with their state; the type implements
///   [`Migrate`](crate::Migrate).
/// - `export_handler!(Chat, state)`: they move to the new code, and the object itself is the state: the type implements serde's
///   `Serialize` and `Deserialize`. Needs the feature `serde`; see [`migrate`](crate::migrate).
/// - `export_handler!(Chat, stateless)`: they move to the new code without any state; the type implements [`Default`], which
///   makes the object of a session that moved.
/// - `export_handler!(Chat, restart)`: they are closed with 1012, for the peer to connect again.
///
/// A word before that says which face of the library the type has: `export_handler!(Chat, async)` is for an
/// [`AsyncHandler`](crate::AsyncHandler), `export_handler!(Chat, async, migrate)` for one whose sessions move;
/// `export_handler!(Chat, blocking)` is for a [`BlockingHandler`](crate::BlockingHandler), whose sessions never move.
///
/// Sessions move if the old and the new version of the library both are `migrate`, `state` or `stateless`.
///
/// ```compile_fail,E0277
/// # use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};
/// # struct Chat;
/// # impl Handler for Chat {
/// #     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> { Ok(Chat) }
/// #     fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
/// # }
/// export_handler!(Chat, migrate); // but Chat does not implement Migrate
/// ```
#[macro_export]
macro_rules! export_handler {
    ($handler:ty $(,)?) => {
        $crate::export_handler!(@symbols $handler, $crate::reload::drain());
    };
    ($handler:ty, migrate $(,)?) => {
        $crate::export_handler!(@symbols $handler, $crate::reload::migrate::<$handler>());
    };
    ($handler:ty, state $(,)?) => {
        $crate::__object_is_state!($handler);
        $crate::export_handler!($handler, migrate);
    };
    ($handler:ty, async, state $(,)?) => {
        $crate::__object_is_state!($handler);
        $crate::export_handler!($crate::Async<$handler>, migrate);
    };
    ($handler:ty, stateless $(,)?) => {
        $crate::export_handler!(@symbols $handler, $crate::reload::stateless::<$handler>());
    };
    ($handler:ty, restart $(,)?) => {
        $crate::export_handler!(@symbols $handler, $crate::reload::restart());
    };
    ($handler:ty, async $(, $reload:ident)? $(,)?) => {
        $crate::export_handler!($crate::Async<$handler> $(, $reload)?);
    };
    ($handler:ty, blocking $(, $reload:ident)? $(,)?) => {
        $crate::export_handler!($crate::Blocking<$handler> $(, $reload)?);
    };
    (@symbols $handler:ty, $reload:expr) => {
        #[allow(unsafe_code)]
        const _: () = {
            // SAFETY: the name is this library's alone to define, and its type is the one of wsh.h.
            #[unsafe(no_mangle)]
            #[used]
            #[allow(non_upper_case_globals)]
            static wsh_handler_info: $crate::abi::wsh_handler_info_t = $crate::export::info::<$handler>(
                env!("CARGO_PKG_NAME"),
                env!("CARGO_PKG_VERSION"),
                cfg!(panic = "abort"),
                &RELOAD,
            );

            const RELOAD: $crate::reload::Reload = $reload;

            static TABLE: $crate::abi::wsh_handler_api = $crate::export::table::<$handler>(&RELOAD);

            // SAFETY: the name is this library's alone to define, and its type is the one of wsh.h.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn wsh_handler_entry_v1(
                host: *const $crate::abi::wsh_host_api,
                library: *mut $crate::abi::wsh_library,
                handler: *mut *const $crate::abi::wsh_handler_api,
            ) -> $crate::abi::wsh_status {
                // SAFETY: the caller keeps the rules of wsh.h, which are the rules of `enter`.
                unsafe { $crate::export::enter::<$handler>(host, library, handler, &TABLE) }
            }
        };
    };
    ($handler:ty, $($word:tt)*) => {
        compile_error!(concat!(
            "`", stringify!($($word)*), "` does not say what becomes of sessions on a reload: ",
            "write `migrate`, `state`, `stateless`, `restart`, or nothing for sessions that finish on the code they began with; ",
            "before it `async` for an AsyncHandler or `blocking` for a BlockingHandler"
        ));
    };
}

/// What the symbols are made of: one for each way to write a handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler: it does not implement `Handler`",
    note = "an `AsyncHandler` is exported with `export_handler!({Self}, async)`, a `BlockingHandler` with \
            `export_handler!({Self}, blocking)`"
)]
pub trait Face: 'static {
    const KEEPS_REQUEST: bool;

    /// The table, but for the functions about reloads.
    const TABLE: wsh_handler_api;

    fn on_load() -> Result<(), String>;
}

/// One whose sessions move with their state.
pub trait Migrates: Face {
    const RELOAD: Reload;
}

/// One whose sessions move without any.
pub trait StartsEmpty: Face {
    const RELOAD: Reload;
}

pub(crate) const EMPTY_TABLE: wsh_handler_api = wsh_handler_api {
    size: size_of::<wsh_handler_api>() as u32,
    abi_major: abi::WSH_ABI_MAJOR,
    abi_minor: abi::WSH_ABI_MINOR,
    library_ctx: std::ptr::null_mut(),
    health: None,
    on_upgrade: None,
    on_open: None,
    on_message: None,
    on_pong: None,
    on_wake: None,
    on_writable: None,
    on_closing: None,
    on_error: None,
    on_close: None,
    free_session: None,
    export_state: None,
    cancel_export: None,
    import_state: None,
    quiesce: None,
    shutdown: None,
    get_extension: None,
};

impl<H: Handler> Face for H {
    const KEEPS_REQUEST: bool = H::KEEPS_REQUEST;

    const TABLE: wsh_handler_api = wsh_handler_api {
        on_upgrade: Some(on_upgrade::<H>),
        on_open: Some(on_open::<H>),
        on_message: Some(on_message::<H>),
        on_pong: Some(on_pong::<H>),
        on_wake: Some(on_wake::<H>),
        on_writable: Some(on_writable::<H>),
        on_closing: Some(on_closing::<H>),
        on_error: Some(on_error::<H>),
        on_close: Some(on_close::<H>),
        free_session: Some(free_session::<H>),
        quiesce: Some(quiesce::<H>),
        shutdown: Some(shutdown::<H>),
        get_extension: Some(get_extension::<H>),
        ..EMPTY_TABLE
    };

    fn on_load() -> Result<(), String> {
        H::on_load()
    }
}

/// The constant that the server reads from the file.
pub const fn info<H: Face>(
    package: &str,
    version: &str,
    panics_abort: bool,
    reload: &Reload,
) -> wsh_handler_info_t {
    let mut flags = reload.flags;
    if panics_abort {
        flags |= abi::WSH_LIBRARY_PANIC_ABORT;
    }
    if !H::KEEPS_REQUEST {
        flags |= abi::WSH_LIBRARY_FORGETS_REQUEST;
    }
    wsh_handler_info_t {
        magic: abi::WSH_MAGIC,
        info_size: size_of::<wsh_handler_info_t>() as u32,
        abi_major: abi::WSH_ABI_MAJOR,
        abi_minor: abi::WSH_ABI_MINOR,
        min_host_minor: 0,
        reserved0: 0,
        flags,
        state_version: reload.state_version,
        reserved1: 0,
        name: padded(without_suffix(package.as_bytes())),
        version: padded(version.as_bytes()),
        sdk: padded(concat!("handler-api ", env!("CARGO_PKG_VERSION")).as_bytes()),
    }
}

/// `chat_wsh` is the package of the handler `chat`.
const fn without_suffix(package: &[u8]) -> &[u8] {
    match package.split_last_chunk::<4>() {
        Some((name, b"_wsh")) => name,
        _ => package,
    }
}

/// NUL padded, and cut so that one NUL is left.
const fn padded(text: &[u8]) -> [u8; 32] {
    let mut field = [0; 32];
    let mut at = 0;
    while at < text.len() && at < field.len() - 1 {
        field[at] = text[at];
        at += 1;
    }
    // A name that is cut inside a character would not be UTF-8 any more.
    if at < text.len() {
        while at > 0 && text[at] & 0xc0 == 0x80 {
            at -= 1;
            field[at] = 0;
        }
    }
    field
}

/// The table of a handler.
pub const fn table<H: Face>(reload: &Reload) -> wsh_handler_api {
    wsh_handler_api {
        export_state: reload.export_state,
        cancel_export: reload.cancel_export,
        import_state: reload.import_state,
        ..H::TABLE
    }
}

/// The entry function.
///
/// # Safety
/// As wsh.h says of `wsh_handler_entry_v1`: `host` and `library` are good until shutdown has returned, `handler` is writable.
pub unsafe fn enter<H: Face>(
    host: *const wsh_host_api,
    library: *mut wsh_library,
    handler: *mut *const wsh_handler_api,
    table: &'static wsh_handler_api,
) -> wsh_status {
    // SAFETY: every table begins with its size and version.
    let (size, major) = unsafe { ((*host).size as usize, (*host).abi_major) };
    if major != abi::WSH_ABI_MAJOR || size < size_of::<wsh_host_api>() {
        return abi::WSH_E_UNSUPPORTED;
    }
    // SAFETY: the caller's promise, and the table is long enough.
    unsafe { host::set(host, library) };
    report_panics_to_the_host();
    let loaded = fence("on_load", abi::WSH_E_PANIC, || match H::on_load() {
        Ok(()) => abi::WSH_OK,
        Err(reason) => {
            crate::log::error(reason);
            abi::WSH_E_INTERNAL
        }
    });
    if loaded >= abi::WSH_OK {
        // SAFETY: the caller's promise.
        unsafe { *handler = table };
    }
    loaded
}

/// Replaces this library's panic hook. Each library has its own, because each has its own copy of std.
///
/// The default hook would print to standard error, and with `RUST_BACKTRACE=1` it would parse the debug information of the
/// whole process and keep it for ever: tens of megabytes for each loaded version, which then can never be unloaded. This one
/// never takes a backtrace.
fn report_panics_to_the_host() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a payload that is not text");
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        match panic.location() {
            Some(place) => {
                crate::log::error(format_args!("panicked at {place} on thread {thread}: {message}"));
            }
            None => crate::log::error(format_args!("panicked on thread {thread}: {message}")),
        }
    }));
}

/// Runs code of the handler, in the callback of this name; a panic ends here and becomes `on_panic`.
#[inline]
pub(crate) fn fence<R>(callback: &'static str, on_panic: R, code: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|payload| {
        report(callback);
        discard(payload);
        on_panic
    })
}

/// A second line about a panic: the hook knows where it was, and only the fence knows in which callback.
///
/// Not for `on_load`, whose last line is the reason that the library is refused for.
#[cold]
fn report(callback: &'static str) {
    if callback != "on_load" {
        crate::log::error(format_args!("the panic was in {callback}"));
    }
}

/// Drops what a panic carried. It may be any type, and its drop may panic too; then it is leaked.
#[cold]
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        let _leaked = ManuallyDrop::new(second);
    }
}

/// Makes a handler the object of its session. One without fields costs no allocation.
///
/// # Safety
/// The slot is writable.
pub(crate) unsafe fn accept<H: Handler>(slot: *mut *mut c_void, handler: H) -> wsh_status {
    // SAFETY: the caller's promise.
    unsafe { *slot = Box::into_raw(Box::new(handler)).cast() };
    abi::WSH_OK
}

/// # Safety
/// `object` came from `accept::<H>` and was not freed; calls for one object do not overlap (wsh.h).
pub(crate) unsafe fn object<'a, H: Handler>(object: *mut c_void) -> &'a mut H {
    // SAFETY: the caller's promise.
    unsafe { &mut *object.cast::<H>() }
}

/// # Safety
/// As wsh.h says of slices: readable for the length of the call.
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// # Safety
/// As `bytes`, and the host passes UTF-8 here (wsh.h).
pub(crate) unsafe fn text<'a>(data: *const u8, len: usize) -> &'a str {
    // SAFETY: the caller's promise.
    unsafe { std::str::from_utf8_unchecked(bytes(data, len)) }
}

unsafe extern "C" fn on_upgrade<H: Handler>(
    _: *mut c_void,
    raw: *mut wsh_upgrade,
    slot: *mut *mut c_void,
) -> wsh_status {
    // SAFETY: the host's pointers are good until this returns (wsh.h).
    unsafe { upgrade(raw, slot, H::on_upgrade, |handler| Box::into_raw(Box::new(handler)).cast()) }
}

/// Asks a handler, and keeps the object that it is made into.
///
/// # Safety
/// The pointers are good for the length of the call.
pub(crate) unsafe fn upgrade<H>(
    upgrade: *mut wsh_upgrade,
    slot: *mut *mut c_void,
    ask: impl FnOnce(&mut Upgrade) -> Result<H, Reject>,
    object: impl FnOnce(H) -> *mut c_void,
) -> wsh_status {
    fence("on_upgrade", abi::WSH_E_PANIC, || {
        // SAFETY: the caller's promise, and the value does not live longer.
        let mut upgrade = unsafe { Upgrade::new(upgrade) };
        match ask(&mut upgrade) {
            Ok(handler) => {
                // SAFETY: the caller's promise.
                unsafe { *slot = object(handler) };
                abi::WSH_OK
            }
            Err(reject) => {
                upgrade.reject(&reject);
                abi::WSH_E_REJECTED
            }
        }
    })
}

/// A callback that gets the object and the socket.
macro_rules! callback {
    ($(#[$doc:meta])* fn $name:ident::<H>($($argument:ident: $type:ty),*) |$handler:ident, $socket:ident| $call:expr) => {
        $(#[$doc])*
        unsafe extern "C" fn $name<H: Handler>(
            ctx: *mut c_void,
            session: *mut wsh_session,
            $($argument: $type),*
        ) -> wsh_status {
            fence(stringify!($name), abi::WSH_E_PANIC, || {
                // SAFETY: the host passes the object of this session and a session that is good until this returns (wsh.h).
                let ($handler, $socket) = unsafe { (object::<H>(ctx), &WebSocket::new(session)) };
                $call;
                abi::WSH_OK
            })
        }
    };
}

callback! { fn on_open::<H>() |handler, socket| handler.on_open(socket) }
callback! { fn on_wake::<H>() |handler, socket| handler.on_wake(socket) }
callback! { fn on_writable::<H>() |handler, socket| handler.on_writable(socket) }
callback! {
    fn on_pong::<H>(data: *const u8, len: usize) |handler, socket| {
        // SAFETY: readable until this returns (wsh.h).
        handler.on_pong(socket, unsafe { bytes(data, len) });
    }
}
callback! {
    #[inline]
    fn on_message::<H>(kind: u32, data: *const u8, len: usize) |handler, socket| {
        let message = if kind == abi::WSH_TEXT {
            // SAFETY: readable until this returns, and the server has checked that it is UTF-8 (wsh.h).
            Message::Text(unsafe { text(data, len) })
        } else {
            // SAFETY: readable until this returns (wsh.h).
            Message::Binary(unsafe { bytes(data, len) })
        };
        handler.on_message(socket, message);
    }
}
callback! {
    fn on_closing::<H>(code: u16, reason: *const u8, len: usize, reply: *mut u16) |handler, socket| {
        // SAFETY: readable until this returns, and UTF-8 (wsh.h).
        let reason = unsafe { text(reason, len) };
        let chosen = handler.on_closing(socket, Close { code, reason, was_clean: true });
        // SAFETY: writable until this returns (wsh.h).
        unsafe { *reply = chosen }
    }
}

unsafe extern "C" fn on_error<H: Handler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    message: *const u8,
    len: usize,
) {
    fence("on_error", (), || {
        // SAFETY: as in `callback!`; the message is readable UTF-8 (wsh.h).
        let (handler, socket, message) =
            unsafe { (object::<H>(ctx), &WebSocket::new(session), text(message, len)) };
        handler.on_error(socket, message);
    });
}

unsafe extern "C" fn on_close<H: Handler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    code: u16,
    reason: *const u8,
    len: usize,
    how: u32,
) {
    fence("on_close", (), || {
        // SAFETY: as in `callback!`; the reason is readable UTF-8 (wsh.h).
        let (handler, socket, reason) =
            unsafe { (object::<H>(ctx), &WebSocket::new(session), text(reason, len)) };
        handler.on_close(socket, Close { code, reason, was_clean: how == abi::WSH_CLOSED_CLEAN });
    });
}

unsafe extern "C" fn free_session<H: Handler>(ctx: *mut c_void) {
    fence("drop", (), || {
        // SAFETY: the object came from `accept::<H>`, and this is the last call for it (wsh.h).
        drop(unsafe { Box::from_raw(ctx.cast::<H>()) });
    });
}

unsafe extern "C" fn get_extension<H: Handler>(_: *mut c_void, id: *const c_char) -> *const c_void {
    // SAFETY: the host passes a name that ends with a NUL (wsh.h).
    match unsafe { CStr::from_ptr(id) } {
        id if id == abi::WSH_TIMER => (&raw const *timer::Callbacks::<H>::TABLE).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn quiesce<H: Handler>(_: *mut c_void) {
    fence("on_quiesce", (), H::on_quiesce);
}

unsafe extern "C" fn shutdown<H: Handler>(_: *mut c_void) {
    unload(H::on_unload);
}

/// What has to end after the handler's `on_unload`: the runtime, if one was started. Set from there, so that no other library carries
/// one.
pub(crate) static AT_THE_END: OnceLock<fn()> = OnceLock::new();

/// The last that happens in a library.
pub(crate) fn unload(on_unload: fn()) {
    fence("on_unload", (), on_unload);
    if let Some(end) = AT_THE_END.get() {
        fence("the end of the runtime", (), end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_package_is_the_name_of_the_handler() {
        assert_eq!(without_suffix(b"chat_wsh"), b"chat");
        assert_eq!(without_suffix(b"chat"), b"chat");
        let long = padded("ä".repeat(40).as_bytes());
        let end = long.iter().position(|byte| *byte == 0).expect("a NUL is left");
        assert_eq!(std::str::from_utf8(&long[..end]).map(|name| name.chars().count()), Ok(15));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_escape() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(fence("on_message", 7, || std::panic::panic_any(Bomb)), 7);
    }
}
