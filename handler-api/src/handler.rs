//! The trait that a handler implements.

use crate::{Message, Reject, Upgrade, WebSocket};

/// One object for each WebSocket, from the accepted upgrade to its end.
///
/// All calls for one object are made on one thread and one after another; objects of other sessions run at the same time on
/// other threads. A call that blocks makes the sessions on its thread wait, and no session of any other handler. `Send` is
/// asked for so that the server stays free to move a session between two calls.
pub trait Handler: Sized + Send + 'static {
    /// Whether sessions can be asked for the query and the headers of their request after `on_upgrade`. A handler that needs
    /// them only there saves the memory: some hundred bytes for each session of a browser.
    const KEEPS_REQUEST: bool = true;

    /// A peer asks for a WebSocket. Returning an object accepts it, a [`Reject`] is answered in HTTP. The subprotocol is chosen
    /// here.
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject>;

    /// The peer was told 101. From here on the session can send.
    fn on_open(&mut self, socket: &WebSocket) {
        _ = socket;
    }

    /// One whole message. A text is UTF-8. Its bytes belong to the server and are good until this returns.
    fn on_message(&mut self, socket: &WebSocket, message: Message<'_>);

    /// A pong, asked for with [`WebSocket::ping`] or not. Pings of the peer are answered by the server.
    fn on_pong(&mut self, socket: &WebSocket, payload: &[u8]) {
        _ = (socket, payload);
    }

    /// Follows [`Handle::wake`](crate::Handle::wake).
    fn on_wake(&mut self, socket: &WebSocket) {
        _ = socket;
    }

    /// After a send answered [`Slow`](crate::SendStatus::Slow): the peer has taken enough for more to be sent.
    fn on_writable(&mut self, socket: &WebSocket) {
        _ = socket;
    }

    /// The time of a timer has come that was started by [`WebSocket::set_timer`] or [`WebSocket::set_interval`], here or in the
    /// code before, with this number.
    fn on_timer(&mut self, socket: &WebSocket, id: u64) {
        _ = (socket, id);
    }

    /// The peer begins the closing handshake. Returns the code of the answer; by default the peer's own. What is sent here goes
    /// out before the answer.
    fn on_closing(&mut self, socket: &WebSocket, close: Close<'_>) -> u16 {
        _ = socket;
        close.code
    }

    /// The connection failed, with the reason in words. `on_close` follows.
    fn on_error(&mut self, socket: &WebSocket, error: &str) {
        _ = (socket, error);
    }

    /// The session is over; the object is dropped next. Called once for each session that was opened, unless it panicked or
    /// moved to new code ([`Migrate`](crate::Migrate)).
    fn on_close(&mut self, socket: &WebSocket, close: Close<'_>) {
        _ = (socket, close);
    }

    /// The library was loaded; nothing of it is in service yet. Statics are new: what those of an older version hold stays there.
    /// It has `handlers.load_seconds_max` for that. `on_library_timer`, `on_quiesce` and `on_unload` are called on the same thread,
    /// which then also has sessions.
    ///
    /// # Errors
    /// The library is refused, with this reason in the server's log and on its start screen; the version before serves on.
    fn on_load() -> Result<(), String> {
        Ok(())
    }

    /// The time of a timer of the library has come, started by [`timer::set_timer`](crate::timer::set_timer) or
    /// [`timer::set_interval`](crate::timer::set_interval). On the thread of `on_load`.
    fn on_library_timer(id: u64) {
        _ = id;
    }

    /// No new session comes to this code: stop timers and background work. Sessions may still be open.
    fn on_quiesce() {}

    /// The last call: every object is dropped. Threads that the handler started have to be joined here.
    fn on_unload() {}
}

/// How a session ended, as the browser's close event has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// The peer's code; 1005 if its Close was empty, 1006 if none came, or the code the server failed the connection with.
    pub code: u16,
    /// Empty if none was given.
    pub reason: &'a str,
    /// Whether both sides sent Close.
    pub was_clean: bool,
}
