//! Timers as a test lets them run: time passes when the test says so.

use std::cell::RefCell;
use std::ffi::c_void;
use std::time::Duration;

use super::host::shared;
use super::{Fake, FakeSession};
use crate::abi::{self, wsh_library, wsh_session, wsh_status, wsh_timer_api};
use crate::handler::Handler;
use crate::timer::Callbacks;

/// So many run at a time, as in the server.
const TIMERS_MAX: usize = 64;

pub(super) static TABLE: wsh_timer_api = wsh_timer_api {
    size: size_of::<wsh_timer_api>() as u32,
    reserved0: 0,
    session_start,
    session_stop,
    library_start,
    library_stop,
};

/// The timers of a session or of the library, and the time that has passed for them.
#[derive(Debug, Default, Clone)]
pub(super) struct Timers {
    now: Duration,
    running: Vec<Timer>,
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    token: u64,
    due: Duration,
    every: Duration,
}

thread_local! {
    // Tests run side by side, each on a thread of its own.
    static OF_LIBRARY: RefCell<Timers> = RefCell::default();
}

impl<H: Handler> FakeSession<H> {
    /// Lets time pass: the timers of this session that come due are heard, each in its turn.
    pub fn advance(&mut self, time: Duration) {
        let until = self.shared.state().timers.now + time;
        while let Some(token) = self.next_due(until) {
            self.call(|_, object, socket| {
                let on_timer = Callbacks::<H>::TABLE.on_timer.expect("the table is filled");
                // SAFETY: the object lives; the session is good for the length of the call.
                unsafe { on_timer(object, socket, token) }
            });
        }
    }

    fn next_due(&mut self, until: Duration) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        self.shared.state().timers.take_due(until)
    }
}

impl<H: Handler> Fake<H> {
    /// Lets time pass for the timers of the library that code on the thread of this test has started.
    pub fn advance_library(time: Duration) {
        let until = OF_LIBRARY.with_borrow(|timers| timers.now) + time;
        while let Some(token) = OF_LIBRARY.with_borrow_mut(|timers| timers.take_due(until)) {
            let on_timer = Callbacks::<H>::TABLE.on_library_timer.expect("the table is filled");
            // SAFETY: a handler in Rust has no library context.
            unsafe { on_timer(std::ptr::null_mut::<c_void>(), token) };
        }
    }
}

impl Timers {
    fn start(&mut self, token: u64, after_ms: u64, every_ms: u64) -> wsh_status {
        self.stop(token);
        if self.running.len() >= TIMERS_MAX {
            return abi::WSH_E_TOO_BIG;
        }
        let due = self.now + Duration::from_millis(after_ms.max(1));
        self.running.push(Timer { token, due, every: Duration::from_millis(every_ms) });
        abi::WSH_OK
    }

    fn stop(&mut self, token: u64) -> wsh_status {
        let before = self.running.len();
        self.running.retain(|timer| timer.token != token);
        if self.running.len() < before { abi::WSH_OK } else { abi::WSH_E_NOT_FOUND }
    }

    /// The next timer that is due by then; its moment is now. Without one it is `until` now.
    fn take_due(&mut self, until: Duration) -> Option<u64> {
        let next = self.running.iter().enumerate().min_by_key(|(_, timer)| timer.due);
        let Some((index, timer)) = next.filter(|(_, timer)| timer.due <= until) else {
            self.now = self.now.max(until);
            return None;
        };
        let timer = *timer;
        self.now = self.now.max(timer.due);
        self.running.remove(index);
        if !timer.every.is_zero() {
            self.running.push(Timer { due: timer.due + timer.every, ..timer });
        }
        Some(timer.token)
    }

    /// The session goes on with new code, which may have started some of its own already.
    pub(super) fn take_over(&mut self, old: &mut Self) {
        let own = std::mem::replace(self, std::mem::take(old));
        for timer in own.running {
            self.stop(timer.token);
            self.running.push(Timer { due: timer.due + self.now, ..timer });
        }
    }
}

