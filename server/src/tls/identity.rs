//! Who this server is towards its peers: certificates and private keys, read from files as a whole or not at all.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, version};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::client::alternative_names;
use crate::config::{ClientAuth, Tls, TlsVersion};
use crate::control::CertificateStatus;
use crate::secret::{self, Unreadable};

/// Larger files are no certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the config names, as it is in the files at one moment.
pub(crate) struct Files {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
    hash: [u8; 32],
}

/// What a handshake needs.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    config: Arc<ServerConfig>,
    certificates: Vec<CertificateStatus>,
    expires: Vec<SystemTime>,
}

/// Why there is no TLS with what the config says: the file, its key in the config, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    key: &'static str,
    path: Option<PathBuf>,
    wrong: String,
}

const CERTIFICATE: &str = "tls.certificate";
const PRIVATE_KEY: &str = "tls.private_key";
const CLIENT_CA: &str = "tls.client_ca";

impl Files {
    /// # Errors
    /// A file that is not named, cannot be read, or holds a secret that others can read.
    pub(crate) fn read(tls: &Tls) -> Result<Self, TlsError> {
        let (certificates, keys) = (&tls.certificate, &tls.private_key);
        if certificates.is_empty() {
            let wrong = "a port speaks TLS, but no certificate is named; name one here or with -c, and its private key \
                         with -k. `wshd cert localhost` makes a pair for development";
            return Err(TlsError::new(CERTIFICATE, None, wrong));
        }
        if certificates.len() != keys.len() {
            let wrong = format!(
                "there are {} certificates and {} private keys; each certificate needs its key, in the same order",
                certificates.len(),
                keys.len()
            );
            return Err(TlsError::new(PRIVATE_KEY, None, wrong));
        }
        let mut pairs = Vec::new();
        for (certificate, key) in certificates.iter().zip(keys) {
            let certificate = read_file(CERTIFICATE, certificate, false)?;
            pairs.push((certificate, read_file(PRIVATE_KEY, key, !tls.private_key_may_be_shared)?));
        }
        let client_ca = match (&tls.client_ca, tls.client_auth) {
            (_, ClientAuth::Off) => None,
            (Some(path), _) => Some(read_file(CLIENT_CA, path, false)?),
            (None, _) => {
                let wrong = "clients are asked for a certificate, but nothing says who may sign it; name a file of \
                             certificates here or with --tls-client-ca";
                return Err(TlsError::new(CLIENT_CA, None, wrong));
            }
        };
        let mut hash = Sha256::new();
        for bytes in pairs.iter().flat_map(|(certificate, key)| [certificate, key]).chain(&client_ca) {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        Ok(Self { pairs, client_ca, hash: hash.finalize().into() })
    }

    /// Tells contents apart without keeping secrets.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

impl Identity {
    /// # Errors
    /// Files that are not what their keys say, or do not belong together.
    pub(crate) fn new(tls: &Tls, files: &Files) -> Result<Self, TlsError> {
        let mut chosen = ByName { names: HashMap::new(), otherwise: Vec::new() };
        let (mut certificates, mut expires) = (Vec::new(), Vec::new());
        for ((certificate, key), (path, key_path)) in
            files.pairs.iter().zip(tls.certificate.iter().zip(&tls.private_key))
        {
            let wrong = |wrong: String| TlsError::new(CERTIFICATE, Some(path), wrong);
            let pair = Arc::new(pair(path, certificate, key_path, key)?);
            let parsed = Certificate::from_der(&pair.cert[0])
                .map_err(|error| wrong(format!("the certificate cannot be understood: {error}")))?;
            let names: Vec<String> = alternative_names(&parsed);
            for name in names.iter().filter_map(|name| name.strip_prefix("DNS:")) {
                // The first certificate for a name wins.
                chosen.names.entry(name.to_ascii_lowercase()).or_insert_with(|| pair.clone());
            }
            chosen.otherwise.push(pair);
            let not_after = parsed.tbs_certificate.validity.not_after;
            expires.push(SystemTime::UNIX_EPOCH + not_after.to_unix_duration());
            certificates.push(CertificateStatus {
                file: path.clone(),
                names,
                valid_until: not_after.to_string(),
            });
        }
        let versions: &[_] = match tls.version_min {
            TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
            TlsVersion::V1_3 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(|error| TlsError::new("tls.version_min", None, error.to_string()))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(verifier(tls, ca)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(chosen));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Sessions are resumed by tickets, which cost the server no memory. Their keys are made anew with each identity: whoever was
        // let in by another one shakes hands in full.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new()
            .map_err(|error| TlsError::new(CERTIFICATE, None, format!("no random numbers: {error}")))?;
        Ok(Self { config: Arc::new(config), certificates, expires })
    }

    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    pub(crate) fn certificates(&self) -> &[CertificateStatus] {
        &self.certificates
    }

    /// The certificates that are not valid any more.
    ///
    /// # Errors
    /// There is one.
    pub(crate) fn check_dates(&self) -> Result<(), TlsError> {
        let now = SystemTime::now();
        for (certificate, expires) in self.certificates.iter().zip(&self.expires) {
            if *expires + Duration::from_secs(1) <= now {
                let wrong = format!("the certificate was valid until {}; renew it", certificate.valid_until);
                return Err(TlsError::new(CERTIFICATE, Some(&certificate.file), wrong));
            }
        }
        Ok(())
    }
}

/// Which certificate a peer is shown: the one for the name that it asks for (RFC 6066 section 3), else the first.
struct ByName {
    /// In lower case; `*.example.org` stands for one label.
    names: HashMap<String, Arc<CertifiedKey>>,
    otherwise: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || self.names.get(&format!("*.{}", name.split_once('.')?.1));
            self.names.get(&name).or_else(wildcard)
        });
        named.or_else(|| self.otherwise.first()).cloned()
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").field("names", &self.names.keys()).finish_non_exhaustive()
    }
}

