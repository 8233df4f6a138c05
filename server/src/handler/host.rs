//! What the server offers to a library: the functions behind `wsh_host_api`.
//!
//! Each function turns its pointers into references, calls the safe method that does the work, and turns the result into a
//! status. None of them panics across the boundary: a panic in an `extern "C"` function ends the process, so the methods they
//! call are written not to.

use std::ffi::{c_char, c_void};
use std::sync::{Arc, PoisonError};

use handler_api::abi::{self, wsh_handle, wsh_library, wsh_session, wsh_slice, wsh_status, wsh_upgrade};
use tracing::{debug, error, info, trace, warn};

use super::library::Identity;
use crate::generation::UpgradeCall;
use crate::session::{Call, Handle};

/// The one table that every library gets.
pub(super) static TABLE: abi::wsh_host_api = abi::wsh_host_api {
    size: size_of::<abi::wsh_host_api>() as u32,
    abi_major: abi::WSH_ABI_MAJOR,
    abi_minor: abi::WSH_ABI_MINOR,
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

/// # Safety
/// `ptr` is NULL only if `len` is 0, and otherwise has `len` readable bytes that nobody writes to while the slice lives.
pub(super) unsafe fn bytes<'a>(ptr: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(ptr, len) }
}

/// # Safety
/// `slot` is writable.
pub(super) unsafe fn answer(slot: *mut wsh_slice, value: Option<&[u8]>) -> wsh_status {
    let Some(value) = value else { return abi::WSH_E_NOT_FOUND };
    // SAFETY: the caller's promise.
    unsafe { slot.write(wsh_slice { ptr: value.as_ptr(), len: value.len() }) };
    abi::WSH_OK
}

/// # Safety
/// Both slots are writable.
unsafe fn answer_pair(
    name: *mut wsh_slice,
    value: *mut wsh_slice,
    found: Option<(&[u8], &[u8])>,
) -> wsh_status {
    let Some((found_name, found_value)) = found else { return abi::WSH_E_NOT_FOUND };
    // SAFETY: the caller's promise.
    unsafe {
        answer(name, Some(found_name));
        answer(value, Some(found_value))
    }
}

// ---- library -----------------------------------------------------------------------------------------------------------

unsafe extern "C" fn log(library: *mut wsh_library, level: u32, message: *const u8, len: usize) {
    // SAFETY: `library` is the identity that was passed to the entry and lives until shutdown has returned; it is only read.
    let identity = unsafe { &*library.cast::<Identity>() };
    // SAFETY: the library passes a readable slice (wsh.h).
    let message = String::from_utf8_lossy(unsafe { bytes(message, len) });
    log_line(identity, level, &message);
}

/// Writes a library's line to the log. Control characters are escaped, so that one call is one line.
fn log_line(identity: &Identity, level: u32, message: &str) {
    let line = message.escape_debug_controls();
    let (handler, generation) = (&*identity.name, identity.generation);
    match level {
        0 | abi::WSH_LOG_ERROR => {
            *identity.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
            error!(target: "handler", handler, generation, "{line}");
        }
        abi::WSH_LOG_WARN => warn!(target: "handler", handler, generation, "{line}"),
        abi::WSH_LOG_INFO => info!(target: "handler", handler, generation, "{line}"),
        abi::WSH_LOG_DEBUG => debug!(target: "handler", handler, generation, "{line}"),
        _ => trace!(target: "handler", handler, generation, "{line}"),
    }
}

trait EscapeControls {
    fn escape_debug_controls(&self) -> String;
}

