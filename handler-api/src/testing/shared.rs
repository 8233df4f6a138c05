//! What the pointers point at that a handler gets from the fake host.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Answer, Sent};
use crate::abi::{self, wsh_status};

#[derive(Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) query: String,
    /// Parameters of the route, encoded as a query is.
    pub(super) params: String,
    pub(super) peer: String,
    pub(super) is_secure: bool,
    /// Subject and alternative names of the peer's certificate.
    pub(super) certificate: Option<(String, String)>,
    pub(super) user: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) protocols: Vec<String>,
}

/// What `wsh_upgrade *` points at.
#[derive(Debug)]
pub(super) struct FakeUpgrade {
    pub(super) request: Request,
    pub(super) chosen: Option<usize>,
    pub(super) rejection: Option<(u16, String)>,
    /// It ends without an answer.
    pub(super) is_aborted: bool,
    pub(super) answer: Answer,
}

/// What `wsh_session *` and `wsh_handle *` point at.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) request: Arc<Request>,
    pub(super) chosen: Option<usize>,
    /// Of its test.
    pub(super) thread: std::thread::ThreadId,
    state: Mutex<State>,
    /// A handle has asked for something.
    is_asked: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) ready: u32,
    pub(super) sent: Vec<Sent>,
    /// What handles asked for, to be done outside of callbacks.
    pub(super) asked: VecDeque<Asked>,
    /// What sends answer instead of `WSH_OK`.
    pub(super) send_status: wsh_status,
    /// Inside export_state or import_state: the session's own functions send nothing.
    pub(super) is_silent: bool,
    /// The handler takes what comes as it comes.
    pub(super) receives_raw: bool,
    pub(super) freed: bool,
    pub(super) timers: super::timers::Timers,
    pub(super) topics: super::topics::Topics,
}

#[derive(Debug)]
pub(super) enum Asked {
    Send(Sent),
    Close(u16, String),
    Wake,
}

impl Shared {
    /// An open session.
    pub(super) fn new(request: Arc<Request>, chosen: Option<usize>) -> Arc<Self> {
        let state = State {
            ready: abi::WSH_OPEN,
            sent: Vec::new(),
            asked: VecDeque::new(),
            send_status: abi::WSH_OK,
            is_silent: false,
            receives_raw: false,
            freed: false,
            timers: super::timers::Timers::default(),
            topics: super::topics::Topics::default(),
        };
        let (thread, state) = (std::thread::current().id(), Mutex::new(state));
        let session = Arc::new(Self { request, chosen, thread, state, is_asked: Condvar::new() });
        super::topics::enter(&session);
        session
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After something was asked for: whoever waits for it goes on.
    pub(super) fn tell(&self) {
        self.is_asked.notify_all();
    }

    /// Waits until a handle has asked for something. False if none does for so long.
    pub(super) fn wait_until_asked(&self, patience: Duration) -> bool {
        let state = self.state();
        let waited = self.is_asked.wait_timeout_while(state, patience, |state| state.asked.is_empty());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn protocol(&self) -> Option<&str> {
        self.chosen.map(|index| &*self.request.protocols[index])
    }
}

impl State {
    pub(super) fn push(&mut self, sent: Sent) {
        if self.ready == abi::WSH_OPEN {
            self.sent.push(sent);
        }
    }

    pub(super) fn close(&mut self, code: u16, reason: String) -> wsh_status {
        if self.ready != abi::WSH_OPEN {
            return abi::WSH_E_CLOSED;
        }
        self.push(Sent::Close(code, reason));
        self.ready = abi::WSH_CLOSING;
        abi::WSH_OK
    }

    pub(super) fn wake_is_asked(&self) -> bool {
        self.asked.iter().any(|asked| matches!(asked, Asked::Wake))
    }

    /// Whether the session's own functions may do something to it now.
    pub(super) fn may_act(&self) -> Result<(), wsh_status> {
        match self.ready {
            _ if self.is_silent => Err(abi::WSH_E_STATE),
            abi::WSH_OPEN => Ok(()),
            _ => Err(abi::WSH_E_CLOSED),
        }
    }

    /// Whether it has subscribed and still listens.
    pub(super) fn hears(&self, topic: &(u32, String)) -> bool {
        self.ready != abi::WSH_CLOSED && self.topics.contains(topic)
    }

    pub(super) fn may_send(&self) -> wsh_status {
        if self.ready == abi::WSH_OPEN { self.send_status } else { abi::WSH_E_CLOSED }
    }
}

impl Request {
    pub(super) fn attribute(&self, attribute: u32, protocol: Option<&str>) -> Option<&[u8]> {
        match attribute {
            abi::WSH_PATH => Some(self.path.as_bytes()),
            abi::WSH_PARAMS => Some(self.params.as_bytes()),
            abi::WSH_QUERY => Some(self.query.as_bytes()),
            abi::WSH_PEER => Some(self.peer.as_bytes()),
            abi::WSH_PROTOCOL => {
                self.protocols.iter().find(|offered| Some(offered.as_str()) == protocol).map(String::as_bytes)
            }
            abi::WSH_EXTENSIONS => Some(b""),
            abi::WSH_SCHEME => Some(if self.is_secure { b"wss" } else { b"ws" }),
            abi::WSH_TLS_SUBJECT => self.certificate.as_ref().map(|(subject, _)| subject.as_bytes()),
            abi::WSH_TLS_NAMES => self.certificate.as_ref().map(|(_, names)| names.as_bytes()),
            abi::WSH_USER => self.user.as_deref().map(str::as_bytes),
            _ => None,
        }
    }

    pub(super) fn header(&self, name: &[u8], index: usize) -> Option<&[u8]> {
        let mut values = self.headers.iter().filter(|(found, _)| found.as_bytes().eq_ignore_ascii_case(name));
        values.nth(index).map(|(_, value)| value.as_bytes())
    }
}
