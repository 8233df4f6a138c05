//! Lines in the server's log, with this handler's name and generation.
//!
//! ```
//! handler_api::log::info(format_args!("{} members", 3));
//! handler_api::log::warn("the room is full");
//! ```
//!
//! From any thread. A line is one message, whatever characters it has, and is written where the operator's level, `log.level`,
//! allows it. Outside of a host, as in a unit test, lines go to standard error.

use std::fmt::Display;

use crate::{abi, host};

/// What needs somebody. One from [`on_load`](crate::Handler::on_load) is the reason that the library is refused for.
pub fn error(message: impl Display) {
    write(abi::WSH_LOG_ERROR, &message);
}

/// What somebody should look at some time.
pub fn warn(message: impl Display) {
    write(abi::WSH_LOG_WARN, &message);
}

/// What an operator likes to know. The level that a server writes if nothing else is configured.
pub fn info(message: impl Display) {
    write(abi::WSH_LOG_INFO, &message);
}

/// What the author likes to know. Made into text also where it is not written.
pub fn debug(message: impl Display) {
    write(abi::WSH_LOG_DEBUG, &message);
}

/// Each step. Made into text also where it is not written.
pub fn trace(message: impl Display) {
    write(abi::WSH_LOG_TRACE, &message);
}

#[allow(unsafe_code)]
fn write(level: u32, message: &dyn Display) {
    let line = message.to_string();
    match host::find() {
        // SAFETY: the host's table and this library's pointer are good as long as code of this library runs; the line is
        // readable. The function is [any].
        Some(table) => unsafe { (table.log)(host::library(), level, line.as_ptr(), line.len()) },
        None => eprintln!("{line}"),
    }
}
