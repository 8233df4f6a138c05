//! What the server offers beyond the table of `host`: extensions, each a table of functions that is asked for by its name.
//!
//! In: pointers, as in `host`. Out: calls of safe methods of the session, or of the library's `Services`.

use std::ffi::{CStr, c_char, c_void};

use handler_api::abi::{
    self, wsh_config_api, wsh_library, wsh_metric, wsh_metric_api, wsh_offload_api, wsh_session, wsh_slice,
    wsh_status, wsh_timer_api, wsh_topic_api,
};

use super::host::{answer, bytes, session_call};
use super::instance::{Instance, Verdict, session_pointer};
use super::library::{HandlerLibrary, Identity};
use super::offload::Work;
use crate::generation::Services;
use crate::metrics::Metric;
use crate::session::Call;

/// # Safety
/// `id` is a name that ends with a NUL.
pub(super) unsafe fn find(id: *const c_char) -> *const c_void {
    // SAFETY: the caller's promise.
    match unsafe { CStr::from_ptr(id) } {
        id if id == abi::WSH_TIMER => (&raw const TIMER).cast(),
        id if id == abi::WSH_TOPIC => (&raw const TOPIC).cast(),
        id if id == abi::WSH_METRIC => (&raw const METRIC).cast(),
        id if id == abi::WSH_OFFLOAD => (&raw const OFFLOAD).cast(),
        id if id == abi::WSH_CONFIG => (&raw const CONFIG).cast(),
        id if id == abi::WSH_RAW_ACCESS => (&raw const super::raw::TABLE).cast(),
        _ => std::ptr::null(),
    }
}

/// # Safety
/// `library` is the pointer that the entry was given, and shutdown has not returned yet.
pub(super) unsafe fn services<'a>(library: *mut wsh_library) -> &'a Services {
    // SAFETY: the caller's promise; the identity lives until the library is unmapped, and is only read.
    &unsafe { &*library.cast::<Identity>() }.services
}

// ---- timers ------------------------------------------------------------------------------------------------------------

static TIMER: wsh_timer_api = wsh_timer_api {
    size: size_of::<wsh_timer_api>() as u32,
    reserved0: 0,
    session_start,
    session_stop,
    library_start,
    library_stop,
};

unsafe extern "C" fn session_start(
    session: *mut wsh_session,
    token: u64,
    after_ms: u64,
    every_ms: u64,
) -> wsh_status {
    // SAFETY: called inside a callback with its session (wsh.h).
    unsafe { session_call(session) }.start_timer(token, after_ms, every_ms)
}

unsafe extern "C" fn session_stop(session: *mut wsh_session, token: u64) -> wsh_status {
    // SAFETY: called inside a callback with its session (wsh.h).
    unsafe { session_call(session) }.stop_timer(token)
}

unsafe extern "C" fn library_start(
    library: *mut wsh_library,
    token: u64,
    after_ms: u64,
    every_ms: u64,
) -> wsh_status {
    // SAFETY: called with the pointer of the entry (wsh.h).
    unsafe { services(library) }.start_timer(token, after_ms, every_ms)
}

unsafe extern "C" fn library_stop(library: *mut wsh_library, token: u64) -> wsh_status {
    // SAFETY: called with the pointer of the entry (wsh.h).
    unsafe { services(library) }.stop_timer(token)
}

// ---- topics ------------------------------------------------------------------------------------------------------------

static TOPIC: wsh_topic_api = wsh_topic_api {
    size: size_of::<wsh_topic_api>() as u32,
    reserved0: 0,
    session_subscribe,
    session_unsubscribe,
    session_publish,
    library_publish,
    subscribers,
};

unsafe extern "C" fn session_subscribe(
    session: *mut wsh_session,
    scope: u32,
    topic: *const u8,
    topic_len: usize,
) -> wsh_status {
    // SAFETY: called inside a callback with its session and a readable name (wsh.h).
    unsafe { session_call(session).subscribe(scope, bytes(topic, topic_len)) }
}

unsafe extern "C" fn session_unsubscribe(
    session: *mut wsh_session,
    scope: u32,
    topic: *const u8,
    topic_len: usize,
) -> wsh_status {
    // SAFETY: called inside a callback with its session and a readable name (wsh.h).
    unsafe { session_call(session).unsubscribe(scope, bytes(topic, topic_len)) }
}

unsafe extern "C" fn session_publish(
    session: *mut wsh_session,
    scope: u32,
    topic: *const u8,
    topic_len: usize,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: called inside a callback with its session, a readable name and readable data (wsh.h).
    unsafe { session_call(session).publish(scope, bytes(topic, topic_len), kind, bytes(data, len)) }
}

unsafe extern "C" fn library_publish(
    library: *mut wsh_library,
    scope: u32,
    topic: *const u8,
    topic_len: usize,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: called with the pointer of the entry, a readable name and readable data (wsh.h).
    unsafe { services(library).publish(scope, bytes(topic, topic_len), kind, bytes(data, len)) }
}

unsafe extern "C" fn subscribers(
    library: *mut wsh_library,
    scope: u32,
    topic: *const u8,
    topic_len: usize,
) -> u64 {
    // SAFETY: called with the pointer of the entry and a readable name (wsh.h).
    unsafe { services(library).subscribers(scope, bytes(topic, topic_len)) as u64 }
}

