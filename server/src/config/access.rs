//! Sections `[auth.NAME]` and `[cgi]`: who may ask, and for which programs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::check::{Check, place};
use super::file::{self, Given};
use super::{Config, Route, value::words};

/// Section `[auth.NAME]`: ways to say who a peer is, each of which is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthRules {
    /// File of users and hashes of their passwords (RFC 7617).
    pub basic: Option<PathBuf>,
    /// A user and password of the command line, in place of the file.
    pub credential: Option<Credential>,
    /// File of users and hashes of their tokens (RFC 6750).
    pub bearer: Option<PathBuf>,
    /// Which name of a verified certificate is the user.
    pub client_certificate: Option<CertificateName>,
    /// File of users and that name of their certificates; who is not in it is nobody. `None` takes the name for the user.
    pub certificates: Option<PathBuf>,
    /// What a browser shows to who is asked for a password. `None`: the name of the section.
    pub realm: Option<String>,
}

/// Section `[cgi]`: programs that answer requests (RFC 3875).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgi {
    /// Paths of requests whose folders in the document root hold programs, such as `/cgi-bin`. Default none.
    pub paths: Vec<String>,
    /// How long an answer may take, from the request to its last byte. Default 30 s.
    pub seconds_max: Duration,
    /// Programs that run at a time. Default 16.
    pub processes_max: usize,
    /// Body of a request, which is kept in memory. Default 1 MiB.
    pub body_bytes_max: usize,
    /// Header lines that a program answers with. Default 16 KiB.
    pub head_bytes_max: usize,
}

impl Default for Cgi {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            seconds_max: Duration::from_secs(30),
            processes_max: 16,
            body_bytes_max: 1 << 20,
            head_bytes_max: 16 << 10,
        }
    }
}

/// What `auth` is where nobody is asked.
pub const NOBODY: &str = "none";

/// The name under which `--basic-auth` is known, which no section can have.
const COMMAND_LINE: &str = "--basic-auth";

/// A user and a password in plain text.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
    }
}

impl FromStr for Credential {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            Some((user, password)) if crate::auth::is_user(user) && !password.is_empty() => {
                Ok(Self { user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err("a credential is written USER:PASSWORD"),
        }
    }
}

words! {
    /// Which name of a certificate says who its owner is.
    enum CertificateName {
        /// The common name of its subject.
        Cn = "cn",
        /// Its first alternative name of the kind `DNS:`.
        Dns = "dns",
        /// Its first alternative name of the kind `email:`.
        Email = "email",
        /// Its first alternative name of the kind `URI:`.
        Uri = "uri",
    }
}

impl AuthRules {
    /// All files that are named.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.basic.iter().chain(&self.bearer).chain(&self.certificates)
    }

    fn taken(name: &str, file: &file::Auth, check: &mut Check) -> Self {
        let key = |key: &str| format!("auth.{name}.{key}");
        let mut rules = Self {
            basic: check.path(&key("basic"), &file.basic),
            bearer: check.path(&key("bearer"), &file.bearer),
            certificates: check.path(&key("certificates"), &file.certificates),
            ..Self::default()
        };
        if file.client_certificate.is_some() {
            let mut own = CertificateName::Cn;
            check.parsed(&key("client_certificate"), &file.client_certificate, &mut own);
            rules.client_certificate = Some(own);
        }
        if let Some(realm) = &file.realm {
            let text = realm.get_ref();
            if text.is_empty() || !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                let wrong = format!("`{}` is {text:?}, but must be some printable ASCII", key("realm"));
                check.wrong(&key("realm"), realm.span(), wrong);
            }
            rules.realm = Some(text.clone());
        }
        if let Some(place) = place(&file.certificates).filter(|_| file.client_certificate.is_none()) {
            let wrong = format!("`{}` has no effect without `client_certificate`", key("certificates"));
            check.wrong(&key("certificates"), place, wrong);
        }
        rules
    }
}

impl Config {
    /// Which section `[auth.NAME]` says who may open a WebSocket at this handler, if this route led there; without a handler, at a
    /// path that has none.
    pub fn auth_of<'c>(&'c self, handler: Option<&str>, route: Option<&'c Route>) -> Option<&'c str> {
        let own = handler.and_then(|name| self.handlers.each.get(name)).and_then(|own| own.auth.as_deref());
        let by_route = route.and_then(|route| route.auth.as_deref());
        by_route.or(own).or(self.upgrade.auth.as_deref()).filter(|name| *name != NOBODY)
    }

