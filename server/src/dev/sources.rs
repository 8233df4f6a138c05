//! What the sources of a project look like: names, sizes and times. Two looks that differ mean a change.
//!
//! All of a project is looked at again and again, because a new file in any folder counts, on file systems that tell and on those
//! that do not. A project has some dozens of files, so that costs nothing that could be felt.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder with more is hardly a project.
const FILES_MAX: usize = 20_000;

const DEPTH_MAX: usize = 16;

/// Every source file with its size and the time it was changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sources(BTreeMap<PathBuf, (u64, SystemTime)>);

impl Sources {
    pub(super) fn of(project: &Path) -> io::Result<Self> {
        let mut sources = Self::default();
        sources.folder(project, 0)?;
        Ok(sources)
    }

    fn folder(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        // How cargo and others mark a folder of what they made.
        if depth == DEPTH_MAX || entries.iter().any(|entry| entry.file_name() == "CACHEDIR.TAG") {
            return Ok(());
        }
        for entry in entries.iter().filter(|entry| is_source(entry)) {
            let path = entry.path();
            // Links are followed for files and not for folders, which could lead in circles.
            if entry.file_type()?.is_dir() {
                self.folder(&path, depth + 1)?;
            } else if let Ok(metadata) = fs::metadata(&path)
                && metadata.is_file()
            {
                self.0.insert(path, (metadata.len(), metadata.modified()?));
            }
            if self.0.len() > FILES_MAX {
                return Err(io::Error::other(format!("there are more than {FILES_MAX} files")));
            }
        }
        Ok(())
    }
}

/// Everything counts that a build may read, and nothing that it makes: a page or a picture may be compiled in.
fn is_source(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let extension = Path::new(&name).extension().and_then(OsStr::to_str);
    let is_made = matches!(extension, Some("so" | "o" | "a" | "d" | "dylib"))
        || name == "Cargo.lock"
        || name == "target";
    !is_made && !name.as_encoded_bytes().starts_with(b".") && !name.as_encoded_bytes().ends_with(b"~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_reads_counts_and_what_it_makes_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/lib.rs", "1");
        let first = Sources::of(folder.path()).unwrap();
        for made in [
            "target/debug/a.rs",
            "elsewhere/CACHEDIR.TAG",
            "Cargo.lock",
            "a_wsh.so",
            ".git/HEAD",
            "src/lib.rs~",
        ] {
            write(made, "x");
        }
        write("elsewhere/debug/b.rs", "x");
        assert_eq!(Sources::of(folder.path()).unwrap(), first);
        for source in ["src/page.html", "src/deep/er.rs", "build.rs"] {
            let before = Sources::of(folder.path()).unwrap();
            write(source, "x");
            assert_ne!(Sources::of(folder.path()).unwrap(), before, "{source}");
        }
        let before = Sources::of(folder.path()).unwrap();
        fs::remove_file(folder.path().join("build.rs")).unwrap();
        assert_ne!(Sources::of(folder.path()).unwrap(), before);
    }
}
