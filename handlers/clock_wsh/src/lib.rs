//! Tells the time, UTC, each second or as often as asked for: `/clock?every_ms=250`. A message is answered with the time at once.
//!
//! The clock goes on over a reload, because timers move with their session: the new code needs no state for that.

#![deny(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handler_api::{Handler, Message, Reject, Upgrade, WebSocket, export_handler};

/// The one timer of a session.
const TICK: u64 = 1;

const EVERY_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

#[derive(Default)]
struct Clock {
    /// For `on_open`, which starts the timer.
    every: Duration,
}

impl Handler for Clock {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        let every_ms = match upgrade.param("every_ms") {
            None => Some(1000),
            Some(text) => text.parse().ok().filter(|every| EVERY_MS.contains(every)),
        };
        let every_ms = every_ms.ok_or_else(|| {
            let (least, most) = EVERY_MS.into_inner();
            Reject::forbidden(format!("every_ms is a number from {least} to {most}\n"))
        })?;
        Ok(Self { every: Duration::from_millis(every_ms) })
    }

    fn on_open(&mut self, socket: &WebSocket) {
        if let Err(error) = socket.set_interval(TICK, self.every) {
            handler_api::log::error(format_args!("no timer: {error}"));
        }
        tell(socket);
    }

    fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
        tell(socket);
    }

    fn on_timer(&mut self, socket: &WebSocket, _: u64) {
        // A peer that does not read needs no time that is past already.
        if socket.buffered_amount() == 0 {
            tell(socket);
        }
    }
}

fn tell(socket: &WebSocket) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    socket.send(&time_of_day(since));
}

fn time_of_day(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() % (24 * 60 * 60);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", since_1970.subsec_millis())
}

export_handler!(Clock, stateless);

#[cfg(test)]
mod tests {
    use handler_api::testing::{Fake, FakeSession};

    use super::*;

    fn open(url: &str) -> FakeSession<Clock> {
        Fake::upgrade(url).stateless().open().expect("accepted")
    }

    #[test]
    fn the_time_comes_each_second_and_when_it_is_asked_for() {
        let mut session = open("/clock");
        assert_eq!(session.sent().len(), 1);
        session.advance(Duration::from_millis(999));
        assert_eq!(session.sent().len(), 0);
        session.advance(Duration::from_millis(2001));
        assert_eq!(session.sent().len(), 3);
        session.text("?");
        assert_eq!(session.sent().len(), 1);
    }

    #[test]
    fn the_clock_goes_on_over_a_reload() {
        let mut session = open("/clock?every_ms=100");
        session.advance(Duration::from_millis(150));
        session.reload().expect("the session moves");
        session.advance(Duration::from_millis(50));
        assert_eq!(session.sent().len(), 3, "at once, after 100 ms, after 200 ms");
    }

    #[test]
    fn it_ticks_within_bounds() {
        for url in ["/clock?every_ms=", "/clock?every_ms=9", "/clock?every_ms=3600001", "/clock?every_ms=x"] {
            let rejected = Fake::<Clock>::upgrade(url).open().expect_err("refused");
            assert_eq!((rejected.status, rejected.body.contains("10 to")), (403, true), "{url}");
        }
    }

    #[test]
    fn a_day_begins_at_midnight() {
        assert_eq!(time_of_day(Duration::from_millis(86_399_999)), "23:59:59.999");
        assert_eq!(time_of_day(Duration::from_secs(86_400)), "00:00:00.000");
    }
}
