//! A configuration file of pywebsocket's: INI as Python's `configparser` reads it.
//!
//! Written here because the dialect is Python's (`:` beside `=`, values over several lines, `%(name)s`, a section `[DEFAULT]`), and
//! because a complaint about a value names its line, which crates for INI files do not keep.

use std::collections::BTreeMap;

/// An entry, with the line it began on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) line: usize,
}

/// A line that is not INI, counted from 1, and what is wrong with it.
pub(super) type Wrong = (usize, String);

const SECTION: &str = "pywebsocket";

/// The entries of the section `[pywebsocket]`, in the order of the file; those of `[DEFAULT]` before them.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, Wrong> {
    let mut sections: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    let mut section = None;
    // Comments and blank lines do not end a value.
    let is_comment = |line: &str| line.trim_start().starts_with(['#', ';']);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !is_comment(line));
    for (index, line) in lines {
        let (number, trimmed) = (index + 1, line.trim());
        let known = section.as_ref().map(|name: &String| sections.entry(name.clone()).or_default());
        if line.starts_with([' ', '\t'])
            && let Some(last) = known.and_then(|entries| entries.last_mut())
        {
            last.value = format!("{}\n{trimmed}", last.value);
        } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.entry(name.to_owned()).or_default();
            section = Some(name.to_owned());
        } else {
            let name = section
                .clone()
                .ok_or_else(|| (number, format!("a section has to come first: [{SECTION}]")))?;
            let (key, value) = trimmed.split_once(['=', ':']).ok_or_else(|| {
                (number, "neither a section, nor a name with its value behind `=`".to_owned())
            })?;
            let entry =
                Entry { name: key.trim().to_lowercase(), value: value.trim().to_owned(), line: number };
            sections.entry(name).or_default().push(entry);
        }
    }
    let defaults = sections.remove("DEFAULT").unwrap_or_default();
    let own =
        sections.remove(SECTION).ok_or_else(|| (1, format!("there is no section [{SECTION}] in it")))?;
    // A later entry of a name takes the place of an earlier one.
    let mut entries: Vec<Entry> = Vec::new();
    for entry in defaults.into_iter().chain(own) {
        entries.retain(|earlier| earlier.name != entry.name);
        entries.push(entry);
    }
    entries.iter().map(|entry| resolved(entry, &entries, NESTED_MAX)).collect()
}

/// As deep as Python goes.
const NESTED_MAX: usize = 10;

/// Puts the values of other entries in the place of `%(name)s`, and `%` in that of `%%`.
fn resolved(entry: &Entry, all: &[Entry], depth: usize) -> Result<Entry, Wrong> {
    let wrong = |what: String| (entry.line, what);
    let (mut value, mut rest) = (String::new(), entry.value.as_str());
    while let Some((before, after)) = rest.split_once('%') {
        value.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            value.push('%');
            rest = after;
            continue;
        }
        let reference = after.strip_prefix('(').and_then(|after| after.split_once(")s"));
        let (name, after) =
            reference.ok_or_else(|| wrong("a `%` is written `%%`, or begins `%(name)s`".to_owned()))?;
        let other = all.iter().find(|other| other.name == name.to_lowercase());
        let other = other.ok_or_else(|| wrong(format!("`%({name})s` names what is not there")))?;
        if depth == 0 {
            return Err(wrong(format!("`%({name})s` leads round in a circle")));
        }
        value.push_str(&resolved(other, all, depth - 1)?.value);
        rest = after;
    }
    value.push_str(rest);
    Ok(Entry { value, ..entry.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, Wrong> {
        let pair = |entry: Entry| (entry.name, entry.value);
        entries(text).map(|entries| entries.into_iter().map(pair).collect())
    }

    #[test]
    fn entries_are_read_as_python_reads_them() {
        let text = "# a comment\n[DEFAULT]\nbase = /srv\n[other]\nport = 1\n\n[pywebsocket]\nPort: 9998\n\
                    log_file = %(base)s/100%%.log\n; another\nwebsock_handlers = a\n   b\n";
        let entries = read(text).unwrap();
        let expected =
            [("base", "/srv"), ("port", "9998"), ("log_file", "/srv/100%.log"), ("websock_handlers", "a\nb")];
        assert_eq!(entries, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(super::entries(text).unwrap()[2].line, 9);
    }

    #[test]
    fn the_last_of_a_name_counts() {
        assert_eq!(read("[pywebsocket]\nport=1\nport=2\n").unwrap(), [("port".into(), "2".into())]);
    }

    #[test]
    fn what_is_no_ini_is_named_with_its_line() {
        for (text, line, words) in [
            ("port = 1\n", 1, "section"),
            ("[pywebsocket]\n\nport\n", 3, "neither"),
            ("[other]\nport = 1\n", 1, "[pywebsocket]"),
            ("[pywebsocket]\nlog_file = 50%\n", 2, "%%"),
            ("[pywebsocket]\nlog_file = %(home)s\n", 2, "home"),
            ("[pywebsocket]\na = %(b)s\nb = %(a)s\n", 2, "circle"),
        ] {
            let (number, what) = read(text).unwrap_err();
            assert!(what.contains(words), "{text}: {what}");
            assert!(number == line || words == "circle", "{text}: line {number}");
        }
    }
}
