//! A host in-process, with which an author tests a handler without a server.
//!
//! It goes through the same table and the same fences as the server does, so what a test sees is what a peer would get.
//!
//! ```
//! use handler_api::testing::{Fake, Sent};
//! # use handler_api::{Handler, Message, Reject, Upgrade, WebSocket};
//! # struct Echo;
//! # impl Handler for Echo {
//! #     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> { Ok(Echo) }
//! #     fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) { socket.send(message); }
//! # }
//!
//! let mut session = Fake::<Echo>::upgrade("/echo").open().expect("accepted");
//! session.text("hello");
//! assert_eq!(session.sent(), [Sent::Text("hello".into())]);
//! ```

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::abi::{
    self, wsh_handle, wsh_handler_api, wsh_host_api, wsh_library, wsh_session, wsh_slice, wsh_status,
    wsh_upgrade,
};
use crate::export;
use crate::handler::Handler;

/// A request that is being written.
pub struct Fake<H> {
    request: Request,
    handler: PhantomData<H>,
}

/// A session that was accepted and opened. Dropped, it ends as if the peer had vanished.
pub struct FakeSession<H: Handler> {
    object: *mut c_void,
    shared: Arc<Shared>,
    handler: PhantomData<H>,
}

/// What a peer would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Text(String),
    Binary(Vec<u8>),
    /// A part of a message, and whether it was the last.
    Fragment(Vec<u8>, bool),
    Ping(Vec<u8>),
    /// Code, 0 for an empty Close, and reason.
    Close(u16, String),
    /// The connection was dropped.
    Abort,
}

/// A refused upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub status: u16,
    pub body: String,
    pub headers: Vec<(String, String)>,
}

#[derive(Debug)]
struct Request {
    path: String,
    query: String,
    peer: String,
    headers: Vec<(String, String)>,
    protocols: Vec<String>,
}

/// What `wsh_upgrade *` points at.
#[derive(Debug)]
struct FakeUpgrade {
    request: Request,
    chosen: Option<usize>,
    headers: Vec<(String, String)>,
    rejection: Option<(u16, String)>,
}

/// What `wsh_session *` and `wsh_handle *` point at.
#[derive(Debug)]
struct Shared {
    request: Request,
    chosen: Option<usize>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ready: u32,
    sent: Vec<Sent>,
    /// What handles asked for, to be done outside of callbacks.
    asked: VecDeque<Asked>,
    /// What sends answer instead of `WSH_OK`.
    send_status: wsh_status,
    freed: bool,
}

#[derive(Debug)]
enum Asked {
    Send(Sent),
    Close(u16, String),
    Wake,
}

// By hand, because a handler need not be `Debug`.
impl<H> fmt::Debug for Fake<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").field("request", &self.request).finish_non_exhaustive()
    }
}

impl<H: Handler> fmt::Debug for FakeSession<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeSession").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Sent {
    /// The text, if it is one.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<H: Handler> Fake<H> {
    /// A request for this path, with a query if it has one.
    pub fn upgrade(url: &str) -> Self {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let request = Request {
            path: path.to_owned(),
            query: query.to_owned(),
            peer: "192.0.2.1:50000".to_owned(),
            headers: Vec::new(),
            protocols: Vec::new(),
        };
        Self { request, handler: PhantomData }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Offers a subprotocol.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.request.protocols.push(protocol.to_owned());
        self
    }

    #[must_use]
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.request.peer = peer.to_string();
        self
    }

    /// Asks the handler, and opens the session if it accepts.
    pub fn open(self) -> Result<FakeSession<H>, Rejected> {
        // SAFETY: table and pointer are good for the whole test program. No handler is loaded here; the hook that `enter`
        // would install stays away, because the test program has its own.
        unsafe { crate::host::set(&raw const TABLE, std::ptr::null_mut()) };
        let mut upgrade =
            FakeUpgrade { request: self.request, chosen: None, headers: Vec::new(), rejection: None };
        let mut object = std::ptr::null_mut();
        let on_upgrade = table::<H>().on_upgrade.expect("export fills the table");
        // SAFETY: `upgrade` and `object` are good for the length of the call.
        let status = unsafe { on_upgrade(std::ptr::null_mut(), (&raw mut upgrade).cast(), &raw mut object) };
        if status < abi::WSH_OK {
            let failed = || (500, "the handler failed".to_owned());
            let refused = || upgrade.rejection.clone().unwrap_or_else(|| (403, String::new()));
            let (status, body) = if status == abi::WSH_E_REJECTED { refused() } else { failed() };
            return Err(Rejected { status, body, headers: upgrade.headers });
        }
        let state = State {
            ready: abi::WSH_OPEN,
            sent: Vec::new(),
            asked: VecDeque::new(),
            send_status: abi::WSH_OK,
            freed: false,
        };
        let shared =
            Arc::new(Shared { request: upgrade.request, chosen: upgrade.chosen, state: Mutex::new(state) });
        let mut session = FakeSession { object, shared, handler: PhantomData };
        session.call(|table, object, socket| {
            let on_open = table.on_open.expect("export fills the table");
            // SAFETY: the object lives; the session is good for the length of the call.
            unsafe { on_open(object, socket) }
        });
        Ok(session)
    }
}

