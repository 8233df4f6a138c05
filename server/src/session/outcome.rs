//! Why a session ended: one value, one log line.

use std::fmt;

use tracing::{info, warn};

use super::Link;
use crate::generation::Generation;

/// How it came to an end, and who ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The closing handshake was completed.
    Closed { code: u16, reason: String, by: Side },
    /// The server failed the connection with this code.
    Failed { code: u16, why: String },
    /// The connection ended without a closing handshake.
    Lost(String),
    /// The handler dropped it.
    Aborted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Peer,
    Server,
}

impl Outcome {
    /// What `on_close` is told: code, reason, whether it was clean.
    pub(crate) fn close(&self) -> (u16, &str, bool) {
        match self {
            Self::Closed { code, reason, .. } => (*code, reason, true),
            Self::Failed { code, why } => (*code, why, false),
            Self::Lost(_) | Self::Aborted => (wshd_protocol::close::ABNORMAL, "", false),
        }
    }

    /// What `on_error` is told, if this was an error.
    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Failed { why, .. } | Self::Lost(why) => Some(why),
            Self::Closed { .. } | Self::Aborted => None,
        }
    }

    /// A handler that failed is the operator's business; what peers do is not.
    pub(crate) fn log(&self, generation: &Generation, link: &Link) {
        let (path, peer, number) = (generation.path(), link.peer, generation.number());
        // No field where nobody was asked who he is.
        let user = Some(link.head.user()).filter(|user| !user.is_empty()).map(String::from_utf8_lossy);
        if matches!(self, Self::Failed { code: wshd_protocol::close::INTERNAL, .. }) {
            warn!(target: "access", %peer, user = user.as_deref(), "{path} {self} generation={number}");
        } else {
            info!(target: "access", %peer, user = user.as_deref(), "{path} {self} generation={number}");
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, reason, by } => {
                let by = if *by == Side::Peer { "peer" } else { "server" };
                write!(f, "closed code={code} by={by}")?;
                // Escaped, because a peer chooses it and one event is one line.
                if reason.is_empty() { Ok(()) } else { write!(f, " reason={reason:?}") }
            }
            Self::Failed { code, why } => write!(f, "failed code={code}: {why}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::Aborted => f.write_str("aborted by the handler"),
        }
    }
}
