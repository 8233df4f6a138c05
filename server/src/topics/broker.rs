//! Who carries a message from its publisher to the subscribers.

use std::fmt;

use handler_api::abi::wsh_status;

use super::{Message, Scope, Topics};

/// Between publishing and [`Topics::deliver`]. A broker that joins several servers passes messages to the others too, and hands what
/// they publish to `deliver` here. Its functions are called from any thread and must not block.
pub(crate) trait Broker: fmt::Debug + Send + Sync {
    /// Passes a message on, to the subscribers on this server by `topics`.
    fn publish(&self, topics: &Topics, scope: &Scope, name: &str, message: Message) -> wsh_status;

    /// A topic has its first subscriber on this server. Called under the lock of the names.
    fn on_first_subscriber(&self, scope: &Scope, name: &str) {
        _ = (scope, name);
    }

    /// A topic has no subscriber on this server any more. Called under the lock of the names.
    fn on_no_subscriber(&self, scope: &Scope, name: &str) {
        _ = (scope, name);
    }
}

/// One server, and nobody else.
#[derive(Debug)]
pub(crate) struct InProcess;

impl Broker for InProcess {
    fn publish(&self, topics: &Topics, scope: &Scope, name: &str, message: Message) -> wsh_status {
        topics.deliver(scope, name, message)
    }
}
