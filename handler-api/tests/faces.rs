//! The sequential and the blocking face, played by the fake host.

#![cfg(feature = "testing")]

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};

use handler_api::testing::{Fake, FakeSession, Sent, set_raw};
use handler_api::{
    Async, AsyncHandler, Blocking, BlockingHandler, BlockingSocket, Busy, Close, Failure, Message, Migrate,
    OwnedMessage, RawError, Received, Reject, Socket, Upgrade, WebSocket,
};

fn text(text: &str) -> Sent {
    Sent::Text(text.to_owned())
}

fn close(code: u16) -> Sent {
    Sent::Close(code, String::new())
}

/// A gate that another thread opens.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Gate {
    fn open(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn is_waited_for(&self) -> bool {
        !self.0.lock().unwrap().1.is_empty()
    }
}

impl Future for Gate {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1.push(cx.waker().clone());
        Poll::Pending
    }
}

type Talk =
    for<'a> fn(&'a mut Case, &'a Socket) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// A handler whose conversation the test gives.
struct Case {
    gate: Gate,
    talk: Talk,
    log: Arc<Mutex<Vec<&'static str>>>,
}

thread_local! {
    static NEXT: std::cell::RefCell<Option<Case>> = const { std::cell::RefCell::new(None) };
}

impl AsyncHandler for Case {
    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        NEXT.take().ok_or_else(|| Reject::new(404))
    }
    async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
        (self.talk)(self, socket).await
    }
    fn on_closing(close: Close<'_>) -> u16 {
        if close.code == 3000 { 3001 } else { close.code }
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        self.log.lock().unwrap().push("object");
    }
}

struct Opened {
    session: FakeSession<Async<Case>>,
    gate: Gate,
    log: Arc<Mutex<Vec<&'static str>>>,
}

fn open(talk: Talk) -> Opened {
    let (gate, log) = (Gate::default(), Arc::default());
    NEXT.set(Some(Case { gate: gate.clone(), talk, log: Arc::clone(&log) }));
    let session =
        Fake::<Async<Case>>::upgrade("/case?room=blue").header("x-a", "b").open().expect("accepted");
    Opened { session, gate, log }
}

/// In the log when it is dropped.
struct Noted(Arc<Mutex<Vec<&'static str>>>, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1);
    }
}

#[test]
fn messages_come_back_and_the_end_closes_with_1000() {
    let mut opened = open(|_, socket| {
        Box::pin(async move {
            while let Some(message) = socket.receive().await {
                let is_last = message == "Goodbye";
                socket.send(message).await?;
                if is_last {
                    break;
                }
            }
            Ok(())
        })
    });
    opened.session.text("hello");
    opened.session.binary(&[1, 2]);
    opened.session.text("Goodbye");
    opened.session.text("too late");
    assert_eq!(
        opened.session.sent(),
        [text("hello"), Sent::Binary(vec![1, 2]), text("Goodbye"), close(1000)]
    );
    assert!(!opened.session.is_held());
}

#[test]
fn a_message_outlives_the_callback_that_brought_it() {
    let mut opened = open(|case, socket| {
        Box::pin(async move {
            let gate = case.gate.clone();
            let first = socket.receive().await.ok_or("none")?;
            let borrowed = first.as_text().ok_or("a text")?;
            let second_comes = socket.receive();
            gate.await;
            let second = second_comes.await.ok_or("none")?;
            socket.send(borrowed).await?;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::Ready(())
            })
            .await;
            let both = format!("{borrowed}{}", second.as_text().unwrap_or_default());
            socket.send(first).await?;
            socket.send(second).await?;
            socket.send(&both).await?;
            Ok(())
        })
    });
    opened.session.text("one");
    assert!(opened.session.is_held() && opened.gate.is_waited_for());
    opened.session.text("two");
    assert_eq!(opened.session.sent(), [], "kept back");
    opened.gate.open();
    let all = ["one", "one", "two", "onetwo"].map(text);
    assert_eq!(opened.session.sent(), [&all[..], &[close(1000)]].concat());
}

