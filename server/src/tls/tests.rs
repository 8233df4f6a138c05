//! The engine with a client of rustls, over a pair of sockets; and what is read from files.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustix::io::Errno;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion, version};

use super::client::ClientCertificate;
use super::*;
use crate::config::Tls;

// ---- the engine --------------------------------------------------------------------------------------------------------

/// Both ends, on one thread.
struct Ends {
    engine: Engine,
    socket: UnixStream,
    peer: ClientConnection,
    peer_socket: UnixStream,
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

impl Ends {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = make_certificate(&["a.example".into()], folder.path()).unwrap();
        let tls = Tls {
            certificate: vec![pair.certificate],
            private_key: vec![pair.private_key],
            ..Tls::default()
        };
        let identity = Identity::new(&tls, &Files::read(&tls).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from("a.example").unwrap();
        let peer = ClientConnection::new(Arc::new(client), name).unwrap();
        let (socket, peer_socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        peer_socket.set_nonblocking(true).unwrap();
        let engine = Engine::new(identity.config().clone()).unwrap();
        Self { engine, socket, peer, peer_socket }
    }

    /// With a complete handshake.
    fn connected(version: &'static SupportedProtocolVersion) -> Self {
        let mut ends = Self::new(version);
        for _ in 0..10 {
            ends.peer_turn();
            match ends.engine.shake_hands(ends.socket.as_fd()) {
                Ok(()) => {
                    ends.peer_turn();
                    assert!(!ends.peer.is_handshaking() && !ends.engine.holds_output());
                    return ends;
                }
                Err(error) => assert_eq!(error.errno(), Errno::AGAIN),
            }
        }
        panic!("the handshake does not end");
    }

    /// The peer sends what it has and takes what is there.
    fn peer_turn(&mut self) {
        while self.peer.wants_write() {
            if self.peer.write_tls(&mut self.peer_socket).is_err() {
                break;
            }
        }
        while self.peer.wants_read() {
            match self.peer.read_tls(&mut self.peer_socket) {
                Ok(0) => break,
                Ok(_) => drop(self.peer.process_new_packets().unwrap()),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    break;
                }
            }
        }
    }

    /// Everything that the peer can read now.
    fn peer_reads(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            self.peer_turn();
            let before = all.len();
            // Blocks and ends with an error where nothing is left, which is as good as an end here.
            let _ = self.peer.reader().read_to_end(&mut all);
            if all.len() == before {
                return all;
            }
        }
    }

    fn peer_writes(&mut self, bytes: &[u8]) {
        self.peer.set_buffer_limit(None);
        self.peer.writer().write_all(bytes).unwrap();
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.engine.read(self.socket.as_fd(), buffer).map_err(Broken::errno)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.engine.write(self.socket.as_fd(), bytes).map_err(Broken::errno)
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index % 251) as u8).collect()
}

/// However small the buffer of the reader is, everything comes, and a read that does not fill it has left nothing behind.
#[test]
fn everything_is_read_into_buffers_of_any_size() {
    for version in VERSIONS {
        for size in [1, 100, 5_000, 16_384, 300_000] {
            let mut ends = Ends::connected(version);
            let sent = bytes(if size < 1000 { 40_000 } else { 1 << 20 });
            ends.peer_writes(&sent);
            let (mut received, mut buffer) = (Vec::new(), vec![0; size]);
            while received.len() < sent.len() {
                ends.peer_turn();
                match ends.read(&mut buffer) {
                    Ok(count) => {
                        received.extend_from_slice(&buffer[..count]);
                        assert!(count == size || !ends.engine.holds_input(), "a short read leaves nothing");
                    }
                    Err(error) => assert_eq!(error, Errno::AGAIN),
                }
            }
            assert!(received == sent, "{size}");
            assert_eq!(ends.read(&mut buffer), Err(Errno::AGAIN));
            assert!(ends.engine.is_without_buffers(), "an idle connection holds no buffers");
        }
    }
}

#[test]
fn records_that_arrive_byte_by_byte_are_read() {
    for version in VERSIONS {
        let mut ends = Ends::connected(version);
        ends.peer_writes(b"hello");
        let mut record = Vec::new();
        ends.peer.write_tls(&mut record).unwrap();
        let mut buffer = [0; 100];
        let (last, first) = record.split_last().unwrap();
        for byte in first {
            ends.peer_socket.write_all(&[*byte]).unwrap();
            assert_eq!(ends.read(&mut buffer), Err(Errno::AGAIN));
            assert!(!ends.engine.holds_input(), "a part of a record is nothing to read");
        }
        ends.peer_socket.write_all(&[*last]).unwrap();
        assert_eq!(ends.read(&mut buffer), Ok(5));
        assert_eq!(&buffer[..5], b"hello");
    }
}