impl EscapeControls for str {
    fn escape_debug_controls(&self) -> String {
        let mut line = String::with_capacity(self.len());
        for c in self.chars() {
            // U+2028 and U+2029 end a line for some readers of logs.
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        line
    }
}

unsafe extern "C" fn get_extension(_: *mut wsh_library, id: *const c_char) -> *const c_void {
    // SAFETY: the library passes a name that ends with a NUL (wsh.h).
    unsafe { super::extension::find(id) }
}

// ---- opening handshake -------------------------------------------------------------------------------------------------

/// # Safety
/// `upgrade` is the pointer that `HandlerLibrary::on_upgrade` passed, and its callback has not returned yet.
pub(super) unsafe fn upgrade_call<'a>(upgrade: *mut wsh_upgrade) -> &'a mut UpgradeCall {
    // SAFETY: the caller's promise; on_upgrade lends the call to the library for the length of the callback, and the library
    // makes one call at a time on this thread.
    unsafe { &mut *upgrade.cast() }
}

unsafe extern "C" fn upgrade_attribute(
    upgrade: *mut wsh_upgrade,
    attribute: u32,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer and a writable slot (wsh.h).
    unsafe { answer(value, upgrade_call(upgrade).attribute(attribute)) }
}

unsafe extern "C" fn upgrade_header(
    upgrade: *mut wsh_upgrade,
    name: *const u8,
    name_len: usize,
    index: usize,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer, a readable name and a writable slot (wsh.h).
    unsafe { answer(value, upgrade_call(upgrade).header(bytes(name, name_len), index)) }
}

unsafe extern "C" fn upgrade_header_at(
    upgrade: *mut wsh_upgrade,
    index: usize,
    name: *mut wsh_slice,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer and writable slots (wsh.h).
    unsafe { answer_pair(name, value, upgrade_call(upgrade).header_at(index)) }
}

unsafe extern "C" fn upgrade_offered_protocol(
    upgrade: *mut wsh_upgrade,
    index: usize,
    protocol: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer and a writable slot (wsh.h).
    unsafe { answer(protocol, upgrade_call(upgrade).offered_protocol(index)) }
}

unsafe extern "C" fn upgrade_choose_protocol(
    upgrade: *mut wsh_upgrade,
    protocol: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer and a readable name (wsh.h).
    unsafe { upgrade_call(upgrade).choose_protocol(bytes(protocol, len)) }
}

unsafe extern "C" fn upgrade_add_header(
    upgrade: *mut wsh_upgrade,
    name: *const u8,
    name_len: usize,
    value: *const u8,
    value_len: usize,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer, a readable name and value (wsh.h).
    unsafe { upgrade_call(upgrade).add_header(bytes(name, name_len), bytes(value, value_len)) }
}

unsafe extern "C" fn upgrade_reject(
    upgrade: *mut wsh_upgrade,
    status: u16,
    body: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: called inside on_upgrade with its pointer and a readable body (wsh.h).
    unsafe { upgrade_call(upgrade).reject(status, bytes(body, len)) }
}

// ---- session -----------------------------------------------------------------------------------------------------------

/// # Safety
/// `session` is the pointer that a callback of this session was given, and that callback has not returned yet.
pub(super) unsafe fn session_call<'a>(session: *mut wsh_session) -> &'a mut Call<'a> {
    // SAFETY: the caller's promise; the server lends the call to the library for the length of the callback and touches
    // nothing in it meanwhile. Callbacks do not nest, so this is the only reference.
    unsafe { &mut *session.cast() }
}

unsafe extern "C" fn session_send(
    session: *mut wsh_session,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: called inside a callback with its session and readable data (wsh.h).
    unsafe { session_call(session).send(kind, bytes(data, len)) }
}

unsafe extern "C" fn session_send_fragment(
    session: *mut wsh_session,
    kind: u32,
    data: *const u8,
    len: usize,
    last: u32,
) -> wsh_status {
    // SAFETY: called inside a callback with its session and readable data (wsh.h).
    unsafe { session_call(session).send_fragment(kind, bytes(data, len), last != 0) }
}

unsafe extern "C" fn session_ping(session: *mut wsh_session, data: *const u8, len: usize) -> wsh_status {
    // SAFETY: called inside a callback with its session and readable data (wsh.h).
    unsafe { session_call(session).ping(bytes(data, len)) }
}

