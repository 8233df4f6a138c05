//! What a program says: header lines, an empty line, and the rest, which is passed on as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Where the header lines end and the rest begins: the empty line, with or without carriage returns. `None` if it has not come.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<(usize, usize)> {
    if bytes.starts_with(b"\n") || bytes.starts_with(b"\r\n") {
        return Some((0, if bytes[0] == b'\n' { 1 } else { 2 }));
    }
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    for end in ends {
        match &bytes[end..] {
            [b'\n', ..] => return Some((end, end + 1)),
            [b'\r', b'\n', ..] => return Some((end, end + 2)),
            _ => {}
        }
    }
    None
}

/// The answer that the header lines describe, without its body (RFC 3875 section 6.3). `None` if they make no sense.
///
/// `Status` and `Location` decide on the status. What only concerns the connection is the server's business.
pub(super) fn head(lines: &[u8]) -> Option<Response<()>> {
    const NOT_THE_PROGRAMS: [HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
    ];
    let (mut status, mut headers) = (None, HeaderMap::new());
    for line in lines.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let code = StatusCode::from_bytes(value.get(..3)?).ok()?;
            // 101 would be an upgrade, and nobody is there to speak it.
            status = Some(code).filter(|code| code.as_u16() >= 200 && status.is_none());
            status?;
            continue;
        }
        let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        if !NOT_THE_PROGRAMS.contains(&name) {
            headers.append(name, value);
        }
    }
    let otherwise = match (headers.contains_key(header::LOCATION), headers.contains_key(header::CONTENT_TYPE))
    {
        (true, _) => Some(StatusCode::FOUND),
        (false, true) => Some(StatusCode::OK),
        (false, false) => None,
    };
    let mut response = Response::new(());
    *response.status_mut() = status.or(otherwise)?;
    *response.headers_mut() = headers;
    Some(response)
}

/// A part of the body, or its end.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Bytes),
    End,
}

/// The body of an answer. Without [`Part::End`] it was cut short, and so is the connection: a peer must not take a part for the whole.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) parts: mpsc::Receiver<Part>,
    pub(super) is_over: bool,
}

impl hyper::body::Body for Output {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.parts.poll_recv(cx)) {
            Some(Part::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Part::End) => {
                self.is_over = true;
                None
            }
            None => {
                self.is_over = true;
                Some(Err(io::Error::other("the program was ended before its answer was")))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_ends_at_the_first_empty_line() {
        assert_eq!(end_of_head(b"A: b\n\nrest\n\n"), Some((5, 6)));
        assert_eq!(end_of_head(b"A: b\r\n\r\nrest"), Some((6, 8)));
        assert_eq!(end_of_head(b"A: b\r\n\nrest"), Some((6, 7)));
        assert_eq!(end_of_head(b"\nrest"), Some((0, 1)));
        assert_eq!(end_of_head(b"\r\nrest"), Some((0, 2)));
        for part in [&b"A: b\n"[..], b"A: b\r\n\r", b"", b"A"] {
            assert_eq!(end_of_head(part), None);
        }
    }

    #[test]
    fn status_and_location_decide() {
        let status = |lines: &str| head(lines.as_bytes()).map(|head| head.status().as_u16());
        assert_eq!(status("Content-Type: text/plain\n"), Some(200));
        assert_eq!(status("content-type:text/plain\r\nSTATUS: 404 Not Found\r\n"), Some(404));
        assert_eq!(status("Location: /elsewhere\n"), Some(302));
        assert_eq!(status("Location: /elsewhere\nStatus: 303\n"), Some(303));
        assert_eq!(status("Status: 204\n"), Some(204));
        for wrong in
            ["", "X-A: b\n", "no colon\n", "Status: 101\nContent-Type: a/b\n", "Status: x\n", "a b: c\n"]
        {
            assert_eq!(status(wrong), None, "{wrong}");
        }
        assert_eq!(status("Content-Type: a/b\nStatus: 200\nStatus: 500\n"), None);
    }

    #[test]
    fn the_connection_is_not_the_programs_business() {
        let lines = b"Content-Type: a/b\nConnection: close\nContent-Length: 7\nTransfer-Encoding: x\nSet-Cookie: a\nSet-Cookie: b\n";
        let head = head(lines).unwrap();
        assert_eq!(head.headers().len(), 3, "{head:?}");
        assert_eq!(head.headers().get_all(header::SET_COOKIE).iter().count(), 2);
    }
}
