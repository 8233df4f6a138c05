//! The C contract of `include/wsh.h` as Rust types: the same names, the same layout, no logic.
//!
//! `wsh.h` is the specification; its comments say what each function does, on which thread, and who owns what. The server uses
//! only this module of the crate. `tests/layout.rs` compares every size and offset with what a C compiler says.
//!
//! Function pointers are `Option`s where the other side may leave them out.

use std::ffi::{c_char, c_void};

pub const WSH_ABI_MAJOR: u16 = 1;
pub const WSH_ABI_MINOR: u16 = 0;

/// The exported constant, read from the file.
pub const INFO_SYMBOL: &str = "wsh_handler_info";
/// The exported function.
pub const ENTRY_SYMBOL: &str = "wsh_handler_entry_v1";

#[allow(non_camel_case_types)]
pub type wsh_status = i32;

pub const WSH_OK: wsh_status = 0;
pub const WSH_DONE: wsh_status = 1;
pub const WSH_SLOW: wsh_status = 2;
pub const WSH_HOLD: wsh_status = 3;
pub const WSH_E_INVALID: wsh_status = -1;
pub const WSH_E_CLOSED: wsh_status = -2;
pub const WSH_E_FULL: wsh_status = -3;
pub const WSH_E_TOO_BIG: wsh_status = -4;
pub const WSH_E_UNSUPPORTED: wsh_status = -5;
pub const WSH_E_NO_MEMORY: wsh_status = -6;
pub const WSH_E_PANIC: wsh_status = -7;
pub const WSH_E_STATE: wsh_status = -8;
pub const WSH_E_NOT_FOUND: wsh_status = -9;
pub const WSH_E_REJECTED: wsh_status = -10;
pub const WSH_E_INTERNAL: wsh_status = -11;
pub const WSH_E_BUSY: wsh_status = -12;
pub const WSH_E_FORBIDDEN: wsh_status = -13;

pub const WSH_TEXT: u32 = 1;
pub const WSH_BINARY: u32 = 2;
pub const WSH_RAW: u32 = 3;

pub const WSH_CONNECTING: u32 = 0;
pub const WSH_OPEN: u32 = 1;
pub const WSH_CLOSING: u32 = 2;
pub const WSH_CLOSED: u32 = 3;

pub const WSH_PATH: u32 = 1;
pub const WSH_QUERY: u32 = 2;
pub const WSH_PEER: u32 = 3;
pub const WSH_PROTOCOL: u32 = 4;
pub const WSH_EXTENSIONS: u32 = 5;
pub const WSH_SCHEME: u32 = 6;
pub const WSH_TLS_SUBJECT: u32 = 7;
pub const WSH_TLS_NAMES: u32 = 8;
pub const WSH_PARAMS: u32 = 9;
pub const WSH_USER: u32 = 10;

pub const WSH_CLOSED_CLEAN: u32 = 0;
pub const WSH_CLOSED_ABNORMAL: u32 = 1;

pub const WSH_LOG_ERROR: u32 = 1;
pub const WSH_LOG_WARN: u32 = 2;
pub const WSH_LOG_INFO: u32 = 3;
pub const WSH_LOG_DEBUG: u32 = 4;
pub const WSH_LOG_TRACE: u32 = 5;

pub const WSH_LIBRARY_NO_UNLOAD: u32 = 1 << 0;
pub const WSH_LIBRARY_PANIC_ABORT: u32 = 1 << 1;
pub const WSH_LIBRARY_FORGETS_REQUEST: u32 = 1 << 2;
pub const WSH_LIBRARY_MIGRATES: u32 = 1 << 3;
pub const WSH_LIBRARY_RESTARTS: u32 = 1 << 4;

pub const WSH_MAGIC: [u8; 8] = *b"WSHLIB\r\n";

/// An object of the server that a library only points at.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[allow(non_camel_case_types)]
        #[derive(Debug)]
        #[repr(C)]
        pub struct $name {
            _opaque: [u8; 0],
            // Neither Send nor Sync nor Unpin can be assumed of what lies behind the pointer.
            _marker: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
        }
    )*};
}

opaque! {
    /// This generation of the library.
    wsh_library,
    /// An opening handshake, inside `on_upgrade`.
    wsh_upgrade,
    /// A session, inside one of its callbacks.
    wsh_session,
    /// A counted reference to a session.
    wsh_handle,
    /// A figure that the handler keeps.
    wsh_metric,
}

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_slice {
    pub ptr: *const u8,
    pub len: usize,
}

