//! The tables that a server offers beyond its own, as one of this age, an older or a newer one would.

use std::cell::Cell;
use std::ffi::{CStr, c_void};

use crate::abi::{
    self, wsh_config_api, wsh_metric_api, wsh_offload_api, wsh_raw_api, wsh_timer_api, wsh_topic_api,
};

/// How old the server is that the fake stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Its tables of timers, config, topics, metrics, offloaded work and raw access lack a function each that this crate knows; so none of them counts.
    Older,
    /// As this crate knows it; what a test has that says nothing.
    Same,
    /// Each table has more functions, which this crate does not know.
    Newer,
}

thread_local! {
    // Tests run side by side, each on a thread of its own.
    static SERVER: Cell<Server> = const { Cell::new(Server::Same) };
}

/// From here on the server is as old as this, for code on the thread of this test.
pub fn set_server(server: Server) {
    super::host::serve();
    SERVER.set(server);
}

pub(super) fn find(id: &CStr) -> *const c_void {
    let server = SERVER.get();
    match id {
        id if id == abi::WSH_TIMER => TIMER.of(server),
        id if id == abi::WSH_OFFLOAD => OFFLOAD.of(server),
        id if id == abi::WSH_CONFIG => CONFIG.of(server),
        id if id == abi::WSH_TOPIC => TOPIC.of(server),
        id if id == abi::WSH_METRIC => METRIC.of(server),
        id if id == abi::WSH_RAW_ACCESS => RAW.of(server),
        _ => std::ptr::null(),
    }
}

/// One table of each age.
struct Ages<T: 'static> {
    older: T,
    same: &'static T,
    newer: Longer<T>,
}

#[repr(C)]
struct Longer<T> {
    known: T,
    /// No functions, and nobody is to call them.
    later: [usize; 4],
}

impl<T> Ages<T> {
    fn of(&'static self, server: Server) -> *const c_void {
        match server {
            Server::Older => (&raw const self.older).cast(),
            Server::Same => std::ptr::from_ref(self.same).cast(),
            Server::Newer => (&raw const self.newer).cast(),
        }
    }
}

macro_rules! ages {
    ($table:ident, $same:path) => {
        Ages {
            older: $table { size: (size_of::<$table>() - size_of::<fn()>()) as u32, ..$same },
            same: &$same,
            newer: Longer {
                known: $table { size: size_of::<Longer<$table>>() as u32, ..$same },
                later: [1; 4],
            },
        }
    };
}

static TIMER: Ages<wsh_timer_api> = ages!(wsh_timer_api, super::timers::TABLE);
static OFFLOAD: Ages<wsh_offload_api> = ages!(wsh_offload_api, super::offload::TABLE);
static CONFIG: Ages<wsh_config_api> = ages!(wsh_config_api, super::config::TABLE);
static TOPIC: Ages<wsh_topic_api> = ages!(wsh_topic_api, super::topics::TABLE);
static METRIC: Ages<wsh_metric_api> = ages!(wsh_metric_api, super::metrics::TABLE);
static RAW: Ages<wsh_raw_api> = ages!(wsh_raw_api, super::raw::TABLE);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;
    use crate::testing::{Fake, Sent, run_offloaded, set_config};
    use crate::{Handler, Message, OffloadError, Reject, TimerError, Upgrade, WebSocket, offload, timer};

    /// Says what became of each thing that it asks for.
    struct Asking;

    impl Handler for Asking {
        fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
            Ok(Self)
        }
        fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
            let second = Duration::from_secs(1);
            let set =
                (socket.set_timer(1, second), socket.set_interval(2, second), timer::set_timer(3, second));
            let cleared = (socket.clear_timer(1), timer::clear_timer(3));
            let topics = (socket.subscribe("news"), crate::topic::subscribers("news"));
            socket.send(&format!("{set:?} {cleared:?} {topics:?} {}", crate::config::json()));
        }
    }

    fn ask(server: Server) -> String {
        set_config(r#"{"a":1}"#);
        set_server(server);
        let mut session = Fake::<Asking>::upgrade("/asking").open().expect("accepted");
        session.text("?");
        session.sent().pop().and_then(Sent::into_text).expect("a text")
    }

    #[test]
    fn what_an_older_server_does_not_have_is_unsupported() {
        let no = TimerError::Unsupported;
        let words = format!("({:?}, {:?}, {:?})", Err::<(), _>(no), Err::<(), _>(no), Err::<(), _>(no));
        assert_eq!(ask(Server::Older), format!("{words} (false, false) (Err(Unsupported), 0) {{}}"));
        let (dropped, is_dropped) = sync_channel::<()>(1);
        assert_eq!(offload(move || drop(dropped)), Err(OffloadError::NoThread));
        assert!(is_dropped.recv().is_err(), "what was not taken is dropped");
    }

    #[test]
    fn a_newer_server_has_what_this_crate_knows() {
        for server in [Server::Same, Server::Newer] {
            assert_eq!(
                ask(server),
                r#"(Ok(()), Ok(()), Ok(())) (true, true) (Ok(()), 1) {"a":1}"#,
                "{server:?}"
            );
            assert_eq!(offload(|| ()), Ok(()), "{server:?}");
            assert!(run_offloaded() >= 1);
        }
    }
}
