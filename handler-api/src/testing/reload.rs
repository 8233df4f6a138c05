//! A reload as a test plays it: the state leaves one object and enters another.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use super::shared::{Asked, Request, Shared};
use super::{Fake, FakeSession, host};
use crate::abi::{self, wsh_status};
use crate::export::{self, Face, Migrates, StartsEmpty};
use crate::reload::{self, Reload};

/// Why a session did not move to the new code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// `export_state` said so. The server asks again after the next callback.
    Busy,
    /// The state is larger than [`FakeSession::set_state_bytes_max`]; `cancel_export` was called.
    TooBig,
    /// `import_state` returned `None`.
    Refused,
    /// `import_state` panicked; or `export_state` did, and then the session is closed with 1011 and its object dropped.
    Panicked,
    /// It is closing or over. The server does not ask for its state.
    Closed,
}

impl<H: Migrates> Fake<H> {
    /// The library says `export_handler!(H, migrate)`: the session can be moved.
    #[must_use]
    pub fn migrate(mut self) -> Self {
        self.reload = reload::migrate::<H>();
        self
    }
}

impl<H: StartsEmpty> Fake<H> {
    /// The library says `export_handler!(H, stateless)`: the session can be moved.
    #[must_use]
    pub fn stateless(mut self) -> Self {
        self.reload = reload::stateless::<H>();
        self
    }
}

impl<H: Face> Fake<H> {
    /// A session that comes with this state from code that is not in the test, an older version for instance. The subprotocol
    /// that was offered first counts as agreed.
    ///
    /// # Errors
    /// Why the handler does not take it.
    pub fn import(self, from_version: u32, state: &[u8]) -> Result<FakeSession<H>, Stays> {
        host::serve();
        let chosen = (!self.request.protocols.is_empty()).then_some(0);
        let (object, shared, is_held) =
            import::<H>(&self.reload, Arc::new(self.request), chosen, from_version, state)?;
        let mut session = FakeSession::new(object, shared, self.reload);
        session.is_held = is_held;
        session.run_asked();
        Ok(session)
    }
}

/// A session goes through a reload if its [`Fake`] was told how: [`Fake::migrate`], [`Fake::stateless`].
///
/// Old and new code are the same copy of the library here and share its statics. Under a server each has its own.
impl<H: Face> FakeSession<H> {
    /// The library is replaced by one with the same code: the whole of what the server does then. The test goes on with the
    /// session, wherever it lives.
    ///
    /// # Errors
    /// Why it stays where it was: the session goes on with the old object, or has failed after a panic.
    pub fn reload(&mut self) -> Result<(), Stays> {
        let state = self.export_state()?;
        self.import_state(self.reload.state_version, &state)
    }

    /// The first half of a reload: the state is asked for. After `Ok` the object is frozen, and
    /// [`import_state`](Self::import_state) or [`cancel_export`](Self::cancel_export) comes next.
    ///
    /// # Errors
    /// Why it stays where it was; the object is not frozen then.
    ///
    /// # Panics
    /// The handler is not exported so that its sessions move, or the state is exported already.
    pub fn export_state(&mut self) -> Result<Vec<u8>, Stays> {
        let export_state = self.table().export_state.expect(HOW);
        assert!(!self.is_frozen, "the state of this session is exported already");
        if self.shared.state().ready != abi::WSH_OPEN {
            return Err(Stays::Closed);
        }
        let mut sink = Sink { state: Vec::new(), bytes_max: self.state_bytes_max };
        let status = self.shared.in_silence(|session| {
            // SAFETY: the object lives; session and sink are good for the length of the call.
            unsafe { export_state(self.object, session.cast(), take, (&raw mut sink).cast()) }
        });
        self.is_frozen = status >= abi::WSH_OK;
        if status == abi::WSH_E_PANIC {
            self.fail_by_panic();
        }
        self.run_asked();
        match status {
            abi::WSH_E_BUSY => Err(Stays::Busy),
            abi::WSH_E_TOO_BIG => Err(Stays::TooBig),
            abi::WSH_E_PANIC => Err(Stays::Panicked),
            _ => Ok(sink.state),
        }
    }

