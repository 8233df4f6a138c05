//! The decision on an opening handshake: asked by the front, taken by the library on a worker.

use std::sync::Arc;
use std::time::Duration;

use handler_api::abi::{self, wsh_status};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use wshd_protocol::DeflateAgreement;

use super::Generation;
use super::inbox::{Command, Inbox};
use crate::session::{Head, Line, Peer, Stream};
use crate::tls::ClientCertificate;
use crate::windows::Agreed;

/// A request that passed the checks of the opening handshake.
#[derive(Debug)]
pub(crate) struct UpgradeRequest {
    /// The resource path that was asked for: percent-decoded.
    pub(crate) path: String,
    /// Parameters of the route, encoded as a query is; empty if there are none.
    pub(crate) params: String,
    /// As sent; empty if there was none.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// Subprotocols that the peer offers, in its order.
    pub(crate) protocols: Vec<String>,
    pub(crate) peer: Peer,
    /// What the peer's certificate says of it.
    pub(crate) client: Option<ClientCertificate>,
    /// Who the peer is, where the config asks for it.
    pub(crate) user: Option<Arc<str>>,
    /// What would be agreed about compression.
    pub(crate) deflate: Option<Agreed>,
}

/// What the library decided.
#[derive(Debug)]
pub(crate) enum Decision {
    Accept(Accepted),
    Refuse(Refusal),
    /// This generation takes nobody any more: the one that took its place is to be asked.
    AskAgain(Box<UpgradeRequest>),
}

/// An acceptance. The worker keeps the handler's object until the stream follows.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) ticket: Ticket,
    pub(crate) protocol: Option<String>,
    pub(crate) deflate: Option<DeflateAgreement>,
    /// Headers that the handler adds to the answer, or puts in the place of the server's own.
    pub(crate) headers: HeaderMap,
    pub(crate) manner: Manner,
}

/// A refusal as it is answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) manner: Manner,
}

/// How an answer is given, where the handler wants it otherwise.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// So much later.
    pub(crate) delay: Duration,
    /// These bytes are written in the place of the answer, if only none.
    pub(crate) instead: Option<Vec<u8>>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.into(), manner: Manner::default() }
    }

    pub(crate) fn shutting_down() -> Self {
        Self::unavailable("the server is shutting down\n")
    }

    pub(super) fn overloaded() -> Self {
        Self::unavailable("the server has no thread left for this handler\n")
    }

    fn unavailable(body: &str) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, body);
        refusal.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        refusal
    }
}

/// Which of the handler objects that a worker keeps for streams to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AcceptedKey {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// The right to hand a stream over to the worker that accepted it. Dropped unused, it takes the acceptance back.
#[derive(Debug)]
pub(crate) struct Ticket {
    inbox: Arc<Inbox>,
    accepted: AcceptedKey,
    is_used: bool,
}

impl Ticket {
    pub(super) fn new(inbox: Arc<Inbox>, accepted: AcceptedKey) -> Self {
        Self { inbox, accepted, is_used: false }
    }

    /// Passes the stream on, with what the peer sent right behind its request. False if the worker has ended.
    pub(crate) fn hand_over(mut self, stream: Stream, early: Vec<u8>, peer: Peer) -> bool {
        self.is_used = true;
        self.inbox.post(Command::Open { accepted: self.accepted, stream, early, peer }).is_ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_used {
            // A worker that has ended has freed what it kept.
            let _ = self.inbox.post(Command::Abandon(self.accepted));
        }
    }
}

/// An opening handshake as the library sees it: what `wsh_upgrade *` points at.
#[derive(Debug)]
pub(crate) struct UpgradeCall {
    request: UpgradeRequest,
    generation: Arc<Generation>,
    peer: Option<String>,
    agreement: Option<DeflateAgreement>,
    extensions: String,
    chosen: Option<usize>,
    headers: HeaderMap,
    rejection: Option<(StatusCode, Vec<u8>)>,
    is_aborted: bool,
    manner: Manner,
    /// The answer to the request's key, once it was asked for.
    accept_key: Option<String>,
}

