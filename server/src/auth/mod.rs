//! Who a peer is: passwords, tokens and certificates, as the config names them, read as a whole or not at all.
//!
//! In: what a request shows, and the certificate of its connection. Out: a user, or why there is none. HTTP is the business of
//! `http/login.rs`.

mod file;
mod guard;
mod make;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub(crate) use self::guard::Guard;
pub use self::make::{Made, MakeError, make_token, set_password};

use self::file::{CertificateNames, Tokens, Users};
use crate::config::{AuthRules, CertificateName, ClientAuth, Config};
use crate::secret;
use crate::tls::ClientCertificate;

/// Larger files are no lists of users.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Longer names are nobody's.
const USER_BYTES_MAX: usize = 255;

/// Every section `[auth.NAME]`.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    sections: BTreeMap<String, Section>,
}

/// One section: ways to say who a peer is, each of which is enough.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) realm: String,
    users: Option<Users>,
    tokens: Option<Tokens>,
    certificate: Option<(CertificateName, Option<CertificateNames>)>,
}

/// What a request says of who sends it.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'r> {
    Nothing,
    Password {
        user: &'r str,
        password: &'r str,
    },
    Token(&'r str),
    /// Something that cannot be understood, where one of the above should be.
    Broken,
}

/// Somebody who was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) user: Arc<str>,
    pub(crate) by: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Password,
    Token,
    Certificate,
}

/// Why a peer is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It shows nothing that counts here.
    Missing,
    WrongPassword,
    WrongToken,
    Broken,
    /// Its address has shown too many wrong passwords.
    TooManyFailures,
    /// Its turn did not come in time.
    Busy,
}

/// The files that a config names, as they are at one moment.
pub(crate) struct Files {
    contents: BTreeMap<PathBuf, Vec<u8>>,
    hash: [u8; 32],
}

/// Why there is nobody to be known: the file, its key in the config, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthError {
    key: String,
    path: Option<PathBuf>,
    line: Option<usize>,
    wrong: String,
}

/// Whether the files that a config names are sound.
///
/// # Errors
/// They are not.
pub fn check(config: &Config) -> Result<(), AuthError> {
    Auth::new(config, &Files::read(config)?).map(drop)
}

/// Whether a text can be the name of a user: one line, and no colon, which ends it in files and headers.
pub(crate) fn is_user(text: &str) -> bool {
    !text.is_empty() && text.len() <= USER_BYTES_MAX && !text.contains(|c: char| c == ':' || c.is_control())
}

impl Files {
    /// # Errors
    /// A file cannot be read, or others can read it.
    pub(crate) fn read(config: &Config) -> Result<Self, AuthError> {
        let mut contents = BTreeMap::new();
        for (name, rules) in &config.auth {
            let keys =
                [("basic", &rules.basic), ("bearer", &rules.bearer), ("certificates", &rules.certificates)];
            for (key, path) in keys {
                let Some(path) = path else { continue };
                let bytes = secret::read(path, FILE_BYTES_MAX, true).map_err(|error| {
                    let hint = match (&error, key) {
                        (secret::Unreadable::System(_), "basic") => {
                            format!("; `wshd passwd USER {}` makes it", path.display())
                        }
                        (secret::Unreadable::System(_), "bearer") => {
                            format!("; `wshd token USER {}` makes it", path.display())
                        }
                        _ => String::new(),
                    };
                    AuthError::new(name, key, Some(path), format!("{error}{hint}"))
                })?;
                contents.insert(path.clone(), bytes);
            }
        }
        let mut hash = Sha256::new();
        for bytes in contents.values() {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        Ok(Self { contents, hash: hash.finalize().into() })
    }

    /// Tells contents apart without keeping them.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.hash
    }

    fn text(&self, name: &str, key: &str, path: &Path) -> Result<&str, AuthError> {
        let bytes = self.contents.get(path).map(Vec::as_slice).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            AuthError { line: Some(line), ..AuthError::new(name, key, Some(path), "it is not UTF-8 text") }
        })
    }
}

impl Auth {
    /// # Errors
    /// A file is not what its key says, or the config contradicts itself.
    pub(crate) fn new(config: &Config, files: &Files) -> Result<Self, AuthError> {
        let section = |(name, rules): (&String, &AuthRules)| {
            if rules.client_certificate.is_some() && config.tls.client_auth == ClientAuth::Off {
                let wrong = "clients are not asked for a certificate; set tls.client_auth to \"optional\" or \"required\"";
                return Err(AuthError::new(name, "client_certificate", None, wrong));
            }
            Ok((name.clone(), Section::new(name, rules, files)?))
        };
        Ok(Self { sections: config.auth.iter().map(section).collect::<Result<_, _>>()? })
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.get(name)
    }
}

