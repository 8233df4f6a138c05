//! Speaks HTTP/1.1 with a peer until it upgrades or leaves.
//!
//! In: an accepted stream. Out: a stream handed over to a worker, or answers that end here. Nothing outside this folder knows
//! HTTP, and no line of a handler library runs here.

mod files;
mod forwarded;
mod origin;
mod upgrade;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use self::files::Files;
use self::upgrade::{Leaves, PendingUpgrade};
use crate::admission::Permit;
use crate::config::Config;
use crate::listener::Accepted;
use crate::router::Router;
use crate::session;
use crate::tls::{ClientCertificate, Identity, Secured};

type Body = BoxBody<Bytes, io::Error>;

/// What every connection of the server needs to answer a request. Routes and rules are replaced while it serves: a request
/// that has begun is answered by those it began with.
#[derive(Debug)]
pub(crate) struct Front {
    served: ArcSwap<Served>,
}

/// Who holds the other end of a connection.
#[derive(Debug)]
struct Peer {
    session: session::Peer,
    client: Option<ClientCertificate>,
}

/// What is served at the moment, and by which rules.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    config: Arc<Config>,
    router: Arc<Router>,
    files: Option<Files>,
    /// There is one if a port speaks TLS.
    identity: Option<Arc<Identity>>,
}

impl Front {
    /// Without a route so far.
    pub(crate) fn new(config: Arc<Config>, identity: Option<Arc<Identity>>) -> io::Result<Self> {
        let files = config.files.root.as_deref().map(Files::open).transpose()?;
        let served = Served { config, router: Arc::default(), files, identity };
        Ok(Self { served: ArcSwap::from_pointee(served) })
    }

    /// New requests are routed by this table.
    pub(crate) fn route(&self, router: Router) {
        let router = Arc::new(router);
        self.served.rcu(|served| Served { router: router.clone(), ..Served::clone(served) });
    }

    /// What would be served by this config, and as whom.
    ///
    /// # Errors
    /// The document root cannot be opened.
    pub(crate) fn prepare(
        &self,
        config: &Arc<Config>,
        identity: Option<Arc<Identity>>,
    ) -> io::Result<Served> {
        let files = config.files.root.as_deref().map(Files::open).transpose()?;
        Ok(Served { config: config.clone(), files, identity, ..Served::clone(&self.served.load()) })
    }

    /// Who this server is to peers that speak TLS.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.served.load().identity.clone()
    }

    /// New peers are shown these certificates.
    pub(crate) fn be(&self, identity: Arc<Identity>) {
        let identity = Some(identity);
        self.served.rcu(|served| Served { identity: identity.clone(), ..Served::clone(served) });
    }

    /// New requests are answered by these rules.
    pub(crate) fn serve_by(&self, served: Served) {
        self.served.store(Arc::new(served));
    }

    fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Serves one connection to its end, or until its stream belongs to a worker.
    pub(crate) async fn serve(self: Arc<Self>, stream: Accepted, permit: Permit, tls: bool) {
        let served = self.served();
        let patience = served.config.limits.handshake_seconds_max;
        let plain = Peer { session: session::Peer::new(permit.peer(), false), client: None };
        let stream = match stream {
            Accepted::Unix(stream) => return self.converse(stream, plain, permit, patience).await,
            Accepted::Tcp(stream) if !tls => return self.converse(stream, plain, permit, patience).await,
            Accepted::Tcp(stream) => stream,
        };
        let Some(identity) = &served.identity else { return };
        let began = Instant::now();
        let accepted =
            tokio::time::timeout(patience, Secured::accept(stream, identity.config().clone())).await;
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(peer = %plain.session, "{error}"),
            Err(_) => return debug!(peer = %plain.session, "no TLS handshake within {patience:?}"),
        };
        let client = stream.engine().client().cloned();
        let peer = Peer { session: session::Peer::new(permit.peer(), true), client };
        self.converse(stream, peer, permit, patience.saturating_sub(began.elapsed())).await;
    }

    /// Speaks HTTP over any stream. The first request has to come within `patience`.
    async fn converse<S>(&self, stream: S, peer: Peer, permit: Permit, patience: Duration)
    where
        S: Leaves + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (peer, permit_of) = (&peer, &permit);
        // The service runs inside the connection that it belongs to; the upgrade it prepares is taken up when the connection
        // has written 101 and let go of the stream.
        let pending: Mutex<Option<PendingUpgrade>> = Mutex::new(None);
        let service = service_fn(|request| async {
            let answer = self.answer(request, peer, permit_of, &pending).await;
            Ok::<_, Infallible>(answer)
        });
        let served = self.served();
        let limits = &served.config.limits;
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(limits.head_bytes_max)
            .max_headers(limits.head_lines_max)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            // The peer's doing, and an answer was given where one was possible.
            debug!(peer = %peer.session, "http connection ended: {error}");
            return;
        }
        let pending = pending.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(pending) = pending {
            pending.hand_over::<S>(permit).await;
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        permit: &Permit,
        pending: &Mutex<Option<PendingUpgrade>>,
    ) -> Response<Body> {
        if wshd_protocol::handshake::is_upgrade(request.headers()) {
            return match upgrade::answer(self, request, peer, permit).await {
                Ok((response, accepted)) => {
                    *pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted);
                    response
                }
                Err(refusal) => refusal,
            };
        }
        let served = self.served();
        let path = crate::router::resource_path(request.uri().path());
        let handler = path.as_deref().and_then(|path| served.router.find(path));
        let response = match &served.files {
            Some(files) => files.answer(request).await,
            None => text(StatusCode::NOT_FOUND, "there is nothing at this path\n"),
        };
        match handler {
            // A page at the same path as a handler wins, as `/` of the document root does over a handler for `/`.
            Some(_) if response.status() == StatusCode::NOT_FOUND => upgrade::required(),
            _ => response,
        }
    }
}

/// An answer in words.
fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An answer in words after which the connection ends, so that nothing the peer sent behind its request is taken for another.
fn refusal(status: StatusCode, more: HeaderMap, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = text(status, body);
    let headers = response.headers_mut();
    for (name, value) in &more {
        if name == header::CONTENT_TYPE {
            headers.insert(name, value.clone());
        } else {
            headers.append(name, value.clone());
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
