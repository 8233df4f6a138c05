//! What a message costs in each face: an echo of 64 bytes through the table of functions, with a host that does nothing.
//!
//! `cargo run --release -p handler-api --example faces`

#![allow(unsafe_code, reason = "it plays the host")]

use std::ffi::{c_char, c_void};
use std::hint::black_box;
use std::ptr::null_mut;
use std::time::Instant;

use handler_api::abi::*;
use handler_api::{
    Async, AsyncHandler, Failure, Handler, Message, Reject, Socket, Upgrade, WebSocket, export, reload,
};

struct Callbacks;

impl Handler for Callbacks {
    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self)
    }
    fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
        socket.send(message);
    }
}

struct Sequential;

impl AsyncHandler for Sequential {
    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self)
    }
    async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
        while let Some(message) = socket.receive().await {
            socket.send(message).await?;
        }
        Ok(())
    }
}

/// The same, with a copy of each message.
struct Copying;

impl AsyncHandler for Copying {
    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self)
    }
    async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
        while let Some(message) = socket.receive().await {
            socket.send(message.as_bytes()).await?;
        }
        Ok(())
    }
}

const MESSAGES: u32 = 20_000_000;

/// Nanoseconds for a message, the best of some runs.
fn measure<F: export::Face>() -> f64 {
    static RELOAD: reload::Reload = reload::drain();
    let table = export::table::<F>(&RELOAD);
    let mut object = null_mut();
    let (session, bytes) = (null_mut::<wsh_session>(), black_box([b'x'; 64]));
    // SAFETY: the host below looks at none of its pointers.
    unsafe {
        assert_eq!(table.on_upgrade.unwrap()(null_mut(), null_mut(), &raw mut object), WSH_OK);
        assert_eq!(table.on_open.unwrap()(object, session), WSH_OK);
        let on_message = black_box(table.on_message.unwrap());
        let run = || {
            let began = Instant::now();
            for _ in 0..MESSAGES {
                assert_eq!(on_message(object, session, WSH_BINARY, bytes.as_ptr(), bytes.len()), WSH_OK);
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(MESSAGES)
        };
        let best = (0..5).map(|_| run()).fold(f64::INFINITY, f64::min);
        table.free_session.unwrap()(object);
        best
    }
}

fn main() {
    // SAFETY: the table lives as long as the program; the entry only keeps it.
    unsafe {
        let mut table = std::ptr::null();
        static HANDLER: wsh_handler_api = export::table::<Callbacks>(&reload::drain());
        export::enter::<Callbacks>(&HOST, null_mut(), &raw mut table, &HANDLER);
    }
    let callbacks = measure::<Callbacks>();
    let sequential = measure::<Async<Sequential>>();
    let copying = measure::<Async<Copying>>();
    println!("callbacks            {callbacks:5.1} ns a message");
    println!("async                {sequential:5.1} ns, {:.1} more", sequential - callbacks);
    println!("async, with a copy   {copying:5.1} ns, {:.1} more", copying - callbacks);
}

static HOST: wsh_host_api = wsh_host_api {
    size: size_of::<wsh_host_api>() as u32,
    abi_major: WSH_ABI_MAJOR,
    abi_minor: WSH_ABI_MINOR,
    log,
    get_extension,
    upgrade_attribute,
    upgrade_header,
    upgrade_header_at,
    upgrade_offered_protocol,
    upgrade_choose_protocol,
    upgrade_add_header,
    upgrade_reject,
    session_send,
    session_send_fragment,
    session_ping,
    session_close,
    session_abort,
    session_ready_state,
    session_buffered_amount,
    session_attribute,
    session_header,
    session_header_at,
    session_handle,
    handle_retain,
    handle_release,
    handle_send,
    handle_close,
    handle_wake,
    handle_ready_state,
};

unsafe extern "C" fn log(_: *mut wsh_library, _: u32, _: *const u8, _: usize) {}

unsafe extern "C" fn get_extension(_: *mut wsh_library, _: *const c_char) -> *const c_void {
    std::ptr::null()
}

unsafe extern "C" fn session_send(_: *mut wsh_session, _: u32, data: *const u8, len: usize) -> wsh_status {
    black_box((data, len));
    WSH_OK
}

/// Functions that do nothing.
macro_rules! idle {
    ($(fn $name:ident($($argument:tt: $type:ty),*) -> $result:ty = $value:expr;)*) => {$(
        unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            $value
        }
    )*};
}

idle! {
    fn upgrade_attribute(_: *mut wsh_upgrade, _: u32, _: *mut wsh_slice) -> wsh_status = WSH_E_NOT_FOUND;
    fn upgrade_header(_: *mut wsh_upgrade, _: *const u8, _: usize, _: usize, _: *mut wsh_slice) -> wsh_status = WSH_E_NOT_FOUND;
    fn upgrade_header_at(_: *mut wsh_upgrade, _: usize, _: *mut wsh_slice, _: *mut wsh_slice) -> wsh_status = WSH_E_NOT_FOUND;
    fn upgrade_offered_protocol(_: *mut wsh_upgrade, _: usize, _: *mut wsh_slice) -> wsh_status = WSH_E_NOT_FOUND;
    fn upgrade_choose_protocol(_: *mut wsh_upgrade, _: *const u8, _: usize) -> wsh_status = WSH_E_INVALID;
    fn upgrade_add_header(_: *mut wsh_upgrade, _: *const u8, _: usize, _: *const u8, _: usize) -> wsh_status = WSH_OK;
    fn upgrade_reject(_: *mut wsh_upgrade, _: u16, _: *const u8, _: usize) -> wsh_status = WSH_OK;
    fn session_send_fragment(_: *mut wsh_session, _: u32, _: *const u8, _: usize, _: u32) -> wsh_status = WSH_OK;
    fn session_ping(_: *mut wsh_session, _: *const u8, _: usize) -> wsh_status = WSH_OK;
    fn session_close(_: *mut wsh_session, _: u16, _: *const u8, _: usize) -> wsh_status = WSH_OK;
    fn session_abort(_: *mut wsh_session) -> wsh_status = WSH_OK;
    fn session_ready_state(_: *mut wsh_session) -> u32 = WSH_OPEN;
    fn session_buffered_amount(_: *mut wsh_session) -> u64 = 0;
    fn session_attribute(_: *mut wsh_session, _: u32, _: *mut wsh_slice) -> wsh_status = WSH_E_NOT_FOUND;
    fn session_header(_: *mut wsh_session, _: *const u8, _: usize, _: usize, _: *mut wsh_slice) -> wsh_status = WSH_E_NOT_FOUND;
    fn session_header_at(_: *mut wsh_session, _: usize, _: *mut wsh_slice, _: *mut wsh_slice) -> wsh_status = WSH_E_NOT_FOUND;
    fn session_handle(_: *mut wsh_session) -> *mut wsh_handle = null_mut();
    fn handle_retain(_: *mut wsh_handle) -> () = ();
    fn handle_release(_: *mut wsh_handle) -> () = ();
    fn handle_send(_: *mut wsh_handle, _: u32, _: *const u8, _: usize) -> wsh_status = WSH_OK;
    fn handle_close(_: *mut wsh_handle, _: u16, _: *const u8, _: usize) -> wsh_status = WSH_OK;
    fn handle_wake(_: *mut wsh_handle) -> wsh_status = WSH_OK;
    fn handle_ready_state(_: *mut wsh_handle) -> u32 = WSH_OPEN;
}
