//! Turns a request into a WebSocket, or refuses it.
//!
//! In: a request that asks for an upgrade. Out: the answer 101 and a [`PendingUpgrade`], or a refusal with its HTTP status.

use std::io;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tracing::debug;
use wshd_protocol::handshake::Offer;

use super::{Body, Front, Peer, forwarded, origin, refusal};
use crate::admission::{Permit, RETRY_SECONDS, Share, TOO_MANY};
use crate::generation::{Decision, Refusal, Ticket, UpgradeRequest};
use crate::router::resource_path;
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
        let parts = upgraded.downcast::<TokioIo<S>>().expect("the connection served this stream");
        // Leaves the front's event loop; the worker registers it with its own.
        let stream = match parts.io.into_inner().leave() {
            Ok(stream) => stream,
            Err(error) => return debug!(%peer, "stream cannot be moved: {error}"),
        };
        if ticket.hand_over(stream, parts.read_buf.into(), peer) {
            permit.transfer(share);
        }
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
    mut request: Request<Incoming>,
    peer: &Peer,
    permit: &Permit,
) -> Result<(Response<Body>, PendingUpgrade), Response<Body>> {
    // Whom the session is with, which behind a proxy is not who holds the other end of the connection.
    let asker = forwarded::peer_of(request.headers(), peer.session, permit, &front.served().config.listen);
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
    for _ in 0..ATTEMPTS_MAX {
        // A reload may have put another generation in the place of the one that did not want to be asked any more.
        let served = front.served();
        let path = resource_path(request.uri().path());
        let Some(generation) = path.as_deref().and_then(|path| served.router.find(path)) else {
            let path = request.uri().path();
            return Err(refuse(
                StatusCode::NOT_FOUND,
                HeaderMap::new(),
                format!("no handler serves {path}\n"),
            ));
        };
        let offer = offer
            .as_ref()
            .map_err(|rejection| refuse(rejection.status(), rejection.headers(), format!("{rejection}\n")))?;
        origin::check(&served.config.upgrade.origins, request.headers(), asker.is_secure())
            .map_err(|why| refuse(StatusCode::FORBIDDEN, HeaderMap::new(), format!("{why}\n")))?;
        let ask = asked.take().unwrap_or_else(|| UpgradeRequest {
            path: generation.path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            headers: request.headers().clone(),
            protocols: offer.protocols().map(str::to_owned).collect(),
            peer: asker,
            client: peer.client.clone(),
            deflate: served.config.deflate_of(generation.name()).agree(offer.extensions()),
        });
        let patience = served.config.limits.handshake_seconds_max;
        let decision = tokio::time::timeout(patience, generation.upgrade(ask)).await.map_err(|_| {
            let body = format!("the handler did not decide within {} s\n", patience.as_secs());
            refuse(StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new(), body)
        })?;
        let accepted = match decision {
            Decision::Accept(accepted) => accepted,
            Decision::Refuse(refused) => return Err(refusal(refused.status, refused.headers, refused.body)),
            Decision::AskAgain(request) => {
                asked = Some(*request);
                tokio::task::yield_now().await;
                continue;
            }
        };
        let agreed = offer
            .accept(accepted.protocol.as_deref(), accepted.deflate.as_ref())
            .expect("a worker agrees only to a subprotocol that was offered");
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = agreed;
        response.headers_mut().extend(accepted.headers);
        let stream = hyper::upgrade::on(&mut request);
        return Ok((response, PendingUpgrade { stream, ticket: accepted.ticket, peer: asker, share }));
    }
    let refused = Refusal::shutting_down();
    Err(refusal(refused.status, refused.headers, refused.body))
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
