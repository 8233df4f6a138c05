//! Files with secrets: read whole, of bounded size, and only if no other user of this machine can read them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Why a file is not read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    System(io::Error),
    /// Others may read it; its mode.
    Shared(u32),
    /// It has more than so many bytes.
    TooLarge(u64),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Shared(mode) => write!(f, "other users may read it (mode {mode:o}); run `chmod 600` on it"),
            Self::TooLarge(most) => write!(f, "it is larger than {most} bytes"),
        }
    }
}

/// Reads a file of at most so many bytes. With `is_secret` it must be its owner's alone.
pub(crate) fn read(path: &Path, bytes_max: u64, is_secret: bool) -> Result<Vec<u8>, Unreadable> {
    let file = File::open(path).map_err(Unreadable::System)?;
    // Asked of what was opened: the name may be another file's by now.
    let mode = file.metadata().map_err(Unreadable::System)?.mode() & 0o777;
    if is_secret && mode & 0o077 != 0 {
        return Err(Unreadable::Shared(mode));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(Unreadable::System)?;
    if bytes.len() as u64 > bytes_max { Err(Unreadable::TooLarge(bytes_max)) } else { Ok(bytes) }
}
