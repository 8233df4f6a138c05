//! How the sessions of a generation go when it has to end.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wshd_protocol::close;

use super::Generation;

/// What a worker does with its sessions from now on. A later order replaces an earlier one.
#[derive(Clone)]
pub(crate) enum Leave {
    /// Each is handed to the code of the other generation, at the next boundary between two messages. One that cannot go
    /// finishes here.
    Migrate { to: Arc<Generation>, until: Option<Instant> },
    /// Each finishes here, at most until then; after that it is closed with 1012.
    Drain { until: Option<Instant> },
    /// Each is closed with this code.
    Close(Closing),
}

/// A closing of many sessions, not all at the same moment, so that their peers do not all come back at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Closing {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    /// By then the last one is told.
    pub(crate) spread_until: Instant,
    /// Then whoever is left is cut. Without it, the limit for answering a Close ends each session.
    pub(crate) cut: Option<Instant>,
}

impl Leave {
    /// 1012, "service restart": the peer may come back at once and finds the new code.
    pub(crate) fn restart(spread: Duration) -> Self {
        Self::Close(Closing {
            code: close::RESTART,
            reason: "the handler was replaced, connect again",
            spread_until: Instant::now() + spread,
            cut: None,
        })
    }

    /// 1001: the server goes away.
    pub(crate) fn shut_down(spread: Duration, cut: Instant) -> Self {
        Self::Close(Closing {
            code: close::GOING_AWAY,
            reason: "server is shutting down",
            spread_until: Instant::now() + spread,
            cut: Some(cut),
        })
    }
}

impl fmt::Debug for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Migrate { to, .. } => write!(f, "Migrate to {}", to.number()),
            Self::Drain { .. } => f.write_str("Drain"),
            Self::Close(closing) => write!(f, "Close {}", closing.code),
        }
    }
}
