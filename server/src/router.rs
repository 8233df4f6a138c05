//! Resource path to generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::generation::Generation;

/// The table of what is served. Immutable; a change makes a new one.
#[derive(Debug, Default)]
pub(crate) struct Router {
    routes: BTreeMap<String, Arc<Generation>>,
}

impl Router {
    pub(crate) fn new(generations: impl IntoIterator<Item = Arc<Generation>>) -> Self {
        let route = |generation: Arc<Generation>| (generation.path().to_owned(), generation);
        Self { routes: generations.into_iter().map(route).collect() }
    }

    /// The generation that serves exactly this resource path.
    pub(crate) fn find(&self, path: &str) -> Option<&Arc<Generation>> {
        self.routes.get(path)
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
mod tests {
    use super::resource_path;

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(resource_path("/chat").as_deref(), Some("/chat"));
        assert_eq!(resource_path("/").as_deref(), Some("/"));
        assert_eq!(resource_path("/a%20b/c").as_deref(), Some("/a b/c"));
        assert_eq!(resource_path("/%2563hat").as_deref(), Some("/%63hat"), "not twice");
    }

    #[test]
    fn spellings_that_climb_or_hide_are_no_resource_path() {
        for target in
            ["chat", "//chat", "/a//b", "/./chat", "/a/../b", "/%2e%2e/b", "/a%00", "/a%0a", "/%ff", "/a/%2e"]
        {
            assert_eq!(resource_path(target), None, "{target}");
        }
    }
}
