//! Finds the handler libraries in the handlers folders and says on which resource path each one answers.
//!
//! `NAME_wsh.so` and `libNAME_wsh.so` answer on `/NAME`. Subfolders are segments of the path: `sub/chat_wsh.so` answers on
//! `/sub/chat`. Without a name, `_wsh.so` or `lib_wsh.so` answers for its folder: on `/`, in the subfolder `sub` on `/sub`.
//! A leading `lib` always counts as cargo's, so the handler of `/library` is the file `liblibrary_wsh.so`. Case matters.
//!
//! Only names and kinds of files are looked at here; no file is opened. What changes between the scan and the opening is
//! caught by `stage`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirEntry, FileType};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Handlers;

/// What the handlers folders hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// In the order of the folders, within a folder sorted by file path. No two have the same resource path.
    pub found: Vec<Found>,
    /// Files that are named like handler libraries and cannot be one, or not where they are.
    pub refused: Vec<Refused>,
    /// What an operator may want to know although nothing is wrong, a sentence each.
    pub notes: Vec<String>,
    /// Every folder that was looked through, as the paths of the libraries in it begin; the handlers folders are among them.
    /// A subfolder that could not be read is too, for it may become readable.
    pub folders: Vec<PathBuf>,
    /// Links that are named like handler libraries, sound or not, and handlers folders that are another name of one above. What
    /// they lead to may change where no folder tells.
    pub links: Vec<PathBuf>,
}

/// A file that is named like a handler library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, beginning with `folder` as it was configured.
    pub path: PathBuf,
    /// The handlers folder it was found in.
    pub folder: PathBuf,
    /// Resource path it answers on, percent-decoded, such as `/sub/chat`.
    pub resource: String,
    /// The resource path without its first slash: `sub/chat`. For the resource path `/` it is `/` too. Unique in a scan.
    pub name: String,
}

/// A file that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The file, as it was found.
    pub path: PathBuf,
    /// Why, in lower case without a full stop.
    pub reason: String,
}

/// Why the handlers folders cannot be scanned. The server does not start.
#[derive(Debug)]
pub enum ScanError {
    /// A handlers folder is missing, is not a folder, or may not be read.
    Folder {
        /// As it was configured.
        folder: PathBuf,
        /// What it was looked for from, if it is a relative path.
        working_folder: Option<PathBuf>,
        /// What the system said.
        error: io::Error,
    },
    /// The only folder that is to be scanned cannot be, or lies in no handlers folder.
    ScanDir {
        /// As it was configured.
        folder: PathBuf,
        /// The handlers folders, as they were configured.
        folders: Vec<PathBuf>,
        /// What the system said; `None` if it lies elsewhere.
        error: Option<io::Error>,
    },
    /// There is more in a handlers folder than anybody would put there.
    TooMuch {
        /// As it was configured.
        folder: PathBuf,
        /// What there is more of than the bound.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// No folder holds a library that can be served, and `handlers.allow_empty` is not set.
    Nothing {
        /// As they were configured.
        folders: Vec<PathBuf>,
        /// Files that were refused and the reasons.
        refused: Vec<Refused>,
        /// Shared libraries that are not named like a handler's.
        misnamed: Vec<PathBuf>,
    },
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HINT: &str =
            "build the handlers with `cargo build --release`, or name their folder with -w FOLDER";
        match self {
            Self::Folder { folder, working_folder, error } => {
                let folder = folder.display();
                match error.kind() {
                    io::ErrorKind::NotFound => write!(f, "there is no handlers folder {folder}"),
                    io::ErrorKind::NotADirectory => write!(f, "the handlers folder {folder} is not a folder"),
                    _ => write!(f, "cannot read the handlers folder {folder}: {error}"),
                }?;
                if let Some(working_folder) = working_folder {
                    write!(f, " (looked for from {})", working_folder.display())?;
                }
                write!(f, "; {HINT}")
            }
            Self::ScanDir { folder, error: Some(error), .. } => {
                write!(f, "cannot scan {} (handlers.scan_dir or -s): {error}", folder.display())
            }
            Self::ScanDir { folder, folders, error: None } => {
                let folder = folder.display();
                write!(f, "{folder} (handlers.scan_dir or -s) does not lie in {}", listed(folders))?;
                f.write_str("; name a folder below one of -w, as it is seen from where the server is started")
            }
            Self::TooMuch { folder, what, most } => {
                write!(
                    f,
                    "the handlers folder {} holds more than {most} {what}; is it the right one?",
                    folder.display()
                )
            }
            Self::Nothing { folders, refused, misnamed } => {
                write!(f, "no handler library (NAME_wsh{SUFFIX}) can be served from {}", listed(folders))?;
                for Refused { path, reason } in refused {
                    write!(f, "; refused {}: {reason}", path.display())?;
                }
                if let Some(file) = misnamed.first() {
                    write!(f, "; {} is not a handler's name, which ends in _wsh{SUFFIX}", file.display())?;
                }
                write!(f, "; {HINT}, or set handlers.allow_empty")
            }
        }
    }
}

