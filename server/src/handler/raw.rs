//! The extension `wsh.raw/1`: what tests of clients need beyond a WebSocket.
//!
//! In: pointers, as in `host`. Out: calls of safe methods of the handshake and the session, which ask whether the config grants it.

use handler_api::abi::{self, wsh_library, wsh_raw_api, wsh_session, wsh_slice, wsh_status, wsh_upgrade};

use super::extension::services;
use super::host::{answer, bytes, session_call, upgrade_call};

pub(super) static TABLE: wsh_raw_api = wsh_raw_api {
    size: size_of::<wsh_raw_api>() as u32,
    reserved0: 0,
    granted,
    upgrade_abort,
    upgrade_decline_extensions,
    upgrade_delay,
    upgrade_accept_key,
    session_end,
    upgrade_answer,
    upgrade_header,
    session_send,
    session_receive,
};

unsafe extern "C" fn granted(library: *mut wsh_library) -> wsh_status {
    // SAFETY: called with the pointer of the entry (wsh.h).
    if unsafe { services(library) }.is_raw() { abi::WSH_OK } else { abi::WSH_E_FORBIDDEN }
}

// ---- opening handshake -------------------------------------------------------------------------------------------------

unsafe extern "C" fn upgrade_abort(upgrade: *mut wsh_upgrade) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer (wsh.h).
    unsafe { upgrade_call(upgrade) }.abort()
}

unsafe extern "C" fn upgrade_decline_extensions(upgrade: *mut wsh_upgrade) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer (wsh.h).
    unsafe { upgrade_call(upgrade) }.decline_extensions()
}

unsafe extern "C" fn upgrade_delay(upgrade: *mut wsh_upgrade, ms: u64) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer (wsh.h).
    unsafe { upgrade_call(upgrade) }.delay(ms)
}

unsafe extern "C" fn upgrade_accept_key(upgrade: *mut wsh_upgrade, value: *mut wsh_slice) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer and a writable slot (wsh.h).
    unsafe { answer(value, upgrade_call(upgrade).accept_key()) }
}

unsafe extern "C" fn upgrade_answer(upgrade: *mut wsh_upgrade, data: *const u8, len: usize) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer and readable data (wsh.h).
    unsafe { upgrade_call(upgrade).answer_instead(bytes(data, len)) }
}

unsafe extern "C" fn upgrade_header(
    upgrade: *mut wsh_upgrade,
    name: *const u8,
    name_len: usize,
    value: *const u8,
    value_len: usize,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer, a readable name and value (wsh.h).
    unsafe { upgrade_call(upgrade).set_header(bytes(name, name_len), bytes(value, value_len)) }
}

// ---- session -----------------------------------------------------------------------------------------------------------

unsafe extern "C" fn session_end(session: *mut wsh_session) -> wsh_status {
    // SAFETY: called inside a callback with its session (wsh.h).
    unsafe { session_call(session) }.end()
}

unsafe extern "C" fn session_send(session: *mut wsh_session, data: *const u8, len: usize) -> wsh_status {
    // SAFETY: called inside a callback with its session and readable data (wsh.h).
    unsafe { session_call(session).send_raw(bytes(data, len)) }
}

unsafe extern "C" fn session_receive(session: *mut wsh_session) -> wsh_status {
    // SAFETY: called inside a callback with its session (wsh.h).
    unsafe { session_call(session) }.receive_raw()
}
