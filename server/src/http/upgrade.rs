//! Turns a request into a WebSocket, or refuses it.
//!
//! In: a request that asks for an upgrade. Out: the answer 101 and a [`PendingUpgrade`], or a refusal with its HTTP status.

use std::io;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tracing::debug;
use wshd_protocol::handshake::Offer;

use super::fragment::Reading;
use super::instead::{Answering, Instead};
use super::login::{self, Passed};
use super::{Body, Front, Peer, origin, refusal};
use crate::admission::{Permit, RETRY_SECONDS, Share, TOO_MANY};
use crate::generation::{Decision, Manner, Refusal, Ticket, UpgradeRequest};
use crate::router::Found;
use crate::session::{self, Stream};
use crate::tls::Secured;

/// An upgrade that was answered with 101 and whose stream is not free yet.
#[derive(Debug)]
pub(super) struct PendingUpgrade {
    stream: OnUpgrade,
    ticket: Ticket,
    peer: session::Peer,
    share: Share,
}

impl PendingUpgrade {
    pub(super) fn new(stream: OnUpgrade, ticket: Ticket, peer: session::Peer, share: Share) -> Self {
        Self { stream, ticket, peer, share }
    }

    /// Waits for the stream and passes it to the worker that accepted.
    pub(super) async fn hand_over<S: Leaves + AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        permit: Permit,
    ) {
        let Self { stream, ticket, peer, share } = self;
        let upgraded = match stream.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(%peer, "upgrade was not completed: {error}"),
        };
        let parts =
            upgraded.downcast::<TokioIo<Answering<Reading<S>>>>().expect("the connection served this stream");
        // Leaves the front's event loop; the worker registers it with its own.
        let stream = match parts.io.into_inner().into_inner().into_inner().leave() {
            Ok(stream) => stream,
            Err(error) => return debug!(%peer, "stream cannot be moved: {error}"),
        };
        if ticket.hand_over(stream, parts.read_buf.into(), peer) {
            permit.transfer(share);
        }
    }
}

/// Ends a stream whose upgrade was refused, behind the answer. To hyper it is one that may become another protocol's, which it lets go
/// of without a word; over TLS the peer would have to take the end for a lost connection.
pub(super) async fn end(stream: OnUpgrade, patience: Duration) {
    if let Ok(upgraded) = stream.await {
        // A peer that is gone or takes nothing need not be told.
        let _ = tokio::time::timeout(patience, TokioIo::new(upgraded).shutdown()).await;
    }
}

/// A stream that the front can let go of.
pub(super) trait Leaves {
    /// Takes it out of the event loop of the front.
    fn leave(self) -> io::Result<Stream>;
}

impl Leaves for TcpStream {
    fn leave(self) -> io::Result<Stream> {
        Ok(Stream::Plain(self.into_std()?.into()))
    }
}

impl Leaves for UnixStream {
    fn leave(self) -> io::Result<Stream> {
        Ok(Stream::Plain(self.into_std()?.into()))
    }
}

impl Leaves for Secured {
    fn leave(self) -> io::Result<Stream> {
        let (socket, engine) = self.into_parts()?;
        Ok(Stream::Tls(socket.into(), engine))
    }
}

