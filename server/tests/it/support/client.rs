use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Error, Message, WebSocket};

use super::TlsStream;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A WebSocket client that is not ours: tungstenite.
pub(crate) struct Client {
    pub(crate) socket: WebSocket<Patient>,
    pub(crate) response: Response,
}

impl Client {
    /// The error is the refusing answer: its status and body.
    pub(crate) fn open(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, String)> {
        Self::over(Patient::Plain(connect(address)), &format!("ws://{address}{path}"), headers)
    }

    /// The same by a Unix socket.
    pub(crate) fn open_unix(
        socket: &Path,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, String)> {
        Self::over(Patient::Plain(connect_unix(socket)), &format!("ws://localhost{path}"), headers)
    }

    /// The same over TLS that was agreed already.
    pub(crate) fn open_secure(
        stream: TlsStream,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, String)> {
        Self::over(Patient::Tls(Box::new(stream)), &format!("wss://localhost{path}"), headers)
    }

    fn over(stream: Patient, url: &str, headers: &[(&'static str, &str)]) -> Result<Self, (u16, String)> {
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a header value"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => Ok(Self { socket, response }),
            Err(tungstenite::HandshakeError::Failure(Error::Http(refused))) => {
                let body = refused.body().clone().unwrap_or_default();
                Err((refused.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(error) => panic!("the opening handshake broke: {error}"),
        }
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("a text is sent");
    }

    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).expect("a message is sent");
    }

    pub(crate) fn send_fragments(&mut self, fragments: &[&[u8]]) {
        for (index, fragment) in fragments.iter().enumerate() {
            let opcode = if index == 0 { Data::Binary } else { Data::Continue };
            let is_last = index + 1 == fragments.len();
            let frame = Frame::message(fragment.to_vec(), OpCode::Data(opcode), is_last);
            self.socket.send(Message::Frame(frame)).expect("a fragment is sent");
        }
    }

    /// The next message of any kind.
    pub(crate) fn next(&mut self) -> Message {
        self.socket.read().expect("a message comes")
    }

    /// The next message, which has to be text. Pings and pongs are passed over.
    pub(crate) fn text(&mut self) -> String {
        loop {
            match self.next() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected text, got {other:?}"),
            }
        }
    }

    pub(crate) fn binary(&mut self) -> Vec<u8> {
        match self.next() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("expected binary, got {} bytes of another kind", other.len()),
        }
    }

    /// The code of the Close frame that comes next, which stays unanswered.
    pub(crate) fn peek_close(&mut self) -> Option<u16> {
        let mut frame = [0; 4];
        self.socket.get_mut().read_exact(&mut frame).ok()?;
        (frame[0] == 0x88).then(|| u16::from_be_bytes([frame[2], frame[3]]))
    }

    /// Reads on until the peer's Close; its code and reason. Code 1005 for an empty one.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next() {
                Message::Close(Some(CloseFrame { code, reason })) => {
                    return (code.into(), reason.to_string());
                }
                Message::Close(None) => return (1005, String::new()),
                _ => {}
            }
        }
    }

    /// The whole closing handshake, begun here; what the server answered.
    pub(crate) fn close_with(&mut self, code: u16, reason: &str) -> (u16, String) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        self.socket.close(Some(frame)).expect("Close is sent");
        let answer = self.closed();
        self.wait_for_end();
        answer
    }

    pub(crate) fn close(&mut self) {
        self.close_with(1000, "");
    }

    /// The server ends the TCP connection in order: no reset, no further message.
    pub(crate) fn wait_for_end(&mut self) {
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed) => return,
                Err(error) => panic!("the connection did not end in order: {error}"),
            }
        }
    }
}

/// A TCP connection on which every byte is chosen by the test.
pub(crate) struct Raw(Patient);

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self(Patient::Plain(connect(address)))
    }

    pub(crate) fn connect_unix(socket: &Path) -> Self {
        Self(Patient::Plain(connect_unix(socket)))
    }

    /// Inside of TLS that was agreed already.
    pub(crate) fn secure(stream: TlsStream) -> Self {
        Self(Patient::Tls(Box::new(stream)))
    }

    /// Connected and upgraded at this path.
    pub(crate) fn upgraded(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::connect(address);
        raw.upgrade(path);
        raw
    }

    pub(crate) fn upgrade(&mut self, path: &str) {
        self.write(upgrade_head(path).as_bytes());
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("bytes are sent");
    }

    /// Writes what the server takes; false when it has closed or takes nothing for a while.
    pub(crate) fn try_write(&mut self, bytes: &[u8], patience: Duration) -> bool {
        self.0.socket().set_write_timeout(Some(patience)).expect("a timeout");
        self.0.write_all(bytes).is_ok()
    }

    /// Whether the server has dropped the connection.
    pub(crate) fn is_reset(&mut self) -> bool {
        self.0.socket().take_error().ok().flatten().is_some() || self.0.socket().peer_addr().is_err()
    }

    /// The test sends nothing more, and still reads.
    pub(crate) fn finish(&mut self) {
        self.0.socket().shutdown(std::net::Shutdown::Write).expect("the connection is open");
    }

    /// Waits until something can be read, and leaves it there.
    pub(crate) fn wait_readable(&mut self) {
        self.0.socket().peek(&mut [0]).expect("something comes");
    }

    /// An HTTP head, up to and with its empty line.
    pub(crate) fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read_exactly(1));
        }
        String::from_utf8(head).expect("a head is ASCII")
    }

    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("so many bytes come");
        bytes
    }

    /// Everything up to the end of the connection, which has to come in order.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("the server ends the connection in order");
        bytes
    }

    /// Everything up to the end, however it comes.
    pub(crate) fn read_until_gone(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {}
            Err(error) => panic!("the connection does not end: {error}"),
        }
        bytes
    }

    /// The payload of the Close frame that the server sends next.
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            let head = self.read_exactly(2);
            let length = match head[1] {
                126 => {
                    let bytes = self.read_exactly(2);
                    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
                }
                127 => {
                    let bytes = self.read_exactly(8);
                    u64::from_be_bytes(bytes.try_into().expect("eight bytes")) as usize
                }
                short => usize::from(short),
            };
            let payload = self.read_exactly(length);
            if head[0] == 0x88 {
                return payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
            }
        }
    }
}

pub(crate) fn upgrade_head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// One frame as a client sends it. `first` is the first byte: FIN, RSV and opcode.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]));
    frame
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A Unix socket is read from, written to and shut down as one of TCP is; only its type is another.
fn connect_unix(socket: &Path) -> TcpStream {
    let stream = UnixStream::connect(socket).expect("the server accepts");
    let stream = TcpStream::from(OwnedFd::from(stream));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A stream whose waits outlast signals: with a timeout set, the kernel does not restart them by itself.
#[derive(Debug)]
pub(crate) enum Patient {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Patient {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock.socket,
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = match self {
                Self::Plain(socket) => socket.read(buffer),
                Self::Tls(stream) => stream.read(buffer),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        loop {
            let written = match self {
                Self::Plain(socket) => socket.write(bytes),
                Self::Tls(stream) => stream.write(bytes),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