const fn table<H: Handler>() -> wsh_handler_api {
    export::table::<H>(&crate::reload::drain())
}

impl<H: Handler> FakeSession<H> {
    /// The peer sends a text.
    pub fn text(&mut self, text: &str) {
        self.message(abi::WSH_TEXT, text.as_bytes());
    }

    /// The peer sends a binary message.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.message(abi::WSH_BINARY, bytes);
    }

    fn message(&mut self, kind: u32, bytes: &[u8]) {
        self.call(|table, object, socket| {
            let on_message = table.on_message.expect("export fills the table");
            // SAFETY: as in `open`; the bytes are readable.
            unsafe { on_message(object, socket, kind, bytes.as_ptr(), bytes.len()) }
        });
    }

    /// The peer answers a ping.
    pub fn pong(&mut self, bytes: &[u8]) {
        self.call(|table, object, socket| {
            let on_pong = table.on_pong.expect("export fills the table");
            // SAFETY: as in `open`; the bytes are readable.
            unsafe { on_pong(object, socket, bytes.as_ptr(), bytes.len()) }
        });
    }

    /// The peer has taken what waited for it.
    pub fn writable(&mut self) {
        self.set_send_status(abi::WSH_OK);
        self.call(|table, object, socket| {
            let on_writable = table.on_writable.expect("export fills the table");
            // SAFETY: as in `open`.
            unsafe { on_writable(object, socket) }
        });
    }

    /// From here on sends answer [`Slow`](crate::SendStatus::Slow), until [`writable`](Self::writable).
    pub fn set_slow(&mut self) {
        self.set_send_status(abi::WSH_SLOW);
    }

    /// From here on sends answer [`Full`](crate::SendStatus::Full) and nothing is accepted.
    pub fn set_full(&mut self) {
        self.set_send_status(abi::WSH_E_FULL);
    }

    fn set_send_status(&mut self, status: wsh_status) {
        self.shared.state().send_status = status;
    }

    /// The peer sends Close, the handler chooses the answer, the session ends. Returns the code of the answer.
    pub fn peer_close(&mut self, code: u16, reason: &str) -> u16 {
        let mut reply = code;
        self.call(|table, object, socket| {
            let on_closing = table.on_closing.expect("export fills the table");
            // SAFETY: as in `open`; the reason is readable, the reply writable.
            unsafe { on_closing(object, socket, code, reason.as_ptr(), reason.len(), &raw mut reply) }
        });
        self.end(code, reason, abi::WSH_CLOSED_CLEAN);
        reply
    }

    /// The connection fails: `on_error`, then `on_close` with 1006.
    pub fn fail(&mut self, why: &str) {
        self.call(|table, object, socket| {
            let on_error = table.on_error.expect("export fills the table");
            // SAFETY: as in `open`; the text is readable.
            unsafe { on_error(object, socket, why.as_ptr(), why.len()) };
            abi::WSH_OK
        });
        self.end(1006, "", abi::WSH_CLOSED_ABNORMAL);
    }

    /// What a peer would have got since the last time, in order.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.run_asked();
        std::mem::take(&mut self.shared.state().sent)
    }

    /// Whether the handler's object was dropped.
    pub fn is_over(&self) -> bool {
        self.shared.state().freed
    }

    /// The agreed subprotocol; empty if none was.
    pub fn protocol(&self) -> &str {
        self.shared.protocol().unwrap_or_default()
    }

    /// Does what handles asked for, as the session's worker does between two callbacks.
    pub fn run_asked(&mut self) {
        loop {
            let Some(asked) = self.shared.state().asked.pop_front() else { return };
            match asked {
                Asked::Send(sent) => self.shared.state().push(sent),
                Asked::Close(code, reason) => {
                    self.shared.state().close(code, reason);
                }
                Asked::Wake => self.call_once(|table, object, socket| {
                    let on_wake = table.on_wake.expect("export fills the table");
                    // SAFETY: as in `open`.
                    unsafe { on_wake(object, socket) }
                }),
            }
        }
    }

    fn call(&mut self, callback: impl FnOnce(&wsh_handler_api, *mut c_void, *mut wsh_session) -> wsh_status) {
        self.call_once(callback);
        self.run_asked();
    }

    fn call_once(
        &mut self,
        callback: impl FnOnce(&wsh_handler_api, *mut c_void, *mut wsh_session) -> wsh_status,
    ) {
        if self.is_over() {
            return;
        }
        let socket = Arc::as_ptr(&self.shared).cast_mut().cast();
        match callback(&table::<H>(), self.object, socket) {
            abi::WSH_DONE => {
                self.shared.state().close(1000, String::new());
            }
            abi::WSH_E_PANIC => {
                self.shared.state().close(1011, String::new());
                self.free();
            }
            _ => {}
        }
    }

    fn end(&mut self, code: u16, reason: &str, how: u32) {
        self.call_once(|table, object, socket| {
            let on_close = table.on_close.expect("export fills the table");
            // SAFETY: as in `open`; the reason is readable.
            unsafe { on_close(object, socket, code, reason.as_ptr(), reason.len(), how) };
            abi::WSH_OK
        });
        self.free();
    }

    fn free(&mut self) {
        let was_freed = {
            let mut state = self.shared.state();
            state.ready = abi::WSH_CLOSED;
            std::mem::replace(&mut state.freed, true)
        };
        if !was_freed {
            let free_session = table::<H>().free_session.expect("export fills the table");
            // SAFETY: the object came from on_upgrade; the flag makes this the only time.
            unsafe { free_session(self.object) }
        }
    }
}