fn pair(path: &Path, certificate: &[u8], key_path: &Path, key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(CERTIFICATE, path, certificate)?;
    let wrong = |wrong: String| TlsError::new(PRIVATE_KEY, Some(key_path), wrong);
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        wrong(
            "there is no private key in it, or it is encrypted; it has to be PEM without a passphrase".into(),
        )
    })?;
    let key = ring::sign::any_supported_type(&key)
        .map_err(|error| wrong(format!("the private key cannot be used: {error}")))?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|_| {
        wrong(format!("this private key does not belong to the certificate in {}", path.display()))
    })?;
    Ok(pair)
}

fn verifier(tls: &Tls, ca: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = tls.client_ca.as_deref().unwrap_or_else(|| Path::new(""));
    let wrong = |wrong: String| TlsError::new(CLIENT_CA, Some(path), wrong);
    let mut roots = RootCertStore::empty();
    for root in certificates(CLIENT_CA, path, ca)? {
        roots.add(root).map_err(|error| wrong(format!("a certificate in it cannot be used: {error}")))?;
    }
    // A bundle may bring the list of what was taken back.
    let revoked: Vec<_> = CertificateRevocationListDer::pem_slice_iter(ca).filter_map(Result::ok).collect();
    let provider = Arc::new(ring::default_provider());
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(revoked);
    if tls.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| wrong(error.to_string()))
}

fn certificates(
    key: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(TlsError::new(key, Some(path), "there is no certificate in it; it has to be PEM")),
        Err(error) => Err(TlsError::new(key, Some(path), format!("it is not sound PEM: {error}"))),
    }
}

fn read_file(key: &'static str, path: &Path, is_secret: bool) -> Result<Vec<u8>, TlsError> {
    secret::read(path, FILE_BYTES_MAX, is_secret).map_err(|error| {
        let or = if matches!(error, Unreadable::Shared(_)) {
            ", or set tls.private_key_may_be_shared"
        } else {
            ""
        };
        TlsError::new(key, Some(path), format!("{error}{or}"))
    })
}

impl TlsError {
    fn new(key: &'static str, path: Option<&Path>, wrong: impl Into<String>) -> Self {
        Self { key, path: path.map(Path::to_owned), wrong: wrong.into() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, path, wrong } = self;
        match path {
            Some(path) => write!(f, "cannot use {} (`{key}`): {wrong}", path.display()),
            None => write!(f, "`{key}`: {wrong}"),
        }
    }
}

impl std::error::Error for TlsError {}
