//! Raw access, as a server grants it when the test says so.

use std::cell::Cell;
use std::time::Duration;

use super::host::{answer, bytes, fake_upgrade, shared, text};
use super::{FakeSession, Sent};
use crate::abi::{self, wsh_library, wsh_raw_api, wsh_session, wsh_slice, wsh_status, wsh_upgrade};
use crate::export::Face;

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

thread_local! {
    // Tests run side by side, each on a thread of its own.
    static IS_GRANTED: Cell<bool> = const { Cell::new(false) };
}

/// From here on the config of the server grants raw access or does not, for code on the thread of this test. At first it does not.
pub fn set_raw(is_granted: bool) {
    super::host::serve();
    IS_GRANTED.set(is_granted);
}

/// `WSH_OK` or `WSH_E_FORBIDDEN`.
pub(super) fn may_be_raw() -> wsh_status {
    if IS_GRANTED.get() { abi::WSH_OK } else { abi::WSH_E_FORBIDDEN }
}

impl<H: Face> FakeSession<H> {
    /// The peer sends bytes, to a handler that takes them as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        assert!(self.shared.state().receives_raw, "the handler did not call receive_raw");
        self.message(abi::WSH_RAW, bytes);
    }
}

unsafe extern "C" fn granted(_: *mut wsh_library) -> wsh_status {
    may_be_raw()
}

unsafe extern "C" fn upgrade_abort(upgrade: *mut wsh_upgrade) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { fake_upgrade(upgrade) }.is_aborted = true;
    abi::WSH_OK
}

unsafe extern "C" fn upgrade_decline_extensions(upgrade: *mut wsh_upgrade) -> wsh_status {
    // SAFETY: wsh.h.
    unsafe { fake_upgrade(upgrade) }.answer.declines_extensions = true;
    abi::WSH_OK
}

unsafe extern "C" fn upgrade_delay(upgrade: *mut wsh_upgrade, ms: u64) -> wsh_status {
    if ms > 60_000 {
        return abi::WSH_E_TOO_BIG;
    }
    // SAFETY: wsh.h.
    unsafe { fake_upgrade(upgrade) }.answer.delay = Duration::from_millis(ms);
    abi::WSH_OK
}

unsafe extern "C" fn upgrade_accept_key(_: *mut wsh_upgrade, value: *mut wsh_slice) -> wsh_status {
    // SAFETY: the slot is writable (wsh.h). The key and its answer of RFC 6455 section 1.3.
    unsafe { answer(value, Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) }
}

unsafe extern "C" fn upgrade_answer(upgrade: *mut wsh_upgrade, data: *const u8, len: usize) -> wsh_status {
    if may_be_raw() < abi::WSH_OK {
        return may_be_raw();
    }
    // SAFETY: wsh.h.
    let (answer, bytes) = unsafe { (&mut fake_upgrade(upgrade).answer, bytes(data, len)) };
    answer.instead.get_or_insert_default().extend_from_slice(bytes);
    answer.declines_extensions = true;
    abi::WSH_OK
}

unsafe extern "C" fn upgrade_header(
    upgrade: *mut wsh_upgrade,
    name: *const u8,
    name_len: usize,
    value: *const u8,
    value_len: usize,
) -> wsh_status {
    if may_be_raw() < abi::WSH_OK {
        return may_be_raw();
    }
    // SAFETY: wsh.h.
    let (answer, name, value) =
        unsafe { (&mut fake_upgrade(upgrade).answer, text(name, name_len), text(value, value_len)) };
    if !name.to_ascii_lowercase().starts_with("sec-websocket-") || value.contains(['\r', '\n', '\0']) {
        return abi::WSH_E_INVALID;
    }
    answer.headers.push((name, value));
    abi::WSH_OK
}

unsafe extern "C" fn session_end(session: *mut wsh_session) -> wsh_status {
    // SAFETY: wsh.h.
    let mut state = unsafe { shared(session) }.state();
    if state.is_silent {
        return abi::WSH_E_STATE;
    }
    state.push(Sent::End);
    state.ready = abi::WSH_CLOSED;
    abi::WSH_OK
}

unsafe extern "C" fn session_send(session: *mut wsh_session, data: *const u8, len: usize) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, bytes) = unsafe { (shared(session), bytes(data, len).to_vec()) };
    let mut state = shared.state();
    match state.ready {
        _ if state.is_silent => abi::WSH_E_STATE,
        _ if may_be_raw() < abi::WSH_OK => may_be_raw(),
        abi::WSH_CLOSED => abi::WSH_E_CLOSED,
        // Also behind Close.
        _ => {
            state.sent.push(Sent::Raw(bytes));
            state.send_status
        }
    }
}

