//! Topics among the sessions of a test.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;

use super::Sent;
use super::host::{bytes, message, shared};
use super::shared::{Asked, Shared};
use crate::abi::{self, wsh_library, wsh_session, wsh_status, wsh_topic_api};

/// As in the server.
const SUBSCRIPTIONS_MAX: usize = 1024;

pub(super) static TABLE: wsh_topic_api = wsh_topic_api {
    size: size_of::<wsh_topic_api>() as u32,
    reserved0: 0,
    session_subscribe,
    session_unsubscribe,
    session_publish,
    library_publish,
    subscribers,
};

/// What a session has subscribed to: scope and name.
pub(super) type Topics = std::collections::BTreeSet<(u32, String)>;

/// The sessions that have ever subscribed, each with the thread of its test: tests run side by side and do not hear each other.
static SESSIONS: Mutex<Vec<(ThreadId, Weak<Shared>)>> = Mutex::new(Vec::new());

fn sessions() -> MutexGuard<'static, Vec<(ThreadId, Weak<Shared>)>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session of the test that this thread runs.
pub(super) fn enter(session: &Arc<Shared>) {
    let mut sessions = sessions();
    sessions.retain(|(_, session)| session.strong_count() > 0);
    sessions.push((session.thread, Arc::downgrade(session)));
}

/// The subscribers that a test has; all of them, if this thread belongs to no test.
fn listeners(thread: ThreadId, topic: &(u32, String)) -> Vec<Arc<Shared>> {
    let sessions: Vec<_> =
        sessions().iter().filter_map(|(thread, session)| Some((*thread, session.upgrade()?))).collect();
    let belongs = sessions.iter().any(|(its, _)| *its == thread);
    let of_test = sessions.into_iter().filter(|(its, _)| !belongs || *its == thread);
    of_test.map(|(_, session)| session).filter(|session| session.state().hears(topic)).collect()
}

fn publish(thread: ThreadId, topic: &(u32, String), message: &Sent, but: Option<&Shared>) {
    for session in listeners(thread, topic) {
        if !but.is_some_and(|but| std::ptr::eq(but, &*session)) {
            session.state().asked.push_back(Asked::Send(message.clone()));
            session.tell();
        }
    }
}

/// # Safety
/// As wsh.h says of slices.
unsafe fn topic(scope: u32, topic: *const u8, len: usize) -> Option<(u32, String)> {
    // SAFETY: the caller's promise.
    let name = unsafe { bytes(topic, len) };
    let is_scope = matches!(scope, abi::WSH_TOPIC_OWN | abi::WSH_TOPIC_SERVER);
    let name = String::from_utf8(name.to_vec()).ok().filter(|name| (1..=255).contains(&name.len()))?;
    is_scope.then_some((scope, name))
}

unsafe extern "C" fn session_subscribe(
    session: *mut wsh_session,
    scope: u32,
    name: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, topic) = unsafe { (shared(session), topic(scope, name, len)) };
    let Some(topic) = topic else { return abi::WSH_E_INVALID };
    let mut state = shared.state();
    if state.ready != abi::WSH_OPEN {
        return abi::WSH_E_CLOSED;
    }
    if state.topics.len() >= SUBSCRIPTIONS_MAX && !state.topics.contains(&topic) {
        return abi::WSH_E_TOO_BIG;
    }
    state.topics.insert(topic);
    abi::WSH_OK
}

unsafe extern "C" fn session_unsubscribe(
    session: *mut wsh_session,
    scope: u32,
    name: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, topic) = unsafe { (shared(session), topic(scope, name, len)) };
    let Some(topic) = topic else { return abi::WSH_E_INVALID };
    if shared.state().topics.remove(&topic) { abi::WSH_OK } else { abi::WSH_E_NOT_FOUND }
}

unsafe extern "C" fn session_publish(
    session: *mut wsh_session,
    scope: u32,
    name: *const u8,
    name_len: usize,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (shared, topic, message) =
        unsafe { (shared(session), topic(scope, name, name_len), message(kind, data, len)) };
    let (Some(topic), Some(message)) = (topic, message) else { return abi::WSH_E_INVALID };
    if shared.state().is_silent {
        return abi::WSH_E_STATE;
    }
    publish(shared.thread, &topic, &message, Some(shared));
    abi::WSH_OK
}

