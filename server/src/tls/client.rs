//! What the certificate of a client says of it, in words for handlers.

use std::fmt::Write;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate that was verified against `tls.client_ca`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientCertificate {
    /// As RFC 4514 writes it: `CN=Ann,O=Example`.
    pub(crate) subject: String,
    /// Its alternative names, one a line, each behind its kind: `DNS:`, `email:`, `URI:`, `IP:`.
    pub(crate) names: String,
}

impl ClientCertificate {
    /// Reads what it can; rustls has verified the certificate, so what is not there to be read was left out by who signed it.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = Certificate::from_der(certificate) else { return Self::default() };
        let mut names = String::new();
        for name in alternative_names(&certificate) {
            if !names.is_empty() {
                names.push('\n');
            }
            // A line break in a name would make two names of one.
            let _ = write!(names, "{}", name.replace(['\n', '\r'], " "));
        }
        Self { subject: certificate.tbs_certificate.subject.to_string(), names }
    }
}

/// The alternative names that have a form in words.
pub(super) fn alternative_names(certificate: &Certificate) -> Vec<String> {
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate.get() else { return Vec::new() };
    names.iter().filter_map(in_words).collect()
}

fn in_words(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(format!("DNS:{name}")),
        GeneralName::Rfc822Name(address) => Some(format!("email:{address}")),
        GeneralName::UniformResourceIdentifier(uri) => Some(format!("URI:{uri}")),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| format!("IP:{address}"))
        }
        _ => None,
    }
}
