//! A log file that makes room for itself: when it is full it becomes `FILE.1`, what was `FILE.1` becomes `FILE.2`, and so on.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// In the file so far.
    bytes: u64,
    /// 0 is no bound.
    bytes_max: u64,
    /// Older files beside it.
    kept: u32,
}

/// Why lines cannot be written to a file.
#[derive(Debug)]
pub struct LogFileError {
    path: PathBuf,
    cause: io::Error,
}

impl LogFile {
    /// Opens it, or makes it. Lines are added to what is there.
    pub(super) fn open(path: &Path, bytes_max: u64, kept: u32) -> Result<Self, LogFileError> {
        let error = |cause| LogFileError { path: path.to_owned(), cause };
        let (file, bytes) = append_to(path).map_err(error)?;
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max, kept })
    }

    /// Opens it once more, because somebody moved it away.
    pub(super) fn reopen(&mut self) -> Result<(), LogFileError> {
        let error = |cause| LogFileError { path: self.path.clone(), cause };
        (self.file, self.bytes) = append_to(&self.path).map_err(error)?;
        Ok(())
    }

    /// Writes a line, in one piece and to one file.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let needed = self.bytes.saturating_add(line.len() as u64);
        if self.bytes_max > 0 && self.bytes > 0 && needed > self.bytes_max {
            self.make_room();
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Where there is no room to be had, the file grows: a line too many is better than one that is lost.
    fn make_room(&mut self) {
        let older = |number: u32| {
            let mut name = OsString::from(&self.path);
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.kept).rev() {
            // There are fewer in the beginning.
            let _ = fs::rename(older(number), older(number + 1));
        }
        let freed = if self.kept == 0 {
            self.file.set_len(0).map(|()| self.bytes = 0)
        } else {
            fs::rename(&self.path, older(1)).and_then(|()| {
                (self.file, self.bytes) = append_to(&self.path)?;
                Ok(())
            })
        };
        if let Err(error) = freed {
            // Not through the log, whose lock is held. Tried again after as much again.
            let _ = writeln!(
                io::stderr(),
                "wshd: the log file {} cannot make room and grows: {error}",
                self.path.display()
            );
            self.bytes = 0;
        }
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

impl fmt::Display for LogFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write the log file {}: {}", self.path.display(), self.cause)?;
        match self.cause.kind() {
            io::ErrorKind::NotFound => write!(f, "; its folder has to be there"),
            io::ErrorKind::PermissionDenied => write!(f, "; choose another with log.file or --log-file"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for LogFileError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_full_file_becomes_the_first_of_the_older_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, 10, 2).unwrap();
        for line in ["one 1\n", "two 2\n", "three 3\n", "four 4\n", "a line that is longer than a file\n"] {
            file.write_line(line.as_bytes()).unwrap();
        }
        assert_eq!(content(&path), "a line that is longer than a file\n");
        assert_eq!(content(&folder.path().join("log.1")), "four 4\n");
        assert_eq!(content(&folder.path().join("log.2")), "three 3\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "no more than were to be kept");
    }

    #[test]
    fn what_is_there_counts_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let mut file = LogFile::open(&path, 16, 1).unwrap();
        file.write_line(b"after\n").unwrap();
        assert_eq!(content(&path), "before\nafter\n");
        file.write_line(b"more\n").unwrap();
        assert_eq!(
            (content(&path).as_str(), content(&folder.path().join("log.1")).as_str()),
            ("more\n", "before\nafter\n")
        );
    }

    #[test]
    fn without_older_files_it_begins_anew_and_without_a_bound_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let (short, long) = (folder.path().join("short"), folder.path().join("long"));
        let mut files = [LogFile::open(&short, 10, 0).unwrap(), LogFile::open(&long, 0, 5).unwrap()];
        for line in ["one 1\n", "two 2\n", "three 3\n"] {
            for file in &mut files {
                file.write_line(line.as_bytes()).unwrap();
            }
        }
        assert_eq!(content(&short), "three 3\n");
        assert_eq!(content(&long), "one 1\ntwo 2\nthree 3\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_left_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
        let mut file = LogFile::open(&path, 0, 0).unwrap();
        file.write_line(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_line(b"two\n").unwrap();
        file.reopen().unwrap();
        file.write_line(b"three\n").unwrap();
        assert_eq!((content(&moved).as_str(), content(&path).as_str()), ("one\ntwo\n", "three\n"));
    }
}
