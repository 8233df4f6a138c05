//! Says what is wrong with a config file so that it can be put right without the manual: place, key, reason, line.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Config;
use super::map_file::MapError;

/// Why there is no config. One value holds everything that was found wrong with the file.
///
/// `Display` is made for a terminal: several lines, the last without a line end.
#[derive(Debug)]
pub enum ConfigError {
    /// The file could not be read.
    Unreadable {
        /// As it was asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
        /// Who asked for it: `--config`, `$WSHD_CONFIG`, or nobody because it was found by the search.
        asked_by: Option<&'static str>,
    },
    /// The file is not UTF-8 text.
    NotText {
        /// As it was asked for.
        path: PathBuf,
        /// Line of the first byte that is wrong, counted from 1.
        line: usize,
    },
    /// The file was read, and this is wrong with it. Never empty.
    Wrong {
        /// As it was asked for.
        path: PathBuf,
        /// In the order of the file.
        problems: Vec<Complaint>,
    },
    /// The alias map file that the config names is wrong.
    Map {
        /// What is sound: the config without that file.
        config: Box<Config>,
        /// What is not.
        error: MapError,
    },
}

impl ConfigError {
    /// Where a server is reached that began with a sound state of the same files, as far as can be told.
    pub fn control_socket(&self) -> PathBuf {
        match self {
            Self::Unreadable { path, .. } | Self::NotText { path, .. } | Self::Wrong { path, .. } => {
                Config { source: Some(path.clone()), ..Config::default() }.control_socket()
            }
            Self::Map { config, .. } => config.control_socket(),
        }
    }
}

/// One thing that is wrong with a config file, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The dotted key, such as `limits.message_bytes_max`; empty where the text is not TOML.
    pub key: String,
    /// Lower case without a full stop.
    pub wrong: String,
    /// What was probably meant.
    pub hint: Option<String>,
    excerpt: String,
    marked: usize,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error, asked_by } => {
                write!(f, "cannot read the config file {}", path.display())?;
                if let Some(who) = asked_by {
                    write!(f, " (from {who})")?;
                }
                write!(f, ": {error}")
            }
            Self::NotText { path, line } => {
                write!(f, "{}:{line}: the file is not UTF-8 text", path.display())
            }
            Self::Map { error, .. } => error.fmt(f),
            Self::Wrong { path, problems } => write_problems(f, path, problems),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { error, .. } => Some(error),
            Self::Map { error, .. } => Some(error),
            Self::NotText { .. } | Self::Wrong { .. } => None,
        }
    }
}

/// One below the other, each with its line.
pub(super) fn write_problems(f: &mut fmt::Formatter<'_>, path: &Path, problems: &[Complaint]) -> fmt::Result {
    for (index, problem) in problems.iter().enumerate() {
        if index > 0 {
            f.write_str("\n\n")?;
        }
        write_problem(f, path, problem)?;
    }
    Ok(())
}

fn write_problem(f: &mut fmt::Formatter<'_>, path: &Path, problem: &Complaint) -> fmt::Result {
    let Complaint { line, column, wrong, excerpt, marked, hint, .. } = problem;
    writeln!(f, "{}:{line}:{column}: {wrong}", path.display())?;
    writeln!(f, "{line:>5} | {excerpt}")?;
    // Tabs are repeated, so that the mark stands under its word whatever a terminal makes of them.
    let indent: String =
        excerpt.chars().take(column - 1).map(|char| if char == '\t' { '\t' } else { ' ' }).collect();
    write!(f, "      | {indent}{}", "^".repeat(*marked))?;
    if let Some(hint) = hint {
        write!(f, "\n   {hint}")?;
    }
    Ok(())
}

/// A problem as the reading of the file finds it, by bytes of the text.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) wrong: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, span: Range<usize>, wrong: impl Into<String>) -> Self {
        Self { key: key.into(), span, wrong: wrong.into(), hint: None }
    }

    /// Finds line and column, and takes the line along, because the text is gone when the error is shown.
    pub(super) fn place(self, text: &str) -> Complaint {
        let start = floor(text, self.span.start);
        let end = floor(text, self.span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let whole = text[line_start..line_end].trim_end_matches('\r');
        // A line of a megabyte would drown the message.
        let excerpt = whole.chars().take(LINE_CHARS_MAX).map(printable).collect::<String>();
        let column = text[line_start..start].chars().count().min(LINE_CHARS_MAX) + 1;
        let marked = text[start..end.min(line_end).max(start)].chars().count();
        let room = (excerpt.chars().count() + 1).saturating_sub(column - 1);
        Complaint {
            line: text[..start].matches('\n').count() + 1,
            column,
            key: self.key,
            wrong: self.wrong,
            hint: self.hint,
            excerpt,
            marked: marked.min(room).max(1),
        }
    }
}

const LINE_CHARS_MAX: usize = 160;

fn printable(char: char) -> char {
    if char.is_control() && char != '\t' { '\u{fffd}' } else { char }
}

/// The nearest boundary of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The known name that `name` is probably a slip of: at most a third of its letters differ.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bound = (name.chars().count() / 3).max(1);
    known
        .map(|known| (distance(name, known), known))
        .filter(|(far, _)| *far <= bound)
        .min()
        .map(|(_, known)| known)
}

/// Letters to insert, remove, replace or swap with their neighbour to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let other: Vec<char> = other.chars().take(64).collect();
    let mut before_last = vec![0; other.len() + 1];
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for i in 1..=one.len() {
        let mut row = vec![i; other.len() + 1];
        for j in 1..=other.len() {
            let replace = usize::from(one[i - 1] != other[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + replace);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slip of the finger is recognised, another word is not.
    #[test]
    fn nearest_key_is_a_slip_away() {
        let known = ["message_bytes_max", "message_seconds_max", "port"];
        assert_eq!(nearest("mesage_bytes_max", known.into_iter()), Some("message_bytes_max"));
        assert_eq!(nearest("prot", known.into_iter()), Some("port"));
        assert_eq!(nearest("threads", known.into_iter()), None);
    }

    /// The place is right for text with wide characters, tabs, CR LF and no line end.
    #[test]
    fn place_counts_characters() {
        let place = |text: &str, span| {
            let found = Problem::new("k", span, "w").place(text);
            (found.line, found.column, found.marked)
        };
        assert_eq!(place("a = 1\r\n\tü = 2", 8..10), (2, 2, 1));
        assert_eq!(place("", 0..0), (1, 1, 1));
        assert_eq!(place("a", 1..1), (1, 2, 1));
        assert_eq!(place("ü", 1..9), (1, 1, 1));
        let long = "x".repeat(1000);
        assert_eq!(place(&long, 900..950), (1, 161, 1));
    }
}
