//! Sends a message again and again: the first message is the order, `SECONDS COUNT TEXT`, such as `0.1 20 hello`. Then it closes
//! with 1000.
//!
//! It waits SECONDS behind each message, and for a client that reads slowly. An order that makes no sense is answered with 1011
//! and the reason in words; pywebsocket's example drops the connection.

#![deny(unsafe_code)]

use std::time::Duration;

use handler_api::{AsyncHandler, Failure, Reject, Socket, Upgrade, export_handler};

struct Bench;

const SECONDS_MAX: f64 = 60.0;
const COUNT_MAX: u32 = 1_000_000;

struct Order<'t> {
    pause: Duration,
    count: u32,
    text: &'t str,
}

impl<'t> Order<'t> {
    fn read(order: &'t str) -> Option<Self> {
        let mut words = order.splitn(3, ' ');
        let seconds = words.next()?.parse().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))?;
        let count = words.next()?.parse().ok().filter(|count| *count <= COUNT_MAX)?;
        Some(Self { pause: Duration::from_secs_f64(seconds), count, text: words.next()? })
    }
}

impl AsyncHandler for Bench {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self)
    }

    async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
        let Some(message) = socket.receive().await else { return Ok(()) };
        let Some(order) = message.as_text().and_then(Order::read) else {
            let what = format!("send SECONDS (to {SECONDS_MAX}) COUNT (to {COUNT_MAX}) TEXT");
            return Ok(socket.close(1011, &what)?);
        };
        for _ in 0..order.count {
            socket.send(order.text).await?;
            // With no pause at all the other sessions get their turn all the same.
            tokio::task::yield_now().await;
            tokio::time::sleep(order.pause).await;
        }
        Ok(())
    }
}

export_handler!(Bench, async);

#[cfg(test)]
mod tests {
    use handler_api::Async;
    use handler_api::testing::{Fake, FakeSession, Sent};

    use super::*;

    fn ordered(order: &str) -> FakeSession<Async<Bench>> {
        let mut session = Fake::<Async<Bench>>::upgrade("/bench").open().expect("everybody is accepted");
        session.text(order);
        session
    }

    #[test]
    fn it_sends_as_often_as_it_is_told_and_closes() {
        let mut session = ordered("0.001 3 hello you");
        let sent: Vec<_> = std::iter::from_fn(|| session.next_sent()).take(4).collect();
        let text = Sent::Text("hello you".into());
        assert_eq!(sent, [text.clone(), text.clone(), text, Sent::Close(1000, String::new())]);
    }

    #[test]
    fn an_order_that_makes_no_sense_is_answered_with_1011() {
        for order in [
            "",
            "1",
            "1 2",
            "x 2 hello",
            "1 x hello",
            "-1 2 hello",
            "nan 2 hello",
            "61 1 hello",
            "0 1000001 a",
        ] {
            assert!(matches!(&ordered(order).sent()[..], [Sent::Close(1011, _)]), "{order:?}");
        }
    }
}