/// Suspended with a message at hand that it has not looked at: the bytes are the server's no more.
#[test]
fn a_message_that_was_not_looked_at_is_kept_too() {
    let mut opened = open(|case, socket| {
        Box::pin(async move {
            let gate = case.gate.clone();
            let message = socket.receive().await.ok_or("none")?;
            gate.await;
            message.with(|message| assert_eq!(message, Message::Text("kept")));
            let owned: OwnedMessage = message.into_owned();
            socket.send(&owned).await?;
            Ok(())
        })
    });
    let bytes = "kept".to_owned();
    opened.session.text(&bytes);
    drop(bytes);
    opened.gate.open();
    assert_eq!(opened.session.sent(), [text("kept"), close(1000)]);
}

#[test]
fn a_message_that_nobody_takes_waits_for_the_next_receive() {
    let mut opened = open(|case, socket| {
        Box::pin(async move {
            let gate = case.gate.clone();
            // The first of two branches wins although a message came, as with select!.
            let mut turns = 0;
            {
                let mut receive = pin!(socket.receive());
                poll_fn(|cx| {
                    turns += 1;
                    if turns == 1 { receive.as_mut().poll(cx).map(drop) } else { Poll::Ready(()) }
                })
                .await;
            }
            gate.await;
            while let Some(message) = socket.receive().await {
                socket.send(message).await?;
            }
            Ok(())
        })
    });
    opened.session.text("a");
    opened.session.text("b");
    assert!(opened.session.is_held());
    opened.gate.open();
    assert_eq!(opened.session.sent(), [text("a"), text("b")]);
    assert!(!opened.session.is_held());
}

#[test]
fn a_message_that_is_forgotten_does_no_harm() {
    let mut opened = open(|_, socket| {
        Box::pin(async move {
            let leaked: &Received<'_> = Box::leak(Box::new(socket.receive().await.ok_or("none")?));
            let text = leaked.as_text().ok_or("a text")?;
            // Safe code may do it, so it has to be harmless.
            #[allow(clippy::mem_forget)]
            std::mem::forget(socket.receive().await);
            socket.send(text).await?;
            Ok(())
        })
    });
    opened.session.text("a");
    opened.session.text("b");
    assert_eq!(opened.session.sent(), [text("a"), close(1000)]);
}

#[test]
fn sending_waits_while_the_peer_is_slow() {
    let mut opened = open(|_, socket| {
        Box::pin(async move {
            while let Some(message) = socket.receive().await {
                socket.send(message).await?;
                socket.send("and").await?;
            }
            Ok(())
        })
    });
    opened.session.set_slow();
    opened.session.text("a");
    opened.session.text("b");
    assert!(opened.session.is_held());
    assert_eq!(opened.session.sent(), [text("a")]);
    opened.session.writable();
    assert_eq!(opened.session.sent(), ["and", "b", "and"].map(text));
}

#[test]
fn an_error_closes_with_1011_and_so_does_a_panic_and_no_other_session_hears_of_it() {
    let mut fails = open(|_, socket| {
        Box::pin(async move {
            socket.receive().await;
            Err("no such room".into())
        })
    });
    let mut panics = open(|case, socket| {
        let log = case.log.clone();
        Box::pin(async move {
            let _noted = Noted(log, "future");
            let _message = socket.receive().await;
            panic!("asked for");
        })
    });
    let mut echo = open(|_, socket| {
        Box::pin(async move {
            while let Some(message) = socket.receive().await {
                socket.send(message).await?;
            }
            Ok(())
        })
    });
    for session in [&mut fails.session, &mut panics.session, &mut echo.session] {
        session.text("x");
    }
    assert_eq!(fails.session.sent(), [close(1011)]);
    assert_eq!(panics.session.sent(), [close(1011)]);
    assert!(fails.session.is_over() && panics.session.is_over());
    assert_eq!(*panics.log.lock().unwrap(), ["future", "object"]);
    assert_eq!(echo.session.sent(), [text("x")]);
}

