//! Speaks HTTP/1.1 with a peer until it upgrades or leaves.
//!
//! In: an accepted stream. Out: a stream handed over to a worker, or answers that end here. Nothing outside this folder knows
//! HTTP, and no line of a handler library runs here.

mod cgi;
mod files;
mod forwarded;
mod fragment;
mod instead;
mod login;
mod origin;
mod target;
mod upgrade;

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
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
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use self::cgi::Cgi;
use self::files::Files;
use self::fragment::Reading;
use self::instead::{Answering, Instead};
use self::upgrade::{Leaves, PendingUpgrade};
use crate::admission::Permit;
use crate::auth::{Auth, Guard};
use crate::config::{Config, Listen};
use crate::listener::Accepted;
use crate::router::{Found, Router, resource_path};
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

/// What becomes of a stream when hyper lets go of it.
#[derive(Debug)]
enum Pending {
    Accepted(PendingUpgrade),
    /// Its upgrade was refused: it ends.
    Refused(OnUpgrade),
}

/// What is served at the moment, and by which rules.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    config: Arc<Config>,
    router: Arc<Router>,
    files: Option<Files>,
    cgi: Option<Arc<Cgi>>,
    /// There is one if a port speaks TLS.
    identity: Option<Arc<Identity>>,
    /// Who is known.
    auth: Arc<Auth>,
    guard: Arc<Guard>,
}

impl Front {
    /// Without a route so far.
    pub(crate) fn new(
        config: Arc<Config>,
        identity: Option<Arc<Identity>>,
        auth: Arc<Auth>,
    ) -> io::Result<Self> {
        let (files, cgi) = (open_files(&config)?, Cgi::open(&config, None)?.map(Arc::new));
        let guard = Arc::new(Guard::new(&config.limits));
        let served = Served { config, router: Arc::default(), files, cgi, identity, auth, guard };
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
        auth: Arc<Auth>,
    ) -> io::Result<Served> {
        let served = Served::clone(&self.served.load());
        let cgi = Cgi::open(config, served.cgi.as_deref())?.map(Arc::new);
        let files = open_files(config)?;
        let guard = if served.guard.is_for(&config.limits) {
            served.guard.clone()
        } else {
            Arc::new(Guard::new(&config.limits))
        };
        Ok(Served { config: config.clone(), files, cgi, identity, auth, guard, ..served })
    }

    /// Who is known.
    pub(crate) fn auth(&self) -> Arc<Auth> {
        self.served.load().auth.clone()
    }

    /// From now on these are known.
    pub(crate) fn know(&self, auth: Arc<Auth>) {
        self.served.rcu(|served| Served { auth: auth.clone(), ..Served::clone(served) });
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
        let has_fragment = Arc::new(AtomicBool::new(false));
        let stream = Reading::new(stream, has_fragment.clone());
        let has_fragment = &*has_fragment;
        // The service runs inside the connection that it belongs to; the upgrade it prepares is taken up when the connection
        // has written 101 and let go of the stream.
        let pending: Mutex<Option<Pending>> = Mutex::new(None);
        let instead = Instead::default();
        let service = service_fn(|request| async {
            let has_fragment = has_fragment.load(Ordering::Relaxed);
            // Behind a proxy each request may come from somebody else.
            let peer = peer.asking(&request, permit_of, &self.served().config.listen);
            let answer = self.answer(request, has_fragment, &peer, permit_of, &pending, &instead).await;
            Ok::<_, Infallible>(answer)
        });
        let served = self.served();
        let limits = &served.config.limits;
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(limits.head_bytes_max)
            .max_headers(limits.head_lines_max)
            .serve_connection(TokioIo::new(Answering::new(stream, instead.clone())), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            // The peer's doing, and an answer was given where one was possible.
            debug!(peer = %peer.session, "http connection ended: {error}");
            return;
        }
        let pending = pending.into_inner().unwrap_or_else(PoisonError::into_inner);
        match pending {
            Some(Pending::Accepted(upgrade)) => upgrade.hand_over::<S>(permit).await,
            Some(Pending::Refused(stream)) => upgrade::end(stream, limits.linger_seconds_max).await,
            None => {}
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        has_fragment: bool,
        peer: &Peer,
        permit: &Permit,
        pending: &Mutex<Option<Pending>>,
        instead: &Instead,
    ) -> Response<Body> {
        login::hide_secrets(request.headers_mut());
        if wshd_protocol::handshake::is_upgrade(request.headers()) {
            let stream = hyper::upgrade::on(&mut request);
            let upgrade = upgrade::answer(self, request, has_fragment, peer, permit, instead).await;
            let (response, next) = match upgrade {
                Ok((response, ticket, share)) => {
                    let upgrade = PendingUpgrade::new(stream, ticket, peer.session, share);
                    (response, Pending::Accepted(upgrade))
                }
                Err(refusal) => (refusal, Pending::Refused(stream)),
            };
            *pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
            return response;
        }
        let served = self.served();
        let auth = served.config.auth_of_files();
        let passed = match login::pass(&served, auth, request.headers(), peer).await {
            Ok(passed) => passed,
            Err(refusal) => return refusal,
        };
        if let Some(cgi) = &served.cgi
            && let Some(path) = resource_path(request.uri().path())
            && cgi.serves(&path)
        {
            return cgi.answer(path, request, peer, &passed).await;
        }
        let is_served = served.find(&request).is_some();
        let response = match &served.files {
            Some(files) => files.answer(request).await,
            None => text(StatusCode::NOT_FOUND, "there is nothing at this path\n"),
        };
        // A page at the same path as a handler wins, as `/` of the document root does over a handler for `/`.
        if is_served && response.status() == StatusCode::NOT_FOUND { upgrade::required() } else { response }
    }
}

impl Peer {
    /// Whom a request on this connection is from, which behind a proxy is not who holds its other end.
    fn asking<B>(&self, request: &Request<B>, permit: &Permit, listen: &Listen) -> Self {
        let session = forwarded::peer_of(request.headers(), self.session, permit, listen);
        Self { session, client: self.client.clone() }
    }
}

impl Served {
    /// The resource path of a request, and who answers on it.
    fn find<B>(&self, request: &Request<B>) -> Option<(String, Found<'_>)> {
        if !target::is_for_this_server(request.uri(), &self.config.upgrade) {
            return None;
        }
        let path = resource_path(request.uri().path())?;
        let found = self.router.find(|| target::host(request), &path)?;
        Some((path, found))
    }
}

fn open_files(config: &Config) -> io::Result<Option<Files>> {
    config.files.root.as_deref().map(|root| Files::open(root, Cgi::folders(config))).transpose()
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