unsafe extern "C" fn library_publish(
    _: *mut wsh_library,
    scope: u32,
    name: *const u8,
    name_len: usize,
    kind: u32,
    data: *const u8,
    len: usize,
) -> wsh_status {
    // SAFETY: wsh.h.
    let (topic, message) = unsafe { (topic(scope, name, name_len), message(kind, data, len)) };
    let (Some(topic), Some(message)) = (topic, message) else { return abi::WSH_E_INVALID };
    publish(std::thread::current().id(), &topic, &message, None);
    abi::WSH_OK
}

unsafe extern "C" fn subscribers(_: *mut wsh_library, scope: u32, name: *const u8, len: usize) -> u64 {
    // SAFETY: wsh.h.
    let Some(topic) = (unsafe { topic(scope, name, len) }) else { return 0 };
    listeners(std::thread::current().id(), &topic).len() as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Fake, FakeSession};
    use super::*;
    use crate::{Message, Reject, SendStatus, Topic, TopicError, Upgrade, WebSocket, topic};

    /// Does what a text says: `join TOPIC`, `leave TOPIC`, `others TOPIC TEXT`, `all TOPIC TEXT`.
    #[derive(Default)]
    struct Speaker;

    impl crate::Handler for Speaker {
        fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
            Ok(Self)
        }
        fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
            let mut words = message.as_text().expect("a text").splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default();
            match (word(), word(), word()) {
                ("join", topic, _) => socket.subscribe(topic).expect("subscribed"),
                ("leave", topic, _) => assert!(socket.unsubscribe(topic)),
                ("others", topic, text) => assert!(socket.publish(topic, text).is_accepted()),
                (_, topic, text) => assert!(topic::publish(topic, text).is_accepted()),
            }
        }
        fn on_close(&mut self, _: &WebSocket, _: crate::Close<'_>) {
            topic::publish("news", &topic::subscribers("news").to_string());
        }
    }

    fn open() -> FakeSession<Speaker> {
        Fake::upgrade("/speaker").stateless().open().expect("accepted")
    }

    fn heard(session: &mut FakeSession<Speaker>) -> Vec<String> {
        session.sent().into_iter().filter_map(Sent::into_text).collect()
    }

    #[test]
    fn subscribers_hear_and_nobody_else_does() {
        let (mut ann, mut bob, mut eve) = (open(), open(), open());
        ann.text("join news");
        ann.text("join news");
        bob.text("join news");
        eve.text("join other");
        ann.text("others news one");
        bob.text("all news two");
        eve.text("all news three");
        assert_eq!(heard(&mut ann), ["two", "three"]);
        assert_eq!(heard(&mut bob), ["one", "two", "three"]);
        assert_eq!(heard(&mut eve), [""; 0]);
        bob.reload().expect("the session moves");
        ann.text("leave news");
        ann.text("all news four");
        assert_eq!((heard(&mut ann), heard(&mut bob)), (vec![], vec!["four".to_owned()]));
        ann.text("join news");
        bob.peer_close(1000, "");
        assert_eq!(heard(&mut ann), ["1"], "who is leaving counts no more");
    }

    #[test]
    fn names_have_bounds_and_scopes_are_apart() {
        let mut ann = open();
        ann.text("join news");
        topic::publish(Topic::shared("news"), "not here");
        assert_eq!(heard(&mut ann), [""; 0]);
        assert_eq!((topic::subscribers("news"), topic::subscribers(Topic::shared("news"))), (1, 0));
        assert_eq!(topic::publish("", "text"), SendStatus::Invalid);
        assert_eq!(topic::publish(&"x".repeat(256), "text"), SendStatus::Invalid);
    }

    struct Greedy;

    impl crate::Handler for Greedy {
        fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
            Ok(Self)
        }
        fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
            for number in 0..1024 {
                assert_eq!(socket.subscribe(&number.to_string()), Ok(()));
            }
            assert_eq!(socket.subscribe("one more"), Err(TopicError::TooMany));
            assert_eq!(socket.subscribe("7"), Ok(()), "it is there already");
            assert_eq!(socket.subscribe(""), Err(TopicError::Name));
            socket.send("done");
        }
    }

    #[test]
    fn a_session_has_a_bound_of_subscriptions() {
        let mut session = Fake::<Greedy>::upgrade("/greedy").open().expect("accepted");
        session.text("go");
        assert_eq!(session.sent(), [Sent::Text("done".into())]);
    }
}
