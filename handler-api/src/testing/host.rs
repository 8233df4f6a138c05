//! The host's table: what a handler asks of the server, done to the objects of the fake.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use super::Sent;
use super::shared::{Asked, FakeUpgrade, Request, Shared};
use crate::abi::{
    self, wsh_handle, wsh_host_api, wsh_library, wsh_session, wsh_slice, wsh_status, wsh_upgrade,
};

/// Is from here on the host of the handlers in this program.
pub(super) fn serve() {
    // SAFETY: table and pointer are good for the whole test program. No handler is loaded here; the hook that `enter` would
    // install stays away, because the test program has its own.
    unsafe { crate::host::set(&raw const TABLE, std::ptr::null_mut()) };
}

static TABLE: wsh_host_api = wsh_host_api {
    size: size_of::<wsh_host_api>() as u32,
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
/// As wsh.h says of slices.
pub(super) unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    // SAFETY: the caller's promise.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } }
}

/// # Safety
/// As wsh.h says of slices; what is not UTF-8 is shown as far as it can be.
pub(super) unsafe fn text(data: *const u8, len: usize) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(unsafe { bytes(data, len) }).into_owned()
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
/// The pointer is the one that `Fake::open` passes, inside its callback.
pub(super) unsafe fn fake_upgrade<'a>(upgrade: *mut wsh_upgrade) -> &'a mut FakeUpgrade {
    // SAFETY: the caller's promise.
    unsafe { &mut *upgrade.cast() }
}

/// # Safety
/// The pointer is the one that `FakeSession` passes, inside its callback, or a handle that is still held.
pub(super) unsafe fn shared<'a, T>(session: *mut T) -> &'a Shared {
    // SAFETY: the caller's promise.
    unsafe { &*session.cast::<Shared>().cast_const() }
}

unsafe extern "C" fn log(_: *mut wsh_library, level: u32, message: *const u8, len: usize) {
    // SAFETY: wsh.h.
    eprintln!("log level {level}: {}", unsafe { text(message, len) });
}

unsafe extern "C" fn get_extension(_: *mut wsh_library, id: *const c_char) -> *const c_void {
    // SAFETY: wsh.h.
    super::extensions::find(unsafe { CStr::from_ptr(id) })
}

unsafe extern "C" fn upgrade_attribute(
    upgrade: *mut wsh_upgrade,
    what: u32,
    slot: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe {
        let upgrade = fake_upgrade(upgrade);
        let protocol = upgrade.chosen.map(|index| &*upgrade.request.protocols[index]);
        answer(slot, upgrade.request.attribute(what, protocol))
    }
}

unsafe extern "C" fn upgrade_header(
    upgrade: *mut wsh_upgrade,
    name: *const u8,
    len: usize,
    index: usize,
    slot: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { answer(slot, fake_upgrade(upgrade).request.header(bytes(name, len), index)) }
}

unsafe extern "C" fn upgrade_header_at(
    upgrade: *mut wsh_upgrade,
    index: usize,
    name: *mut wsh_slice,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { header_at(&fake_upgrade(upgrade).request, index, name, value) }
}

/// # Safety
/// Both slots are writable.
unsafe fn header_at(
    request: &Request,
    index: usize,
    name: *mut wsh_slice,
    value: *mut wsh_slice,
) -> wsh_status {
    let Some((found, content)) = request.headers.get(index) else { return abi::WSH_E_NOT_FOUND };
    // SAFETY: the caller's promise.
    unsafe {
        answer(name, Some(found.as_bytes()));
        answer(value, Some(content.as_bytes()))
    }
}

unsafe extern "C" fn upgrade_offered_protocol(
    upgrade: *mut wsh_upgrade,
    index: usize,
    slot: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { answer(slot, fake_upgrade(upgrade).request.protocols.get(index).map(String::as_bytes)) }
}

