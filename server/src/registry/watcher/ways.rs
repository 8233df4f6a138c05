//! The folders in which an event may mean a change, and the names it must be about.
//!
//! What a path means is decided in every folder where a link stands on its way, and in the folder it ends in. A path that leads
//! nowhere ends in the last folder there is. So the switch of a link such as `current` is heard, and the return of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::{env, fs};

use super::super::stat::Id;
use super::Watched;

/// Folders to listen to, by their real paths; each folder once, under whatever names it is mounted.
#[derive(Debug, Default)]
pub(super) struct Ways {
    folders: BTreeMap<PathBuf, Interest>,
    paths: BTreeMap<Id, PathBuf>,
}

/// What matters in a folder.
#[derive(Debug)]
pub(super) struct Interest {
    pub(super) id: Id,
    /// Handler libraries and subfolders do.
    pub(super) libraries: bool,
    /// These names do.
    pub(super) names: BTreeSet<OsString>,
}

impl Ways {
    /// Reads links and asks for metadata, and opens nothing.
    pub(super) fn to(watched: &Watched) -> Self {
        let mut ways = Self::default();
        for folder in &watched.folders {
            if let Some(interest) = ways.follow(folder).and_then(|real| ways.interest_in(&real)) {
                interest.libraries = true;
            }
        }
        for file in &watched.files {
            ways.follow(file);
        }
        ways
    }

    pub(super) fn folders(&self) -> impl Iterator<Item = (&Path, Id)> {
        self.folders.iter().map(|(path, interest)| (path.as_path(), interest.id))
    }

    pub(super) fn get(&self, folder: &Path) -> Option<&Interest> {
        self.folders.get(folder)
    }

    /// Goes along a path, notes every name that decides where it leads, and returns the real path of what is there.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut here = if path.is_absolute() { PathBuf::from("/") } else { env::current_dir().ok()? };
        let mut ahead = Vec::new();
        put_ahead(&mut ahead, path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            match fs::symlink_metadata(&next) {
                Ok(metadata) if metadata.is_symlink() => {
                    self.decides(&here, &name);
                    links += 1;
                    let target = fs::read_link(&next).ok().filter(|_| links <= LINKS_MAX)?;
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    put_ahead(&mut ahead, &target);
                }
                Ok(_) => here = next,
                Err(_) => {
                    self.decides(&here, &name);
                    self.ends_at(&here);
                    return None;
                }
            }
        }
        self.ends_at(&here);
        Some(here)
    }

    fn ends_at(&mut self, path: &Path) {
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            self.decides(folder, name);
        }
    }

    fn decides(&mut self, folder: &Path, name: &OsStr) {
        if let Some(interest) = self.interest_in(folder) {
            interest.names.insert(name.to_owned());
        }
    }

    /// `None` if it is not a folder, or gone by now.
    fn interest_in(&mut self, folder: &Path) -> Option<&mut Interest> {
        if !self.folders.contains_key(folder) {
            let id = Id::of(&fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?);
            let path = self.paths.entry(id).or_insert_with(|| folder.to_owned()).clone();
            let interest = Interest { id, libraries: false, names: BTreeSet::new() };
            return Some(self.folders.entry(path).or_insert(interest));
        }
        self.folders.get_mut(folder)
    }
}

/// As many links as Linux follows.
const LINKS_MAX: usize = 40;

/// Puts the names of a path on a stack, the first one on top.
fn put_ahead(ahead: &mut Vec<OsString>, path: &Path) {
    ahead.extend(path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Folder below the root of the test, whether libraries matter in it, and the names that do.
    fn ways(root: &Path, folders: &[&str], files: &[&str]) -> Vec<(String, bool, Vec<String>)> {
        let paths = |paths: &[&str]| paths.iter().map(|path| root.join(path)).collect();
        let ways = Ways::to(&Watched { folders: paths(folders), files: paths(files) });
        let below = ways.folders.iter().filter_map(|(path, interest)| {
            let names = interest.names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            let path = path.strip_prefix(root).ok()?;
            Some((path.display().to_string(), interest.libraries, names))
        });
        below.collect()
    }

    fn way(folder: &str, libraries: bool, names: &[&str]) -> (String, bool, Vec<String>) {
        (folder.into(), libraries, names.iter().map(|name| (*name).into()).collect())
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        (folder, root)
    }

    /// Every link on the way counts in the folder where it stands.
    #[test]
    fn links_are_followed_step_by_step() {
        let (_folder, root) = root();
        fs::create_dir_all(root.join("releases/2/handlers")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("releases/2/a.toml"), "").unwrap();
        symlink("2", root.join("releases/current")).unwrap();
        symlink(root.join("releases/current/handlers"), root.join("handlers")).unwrap();
        symlink("../releases/current/a.toml", root.join("etc/b.toml")).unwrap();
        let expected = [
            way("", false, &["handlers"]),
            way("etc", false, &["b.toml"]),
            way("releases", false, &["current"]),
            way("releases/2", false, &["a.toml", "handlers"]),
            way("releases/2/handlers", true, &[]),
        ];
        assert_eq!(ways(&root, &["handlers"], &["etc/b.toml"]), expected);
    }

    /// The way to what is not there ends in the last folder that is.
    #[test]
    fn missing_paths_end_where_they_would_begin() {
        let (_folder, root) = root();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        assert_eq!(ways(&root, &["a/b/c"], &[]), [way("", false, &["a"]), way("a", false, &["b"])]);
        assert_eq!(ways(&root, &["file/b"], &[]), [way("", false, &["file"])]);
        symlink("loop", root.join("a/loop")).unwrap();
        assert_eq!(ways(&root, &[], &["a/loop"]), [way("a", false, &["loop"])]);
    }

    /// A folder that is watched for several reasons is one, and `..` goes where the link before it led.
    #[test]
    fn folder_is_listened_to_once() {
        let (_folder, root) = root();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("c/d")).unwrap();
        symlink("../../c/d", root.join("a/b/link")).unwrap();
        fs::write(root.join("c/file"), "").unwrap();
        let expected = [way("", false, &["c"]), way("a/b", false, &["link"]), way("c", true, &["file"])];
        assert_eq!(ways(&root, &["c"], &["a/b/link/../file", "c/./file"]), expected);
    }
}
