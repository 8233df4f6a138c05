//! Timers of a session and of the library.
//!
//! A session's timers are set by [`WebSocket::set_timer`] and [`WebSocket::set_interval`] and heard in
//! [`Handler::on_timer`]. Those of the library are set by the functions here, from any thread, and heard in
//! [`Handler::on_library_timer`].

use std::ffi::c_void;
use std::fmt;
use std::time::Duration;

use crate::abi::{self, wsh_session, wsh_status, wsh_timer_api, wsh_timer_callbacks};
use crate::export::{fence, object};
use crate::handler::Handler;
use crate::host;
use crate::websocket::WebSocket;

/// Why a timer was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerError {
    /// So many run already: 64 of a session, 64 of a library.
    TooMany,
    /// The server has no timers, or there is none.
    Unsupported,
}

impl fmt::Display for TimerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "too many timers run already",
            Self::Unsupported => "there is no server, or it has no timers",
        })
    }
}

impl std::error::Error for TimerError {}

/// Starts a timer of the library, heard once.
///
/// # Errors
/// 64 run already; or there is no server.
pub fn set_timer(id: u64, after: Duration) -> Result<(), TimerError> {
    start_of_library(id, after, Duration::ZERO)
}

/// Starts a timer of the library, heard again and again until [`clear_timer`].
///
/// # Errors
/// As [`set_timer`].
pub fn set_interval(id: u64, every: Duration) -> Result<(), TimerError> {
    start_of_library(id, every, at_least_one(every))
}

/// Stops a timer of the library. False if it did not run. One that was due already may be heard once more.
pub fn clear_timer(id: u64) -> bool {
    // SAFETY: this library's own pointer, good as long as its code runs. [any]
    find().is_some_and(|table| unsafe { (table.library_stop)(host::library(), id) } >= abi::WSH_OK)
}

fn start_of_library(id: u64, after: Duration, every: Duration) -> Result<(), TimerError> {
    let table = find().ok_or(TimerError::Unsupported)?;
    // SAFETY: as in `clear_timer`.
    check(unsafe { (table.library_start)(host::library(), id, millis(after), millis(every)) })
}

impl WebSocket {
    /// Starts a timer that is heard once, in [`on_timer`](crate::Handler::on_timer), unless it is started again or cleared before. The
    /// number is for the handler to choose. The least time is a millisecond.
    ///
    /// Timers move with the session when the library is replaced, and end with it.
    ///
    /// # Errors
    /// 64 of this session run already.
    pub fn set_timer(&self, id: u64, after: Duration) -> Result<(), TimerError> {
        self.start_timer(id, after, Duration::ZERO)
    }

    /// Starts a timer that is heard again and again. Times that pass while the worker is busy are left out.
    ///
    /// # Errors
    /// 64 of this session run already.
    pub fn set_interval(&self, id: u64, every: Duration) -> Result<(), TimerError> {
        self.start_timer(id, every, at_least_one(every))
    }

    /// Stops a timer. False if it did not run.
    pub fn clear_timer(&self, id: u64) -> bool {
        // SAFETY: inside the callback that the session was lent for, on its thread.
        find().is_some_and(|table| unsafe { (table.session_stop)(self.as_raw(), id) } >= abi::WSH_OK)
    }

    fn start_timer(&self, id: u64, after: Duration, every: Duration) -> Result<(), TimerError> {
        let table = find().ok_or(TimerError::Unsupported)?;
        // SAFETY: as in `clear_timer`.
        check(unsafe { (table.session_start)(self.as_raw(), id, millis(after), millis(every)) })
    }
}

fn find() -> Option<&'static wsh_timer_api> {
    // SAFETY: the type is the one of this name.
    unsafe { host::extension(abi::WSH_TIMER) }
}

fn check(status: wsh_status) -> Result<(), TimerError> {
    match status {
        abi::WSH_E_TOO_BIG => Err(TimerError::TooMany),
        status if status < abi::WSH_OK => Err(TimerError::Unsupported),
        _ => Ok(()),
    }
}

/// Rounded up: a timer is never early.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// An interval of nothing would be a timer that is heard once.
fn at_least_one(every: Duration) -> Duration {
    every.max(Duration::from_millis(1))
}

// ---- what the server calls ---------------------------------------------------------------------------------------------

/// The library's half of the extension.
pub(crate) struct Callbacks<H>(std::marker::PhantomData<H>);

impl<H: Handler> Callbacks<H> {
    pub(crate) const TABLE: &'static wsh_timer_callbacks = &wsh_timer_callbacks {
        size: size_of::<wsh_timer_callbacks>() as u32,
        reserved0: 0,
        on_timer: Some(on_timer::<H>),
        on_library_timer: Some(on_library_timer::<H>),
    };
}

unsafe extern "C" fn on_timer<H: Handler>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    token: u64,
) -> wsh_status {
    fence("on_timer", abi::WSH_E_PANIC, || {
        // SAFETY: the host passes the object of this session and a session that is good until this returns (wsh.h).
        let (handler, socket) = unsafe { (object::<H>(ctx), &WebSocket::new(session)) };
        handler.on_timer(socket, token);
        abi::WSH_OK
    })
}

unsafe extern "C" fn on_library_timer<H: Handler>(_: *mut c_void, token: u64) {
    fence("on_library_timer", (), || H::on_library_timer(token));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_to_milliseconds() {
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_millis(7)), 7);
        assert_eq!(millis(Duration::MAX), u64::MAX);
        assert_eq!(at_least_one(Duration::ZERO), Duration::from_millis(1));
    }

    #[test]
    fn without_a_server_there_are_no_timers() {
        // Other tests of this program may have made a host meanwhile, and then it has them.
        if host::find().is_none() {
            assert_eq!(set_timer(1, Duration::from_secs(1)), Err(TimerError::Unsupported));
        }
    }
}