unsafe extern "C" fn upgrade_choose_protocol(
    upgrade: *mut wsh_upgrade,
    name: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (upgrade, name) = unsafe { (fake_upgrade(upgrade), bytes(name, len)) };
    if upgrade.chosen.is_some() {
        return abi::WSH_E_STATE;
    }
    upgrade.chosen = upgrade.request.protocols.iter().position(|offered| offered.as_bytes() == name);
    if upgrade.chosen.is_some() { abi::WSH_OK } else { abi::WSH_E_INVALID }
}

unsafe extern "C" fn upgrade_add_header(
    upgrade: *mut wsh_upgrade,
    name: *const u8,
    name_len: usize,
    value: *const u8,
    value_len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (upgrade, name, value) =
        unsafe { (fake_upgrade(upgrade), text(name, name_len), text(value, value_len)) };
    let is_token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if !is_token || value.contains(['\r', '\n', '\0']) {
        return abi::WSH_E_INVALID;
    }
    upgrade.answer.headers.push((name, value));
    abi::WSH_OK
}

unsafe extern "C" fn upgrade_reject(
    upgrade: *mut wsh_upgrade,
    status: u16,
    body: *const u8,
    len: usize,
) -> wsh_status {
    if !(200..=999).contains(&status) {
        return abi::WSH_E_INVALID;
    }
    if !(300..=599).contains(&status) && super::raw::may_be_raw() < abi::WSH_OK {
        return abi::WSH_E_FORBIDDEN;
    }
    // SAFETY: wsh.h.
    unsafe { fake_upgrade(upgrade).rejection = Some((status, text(body, len))) };
    abi::WSH_OK
}

/// # Safety
/// As wsh.h says of slices.
pub(super) unsafe fn message(kind: u32, data: *const u8, len: usize) -> Option<Sent> {
    // SAFETY: the caller's promise.
    let data = unsafe { bytes(data, len) }.to_vec();
    match kind {
        abi::WSH_TEXT => String::from_utf8(data).ok().map(Sent::Text),
        abi::WSH_BINARY => Some(Sent::Binary(data)),
        _ => None,
    }
}

unsafe extern "C" fn session_send(
    session: *mut wsh_session,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, message) = unsafe { (shared(session), message(kind, data, len)) };
    let Some(message) = message else { return abi::WSH_E_INVALID };
    send(shared, message)
}

unsafe extern "C" fn session_send_fragment(
    session: *mut wsh_session,
    _: u32,
    data: *const u8,
    len: usize,
    last: u32,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, part) = unsafe { (shared(session), bytes(data, len).to_vec()) };
    send(shared, Sent::Fragment(part, last != 0))
}

fn send(shared: &Shared, message: Sent) -> wsh_status {
    let mut state = shared.state();
    if let Err(refusal) = state.may_act() {
        return refusal;
    }
    let status = state.may_send();
    if status >= abi::WSH_OK {
        state.push(message);
    }
    status
}

unsafe extern "C" fn session_ping(session: *mut wsh_session, data: *const u8, len: usize) -> wsh_status {
    if len > 125 {
        return abi::WSH_E_INVALID;
    }
    // SAFETY: wsh.h.
    let (shared, payload) = unsafe { (shared(session), bytes(data, len).to_vec()) };
    let mut state = shared.state();
    if let Err(refusal) = state.may_act() {
        return refusal;
    }
    state.push(Sent::Ping(payload));
    abi::WSH_OK
}

fn may_close(code: u16, reason: &str) -> bool {
    matches!(code, 0 | 1000..=1003 | 1007..=1009 | 1011..=1014 | 3000..=4999) && reason.len() <= 123
}

unsafe extern "C" fn session_close(
    session: *mut wsh_session,
    code: u16,
    reason: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, reason) = unsafe { (shared(session), text(reason, len)) };
    if !may_close(code, &reason) {
        return abi::WSH_E_INVALID;
    }
    let mut state = shared.state();
    match state.may_act() {
        Ok(()) => state.close(code, reason),
        Err(refusal) => refusal,
    }
}