    /// The second half: the new code gets this state, which may also be one that the test made up. If it takes it, the old object
    /// is dropped and the session goes on with the new one; if not, the old one gets `cancel_export`.
    ///
    /// # Errors
    /// Why it stays where it was.
    ///
    /// # Panics
    /// The state was not exported before.
    pub fn import_state(&mut self, from_version: u32, state: &[u8]) -> Result<(), Stays> {
        assert!(self.is_frozen, "export_state comes before import_state");
        let old = self.shared.clone();
        let imported = import::<H>(&self.reload, old.request.clone(), old.chosen, from_version, state);
        let (object, shared, is_held) = imported.inspect_err(|_| self.cancel_export())?;
        self.free();
        old.hand_over_to(&shared);
        (self.object, self.shared, self.is_frozen, self.is_held) = (object, shared, false, is_held);
        self.run_asked();
        Ok(())
    }

    /// The new code did not take the state: the session goes on with the old object.
    ///
    /// # Panics
    /// The state was not exported before.
    pub fn cancel_export(&mut self) {
        assert!(self.is_frozen, "export_state comes before cancel_export");
        self.is_frozen = false;
        let was_held = self.is_held;
        self.call_once(|table, object, socket| {
            // SAFETY: the object lives; the session is good for the length of the call.
            table.cancel_export.map_or(abi::WSH_OK, |cancel_export| unsafe { cancel_export(object, socket) })
        });
        self.is_held |= was_held;
        self.run_asked();
    }

    /// From here on the server allows states of so many bytes. Without it any size.
    pub fn set_state_bytes_max(&mut self, bytes: usize) {
        self.state_bytes_max = bytes;
    }
}

const HOW: &str = "a session moves only if Fake was told how it is exported: .migrate() or .stateless()";

/// Makes the new object, and the session as the new code sees it.
fn import<H: Face>(
    reload: &Reload,
    request: Arc<Request>,
    chosen: Option<usize>,
    from_version: u32,
    state: &[u8],
) -> Result<(*mut c_void, Arc<Shared>, bool), Stays> {
    let import_state = export::table::<H>(reload).import_state.expect(HOW);
    let shared = Shared::new(request, chosen);
    let mut object = std::ptr::null_mut();
    let status = shared.in_silence(|session| {
        let (ctx, slot) = (std::ptr::null_mut(), &raw mut object);
        // SAFETY: session and state are good for the length of the call, the slot is writable.
        unsafe { import_state(ctx, session.cast(), from_version, state.as_ptr(), state.len(), slot) }
    });
    if status >= abi::WSH_OK {
        return Ok((object, shared, status == abi::WSH_HOLD));
    }
    shared.state().ready = abi::WSH_CLOSED;
    Err(if status == abi::WSH_E_PANIC { Stays::Panicked } else { Stays::Refused })
}

/// What `sink_ctx` points at.
struct Sink {
    state: Vec<u8>,
    bytes_max: usize,
}

unsafe extern "C" fn take(sink: *mut c_void, data: *const u8, len: usize) -> wsh_status {
    // SAFETY: the pointer that `export_state` passes, inside its callback; the data is readable (wsh.h).
    let (sink, data) = unsafe { (&mut *sink.cast::<Sink>(), host::bytes(data, len)) };
    if sink.state.len() + data.len() > sink.bytes_max {
        return abi::WSH_E_TOO_BIG;
    }
    sink.state.extend_from_slice(data);
    abi::WSH_OK
}

impl Shared {
    /// Makes a call in which the session cannot send.
    fn in_silence(self: &Arc<Self>, call: impl FnOnce(*mut Self) -> wsh_status) -> wsh_status {
        self.state().is_silent = true;
        let status = call(Arc::as_ptr(self).cast_mut());
        self.state().is_silent = false;
        status
    }

    /// What the peer has got and what handles have asked for goes with the session; the old handles lead nowhere.
    fn hand_over_to(&self, new: &Self) {
        let (mut old, mut new) = (self.state(), new.state());
        new.sent = std::mem::take(&mut old.sent);
        new.send_status = old.send_status;
        new.timers.take_over(&mut old.timers);
        new.topics.append(&mut old.topics);
        let early = std::mem::replace(&mut new.asked, std::mem::take(&mut old.asked));
        for asked in early {
            if !matches!(asked, Asked::Wake) || !new.wake_is_asked() {
                new.asked.push_back(asked);
            }
        }
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the session is in the middle of something",
            Self::TooBig => "its state is larger than the server allows",
            Self::Refused => "the new code does not take its state",
            Self::Panicked => "its handler panicked",
            Self::Closed => "the session is closing or over",
        })
    }
}