impl Section {
    fn new(name: &str, rules: &AuthRules, files: &Files) -> Result<Self, AuthError> {
        let wrong = |key: &str, path: &Path, (line, wrong): (usize, String)| AuthError {
            line: Some(line),
            ..AuthError::new(name, key, Some(path), wrong)
        };
        let users = match (&rules.credential, &rules.basic) {
            (Some(credential), _) => Some(Users::one(&credential.user, &credential.password)),
            (None, Some(path)) => {
                let users = Users::parse(files.text(name, "basic", path)?);
                Some(users.map_err(|found| wrong("basic", path, found))?)
            }
            (None, None) => None,
        };
        let tokens = match &rules.bearer {
            Some(path) => {
                let tokens = Tokens::parse(files.text(name, "bearer", path)?);
                Some(tokens.map_err(|found| wrong("bearer", path, found))?)
            }
            None => None,
        };
        let names = match &rules.certificates {
            Some(path) => {
                let names = CertificateNames::parse(files.text(name, "certificates", path)?);
                Some(names.map_err(|found| wrong("certificates", path, found))?)
            }
            None => None,
        };
        let realm = rules.realm.clone().unwrap_or_else(|| name.to_owned());
        Ok(Self { realm, users, tokens, certificate: rules.client_certificate.map(|own| (own, names)) })
    }

    pub(crate) fn takes_passwords(&self) -> bool {
        self.users.is_some()
    }

    pub(crate) fn takes_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Who it is. What is shown is judged before the certificate: who shows something wrong is not let in by something else.
    pub(crate) async fn identify(
        &self,
        shown: Shown<'_>,
        certificate: Option<&ClientCertificate>,
        guard: &Guard,
        peer: IpAddr,
        patience: Duration,
    ) -> Result<Known, Denied> {
        match (shown, &self.users, &self.tokens) {
            (Shown::Broken, ..) => Err(Denied::Broken),
            (Shown::Password { user, password }, Some(users), _) => {
                let is_right = guard.verify(users.hash_of(user), password, peer, patience).await?;
                // The hash of somebody else was verified for a name that is not known, so that both take the same time.
                let user = users.name(user).filter(|_| is_right).ok_or(Denied::WrongPassword)?;
                Ok(Known { user, by: Way::Password })
            }
            (Shown::Token(token), _, Some(tokens)) => {
                let user = tokens.user_of(token).ok_or(Denied::WrongToken)?;
                Ok(Known { user, by: Way::Token })
            }
            _ => {
                let user =
                    certificate.and_then(|certificate| self.owner(certificate)).ok_or(Denied::Missing)?;
                Ok(Known { user, by: Way::Certificate })
            }
        }
    }

    /// The user that a verified certificate belongs to.
    fn owner(&self, certificate: &ClientCertificate) -> Option<Arc<str>> {
        let (name, listed) = self.certificate.as_ref()?;
        let alternative = |kind: &str| certificate.names.lines().find_map(|name| name.strip_prefix(kind));
        let name = match name {
            CertificateName::Cn => certificate.common_name.as_deref(),
            CertificateName::Dns => alternative("DNS:"),
            CertificateName::Email => alternative("email:"),
            CertificateName::Uri => alternative("URI:"),
        }?;
        match listed {
            Some(listed) => listed.user_of(name),
            // A URI has colons; it comes from nowhere but here.
            None if name.len() > USER_BYTES_MAX || name.is_empty() || name.contains(char::is_control) => None,
            None => Some(name.into()),
        }
    }
}

impl AuthError {
    fn new(section: &str, key: &str, path: Option<&Path>, wrong: impl Into<String>) -> Self {
        let key = format!("auth.{section}.{key}");
        Self { key, path: path.map(Path::to_owned), line: None, wrong: wrong.into() }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, path, line, wrong } = self;
        match (path, line) {
            (Some(path), Some(line)) => write!(f, "cannot use {}:{line} (`{key}`): {wrong}", path.display()),
            (Some(path), None) => write!(f, "cannot use {} (`{key}`): {wrong}", path.display()),
            (None, _) => write!(f, "`{key}`: {wrong}"),
        }
    }
}

impl std::error::Error for AuthError {}
