use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};

/// Signs the certificates of one test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: KeyPair,
}

/// The files of a pair.
#[derive(Clone)]
pub(crate) struct PairFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) private_key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::new([]).expect("no names are sound");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("a certificate");
        Self { issuer, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A pair for these names, signed here; `subject` is its common name.
    pub(crate) fn pair(&self, subject: &str, names: &[&str]) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("sound names");
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, subject);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate: certificate.der().clone(), certificate_pem: certificate.pem(), key }
    }

    /// Writes a pair to files of this name.
    pub(crate) fn files(&self, name: &str, pair: &Pair) -> PairFiles {
        let path = |extension: &str| self.folder().join(name).with_extension(extension);
        let files = PairFiles { certificate: path("crt"), private_key: path("key") };
        pair.write(&files);
        files
    }

    /// A file with the certificate that signs.
    pub(crate) fn file(&self) -> PathBuf {
        let path = self.folder().join("authority.pem");
        std::fs::write(&path, self.issuer.pem()).expect("it is written");
        path
    }

    /// A client that trusts this authority and speaks all versions.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client_with(&[&version::TLS13, &version::TLS12], None)
    }

    pub(crate) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a sound certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("ring has both")
            .with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![own.certificate.clone()], key).expect("a pair")
            }
        }
    }
}

impl Pair {
    pub(crate) fn write(&self, files: &PairFiles) {
        self.write_certificate(&files.certificate);
        self.write_key(&files.private_key);
    }

    pub(crate) fn write_certificate(&self, path: &Path) {
        std::fs::write(path, &self.certificate_pem).expect("it is written");
    }

    pub(crate) fn write_key(&self, path: &Path) {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .expect("it can be written");
        file.write_all(self.key.serialize_pem().as_bytes()).expect("it is written");
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
}

/// A TLS connection to the server, before the first byte inside of it.
pub(crate) type TlsStream = StreamOwned<ClientConnection, Wire>;

/// A socket, or one that sends each byte by itself.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    pub(crate) byte_by_byte: bool,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let most = if self.byte_by_byte { 1 } else { bytes.len() };
        self.socket.write(&bytes[..most.min(bytes.len())])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}

/// Shakes hands with the server under this name. The error is the client's: an alert of the server, a certificate that is not
/// trusted, an end of the connection.
pub(crate) fn shake_hands(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> Result<TlsStream, std::io::Error> {
    shake_hands_over(super::client::connect(address), false, name, Arc::new(config))
}

pub(crate) fn shake_hands_over(
    socket: TcpStream,
    byte_by_byte: bool,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(config, name).expect("a sound config");
    let mut stream = StreamOwned::new(connection, Wire { socket, byte_by_byte });
    while stream.conn.is_handshaking() {
        match stream.conn.complete_io(&mut stream.sock) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => drop(done?),
        }
    }
    Ok(stream)
}