#[test]
fn the_peer_closes_and_the_future_has_a_last_word() {
    let mut opened = open(|case, socket| {
        let log = case.log.clone();
        Box::pin(async move {
            let _noted = Noted(log, "future");
            while socket.receive().await.is_some() {}
            assert_eq!((socket.close_code(), socket.close_reason()), (Some(3000), "enough".into()));
            socket.send("bye").await?;
            Ok(())
        })
    });
    assert_eq!(opened.session.peer_close(3000, "enough"), 3001);
    assert_eq!(opened.session.sent(), [text("bye")]);
    assert_eq!(*opened.log.lock().unwrap(), ["future", "object"]);
}

#[test]
fn the_future_is_dropped_before_its_object_wherever_it_waits() {
    let opened = open(|case, _| {
        let (gate, log) = (case.gate.clone(), case.log.clone());
        Box::pin(async move {
            let _noted = Noted(log, "future");
            gate.await;
            Ok(())
        })
    });
    let Opened { session, gate, log } = opened;
    drop(session);
    assert_eq!(*log.lock().unwrap(), ["future", "object"]);
    // A waker that is still there leads nowhere.
    gate.open();
}

#[test]
fn wakers_work_from_every_thread_and_after_the_end() {
    let mut opened = open(|case, socket| {
        Box::pin(async move {
            let gate = case.gate.clone();
            // A waker that is cloned on another thread during the poll.
            poll_fn(|cx| {
                let waker = cx.waker();
                std::thread::scope(|scope| {
                    // A clone that wakes, and not only a reference.
                    #[allow(clippy::waker_clone_wake)]
                    scope.spawn(|| waker.clone().wake()).join().unwrap();
                });
                Poll::Ready(())
            })
            .await;
            gate.await;
            socket.send("woken").await?;
            socket.receive().await;
            Ok(())
        })
    });
    let waker = opened.gate.0.lock().unwrap().1[0].clone();
    let gate = opened.gate.clone();
    std::thread::spawn(move || gate.open()).join().unwrap();
    assert_eq!(opened.session.next_sent(), Some(text("woken")));
    drop(opened);
    waker.wake_by_ref();
    std::thread::spawn(move || waker.wake()).join().unwrap();
}

#[test]
fn a_socket_that_is_used_on_another_thread_refuses() {
    let mut opened = open(|_, socket| {
        Box::pin(async move {
            let refused = std::thread::scope(|scope| scope.spawn(|| drop(socket.send("x"))).join().is_err());
            socket.send(if refused { "refused" } else { "sent" }).await?;
            Ok(())
        })
    });
    assert_eq!(opened.session.sent(), [text("refused"), close(1000)]);
}

/// Parts of the future that have wakers of their own, as those of `join!` in some libraries.
#[test]
fn a_part_with_a_waker_of_its_own_is_woken() {
    struct Own(Mutex<bool>, Mutex<Option<Waker>>);
    impl std::task::Wake for Own {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.lock().unwrap().take().inspect(Waker::wake_by_ref);
        }
    }
    let mut opened = open(|_, socket| {
        Box::pin(async move {
            let own = Arc::new(Own(Mutex::new(true), Mutex::new(None)));
            let mut receive = pin!(socket.receive());
            let message = poll_fn(|cx| {
                *own.1.lock().unwrap() = Some(cx.waker().clone());
                if !std::mem::take(&mut *own.0.lock().unwrap()) {
                    return Poll::Pending;
                }
                let waker = Waker::from(own.clone());
                receive.as_mut().poll(&mut Context::from_waker(&waker))
            })
            .await;
            socket.send(message.ok_or("none")?).await?;
            Ok(())
        })
    });
    opened.session.text("a");
    assert_eq!(opened.session.sent(), [text("a"), close(1000)]);
}

