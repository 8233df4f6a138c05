//! What a library may ask for that is about itself and not about one session. From any thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use handler_api::abi::{self, wsh_status};

use super::Surroundings;
use super::inbox::{Command, Inbox};
use super::timers::Timers;
use crate::handler::Offload;
use crate::metrics::{Metric, Metrics};
use crate::topics::{self, Message, Scope, Topics};

/// One for each generation.
#[derive(Debug)]
pub(crate) struct Services {
    /// Of worker 0.
    inbox: Arc<Inbox>,
    /// The handler's own table of the config file, as JSON.
    config: Arc<str>,
    is_raw: bool,
    offload: Arc<Offload>,
    /// Of the handler.
    name: Arc<str>,
    topics: Arc<Topics>,
    /// Of the topics that are the handler's own.
    scope: Scope,
    metrics: Arc<Metrics>,
    /// What the library has pointers to.
    declared: Mutex<BTreeMap<usize, Arc<Metric>>>,
    timers: Mutex<Timers<()>>,
    /// Worker 0 was told that the timers have changed, and has not looked yet.
    change_is_posted: AtomicBool,
}

impl Services {
    pub(crate) fn new(
        name: Arc<str>,
        inbox: Arc<Inbox>,
        config: Arc<str>,
        is_raw: bool,
        offload: Arc<Offload>,
        surroundings: &Surroundings,
    ) -> Self {
        Self {
            inbox,
            config,
            is_raw,
            offload,
            scope: Scope::Handler(name.clone()),
            name,
            topics: surroundings.topics.clone(),
            metrics: surroundings.metrics.clone(),
            declared: Mutex::default(),
            timers: Mutex::default(),
            change_is_posted: AtomicBool::new(false),
        }
    }

    pub(crate) fn config(&self) -> &str {
        &self.config
    }

    /// Whether the config grants it raw access.
    pub(crate) fn is_raw(&self) -> bool {
        self.is_raw
    }

    pub(crate) fn offload(&self) -> &Arc<Offload> {
        &self.offload
    }

    // ---- topics --------------------------------------------------------------------------------------------------------

    /// Publishes to every subscriber.
    pub(crate) fn publish(&self, scope: u32, topic: &[u8], kind: u32, data: &[u8]) -> wsh_status {
        let Some((scope, name)) = topics::named(scope, topic, &self.scope) else {
            return abi::WSH_E_INVALID;
        };
        match Message::framed(kind, data) {
            Ok(message) => self.topics.publish(scope, name, message),
            Err(status) => status,
        }
    }

    pub(crate) fn subscribers(&self, scope: u32, topic: &[u8]) -> usize {
        let Some((scope, name)) = topics::named(scope, topic, &self.scope) else {
            return 0;
        };
        self.topics.subscribers(scope, name)
    }

    // ---- metrics -------------------------------------------------------------------------------------------------------

    /// A figure of the handler. It lives as long as this does.
    pub(crate) fn metric(&self, kind: u32, name: &[u8], help: &[u8]) -> Result<*const Metric, wsh_status> {
        let metric = self.metrics.declare(&self.name, kind, name, help)?;
        let pointer = Arc::as_ptr(&metric);
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).insert(pointer.addr(), metric);
        Ok(pointer)
    }

    // ---- timers of the library -----------------------------------------------------------------------------------------

    pub(crate) fn start_timer(&self, token: u64, after_ms: u64, every_ms: u64) -> wsh_status {
        let status = self.timers().start((), token, after_ms, every_ms, Instant::now());
        if status >= abi::WSH_OK && !self.change_is_posted.swap(true, Ordering::AcqRel) {
            // A worker that has ended hears no timers.
            let _ = self.inbox.post(Command::LibraryTimers);
        }
        status
    }

    pub(crate) fn stop_timer(&self, token: u64) -> wsh_status {
        // Worker 0 may wake up for it and find nothing.
        self.timers().stop((), token)
    }

    /// When worker 0 is to look again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.change_is_posted.store(false, Ordering::Release);
        self.timers().next_due()
    }

    pub(super) fn take_due(&self, now: Instant) -> Option<u64> {
        self.timers().take_due(now).map(|((), token)| token)
    }

    fn timers(&self) -> MutexGuard<'_, Timers<()>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
