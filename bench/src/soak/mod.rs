//! Long runs that look for what goes wrong only in a thousand: `cargo xtask soak NAME`, shortened with `--quick`.

pub(crate) mod certificates;
pub(crate) mod panics;
pub(crate) mod reload;
pub(crate) mod unload;
pub(crate) mod writes;

mod server;

use std::io::{Error, Result};

/// A claim that the run makes and has to keep.
pub(crate) fn claim(what: &str, holds: bool, figure: impl std::fmt::Display) -> Result<()> {
    println!("  {}  {what}: {figure}", if holds { "ok    " } else { "FAILED" });
    if holds { Ok(()) } else { Err(Error::other(format!("{what}: {figure}"))) }
}

/// Some of the values, by rank: 0.99 is what all but one in a hundred stay below.
pub(crate) fn quantile(sorted: &[u64], rank: f64) -> u64 {
    let index = ((sorted.len() as f64 * rank) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}
