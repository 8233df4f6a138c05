//! One side of a TLS connection over a non-blocking socket: ciphertext goes in and out, its user reads and writes plaintext.
//!
//! The protocol is rustls's, in the form that keeps no buffers: records are decrypted in a buffer that all connections of a thread
//! share, so an idle connection holds its keys and nothing else. The rules towards the user are those of a plain socket:
//!
//! - What is read comes from the socket at once. A read that does not fill the buffer has emptied the socket.
//! - What is written counts as written when its ciphertext is with the kernel. What is not must be written again, beginning with
//!   the same byte, as with any short write.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use tracing::debug;

use super::client::ClientCertificate;
/// A record with everything around its 16 KiB (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
const RECORD_BYTES_MAX: usize = (16 << 10) + 2048 + 5;

/// Ciphertext that is read before it is decrypted: the longest message of a handshake, in pieces, and one more record.
const INCOMING_BYTES_MAX: usize = (64 << 10) + RECORD_BYTES_MAX;

/// Plaintext that is encrypted before the socket is asked to take it: four full records.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Answers of the protocol that wait for the socket. With more of them nothing is read, so a peer cannot pile them up.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// See the module. Used by one thread at a time, first of the front and then of workers.
pub(crate) struct Engine {
    connection: UnbufferedServerConnection,
    /// Ciphertext that was read and not used up: a part of a record, or what the last reader had no room for.
    incoming: Vec<u8>,
    /// Plaintext that the last reader had no room for: at most what `incoming` may hold.
    decrypted: Vec<u8>,
    /// Ciphertext that the socket did not take.
    outgoing: Vec<u8>,
    /// Plaintext in `outgoing` of which its writer does not know yet that it was written.
    owed: usize,
    /// Whole records may be in `incoming`.
    has_records: bool,
    /// The peer has said that it sends nothing more, or has gone.
    has_ended: bool,
    /// When `outgoing` has gone out, so has everything.
    finishes: bool,
    /// rustls has given the connection up and is not to be asked again.
    is_broken: bool,
    client: Option<Box<ClientCertificate>>,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(crate) enum Broken {
    Socket(Errno),
    Protocol(rustls::Error),
}

/// Ciphertext of the connection whose turn it is.
#[derive(Default)]
struct Scratch {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What is to be encrypted.
enum Written<'a> {
    Bytes(&'a [u8]),
    CloseNotify,
}

impl Engine {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            decrypted: Vec::new(),
            outgoing: Vec::new(),
            owed: 0,
            has_records: false,
            has_ended: false,
            finishes: false,
            is_broken: false,
            client: None,
        })
    }

    /// Goes on with the handshake as far as the socket allows. `Errno::AGAIN` until it is complete.
    pub(crate) fn shake_hands(&mut self, socket: BorrowedFd<'_>) -> Result<(), Broken> {
        self.fill(socket, &mut [])?;
        if self.connection.is_handshaking() {
            return Err(Broken::Socket(if self.has_ended { Errno::CONNRESET } else { Errno::AGAIN }));
        }
        let certificate = self.connection.peer_certificates().and_then(<[_]>::first);
        self.client = certificate.map(|certificate| Box::new(ClientCertificate::read(certificate)));
        Ok(())
    }

    /// What the peer's certificate says of it, if it has shown one.
    pub(crate) fn client(&self) -> Option<&ClientCertificate> {
        self.client.as_deref()
    }

    /// Whether there is something to read without the socket saying so.
    pub(crate) fn holds_input(&self) -> bool {
        self.has_ended || self.has_records || !self.decrypted.is_empty()
    }

    /// Whether ciphertext waits for the socket.
    pub(crate) fn holds_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what is there, at most a buffer full; 0 means that the peer will send nothing more.
    pub(crate) fn read(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Broken> {
        if self.holds_output() {
            match self.flush(socket) {
                Err(Errno::AGAIN) if self.outgoing.len() > ANSWER_BYTES_MAX => {
                    return Err(Broken::Socket(Errno::AGAIN));
                }
                Ok(()) | Err(Errno::AGAIN) => {}
                Err(error) => return Err(Broken::Socket(error)),
            }
        }
        let kept = self.decrypted.len().min(buffer.len());
        buffer[..kept].copy_from_slice(&self.decrypted[..kept]);
        if kept == self.decrypted.len() {
            self.decrypted = Vec::new();
        } else {
            self.decrypted.drain(..kept);
            return Ok(kept);
        }
        match kept + self.fill(socket, &mut buffer[kept..])? {
            0 if !self.has_ended => Err(Broken::Socket(Errno::AGAIN)),
            count => Ok(count),
        }
    }

    /// Writes as much as the kernel takes.
    pub(crate) fn write(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Broken> {
        let mut written = 0;
        if self.holds_output() {
            let flushed = self.flush(socket);
            // The caller begins with the bytes that stand in `outgoing` already.
            written = self.settle().min(bytes.len());
            match flushed {
                Ok(()) => {}
                Err(Errno::AGAIN) if written > 0 => return Ok(written),
                Err(error) => return Err(Broken::Socket(error)),
            }
        }
        for piece in bytes[written..].chunks(WRITE_BYTES_MAX) {
            match self.send(socket, &Written::Bytes(piece)) {
                Ok(()) => {}
                Err(error) if written == 0 => return Err(error),
                Err(_) => return Ok(written),
            }
            let taken = self.settle();
            written += taken;
            if taken < piece.len() {
                break;
            }
        }
        if written == 0 && !bytes.is_empty() { Err(Broken::Socket(Errno::AGAIN)) } else { Ok(written) }
    }

    /// Plaintext that is encrypted, and that its writer will be asked for again.
    pub(crate) fn owed(&self) -> usize {
        self.owed
    }

    /// Tells the peer that nothing more comes: `close_notify`, then FIN. What the socket does not take of it now goes out with the
    /// next read or flush.
    pub(crate) fn finish(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.finishes {
            return Ok(());
        }
        let said = self.send(socket, &Written::CloseNotify);
        self.finishes = true;
        if said.is_err() || !self.holds_output() {
            return rustix::net::shutdown(socket, Shutdown::Write);
        }
        Ok(())
    }

    /// Bytes that are held between two calls.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.incoming.capacity() + self.decrypted.capacity() + self.outgoing.capacity()
    }

    #[cfg(test)]
    pub(super) fn is_without_buffers(&self) -> bool {
        self.buffered() == 0
    }

    /// Writes what waits for the socket. `Errno::AGAIN` if something still does.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        if !self.outgoing.is_empty() {
            let sent = send(socket, &self.outgoing)?;
            if sent < self.outgoing.len() {
                self.outgoing.drain(..sent);
                return Err(Errno::AGAIN);
            }
            self.outgoing = Vec::new();
            if self.finishes {
                return rustix::net::shutdown(socket, Shutdown::Write);
            }
        }
        Ok(())
    }

    /// Plaintext of which it is certain only now that it was written. Ciphertext is never shorter than what it stands for, so no
    /// more of that waits than there is ciphertext; and some does as long as there is any.
    fn settle(&mut self) -> usize {
        let waits = self.owed.min(self.outgoing.len());
        let written = self.owed - waits;
        self.owed = waits;
        written
    }

    // ---- reading -------------------------------------------------------------------------------------------------------

    /// Reads and decrypts until the socket is empty, the buffer full, or, without a buffer, the handshake complete.
    fn fill(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Broken> {
        if self.is_broken {
            return Err(Broken::Socket(Errno::PROTO));
        }
        let filled = SCRATCH.with_borrow_mut(|Scratch { incoming, .. }| {
            if incoming.is_empty() {
                incoming.resize(INCOMING_BYTES_MAX, 0);
            }
            let mut have = self.incoming.len();
            incoming[..have].copy_from_slice(&self.incoming);
            self.incoming = Vec::new();
            let filled = self.fill_through(socket, buffer, incoming, &mut have);
            self.incoming = incoming[..have].to_vec();
            filled
        });
        if let Err(Broken::Protocol(error)) = &filled {
            debug!("TLS connection failed: {error}");
            self.tell_why(socket);
            self.is_broken = true;
        }
        filled
    }

    fn fill_through(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        incoming: &mut [u8],
        have: &mut usize,
    ) -> Result<usize, Broken> {
        let mut filled = 0;
        if self.has_records {
            filled = self.decrypt(buffer, incoming, have)?;
        }
        while !self.has_ended && (filled < buffer.len() || self.connection.is_handshaking()) {
            // More than there is room for would have to be kept; less than a record could not be decrypted.
            let most = INCOMING_BYTES_MAX - *have;
            let wanted = (buffer.len() - filled).max(RECORD_BYTES_MAX).min(most);
            if wanted == 0 {
                // rustls has a bound of its own for handshakes; this is one cut into tiny pieces.
                return Err(Broken::Protocol(rustls::Error::General("handshake in too many pieces".into())));
            }
            let received = match receive(socket, &mut incoming[*have..*have + wanted]) {
                Ok(received) => received,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(Broken::Socket(error)),
            };
            if received == 0 {
                self.has_ended = true;
                break;
            }
            *have += received;
            filled += self.decrypt(&mut buffer[filled..], incoming, have)?;
            if self.holds_output() {
                match self.flush(socket) {
                    Ok(()) | Err(Errno::AGAIN) => {}
                    Err(error) => return Err(Broken::Socket(error)),
                }
            }
            if received < wanted {
                break;
            }
        }
        Ok(filled)
    }

    /// Decrypts whole records into the buffer until there are none or it is full, and moves the rest to the front.
    fn decrypt(&mut self, buffer: &mut [u8], incoming: &mut [u8], have: &mut usize) -> Result<usize, Broken> {
        let (mut filled, mut used) = (0, 0);
        let result = loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(&mut incoming[used..*have]);
            let (mut is_idle, mut is_full) = (false, false);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let Ok(record) = record else { break };
                        discard += record.discard;
                        let fits = record.payload.len().min(buffer.len() - filled);
                        let (now, later) = record.payload.split_at(fits);
                        buffer[filled..filled + fits].copy_from_slice(now);
                        filled += fits;
                        self.decrypted.extend_from_slice(later);
                    }
                    is_full = filled == buffer.len();
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let at = self.outgoing.len();
                    append(&mut self.outgoing, at, |room| data.encode(room).map_err(size_of_encoded))
                        .map_err(Broken::Protocol)?;
                }
                // It is in `outgoing`, in its order.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.has_ended = true;
                    is_idle = true;
                }
                Ok(_) => is_idle = true,
                Err(error) => break Err(Broken::Protocol(error)),
            }
            used += discard;
            self.has_records = !is_idle;
            if is_idle || is_full {
                break Ok(filled);
            }
        };
        incoming.copy_within(used..*have, 0);
        *have -= used;
        result
    }

    /// The alert that tells the peer what it did wrong, as far as the socket takes it.
    fn tell_why(&mut self, socket: BorrowedFd<'_>) {
        // Only as long as something waits: asked further, rustls would look at what was wrong once more.
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { break };
            let at = self.outgoing.len();
            if append(&mut self.outgoing, at, |room| data.encode(room).map_err(size_of_encoded)).is_err() {
                break;
            }
        }
        // The connection is over either way.
        let _ = self.flush(socket);
    }

    // ---- writing -------------------------------------------------------------------------------------------------------

    /// Encrypts, and sends what the socket takes; the rest waits in `outgoing`.
    fn send(&mut self, socket: BorrowedFd<'_>, what: &Written<'_>) -> Result<(), Broken> {
        SCRATCH.with_borrow_mut(|Scratch { outgoing: scratch, .. }| {
            let length = self.encrypt(what, scratch)?;
            let records = &scratch[..length];
            let sent = if self.holds_output() { Err(Errno::AGAIN) } else { send(socket, records) };
            let sent = match sent {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => 0,
                Err(error) => return Err(Broken::Socket(error)),
            };
            self.outgoing.extend_from_slice(&records[sent..]);
            if let Written::Bytes(bytes) = what {
                self.owed += bytes.len();
            }
            Ok(())
        })
    }

    /// Encrypts into `into`, behind what the protocol itself has to say. The length of all of it.
    fn encrypt(&mut self, what: &Written<'_>, into: &mut Vec<u8>) -> Result<usize, Broken> {
        if self.is_broken {
            return Err(Broken::Socket(Errno::PIPE));
        }
        let mut length = 0;
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(&mut self.incoming);
            let mut is_done = false;
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    length += append(into, length, |room| encrypt(&mut traffic, what, room))
                        .map_err(Broken::Protocol)?;
                    is_done = true;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    length += append(into, length, |room| data.encode(room).map_err(size_of_encoded))
                        .map_err(Broken::Protocol)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                // On the way to writing the protocol looks at what was read and left. It is kept for the next reader.
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        self.decrypted.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                Ok(_) => return Err(Broken::Socket(Errno::PIPE)),
                Err(error) => {
                    self.is_broken = true;
                    return Err(Broken::Protocol(error));
                }
            }
            if discard > 0 {
                self.incoming.drain(..discard);
            }
            if is_done {
                self.has_records = false;
                return Ok(length);
            }
        }
    }
}