/// Takes a piece of the state that `export_state` writes.
#[allow(non_camel_case_types)]
pub type wsh_sink = unsafe extern "C" fn(sink_ctx: *mut c_void, data: *const u8, len: usize) -> wsh_status;

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_handler_info_t {
    pub magic: [u8; 8],
    pub info_size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,
    pub min_host_minor: u16,
    pub reserved0: u16,
    pub flags: u32,
    pub state_version: u32,
    pub reserved1: u32,
    pub name: [u8; 32],
    pub version: [u8; 32],
    pub sdk: [u8; 32],
}

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_host_api {
    pub size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,

    pub log: unsafe extern "C" fn(*mut wsh_library, level: u32, message: *const u8, len: usize),
    pub get_extension: unsafe extern "C" fn(*mut wsh_library, id: *const c_char) -> *const c_void,

    pub upgrade_attribute:
        unsafe extern "C" fn(*mut wsh_upgrade, attribute: u32, value: *mut wsh_slice) -> wsh_status,
    pub upgrade_header: unsafe extern "C" fn(
        *mut wsh_upgrade,
        name: *const u8,
        name_len: usize,
        index: usize,
        value: *mut wsh_slice,
    ) -> wsh_status,
    pub upgrade_header_at: unsafe extern "C" fn(
        *mut wsh_upgrade,
        index: usize,
        name: *mut wsh_slice,
        value: *mut wsh_slice,
    ) -> wsh_status,
    pub upgrade_offered_protocol:
        unsafe extern "C" fn(*mut wsh_upgrade, index: usize, protocol: *mut wsh_slice) -> wsh_status,
    pub upgrade_choose_protocol:
        unsafe extern "C" fn(*mut wsh_upgrade, protocol: *const u8, len: usize) -> wsh_status,
    pub upgrade_add_header: unsafe extern "C" fn(
        *mut wsh_upgrade,
        name: *const u8,
        name_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> wsh_status,
    pub upgrade_reject:
        unsafe extern "C" fn(*mut wsh_upgrade, status: u16, body: *const u8, len: usize) -> wsh_status,

    pub session_send:
        unsafe extern "C" fn(*mut wsh_session, kind: u32, data: *const u8, len: usize) -> wsh_status,
    pub session_send_fragment: unsafe extern "C" fn(
        *mut wsh_session,
        kind: u32,
        data: *const u8,
        len: usize,
        last: u32,
    ) -> wsh_status,
    pub session_ping: unsafe extern "C" fn(*mut wsh_session, data: *const u8, len: usize) -> wsh_status,
    pub session_close:
        unsafe extern "C" fn(*mut wsh_session, code: u16, reason: *const u8, len: usize) -> wsh_status,
    pub session_abort: unsafe extern "C" fn(*mut wsh_session) -> wsh_status,
    pub session_ready_state: unsafe extern "C" fn(*mut wsh_session) -> u32,
    pub session_buffered_amount: unsafe extern "C" fn(*mut wsh_session) -> u64,
    pub session_attribute:
        unsafe extern "C" fn(*mut wsh_session, attribute: u32, value: *mut wsh_slice) -> wsh_status,
    pub session_header: unsafe extern "C" fn(
        *mut wsh_session,
        name: *const u8,
        name_len: usize,
        index: usize,
        value: *mut wsh_slice,
    ) -> wsh_status,
    pub session_header_at: unsafe extern "C" fn(
        *mut wsh_session,
        index: usize,
        name: *mut wsh_slice,
        value: *mut wsh_slice,
    ) -> wsh_status,
    pub session_handle: unsafe extern "C" fn(*mut wsh_session) -> *mut wsh_handle,

    pub handle_retain: unsafe extern "C" fn(*mut wsh_handle),
    pub handle_release: unsafe extern "C" fn(*mut wsh_handle),
    pub handle_send:
        unsafe extern "C" fn(*mut wsh_handle, kind: u32, data: *const u8, len: usize) -> wsh_status,
    pub handle_close:
        unsafe extern "C" fn(*mut wsh_handle, code: u16, reason: *const u8, len: usize) -> wsh_status,
    pub handle_wake: unsafe extern "C" fn(*mut wsh_handle) -> wsh_status,
    pub handle_ready_state: unsafe extern "C" fn(*mut wsh_handle) -> u32,
}

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_handler_api {
    pub size: u32,
    pub abi_major: u16,
    pub abi_minor: u16,

    pub library_ctx: *mut c_void,

    pub health: Option<unsafe extern "C" fn(library_ctx: *mut c_void) -> wsh_status>,
    pub on_upgrade: Option<
        unsafe extern "C" fn(
            library_ctx: *mut c_void,
            *mut wsh_upgrade,
            session_ctx: *mut *mut c_void,
        ) -> wsh_status,
    >,
    pub on_open: Option<unsafe extern "C" fn(session_ctx: *mut c_void, *mut wsh_session) -> wsh_status>,
    pub on_message: Option<
        unsafe extern "C" fn(
            session_ctx: *mut c_void,
            *mut wsh_session,
            kind: u32,
            data: *const u8,
            len: usize,
        ) -> wsh_status,
    >,
    pub on_pong: Option<
        unsafe extern "C" fn(
            session_ctx: *mut c_void,
            *mut wsh_session,
            data: *const u8,
            len: usize,
        ) -> wsh_status,
    >,
    pub on_wake: Option<unsafe extern "C" fn(session_ctx: *mut c_void, *mut wsh_session) -> wsh_status>,
    pub on_writable: Option<unsafe extern "C" fn(session_ctx: *mut c_void, *mut wsh_session) -> wsh_status>,
    pub on_closing: Option<
        unsafe extern "C" fn(
            session_ctx: *mut c_void,
            *mut wsh_session,
            code: u16,
            reason: *const u8,
            len: usize,
            reply: *mut u16,
        ) -> wsh_status,
    >,
    pub on_error: Option<
        unsafe extern "C" fn(session_ctx: *mut c_void, *mut wsh_session, message: *const u8, len: usize),
    >,
    pub on_close: Option<
        unsafe extern "C" fn(
            session_ctx: *mut c_void,
            *mut wsh_session,
            code: u16,
            reason: *const u8,
            len: usize,
            how: u32,
        ),
    >,
    pub free_session: Option<unsafe extern "C" fn(session_ctx: *mut c_void)>,
    pub export_state: Option<
        unsafe extern "C" fn(
            session_ctx: *mut c_void,
            *mut wsh_session,
            sink: wsh_sink,
            sink_ctx: *mut c_void,
        ) -> wsh_status,
    >,
    pub cancel_export: Option<unsafe extern "C" fn(session_ctx: *mut c_void, *mut wsh_session) -> wsh_status>,
    pub import_state: Option<
        unsafe extern "C" fn(
            library_ctx: *mut c_void,
            *mut wsh_session,
            from_version: u32,
            state: *const u8,
            len: usize,
            session_ctx: *mut *mut c_void,
        ) -> wsh_status,
    >,
    pub quiesce: Option<unsafe extern "C" fn(library_ctx: *mut c_void)>,
    pub shutdown: Option<unsafe extern "C" fn(library_ctx: *mut c_void)>,
    pub get_extension:
        Option<unsafe extern "C" fn(library_ctx: *mut c_void, id: *const c_char) -> *const c_void>,
}

/// Type of the function behind [`ENTRY_SYMBOL`].
#[allow(non_camel_case_types)]
pub type wsh_handler_entry_v1 = unsafe extern "C" fn(
    *const wsh_host_api,
    *mut wsh_library,
    handler: *mut *const wsh_handler_api,
) -> wsh_status;

#[allow(unsafe_code)]
// SAFETY: the tables are plain data; the pointers in them are only followed by functions that state their own conditions.
unsafe impl Sync for wsh_handler_api {}

// ---- extensions --------------------------------------------------------------------------------------------------------

pub const WSH_TIMER: &std::ffi::CStr = c"wsh.timer/1";

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_timer_api {
    pub size: u32,
    pub reserved0: u32,
    pub session_start:
        unsafe extern "C" fn(*mut wsh_session, token: u64, after_ms: u64, every_ms: u64) -> wsh_status,
    pub session_stop: unsafe extern "C" fn(*mut wsh_session, token: u64) -> wsh_status,
    pub library_start:
        unsafe extern "C" fn(*mut wsh_library, token: u64, after_ms: u64, every_ms: u64) -> wsh_status,
    pub library_stop: unsafe extern "C" fn(*mut wsh_library, token: u64) -> wsh_status,
}

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_timer_callbacks {
    pub size: u32,
    pub reserved0: u32,
    pub on_timer:
        Option<unsafe extern "C" fn(session_ctx: *mut c_void, *mut wsh_session, token: u64) -> wsh_status>,
    pub on_library_timer: Option<unsafe extern "C" fn(library_ctx: *mut c_void, token: u64)>,
}

pub const WSH_TOPIC: &std::ffi::CStr = c"wsh.topic/1";

pub const WSH_TOPIC_OWN: u32 = 0;
pub const WSH_TOPIC_SERVER: u32 = 1;

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_topic_api {
    pub size: u32,
    pub reserved0: u32,
    pub session_subscribe:
        unsafe extern "C" fn(*mut wsh_session, scope: u32, topic: *const u8, topic_len: usize) -> wsh_status,
    pub session_unsubscribe:
        unsafe extern "C" fn(*mut wsh_session, scope: u32, topic: *const u8, topic_len: usize) -> wsh_status,
    pub session_publish: unsafe extern "C" fn(
        *mut wsh_session,
        scope: u32,
        topic: *const u8,
        topic_len: usize,
        kind: u32,
        data: *const u8,
        len: usize,
    ) -> wsh_status,
    pub library_publish: unsafe extern "C" fn(
        *mut wsh_library,
        scope: u32,
        topic: *const u8,
        topic_len: usize,
        kind: u32,
        data: *const u8,
        len: usize,
    ) -> wsh_status,
    pub subscribers:
        unsafe extern "C" fn(*mut wsh_library, scope: u32, topic: *const u8, topic_len: usize) -> u64,
}

pub const WSH_METRIC: &std::ffi::CStr = c"wsh.metric/1";

pub const WSH_COUNTER: u32 = 1;
pub const WSH_GAUGE: u32 = 2;

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_metric_api {
    pub size: u32,
    pub reserved0: u32,
    pub declare: unsafe extern "C" fn(
        *mut wsh_library,
        kind: u32,
        name: *const u8,
        name_len: usize,
        help: *const u8,
        help_len: usize,
        metric: *mut *mut wsh_metric,
    ) -> wsh_status,
    pub add: unsafe extern "C" fn(*mut wsh_metric, amount: i64),
    pub set: unsafe extern "C" fn(*mut wsh_metric, value: i64),
}

pub const WSH_CONFIG: &std::ffi::CStr = c"wsh.config/1";

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_config_api {
    pub size: u32,
    pub reserved0: u32,
    pub get: unsafe extern "C" fn(*mut wsh_library, json: *mut wsh_slice) -> wsh_status,
}

pub const WSH_OFFLOAD: &std::ffi::CStr = c"wsh.offload/1";

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_offload_api {
    pub size: u32,
    pub reserved0: u32,
    pub offload: unsafe extern "C" fn(
        *mut wsh_library,
        run: unsafe extern "C" fn(context: *mut c_void),
        context: *mut c_void,
    ) -> wsh_status,
}

pub const WSH_RAW_ACCESS: &std::ffi::CStr = c"wsh.raw/1";

#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct wsh_raw_api {
    pub size: u32,
    pub reserved0: u32,
    pub granted: unsafe extern "C" fn(*mut wsh_library) -> wsh_status,
    pub upgrade_abort: unsafe extern "C" fn(*mut wsh_upgrade) -> wsh_status,
    pub upgrade_decline_extensions: unsafe extern "C" fn(*mut wsh_upgrade) -> wsh_status,
    pub upgrade_delay: unsafe extern "C" fn(*mut wsh_upgrade, ms: u64) -> wsh_status,
    pub upgrade_accept_key: unsafe extern "C" fn(*mut wsh_upgrade, value: *mut wsh_slice) -> wsh_status,
    pub session_end: unsafe extern "C" fn(*mut wsh_session) -> wsh_status,
    pub upgrade_answer: unsafe extern "C" fn(*mut wsh_upgrade, data: *const u8, len: usize) -> wsh_status,
    pub upgrade_header: unsafe extern "C" fn(
        *mut wsh_upgrade,
        name: *const u8,
        name_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> wsh_status,
    pub session_send: unsafe extern "C" fn(*mut wsh_session, data: *const u8, len: usize) -> wsh_status,
    pub session_receive: unsafe extern "C" fn(*mut wsh_session) -> wsh_status,
}
