//! Figures that handlers keep, for the operator to read beside the server's own.
//!
//! In: declarations and changes by libraries, from any thread. Out: the status. A figure belongs to the handler and not to one of
//! its generations: what a new version declares by the same name goes on from where the old one was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handler_api::abi::{self, wsh_status};

/// Figures of one handler.
const METRICS_MAX: usize = 256;

const NAME_BYTES_MAX: usize = 64;

const HELP_BYTES_MAX: usize = 256;

/// The figures of all handlers. One for each server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    handlers: Mutex<Handlers>,
}

/// By the names of the handlers, then by those of the figures.
type Handlers = BTreeMap<Arc<str>, BTreeMap<Box<str>, Arc<Metric>>>;

/// One figure: what `wsh_metric *` points at.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) kind: MetricKind,
    pub(crate) help: Box<str>,
    value: AtomicI64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// Only grows.
    Counter,
    Gauge,
}

impl Metrics {
    /// The figure of this name, which is made if the handler has none.
    ///
    /// # Errors
    /// `WSH_E_INVALID` for a kind, a name or a help that breaks a rule of wsh.h, `WSH_E_STATE` for a name that has another kind,
    /// `WSH_E_TOO_BIG` if there are too many.
    pub(crate) fn declare(
        &self,
        handler: &Arc<str>,
        kind: u32,
        name: &[u8],
        help: &[u8],
    ) -> Result<Arc<Metric>, wsh_status> {
        let kind = match kind {
            abi::WSH_COUNTER => MetricKind::Counter,
            abi::WSH_GAUGE => MetricKind::Gauge,
            _ => return Err(abi::WSH_E_INVALID),
        };
        let name = self::name(name).ok_or(abi::WSH_E_INVALID)?;
        let help = std::str::from_utf8(help)
            .ok()
            .filter(|help| help.len() <= HELP_BYTES_MAX && !help.contains(char::is_control));
        let help = help.ok_or(abi::WSH_E_INVALID)?;
        let mut handlers = self.handlers();
        let metrics = handlers.entry(handler.clone()).or_default();
        if let Some(metric) = metrics.get(name) {
            return if metric.kind == kind { Ok(metric.clone()) } else { Err(abi::WSH_E_STATE) };
        }
        if metrics.len() >= METRICS_MAX {
            return Err(abi::WSH_E_TOO_BIG);
        }
        let metric = Arc::new(Metric { kind, help: help.into(), value: AtomicI64::new(0) });
        metrics.insert(name.into(), metric.clone());
        Ok(metric)
    }

    /// The figures of one handler by their names.
    pub(crate) fn of(&self, handler: &str) -> Vec<(Box<str>, Arc<Metric>)> {
        let handlers = self.handlers();
        let metrics = handlers.get(handler).into_iter().flatten();
        metrics.map(|(name, metric)| (name.clone(), metric.clone())).collect()
    }

    fn handlers(&self) -> MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetricKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

impl Metric {
    /// A counter does not shrink, whatever it is asked.
    pub(crate) fn add(&self, amount: i64) {
        if self.kind == MetricKind::Gauge || amount > 0 {
            self.value.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// A counter cannot be set.
    pub(crate) fn set(&self, value: i64) {
        if self.kind == MetricKind::Gauge {
            self.value.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn value(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Lower case letters, digits and underscores, with a letter first: what every collector of metrics takes.
fn name(bytes: &[u8]) -> Option<&str> {
    let is_name = (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_');
    is_name.then(|| std::str::from_utf8(bytes).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_goes_on_in_the_next_version_and_keeps_its_kind() {
        let (metrics, chat) = (Metrics::default(), Arc::from("chat"));
        let declare = |kind, name: &str| metrics.declare(&chat, kind, name.as_bytes(), b"help");
        let said = declare(abi::WSH_COUNTER, "messages").expect("declared");
        said.add(2);
        said.add(-1);
        said.set(100);
        let again = declare(abi::WSH_COUNTER, "messages").expect("the same");
        again.add(1);
        assert_eq!(said.value(), 3, "it only grows");
        assert_eq!(declare(abi::WSH_GAUGE, "messages").err(), Some(abi::WSH_E_STATE));
        let members = declare(abi::WSH_GAUGE, "members").expect("declared");
        members.set(5);
        members.add(-2);
        let seen: Vec<_> =
            metrics.of("chat").into_iter().map(|(name, metric)| (name, metric.value())).collect();
        assert_eq!(seen, [("members".into(), 3), ("messages".into(), 3)]);
        assert!(metrics.of("echo").is_empty());
    }

    #[test]
    fn names_are_what_collectors_take_and_there_is_a_bound() {
        let (metrics, chat) = (Metrics::default(), Arc::from("chat"));
        for wrong in ["", "Messages", "1st", "a-b", "ä", &"x".repeat(65)] {
            let refused = metrics.declare(&chat, abi::WSH_COUNTER, wrong.as_bytes(), b"").err();
            assert_eq!(refused, Some(abi::WSH_E_INVALID), "{wrong}");
        }
        assert_eq!(metrics.declare(&chat, 3, b"a", b"").err(), Some(abi::WSH_E_INVALID));
        assert_eq!(metrics.declare(&chat, 1, b"a", b"two\nlines").err(), Some(abi::WSH_E_INVALID));
        for number in 0..METRICS_MAX {
            metrics.declare(&chat, abi::WSH_GAUGE, format!("m{number}").as_bytes(), b"").expect("declared");
        }
        assert_eq!(metrics.declare(&chat, 1, b"more", b"").err(), Some(abi::WSH_E_TOO_BIG));
    }
}