impl std::error::Error for ScanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder { error, .. } | Self::ScanDir { error: Some(error), .. } => Some(error),
            Self::ScanDir { .. } | Self::TooMuch { .. } | Self::Nothing { .. } => None,
        }
    }
}

fn listed(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Where private copies live inside a handlers folder. Never scanned.
pub(super) const GENERATIONS_FOLDER: &str = ".wsh-generations";

/// How this platform's shared libraries end.
const SUFFIX: &str = std::env::consts::DLL_SUFFIX;

/// How the name of a handler library ends before the suffix.
const MARK: &str = "_wsh";

/// What tells a build folder of cargo, whose subfolders are not looked into.
pub(super) const BUILD_FOLDER_MARK: &str = ".fingerprint";

const DEPTH_MAX: usize = 16;
const LIBRARIES_MAX: usize = 4096;
pub(super) const ENTRIES_MAX: usize = 100_000;

/// Whether a file of this name is a handler library.
pub(crate) fn is_handler_name(name: &OsStr) -> bool {
    let stem = name.as_encoded_bytes().strip_suffix(SUFFIX.as_bytes());
    stem.is_some_and(|stem| stem.ends_with(MARK.as_bytes())) && !is_hidden(name)
}

/// Whether a library of this file answers for its folder, because its name is empty.
pub(crate) fn is_for_folder(file: &Path) -> bool {
    let stem = file.file_name().and_then(|name| name.as_encoded_bytes().strip_suffix(SUFFIX.as_bytes()));
    stem.is_some_and(|stem| stem == MARK.as_bytes() || stem == [b"lib", MARK.as_bytes()].concat())
}

/// Whether an entry of this name is left out, whatever it is.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Scans every handlers folder of the config. Reads the file system and blocks while it does.
///
/// # Errors
/// A folder that is missing or cannot be read, more than 4096 libraries or 100 000 files in one, or nothing to serve at all
/// unless `allow_empty` is set. What is wrong with a single file is no error but an entry in [`Scan::refused`].
pub fn scan(handlers: &Handlers) -> Result<Scan, ScanError> {
    let only = handlers.scan_dir.as_deref().map(|folder| scan_dir(folder, handlers)).transpose()?;
    let mut scan = Scan::default();
    let mut misnamed = Vec::new();
    let mut seen = BTreeSet::new();
    let mut taken = BTreeMap::new();
    for folder in &handlers.folders {
        let unreadable = |error| ScanError::Folder {
            folder: folder.clone(),
            working_folder: if folder.is_relative() { std::env::current_dir().ok() } else { None },
            error,
        };
        let real = folder.canonicalize().map_err(unreadable)?;
        if !seen.insert(real.clone()) {
            let note =
                format!("the handlers folder {} was named twice and is scanned once", folder.display());
            scan.notes.push(note);
            scan.links.push(folder.clone());
            continue;
        }
        let mut walk = Walk {
            handlers,
            folder,
            real: &real,
            libraries: Vec::new(),
            entries: 0,
            scan: &mut scan,
            misnamed: &mut misnamed,
        };
        let (start, depth) = match &only {
            None => (folder.clone(), 0),
            // Path::starts_with and strip_prefix compare whole components, also here.
            Some(only) => match only.strip_prefix(&real) {
                Ok(below) => (folder.join(below), below.components().count()),
                Err(_) => continue,
            },
        };
        walk.folder(&start, depth).map_err(|stop| match stop {
            Stop::Unreadable(error) => unreadable(error),
            Stop::TooMuch(what, most) => ScanError::TooMuch { folder: folder.clone(), what, most },
        })?;
        let libraries = std::mem::take(&mut walk.libraries);
        for library in libraries {
            take(library, &mut taken, &mut scan);
        }
    }
    if scan.found.is_empty() && !handlers.allow_empty {
        return Err(ScanError::Nothing {
            folders: handlers.folders.clone(),
            refused: scan.refused,
            misnamed,
        });
    }
    if scan.found.is_empty() {
        scan.notes.push("no handler library was found, and handlers.allow_empty is set".into());
    }
    scan.notes.extend(misnamed.iter().take(MISNAMED_NOTES_MAX).map(|file| {
        format!("{} is not loaded, because its name does not end in _wsh{SUFFIX}", file.display())
    }));
    Ok(scan)
}

/// Where `handlers.scan_dir` really is: in one of the handlers folders.
fn scan_dir(folder: &Path, handlers: &Handlers) -> Result<PathBuf, ScanError> {
    let wrong =
        |error| ScanError::ScanDir { folder: folder.to_owned(), folders: handlers.folders.clone(), error };
    let real = folder.canonicalize().map_err(|error| wrong(Some(error)))?;
    let mut roots = handlers.folders.iter().filter_map(|root| root.canonicalize().ok());
    if !real.is_dir() {
        return Err(wrong(Some(io::ErrorKind::NotADirectory.into())));
    }
    if roots.any(|root| real.starts_with(root)) { Ok(real) } else { Err(wrong(None)) }
}

/// A folder of other libraries should not drown what matters.
const MISNAMED_NOTES_MAX: usize = 5;

/// Takes a library in, unless another one has its resource path.
fn take(library: Found, taken: &mut BTreeMap<String, PathBuf>, scan: &mut Scan) {
    if let Some(first) = taken.get(&library.resource) {
        let reason = format!(
            "it would answer on {}, and {} does already; rename or remove one of the two",
            library.resource,
            first.display()
        );
        scan.refused.push(Refused { path: library.path, reason });
        return;
    }
    taken.insert(library.resource.clone(), library.path.clone());
    scan.found.push(library);
}

/// The walk through one handlers folder.
struct Walk<'a> {
    handlers: &'a Handlers,
    folder: &'a Path,
    real: &'a Path,
    libraries: Vec<Found>,
    entries: usize,
    scan: &'a mut Scan,
    misnamed: &'a mut Vec<PathBuf>,
}