// ---- metrics -----------------------------------------------------------------------------------------------------------

static METRIC: wsh_metric_api = wsh_metric_api {
    size: size_of::<wsh_metric_api>() as u32,
    reserved0: 0,
    declare: declare_metric,
    add: add_to_metric,
    set: set_metric,
};

unsafe extern "C" fn declare_metric(
    library: *mut wsh_library,
    kind: u32,
    name: *const u8,
    name_len: usize,
    help: *const u8,
    help_len: usize,
    slot: *mut *mut wsh_metric,
) -> wsh_status {
    // SAFETY: called with the pointer of the entry and readable texts (wsh.h).
    let declared = unsafe { services(library).metric(kind, bytes(name, name_len), bytes(help, help_len)) };
    match declared {
        Ok(metric) => {
            // SAFETY: the slot is writable (wsh.h).
            unsafe { slot.write(metric.cast_mut().cast()) };
            abi::WSH_OK
        }
        Err(status) => status,
    }
}

/// # Safety
/// The pointer came from `declare_metric`, and shutdown has not returned yet.
unsafe fn metric<'a>(metric: *mut wsh_metric) -> &'a Metric {
    // SAFETY: the caller's promise: the services of the library keep the metric.
    unsafe { &*metric.cast::<Metric>().cast_const() }
}

unsafe extern "C" fn add_to_metric(pointer: *mut wsh_metric, amount: i64) {
    // SAFETY: called with a pointer of this table (wsh.h).
    unsafe { metric(pointer) }.add(amount);
}

unsafe extern "C" fn set_metric(pointer: *mut wsh_metric, value: i64) {
    // SAFETY: called with a pointer of this table (wsh.h).
    unsafe { metric(pointer) }.set(value);
}

// ---- the handler's own config ------------------------------------------------------------------------------------------

static CONFIG: wsh_config_api =
    wsh_config_api { size: size_of::<wsh_config_api>() as u32, reserved0: 0, get: get_config };

unsafe extern "C" fn get_config(library: *mut wsh_library, json: *mut wsh_slice) -> wsh_status {
    // SAFETY: called with the pointer of the entry and a writable slot (wsh.h). The text lives as long as the identity.
    unsafe { answer(json, Some(services(library).config().as_bytes())) }
}

// ---- work that blocks --------------------------------------------------------------------------------------------------

static OFFLOAD: wsh_offload_api =
    wsh_offload_api { size: size_of::<wsh_offload_api>() as u32, reserved0: 0, offload };

unsafe extern "C" fn offload(
    library: *mut wsh_library,
    run: unsafe extern "C" fn(*mut c_void),
    context: *mut c_void,
) -> wsh_status {
    // SAFETY: called with the pointer of the entry (wsh.h).
    unsafe { services(library) }.offload().accept(Work { run, context })
}

// ---- what libraries offer ----------------------------------------------------------------------------------------------

/// The callbacks that a library has beyond its table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extensions {
    on_timer: Option<unsafe extern "C" fn(*mut c_void, *mut wsh_session, u64) -> wsh_status>,
    on_library_timer: Option<unsafe extern "C" fn(*mut c_void, u64)>,
}

impl Extensions {
    /// Asks the library, on its control thread, right after its entry.
    pub(super) fn of(table: &abi::wsh_handler_api) -> Self {
        let Some(get_extension) = table.get_extension else { return Self::default() };
        // SAFETY: control thread; the library is mapped and initialised; the name ends with a NUL.
        let found = unsafe { get_extension(table.library_ctx, abi::WSH_TIMER.as_ptr()) };
        let found = found.cast::<abi::wsh_timer_callbacks>();
        if found.is_null() {
            return Self::default();
        }
        // SAFETY: a table of a library begins with its size and is good until shutdown has returned (wsh.h).
        let known = unsafe { (*found).size as usize }.min(size_of::<abi::wsh_timer_callbacks>());
        let mut copy =
            abi::wsh_timer_callbacks { size: 0, reserved0: 0, on_timer: None, on_library_timer: None };
        // SAFETY: the library vouches for `size` bytes; the copy has at least `known` of them; they cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(found.cast::<u8>(), (&raw mut copy).cast::<u8>(), known) };
        Self { on_timer: copy.on_timer, on_library_timer: copy.on_library_timer }
    }
}

impl HandlerLibrary {
    /// On the worker of the session, as every callback of one.
    pub(crate) fn on_timer(&self, instance: &Instance, call: &mut Call<'_>, token: u64) -> Verdict {
        let Some(on_timer) = self.extensions.on_timer else { return Verdict::Continue };
        // SAFETY: as in `on_message`.
        Verdict::of(unsafe { on_timer(instance.object(), session_pointer(call), token) })
    }

    /// Control thread only.
    pub(crate) fn on_library_timer(&self, token: u64) {
        if let Some(on_library_timer) = self.extensions.on_library_timer {
            // SAFETY: control thread; the library is mapped and initialised, and was not shut down.
            unsafe { on_library_timer(self.table.library_ctx, token) }
        }
    }
}