/// What the socket does not take is not counted as written, waits in a bounded place, and goes out once and in order.
#[test]
fn a_full_socket_is_a_short_write() {
    for version in VERSIONS {
        let mut ends = Ends::connected(version);
        let sent = bytes(4 << 20);
        let (mut written, mut received, mut short) = (0, Vec::new(), 0);
        while written < sent.len() {
            match ends.write(&sent[written..]) {
                Ok(count) => {
                    assert!(count > 0);
                    written += count;
                }
                Err(error) => {
                    assert_eq!(error, Errno::AGAIN);
                    short += 1;
                    assert!(ends.engine.holds_output(), "readiness of the socket will be of use");
                    received.extend(ends.peer_reads());
                }
            }
            assert!(ends.engine.buffered() <= 2 * (64 << 10), "{}", ends.engine.buffered());
        }
        assert!(!ends.engine.holds_output(), "all of it was written, so none of it waits");
        received.extend(ends.peer_reads());
        assert!(short > 0 && received == sent, "{short} short writes");
        assert!(ends.engine.is_without_buffers());
    }
}

#[test]
fn a_close_notify_behind_data_is_an_end_of_which_the_socket_does_not_tell() {
    for version in VERSIONS {
        let mut ends = Ends::connected(version);
        ends.peer_writes(b"last words");
        ends.peer.send_close_notify();
        ends.peer_turn();
        let mut buffer = [0; 100];
        assert_eq!(ends.read(&mut buffer), Ok(10));
        assert!(ends.engine.holds_input());
        assert_eq!((ends.read(&mut buffer), ends.read(&mut buffer)), (Ok(0), Ok(0)));
        // The other direction is open still.
        assert_eq!(ends.write(b"goodbye"), Ok(7));
        assert_eq!(ends.peer_reads(), b"goodbye");
    }
}

#[test]
fn an_end_without_close_notify_is_an_end_too() {
    let mut ends = Ends::connected(&version::TLS13);
    ends.peer_socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(ends.read(&mut [0; 10]), Ok(0));
}

/// `close_notify` stands behind everything that was written, and FIN behind that, however full the socket was.
#[test]
fn the_end_is_said_in_order() {
    for version in VERSIONS {
        for is_full in [false, true] {
            let mut ends = Ends::connected(version);
            let mut written = 0;
            let message = bytes(100_000);
            while is_full && let Ok(count) = ends.write(&message) {
                written += count;
            }
            ends.engine.finish(ends.socket.as_fd()).unwrap();
            assert_eq!(ends.engine.holds_output(), is_full);
            let mut received = 0;
            loop {
                received += ends.peer_reads().len();
                // As when the socket takes more: a session reads then.
                let _ = ends.read(&mut [0; 10]);
                if !ends.engine.holds_output() {
                    break;
                }
            }
            received += ends.peer_reads().len();
            assert!(received >= written);
            assert_eq!(ends.peer_socket.read(&mut [0; 10]).unwrap(), 0, "FIN");
            assert_eq!(ends.peer.reader().read(&mut [0; 10]).unwrap(), 0, "close_notify came before it");
        }
    }
}

/// RFC 8446 section 4.6.3: new keys in either direction are asked for in the middle of data.
#[test]
fn new_keys_are_taken_and_answered() {
    let mut ends = Ends::connected(&version::TLS13);
    for round in 0..100 {
        ends.peer_writes(b"before");
        ends.peer.refresh_traffic_keys().unwrap();
        ends.peer_writes(b"after");
        ends.peer_turn();
        let mut buffer = [0; 100];
        assert_eq!(ends.read(&mut buffer), Ok(11), "{round}");
        assert_eq!(ends.write(b"answer"), Ok(6));
        assert_eq!(ends.peer_reads(), b"answer");
    }
}

/// A flood of requests for new keys, whose sender reads nothing, is held by bounds.
#[test]
fn a_flood_of_key_updates_fills_nothing() {
    let mut ends = Ends::connected(&version::TLS13);
    for _ in 0..20_000 {
        ends.peer.refresh_traffic_keys().unwrap();
        while ends.peer.wants_write() {
            if ends.peer.write_tls(&mut ends.peer_socket).is_err() {
                break;
            }
        }
        let _ = ends.read(&mut [0; 100]);
        assert!(ends.engine.buffered() < 200_000);
    }
}

#[test]
fn what_is_not_tls_is_refused_with_an_alert() {
    for version in VERSIONS {
        let mut ends = Ends::connected(version);
        ends.peer_socket.write_all(&[23, 3, 3, 0, 40]).unwrap();
        ends.peer_socket.write_all(&[7; 40]).unwrap();
        assert_eq!(ends.read(&mut [0; 100]), Err(Errno::PROTO));
        ends.peer.read_tls(&mut ends.peer_socket).unwrap();
        let alert = ends.peer.process_new_packets().unwrap_err();
        assert!(matches!(alert, rustls::Error::AlertReceived(_)), "{alert}");
    }
}