unsafe extern "C" fn session_receive(session: *mut wsh_session) -> wsh_status {
    // SAFETY: wsh.h.
    let mut state = unsafe { shared(session) }.state();
    match state.ready {
        _ if state.is_silent => abi::WSH_E_STATE,
        _ if may_be_raw() < abi::WSH_OK => may_be_raw(),
        abi::WSH_CLOSED => abi::WSH_E_CLOSED,
        _ => {
            state.receives_raw = true;
            abi::WSH_OK
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, Server, set_server};
    use crate::{Handler, Message, RawError, Reject, SendStatus, Upgrade, WebSocket, raw};

    /// Does by its query what tests of clients do.
    struct Testing;

    impl Handler for Testing {
        fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
            upgrade.delay(Duration::from_secs(2));
            upgrade.decline_extensions();
            match upgrade.query() {
                "abort" => Err(Reject::abort()),
                "ok" => Err(Reject::new(200)),
                "answer" => {
                    let answer =
                        format!("HTTP/1.1 101 Hm\r\nSec-WebSocket-Accept: {}\r\n\r\n", upgrade.accept_key());
                    upgrade
                        .answer_raw(answer.as_bytes())
                        .map_err(|error| Reject::forbidden(error.to_string()))?;
                    Ok(Self)
                }
                "header" => {
                    assert_eq!(upgrade.add_raw_header("Connection", "close"), Err(RawError::Invalid));
                    upgrade
                        .add_raw_header("Sec-WebSocket-Protocol", "a, b")
                        .map(|()| Self)
                        .map_err(|_| Reject::new(500))
                }
                _ => Ok(Self),
            }
        }
        fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
            match message {
                Message::Text("raw") => socket.receive_raw().expect("it is granted"),
                Message::Text("close") => socket.close(1000, "").expect("it is open"),
                Message::Text("end") => socket.end(),
                message => assert_eq!(socket.send_raw(message.as_bytes()), Ok(SendStatus::Accepted)),
            }
            if message == Message::Text("close") {
                assert_eq!(socket.send_raw(b"behind"), Ok(SendStatus::Accepted));
            }
        }
    }

    fn ask(query: &str) -> Fake<Testing> {
        Fake::upgrade(&format!("/testing?{query}"))
    }

    #[test]
    fn what_every_handler_may_do_needs_no_grant() {
        set_raw(false);
        let aborted = ask("abort").open().expect_err("refused");
        assert_eq!(aborted.instead, Some(Vec::new()), "no answer");
        let mut session = ask("").open().expect("accepted");
        assert_eq!(session.answer().delay, Duration::from_secs(2));
        assert!(session.answer().declines_extensions);
        session.text("end");
        assert_eq!(session.sent(), [Sent::End]);
    }

    #[test]
    fn without_a_grant_everything_else_is_forbidden() {
        set_raw(false);
        assert!(!raw::granted());
        assert_eq!(ask("ok").open().expect_err("refused").status, 403);
        assert_eq!(ask("answer").open().expect_err("refused").body, RawError::Forbidden.to_string());
        assert_eq!(ask("header").open().expect_err("refused").status, 500);
    }

    #[test]
    fn with_a_grant_answers_and_frames_are_the_handlers_own() {
        set_raw(true);
        assert!(raw::granted());
        assert_eq!(ask("ok").open().expect_err("refused").status, 200);
        let session = ask("answer").open().expect("accepted");
        let answer = session.answer().instead.as_deref().map(String::from_utf8_lossy);
        assert!(answer.is_some_and(|answer| answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        let session = ask("header").open().expect("accepted");
        assert_eq!(session.answer().headers, [("Sec-WebSocket-Protocol".to_owned(), "a, b".to_owned())]);
        let mut session = ask("").open().expect("accepted");
        session.text("hi");
        session.text("raw");
        session.raw(b"any");
        session.text("close");
        let close = Sent::Close(1000, String::new());
        assert_eq!(
            session.sent(),
            [Sent::Raw(b"hi".into()), Sent::Raw(b"any".into()), close, Sent::Raw(b"behind".into())]
        );
    }

    #[test]
    fn an_older_server_has_no_raw_access() {
        set_raw(true);
        set_server(Server::Older);
        assert!(!raw::granted());
        let aborted = ask("abort").open().expect_err("refused");
        assert_eq!((aborted.status, aborted.instead), (403, None), "it cannot but answer");
    }
}
