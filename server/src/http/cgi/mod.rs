//! Programs that answer requests: CGI/1.1 (RFC 3875).
//!
//! In: a request for a path beneath one of `cgi.paths`. Out: what the program of that name says. There is no shell on the way, and what
//! lies in such a folder is run or not there at all: no file of it is ever shown.

mod output;
mod program;

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use self::program::{Failure, Program};
use super::files::is_private;
use super::login::Passed;
use super::{Body, Peer, refusal, text};
use crate::auth::Way;
use crate::config::{self, Config};

/// The folders of programs in one document root.
#[derive(Debug)]
pub(super) struct Cgi {
    rules: config::Cgi,
    root: PathBuf,
    folder: OwnedFd,
    running: Arc<Semaphore>,
}

/// A program that a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    file: PathBuf,
    /// The part of the path that names it.
    name: String,
    /// The rest of the path; empty or with a slash in front.
    info: String,
}

impl Cgi {
    /// `None` if the config names no folders. What runs by the rules before counts towards the bound, unless that has changed.
    pub(super) fn open(config: &Config, before: Option<&Self>) -> io::Result<Option<Self>> {
        let rules = config.cgi.clone();
        if rules.paths.is_empty() {
            return Ok(None);
        }
        let Some(root) = &config.files.root else {
            let wrong =
                "`cgi.paths` (-x) names folders of the document root, but there is none: set files.root (-d)";
            return Err(io::Error::other(wrong));
        };
        let running = before
            .filter(|before| before.rules.processes_max == rules.processes_max)
            .map_or_else(|| Arc::new(Semaphore::new(rules.processes_max)), |before| before.running.clone());
        let root = std::path::absolute(root)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&root, flags, Mode::empty())?;
        Ok(Some(Self { rules, root, folder, running }))
    }

    /// The folders, beneath the root.
    pub(super) fn folders(config: &Config) -> Vec<PathBuf> {
        config.cgi.paths.iter().map(|path| PathBuf::from(path.trim_start_matches('/'))).collect()
    }

    /// Whether a resource path is a program's or would be.
    pub(super) fn serves(&self, path: &str) -> bool {
        let is_beneath = |folder: &String| {
            path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.rules.paths.iter().any(is_beneath)
    }

    /// Has the program at this resource path answer.
    pub(super) async fn answer(
        self: &Arc<Self>,
        path: String,
        request: Request<Incoming>,
        peer: &Peer,
        passed: &Passed,
    ) -> Response<Body> {
        if ![Method::GET, Method::HEAD, Method::POST].contains(request.method()) {
            let mut response =
                text(StatusCode::METHOD_NOT_ALLOWED, "programs are asked with GET, HEAD and POST\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
            return response;
        }
        let found = tokio::task::spawn_blocking({
            let cgi = self.clone();
            move || cgi.find(&path)
        });
        let found = match found.await {
            Ok(Ok(found)) => found,
            Ok(Err(refused)) => return refused_with(refused, "there is no program at this path\n"),
            Err(error) => {
                warn!("cannot look for a program: {error}");
                return refused_with(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the program could not be looked for\n",
                );
            }
        };
        let Ok(turn) = self.running.clone().try_acquire_owned() else {
            let mut response = refused_with(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many programs run at the moment; try again\n",
            );
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        };
        // From here on all of it: the body, the program, its answer.
        let deadline = Instant::now() + self.rules.seconds_max;
        let (parts, body) = request.into_parts();
        let body = match self.collect(&parts, body, deadline).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let variables = self.variables(&found, &parts, body.len(), peer, passed);
        let is_head = parts.method == Method::HEAD;
        let Found { file, name, .. } = found;
        let program = Program { file, name, variables, is_head, head_bytes_max: self.rules.head_bytes_max };
        program.answer(body, turn, deadline).await.unwrap_or_else(|failure| refused_for(&failure))
    }

    async fn collect(
        &self,
        parts: &Parts,
        body: Incoming,
        deadline: Instant,
    ) -> Result<Bytes, Response<Body>> {
        let most = self.rules.body_bytes_max;
        let too_large = || {
            let said = format!("a program takes a body of at most {most} bytes\n");
            refused_with(StatusCode::PAYLOAD_TOO_LARGE, said)
        };
        let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > most as u64)
        {
            return Err(too_large());
        }
        match tokio::time::timeout_at(deadline, Limited::new(body, most).collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(refused_with(StatusCode::BAD_REQUEST, "the body did not arrive whole\n")),
            Err(_) => Err(refused_with(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n")),
        }
    }

    /// The first file on the way is the program, what follows is for it.
    fn find(&self, path: &str) -> Result<Found, StatusCode> {
        let mut end = 0;
        for segment in path.split('/').skip(1) {
            end += 1 + segment.len();
            let name = &path[..end];
            let inside = Path::new(name.trim_start_matches('/'));
            if segment.is_empty() || is_private(inside, &[]) {
                return Err(StatusCode::NOT_FOUND);
            }
            // As for files: no spelling and no link leads out.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let opened = rustix::fs::openat2(&self.folder, inside, flags, Mode::empty(), resolve);
            let stat = opened.and_then(rustix::fs::fstat).map_err(|_| StatusCode::NOT_FOUND)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {}
                FileType::RegularFile if self.serves(parent(name)) => {
                    rustix::fs::accessat(&self.folder, inside, Access::EXEC_OK, AtFlags::empty())
                        .map_err(|_| StatusCode::FORBIDDEN)?;
                    // By its name from here on: who can put another file there could have put one there before.
                    let file = self.root.join(inside);
                    return Ok(Found { file, name: name.to_owned(), info: path[end..].to_owned() });
                }
                _ => return Err(StatusCode::NOT_FOUND),
            }
        }
        Err(StatusCode::NOT_FOUND)
    }

    /// The environment of the program, all of it (RFC 3875 section 4.1).
    fn variables(
        &self,
        found: &Found,
        parts: &Parts,
        body_len: usize,
        peer: &Peer,
        passed: &Passed,
    ) -> Vec<(String, String)> {
        // Who comes by a Unix socket has no address.
        let address = peer.session.ip().map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
        let port = peer.session.address().map(|address| address.port().to_string()).unwrap_or_default();
        let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let (host, host_port) =
            host_and_port(text(header::HOST).unwrap_or_default(), peer.session.is_secure());
        let query = parts.uri.query().unwrap_or_default();
        let mut all: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
        // For programs that are looked for by name, as `#!/usr/bin/env python3` does.
        set("PATH", "/usr/local/bin:/usr/bin:/bin");
        set("GATEWAY_INTERFACE", "CGI/1.1");
        set("SERVER_SOFTWARE", concat!("wshd/", env!("CARGO_PKG_VERSION")));
        set("SERVER_PROTOCOL", if parts.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" });
        set("SERVER_NAME", &host);
        set("SERVER_PORT", &host_port);
        set("REQUEST_METHOD", parts.method.as_str());
        set("REQUEST_URI", parts.uri.path_and_query().map_or("/", |whole| whole.as_str()));
        set("SCRIPT_NAME", &found.name);
        set("SCRIPT_FILENAME", &found.file.to_string_lossy());
        set("DOCUMENT_ROOT", &self.root.to_string_lossy());
        set("QUERY_STRING", query);
        set("REMOTE_ADDR", &address);
        set("REMOTE_HOST", &address);
        set("REMOTE_PORT", &port);
        if !found.info.is_empty() {
            set("PATH_INFO", &found.info);
            let translated = self.root.join(found.info.trim_start_matches('/'));
            set("PATH_TRANSLATED", &translated.to_string_lossy());
        }
        if peer.session.is_secure() {
            set("HTTPS", "on");
        }
        if body_len > 0 || parts.method == Method::POST {
            set("CONTENT_LENGTH", &body_len.to_string());
        }
        if let Some(kind) = text(header::CONTENT_TYPE) {
            set("CONTENT_TYPE", kind);
        }
        if let Some(known) = &passed.known {
            set("REMOTE_USER", &known.user);
            let way = match known.by {
                Way::Password => "Basic",
                Way::Token => "Bearer",
                Way::Certificate => "Certificate",
            };
            set("AUTH_TYPE", way);
        }
        all.extend(header_variables(&parts.headers));
        all
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// What the request calls this server, if it is a host; otherwise the program could be made to write anything into its links.
fn host_and_port(host: &str, is_secure: bool) -> (String, String) {
    let default = if is_secure { "443" } else { "80" };
    let is_host = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name, port)
        }
        _ => (host, default),
    };
    if is_host(name) {
        (name.to_owned(), port.to_owned())
    } else {
        ("localhost".to_owned(), default.to_owned())
    }
}

/// The headers of the request as `HTTP_NAME`. Left out is what has a variable of its own, what only concerns the connection, what is
/// a secret between peer and server, `Proxy`, which programs would take for their own setting (CVE-2016-5385), and names with an
/// underscore, which would be taken for those with a dash.
fn header_variables(headers: &HeaderMap) -> Vec<(String, String)> {
    const LEFT_OUT: [HeaderName; 9] = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let is_given = |name: &&HeaderName| {
        let is_plain = name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_plain && **name != "proxy" && !LEFT_OUT.contains(name)
    };
    let variable = |name: &HeaderName| {
        let mut joined = String::new();
        for value in headers.get_all(name) {
            // RFC 9110 section 5.3, and RFC 6265 section 5.4 for cookies.
            let between = if *name == header::COOKIE { "; " } else { ", " };
            let _ =
                write!(joined, "{}{}", if joined.is_empty() { "" } else { between }, value.to_str().ok()?);
        }
        Some((format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_")), joined))
    };
    headers.keys().filter(is_given).filter_map(variable).collect()
}

/// A refusal after which the connection ends: a body that nobody has read may follow.
fn refused_with(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    refusal(status, HeaderMap::new(), body)
}

fn refused_for(failure: &Failure) -> Response<Body> {
    match failure {
        Failure::NotStarted => {
            refused_with(StatusCode::INTERNAL_SERVER_ERROR, "the program could not be started\n")
        }
        Failure::BadOutput => {
            refused_with(StatusCode::BAD_GATEWAY, "the program gave no answer that makes sense\n")
        }
        Failure::TimedOut => {
            refused_with(StatusCode::GATEWAY_TIMEOUT, "the program did not answer in time\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_variables_but_for_those_that_would_do_harm() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "a"),
            ("accept", "b"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x_forwarded_for", "203.0.113.9"),
            ("proxy", "http://evil.example"),
            ("authorization", "Basic YTpi"),
            ("content-length", "3"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut variables = header_variables(&headers);
        variables.sort();
        let expected =
            [("HTTP_ACCEPT", "a, b"), ("HTTP_COOKIE", "a=1; b=2"), ("HTTP_X_FORWARDED_FOR", "192.0.2.1")];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_name_of_the_server_is_a_host_or_localhost() {
        let of = |host: &str| {
            let (name, port) = host_and_port(host, false);
            format!("{name} {port}")
        };
        assert_eq!(of("a.example:9998"), "a.example 9998");
        assert_eq!(of("a.example"), "a.example 80");
        assert_eq!(of("[::1]:9998"), "[::1] 9998");
        assert_eq!(of("[::1]"), "[::1] 80");
        assert_eq!(of("<script>:80"), "localhost 80");
        assert_eq!(of(""), "localhost 80");
    }
}
