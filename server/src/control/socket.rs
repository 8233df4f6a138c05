//! The control socket: one request a line, one answer a line, in JSON.
//!
//! ```text
//! {"version":1,"request":"status"}
//! {"version":1,"request":"reload"}                       config, and every handler that was refused or has changed
//! {"version":1,"request":"reload","handler":"chat"}      this one, also if it was refused before
//! {"version":1,"request":"rollback","handler":"chat"}
//! {"version":1,"request":"stop"}
//!
//! {"version":1,"ok":true,"status":{...}}
//! {"version":1,"ok":false,"error":"there is no handler chat"}
//! ```
//!
//! Only the user that runs the server can open it (mode 0600). Fields are added and never change their meaning within a version.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::{Answer, Asked, Request, Status};
use crate::socket_file::{self, SocketFile};

const VERSION: u32 = 1;

/// A request has few words.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Connections to the control socket at a time. It is for a person and some scripts.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct RequestLine {
    version: u32,
    request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handler: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AnswerLine {
    version: u32,
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

impl RequestLine {
    fn of(request: &Request) -> Self {
        let (request, handler) = match request {
            Request::Reload(handler) => ("reload", handler.clone()),
            Request::Rollback(handler) => ("rollback", Some(handler.clone())),
            Request::Status => ("status", None),
            Request::Stop => ("stop", None),
        };
        Self { version: VERSION, request: request.to_owned(), handler }
    }

    fn parse(line: &str) -> Result<Request, String> {
        let line: Self =
            serde_json::from_str(line).map_err(|error| format!("this is no request: {error}"))?;
        if line.version != VERSION {
            return Err(format!("this server speaks version {VERSION}, not {}", line.version));
        }
        match (line.request.as_str(), line.handler) {
            ("reload", handler) => Ok(Request::Reload(handler)),
            ("rollback", Some(handler)) => Ok(Request::Rollback(handler)),
            ("rollback", None) => Err("rollback needs a handler".into()),
            ("status", _) => Ok(Request::Status),
            ("stop", _) => Ok(Request::Stop),
            (other, _) => {
                Err(format!("there is no request {other:?}; there are reload, rollback, status, stop"))
            }
        }
    }
}

impl AnswerLine {
    fn of(answer: Answer) -> Self {
        let (error, status) = match answer {
            Answer::Status(status) => (None, Some(*status)),
            Answer::Done => (None, None),
            Answer::Failed(error) => (Some(error), None),
        };
        Self { version: VERSION, ok: error.is_none(), error, status }
    }

    fn answer(self) -> Answer {
        match (self.ok, self.error, self.status) {
            (true, _, Some(status)) => Answer::Status(Box::new(status)),
            (true, ..) => Answer::Done,
            (false, error, _) => Answer::Failed(error.unwrap_or_default()),
        }
    }
}

/// The server's side. Dropped, the socket is gone.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    accepting: JoinHandle<()>,
    _file: SocketFile,
}

impl ControlSocket {
    /// Makes the socket. One that a server left behind is replaced; one that a server answers on is not.
    pub(crate) fn open(path: &Path, requests: mpsc::Sender<Asked>) -> Result<Self, ControlError> {
        let opened = socket_file::listen(path, 0o600, CONNECTIONS_MAX as u32);
        let (listener, file) = opened.map_err(|error| ControlError::Open { path: path.to_owned(), error })?;
        Ok(Self { _file: file, accepting: tokio::spawn(accept(listener, requests)) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("the control socket cannot accept: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let own = rustix::process::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            continue;
        }
        let requests = requests.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &requests).await {
                debug!("a connection to the control socket ended: {error}");
            }
            drop(place);
        });
    }
}

async fn converse(stream: UnixStream, requests: &mpsc::Sender<Asked>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader);
    loop {
        let mut line = String::new();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX);
        let read = tokio::time::timeout(SILENCE_MAX, limited.read_line(&mut line)).await??;
        if read == 0 {
            return Ok(());
        }
        let answer = match RequestLine::parse(line.trim()) {
            Ok(request) => put(request, requests).await,
            Err(error) => Answer::Failed(error),
        };
        let mut text = serde_json::to_string(&AnswerLine::of(answer)).map_err(io::Error::other)?;
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
        if !line.ends_with('\n') {
            // The line was too long, or the peer has ended: what follows could not be understood.
            return Ok(());
        }
    }
}

async fn put(request: Request, requests: &mpsc::Sender<Asked>) -> Answer {
    let (sender, answer) = oneshot::channel();
    if requests.send((request, sender)).await.is_err() {
        return Answer::Failed("the server is shutting down".into());
    }
    answer.await.unwrap_or_else(|_| Answer::Failed("the server is shutting down".into()))
}

/// The other side: asks the server at this socket, and blocks until it has answered.
///
/// # Errors
/// There is no server, it does not answer, or not in this language.
pub fn ask(path: &Path, request: &Request) -> Result<Answer, ControlError> {
    let failed = |error| ControlError::Ask { path: path.to_owned(), error };
    let mut stream = BlockingStream::connect(path).map_err(failed)?;
    let mut line = serde_json::to_string(&RequestLine::of(request)).map_err(|error| failed(error.into()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(failed(io::Error::other("the server ended before it answered")));
    }
    let answer: AnswerLine = serde_json::from_str(&answer).map_err(|error| failed(error.into()))?;
    Ok(answer.answer())
}

/// Why the control socket cannot be had or reached.
#[derive(Debug)]
pub enum ControlError {
    Open { path: PathBuf, error: io::Error },
    Ask { path: PathBuf, error: io::Error },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, error } => {
                write!(f, "cannot make the control socket {}: {error}", path.display())?;
                if error.kind() == io::ErrorKind::AddrInUse {
                    f.write_str("; set control.socket")?;
                }
                Ok(())
            }
            Self::Ask { path, error } => {
                write!(f, "no server answers on the control socket {}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => f.write_str(
                        "; is it running, and with this config file? --config FILE names another one",
                    ),
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; only the user that runs the server may open it")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for ControlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        for request in [
            Request::Reload(None),
            Request::Reload(Some("chat".into())),
            Request::Rollback("games/chess".into()),
            Request::Status,
            Request::Stop,
        ] {
            let line = serde_json::to_string(&RequestLine::of(&request)).unwrap();
            assert_eq!(RequestLine::parse(&line), Ok(request));
        }
    }

    #[test]
    fn a_wrong_request_is_answered_with_what_is_right() {
        let wrong = |line: &str| RequestLine::parse(line).unwrap_err();
        assert!(wrong("reload").starts_with("this is no request: "));
        assert!(wrong(r#"{"version":2,"request":"status"}"#).contains("speaks version 1, not 2"));
        assert!(
            wrong(r#"{"version":1,"request":"restart"}"#)
                .contains("there are reload, rollback, status, stop")
        );
        assert_eq!(wrong(r#"{"version":1,"request":"rollback"}"#), "rollback needs a handler");
    }
}