impl<H: Handler> Drop for FakeSession<H> {
    fn drop(&mut self) {
        self.end(1006, "", abi::WSH_CLOSED_ABNORMAL);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn protocol(&self) -> Option<&str> {
        self.chosen.map(|index| &*self.request.protocols[index])
    }
}

impl State {
    fn push(&mut self, sent: Sent) {
        if self.ready == abi::WSH_OPEN {
            self.sent.push(sent);
        }
    }

    fn close(&mut self, code: u16, reason: String) -> wsh_status {
        if self.ready != abi::WSH_OPEN {
            return abi::WSH_E_CLOSED;
        }
        self.push(Sent::Close(code, reason));
        self.ready = abi::WSH_CLOSING;
        abi::WSH_OK
    }

    fn may_send(&self) -> wsh_status {
        if self.ready == abi::WSH_OPEN { self.send_status } else { abi::WSH_E_CLOSED }
    }
}

impl Request {
    fn attribute(&self, attribute: u32, protocol: Option<&str>) -> Option<&[u8]> {
        match attribute {
            abi::WSH_PATH => Some(self.path.as_bytes()),
            abi::WSH_QUERY => Some(self.query.as_bytes()),
            abi::WSH_PEER => Some(self.peer.as_bytes()),
            abi::WSH_PROTOCOL => {
                self.protocols.iter().find(|offered| Some(offered.as_str()) == protocol).map(String::as_bytes)
            }
            abi::WSH_EXTENSIONS => Some(b""),
            _ => None,
        }
    }