impl std::error::Error for Stays {}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::Sent;
    use super::*;
    use crate::{Busy, Close, Handle, Kind, Message, ReadyState, Reject, SendStatus, Upgrade, WebSocket};
    use crate::{Handler, Migrate};

    thread_local! {
        /// Calls in their order. Each test has a thread of its own.
        static CALLS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
        static HANDLES: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
    }

    fn called(what: &'static str) {
        CALLS.with_borrow_mut(|calls| calls.push(what));
    }

    fn calls() -> Vec<&'static str> {
        CALLS.take()
    }

    /// Collects what the peer sends, and says it when asked with an empty text. Its query says what goes wrong.
    #[derive(Default)]
    struct Collector {
        texts: String,
        query: String,
    }

    /// Tries everything that a session could send; true if all of it is refused.
    fn is_silent(socket: &WebSocket) -> bool {
        let refused = socket.send("no") == SendStatus::Closed
            && socket.send_fragment(Kind::Text, b"no", true) == SendStatus::Closed
            && socket.ping(b"no").is_err()
            && socket.close(1000, "no").is_err();
        socket.abort();
        refused && socket.ready_state() == ReadyState::Open
    }

    impl Handler for Collector {
        fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
            Ok(Self { texts: String::new(), query: upgrade.query().to_owned() })
        }
        fn on_open(&mut self, _: &WebSocket) {
            called("on_open");
        }
        fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
            match message {
                Message::Text("") => drop(socket.send(&self.texts)),
                Message::Text(text) => self.texts.push_str(text),
                Message::Binary(_) => HANDLES.with_borrow_mut(|handles| handles.push(socket.handle())),
            }
        }
        fn on_wake(&mut self, socket: &WebSocket) {
            called("on_wake");
            socket.send("awake");
        }
        fn on_close(&mut self, _: &WebSocket, _: Close<'_>) {
            called("on_close");
        }
    }

    impl Migrate for Collector {
        const STATE_VERSION: u32 = 2;

        fn export_state(&mut self, socket: &WebSocket) -> Result<Vec<u8>, Busy> {
            called("export_state");
            assert!(is_silent(socket), "something was sent");
            assert_ne!(self.query, "export=panic", "asked for");
            if self.query == "export=busy" && !self.texts.ends_with('.') {
                return Err(Busy);
            }
            Ok(self.texts.clone().into_bytes())
        }
        fn cancel_export(&mut self, socket: &WebSocket) {
            called("cancel_export");
            assert_ne!(self.query, "cancel=panic", "asked for");
            socket.send("still here");
        }
        fn import_state(from_version: u32, state: &[u8], socket: &WebSocket) -> Option<Self> {
            called("import_state");
            assert!(is_silent(socket), "something was sent");
            assert_ne!(socket.query(), "import=panic", "asked for");
            if socket.query() == "import=wake" {
                let handle = socket.handle();
                assert!(handle.wake() && handle.send("early").is_accepted());
            }
            let texts = match from_version {
                1 => format!("{} of old;", String::from_utf8_lossy(state)),
                2 => String::from_utf8(state.to_vec()).ok()?,
                _ => return None,
            };
            Some(Self { texts, query: socket.query().to_owned() })
        }
    }

    impl Drop for Collector {
        fn drop(&mut self) {
            called("drop");
        }
    }

    fn open(query: &str) -> FakeSession<Collector> {
        let session = Fake::upgrade(&format!("/collector?{query}")).migrate().open().expect("accepted");
        assert_eq!(calls(), ["on_open"]);
        session
    }

    fn texts(session: &mut FakeSession<Collector>) -> Vec<String> {
        session.sent().into_iter().filter_map(Sent::into_text).collect()
    }

    #[test]
    fn a_session_goes_on_with_its_state_and_without_being_opened_or_closed() {
        let mut session = open("");
        session.text("a");
        assert_eq!(session.reload(), Ok(()));
        session.text("b");
        assert_eq!(session.reload(), Ok(()));
        session.text("");
        assert_eq!(session.sent(), [Sent::Text("ab".into())]);
        assert_eq!(calls(), ["export_state", "import_state", "drop"].repeat(2));
        drop(session);
        assert_eq!(calls(), ["on_close", "drop"]);
    }

    #[test]
    fn state_of_another_version_is_read_or_refused() {
        let mut session = Fake::<Collector>::upgrade("/collector").migrate().import(1, b"a").expect("taken");
        session.text("b");
        session.text("");
        assert_eq!(texts(&mut session), ["a of old;b"]);
        for (from_version, state) in [(3, &b"a"[..]), (2, b"\xff"), (0, b"")] {
            let refused = Fake::<Collector>::upgrade("/collector").migrate().import(from_version, state);
            assert_eq!(refused.err(), Some(Stays::Refused), "{from_version}");
        }
    }

    #[test]
    fn a_session_whose_state_is_refused_goes_on_with_the_old_object() {
        let mut session = open("");
        session.text("a");
        assert_eq!(session.export_state().as_deref(), Ok(&b"a"[..]));
        assert_eq!(session.import_state(9, b"a"), Err(Stays::Refused));
        assert_eq!(calls(), ["export_state", "import_state", "cancel_export"]);
        session.text("b");
        session.text("");
        assert_eq!(texts(&mut session), ["still here", "ab"]);
        assert_eq!(session.reload(), Ok(()), "the next time it is taken");
    }

    #[test]
    fn a_busy_session_is_asked_again() {
        let mut session = open("export=busy");
        session.text("a");
        assert_eq!(session.reload(), Err(Stays::Busy));
        assert_eq!(calls(), ["export_state"], "nothing was frozen");
        session.text("b.");
        assert_eq!(session.reload(), Ok(()));
    }

    #[test]
    fn a_state_that_is_too_large_is_taken_back() {
        let mut session = open("");
        session.text("abc");
        session.set_state_bytes_max(2);
        assert_eq!(session.reload(), Err(Stays::TooBig));
        assert_eq!(calls(), ["export_state", "cancel_export"]);
        session.text("");
        assert_eq!(texts(&mut session), ["abc"], "inside export_state nothing could be sent");
        session.set_state_bytes_max(3);
        assert_eq!(session.reload(), Ok(()));
    }

    #[test]
    fn a_panic_in_export_state_ends_the_session_and_nothing_else_is_called() {
        let mut session = open("export=panic");
        assert_eq!(session.reload(), Err(Stays::Panicked));
        assert!(session.is_over());
        assert_eq!(session.sent(), [Sent::Close(1011, String::new())]);
        drop(session);
        assert_eq!(calls(), ["export_state", "drop"]);
    }

    #[test]
    fn a_panic_in_import_state_leaves_the_session_with_the_old_object() {
        let mut session = open("import=panic");
        session.text("a");
        assert_eq!(session.reload(), Err(Stays::Panicked));
        assert_eq!(calls(), ["export_state", "import_state", "cancel_export"]);
        session.text("");
        assert_eq!(texts(&mut session), ["still here", "a"]);
    }

    #[test]
    fn a_panic_in_cancel_export_closes_the_session() {
        let mut session = open("cancel=panic");
        session.export_state().expect("exported");
        session.cancel_export();
        assert_eq!(session.sent(), [Sent::Close(1011, String::new())]);
    }

    #[test]
    fn an_old_handle_leads_nowhere_and_what_it_accepted_is_delivered() {
        let mut session = open("");
        session.binary(b"handle");
        let old = HANDLES.take().pop().expect("taken");
        let state = session.export_state().expect("exported");
        assert!(old.send("late").is_accepted() && old.wake());
        assert_eq!(session.sent(), [], "it waits while the session moves");
        session.import_state(2, &state).expect("taken");
        assert_eq!(calls(), ["export_state", "import_state", "drop", "on_wake"]);
        assert_eq!(texts(&mut session), ["late", "awake"]);
        assert!(!old.is_open() && !old.wake());
        assert_eq!(old.send("later"), SendStatus::Closed);
        session.binary(b"handle");
        let new = HANDLES.take().pop().expect("taken");
        assert!(new.is_open() && new != old);
    }

    #[test]
    fn a_handle_taken_while_importing_is_heard_once_the_session_has_moved() {
        let mut session = open("import=wake");
        assert_eq!(session.reload(), Ok(()));
        assert_eq!(texts(&mut session), ["awake", "early"]);
    }

    #[test]
    fn a_peer_that_vanishes_meanwhile_is_told_to_the_old_object() {
        let mut session = open("");
        session.export_state().expect("exported");
        drop(session);
        assert_eq!(calls(), ["export_state", "cancel_export", "on_close", "drop"]);
    }

    #[test]
    fn a_session_that_is_closing_is_not_asked() {
        let mut session = open("");
        session.peer_close(1000, "");
        assert_eq!(session.reload(), Err(Stays::Closed));
    }

    #[test]
    fn without_state_a_session_goes_on_with_a_default_object() {
        let mut session = Fake::<Collector>::upgrade("/collector").stateless().open().expect("accepted");
        session.text("a");
        assert_eq!(session.export_state(), Ok(Vec::new()));
        session.import_state(0, b"").expect("taken");
        session.text("b");
        session.text("");
        assert_eq!(texts(&mut session), ["b"]);
        assert_eq!(calls(), ["on_open", "drop"]);
    }
}
