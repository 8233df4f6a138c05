//! TLS: certificates in, streams of plaintext out.
//!
//! The front shakes hands (`Secured`), and what it agreed goes to the worker together with the socket, as an `Engine`. Both read
//! and write through that one type.

mod cert;
mod client;
mod engine;
mod front;
mod identity;

use crate::config::Config;
pub use cert::{CertError, NewPair, make as make_certificate};
pub(crate) use client::ClientCertificate;
pub(crate) use engine::{Broken, Engine};
pub(crate) use front::Secured;
pub use identity::TlsError;
pub(crate) use identity::{Files, Identity};

/// Whether the certificates that a config names are sound, if it needs any.
///
/// # Errors
/// They are not.
pub fn check(config: &Config) -> Result<(), TlsError> {
    if !config.listen.speaks_tls() {
        return Ok(());
    }
    Identity::new(&config.tls, &Files::read(&config.tls)?)?.check_dates()
}

#[cfg(test)]
mod tests;
