//! A host in-process, with which an author tests a handler without a server.
//!
//! It goes through the same table and the same fences as the server does, so what a test sees is what a peer would get.
//!
//! ```
//! use handler_api::testing::{Fake, Sent};
//! # use handler_api::{Handler, Message, Reject, Upgrade, WebSocket};
//! # struct Echo;
//! # impl Handler for Echo {
//! #     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> { Ok(Echo) }
//! #     fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) { socket.send(message); }
//! # }
//!
//! let mut session = Fake::<Echo>::upgrade("/echo").open().expect("accepted");
//! session.text("hello");
//! assert_eq!(session.sent(), [Sent::Text("hello".into())]);
//! ```
//!
//! Sessions of one test hear each other by their topics, and what the handler counts is read with [`metric`].
//!
//! Time passes for timers when the test says so: [`FakeSession::advance`].
//!
//! What becomes of a session when the library is replaced is tested with [`FakeSession::reload`], of a state that an older version
//! wrote with [`Fake::import`].

mod config;
mod extensions;
mod host;
mod metrics;
mod offload;
mod raw;
mod reload;
mod session;
mod shared;
mod timers;
mod topics;

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::config::set_config;
pub use self::extensions::{Server, set_server};
pub use self::metrics::metric;
pub use self::offload::run_offloaded;
pub use self::raw::set_raw;
pub use self::reload::Stays;
pub use self::session::FakeSession;
use self::shared::{FakeUpgrade, Request, Shared};
use crate::abi;
use crate::export::{self, Face};
use crate::reload::{Reload, drain};

/// A request that is being written.
pub struct Fake<H> {
    request: Request,
    reload: Reload,
    handler: PhantomData<H>,
}

/// What a peer would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// A whole text.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A part of a message, and whether it was the last.
    Fragment(Vec<u8>, bool),
    /// A ping, with its payload.
    Ping(Vec<u8>),
    /// Code, 0 for an empty Close, and reason.
    Close(u16, String),
    /// The connection was dropped.
    Abort,
    /// The connection ended behind what was sent, without a Close frame.
    End,
    /// Bytes that are no frame of the server's.
    Raw(Vec<u8>),
}

/// The answer to an upgrade that was accepted, as the handler wants it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// What the handler has added, names as it wrote them.
    pub headers: Vec<(String, String)>,
    /// So much later it is given.
    pub delay: Duration,
    /// What is written in the place of it.
    pub instead: Option<Vec<u8>>,
    /// No extension is agreed to.
    pub declines_extensions: bool,
}

/// A refused upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Of HTTP: 403 if the handler gave one that refuses nothing, 500 if it panicked.
    pub status: u16,
    /// What the peer reads.
    pub body: String,
    /// What the handler has added, names as it wrote them.
    pub headers: Vec<(String, String)>,
    /// So much later it is given.
    pub delay: Duration,
    /// What is written in the place of it; nothing where the connection ends without an answer.
    pub instead: Option<Vec<u8>>,
}

// By hand, because a handler need not be `Debug`.
impl<H> fmt::Debug for Fake<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").field("request", &self.request).finish_non_exhaustive()
    }
}

impl<H: Face> Fake<H> {
    /// A request for this path, with a query if it has one.
    pub fn upgrade(url: &str) -> Self {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let request = Request {
            path: path.to_owned(),
            query: query.to_owned(),
            params: String::new(),
            peer: "192.0.2.1:50000".to_owned(),
            is_secure: false,
            certificate: None,
            user: None,
            headers: Vec::new(),
            protocols: Vec::new(),
        };
        Self { request, reload: drain(), handler: PhantomData }
    }

    /// The request came by a route with a parameter of this name.
    #[must_use]
    pub fn path_param(mut self, name: &str, value: &str) -> Self {
        let pair = format!("{}={}", encoded(name), encoded(value));
        let params = &mut self.request.params;
        *params = if params.is_empty() { pair } else { format!("{params}&{pair}") };
        self
    }

    /// Adds a header to the request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Offers a subprotocol.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.request.protocols.push(protocol.to_owned());
        self
    }

    /// Where the request comes from; `192.0.2.1:50000` if nothing is said.
    #[must_use]
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.request.peer = peer.to_string();
        self
    }

    /// The connection is TLS's.
    #[must_use]
    pub fn secure(mut self) -> Self {
        self.request.is_secure = true;
        self
    }

    /// The connection is TLS's, and the peer has shown a certificate with this subject and these alternative names, for instance
    /// `CN=Ann` and `["email:ann@a.example"]`.
    #[must_use]
    pub fn certificate(mut self, subject: &str, names: &[&str]) -> Self {
        self.request.certificate = Some((subject.to_owned(), names.join("\n")));
        self.secure()
    }

    /// The server has verified that the peer is this user.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.request.user = Some(user.to_owned());
        self
    }

    /// Asks the handler, and opens the session if it accepts.
    ///
    /// # Errors
    /// The refusal, as the peer would read it.
    pub fn open(self) -> Result<FakeSession<H>, Rejected> {
        host::serve();
        let mut upgrade = FakeUpgrade {
            request: self.request,
            chosen: None,
            rejection: None,
            is_aborted: false,
            answer: Answer::default(),
        };
        let mut object = std::ptr::null_mut();
        let on_upgrade = export::table::<H>(&self.reload).on_upgrade.expect("export fills the table");
        // SAFETY: `upgrade` and `object` are good for the length of the call.
        let status = unsafe { on_upgrade(std::ptr::null_mut(), (&raw mut upgrade).cast(), &raw mut object) };
        if status < abi::WSH_OK {
            let failed = || (500, "the handler failed".to_owned());
            let refused = || upgrade.rejection.clone().unwrap_or_else(|| (403, String::new()));
            let (status, body) = if status == abi::WSH_E_REJECTED { refused() } else { failed() };
            let Answer { headers, delay, instead, .. } = upgrade.answer;
            let instead = if upgrade.is_aborted { Some(Vec::new()) } else { instead };
            return Err(Rejected { status, body, headers, delay, instead });
        }
        let mut session =
            FakeSession::new(object, Shared::new(Arc::new(upgrade.request), upgrade.chosen), self.reload);
        session.answer = upgrade.answer;
        session.open();
        Ok(session)
    }
}

/// As the server writes parameters down.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

impl Sent {
    /// The text, if it is one.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}
