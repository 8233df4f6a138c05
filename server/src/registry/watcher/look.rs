//! What can be seen of the watched folders and files without opening a library. Two looks that differ mean a change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::super::scan::{BUILD_FOLDER_MARK, ENTRIES_MAX, is_handler_name, is_hidden};
use super::super::stat::{Id, Stat};
use super::Watched;

/// One look at everything that is watched.
#[derive(Debug, Default)]
pub(super) struct Look {
    folders: BTreeMap<PathBuf, Seen<Folder>>,
    files: BTreeMap<PathBuf, File>,
}

/// What was seen, or why nothing was.
type Seen<T> = Result<T, io::ErrorKind>;

impl Look {
    pub(super) fn at(watched: &Watched) -> Self {
        let folder = |path: &PathBuf| (path.clone(), Folder::at(path).map_err(|error| error.kind()));
        let file = |path: &PathBuf| (path.clone(), File::at(path));
        Self {
            folders: watched.folders.iter().map(folder).collect(),
            files: watched.files.iter().map(file).collect(),
        }
    }

    /// Whether it saw anything that the earlier look did not see, or saw otherwise. What is no longer watched does not count.
    pub(super) fn differs_from(&self, earlier: &Self) -> bool {
        self.folders.iter().any(|(path, folder)| earlier.folders.get(path) != Some(folder))
            || self.files.iter().any(|(path, file)| earlier.files.get(path) != Some(file))
    }

    /// Watched folders that are not there.
    pub(super) fn gone(&self) -> impl Iterator<Item = &Path> {
        let gone = |folder: &Seen<Folder>| matches!(folder, Err(io::ErrorKind::NotFound));
        self.folders.iter().filter(move |(_, folder)| gone(folder)).map(|(path, _)| path.as_path())
    }
}

/// A folder as the scan walks it: other files and hidden ones are not seen, nor are the subfolders of a build folder.
#[derive(Debug, PartialEq, Eq)]
struct Folder {
    id: Id,
    is_build_folder: bool,
    entries: BTreeMap<OsString, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// Its times change with everything that is written below it, so they are left to the look at the subfolder.
    Folder(Id),
    File(File),
}

impl Folder {
    fn at(path: &Path) -> io::Result<Self> {
        let id = Id::of(&fs::metadata(path)?);
        let mut folder = Self { id, is_build_folder: false, entries: BTreeMap::new() };
        // The scan refuses a larger folder.
        for entry in fs::read_dir(path)?.take(ENTRIES_MAX) {
            let entry = entry?;
            let name = entry.file_name();
            folder.is_build_folder |= name == BUILD_FOLDER_MARK;
            // An entry that is gone again is as one that was never there.
            let Ok(kind) = entry.file_type() else { continue };
            let seen = if kind.is_dir() && !is_hidden(&name) {
                entry.metadata().ok().map(|metadata| Entry::Folder(Id::of(&metadata)))
            } else if is_handler_name(&name) {
                Some(Entry::File(File::at(&entry.path())))
            } else {
                None
            };
            if let Some(seen) = seen {
                folder.entries.insert(name, seen);
            }
        }
        if folder.is_build_folder {
            folder.entries.retain(|_, entry| matches!(entry, Entry::File(_)));
        }
        Ok(folder)
    }
}

/// A file, and where it is a link also what it leads to in the end.
#[derive(Debug, PartialEq, Eq)]
struct File {
    itself: Seen<Stat>,
    target: Option<Seen<Stat>>,
}

impl File {
    fn at(path: &Path) -> Self {
        let seen = |metadata: io::Result<Metadata>| metadata.map_err(|error| error.kind());
        let itself = seen(fs::symlink_metadata(path));
        let is_link = itself.as_ref().is_ok_and(Metadata::is_symlink);
        let target = is_link.then(|| seen(fs::metadata(path)).map(|metadata| Stat::of(&metadata)));
        Self { itself: itself.map(|metadata| Stat::of(&metadata)), target }
    }
}
