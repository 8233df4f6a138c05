//! `wshd cert HOST...`: a certificate that signs itself, for development.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

/// Two files. Its `Display` is what its user needs next.
#[derive(Debug)]
pub struct NewPair {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    hosts: Vec<String>,
}

/// Why there are no files.
#[derive(Debug)]
pub enum CertError {
    /// A host is no name and no address.
    Host(rcgen::Error),
    File(PathBuf, io::Error),
}

/// Makes `cert.pem` and `key.pem` in a folder, for these names and addresses. Files that are there already stay as they are.
///
/// # Errors
/// A host that a certificate cannot name, a file that is there already or cannot be written.
pub fn make(hosts: &[String], folder: &Path) -> Result<NewPair, CertError> {
    let mut parameters = CertificateParams::new(hosts.to_vec()).map_err(CertError::Host)?;
    parameters.distinguished_name.push(DnType::CommonName, "wshd for development");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Browsers take no longer one, also where their user has said that it is good.
    let now = SystemTime::now();
    parameters.not_before = (now - DAY).into();
    parameters.not_after = (now + DAYS_VALID * DAY).into();
    let key = KeyPair::generate().map_err(CertError::Host)?;
    let certificate = parameters.self_signed(&key).map_err(CertError::Host)?;
    let (certificate_path, key_path) = (folder.join("cert.pem"), folder.join("key.pem"));
    write_new(&key_path, 0o600, &key.serialize_pem())?;
    write_new(&certificate_path, 0o644, &certificate.pem())?;
    Ok(NewPair { certificate: certificate_path, private_key: key_path, hosts: hosts.to_vec() })
}

const DAYS_VALID: u32 = 365;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), CertError> {
    let error = |error| CertError::File(path.to_owned(), error);
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.map_err(error)?.write_all(text.as_bytes()).map_err(error)
}

impl fmt::Display for NewPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (certificate, key) = (self.certificate.display(), self.private_key.display());
        let host = self.hosts.first().map_or("localhost", String::as_str);
        writeln!(f, "made {certificate} and {key}, good for {DAYS_VALID} days and for development only\n")?;
        writeln!(f, "serve with it:     wshd --tls --certificate {certificate} --private-key {key}")?;
        writeln!(f, "or in the config:  [tls]")?;
        writeln!(f, "                   certificate = {:?}", self.certificate)?;
        writeln!(f, "                   private_key = {:?}", self.private_key)?;
        writeln!(f, "                   and `tls = true` or `tls_port = 9999` in [listen]\n")?;
        writeln!(f, "A browser warns of it: open https://{host}:9998/ once and let it pass.")
    }
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => write!(f, "cannot make a certificate for this: {error}"),
            Self::File(path, error) if error.kind() == io::ErrorKind::AlreadyExists => {
                write!(f, "{} is there already; remove it first, or work in another folder", path.display())
            }
            Self::File(path, error) => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for CertError {}