/// Headers of the answer that the handshake itself decides.
const RESERVED: [HeaderName; 9] = [
    header::CONNECTION,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
];

/// Of those, the ones that a handler with raw access may give. The others tell hyper how to write the answer.
const OF_THE_WEBSOCKET: &str = "sec-websocket-";

/// Headers a handler may add to one answer.
const HEADERS_MAX: usize = 64;

/// So much a handler may write in the place of an answer.
const INSTEAD_BYTES_MAX: usize = 64 * 1024;

/// An answer may be given so much later.
const DELAY_MAX: Duration = Duration::from_secs(60);

impl UpgradeCall {
    pub(super) fn new(request: UpgradeRequest, generation: Arc<Generation>) -> Self {
        let peer = request.peer.address().map(|address| address.to_string());
        let agreement = request.deflate.as_ref().map(Agreed::agreement);
        let extensions = agreement.map(|agreement| agreement.to_string()).unwrap_or_default();
        Self {
            request,
            generation,
            peer,
            agreement,
            extensions,
            chosen: None,
            headers: HeaderMap::new(),
            rejection: None,
            is_aborted: false,
            manner: Manner::default(),
            accept_key: None,
        }
    }

    pub(crate) fn attribute(&self, attribute: u32) -> Option<&[u8]> {
        match attribute {
            abi::WSH_PATH => Some(self.request.path.as_bytes()),
            abi::WSH_QUERY => Some(self.request.query.as_bytes()),
            abi::WSH_PEER => self.peer.as_deref().map(str::as_bytes),
            abi::WSH_PROTOCOL => self.protocol().map(str::as_bytes),
            abi::WSH_EXTENSIONS => Some(self.extensions.as_bytes()),
            abi::WSH_SCHEME => Some(if self.request.peer.is_secure() { b"wss" } else { b"ws" }),
            abi::WSH_TLS_SUBJECT => self.request.client.as_ref().map(|client| client.subject.as_bytes()),
            abi::WSH_PARAMS => Some(self.request.params.as_bytes()),
            abi::WSH_TLS_NAMES => self.request.client.as_ref().map(|client| client.names.as_bytes()),
            abi::WSH_USER => self.request.user.as_deref().map(str::as_bytes),
            _ => None,
        }
    }

    pub(crate) fn header(&self, name: &[u8], index: usize) -> Option<&[u8]> {
        let name = HeaderName::from_bytes(name).ok()?;
        self.request.headers.get_all(name).iter().nth(index).map(HeaderValue::as_bytes)
    }

