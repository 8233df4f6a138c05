//! What tells a file from another one, and from what it was before.
//!
//! Nothing is read for it: content is compared later, by its hash, so a touch costs a read and nothing else.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What changes when somebody writes to a file or puts another one in its place. The time of the last change of the inode finds
/// also who sets the time of modification back, as `cp -p` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    id: Id,
    mode: u32,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stat {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let (size, modified, changed) = if metadata.is_dir() {
            // Its times change with everything that is written in it, and that is looked at by itself.
            (0, (0, 0), (0, 0))
        } else {
            (
                metadata.size(),
                (metadata.mtime(), metadata.mtime_nsec()),
                (metadata.ctime(), metadata.ctime_nsec()),
            )
        };
        Self { id: Id::of(metadata), mode: metadata.mode(), size, modified, changed }
    }

    /// The one of a file with this number, and of no other.
    #[cfg(test)]
    pub(super) fn of_test(inode: u64) -> Self {
        Self { id: Id { device: 0, inode }, mode: 0, size: 0, modified: (0, 0), changed: (0, 0) }
    }
}

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}
