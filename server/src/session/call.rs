//! A session as its handler sees it during one callback: what `wsh_session *` points at.

use std::sync::Arc;
use std::time::Instant;

use handler_api::abi::{self, wsh_status};
use wshd_protocol::{Kind, ReadyState, close};

use super::handle::Handle;
use super::{Fault, Link};
use crate::generation::{Desk, Env};
use crate::topics;

/// Lent to the library for the length of one callback.
pub(crate) struct Call<'a> {
    link: &'a mut Link,
    desk: &'a mut Desk,
    env: &'a Env,
    /// The peer's address as text, made when it is asked for.
    peer: Option<Box<str>>,
    /// The same for the extensions.
    extensions: Option<Box<str>>,
    /// The session is about to change hands: it can be asked, and nothing else.
    is_frozen: bool,
}

/// A message that waits in a worker's inbox.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) kind: Kind,
    pub(crate) data: Box<[u8]>,
}

/// The kind of a message of the handler, if it is one that may be sent: text has to be UTF-8.
pub(crate) fn message_kind(kind: u32, data: &[u8]) -> Option<Kind> {
    match kind {
        abi::WSH_TEXT => simdutf8::basic::from_utf8(data).is_ok().then_some(Kind::Text),
        abi::WSH_BINARY => Some(Kind::Binary),
        _ => None,
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(link: &'a mut Link, desk: &'a mut Desk, env: &'a Env) -> Self {
        Self { link, desk, env, peer: None, extensions: None, is_frozen: false }
    }

    /// A session that is being exported or imported: what would be sent now has no owner.
    pub(super) fn frozen(link: &'a mut Link, desk: &'a mut Desk, env: &'a Env) -> Self {
        Self { is_frozen: true, ..Self::new(link, desk, env) }
    }

    pub(crate) fn send(&mut self, kind: u32, data: &[u8]) -> wsh_status {
        if self.is_frozen {
            return abi::WSH_E_STATE;
        }
        match message_kind(kind, data) {
            Some(kind) => self.link.send(kind, data, self.desk, self.env),
            None => abi::WSH_E_INVALID,
        }
    }

    pub(crate) fn send_fragment(&mut self, kind: u32, data: &[u8], last: bool) -> wsh_status {
        if self.is_frozen {
            return abi::WSH_E_STATE;
        }
        // A text may be cut inside a character here, so only the peer can check it.
        let kind = match kind {
            abi::WSH_TEXT => Kind::Text,
            abi::WSH_BINARY => Kind::Binary,
            _ => return abi::WSH_E_INVALID,
        };
        self.link.send_fragment(kind, data, last, self.desk, self.env)
    }

    pub(crate) fn ping(&mut self, data: &[u8]) -> wsh_status {
        if self.is_frozen {
            return abi::WSH_E_STATE;
        }
        if data.len() > 125 {
            return abi::WSH_E_INVALID;
        }
        self.link.ping(data, self.desk)
    }

    pub(crate) fn close(&mut self, code: u16, reason: &[u8]) -> wsh_status {
        if self.is_frozen {
            return abi::WSH_E_STATE;
        }
        let Ok(reason) = std::str::from_utf8(reason) else { return abi::WSH_E_INVALID };
        if code != 0 && !close::may_be_sent_by_server(code) || reason.len() > close::REASON_BYTES_MAX {
            return abi::WSH_E_INVALID;
        }
        self.link.close(code, reason, self.desk)
    }

    pub(crate) fn abort(&mut self) -> wsh_status {
        if self.is_frozen {
            return abi::WSH_E_STATE;
        }
        self.link.fault = Some(Fault::Abort);
        abi::WSH_OK
    }

    /// Ends the connection behind what was sent, without Close.
    pub(crate) fn end(&mut self) -> wsh_status {
        if self.is_frozen {
            return abi::WSH_E_STATE;
        }
        if self.link.is_over() || self.link.fault.is_some() {
            return abi::WSH_E_CLOSED;
        }
        self.link.fault = Some(Fault::End);
        abi::WSH_OK
    }

    pub(crate) fn send_raw(&mut self, data: &[u8]) -> wsh_status {
        match self.may_be_raw() {
            Ok(()) => self.link.send_raw(data, self.desk, self.env),
            Err(refused) => refused,
        }
    }

    pub(crate) fn receive_raw(&mut self) -> wsh_status {
        if let Err(refused) = self.may_be_raw() {
            return refused;
        }
        if self.link.is_over() || self.link.fault.is_some() {
            return abi::WSH_E_CLOSED;
        }
        self.link.receive_raw();
        abi::WSH_OK
    }

    fn may_be_raw(&self) -> Result<(), wsh_status> {
        if self.is_frozen {
            return Err(abi::WSH_E_STATE);
        }
        let granted = self.env.generation.may_be_raw();
        if granted < abi::WSH_OK { Err(granted) } else { Ok(()) }
    }

    pub(crate) fn ready_state(&self) -> u32 {
        match self.link.connection.ready_state() {
            ReadyState::Open if self.link.fault.is_none() => abi::WSH_OPEN,
            ReadyState::Open | ReadyState::Closing => abi::WSH_CLOSING,
            ReadyState::Closed => abi::WSH_CLOSED,
        }
    }

    pub(crate) fn buffered_amount(&self) -> u64 {
        let unsent = self.link.outgoing.as_ref().map_or(0, |outgoing| outgoing.len());
        let waiting = self.link.handle.as_ref().map_or(0, |handle| handle.place().waiting_bytes());
        (unsent + self.desk.cork.len() + waiting) as u64
    }

    pub(crate) fn attribute(&mut self, attribute: u32) -> Option<&[u8]> {
        let head = &self.link.head;
        match attribute {
            abi::WSH_PATH => Some(head.path().unwrap_or_else(|| self.env.generation.path().as_bytes())),
            abi::WSH_PARAMS => Some(head.params()),
            abi::WSH_QUERY if head.has_request() => Some(head.query()),
            abi::WSH_PEER => {
                let address = self.link.peer.address()?;
                Some(self.peer.get_or_insert_with(|| address.to_string().into()).as_bytes())
            }
            abi::WSH_PROTOCOL if !head.protocol().is_empty() => Some(head.protocol()),
            abi::WSH_EXTENSIONS => {
                let agreed = self.link.connection.deflate();
                let text = || agreed.map(|agreed| agreed.to_string()).unwrap_or_default().into();
                Some(self.extensions.get_or_insert_with(text).as_bytes())
            }
            abi::WSH_SCHEME => Some(if self.link.peer.is_secure() { b"wss" } else { b"ws" }),
            abi::WSH_TLS_SUBJECT => self.link.stream.client().map(|client| client.subject.as_bytes()),
            abi::WSH_TLS_NAMES => self.link.stream.client().map(|client| client.names.as_bytes()),
            abi::WSH_USER if !head.user().is_empty() => Some(head.user()),
            _ => None,
        }
    }

    pub(crate) fn header(&self, name: &[u8], index: usize) -> Option<&[u8]> {
        let mut values = self.link.head.headers().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        values.nth(index).map(|(_, value)| value)
    }

    pub(crate) fn header_at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.link.head.headers().nth(index)
    }

    pub(crate) fn start_timer(&mut self, token: u64, after_ms: u64, every_ms: u64) -> wsh_status {
        self.desk.timers.start(self.link.key, token, after_ms, every_ms, Instant::now())
    }

    pub(crate) fn stop_timer(&mut self, token: u64) -> wsh_status {
        self.desk.timers.stop(self.link.key, token)
    }

    pub(crate) fn subscribe(&mut self, scope: u32, topic: &[u8]) -> wsh_status {
        let Some((scope, name)) = topics::named(scope, topic, &self.env.scope) else {
            return abi::WSH_E_INVALID;
        };
        if self.ready_state() != abi::WSH_OPEN {
            return abi::WSH_E_CLOSED;
        }
        self.desk.topics.subscribe(self.link.key, scope, name)
    }

    pub(crate) fn unsubscribe(&mut self, scope: u32, topic: &[u8]) -> wsh_status {
        let Some((scope, name)) = topics::named(scope, topic, &self.env.scope) else {
            return abi::WSH_E_INVALID;
        };
        self.desk.topics.unsubscribe(self.link.key, scope, name)
    }

    /// Publishes to every subscriber but this session.
    pub(crate) fn publish(&mut self, scope: u32, topic: &[u8], kind: u32, data: &[u8]) -> wsh_status {
        let Some((scope, name)) = topics::named(scope, topic, &self.env.scope) else {
            return abi::WSH_E_INVALID;
        };
        if self.is_frozen {
            return abi::WSH_E_STATE;
        }
        let mut message = match topics::Message::framed(kind, data) {
            Ok(message) => message,
            Err(status) => return status,
        };
        message.publisher = Some((self.env.inbox.clone(), self.link.key));
        self.env.generation.topics().publish(scope, name, message)
    }

    pub(crate) fn handle(&mut self) -> Arc<Handle> {
        let (key, env) = (self.link.key, self.env);
        let make = || Arc::new(Handle::new(env.inbox.clone(), key, env.generation.clone()));
        self.link.handle.get_or_insert_with(make).clone()
    }
}
