//! The host's table and this library's own pointer, as the entry function received them.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::{self, wsh_host_api, wsh_library, wsh_slice, wsh_status};

// Each library has its own copy of these statics, because each links this crate for itself.
static HOST: AtomicPtr<wsh_host_api> = AtomicPtr::new(std::ptr::null_mut());
static LIBRARY: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Keeps what the entry function received.
///
/// # Safety
/// Both are good until the library's shutdown has returned, and the table has every field of `wsh_host_api`.
pub(crate) unsafe fn set(host: *const wsh_host_api, library: *mut wsh_library) {
    LIBRARY.store(library.cast(), Ordering::Release);
    HOST.store(host.cast_mut(), Ordering::Release);
}

/// The host's table; `None` before the entry was called, as in a unit test without a host.
pub(crate) fn find() -> Option<&'static wsh_host_api> {
    // SAFETY: null, or a table that `set` was promised to be good as long as code of this library runs.
    unsafe { HOST.load(Ordering::Acquire).as_ref() }
}

/// The host's table, for objects that only exist inside a host.
#[inline]
pub(crate) fn table() -> &'static wsh_host_api {
    find().expect("a session exists only inside a host")
}

pub(crate) fn library() -> *mut wsh_library {
    LIBRARY.load(Ordering::Acquire).cast()
}

/// A table of functions that not every host offers. `None` also outside of a host.
///
/// # Safety
/// `T` is the type that wsh.h gives this name: it begins with its size, and has functions behind that.
pub(crate) unsafe fn extension<T>(id: &CStr) -> Option<&'static T> {
    let table = find()?;
    // SAFETY: table and library are good as long as code of this library runs, and the name ends with a NUL. [any]
    let found = unsafe { (table.get_extension)(library(), id.as_ptr()) };
    // SAFETY: a table of the host begins with its size and is good until shutdown has returned (wsh.h).
    let size = unsafe { found.cast::<u32>().as_ref() }?;
    // SAFETY: the caller's promise, and the table is long enough.
    (*size as usize >= size_of::<T>()).then(|| unsafe { &*found.cast::<T>() })
}

/// Asks the host for a slice. `None` if there is none.
pub(crate) fn ask<'a>(question: impl FnOnce(*mut wsh_slice) -> wsh_status) -> Option<&'a [u8]> {
    let mut slice = wsh_slice { ptr: std::ptr::null(), len: 0 };
    (question(&raw mut slice) >= abi::WSH_OK).then(|| as_bytes(slice))
}

/// Asks the host for two slices.
pub(crate) fn ask_pair<'a>(
    question: impl FnOnce(*mut wsh_slice, *mut wsh_slice) -> wsh_status,
) -> Option<(&'a [u8], &'a [u8])> {
    let empty = wsh_slice { ptr: std::ptr::null(), len: 0 };
    let (mut first, mut second) = (empty, empty);
    (question(&raw mut first, &raw mut second) >= abi::WSH_OK).then(|| (as_bytes(first), as_bytes(second)))
}

/// The lifetime is for the caller to limit: to the object that was asked.
fn as_bytes<'a>(slice: wsh_slice) -> &'a [u8] {
    if slice.len == 0 {
        return &[];
    }
    // SAFETY: the host answered with success, and then its slices are readable until the callback returns (wsh.h). Every
    // caller ties the lifetime to an object that lives no longer than that.
    unsafe { std::slice::from_raw_parts(slice.ptr, slice.len) }
}
