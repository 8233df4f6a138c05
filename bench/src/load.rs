//! The load generator: connections that each keep a number of echoes in flight, and check every byte that comes back.

use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::target::Target;

/// What each connection sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Payload of a message.
    pub(crate) bytes: usize,
    /// Messages sent in one write before any is awaited.
    pub(crate) depth: usize,
}

/// Connections that completed their opening handshake.
#[derive(Debug)]
pub(crate) struct Peers {
    streams: Vec<Stream>,
}

/// One of them, from the generator's side.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Peers {
    /// Connects to a server under measurement, by TLS if it speaks it.
    pub(crate) fn connect_to(target: &Target, path: &str, count: usize) -> Result<Self> {
        let config = target.certificate().map(|path| trusting([read_certificate(&path)?])).transpose()?;
        Self::connect_with(target.address(), path, count, config.as_ref())
    }

    pub(crate) fn connect(address: SocketAddr, path: &str, count: usize) -> Result<Self> {
        Self::connect_with(address, path, count, None)
    }

    /// By TLS, taking this certificate alone.
    pub(crate) fn connect_trusting(
        address: SocketAddr,
        path: &str,
        count: usize,
        certificate: &Path,
    ) -> Result<Self> {
        Self::connect_with(address, path, count, Some(&trusting([read_certificate(certificate)?])?))
    }

    fn connect_with(
        address: SocketAddr,
        path: &str,
        count: usize,
        config: Option<&Arc<ClientConfig>>,
    ) -> Result<Self> {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut stream = Stream::over(stream, config)?;
            open(&mut stream, address, path, "")?;
            streams.push(stream);
        }
        Ok(Self { streams })
    }

    /// Those without TLS.
    pub(crate) fn into_streams(self) -> Vec<TcpStream> {
        let plain = |stream| if let Stream::Plain(socket) = stream { Some(socket) } else { None };
        self.streams.into_iter().filter_map(plain).collect()
    }

    /// Sends one binary message of so many bytes on every connection, one after another, and reads its echo.
    pub(crate) fn echo_once(&mut self, bytes: usize) -> Result<()> {
        let load = Load { connections: 1, bytes, depth: 1 };
        let (question, answer) = (masked_frames(load), plain_frames(load));
        let mut received = vec![0; answer.len()];
        for stream in &mut self.streams {
            stream.write_all(&question)?;
            stream.read_exact(&mut received)?;
            check(&received, &answer)?;
        }
        Ok(())
    }
}

pub(crate) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(&std::fs::read(path)?).map_err(Error::other)
}

