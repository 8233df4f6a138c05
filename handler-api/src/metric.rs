//! Figures of the handler, which the operator sees beside the server's own in `wshd status`.
//!
//! ```
//! use handler_api::metric::{Counter, Gauge};
//!
//! static SAID: Counter = Counter::new("messages_said", "Messages that were said in a room");
//! static PRESENT: Gauge = Gauge::new("members", "Members that are there");
//!
//! SAID.add(1);
//! PRESENT.add(1);
//! PRESENT.add(-1);
//! ```
//!
//! A figure belongs to the handler: when the library is replaced, the new code goes on with the values of the old. Changing one costs
//! some nanoseconds, on any thread. Outside of a server nothing is counted.

use std::sync::OnceLock;

use crate::abi::{self, wsh_metric, wsh_metric_api};
use crate::host;

/// A figure that only grows.
#[derive(Debug)]
pub struct Counter(Metric);

/// A figure that rises and falls.
#[derive(Debug)]
pub struct Gauge(Metric);

impl Counter {
    /// A figure for a `static`. The name is a lower case letter followed by at most 63 lower case letters, digits and underscores; the
    /// help is one line of at most 256 bytes. Another one does not compile in a `static`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self(Metric::new(abi::WSH_COUNTER, name, help))
    }

    /// Counts so many more.
    pub fn add(&self, amount: u32) {
        self.0.call(|table, metric| {
            // SAFETY: the host's pointer, good as long as code of this library runs. [any]
            unsafe { (table.add)(metric, amount.into()) }
        });
    }
}

impl Gauge {
    /// As [`Counter::new`].
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self(Metric::new(abi::WSH_GAUGE, name, help))
    }

    /// Raises or lowers the figure.
    pub fn add(&self, amount: i64) {
        self.0.call(|table, metric| {
            // SAFETY: as in `Counter::add`.
            unsafe { (table.add)(metric, amount) }
        });
    }

    /// Sets the figure.
    pub fn set(&self, value: i64) {
        self.0.call(|table, metric| {
            // SAFETY: as in `Counter::add`.
            unsafe { (table.set)(metric, value) }
        });
    }
}

#[derive(Debug)]
struct Metric {
    kind: u32,
    name: &'static str,
    help: &'static str,
    /// What the host knows it by, once it was asked; `None` if it was refused.
    declared: OnceLock<Option<Declared>>,
}

#[derive(Debug, Clone, Copy)]
struct Declared {
    table: &'static wsh_metric_api,
    metric: *mut wsh_metric,
}

// SAFETY: wsh.h tags every function on metrics [any].
unsafe impl Send for Declared {}
// SAFETY: as above.
unsafe impl Sync for Declared {}

impl Metric {
    const fn new(kind: u32, name: &'static str, help: &'static str) -> Self {
        assert!(
            is_name(name.as_bytes()),
            "a metric's name is a-z, 0-9 and _, begins with a letter, has at most 64 bytes"
        );
        assert!(is_help(help.as_bytes()), "a metric's help is one line of at most 256 bytes");
        Self { kind, name, help, declared: OnceLock::new() }
    }

    fn call(&self, act: impl FnOnce(&wsh_metric_api, *mut wsh_metric)) {
        // Before there is a host it is not asked, so that it still can be later.
        let Some(declared) = self.declared.get().or_else(|| self.declare()) else { return };
        if let Some(Declared { table, metric }) = declared {
            act(table, *metric);
        }
    }

    #[cold]
    fn declare(&self) -> Option<&Option<Declared>> {
        host::find()?;
        Some(self.declared.get_or_init(|| {
            // SAFETY: the type is the one of this name.
            let table = unsafe { host::extension::<wsh_metric_api>(abi::WSH_METRIC) }?;
            let (name, help) = (self.name.as_bytes(), self.help.as_bytes());
            let mut metric = std::ptr::null_mut();
            // SAFETY: this library's own pointer; name and help are readable, the slot is writable. [any]
            let status = unsafe {
                let (name, name_len, help, help_len) = (name.as_ptr(), name.len(), help.as_ptr(), help.len());
                (table.declare)(host::library(), self.kind, name, name_len, help, help_len, &raw mut metric)
            };
            if status < abi::WSH_OK {
                let why = match status {
                    abi::WSH_E_STATE => "the name has another kind already",
                    abi::WSH_E_TOO_BIG => "the handler has too many",
                    _ => "the server refuses it",
                };
                crate::log::error(format_args!("the metric {} is not counted: {why}", self.name));
                return None;
            }
            Some(Declared { table, metric })
        }))
    }
}

const fn is_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > 64 || !name[0].is_ascii_lowercase() {
        return false;
    }
    let mut index = 0;
    while index < name.len() {
        let byte = name[index];
        if !byte.is_ascii_lowercase() && !byte.is_ascii_digit() && byte != b'_' {
            return false;
        }
        index += 1;
    }
    true
}

const fn is_help(help: &[u8]) -> bool {
    let mut index = 0;
    while index < help.len() {
        if help[index].is_ascii_control() {
            return false;
        }
        index += 1;
    }
    help.len() <= 256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_helps_are_held_to_their_rules() {
        assert!(is_name(b"messages_2") && is_name(&[b'x'; 64]));
        for wrong in [&b""[..], b"2nd", b"A", b"a-b", b"_a", &[b'x'; 65]] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
        assert!(is_help("Größe".as_bytes()) && !is_help(b"two\nlines") && !is_help(&[b'x'; 257]));
    }
}