unsafe extern "C" fn session_start(
    session: *mut wsh_session,
    token: u64,
    after_ms: u64,
    every_ms: u64,
) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { shared(session) }.state().timers.start(token, after_ms, every_ms)
}

unsafe extern "C" fn session_stop(session: *mut wsh_session, token: u64) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { shared(session) }.state().timers.stop(token)
}

unsafe extern "C" fn library_start(
    _: *mut wsh_library,
    token: u64,
    after_ms: u64,
    every_ms: u64,
) -> wsh_status {
    OF_LIBRARY.with_borrow_mut(|timers| timers.start(token, after_ms, every_ms))
}

unsafe extern "C" fn library_stop(_: *mut wsh_library, token: u64) -> wsh_status {
    OF_LIBRARY.with_borrow_mut(|timers| timers.stop(token))
}

#[cfg(test)]
mod tests {
    use super::super::Sent;
    use super::*;
    use crate::{Message, Reject, TimerError, Upgrade, WebSocket, timer};

    #[derive(Default)]
    struct Ticker;

    impl Handler for Ticker {
        fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
            Ok(Self)
        }
        fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
            let Message::Text(text) = message else { return };
            let (what, number) = text.split_once(' ').expect("two words");
            let id = number.parse().expect("a number");
            match what {
                "once" => socket.set_timer(id, Duration::from_millis(id)).expect("started"),
                "every" => socket.set_interval(id, Duration::from_millis(id)).expect("started"),
                "clear" => assert!(socket.clear_timer(id)),
                _ => {
                    for id in 0..64 {
                        socket.set_timer(id, Duration::from_secs(1)).expect("started");
                    }
                    assert_eq!(socket.set_timer(64, Duration::from_secs(1)), Err(TimerError::TooMany));
                    assert_eq!(socket.set_timer(63, Duration::from_secs(1)), Ok(()));
                }
            }
        }
        fn on_timer(&mut self, socket: &WebSocket, id: u64) {
            socket.send(&id.to_string());
        }
        fn on_library_timer(id: u64) {
            if id > 1 {
                timer::set_timer(id - 1, Duration::from_secs(1)).expect("started");
            }
        }
    }

    fn heard(session: &mut FakeSession<Ticker>) -> Vec<String> {
        session.sent().into_iter().filter_map(Sent::into_text).collect()
    }

    #[test]
    fn timers_are_heard_when_their_time_has_come_and_move_with_the_session() {
        let mut session = Fake::<Ticker>::upgrade("/ticker").stateless().open().expect("accepted");
        for what in ["once 25", "every 10", "once 40", "clear 40"] {
            session.text(what);
        }
        session.advance(Duration::from_millis(9));
        assert_eq!(heard(&mut session), [""; 0]);
        session.advance(Duration::from_millis(16));
        assert_eq!(heard(&mut session), ["10", "10", "25"]);
        session.reload().expect("the session moves");
        session.advance(Duration::from_millis(15));
        assert_eq!(heard(&mut session), ["10", "10"]);
        session.peer_close(1000, "");
        session.advance(Duration::from_millis(100));
        assert_eq!(heard(&mut session), [""; 0]);
    }

    #[test]
    fn a_session_has_sixty_four_timers_and_no_more() {
        let mut session = Fake::<Ticker>::upgrade("/ticker").open().expect("accepted");
        session.text("many 0");
        session.advance(Duration::from_secs(1));
        assert_eq!(heard(&mut session).len(), 64);
    }

    #[test]
    fn the_library_has_timers_of_its_own() {
        let _session = Fake::<Ticker>::upgrade("/ticker").open().expect("accepted");
        timer::set_timer(3, Duration::from_secs(1)).expect("started");
        Fake::<Ticker>::advance_library(Duration::from_secs(2));
        assert!(timer::clear_timer(1), "3 was heard, and 2 a second later");
        assert!(!timer::clear_timer(1));
    }
}
