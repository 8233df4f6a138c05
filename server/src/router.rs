//! Host and resource path to generation.
//!
//! What says most about a request answers it:
//!
//! 1. a route of its host; one with the whole name before one with `*.`, and the longer of these before the shorter,
//! 2. a route without a host for exactly its path, else an alias, else the library whose own path it is,
//! 3. a route without a host that has parameters, else the one with the longest prefix.
//!
//! Among the routes of one host it is the same: exactly the path, parameters, prefixes. A route or an alias also decides where what it
//! leads to is not there: the answer is then 404, and not what comes below it.

mod ways;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use self::ways::{Target, Ways};
use crate::config::{Config, HostPattern, Route, RoutePath};
use crate::generation::Generation;

/// The table of what is served. Immutable; a change makes a new one.
#[derive(Debug)]
pub(crate) struct Router<G = Arc<Generation>> {
    /// Routes with the whole name of a host.
    hosts: HashMap<String, Ways<G>>,
    /// Routes for all names below a domain, the longest domain first.
    below: Vec<(String, Ways<G>)>,
    any: Ways<G>,
    listed: Listed,
}

/// What the router leads by, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) routes: Vec<Way>,
    pub(crate) aliases: Vec<Way>,
    /// What an operator may want to know although nothing is wrong, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// From where to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) is_served: bool,
}

/// Something that can serve.
#[derive(Debug, Clone)]
pub(crate) struct Library<G> {
    /// Name of the handler, or of the variant that a route has for itself.
    pub(crate) name: String,
    /// The path that the name of its file means; `None` for a variant.
    pub(crate) own_path: Option<String>,
    /// Its file has no name, and it answers for its folder: with and without a slash at the end.
    pub(crate) is_for_folder: bool,
    pub(crate) serves: G,
}

/// Who answers a request.
#[derive(Debug, PartialEq)]
pub(crate) struct Found<'r, G = Arc<Generation>> {
    pub(crate) serves: &'r G,
    /// The route that led there, if it was one.
    pub(crate) route: Option<&'r Route>,
    /// Its parameters, encoded as a query is; empty if there are none.
    pub(crate) params: String,
}

impl<G> Default for Router<G> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), below: Vec::new(), any: Ways::default(), listed: Listed::default() }
    }
}

impl<G: Clone> Router<G> {
    /// From what can serve, by the routes and aliases of the config.
    pub(crate) fn new(config: &Config, libraries: impl IntoIterator<Item = Library<G>>) -> Self {
        let mut router = Self::default();
        let libraries: Vec<_> = libraries.into_iter().collect();
        let by_name: BTreeMap<_, _> =
            libraries.iter().map(|library| (library.name.as_str(), &library.serves)).collect();
        for library in &libraries {
            for path in library.paths() {
                router.any.exact.insert(path, Target::of(&library.serves));
            }
        }
        for route in &config.routes {
            router.take_route(route, by_name.get(route.target()).copied());
        }
        let aliases: Vec<_> =
            config.aliases.iter().map(|(path, to)| (path, to, router.any.find(to))).collect();
        let aliases: Vec<_> =
            aliases.into_iter().map(|(path, to, found)| (path, to, Target::again(found))).collect();
        for library in libraries.iter().filter(|library| !config.handlers.has_own_path(&library.name)) {
            for path in library.paths() {
                // Unless it is a route's.
                if router.any.exact.get(&path).is_some_and(|target| target.route.is_none()) {
                    router.any.exact.remove(&path);
                }
            }
        }
        for (path, to, target) in aliases {
            router.take_alias(path, to, target);
        }
        router.below.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.len()));
        router
    }

    fn take_route(&mut self, route: &Route, serves: Option<&G>) {
        let (from, to) = (route.place(), route.target().to_owned());
        if serves.is_none() {
            self.note(format!("the route {from} leads to {to}, which is not there: it answers with 404"));
        }
        self.listed.routes.push(Way { from, to, is_served: serves.is_some() });
        let target =
            Target { serves: serves.cloned(), route: Some(Arc::new(route.clone())), params: "".into() };
        let ways = match &route.host {
            None => &mut self.any,
            Some(HostPattern::Exact(host)) => self.hosts.entry(host.clone()).or_default(),
            Some(HostPattern::Below(domain)) => {
                match self.below.iter().position(|(known, _)| known == domain) {
                    Some(known) => &mut self.below[known].1,
                    None => {
                        self.below.push((domain.clone(), Ways::default()));
                        &mut self.below.last_mut().expect("it was pushed a moment ago").1
                    }
                }
            }
        };
        ways.take(&route.path, target);
    }

    fn take_alias(&mut self, path: &str, to: &str, target: Target<G>) {
        let is_served = target.serves.is_some();
        if !is_served {
            self.note(format!("the alias {path} leads to {to}, which nothing serves: it answers with 404"));
        }
        self.listed.aliases.push(Way { from: path.to_owned(), to: to.to_owned(), is_served });
        match self.any.exact.get(path) {
            Some(above) if above.route.is_some() => {
                self.note(format!("the alias {path} is never asked, because there is a route for that path"));
            }
            Some(_) if path != to => {
                self.note(format!("the alias {path} takes the place of the library whose own path that is"));
                self.any.exact.insert(path.to_owned(), target);
            }
            _ => drop(self.any.exact.insert(path.to_owned(), target)),
        }
    }

    fn note(&mut self, note: String) {
        // A thousand routes to a folder that is empty are one mistake.
        if self.listed.notes.len() < NOTES_MAX {
            self.listed.notes.push(note);
        }
    }

    /// Who serves this resource path on this host. `host` is asked for only if a route has one.
    pub(crate) fn find(&self, host: impl FnOnce() -> String, path: &str) -> Option<Found<'_, G>> {
        let (target, params) = self.target(host, path)?;
        let serves = target.serves.as_ref()?;
        Some(Found { serves, route: target.route.as_deref(), params })
    }

    fn target(&self, host: impl FnOnce() -> String, path: &str) -> Option<(&Target<G>, String)> {
        if !self.hosts.is_empty() || !self.below.is_empty() {
            let host = host();
            let below = self.below.iter().filter(|(domain, _)| host.ends_with(domain.as_str()));
            let mut ways = self.hosts.get(&host).into_iter().chain(below.map(|(_, ways)| ways));
            if let Some(found) = ways.find_map(|ways| ways.find(path)) {
                return Some(found);
            }
        }
        self.any.find(path)
    }

    pub(crate) fn listed(&self) -> &Listed {
        &self.listed
    }
}

const NOTES_MAX: usize = 20;

impl<G> Library<G> {
    fn paths(&self) -> impl Iterator<Item = String> {
        let own = self.own_path.clone();
        let with_slash = self.own_path.as_ref().filter(|path| self.is_for_folder && *path != "/");
        own.into_iter().chain(with_slash.map(|path| format!("{path}/")))
    }
}

/// The resource path of a request target: percent-decoded, and free of what could mean another path.
///
/// `None` for what no handler can have: bytes that are not UTF-8, control characters, empty and dot segments.
pub(crate) fn resource_path(target: &str) -> Option<String> {
    let path = percent_decode_str(target).decode_utf8().ok()?.into_owned();
    let inside = path.strip_prefix('/')?;
    let is_plain = |segment: &str| !matches!(segment, "." | "..") && !segment.contains(char::is_control);
    let mut segments = inside.split('/').peekable();
    let mut is_valid = true;
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        is_valid &= is_plain(segment) && (is_last || !segment.is_empty());
    }
    is_valid.then_some(path)
}

#[cfg(test)]
mod tests;