#[test]
fn attributes_of_the_session_can_be_asked_for() {
    let mut opened = open(|_, socket| {
        Box::pin(async move {
            let all = format!(
                "{} {:?} {:?} {:?}",
                socket.url(),
                socket.param("room"),
                socket.header("X-A"),
                socket.protocol()
            );
            socket.send(&all).await?;
            socket.close(4000, "done")?;
            Ok(())
        })
    });
    let all = text(r#"/case?room=blue Some("blue") Some("b") """#);
    assert_eq!(opened.session.sent(), [all, Sent::Close(4000, "done".into())]);
}

// ---- reloads -----------------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Counter {
    messages: u8,
}

impl AsyncHandler for Counter {
    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self::default())
    }
    async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
        socket.send(format!("begins at {}", self.messages)).await?;
        while let Some(message) = socket.receive().await {
            self.messages += 1;
            if message == "wait" {
                std::future::pending::<()>().await;
            }
            socket.send(self.messages.to_string()).await?;
        }
        Ok(())
    }
}

impl Migrate for Counter {
    fn export_state(&mut self, _: &WebSocket) -> Result<Vec<u8>, Busy> {
        if self.messages == 2 { Err(Busy) } else { Ok(vec![self.messages]) }
    }
    fn import_state(_: u32, state: &[u8], _: &WebSocket) -> Option<Self> {
        state.first().filter(|messages| **messages != 9).map(|messages| Self { messages: *messages })
    }
}

#[test]
fn a_session_moves_between_two_messages_and_begins_anew_with_its_state() {
    use handler_api::testing::Stays;
    let mut session = Fake::<Async<Counter>>::upgrade("/counter").migrate().open().expect("accepted");
    session.text("a");
    session.reload().expect("it moves");
    assert_eq!(session.sent(), ["begins at 0", "1", "begins at 1"].map(text));
    session.text("b");
    assert_eq!(session.reload(), Err(Stays::Busy), "says the handler");
    assert_eq!(session.sent(), ["2", "begins at 2"].map(text), "the old object begins anew");
    session.text("c");
    session.export_state().expect("exported");
    assert_eq!(session.import_state(1, &[9]), Err(Stays::Refused));
    assert_eq!(session.sent(), ["3", "begins at 3"].map(text));
    session.text("wait");
    assert_eq!(session.reload(), Err(Stays::Busy), "in the middle of something");
}

#[test]
fn without_state_a_session_begins_anew_with_a_default_object() {
    let mut session = Fake::<Async<Counter>>::upgrade("/counter").stateless().open().expect("accepted");
    session.text("a");
    session.reload().expect("it moves");
    assert_eq!(session.sent(), ["begins at 0", "1", "begins at 0"].map(text));
}

// ---- blocking ----------------------------------------------------------------------------------------------------------

/// Does what the query says.
struct Block(String);

static RELEASED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl BlockingHandler for Block {
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self(upgrade.query().to_owned()))
    }
    fn transfer_data(&mut self, socket: &mut BlockingSocket) -> Result<(), Failure> {
        match self.0.as_str() {
            "panic" => panic!("asked for"),
            "fail" => return Err("asked for".into()),
            "flood" => {
                for number in 0..1000 {
                    socket.send(format!("{number}"))?;
                }
            }
            "raw" => {
                socket.send("before")?;
                if socket.send_raw(b"raw") == Err(RawError::Forbidden) {
                    return Err("forbidden".into());
                }
                socket.receive_raw()?;
                socket.send("after")?;
                let received = socket.receive().ok_or("nothing came")?;
                socket.send_raw(received.as_bytes())?;
                socket.end();
                return Ok(());
            }
            "wait" => {
                let mut released = RELEASED.0.lock().unwrap();
                while !*released {
                    released = RELEASED.1.wait(released).unwrap();
                }
            }
            _ => {}
        }
        if self.0 == "flood" {
            return Ok(());
        }
        while let Some(message) = socket.receive() {
            if message.as_text() == Some("Goodbye") {
                break;
            }
            socket.send(&message)?;
        }
        if self.0 == "note" {
            *NOTE.0.lock().unwrap() = Some((socket.close_code(), socket.close_reason()));
            NOTE.1.notify_all();
        }
        Ok(())
    }
}