unsafe extern "C" fn session_abort(session: *mut wsh_session) -> wsh_status {
    // SAFETY: wsh.h.
    let mut state = unsafe { shared(session) }.state();
    if state.is_silent {
        return abi::WSH_E_STATE;
    }
    state.push(Sent::Abort);
    state.ready = abi::WSH_CLOSED;
    abi::WSH_OK
}

unsafe extern "C" fn session_ready_state(session: *mut wsh_session) -> u32 {
    // SAFETY: wsh.h.
    unsafe { shared(session) }.state().ready
}

unsafe extern "C" fn session_buffered_amount(_: *mut wsh_session) -> u64 {
    0
}

unsafe extern "C" fn session_attribute(
    session: *mut wsh_session,
    what: u32,
    slot: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe {
        let shared = shared(session);
        answer(slot, shared.request.attribute(what, shared.protocol()))
    }
}

unsafe extern "C" fn session_header(
    session: *mut wsh_session,
    name: *const u8,
    len: usize,
    index: usize,
    slot: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { answer(slot, shared(session).request.header(bytes(name, len), index)) }
}

unsafe extern "C" fn session_header_at(
    session: *mut wsh_session,
    index: usize,
    name: *mut wsh_slice,
    value: *mut wsh_slice,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { header_at(&shared(session).request, index, name, value) }
}

unsafe extern "C" fn session_handle(session: *mut wsh_session) -> *mut wsh_handle {
    // SAFETY: the pointer is that of an `Arc` which `FakeSession` holds during the callback.
    unsafe { Arc::increment_strong_count(session.cast::<Shared>().cast_const()) };
    session.cast()
}

unsafe extern "C" fn handle_retain(handle: *mut wsh_handle) {
    // SAFETY: the caller holds a reference (wsh.h).
    unsafe { Arc::increment_strong_count(handle.cast::<Shared>().cast_const()) }
}

unsafe extern "C" fn handle_release(handle: *mut wsh_handle) {
    // SAFETY: the caller gives back a reference (wsh.h).
    unsafe { Arc::decrement_strong_count(handle.cast::<Shared>().cast_const()) }
}

unsafe extern "C" fn handle_send(
    handle: *mut wsh_handle,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, message) = unsafe { (shared(handle), message(kind, data, len)) };
    let Some(message) = message else { return abi::WSH_E_INVALID };
    let mut state = shared.state();
    let status = state.may_send();
    if status >= abi::WSH_OK {
        state.asked.push_back(Asked::Send(message));
        shared.tell();
    }
    status
}

unsafe extern "C" fn handle_close(
    handle: *mut wsh_handle,
    code: u16,
    reason: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, reason) = unsafe { (shared(handle), text(reason, len)) };
    if !may_close(code, &reason) {
        return abi::WSH_E_INVALID;
    }
    let mut state = shared.state();
    if state.ready != abi::WSH_OPEN {
        return abi::WSH_E_CLOSED;
    }
    state.asked.push_back(Asked::Close(code, reason));
    shared.tell();
    abi::WSH_OK
}

unsafe extern "C" fn handle_wake(handle: *mut wsh_handle) -> wsh_status {
    // SAFETY: wsh.h.
    let shared = unsafe { shared(handle) };
    let mut state = shared.state();
    if state.ready == abi::WSH_CLOSED {
        return abi::WSH_E_CLOSED;
    }
    if !state.wake_is_asked() {
        state.asked.push_back(Asked::Wake);
        shared.tell();
    }
    abi::WSH_OK
}

unsafe extern "C" fn handle_ready_state(handle: *mut wsh_handle) -> u32 {
    // SAFETY: wsh.h.
    match unsafe { shared(handle) }.state().ready {
        abi::WSH_CLOSED => abi::WSH_CLOSED,
        _ => abi::WSH_OPEN,
    }
}