/// Why a walk ends before its end.
enum Stop {
    Unreadable(io::Error),
    TooMuch(&'static str, usize),
}

impl Walk<'_> {
    /// Looks at every entry of a folder, sorted by name so that every run finds the same.
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), Stop> {
        let entries = match self.read(folder) {
            Ok(entries) => entries,
            // A subfolder may be private or gone meanwhile; the handlers folder itself may not.
            Err(Stop::Unreadable(error)) if depth > 0 => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.scan.folders.push(folder.to_owned());
                    self.refuse(folder, format!("cannot read this folder: {error}"));
                }
                return Ok(());
            }
            Err(stop) => return Err(stop),
        };
        self.scan.folders.push(folder.to_owned());
        // cargo keeps copies of what it built in the subfolders of a build folder, under names that end the same.
        let build_folder = entries.iter().any(|(entry, _)| entry.file_name() == BUILD_FOLDER_MARK);
        for (entry, kind) in entries {
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            let path = folder.join(&name);
            if !kind.is_dir() {
                self.file(&path, kind)?;
            } else if build_folder {
                continue;
            } else if depth + 1 == DEPTH_MAX {
                self.refuse(
                    &path,
                    format!("it lies more than {DEPTH_MAX} folders deep and is not looked into"),
                );
            } else {
                self.folder(&path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, folder: &Path) -> Result<Vec<(DirEntry, FileType)>, Stop> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(Stop::Unreadable)? {
            let entry = entry.map_err(Stop::Unreadable)?;
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(Stop::TooMuch("files", ENTRIES_MAX));
            }
            // An entry that is gone again was never there.
            if let Ok(kind) = entry.file_type() {
                entries.push((entry, kind));
            }
        }
        entries.sort_by_key(|(entry, _)| entry.file_name());
        Ok(entries)
    }

    fn file(&mut self, path: &Path, kind: FileType) -> Result<(), Stop> {
        let name = path.file_name().unwrap_or_default();
        if !is_handler_name(name) {
            if name.as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
                self.misnamed.push(path.to_owned());
            }
            return Ok(());
        }
        if kind.is_symlink() {
            self.scan.links.push(path.to_owned());
        }
        if let Err(reason) = self.kind(path, kind) {
            self.refuse(path, reason);
            return Ok(());
        }
        match resource(path.strip_prefix(self.folder).unwrap_or(path)) {
            Ok(_) if self.libraries.len() == LIBRARIES_MAX => {
                return Err(Stop::TooMuch("handler libraries", LIBRARIES_MAX));
            }
            Ok(resource) => {
                let name = if resource == "/" { &*resource } else { &resource[1..] };
                let name = name.to_owned();
                self.libraries.push(Found {
                    path: path.to_owned(),
                    folder: self.folder.to_owned(),
                    resource,
                    name,
                });
            }
            Err(reason) => self.refuse(path, reason),
        }
        Ok(())
    }

    /// Only files, and links to files that do not lead out of the handlers folder.
    fn kind(&self, path: &Path, kind: FileType) -> Result<(), String> {
        if !kind.is_symlink() {
            return if kind.is_file() { Ok(()) } else { Err("it is not a regular file".into()) };
        }
        let target = fs::read_link(path).unwrap_or_default();
        let target = target.display();
        let real = path.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("it is a link to {target}, which does not exist"),
            _ => format!("it is a link to {target}, which cannot be followed: {error}"),
        })?;
        // Path::starts_with compares whole components: /srv/handlers2 does not begin with /srv/handlers.
        if !self.handlers.follow_links_outside && !real.starts_with(self.real) {
            return Err(format!(
                "it is a link to {target}, outside of its handlers folder; copy the file here, or set \
                 handlers.follow_links_outside"
            ));
        }
        match fs::metadata(&real) {
            Ok(metadata) if metadata.is_file() => Ok(()),
            Ok(_) => Err(format!("it is a link to {target}, which is not a regular file")),
            Err(error) => Err(format!("it is a link to {target}, which cannot be looked at: {error}")),
        }
    }

    fn refuse(&mut self, path: &Path, reason: String) {
        self.scan.refused.push(Refused { path: path.to_owned(), reason });
    }
}