/// A client that takes these certificates, and shakes hands in full each time.
pub(crate) fn trusting(
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(Error::other)?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

impl Stream {
    fn over(socket: TcpStream, config: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let Some(config) = config else { return Ok(Self::Plain(socket)) };
        let name = ServerName::try_from("localhost").map_err(Error::other)?;
        let mut connection = ClientConnection::new(config.clone(), name).map_err(Error::other)?;
        connection.set_buffer_limit(None);
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    /// Reads once from the socket, which has said that there is something. `None` if it was no whole record.
    fn read_once(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Self::Tls(stream) = self else { return self.read(buffer).map(Some) };
        if stream.conn.read_tls(&mut stream.sock)? == 0 {
            return Ok(Some(0));
        }
        stream.conn.process_new_packets().map_err(Error::other)?;
        Ok(self.read_decrypted(buffer))
    }

    /// What was read with something else, if there is any left.
    fn read_decrypted(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let Self::Tls(stream) = self else { return None };
        stream.conn.reader().read(buffer).ok().filter(|count| *count > 0)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}

/// Opens a WebSocket, with these headers more, and returns the head of the answer.
pub(crate) fn open(
    stream: &mut (impl Read + Write),
    address: SocketAddr,
    path: &str,
    more: &str,
) -> Result<String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let answer = read_head(stream)?;
    if answer.starts_with("HTTP/1.1 101") {
        Ok(answer)
    } else {
        Err(Error::other(format!("refused: {}", answer.lines().next().unwrap_or_default())))
    }
}

fn read_head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Runs the load for `warm_up`, calls `begin`, runs it for `time`, and returns how many messages came back in that time.
pub(crate) fn run(
    peers: Peers,
    load: Load,
    warm_up: Duration,
    time: Duration,
    mut begin: impl FnMut() -> Result<()>,
) -> Result<u64> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let (question, answer) = (masked_frames(load), plain_frames(load));
    let mut streams = peers.streams;
    let mut expected = vec![0; streams.len()];
    for (index, stream) in streams.iter_mut().enumerate() {
        epoll::add(&epoll, &*stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        stream.write_all(&question)?;
    }
    let mut buffer = vec![0; 1 << 20];
    let mut events: Vec<Event> = Vec::with_capacity(256);
    let mut messages = 0;
    let began = Instant::now();
    let mut measured_from = None;
    loop {
        let elapsed = began.elapsed();
        if measured_from.is_none() && elapsed >= warm_up {
            begin()?;
            messages = 0;
            measured_from = Some(Instant::now());
        }
        if measured_from.is_some_and(|from: Instant| from.elapsed() >= time) {
            return Ok(messages);
        }
        events.clear();
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience))?;
        if events.is_empty() {
            return Err(Error::other("no echo came back for 10 s"));
        }
        for event in &events {
            let index = event.data.u64() as usize;
            let stream = &mut streams[index];
            let wanted = (answer.len() - expected[index]).min(buffer.len());
            let mut read = stream.read_once(&mut buffer[..wanted])?;
            while let Some(received) = read {
                if received == 0 {
                    return Err(Error::other("the server closed a connection"));
                }
                check(&buffer[..received], &answer[expected[index]..expected[index] + received])?;
                expected[index] += received;
                if expected[index] == answer.len() {
                    expected[index] = 0;
                    messages += load.depth as u64;
                    stream.write_all(&question)?;
                }
                let wanted = (answer.len() - expected[index]).min(buffer.len());
                read = stream.read_decrypted(&mut buffer[..wanted]);
            }
        }
    }
}

/// A text as a client sends it.
pub(crate) fn masked_text(text: &str) -> Vec<u8> {
    masked(0x81, text.as_bytes())
}

/// A frame as a client sends it; `first` is FIN, reserved bits and opcode.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    header(&mut frame, payload.len(), 0x80);
    frame[0] = first;
    // A mask of zeros is a mask.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn check(received: &[u8], expected: &[u8]) -> Result<()> {
    if received == expected { Ok(()) } else { Err(Error::other("an echo differs from what was sent")) }
}

/// `depth` binary messages as a client sends them.
fn masked_frames(load: Load) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frames = Vec::new();
    for _ in 0..load.depth {
        header(&mut frames, load.bytes, 0x80);
        frames.extend_from_slice(&MASK);
        frames.extend((0..load.bytes).map(|index| payload(index) ^ MASK[index % 4]));
    }
    frames
}

/// The same messages as a server sends them.
fn plain_frames(load: Load) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..load.depth {
        header(&mut frames, load.bytes, 0);
        frames.extend((0..load.bytes).map(payload));
    }
    frames
}

fn payload(index: usize) -> u8 {
    (index % 251) as u8
}

fn header(frames: &mut Vec<u8>, bytes: usize, mask_bit: u8) {
    frames.push(0x82);
    match bytes {
        0..=125 => frames.push(mask_bit | bytes as u8),
        126..=0xffff => {
            frames.push(mask_bit | 126);
            frames.extend_from_slice(&(bytes as u16).to_be_bytes());
        }
        _ => {
            frames.push(mask_bit | 127);
            frames.extend_from_slice(&(bytes as u64).to_be_bytes());
        }
    }
}