    pub(crate) fn header_at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.request
            .headers
            .iter()
            .nth(index)
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
    }

    pub(crate) fn offered_protocol(&self, index: usize) -> Option<&[u8]> {
        self.request.protocols.get(index).map(String::as_bytes)
    }

    pub(crate) fn choose_protocol(&mut self, protocol: &[u8]) -> wsh_status {
        if self.chosen.is_some() {
            return abi::WSH_E_STATE;
        }
        self.chosen = self.request.protocols.iter().position(|offered| offered.as_bytes() == protocol);
        if self.chosen.is_some() { abi::WSH_OK } else { abi::WSH_E_INVALID }
    }

    pub(crate) fn add_header(&mut self, name: &[u8], value: &[u8]) -> wsh_status {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
            return abi::WSH_E_INVALID;
        };
        if RESERVED.contains(&name) {
            return abi::WSH_E_INVALID;
        }
        self.keep_header(name, value)
    }

    fn keep_header(&mut self, name: HeaderName, value: HeaderValue) -> wsh_status {
        if self.headers.len() >= HEADERS_MAX {
            return abi::WSH_E_TOO_BIG;
        }
        self.headers.append(name, value);
        abi::WSH_OK
    }

    pub(crate) fn reject(&mut self, status: u16, body: &[u8]) -> wsh_status {
        let Some(code) = StatusCode::from_u16(status).ok().filter(|code| !code.is_informational()) else {
            return abi::WSH_E_INVALID;
        };
        if !(300..=599).contains(&status) {
            let forbidden = self.generation.may_be_raw();
            if forbidden < abi::WSH_OK {
                return forbidden;
            }
        }
        self.rejection = Some((code, body.to_vec()));
        abi::WSH_OK
    }

    // ---- beyond what a WebSocket needs ---------------------------------------------------------------------------------

    pub(crate) fn abort(&mut self) -> wsh_status {
        self.is_aborted = true;
        abi::WSH_OK
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.is_aborted
    }

    pub(crate) fn decline_extensions(&mut self) -> wsh_status {
        self.request.deflate = None;
        self.agreement = None;
        self.extensions.clear();
        abi::WSH_OK
    }

    pub(crate) fn delay(&mut self, ms: u64) -> wsh_status {
        let delay = Duration::from_millis(ms);
        if delay > DELAY_MAX {
            return abi::WSH_E_TOO_BIG;
        }
        self.manner.delay = delay;
        abi::WSH_OK
    }

    /// What `Sec-WebSocket-Accept` says of this request's key.
    pub(crate) fn accept_key(&mut self) -> Option<&[u8]> {
        let key = self.request.headers.get(header::SEC_WEBSOCKET_KEY)?;
        let accept = || wshd_protocol::handshake::accept_key(key.as_bytes());
        Some(self.accept_key.get_or_insert_with(accept).as_bytes())
    }

    /// Bytes in the place of the answer. What they agree to, only the handler knows, so the server agrees to nothing.
    pub(crate) fn answer_instead(&mut self, bytes: &[u8]) -> wsh_status {
        let forbidden = self.generation.may_be_raw();
        if forbidden < abi::WSH_OK {
            return forbidden;
        }
        let instead = self.manner.instead.get_or_insert_default();
        if instead.len().saturating_add(bytes.len()) > INSTEAD_BYTES_MAX {
            return abi::WSH_E_TOO_BIG;
        }
        instead.extend_from_slice(bytes);
        self.decline_extensions()
    }

    /// A header of the handshake itself, with whatever value.
    pub(crate) fn set_header(&mut self, name: &[u8], value: &[u8]) -> wsh_status {
        let forbidden = self.generation.may_be_raw();
        if forbidden < abi::WSH_OK {
            return forbidden;
        }
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) if name.as_str().starts_with(OF_THE_WEBSOCKET) => {
                self.keep_header(name, value)
            }
            _ => abi::WSH_E_INVALID,
        }
    }

    fn protocol(&self) -> Option<&str> {
        self.chosen.map(|index| &*self.request.protocols[index])
    }

    /// What is kept of the request for the session that it becomes. `own_path` is the one that the generation knows.
    pub(super) fn head(&self, keeps_request: bool, own_path: &str) -> Head {
        let UpgradeRequest { path, params, query, headers, user, .. } = &self.request;
        let path = Some(path.as_str()).filter(|path| *path != own_path);
        Head::keep(Line { path, params, query }, headers, self.protocol(), user.as_deref(), keeps_request)
    }

    /// What is agreed about compression, for the session that it becomes.
    pub(super) fn take_deflate(&mut self) -> Option<Agreed> {
        self.request.deflate.take()
    }

    pub(super) fn accepted(self, ticket: Ticket) -> Accepted {
        let protocol = self.protocol().map(str::to_owned);
        Accepted { ticket, protocol, deflate: self.agreement, headers: self.headers, manner: self.manner }
    }

    /// The refusal that the handler described, or 403.
    pub(super) fn refused(self) -> Refusal {
        let (status, body) =
            self.rejection.unwrap_or_else(|| (StatusCode::FORBIDDEN, b"the handler refuses\n".to_vec()));
        let mut manner = self.manner;
        if self.is_aborted {
            manner.instead = Some(Vec::new());
        }
        Refusal { status, headers: self.headers, body, manner }
    }
}