    fn header(&self, name: &[u8], index: usize) -> Option<&[u8]> {
        let mut values = self.headers.iter().filter(|(found, _)| found.as_bytes().eq_ignore_ascii_case(name));
        values.nth(index).map(|(_, value)| value.as_bytes())
    }
}

// ---- the host's table --------------------------------------------------------------------------------------------------

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
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    // SAFETY: the caller's promise.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } }
}

/// # Safety
/// As wsh.h says of slices; what is not UTF-8 is shown as far as it can be.
unsafe fn text(data: *const u8, len: usize) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(unsafe { bytes(data, len) }).into_owned()
}

/// # Safety
/// `slot` is writable.
unsafe fn answer(slot: *mut wsh_slice, value: Option<&[u8]>) -> wsh_status {
    let Some(value) = value else { return abi::WSH_E_NOT_FOUND };
    // SAFETY: the caller's promise.
    unsafe { slot.write(wsh_slice { ptr: value.as_ptr(), len: value.len() }) };
    abi::WSH_OK
}

/// # Safety
/// The pointer is the one that `Fake::open` passes, inside its callback.
unsafe fn fake_upgrade<'a>(upgrade: *mut wsh_upgrade) -> &'a mut FakeUpgrade {
    // SAFETY: the caller's promise.
    unsafe { &mut *upgrade.cast() }
}

/// # Safety
/// The pointer is the one that `FakeSession::call_once` passes, inside its callback, or a handle that is still held.
unsafe fn shared<'a, T>(session: *mut T) -> &'a Shared {
    // SAFETY: the caller's promise.
    unsafe { &*session.cast::<Shared>().cast_const() }
}

unsafe extern "C" fn log(_: *mut wsh_library, level: u32, message: *const u8, len: usize) {
    // SAFETY: wsh.h.
    eprintln!("log level {level}: {}", unsafe { text(message, len) });
}

unsafe extern "C" fn get_extension(_: *mut wsh_library, _: *const c_char) -> *const c_void {
    std::ptr::null()
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
    upgrade.headers.push((name, value));
    abi::WSH_OK
}

unsafe extern "C" fn upgrade_reject(
    upgrade: *mut wsh_upgrade,
    status: u16,
    body: *const u8,
    len: usize,
) -> wsh_status {
    if !(300..=599).contains(&status) {
        return abi::WSH_E_INVALID;
    }
    // SAFETY: wsh.h.
    unsafe { fake_upgrade(upgrade).rejection = Some((status, text(body, len))) };
    abi::WSH_OK
}

/// # Safety
/// As wsh.h says of slices.
unsafe fn message(kind: u32, data: *const u8, len: usize) -> Option<Sent> {
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
    let mut state = shared.state();
    let status = state.may_send();
    if status >= abi::WSH_OK {
        state.push(message);
    }
    status
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
    let mut state = shared.state();
    let status = state.may_send();
    if status >= abi::WSH_OK {
        state.push(Sent::Fragment(part, last != 0));
    }
    status
}

unsafe extern "C" fn session_ping(session: *mut wsh_session, data: *const u8, len: usize) -> wsh_status {
    if len > 125 {
        return abi::WSH_E_INVALID;
    }
    // SAFETY: wsh.h.
    let (shared, payload) = unsafe { (shared(session), bytes(data, len).to_vec()) };
    shared.state().push(Sent::Ping(payload));
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
    shared.state().close(code, reason)
}

unsafe extern "C" fn session_abort(session: *mut wsh_session) -> wsh_status {
    // SAFETY: wsh.h.
    let mut state = unsafe { shared(session) }.state();
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
    abi::WSH_OK
}

unsafe extern "C" fn handle_wake(handle: *mut wsh_handle) -> wsh_status {
    // SAFETY: wsh.h.
    let mut state = unsafe { shared(handle) }.state();
    if state.ready == abi::WSH_CLOSED {
        return abi::WSH_E_CLOSED;
    }
    if !state.asked.iter().any(|asked| matches!(asked, Asked::Wake)) {
        state.asked.push_back(Asked::Wake);
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
