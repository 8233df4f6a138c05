//! One handler object of one session, and the calls into the library that are about it.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;

use handler_api::abi;

use super::library::{HandlerLibrary, status_name};
use crate::generation::UpgradeCall;
use crate::session::Call;

/// The object a library made for a session. Ended by [`HandlerLibrary::free`], and by nothing else.
#[derive(Debug)]
pub(crate) struct Instance(NonNull<c_void>);

/// Stands for NULL, which is an object like any other: every session would pay for telling it from no object.
static NULL_OBJECT: u8 = 0;

impl Instance {
    fn new(object: *mut c_void) -> Self {
        Self(NonNull::new(object).unwrap_or_else(|| NonNull::from(&NULL_OBJECT).cast()))
    }

    #[inline]
    pub(super) fn object(&self) -> *mut c_void {
        if self.0 == NonNull::from(&NULL_OBJECT).cast() { std::ptr::null_mut() } else { self.0.as_ptr() }
    }
}

/// What a callback asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Continue,
    /// The handler is finished: close with 1000.
    Done,
    /// The handler is not ready for more: keep back what the peer sends until a later callback continues.
    Hold,
    Fail(Failure),
}

/// How a callback failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It panicked. Its object must not be used any more, only freed.
    Panic,
    /// It returned this error.
    Status(i32),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic => f.write_str("panicked"),
            Self::Status(status) => write!(f, "returned {}", status_name(*status)),
        }
    }
}

impl Verdict {
    pub(super) fn of(status: i32) -> Self {
        match status {
            abi::WSH_DONE => Self::Done,
            abi::WSH_HOLD => Self::Hold,
            abi::WSH_E_PANIC => Self::Fail(Failure::Panic),
            status if status < abi::WSH_OK => Self::Fail(Failure::Status(status)),
            _ => Self::Continue,
        }
    }
}

/// Calls of a session's callbacks. All of them: on the worker of the session, never nested.
impl HandlerLibrary {
    /// Asks the library whether it takes this peer.
    pub(crate) fn on_upgrade(&self, call: &mut UpgradeCall) -> Result<Instance, Failure> {
        let mut object = std::ptr::null_mut();
        let Some(on_upgrade) = self.table.on_upgrade else { return Ok(Instance::new(object)) };
        let upgrade: *mut UpgradeCall = call;
        // SAFETY: the library is mapped and initialised; `upgrade` is borrowed by this call for its whole length, and the
        // host functions that get it back know it as an `UpgradeCall`; `object` is writable.
        let status = unsafe { on_upgrade(self.table.library_ctx, upgrade.cast(), &raw mut object) };
        match Verdict::of(status) {
            Verdict::Continue | Verdict::Done | Verdict::Hold => Ok(Instance::new(object)),
            Verdict::Fail(failure) => Err(failure),
        }
    }

    pub(crate) fn on_open(&self, instance: &Instance, call: &mut Call<'_>) -> Verdict {
        self.notify(self.table.on_open, instance, call)
    }

    pub(crate) fn on_wake(&self, instance: &Instance, call: &mut Call<'_>) -> Verdict {
        self.notify(self.table.on_wake, instance, call)
    }

    pub(crate) fn on_writable(&self, instance: &Instance, call: &mut Call<'_>) -> Verdict {
        self.notify(self.table.on_writable, instance, call)
    }

    #[inline]
    pub(crate) fn on_message(
        &self,
        instance: &Instance,
        call: &mut Call<'_>,
        kind: u32,
        payload: &[u8],
    ) -> Verdict {
        let on_message = self.table.on_message.expect("read_table refuses a table without on_message");
        // SAFETY: `session_pointer` is good for the length of this call; the payload is borrowed for as long; the instance
        // came from this library and was not freed.
        let status = unsafe {
            on_message(instance.object(), session_pointer(call), kind, payload.as_ptr(), payload.len())
        };
        Verdict::of(status)
    }

    pub(crate) fn on_pong(&self, instance: &Instance, call: &mut Call<'_>, payload: &[u8]) -> Verdict {
        let Some(on_pong) = self.table.on_pong else { return Verdict::Continue };
        // SAFETY: as in `on_message`.
        let status =
            unsafe { on_pong(instance.object(), session_pointer(call), payload.as_ptr(), payload.len()) };
        Verdict::of(status)
    }

    /// Returns the verdict and the code of the answer.
    pub(crate) fn on_closing(
        &self,
        instance: &Instance,
        call: &mut Call<'_>,
        code: u16,
        reason: &str,
    ) -> (Verdict, u16) {
        let mut reply = code;
        let Some(on_closing) = self.table.on_closing else { return (Verdict::Continue, reply) };
        // SAFETY: as in `on_message`; `reply` is writable for the length of the call.
        let status = unsafe {
            on_closing(
                instance.object(),
                session_pointer(call),
                code,
                reason.as_ptr(),
                reason.len(),
                &raw mut reply,
            )
        };
        (Verdict::of(status), reply)
    }

