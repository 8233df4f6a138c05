//! Looks at the handlers folders: which files are there, and are they still the ones seen before.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::scan::{self, Found, Scan, ScanError};
use crate::config::Handlers;

/// What tells a file from the one that was there before. Content is compared later, by its hash, so a touch costs a read and
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Of the file that a link leads to. `None` if it is gone.
    fn of(found: &Found) -> Option<Self> {
        let metadata = fs::metadata(&found.path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    #[cfg(test)]
    pub(super) fn of_test(number: u64) -> Self {
        Self { device: 0, inode: number, size: 0, modified: (0, 0), changed: (0, 0) }
    }
}

/// What a look found.
#[derive(Debug)]
pub(crate) struct Look {
    pub(super) found: Vec<(Found, Identity)>,
    pub(super) scan: Scan,
}

/// Reads the folders; blocks while it does. Errors as [`scan::scan`].
pub(super) fn look(handlers: &Handlers) -> Result<Look, ScanError> {
    let mut scan = scan::scan(handlers)?;
    let found = std::mem::take(&mut scan.found);
    let found = found.into_iter().filter_map(|found| Identity::of(&found).map(|identity| (found, identity)));
    Ok(Look { found: found.collect(), scan })
}
