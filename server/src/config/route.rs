//! Routes and aliases as meant: which paths lead where besides the libraries' own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{Host, Origins};

/// A section `[[routes]]`: a path, or many, on which a handler answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which resource paths it is for.
    pub path: RoutePath,
    /// On which host. `None`: on any that has no route for the path.
    pub host: Option<HostPattern>,
    /// Name of the handler, as in `[handlers.NAME]`.
    pub handler: String,
    /// Name of the variant that has a config of its own: the same library, loaded once more. `None`: the handler itself.
    pub variant: Option<String>,
    /// Which web pages may connect by this route, where that differs from the handler's.
    pub origins: Option<Origins>,
    /// Which `[auth.NAME]` says who may come by this route, where that differs from the handler's.
    pub auth: Option<String>,
    /// Whether messages are compressed for those who come by this route, where that differs from the handler's.
    pub deflate: Option<bool>,
}

impl Route {
    /// Name of the handler or of the variant that it leads to.
    pub fn target(&self) -> &str {
        self.variant.as_deref().unwrap_or(&self.handler)
    }

    /// Host and path, as it is shown.
    pub fn place(&self) -> String {
        let host = self.host.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{host}{}", self.path)
    }
}

/// Which resource paths a route is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutePath {
    /// `/rooms`: this one.
    Exact(String),
    /// `/rooms/{room}` or `/files/{*rest}`: a parameter is one segment, or part of one, and with a star all that follows.
    Pattern(String),
    /// `/files/*`: `/files` and everything below it. Here without the end, and empty for `/*`.
    Prefix(String),
}

impl FromStr for RoutePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        resource_path(text)?;
        let prefix = text.strip_suffix("/*");
        let plain = prefix.unwrap_or(text);
        if plain.split('/').any(|segment| segment == "*") {
            return Err("but a segment * stands only at the end".into());
        }
        let has_parameters = plain.contains(['{', '}']);
        match prefix {
            Some(_) if has_parameters => {
                Err("but a path with parameters ends in {*NAME} and not in *".into())
            }
            Some(prefix) => Ok(Self::Prefix(prefix.into())),
            None if has_parameters => {
                matchit::Router::new()
                    .insert(text, ())
                    .map_err(|error| format!("but {}", in_words(&error)))?;
                Ok(Self::Pattern(text.into()))
            }
            None => Ok(Self::Exact(text.into())),
        }
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) | Self::Pattern(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}/*"),
        }
    }
}

/// Why a path with parameters cannot be matched.
pub(super) fn in_words(error: &matchit::InsertError) -> String {
    match error {
        matchit::InsertError::Conflict { with } => format!("it cannot be told from {with}"),
        matchit::InsertError::InvalidParamSegment => "a segment has one parameter at most".into(),
        matchit::InsertError::InvalidCatchAll => "a parameter {*NAME} stands only at the end".into(),
        _ => "a parameter is written {NAME}, and a brace itself {{ or }}".into(),
    }
}

/// Whether a request could ask for it: compared after percent-decoding, so it is written decoded.
pub(super) fn resource_path(text: &str) -> Result<(), String> {
    let inside = text.strip_prefix('/').ok_or("but a path begins with /")?;
    let mut segments = inside.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err("but no path has // in it".into());
        }
        if segment == "." || segment == ".." {
            return Err(format!("but no path has a segment {segment:?}"));
        }
        if let Some(char) = segment.chars().find(|char| char.is_control() || "?#\\".contains(*char)) {
            return Err(format!("but a path may not have the character {char:?}"));
        }
        if segment.contains('%') {
            return Err("but a path is written decoded, without %".into());
        }
    }
    Ok(())
}

/// Hosts that a route is for, in lower case and without a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// `a.example`, `192.0.2.7` or `[2001:db8::1]`.
    Exact(String),
    /// `*.a.example`: every name below `a.example`. Here with the dot and without the star.
    Below(String),
}

impl FromStr for HostPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const USAGE: &str = "but a host is a name such as a.example, *.a.example for every name below it, or an address, without a port";
        let below = text.strip_prefix("*.");
        let host: Host = below.unwrap_or(text).parse().map_err(|_| USAGE)?;
        match (host, below) {
            (Host::Address(std::net::IpAddr::V6(address)), None) => Ok(Self::Exact(format!("[{address}]"))),
            (Host::Address(address), None) => Ok(Self::Exact(address.to_string())),
            (Host::Name(name), None) => Ok(Self::Exact(bare_host(&name))),
            (Host::Name(name), Some(_)) => Ok(Self::Below(format!(".{}", bare_host(&name)))),
            (Host::Address(_), Some(_)) => Err(USAGE),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(domain) => write!(f, "*{domain}"),
        }
    }
}

/// The host of a `Host` header or of an authority: in lower case, without the port and without the dot of the root.
pub(crate) fn bare_host(authority: &str) -> String {
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => format!("[{address}]"),
        None => authority.split(':').next().unwrap_or_default().to_owned(),
    };
    host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase()
}

/// Paths that stand for others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aliases {
    /// Section `[aliases]`, in which chains may be written in any order, and lead in no circle.
    pub own: BTreeMap<String, String>,
    /// The map file, `handlers.map_file`, in which each line knows the lines above it, so that there are no chains left.
    pub of_map_file: BTreeMap<String, String>,
}

impl Aliases {
    /// Every alias with the path that it leads to in the end. Those of the config go before those of the map file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let of_file = self.of_map_file.iter().filter(|(path, _)| !self.own.contains_key(*path));
        let own = self.own.keys().map(|path| (path.as_str(), self.end_of(path)));
        own.chain(of_file.map(|(path, to)| (path.as_str(), to.as_str())))
    }

    /// Where the chain of an alias ends.
    fn end_of<'a>(&'a self, path: &'a str) -> &'a str {
        let mut end = path;
        while let Some(next) = self.own.get(end) {
            end = next;
        }
        self.of_map_file.get(end).map_or(end, String::as_str)
    }

    /// An alias of the config that leads back to itself.
    pub(super) fn circle(&self) -> Option<&str> {
        let leads_back = |start: &&String| {
            let mut steps = std::iter::successors(self.own.get(*start), |at| self.own.get(*at));
            steps.by_ref().take(self.own.len()).any(|at| at == *start)
        };
        self.own.keys().find(leads_back).map(String::as_str)
    }
}