unsafe extern "C" fn session_close(
    session: *mut wsh_session,
    code: u16,
    reason: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: called inside a callback with its session and a readable reason (wsh.h).
    unsafe { session_call(session).close(code, bytes(reason, len)) }
}

unsafe extern "C" fn session_abort(session: *mut wsh_session) -> wsh_status {
    // SAFETY: called inside a callback with its session (wsh.h).
    unsafe { session_call(session).abort() }
}

unsafe extern "C" fn session_ready_state(session: *mut wsh_session) -> u32 {
    // SAFETY: called inside a callback with its session (wsh.h).
    unsafe { session_call(session).ready_state() }
}

unsafe extern "C" fn session_buffered_amount(session: *mut wsh_session) -> u64 {
    // SAFETY: called inside a callback with its session (wsh.h).
    unsafe { session_call(session).buffered_amount() }
}

unsafe extern "C" fn session_attribute(
    session: *mut wsh_session,
    attribute: u32,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: called inside a callback with its session and a writable slot (wsh.h).
    unsafe { answer(value, session_call(session).attribute(attribute)) }
}

unsafe extern "C" fn session_header(
    session: *mut wsh_session,
    name: *const u8,
    name_len: usize,
    index: usize,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: called inside a callback with its session, a readable name and a writable slot (wsh.h).
    unsafe { answer(value, session_call(session).header(bytes(name, name_len), index)) }
}

unsafe extern "C" fn session_header_at(
    session: *mut wsh_session,
    index: usize,
    name: *mut wsh_slice,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: called inside a callback with its session and writable slots (wsh.h).
    unsafe { answer_pair(name, value, session_call(session).header_at(index)) }
}

unsafe extern "C" fn session_handle(session: *mut wsh_session) -> *mut wsh_handle {
    // SAFETY: called inside a callback with its session (wsh.h).
    let handle = unsafe { session_call(session).handle() };
    Arc::into_raw(handle).cast_mut().cast()
}

// ---- handle ------------------------------------------------------------------------------------------------------------

/// # Safety
/// `handle` came from `session_handle` and holds a reference that was not released yet.
unsafe fn handle_ref<'a>(handle: *mut wsh_handle) -> &'a Handle {
    // SAFETY: the caller's promise; the reference it holds keeps the handle alive.
    unsafe { &*handle.cast::<Handle>() }
}

unsafe extern "C" fn handle_retain(handle: *mut wsh_handle) {
    // SAFETY: the library holds a reference (wsh.h), so the count is at least one.
    unsafe { Arc::increment_strong_count(handle.cast::<Handle>().cast_const()) }
}

unsafe extern "C" fn handle_release(handle: *mut wsh_handle) {
    // SAFETY: the library gives back a reference it holds (wsh.h).
    unsafe { Arc::decrement_strong_count(handle.cast::<Handle>().cast_const()) }
}

unsafe extern "C" fn handle_send(
    handle: *mut wsh_handle,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: the library holds a reference and passes readable data (wsh.h).
    unsafe { handle_ref(handle).send(kind, bytes(data, len)) }
}

unsafe extern "C" fn handle_close(
    handle: *mut wsh_handle,
    code: u16,
    reason: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: the library holds a reference and passes a readable reason (wsh.h).
    unsafe { handle_ref(handle).close(code, bytes(reason, len)) }
}

unsafe extern "C" fn handle_wake(handle: *mut wsh_handle) -> wsh_status {
    // SAFETY: the library holds a reference (wsh.h).
    unsafe { handle_ref(handle).wake() }
}

unsafe extern "C" fn handle_ready_state(handle: *mut wsh_handle) -> u32 {
    // SAFETY: the library holds a reference (wsh.h).
    unsafe { handle_ref(handle).ready_state() }
}
