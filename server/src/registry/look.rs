//! Looks at the handlers folders: which files are there, and are they still the ones seen before.

use std::fs;

use super::scan::{self, Found, Scan, ScanError};
use super::stat::Stat;
use crate::config::Handlers;

/// What a look found.
#[derive(Debug)]
pub(crate) struct Look {
    pub(super) found: Vec<(Found, Stat)>,
    pub(super) scan: Scan,
}

/// Reads the folders; blocks while it does. Errors as [`scan::scan`].
pub(super) fn look(handlers: &Handlers) -> Result<Look, ScanError> {
    let mut scan = scan::scan(handlers)?;
    let found = std::mem::take(&mut scan.found);
    // Of the file that a link leads to. One that is gone by now was never there.
    let stat = |found: &Found| fs::metadata(&found.path).ok().map(|metadata| Stat::of(&metadata));
    let found = found.into_iter().filter_map(|found| stat(&found).map(|stat| (found, stat)));
    Ok(Look { found: found.collect(), scan })
}
