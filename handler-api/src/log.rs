//! Lines in the server's log, with this handler's name and generation.
//!
//! ```
//! handler_api::log::info(format_args!("{} members", 3));
//! handler_api::log::warn("the room is full");
//! ```
//!
//! Outside of a host, as in a unit test, they go to standard error.

use std::fmt::Display;

use crate::{abi, host};

pub fn error(message: impl Display) {
    write(abi::WSH_LOG_ERROR, &message);
}

pub fn warn(message: impl Display) {
    write(abi::WSH_LOG_WARN, &message);
}

pub fn info(message: impl Display) {
    write(abi::WSH_LOG_INFO, &message);
}

pub fn debug(message: impl Display) {
    write(abi::WSH_LOG_DEBUG, &message);
}

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
