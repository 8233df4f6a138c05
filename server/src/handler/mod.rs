//! The unsafe room: a loaded handler library behind safe calls.
//!
//! In: the path of a staged, checked library. Out: [`HandlerLibrary`], whose methods call the functions of its table with the
//! session or upgrade they are about. The other direction, what a library may ask of the server, is the table in `host`.
//!
//! Only this folder turns pointers of the C contract (`handler-api/include/wsh.h`) into references and back.

mod host;
mod instance;
mod library;

// Taking a library out of memory again, or keeping it with a reason. `interpose` sees what the library does from its first
// constructor on; the others draw the conclusions.
#[cfg(wshd_interposes)]
#[allow(dead_code, reason = "generations do not retire yet")]
mod image;
#[cfg(wshd_interposes)]
#[allow(dead_code, reason = "generations do not retire yet")]
mod interpose;
#[cfg(wshd_interposes)]
#[allow(dead_code, reason = "generations do not retire yet")]
mod keys;
#[cfg(wshd_interposes)]
#[allow(dead_code, reason = "generations do not retire yet")]
mod owner;
#[allow(dead_code, reason = "generations do not retire yet")]
mod retained;
#[cfg(wshd_interposes)]
#[allow(dead_code, reason = "generations do not retire yet")]
mod unmap;
#[cfg(not(wshd_interposes))]
#[allow(dead_code, reason = "generations do not retire yet")]
mod unproven;

#[cfg(all(test, wshd_interposes))]
mod tests;

pub(crate) use instance::{Failure, Instance, Verdict};
pub(crate) use library::{HandlerLibrary, Identity, LoadError};
#[cfg(wshd_interposes)]
#[allow(unused_imports, reason = "generations do not retire yet")]
pub(crate) use owner::Owner;
#[allow(unused_imports, reason = "generations do not retire yet")]
pub(crate) use retained::Retained;
#[cfg(wshd_interposes)]
#[allow(unused_imports, reason = "generations do not retire yet")]
pub(crate) use unmap::unmap;
#[cfg(not(wshd_interposes))]
#[allow(unused_imports, reason = "generations do not retire yet")]
pub(crate) use unproven::{Owner, unmap};
