//! What the certificate of a client says of it, in words for handlers.

use std::fmt::Write;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// A certificate that was verified against `tls.client_ca`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientCertificate {
    /// As RFC 4514 writes it: `CN=Ann,O=Example`.
    pub(crate) subject: String,
    /// The common name in it, `Ann`.
    pub(crate) common_name: Option<String>,
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
        let subject = &certificate.tbs_certificate.subject;
        Self { subject: subject.to_string(), common_name: common_name(subject), names }
    }
}

/// The last one, which is the most particular, if there are several.
fn common_name(subject: &Name) -> Option<String> {
    let mut attributes = subject.0.iter().flat_map(|relative| relative.0.iter());
    let named = attributes.rfind(|attribute| attribute.oid == COMMON_NAME)?;
    let text = named.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    let printable = || named.value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned());
    text.or_else(|_| printable()).ok()
}

/// RFC 4519 section 2.3.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

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