/// Checks the opening handshake (RFC 6455 section 4.2), finds the handler and asks it.
pub(super) async fn answer(
    front: &Front,
    request: Request<Incoming>,
    has_fragment: bool,
    peer: &Peer,
    permit: &Permit,
    instead: &Instead,
) -> Result<(Response<Body>, Ticket, Share), Response<Body>> {
    let asker = peer.session;
    let refuse = |status, more, body: String| {
        debug!(target: "access", peer = %asker, "refused {status}: {}", body.trim_end());
        refusal(status, more, body)
    };
    let share = permit.share(asker.ip()).map_err(|_| {
        let more = HeaderMap::from_iter([(header::RETRY_AFTER, RETRY_SECONDS.into())]);
        refuse(StatusCode::SERVICE_UNAVAILABLE, more, TOO_MANY.into())
    })?;
    let offer = Offer::parse(request.method(), request.version(), request.headers());
    let mut asked: Option<UpgradeRequest> = None;
    let mut passed: Option<Passed> = None;
    for _ in 0..ATTEMPTS_MAX {
        // A reload may have put another generation in the place of the one that did not want to be asked any more.
        let served = front.served();
        let found = served.find(&request);
        let (handler, route) =
            found.as_ref().map_or((None, None), |(_, found)| (Some(found.serves.name()), found.route));
        let auth = served.config.auth_of(handler, route);
        let Some((path, found)) = found else {
            // Whoever is not known does not learn which paths there are.
            login::pass(&served, auth, request.headers(), peer).await?;
            let path = request.uri().path();
            return Err(refuse(
                StatusCode::NOT_FOUND,
                HeaderMap::new(),
                format!("no handler serves {path}\n"),
            ));
        };
        if has_fragment {
            let body = "a WebSocket has no fragment: leave out what follows the # (RFC 6455 section 3)\n";
            return Err(refuse(StatusCode::BAD_REQUEST, HeaderMap::new(), body.to_owned()));
        }
        let offer = offer
            .as_ref()
            .map_err(|rejection| refuse(rejection.status(), rejection.headers(), format!("{rejection}\n")))?;
        let Found { serves: generation, params, .. } = found;
        let origins = route.and_then(|route| route.origins.as_ref());
        let origins = origins.unwrap_or_else(|| served.config.origins_of(generation.name()));
        origin::check(origins, request.headers(), asker.is_secure())
            .map_err(|why| refuse(StatusCode::FORBIDDEN, HeaderMap::new(), format!("{why}\n")))?;
        // After the origin: a page of somebody else's is not worth the work.
        let passed = match &mut passed {
            Some(passed) => &*passed,
            none => none.insert(login::pass(&served, auth, request.headers(), peer).await?),
        };
        let mut deflate = served.config.deflate_of(generation.name());
        deflate.rules.is_on = route.and_then(|route| route.deflate).unwrap_or(deflate.rules.is_on);
        let ask = asked.take().unwrap_or_else(|| UpgradeRequest {
            path,
            params,
            query: request.uri().query().unwrap_or_default().to_owned(),
            headers: {
                let mut headers = request.headers().clone();
                passed.strip(&mut headers);
                headers
            },
            protocols: offer.protocols().filter(|name| !passed.is_ours(name)).map(str::to_owned).collect(),
            peer: asker,
            client: peer.client.clone(),
            user: passed.user(),
            deflate: generation.windows().agree(&deflate, offer.extensions()),
        });
        let patience = served.config.limits.handshake_seconds_max;
        let decision = tokio::time::timeout(patience, generation.upgrade(ask)).await.map_err(|_| {
            let body = format!("the handler did not decide within {} s\n", patience.as_secs());
            refuse(StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), body)
        })?;
        let accepted = match decision {
            Decision::Accept(accepted) => accepted,
            Decision::Refuse(refused) => {
                take_time(refused.manner, instead).await;
                return Err(refusal(refused.status, refused.headers, refused.body));
            }
            Decision::AskAgain(request) => {
                asked = Some(*request);
                tokio::task::yield_now().await;
                continue;
            }
        };
        let agreed = offer
            .accept(passed.agree(accepted.protocol.as_deref(), request.headers()), accepted.deflate.as_ref())
            .expect("a worker agrees only to a subprotocol that was offered");
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = agreed;
        response.headers_mut().extend(accepted.headers);
        take_time(accepted.manner, instead).await;
        return Ok((response, accepted.ticket, share));
    }
    let refused = Refusal::shutting_down();
    Err(refusal(refused.status, refused.headers, refused.body))
}

/// Lets the time pass that the handler wants before its answer, and keeps what it wants written in the place of it.
async fn take_time(manner: Manner, instead: &Instead) {
    if !manner.delay.is_zero() {
        tokio::time::sleep(manner.delay).await;
    }
    if let Some(bytes) = manner.instead {
        // Set once: after an answer that a handler has given, the connection ends or is no longer HTTP's.
        let _ = instead.set(bytes);
    }
}

/// How many generations in a row may turn a peer away because they are leaving: more than a reload in a moment is a server that
/// is shutting down.
const ATTEMPTS_MAX: usize = 8;

/// The answer to a plain request for a path that only speaks WebSocket (RFC 9110 section 15.5.22).
pub(super) fn required() -> Response<Body> {
    let mut more = HeaderMap::new();
    more.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let mut response = refusal(
        StatusCode::UPGRADE_REQUIRED,
        more,
        "this path speaks WebSocket: connect with ws:// or wss://\n",
    );
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade, close"));
    response
}
