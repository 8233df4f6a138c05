//! What a session remembers of its opening handshake, in two allocations or in none.

use http::HeaderMap;
use http::header;

/// Query, subprotocol, user and headers of the request; also its path where that is not the handler's own, and the parameters of a route.
///
/// Layout: the lengths of query, subprotocol and user (u16 each), query, subprotocol, user, then for each header line the lengths of
/// name and value (u16 each), name, value. Path and parameters stand among the lines, under names that no header can have, because few
/// sessions have them. The outer box is one pointer long, of which every idle session has one.
#[derive(Debug)]
pub(crate) struct Head(Option<Box<Kept>>);

#[derive(Debug)]
struct Kept(Box<[u8]>);

/// Served only the handshake, and is of no use afterwards.
const NOT_KEPT: [header::HeaderName; 4] =
    [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION];

const PREFIX: usize = 6;

/// Names of lines that are no headers.
const PATH: &[u8] = b":path";
const PARAMS: &[u8] = b":params";

/// The first line of the request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Line<'a> {
    /// Percent-decoded; `None` if the handler knows it.
    pub(crate) path: Option<&'a str>,
    /// Encoded as a query is.
    pub(crate) params: &'a str,
    pub(crate) query: &'a str,
}

impl Head {
    /// Keeps what the session can be asked for; with `request` false neither query nor headers.
    pub(crate) fn keep(
        line: Line<'_>,
        headers: &HeaderMap,
        protocol: Option<&str>,
        user: Option<&str>,
        request: bool,
    ) -> Self {
        let query = if request { line.query } else { "" };
        let (protocol, user) = (protocol.unwrap_or_default(), user.unwrap_or_default());
        let mut bytes = Vec::new();
        // The head of a request is limited to far less than 64 KiB; what does not fit is not kept rather than cut.
        for text in [query, protocol, user] {
            let Ok(length) = u16::try_from(text.len()) else { return Self(None) };
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        for text in [query, protocol, user] {
            bytes.extend_from_slice(text.as_bytes());
        }
        let mut keep_line = |name: &[u8], value: &[u8]| {
            let lengths = (u16::try_from(name.len()), u16::try_from(value.len()));
            let (Ok(name_len), Ok(value_len)) = lengths else { return };
            bytes.extend_from_slice(&name_len.to_le_bytes());
            bytes.extend_from_slice(&value_len.to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        };
        if let Some(path) = line.path {
            keep_line(PATH, path.as_bytes());
        }
        if !line.params.is_empty() {
            keep_line(PARAMS, line.params.as_bytes());
        }
        if request {
            for (name, value) in headers.iter().filter(|(name, _)| !NOT_KEPT.contains(name)) {
                keep_line(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        if bytes.len() == PREFIX {
            return Self(None);
        }
        Self(Some(Box::new(Kept(bytes.into_boxed_slice()))))
    }

    pub(crate) fn query(&self) -> &[u8] {
        self.text(0)
    }

    /// The path that was asked for, where the handler cannot know it.
    pub(crate) fn path(&self) -> Option<&[u8]> {
        self.lines().take(2).find(|(name, _)| *name == PATH).map(|(_, path)| path)
    }

    /// Parameters of the route.
    pub(crate) fn params(&self) -> &[u8] {
        self.lines().take(2).find(|(name, _)| *name == PARAMS).map_or(&[], |(_, params)| params)
    }

    /// Whether the request was kept. Every request has headers, so one that was kept is not empty.
    pub(crate) fn has_request(&self) -> bool {
        self.headers().next().is_some()
    }

    /// The agreed subprotocol; empty if none was.
    pub(crate) fn protocol(&self) -> &[u8] {
        self.text(1)
    }

    /// Who the peer is; empty if nobody was asked for.
    pub(crate) fn user(&self) -> &[u8] {
        self.text(2)
    }

    /// Header lines in the order of the request's header map, names in lower case.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().filter(|(name, _)| *name != PATH && *name != PARAMS)
    }

    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let bytes = self.bytes();
        let mut at = self.start_of(3);
        std::iter::from_fn(move || {
            if at >= bytes.len() {
                return None;
            }
            let (name_len, value_len) = (self.length_at(at), self.length_at(at + 2));
            let name = &bytes[at + 4..at + 4 + name_len];
            let value = &bytes[at + 4 + name_len..at + 4 + name_len + value_len];
            at += 4 + name_len + value_len;
            Some((name, value))
        })
    }

    /// One of the texts in front of the headers.
    fn text(&self, index: usize) -> &[u8] {
        self.bytes().get(self.start_of(index)..self.start_of(index + 1)).unwrap_or_default()
    }

    fn start_of(&self, index: usize) -> usize {
        PREFIX + (0..index).map(|before| self.length_at(2 * before)).sum::<usize>()
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |kept| &kept.0)
    }

    fn length_at(&self, at: usize) -> usize {
        self.bytes().get(at..at + 2).map_or(0, |bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn request() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:9998"));
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=2"));
        headers
    }

    #[test]
    fn query_protocol_user_and_headers_are_read_back() {
        let line = Line { query: "room=blue", ..Line::default() };
        let head = Head::keep(line, &request(), Some("echo.wsh"), Some("ann"), true);
        assert_eq!(head.query(), b"room=blue");
        assert_eq!(head.protocol(), b"echo.wsh");
        assert_eq!(head.user(), b"ann");
        let lines: Vec<_> = head.headers().collect();
        assert_eq!(
            lines,
            [(&b"host"[..], &b"localhost:9998"[..]), (b"cookie", b"a=1"), (b"cookie", b"b=2")],
            "in order, without what only served the handshake"
        );
        assert_eq!((head.path(), head.params()), (None, &b""[..]));
    }

    /// A library that forgets headers and query has said nothing about these.
    #[test]
    fn path_and_parameters_of_a_route_are_kept_in_any_case() {
        for request_is_kept in [true, false] {
            let line = Line { path: Some("/rooms/blue"), params: "room=blue", query: "q" };
            let head = Head::keep(line, &request(), None, None, request_is_kept);
            assert_eq!((head.path(), head.params()), (Some(&b"/rooms/blue"[..]), &b"room=blue"[..]));
            assert_eq!(head.has_request(), request_is_kept);
            assert_eq!(head.headers().count(), if request_is_kept { 3 } else { 0 });
        }
    }

    #[test]
    fn a_session_that_forgets_its_request_allocates_nothing() {
        let line = Line { query: "room=blue", ..Line::default() };
        let head = Head::keep(line, &request(), None, None, false);
        assert!(head.0.is_none());
        assert_eq!((head.query(), head.protocol(), head.headers().count()), (&b""[..], &b""[..], 0));
        let head = Head::keep(line, &request(), None, Some("ann"), false);
        assert_eq!(
            (head.user(), head.query(), head.has_request()),
            (&b"ann"[..], &b""[..], false),
            "but its user"
        );
    }
}
