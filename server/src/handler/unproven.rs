//! `owner` and `unmap` for platforms where nobody has looked at what the loader and the threads of the C library do: every
//! library stays in memory.

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::retained::Retained;

/// Knows nothing.
#[derive(Debug)]
pub(crate) struct Owner;

impl Owner {
    pub(crate) fn new(_: String) -> Arc<Self> {
        Arc::new(Self)
    }

    pub(crate) fn claim_thread(&self) {}

    pub(crate) fn mapped(&self, _: *const c_void) {}
}

/// Leaves the library in memory.
///
/// # Errors
/// Always [`Retained::Platform`].
pub(crate) fn unmap(
    library: libloading::Library,
    _: &Arc<Owner>,
    _: &Path,
    _: Duration,
) -> Result<(), Retained> {
    // The handle is a number from here on, and nothing closes it.
    let _ = libloading::os::unix::Library::from(library).into_raw();
    Err(Retained::Platform)
}