/// How the session ended, for its thread.
type End = (Option<u16>, String);
static NOTE: (Mutex<Option<End>>, Condvar) = (Mutex::new(None), Condvar::new());

fn block(query: &str) -> FakeSession<Blocking<Block>> {
    Fake::<Blocking<Block>>::upgrade(&format!("/block?{query}")).open().expect("accepted")
}

#[test]
fn a_thread_answers_and_its_end_closes_with_1000() {
    let mut session = block("");
    session.text("a");
    session.binary(&[1]);
    assert_eq!(session.next_sent(), Some(text("a")));
    assert_eq!(session.next_sent(), Some(Sent::Binary(vec![1])));
    session.text("Goodbye");
    assert_eq!(session.next_sent(), Some(close(1000)));
}

#[test]
fn a_thread_hears_why_the_peer_has_closed() {
    assert_eq!(block("note").peer_close(4001, "enough"), 4001);
    let noted = NOTE.1.wait_while(NOTE.0.lock().unwrap(), |noted| noted.is_none()).unwrap();
    assert_eq!(*noted, Some((Some(4001), "enough".into())));
}

#[test]
fn a_thread_that_panics_or_fails_closes_with_1011() {
    for query in ["panic", "fail"] {
        assert_eq!(block(query).next_sent(), Some(close(1011)), "{query}");
    }
}

#[test]
fn a_peer_waits_for_a_thread_that_does_not_receive_and_nothing_is_lost() {
    let mut session = block("wait");
    for number in 0..100 {
        session.text(&number.to_string());
    }
    assert!(session.is_held());
    *RELEASED.0.lock().unwrap() = true;
    RELEASED.1.notify_all();
    for number in 0..100 {
        assert_eq!(session.next_sent(), Some(text(&number.to_string())));
    }
    assert_eq!(session.peer_close(4001, ""), 4001);
}

#[test]
fn a_thread_that_sends_faster_than_the_worker_waits_for_it() {
    let mut session = block("flood");
    for number in 0..1000 {
        assert_eq!(session.next_sent(), Some(text(&number.to_string())));
    }
    assert_eq!(session.next_sent(), Some(close(1000)));
}

#[test]
fn a_thread_waits_while_the_peer_is_slow() {
    let mut session = block("flood");
    session.set_slow();
    assert_eq!(session.next_sent(), Some(text("0")));
    while session.sent().is_empty() {
        session.writable();
        session.set_slow();
    }
}

// ---- raw access --------------------------------------------------------------------------------------------------------

#[test]
fn a_future_sends_and_receives_raw() {
    set_raw(true);
    let mut opened = open(|_, socket| {
        Box::pin(async move {
            socket.send("before").await?;
            socket.send_raw(b"raw")?.await?;
            socket.receive_raw()?;
            let received = socket.receive().await.ok_or("nothing came")?;
            socket.send_raw(received.as_bytes())?.await?;
            socket.end();
            Ok(())
        })
    });
    opened.session.raw(b"any");
    let raw = |bytes: &[u8]| Sent::Raw(bytes.to_vec());
    assert_eq!(opened.session.sent(), [text("before"), raw(b"raw"), raw(b"any"), Sent::End]);
}

#[test]
fn a_thread_sends_and_receives_raw() {
    set_raw(true);
    let mut session = Fake::<Blocking<Block>>::upgrade("/block?raw").open().expect("accepted");
    let sent: Vec<_> = (0..3).map_while(|_| session.next_sent()).collect();
    assert_eq!(sent, [text("before"), Sent::Raw(b"raw".to_vec()), text("after")]);
    session.raw(b"any");
    assert_eq!(session.next_sent(), Some(Sent::Raw(b"any".to_vec())));
    assert_eq!(session.next_sent(), Some(Sent::End));
}

#[test]
fn a_thread_without_a_grant_is_told_at_once() {
    let mut session = Fake::<Blocking<Block>>::upgrade("/block?raw").open().expect("accepted");
    assert_eq!(session.next_sent(), Some(text("before")));
    assert_eq!(session.next_sent(), Some(close(1011)));
}