/// Lets `write` write into `buffer` from `at` on, which grows to the size that it asks for. The number of bytes written; a buffer that
/// grew by appending ends behind them.
fn append(
    buffer: &mut Vec<u8>,
    at: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Result<usize, rustls::Error>>,
) -> Result<usize, rustls::Error> {
    loop {
        match write(&mut buffer[at..]) {
            Ok(written) => return Ok(written),
            Err(Ok(required)) => buffer.resize(at + required, 0),
            Err(Err(error)) => return Err(error),
        }
    }
}

fn encrypt<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    what: &Written<'_>,
    room: &mut [u8],
) -> Result<usize, Result<usize, rustls::Error>> {
    let written = match what {
        Written::Bytes(bytes) => traffic.encrypt(bytes, room),
        Written::CloseNotify => traffic.queue_close_notify(room),
    };
    written.map_err(|error| match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
        EncryptError::EncryptExhausted => Err(rustls::Error::EncryptError),
    })
}

fn size_of_encoded(error: EncodeError) -> Result<usize, rustls::Error> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
        EncodeError::AlreadyEncoded => Err(rustls::Error::EncryptError),
    }
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    retry_on_intr(|| {
        rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()).map(|(_, received)| received)
    })
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL))
}

impl Broken {
    /// As an error of the socket: a session has no other words.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Socket(error) => error,
            Self::Protocol(_) => Errno::PROTO,
        }
    }
}

impl From<Broken> for std::io::Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Socket(error) => error.into(),
            Broken::Protocol(error) => Self::other(error),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("client", &self.client).finish_non_exhaustive()
    }
}