    /// The same for files and programs.
    pub fn auth_of_files(&self) -> Option<&str> {
        self.files.auth.as_deref().filter(|name| *name != NOBODY)
    }

    /// The name of a section `[auth.NAME]` that exists.
    pub(super) fn auth_named(&self, key: &str, given: &Given<String>, check: &mut Check) -> Option<String> {
        let given = given.as_ref()?;
        let name = given.get_ref();
        if name != NOBODY && !self.auth.contains_key(name) {
            let wrong = format!("`{key}` is {name:?}, but there is no section [auth.{name}]");
            check.wrong(key, given.span(), wrong);
        }
        Some(name.clone())
    }

    pub(super) fn take_access(&mut self, file: &file::File, check: &mut Check) {
        for (name, section) in &file.auth.each {
            let key = format!("auth.{}", name.get_ref());
            let rules = AuthRules::taken(name.get_ref(), section, check);
            let has_way =
                rules.basic.is_some() || rules.bearer.is_some() || rules.client_certificate.is_some();
            if name.get_ref() == NOBODY {
                let wrong =
                    format!("no section can have the name {NOBODY:?}, which stands for no authentication");
                check.wrong(&key, name.span(), wrong);
            } else if !name.get_ref().bytes().all(|byte| byte.is_ascii_graphic()) {
                let wrong = format!("the name of `{key}` must be printable ASCII without spaces");
                check.wrong(&key, name.span(), wrong);
            } else if !has_way {
                let wrong =
                    format!("`{key}` lets nobody in; it needs `basic`, `bearer` or `client_certificate`");
                check.wrong(&key, name.span(), wrong);
            }
            self.auth.insert(name.get_ref().clone(), rules);
        }
        self.upgrade.auth = self.auth_named("upgrade.auth", &file.upgrade.auth, check);
        self.files.auth = self.auth_named("files.auth", &file.files.auth, check);
        for (name, rules) in &file.handlers.each {
            let auth = self.auth_named(&format!("handlers.{name}.auth"), &rules.auth, check);
            if let (Some(own), Some(_)) = (self.handlers.each.get_mut(name), &auth) {
                own.auth = auth;
            }
        }
        self.cgi.take(&file.cgi, check);
    }

    /// Every request needs this credential, as with pywebsocket's flag.
    pub(super) fn demand(&mut self, credential: &Credential) {
        let rules = AuthRules {
            credential: Some(credential.clone()),
            realm: Some("wshd".into()),
            ..AuthRules::default()
        };
        self.auth.insert(COMMAND_LINE.into(), rules);
        self.upgrade.auth = Some(COMMAND_LINE.into());
        self.files.auth = Some(COMMAND_LINE.into());
        for own in self.handlers.each.values_mut() {
            own.auth = None;
        }
        for route in &mut self.routes {
            route.auth = None;
        }
    }
}

impl Cgi {
    fn take(&mut self, file: &file::Cgi, check: &mut Check) {
        if let Some(paths) = check.list("cgi.paths", &file.paths) {
            self.paths.clear();
            for (path, span) in paths {
                match cgi_path(&path) {
                    Ok(path) => self.paths.push(path),
                    Err(wrong) => {
                        check.wrong("cgi.paths", span, format!("`cgi.paths` has {path:?}, {wrong}"));
                    }
                }
            }
        }
        check.seconds("cgi.seconds_max", &file.seconds_max, 0.001..=86_400.0, &mut self.seconds_max);
        check.whole(
            "cgi.processes_max",
            " processes",
            &file.processes_max,
            1..=10_000,
            &mut self.processes_max,
        );
        check.whole(
            "cgi.body_bytes_max",
            " bytes",
            &file.body_bytes_max,
            0..=1 << 30,
            &mut self.body_bytes_max,
        );
        let head = &mut self.head_bytes_max;
        check.whole("cgi.head_bytes_max", " bytes", &file.head_bytes_max, 64..=1 << 20, head);
    }
}

/// A folder beneath the document root, as it stands in a request.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn cgi_path(text: &str) -> Result<String, &'static str> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_folder = |segment: &str| {
        !segment.is_empty() && !segment.starts_with('.') && !segment.contains(char::is_control)
    };
    match path.strip_prefix('/') {
        Some(inside) if inside.split('/').all(is_folder) => Ok(path.to_owned()),
        _ => Err(
            "but a path is written like \"/cgi-bin\": a folder of the document root, and not the root itself",
        ),
    }
}
