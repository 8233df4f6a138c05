//! The ways of one host: exact paths, paths with parameters, prefixes.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::RoutePath;
use crate::config::Route;

/// Where ways lead on one host.
#[derive(Debug)]
pub(super) struct Ways<G> {
    pub(super) exact: BTreeMap<String, Target<G>>,
    patterns: matchit::Router<Target<G>>,
    /// The longest first.
    prefixes: Vec<(String, Target<G>)>,
}

/// Where one way leads.
#[derive(Debug, Clone)]
pub(super) struct Target<G> {
    /// `None` if what it leads to is not there.
    pub(super) serves: Option<G>,
    pub(super) route: Option<Arc<Route>>,
    /// Of a route that an alias leads to.
    pub(super) params: Arc<str>,
}

impl<G: Clone> Target<G> {
    /// A library that answers on a path of its own.
    pub(super) fn of(serves: &G) -> Self {
        Self { serves: Some(serves.clone()), route: None, params: "".into() }
    }

    /// Where an alias leads, given who serves the path that it stands for.
    pub(super) fn again(found: Option<(&Self, String)>) -> Self {
        let nowhere = Self { serves: None, route: None, params: "".into() };
        found.map_or(nowhere, |(target, params)| Self { params: params.into(), ..target.clone() })
    }
}

impl<G> Default for Ways<G> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), patterns: matchit::Router::new(), prefixes: Vec::new() }
    }
}

impl<G> Ways<G> {
    pub(super) fn take(&mut self, path: &RoutePath, target: Target<G>) {
        match path {
            RoutePath::Exact(path) => drop(self.exact.insert(path.clone(), target)),
            RoutePath::Pattern(path) => {
                let taken = self.patterns.insert(path, target);
                debug_assert!(taken.is_ok(), "the config was checked: {taken:?}", taken = taken.err());
            }
            RoutePath::Prefix(prefix) => {
                let at = self.prefixes.partition_point(|(other, _)| other.len() >= prefix.len());
                self.prefixes.insert(at, (prefix.clone(), target));
            }
        }
    }

    /// The way for this path, and its parameters, encoded as a query is.
    pub(super) fn find(&self, path: &str) -> Option<(&Target<G>, String)> {
        if let Some(target) = self.exact.get(path) {
            return Some((target, target.params.as_ref().to_owned()));
        }
        if let Ok(found) = self.patterns.at(path) {
            return Some((found.value, encoded(found.params.iter())));
        }
        self.prefixes.iter().find_map(|(prefix, target)| {
            let rest = path.strip_prefix(prefix.as_str())?;
            let below = rest.strip_prefix('/').or_else(|| rest.is_empty().then_some(""))?;
            Some((target, encoded([("*", below)].into_iter())))
        })
    }
}

/// All that means something in a query, or in a form.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encoded<'p>(params: impl Iterator<Item = (&'p str, &'p str)>) -> String {
    let mut query = String::new();
    for (name, value) in params {
        if !query.is_empty() {
            query.push('&');
        }
        query.extend(utf8_percent_encode(name, ESCAPED));
        query.push('=');
        query.extend(utf8_percent_encode(value, ESCAPED));
    }
    query
}