/// Ten thousand idle connections are to cost little; what is added here is paid by every one of them.
#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Engine>() <= 1536, "{} bytes", size_of::<Engine>());
}

// ---- files -------------------------------------------------------------------------------------------------------------

fn tls_with(hosts: &[&str]) -> (tempfile::TempDir, Tls) {
    let folder = tempfile::tempdir().unwrap();
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let pair = make_certificate(&hosts, folder.path()).unwrap();
    let (certificate, private_key) = (vec![pair.certificate], vec![pair.private_key]);
    (folder, Tls { certificate, private_key, ..Tls::default() })
}

fn refusal(tls: &Tls) -> String {
    let identity = Files::read(tls).and_then(|files| Identity::new(tls, &files));
    identity.and_then(|identity| identity.check_dates()).expect_err("it is wrong").to_string()
}

/// Every refusal says which file, by which key of the config it was named, and what to do.
#[test]
fn refusals_name_file_and_key() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, tls) = tls_with(&["a.example"]);
    let (_other_folder, other) = tls_with(&["b.example"]);
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let said = refusal(&Tls::default());
    assert!(
        said.contains("`tls.certificate`") && said.contains("-c") && said.contains("wshd cert"),
        "{said}"
    );
    let said = refusal(&Tls { private_key: Vec::new(), ..tls.clone() });
    assert!(said.contains("1 certificates and 0 private keys"), "{said}");
    let said = refusal(&Tls { private_key: other.private_key.clone(), ..tls.clone() });
    assert!(said.contains("key.pem (`tls.private_key`)") && said.contains("does not belong to"), "{said}");
    let said = refusal(&Tls { certificate: vec!["/none/cert.pem".into()], ..tls.clone() });
    assert!(said.contains("/none/cert.pem (`tls.certificate`): No such file"), "{said}");
    let said = refusal(&Tls { certificate: vec![file("nothing.pem", "nothing")], ..tls.clone() });
    assert!(said.contains("nothing.pem") && said.contains("PEM"), "{said}");
    let said = refusal(&Tls { private_key: vec![file("empty.pem", "")], ..tls.clone() });
    assert!(said.contains("empty.pem (`tls.private_key`)") && said.contains("passphrase"), "{said}");
    let said = refusal(&Tls { client_auth: crate::config::ClientAuth::Required, ..tls.clone() });
    assert!(said.contains("`tls.client_ca`") && said.contains("--tls-client-ca"), "{said}");

    std::fs::set_permissions(&tls.private_key[0], std::fs::Permissions::from_mode(0o640)).unwrap();
    let said = refusal(&tls);
    assert!(said.contains("mode 640") && said.contains("chmod 600"), "{said}");
    let shared = Tls { private_key_may_be_shared: true, ..tls };
    Files::read(&shared).expect("it is asked for");
}

#[test]
fn a_certificate_that_is_over_is_refused_with_its_date() {
    let (folder, tls) = tls_with(&["a.example"]);
    let key = KeyPair::from_pem(&std::fs::read_to_string(&tls.private_key[0]).unwrap()).unwrap();
    let mut parameters = CertificateParams::new(["a.example".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2020, 2, 3);
    std::fs::write(folder.path().join("cert.pem"), parameters.self_signed(&key).unwrap().pem()).unwrap();
    let said = refusal(&tls);
    assert!(said.contains("2020-02-03") && said.contains("renew"), "{said}");
}

#[test]
fn a_made_key_is_its_owners_alone_and_is_not_overwritten() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, tls) = tls_with(&["localhost", "127.0.0.1"]);
    let mode = std::fs::metadata(&tls.private_key[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let identity = Identity::new(&tls, &Files::read(&tls).unwrap()).unwrap();
    assert_eq!(identity.certificates()[0].names, ["DNS:localhost", "IP:127.0.0.1"]);
    let again = make_certificate(&["localhost".into()], folder.path()).unwrap_err().to_string();
    assert!(again.contains("key.pem is there already"), "{again}");
}

#[test]
fn a_clients_certificate_is_put_in_words() {
    let mut parameters = CertificateParams::new(["ann.example".to_owned(), "192.0.2.7".to_owned()]).unwrap();
    parameters.subject_alt_names.push(rcgen::SanType::Rfc822Name("ann@a.example".try_into().unwrap()));
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, "A, B & Co");
    parameters.distinguished_name.push(DnType::CommonName, "Ann");
    let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let client = ClientCertificate::read(certificate.der());
    assert_eq!(client.subject, "CN=Ann,O=A\\, B & Co");
    assert_eq!(client.names, "DNS:ann.example\nIP:192.0.2.7\nemail:ann@a.example");
    assert_eq!(ClientCertificate::read(&CertificateDer::from(vec![1, 2])), ClientCertificate::default());
}

/// Trusts whom it meets: who the server is, is not what these tests are about.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
