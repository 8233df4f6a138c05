//! The alias map file of pywebsocket, `handlers.map_file`: lines of `ALIAS EXISTING`, which are read from the top down.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Complaint, Problem, write_problems};
use super::route::resource_path;

/// What is wrong with a map file.
#[derive(Debug)]
pub enum MapError {
    /// It could not be read.
    Unreadable {
        /// As it was asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It was read, and this is wrong with it. Never empty.
    Wrong {
        /// As it was asked for.
        path: PathBuf,
        /// In the order of the file.
        problems: Vec<Complaint>,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "cannot read the alias map file {}: {error}", path.display())
            }
            Self::Wrong { path, problems } => write_problems(f, path, problems),
        }
    }
}

impl std::error::Error for MapError {}

/// A map file is read into memory at once, and is written by hand.
const BYTES_MAX: u64 = 1 << 20;

/// Reads the file. Each alias leads to what its `EXISTING` stands for in that line; where two have one alias, the last one counts.
///
/// # Errors
/// It cannot be read, or a line of it is neither empty, nor a comment, nor two paths.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, MapError> {
    let unreadable = |error| MapError::Unreadable { path: path.to_owned(), error };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > BYTES_MAX {
        let error = io::Error::other(format!("it has {size} bytes, and at most {BYTES_MAX} are read"));
        return Err(unreadable(error));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text).map_err(|problems| MapError::Wrong { path: path.to_owned(), problems })
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, Vec<Complaint>> {
    let mut aliases = BTreeMap::new();
    let mut problems = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let span = start..start + content.len();
        start += line.len();
        if content.trim_start().is_empty() || content.starts_with('#') {
            continue;
        }
        match pair(content) {
            Ok((alias, existing)) => {
                let to = aliases.get(existing).cloned().unwrap_or_else(|| existing.to_owned());
                aliases.insert(alias.to_owned(), to);
            }
            Err(wrong) => problems.push(Problem::new("", span, wrong).place(text)),
        }
    }
    if problems.is_empty() { Ok(aliases) } else { Err(problems) }
}

fn pair(line: &str) -> Result<(&str, &str), String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let &[alias, existing] = words.as_slice() else {
        return Err("a line of a map file is ALIAS EXISTING, such as: / /echo".into());
    };
    for path in [alias, existing] {
        resource_path(path).map_err(|wrong| format!("a map file has {path:?}, {wrong}"))?;
    }
    Ok((alias, existing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap_or_else(|wrong| panic!("{wrong:?}")).into_iter().collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(alias, to)| ((*alias).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn lines_are_read_from_the_top_down() {
        assert_eq!(aliases("# a comment\n\n  \n/ /echo\n"), pairs(&[("/", "/echo")]));
        assert_eq!(aliases("/x\t /a  \r\n/z /x"), pairs(&[("/x", "/a"), ("/z", "/a")]), "a chain");
        assert_eq!(
            aliases("/z /x\n/x /a\n"),
            pairs(&[("/x", "/a"), ("/z", "/x")]),
            "the lines below are not known"
        );
        assert_eq!(aliases("/x /a\n/x /b\n"), pairs(&[("/x", "/b")]), "the last one counts");
        assert_eq!(aliases("/a /b\n/b /a\n"), pairs(&[("/a", "/b"), ("/b", "/b")]), "no circle");
    }

    #[test]
    fn wrong_lines_are_shown_with_their_place() {
        let wrong = parse("/ok /echo\n/only\n/a /b /c\na /b\n").expect_err("three lines are wrong");
        let lines: Vec<_> = wrong.iter().map(|complaint| complaint.line).collect();
        assert_eq!(lines, [2, 3, 4]);
        assert!(wrong[0].wrong.contains("ALIAS EXISTING"), "{wrong:?}");
        assert!(wrong[2].wrong.contains("\"a\", but a path begins with /"), "{wrong:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = read(Path::new("no/map.txt")).expect_err("there is none").to_string();
        assert!(error.contains("cannot read the alias map file no/map.txt"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("map");
        std::fs::write(&large, vec![b'#'; BYTES_MAX as usize + 1]).unwrap();
        assert!(read(&large).expect_err("too large").to_string().contains("at most 1048576 are read"));
    }
}