    pub(crate) fn on_error(&self, instance: &Instance, call: &mut Call<'_>, message: &str) {
        let Some(on_error) = self.table.on_error else { return };
        // SAFETY: as in `on_message`.
        unsafe { on_error(instance.object(), session_pointer(call), message.as_ptr(), message.len()) }
    }

    pub(crate) fn on_close(
        &self,
        instance: &Instance,
        call: &mut Call<'_>,
        code: u16,
        reason: &str,
        was_clean: bool,
    ) {
        let Some(on_close) = self.table.on_close else { return };
        let how = if was_clean { abi::WSH_CLOSED_CLEAN } else { abi::WSH_CLOSED_ABNORMAL };
        // SAFETY: as in `on_message`.
        unsafe {
            on_close(instance.object(), session_pointer(call), code, reason.as_ptr(), reason.len(), how);
        }
    }

    /// Gives the object back to the library that made it.
    pub(crate) fn free(&self, instance: Instance) {
        if let Some(free_session) = self.table.free_session {
            // SAFETY: the instance came from this library; it is taken by value, so this happens once.
            unsafe { free_session(instance.object()) }
        }
    }

    // ---- moving to another generation ----------------------------------------------------------------------------------

    /// Has the library write down the state of a session and freeze its object.
    pub(crate) fn export_state(
        &self,
        instance: &Instance,
        call: &mut Call<'_>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, Failure> {
        let Some(export_state) = self.table.export_state else {
            return Err(Failure::Status(abi::WSH_E_UNSUPPORTED));
        };
        let mut sink = Sink { state: Vec::new(), bytes_max, has_refused: false };
        let context: *mut Sink = &raw mut sink;
        // SAFETY: as in `on_message`; `take_state` knows the context as the sink that it is, which nobody else touches until
        // the call has returned.
        let status =
            unsafe { export_state(instance.object(), session_pointer(call), take_state, context.cast()) };
        match Verdict::of(status) {
            Verdict::Continue | Verdict::Done | Verdict::Hold if !sink.has_refused => Ok(sink.state),
            // It did not look at what the sink answered, and believes that it is frozen.
            Verdict::Continue | Verdict::Done | Verdict::Hold => match self.cancel_export(instance, call) {
                Verdict::Fail(Failure::Panic) => Err(Failure::Panic),
                _ => Err(Failure::Status(abi::WSH_E_TOO_BIG)),
            },
            Verdict::Fail(failure) => Err(failure),
        }
    }

    /// The object was frozen for nothing.
    pub(crate) fn cancel_export(&self, instance: &Instance, call: &mut Call<'_>) -> Verdict {
        self.notify(self.table.cancel_export, instance, call)
    }

    /// Makes an object from the state that another generation wrote. The verdict says whether the session is to be held.
    pub(crate) fn import_state(
        &self,
        call: &mut Call<'_>,
        from_version: u32,
        state: &[u8],
    ) -> Result<(Instance, Verdict), Failure> {
        let Some(import_state) = self.table.import_state else {
            return Err(Failure::Status(abi::WSH_E_UNSUPPORTED));
        };
        let mut object = std::ptr::null_mut();
        // SAFETY: as in `on_upgrade`; the state is readable for the length of the call.
        let status = unsafe {
            import_state(
                self.table.library_ctx,
                session_pointer(call),
                from_version,
                state.as_ptr(),
                state.len(),
                &raw mut object,
            )
        };
        match Verdict::of(status) {
            Verdict::Fail(failure) => Err(failure),
            verdict => Ok((Instance::new(object), verdict)),
        }
    }

    fn notify(
        &self,
        callback: Option<unsafe extern "C" fn(*mut c_void, *mut abi::wsh_session) -> i32>,
        instance: &Instance,
        call: &mut Call<'_>,
    ) -> Verdict {
        let Some(callback) = callback else { return Verdict::Continue };
        // SAFETY: as in `on_message`.
        Verdict::of(unsafe { callback(instance.object(), session_pointer(call)) })
    }
}

/// Where `export_state` writes the state of a session.
struct Sink {
    state: Vec<u8>,
    bytes_max: usize,
    has_refused: bool,
}

unsafe extern "C" fn take_state(sink: *mut c_void, data: *const u8, len: usize) -> i32 {
    // SAFETY: `export_state` passed this function together with its sink, and only during that call it is called.
    let sink = unsafe { &mut *sink.cast::<Sink>() };
    if sink.state.len().saturating_add(len) > sink.bytes_max {
        sink.has_refused = true;
        return abi::WSH_E_TOO_BIG;
    }
    if len > 0 {
        // SAFETY: the library passes a readable slice (wsh.h).
        sink.state.extend_from_slice(unsafe { std::slice::from_raw_parts(data, len) });
    }
    abi::WSH_OK
}

/// What a library sees of a session during one callback. The host functions turn it back into the `Call` that it is; nobody
/// else touches the call until the callback returns.
pub(super) fn session_pointer(call: &mut Call<'_>) -> *mut abi::wsh_session {
    std::ptr::from_mut(call).cast()
}