/// The resource path of a file, given its path below the handlers folder.
fn resource(below: &Path) -> Result<String, String> {
    let mut segments = Vec::new();
    for component in below {
        let Some(segment) = component.to_str() else {
            return Err("its path is not UTF-8 and could not be asked for".into());
        };
        segments.push(segment);
    }
    let file = segments.pop().unwrap_or_default();
    let stem = file.strip_suffix(SUFFIX).and_then(|file| file.strip_suffix(MARK)).unwrap_or(file);
    let name = stem.strip_prefix("lib").unwrap_or(stem);
    if !name.is_empty() {
        segments.push(name);
    }
    for segment in &segments {
        valid(segment)?;
    }
    Ok(format!("/{}", segments.join("/")))
}

/// A resource path is compared after percent-decoding, so nearly every character will do. These are the exceptions.
pub(crate) fn valid(segment: &str) -> Result<(), String> {
    if segment == "." || segment == ".." {
        return Err(format!("its name {segment:?} means a folder in the path of a URL"));
    }
    // Browsers turn a backslash into a slash; ?, # and % have meanings of their own.
    match segment.chars().find(|char| char.is_control() || "?#%\\".contains(*char)) {
        Some(char) => Err(format!("its name has the character {char:?}, which a resource path may not have")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A handlers folder with the named files, all empty.
    fn folder(files: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file.replace(".so", SUFFIX));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    fn handlers(folders: &[&Path]) -> Handlers {
        let folders = folders.iter().map(|folder| folder.to_path_buf()).collect();
        Handlers { folders, allow_empty: true, ..Handlers::default() }
    }

    fn scan_one(folder: &TempDir) -> Scan {
        scan(&handlers(&[folder.path()])).unwrap()
    }

    fn resources(scan: &Scan) -> Vec<&str> {
        scan.found.iter().map(|found| found.resource.as_str()).collect()
    }

    fn reason(scan: &Scan) -> &str {
        let [Refused { reason, .. }] = scan.refused.as_slice() else { panic!("{scan:?}") };
        reason
    }

    /// Both spellings of a name mean the same path, folders are segments, and a file without a name stands for its folder.
    #[test]
    fn file_names_are_resource_paths() {
        let folder = folder(&[
            "chat_wsh.so",
            "libecho_wsh.so",
            "_wsh.so",
            "sub/lib_wsh.so",
            "sub/deep/er_wsh.so",
            "dot.name-1~_wsh.so",
            "sp ace_wsh.so",
            "grüß_wsh.so",
            "liblibrary_wsh.so",
        ]);
        let scan = scan_one(&folder);
        let expected =
            ["/", "/chat", "/dot.name-1~", "/grüß", "/echo", "/library", "/sp ace", "/sub/deep/er", "/sub"];
        assert_eq!(resources(&scan), expected);
        assert!(scan.refused.is_empty() && scan.notes.is_empty(), "{scan:?}");
        let found = &scan.found[7];
        assert_eq!(found.name, "sub/deep/er");
        assert_eq!(found.folder, folder.path());
        assert_eq!(found.path, folder.path().join(format!("sub/deep/er_wsh{SUFFIX}")));
        assert_eq!(scan.found[0].name, "/");
    }

    /// Other files are not handlers; a library with another name is noted.
    #[test]
    fn other_files_are_left_alone() {
        let folder = folder(&[
            "chat_wsh.so",
            "chat_wsh.d",
            "UP_WSH.so",
            "libother.so",
            "a_wsh.so.1",
            "b_wsh.py",
            "wsh.so",
        ]);
        let scan = scan_one(&folder);
        assert_eq!(resources(&scan), ["/chat"]);
        assert_eq!(scan.notes.len(), 3);
        assert!(scan.notes[0].ends_with(&format!(
            "UP_WSH{SUFFIX} is not loaded, because its name does not end in _wsh{SUFFIX}"
        )));
    }

    /// Hidden files and folders, and so the private copies, are not scanned.
    #[test]
    fn hidden_entries_are_skipped() {
        let folder =
            folder(&[".wsh-generations/1-1/chat_wsh.so", ".git/a_wsh.so", ".b_wsh.so", "sub/.c/d_wsh.so"]);
        assert_eq!(
            scan_one(&folder),
            Scan {
                notes: vec!["no handler library was found, and handlers.allow_empty is set".into()],
                folders: vec![folder.path().to_owned(), folder.path().join("sub")],
                ..Scan::default()
            }
        );
    }

    /// In a cargo build folder only what cargo finished is looked at, not its own copies below.
    #[test]
    fn build_folder_is_scanned_flat() {
        let folder = folder(&[
            "release/.fingerprint/x",
            "release/libchat_wsh.so",
            "release/deps/libchat_wsh.so",
            "release/examples/demo_wsh.so",
        ]);
        assert_eq!(resources(&scan_one(&folder)), ["/release/chat"]);
        let release = folder.path().join("release");
        let scan = scan(&handlers(&[&release])).unwrap();
        assert_eq!(resources(&scan), ["/chat"]);
        assert_eq!(scan.folders, [release]);
    }

    /// The scan says which folders it went through, and which libraries are links, also those that lead nowhere yet.
    #[test]
    fn folders_and_links_are_told() {
        let folder = folder(&["one/chat_wsh.so", "two/sub/deep/README", "two/.hidden/a_wsh.so"]);
        let path = |name: &str| folder.path().join(name.replace(".so", SUFFIX));
        symlink(path("one/chat_wsh.so"), path("two/b_wsh.so")).unwrap();
        symlink("later", path("two/sub/c_wsh.so")).unwrap();
        symlink("one", path("two/linked")).unwrap();
        let scan = scan(&handlers(&[&path("two"), &path("one"), &path("two")])).unwrap();
        assert_eq!(scan.folders, ["two", "two/sub", "two/sub/deep", "one"].map(path));
        assert_eq!(scan.links, ["two/b_wsh.so", "two/sub/c_wsh.so", "two"].map(path));
    }

    /// Two files for one path: the first stays, the second is refused and both are named.
    #[test]
    fn second_file_for_a_path_is_refused() {
        let folder = folder(&[
            "one/libchat_wsh.so",
            "two/chat_wsh.so",
            "two/libchat_wsh.so",
            "three/sub_wsh.so",
            "three/sub/_wsh.so",
        ]);
        let path = |name: &str| folder.path().join(name);
        let scan = scan(&handlers(&[&path("two"), &path("one"), &path("three")])).unwrap();
        assert_eq!(resources(&scan), ["/chat", "/sub"]);
        assert_eq!(scan.found[0].path, path(&format!("two/chat_wsh{SUFFIX}")));
        assert_eq!(scan.refused.len(), 3);
        let Refused { path: refused, reason } = &scan.refused[1];
        assert_eq!(*refused, path(&format!("one/libchat_wsh{SUFFIX}")));
        let first = scan.found[0].path.display();
        assert_eq!(
            *reason,
            format!("it would answer on /chat, and {first} does already; rename or remove one of the two")
        );
    }

    /// A folder that is named twice, also by another name, is scanned once.
    #[test]
    fn folder_named_twice_is_scanned_once() {
        let folder = folder(&["h/chat_wsh.so"]);
        let link = folder.path().join("link");
        symlink("h", &link).unwrap();
        let scan = scan(&handlers(&[&folder.path().join("h"), &link])).unwrap();
        assert_eq!((resources(&scan), scan.refused.len(), scan.notes.len()), (vec!["/chat"], 0, 1));
        assert_eq!((scan.folders, scan.links), (vec![folder.path().join("h")], vec![link]));
    }

    /// A link may lead to a file of its handlers folder, and out of it only if that is allowed.
    #[test]
    fn link_out_of_the_folder_is_refused() {
        let folder = folder(&["h/chat_wsh.so", "h2/other_wsh.so"]);
        let path = |name: &str| folder.path().join(name.replace(".so", SUFFIX));
        symlink(path("h/chat_wsh.so"), path("h/alias_wsh.so")).unwrap();
        let inside = handlers(&[&path("h")]);
        assert_eq!(resources(&scan(&inside).unwrap()), ["/alias", "/chat"]);
        // The path of the target begins with the letters of the handlers folder.
        symlink(path("h2/other_wsh.so"), path("h/out_wsh.so")).unwrap();
        let refused = scan(&inside).unwrap();
        assert_eq!(resources(&refused), ["/alias", "/chat"]);
        assert!(
            reason(&refused).contains("outside of its handlers folder; copy the file here, or set"),
            "{refused:?}"
        );
        let outside = Handlers { follow_links_outside: true, ..inside };
        assert_eq!(resources(&scan(&outside).unwrap()), ["/alias", "/chat", "/out"]);
    }

    /// Only the subfolder is scanned, and its libraries have the paths that they have without; the second of two folders that
    /// begin with the same letters does not lie in the first.
    #[test]
    fn one_subfolder_alone_is_scanned() {
        let folder = folder(&["h/a_wsh.so", "h/sub/b_wsh.so", "h/sub/deep/_wsh.so", "h2/c_wsh.so"]);
        let path = |name: &str| folder.path().join(name);
        let only = |scan_dir: PathBuf| {
            scan(&Handlers { scan_dir: Some(scan_dir), ..handlers(&[&path("h")]) })
                .map_err(|error| error.to_string())
        };
        let found = only(path("h/sub")).unwrap();
        assert_eq!(resources(&found), ["/sub/b", "/sub/deep"]);
        assert_eq!(found.folders, [path("h/sub"), path("h/sub/deep")]);
        assert_eq!(found.found[0].folder, path("h"));
        assert_eq!(resources(&only(path("h")).unwrap()), ["/a", "/sub/b", "/sub/deep"]);
        assert_eq!(resources(&only(path("h2/../h/sub/deep")).unwrap()), ["/sub/deep"]);
        let outside = only(path("h2")).expect_err("not below it");
        assert!(outside.contains("h2 (handlers.scan_dir or -s) does not lie in"), "{outside}");
        let missing = only(path("h/none")).expect_err("there is none");
        assert!(missing.contains("cannot scan") && missing.contains("h/none"), "{missing}");
    }

    /// Links to nothing, to themselves and to folders are refused in words; links to folders are not descended.
    #[test]
    fn broken_links_are_refused() {
        let folder = folder(&["real/chat_wsh.so"]);
        let path = |name: &str| folder.path().join(name.replace(".so", SUFFIX));
        symlink("real", path("linked")).unwrap();
        symlink("nowhere", path("a_wsh.so")).unwrap();
        symlink(path("b_wsh.so"), path("b_wsh.so")).unwrap();
        symlink("real", path("c_wsh.so")).unwrap();
        let scan = scan_one(&folder);
        assert_eq!(resources(&scan), ["/real/chat"]);
        assert_eq!(scan.refused[0].reason, "it is a link to nowhere, which does not exist");
        assert!(scan.refused[1].reason.contains("which cannot be followed: "), "{scan:?}");
        assert_eq!(scan.refused[2].reason, "it is a link to real, which is not a regular file");
    }

    /// A pipe that is named like a library is refused without being opened, which would wait for a writer.
    #[test]
    fn pipe_is_refused() {
        let folder = folder(&[]);
        let pipe = folder.path().join(format!("pipe_wsh{SUFFIX}"));
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(reason(&scan_one(&folder)), "it is not a regular file");
    }

    /// Names that no URL could ask for are refused with the character.
    #[test]
    fn unreachable_names_are_refused() {
        for (name, shown) in
            [("a?b", "'?'"), ("a#b", "'#'"), ("a%20b", "'%'"), ("a\nb", "'\\n'"), ("a\\b", "'\\\\'")]
        {
            let folder = folder(&[&format!("{name}_wsh.so")]);
            let scan = scan_one(&folder);
            assert_eq!(
                reason(&scan),
                format!("its name has the character {shown}, which a resource path may not have")
            );
        }
        let folder = folder(&["%/a_wsh.so", "lib.._wsh.so", "lib._wsh.so"]);
        assert_eq!(scan_one(&folder).refused.len(), 3);
        let name = [b"\xff_wsh", SUFFIX.as_bytes()].concat();
        fs::write(folder.path().join(OsStr::from_bytes(&name)), "").unwrap();
        assert_eq!(scan_one(&folder).refused.len(), 4);
    }

    /// A folder that is missing or a file stops the start, with where it was looked for and what to do.
    #[test]
    fn missing_folder_is_an_error_with_a_hint() {
        let error = |folder: &Path| scan(&handlers(&[folder])).expect_err("no folder").to_string();
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            error(Path::new("no/such")),
            format!(
                "there is no handlers folder no/such (looked for from {}); build the handlers with `cargo build \
                 --release`, or name their folder with -w FOLDER",
                here.display()
            )
        );
        let folder = folder(&["file"]);
        let file = folder.path().join("file");
        assert!(
            error(&file).starts_with(&format!("the handlers folder {} is not a folder;", file.display()))
        );
    }

    /// Folders without a library are an error that tells what was there instead.
    #[test]
    fn nothing_to_serve_is_an_error() {
        let folder = folder(&["libchat.so", "a%_wsh.so"]);
        let handlers = Handlers { allow_empty: false, ..handlers(&[folder.path()]) };
        let error = scan(&handlers).expect_err("nothing to serve").to_string();
        assert!(
            error.starts_with(&format!("no handler library (NAME_wsh{SUFFIX}) can be served from /")),
            "{error}"
        );
        assert!(error.contains("its name has the character '%'"), "{error}");
        assert!(error.contains(&format!("libchat{SUFFIX} is not a handler's name")), "{error}");
        assert!(error.ends_with("or set handlers.allow_empty"), "{error}");
    }

    /// The walk ends at sixteen folders.
    #[test]
    fn depth_is_bounded() {
        let deep = |folders: usize| format!("{}x_wsh.so", "d/".repeat(folders));
        assert_eq!(scan_one(&folder(&[&deep(15)])).found.len(), 1);
        let scan = scan_one(&folder(&[&deep(16)]));
        assert_eq!(
            (scan.found.len(), reason(&scan)),
            (0, "it lies more than 16 folders deep and is not looked into")
        );
    }

    /// The number of libraries is bounded.
    #[test]
    fn number_of_libraries_is_bounded() {
        let names: Vec<_> = (0..=LIBRARIES_MAX).map(|number| format!("{number}_wsh.so")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let folder = folder(&names);
        let error = scan(&handlers(&[folder.path()])).expect_err("one too many").to_string();
        assert!(error.contains("holds more than 4096 handler libraries; is it the right one?"), "{error}");
    }
}
