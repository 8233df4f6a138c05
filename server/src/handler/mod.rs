//! The unsafe room: a loaded handler library behind safe calls.
//!
//! In: the path of a staged, checked library. Out: [`HandlerLibrary`], whose methods call the functions of its table with the
//! session or upgrade they are about. The other direction, what a library may ask of the server, is the table in `host`.
//!
//! Only this folder turns pointers of the C contract (`handler-api/include/wsh.h`) into references and back.

mod extension;
mod host;
mod instance;
mod library;
mod offload;
mod raw;

// Taking a library out of memory again, or keeping it with a reason. `interpose` sees what the library does from its first
// constructor on; the others draw the conclusions.
#[cfg(wshd_interposes)]
mod image;
#[cfg(wshd_interposes)]
mod interpose;
#[cfg(wshd_interposes)]
mod keys;
#[cfg(wshd_interposes)]
mod owner;
mod retained;
#[cfg(wshd_interposes)]
mod unmap;
#[cfg(not(wshd_interposes))]
mod unproven;

#[cfg(all(test, wshd_interposes))]
mod tests;

/// Ends the process without asking the loader, which waits for a library that does not come back.
pub fn exit_at_once(status: i32) -> ! {
    // SAFETY: it takes no pointer and does not return; what buffers hold is lost.
    unsafe { libc::_exit(status) }
}

pub(crate) use instance::{Failure, Instance, Verdict};
pub(crate) use library::{HandlerLibrary, Identity, LoadError};
pub(crate) use offload::{Offload, OffloadLimits};
#[cfg(wshd_interposes)]
pub(crate) use owner::Owner;
pub(crate) use retained::Retained;
#[cfg(wshd_interposes)]
use unmap::unmap;
#[cfg(not(wshd_interposes))]
pub(crate) use unproven::Owner;
#[cfg(not(wshd_interposes))]
use unproven::unmap;
