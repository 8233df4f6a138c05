//! Copies a handler library to a private place, because a file that others write to must never be mapped.
//!
//! In: a file that `scan` found. Out: a copy under a name that no other copy has in the life of this process. The loader takes two
//! files of one name for the same library, and a mapped file that is overwritten ends the server with SIGBUS; neither can
//! happen to the copies.
//!
//! The copies of a process lie in a folder of its own, `.wsh-generations/<pid>-<number>` inside the handlers folder: on the same
//! file system, so with the same right to be executed. What a process that died has left is removed by the next one.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::Timespec;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use sha2::{Digest, Sha256};

use super::check::{LibraryInfo, never_unload_flags};
use super::scan::{Found, GENERATIONS_FOLDER};
use crate::config::Handlers;

/// Makes private copies for one server. May be used from several threads at once.
///
/// Each handlers folder gets its private folder with the first copy. The private folders live as long as the stage or a copy in
/// them, whichever is longer; then they are removed.
#[derive(Debug)]
pub struct Stage {
    library_bytes_max: u64,
    follow_links_outside: bool,
    stage_folder: Option<PathBuf>,
    stable: Duration,
    settle_max: Duration,
    /// Handlers folder and the private folder for its libraries.
    private: Mutex<Vec<(PathBuf, Arc<PrivateFolder>)>>,
}

impl Stage {
    /// A stage by the rules of the config: largest library, links, folder of the copies. Touches no file yet.
    pub fn new(handlers: &Handlers) -> Self {
        Self {
            library_bytes_max: handlers.library_bytes_max,
            follow_links_outside: handlers.follow_links_outside,
            stage_folder: handlers.stage_folder.clone(),
            stable: STABLE,
            settle_max: SETTLE_MAX,
            private: Mutex::default(),
        }
    }

    /// Takes a file for complete when it has not changed for this long. Default 50 ms.
    #[must_use]
    pub fn stable_for(self, stable: Duration) -> Self {
        Self { stable, ..self }
    }

    /// Copies a library. Blocks the thread while the file is read and written, and up to 5 s more while it is still changing.
    ///
    /// # Errors
    /// A file that cannot be opened or is no longer what the scan saw, that is too small or too large, or that does not come to
    /// rest; no place for the copy.
    pub fn stage(&self, found: &Found) -> Result<Staged, StageError> {
        let mut file = self.open(found)?;
        let bytes = self.read(&mut file)?;
        let folder = self.private_folder(&found.folder)?;
        let number = next_number();
        let path =
            folder.path.join(format!("{}.g{number}{}", file_name(&found.name), std::env::consts::DLL_SUFFIX));
        let staged = Staged {
            path,
            number,
            hash: Sha256::digest(&bytes).into(),
            size: bytes.len() as u64,
            bytes,
            folder,
        };
        // From here on the copy is removed by `Staged`, also where it is written in part.
        private_file(&staged.path)
            .and_then(|mut copy| copy.write_all(&staged.bytes))
            .map_err(|error| StageError::Write { path: staged.path.clone(), error })?;
        Ok(staged)
    }

    /// Copies a copy, under a name of its own.
    ///
    /// # Errors
    /// The first copy cannot be read any more, or there is no place for another.
    pub fn copy(&self, original: &Staged, name: &str) -> Result<Staged, StageError> {
        let bytes = fs::read(&original.path).map_err(StageError::Read)?;
        let number = next_number();
        let folder = original.folder.clone();
        let path = folder.path.join(format!("{}.g{number}{}", file_name(name), std::env::consts::DLL_SUFFIX));
        let staged =
            Staged { path, number, hash: original.hash, size: original.size, bytes: Vec::new(), folder };
        private_file(&staged.path)
            .and_then(|mut copy| copy.write_all(&bytes))
            .map_err(|error| StageError::Write { path: staged.path.clone(), error })?;
        Ok(staged)
    }

    /// Opens the file that the scan saw, and no other that somebody put in its place meanwhile.
    fn open(&self, found: &Found) -> Result<File, StageError> {
        let folder = found.folder.canonicalize().map_err(StageError::Open)?;
        let real = found.path.canonicalize().map_err(StageError::Open)?;
        let file = match real.strip_prefix(&folder) {
            Ok(below) => open_beneath(&folder, below),
            Err(_) if self.follow_links_outside => {
                open_beneath(Path::new("/"), real.strip_prefix("/").unwrap_or(&real))
            }
            Err(_) => return Err(StageError::Outside(real)),
        };
        let file = File::from(file.map_err(|error| match error {
            rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => StageError::Replaced,
            error => StageError::Open(error.into()),
        })?);
        let metadata = file.metadata().map_err(StageError::Open)?;
        if metadata.is_file() { Ok(file) } else { Err(StageError::NotRegular) }
    }

    /// Reads the whole file once it has come to rest, and again if it changed meanwhile.
    fn read(&self, file: &mut File) -> Result<Vec<u8>, StageError> {
        let deadline = Instant::now() + self.settle_max;
        loop {
            let before = Look::at(file)?;
            // A clock that was set back makes a file from the future; that one counts as just written.
            let age = SystemTime::now().duration_since(before.modified).unwrap_or_default();
            if age < self.stable {
                wait(self.stable - age);
            }
            if Look::at(file)? == before {
                before.size_within(self.library_bytes_max)?;
                let bytes = read_at_most(file, before.size).map_err(StageError::Read)?;
                if Look::at(file)? == before && bytes.len() as u64 == before.size {
                    return Ok(bytes);
                }
            }
            if Instant::now() >= deadline {
                return Err(StageError::Changing(self.settle_max));
            }
        }
    }

    fn private_folder(&self, handlers_folder: &Path) -> Result<Arc<PrivateFolder>, StageError> {
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, folder)) = private.iter().find(|(folder, _)| folder == handlers_folder) {
            return Ok(folder.clone());
        }
        let mut tried = Vec::new();
        for container in self.containers(handlers_folder) {
            match PrivateFolder::create(&container) {
                Ok(folder) => {
                    let folder = Arc::new(folder);
                    private.push((handlers_folder.to_owned(), folder.clone()));
                    return Ok(folder);
                }
                Err(error) => tried.push((container, error)),
            }
        }
        Err(StageError::NoFolder(tried))
    }

    /// Where private folders may lie, the best place first. A place that was configured is the only one.
    fn containers(&self, handlers_folder: &Path) -> Vec<PathBuf> {
        if let Some(folder) = &self.stage_folder {
            return vec![folder.join(GENERATIONS_FOLDER)];
        }
        let mut containers = vec![handlers_folder.join(GENERATIONS_FOLDER)];
        if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
            containers.push(Path::new(&folder).join("wshd-generations"));
        }
        let user = rustix::process::geteuid().as_raw();
        containers.push(std::env::temp_dir().join(format!("wshd-generations-{user}")));
        containers
    }
}

/// How long a file must not have changed.
const STABLE: Duration = Duration::from_millis(50);

/// How long to wait for a file to come to rest.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// No linker makes a library smaller than this.
const LIBRARY_BYTES_MIN: u64 = 1024;

/// A private copy of a handler library. Dropping it removes the file; whoever maps it keeps it.
pub struct Staged {
    path: PathBuf,
    number: u64,
    hash: [u8; 32],
    size: u64,
    bytes: Vec<u8>,
    folder: Arc<PrivateFolder>,
}

impl Staged {
    /// The copy, for dlopen. Absolute, and never the same for two copies of this process.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts the copies of this process; the number in the file name.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// SHA-256 of the library as it was in the handlers folder. The same hash is the same library.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Bytes of the library.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The library as it was in the handlers folder, for `check`. Empty after [`Staged::prepare`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes the checked copy ready to be loaded and frees the memory of its bytes.
    ///
    /// A library may ask the loader never to unload it (`-z nodelete`, which a future rustc may set for every library). The copy
    /// does not ask so any more, because its generation ends its threads before it unloads it; unless its info says that
    /// its code still runs then.
    ///
    /// # Errors
    /// The copy cannot be written to.
    pub fn prepare(&mut self, info: &LibraryInfo) -> Result<(), StageError> {
        let bytes = std::mem::take(&mut self.bytes);
        let flags = if info.never_unloads() { Vec::new() } else { never_unload_flags(&bytes) };
        if flags.is_empty() {
            return Ok(());
        }
        let write = || {
            let copy = OpenOptions::new().write(true).custom_flags(NOFOLLOW).open(&self.path)?;
            flags.iter().try_for_each(|(at, value)| copy.write_all_at(value, *at as u64))
        };
        write().map_err(|error| StageError::Write { path: self.path.clone(), error })
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the bytes, which may be many millions.
        let Self { path, number, size, .. } = self;
        f.debug_struct("Staged")
            .field("path", path)
            .field("number", number)
            .field("size", size)
            .finish_non_exhaustive()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Whatever goes wrong here is put right when the private folder is removed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Why there is no private copy of a library.
#[derive(Debug)]
#[non_exhaustive]
pub enum StageError {
    /// The file cannot be opened.
    Open(io::Error),
    /// It is a link that leads out of its handlers folder by now; where to.
    Outside(PathBuf),
    /// Another file took its place while it was being opened.
    Replaced,
    /// It is a folder, a pipe or a device.
    NotRegular,
    /// Its size in bytes, which is below any library's.
    TooSmall(u64),
    /// It is larger than `handlers.library_bytes_max`.
    TooLarge {
        /// Bytes of the file.
        size: u64,
        /// The limit.
        most: u64,
    },
    /// It was written to all this time.
    Changing(Duration),
    /// The file cannot be read.
    Read(io::Error),
    /// No place for the copy; the folders that were tried, and why not there.
    NoFolder(Vec<(PathBuf, io::Error)>),
    /// The copy cannot be written.
    Write {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "cannot open the file: {error}"),
            Self::Outside(target) => write!(
                f,
                "it leads to {}, outside of its handlers folder; copy the file here, or set handlers.follow_links_outside",
                target.display()
            ),
            Self::Replaced => f.write_str("another file took its place while it was being opened"),
            Self::NotRegular => f.write_str("it is not a regular file"),
            Self::TooSmall(size) => {
                write!(f, "the file has only {size} bytes: it is truncated or still being written")
            }
            Self::TooLarge { size, most } => {
                write!(f, "the file has {size} bytes, more than handlers.library_bytes_max, which is {most}")
            }
            Self::Changing(time) => write!(f, "the file was still changing after {} s", time.as_secs_f64()),
            Self::Read(error) => write!(f, "cannot read the file: {error}"),
            Self::NoFolder(tried) => {
                f.write_str("there is no folder for private copies; set handlers.stage_folder")?;
                tried.iter().try_for_each(|(folder, error)| write!(f, "; {}: {error}", folder.display()))
            }
            Self::Write { path, error } => {
                write!(f, "cannot write the private copy {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for StageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) | Self::Read(error) | Self::Write { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What tells whether a file changed.
#[derive(PartialEq)]
struct Look {
    size: u64,
    modified: SystemTime,
}

impl Look {
    fn at(file: &File) -> Result<Self, StageError> {
        let look = |metadata: fs::Metadata| Ok(Self { size: metadata.len(), modified: metadata.modified()? });
        file.metadata().and_then(look).map_err(StageError::Read)
    }

    fn size_within(&self, most: u64) -> Result<(), StageError> {
        match self.size {
            size if size < LIBRARY_BYTES_MIN => Err(StageError::TooSmall(size)),
            size if size > most => Err(StageError::TooLarge { size, most }),
            _ => Ok(()),
        }
    }
}

/// Reads from the beginning; one byte more than `size` where the file has grown meanwhile.
fn read_at_most(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default().saturating_add(1));
    file.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Blocks for this long or a little less.
fn wait(time: Duration) {
    if let Ok(time) = Timespec::try_from(time) {
        let _ = rustix::event::poll(&mut [], Some(&time));
    }
}

/// Opens a file below a folder, both given as real paths. A link anywhere below the folder was not there when the path was
/// resolved and is refused. Without O_NONBLOCK a pipe that took the place of the file would wait for a writer.
fn open_beneath(folder: &Path, below: &Path) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let folder =
        rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&folder, below, flags, Mode::empty(), resolve) {
            // Linux before 5.6, or a sandbox that does not know the call.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            opened => return opened,
        }
    }
    rustix::fs::openat(&folder, below, flags, Mode::empty())
}

/// A file that only this user can open, made new.
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits() as i32;

/// A handler name as part of a file name. Different names may become one; the number tells the files apart.
fn file_name(name: &str) -> String {
    if name == "/" {
        return "root".into();
    }
    let plain = |char: char| if char.is_alphanumeric() || "-_.".contains(char) { char } else { '-' };
    // File names have 255 bytes, and a character has up to four.
    name.chars().take(48).map(plain).collect()
}

/// A number that nothing else in this process has. It is static because the names of copies must differ for as long as any
/// library is mapped, which may be longer than the life of the server that mapped it.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A folder for the copies of one process, which no other user can enter. It is marked as in use by a lock that ends with the
/// process, however it ends.
#[derive(Debug)]
struct PrivateFolder {
    path: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

impl PrivateFolder {
    /// Removes what dead processes left in the container and makes a new folder in it.
    fn create(container: &Path) -> io::Result<Self> {
        for _ in 0..CREATE_ATTEMPTS_MAX {
            own(container)?;
            // dlopen needs an absolute path, for it looks up relative ones elsewhere.
            let container = container.canonicalize()?;
            sweep(&container);
            let path = container.join(format!("{}-{}", std::process::id(), next_number()));
            match Self::create_locked(&path) {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock }),
                // In a container process numbers repeat, so the name may be taken.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // The last copy of another server was removed, and the container with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("every name for a private folder is taken"))
    }

    /// `None` if a sweep took the folder for a dead one in the moment before it was locked.
    fn create_locked(path: &Path) -> io::Result<Option<File>> {
        DirBuilder::new().mode(0o700).create(path)?;
        let lock = private_file(&path.join(LOCK))?;
        if !try_lock(&lock)? {
            return Ok(None);
        }
        let still_there = fs::symlink_metadata(path.join(LOCK)).is_ok_and(|found| {
            lock.metadata().is_ok_and(|mine| (mine.dev(), mine.ino()) == (found.dev(), found.ino()))
        });
        Ok(still_there.then_some(lock))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        // Leaves the handlers folder as it was found, unless another server has copies there.
        if let Some(container) = self.path.parent() {
            let _ = fs::remove_dir(container);
        }
    }
}

const CREATE_ATTEMPTS_MAX: usize = 100;

/// Makes the container if it is missing, and refuses one that others could put files into.
fn own(container: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(container) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => return created,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let metadata = File::from(rustix::fs::open(container, flags, Mode::empty())?).metadata()?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("other users can write to it"));
    }
    // Opening says nothing about writing, and the lock file would be too late to find another place.
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    Ok(rustix::fs::accessat(rustix::fs::CWD, container, access, AtFlags::EACCESS)?)
}

/// Removes the private folders of processes that are gone. Everything that goes wrong is left to the next start.
fn sweep(container: &Path) {
    let Ok(entries) = fs::read_dir(container) else { return };
    for entry in entries.flatten().take(SWEEP_MAX) {
        let name = entry.file_name();
        let ours = |name: &str| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            name.split_once('-').is_some_and(|(pid, number)| digits(pid) && digits(number))
        };
        if name.to_str().is_some_and(ours) && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A start should not take long, however many processes crashed before.
const SWEEP_MAX: usize = 1000;

/// Whether nobody holds the lock of a private folder. One without a lock is being made just now, unless it is old.
fn is_abandoned(folder: &Path) -> bool {
    let lock = OpenOptions::new().read(true).write(true).custom_flags(NOFOLLOW).open(folder.join(LOCK));
    match lock {
        Ok(lock) => try_lock(&lock).unwrap_or(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let age = fs::symlink_metadata(folder)
                .and_then(|metadata| metadata.modified())
                .map(|time| time.elapsed());
            matches!(age, Ok(Ok(age)) if age > Duration::from_secs(60))
        }
        Err(_) => false,
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::mpsc;
    use std::thread;

    use tempfile::TempDir;

    use super::super::check::check;
    use super::super::check::tests::{SOUND, compile};
    use super::*;

    /// A handlers folder with one file `a_wsh.so`, written long ago.
    fn folder_with(bytes: &[u8]) -> (TempDir, Found) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_wsh.so");
        fs::write(&path, bytes).unwrap();
        age(&path);
        let found = Found { path, folder: folder.path().to_owned(), resource: "/a".into(), name: "a".into() };
        (folder, found)
    }

    fn age(path: &Path) {
        File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }

    fn stage() -> Stage {
        Stage::new(&Handlers::default())
    }

    fn refusal(stage: &Stage, found: &Found) -> String {
        stage.stage(found).expect_err("no copy").to_string()
    }

    fn container(folder: &TempDir) -> PathBuf {
        folder.path().join(GENERATIONS_FOLDER)
    }

    /// The copy is whole, private, and lies beside the library.
    #[test]
    fn copy_is_whole_and_private() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let (folder, found) = folder_with(&bytes);
        let stage = stage();
        let staged = stage.stage(&found).unwrap();
        assert_eq!(staged.bytes(), bytes);
        assert_eq!(staged.size(), 100_000);
        assert_eq!(staged.hash()[..], Sha256::digest(&bytes)[..]);
        assert_eq!(fs::read(staged.path()).unwrap(), bytes);
        assert!(
            staged.path().is_absolute()
                && staged.path().starts_with(container(&folder).canonicalize().unwrap())
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(staged.path()), 0o600);
        assert_eq!(mode(staged.path().parent().unwrap()), 0o700);
        assert_eq!(mode(&container(&folder)), 0o700);
        let name = staged.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("a.g{}{}", staged.number(), std::env::consts::DLL_SUFFIX));
    }

    /// No two copies have one path, also not from two stages one after the other, also not from many threads.
    #[test]
    fn names_are_never_reused() {
        let (_folder, found) = folder_with(&[1; 2000]);
        let mut paths = BTreeSet::new();
        for _ in 0..3 {
            let stage = stage();
            thread::scope(|scope| {
                let copies: Vec<_> =
                    (0..8).map(|_| scope.spawn(|| stage.stage(&found).unwrap().path().to_owned())).collect();
                for copy in copies {
                    assert!(paths.insert(copy.join().unwrap()));
                }
            });
        }
        assert_eq!(paths.len(), 24);
    }

    /// A copy lives as long as its `Staged`, the folder as long as the last of them; then nothing is left.
    #[test]
    fn nothing_is_left_behind() {
        let (folder, found) = folder_with(&[1; 2000]);
        let stage = stage();
        let (one, two) = (stage.stage(&found).unwrap(), stage.stage(&found).unwrap());
        let (path_one, path_two) = (one.path().to_owned(), two.path().to_owned());
        drop(one);
        assert!(!path_one.exists() && path_two.exists());
        drop(stage);
        assert!(path_two.exists());
        drop(two);
        assert!(!container(&folder).exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// What a dead process left is removed at the next start; what a living one uses stays, and so do foreign files.
    #[test]
    fn leftovers_of_dead_processes_are_removed() {
        let (folder, found) = folder_with(&[1; 2000]);
        let living = stage();
        let used = living.stage(&found).unwrap();
        let dead = container(&folder).join("4194305-7");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("a.g1.so"), "").unwrap();
        let (newborn, foreign) = (container(&folder).join("4194305-8"), container(&folder).join("notes"));
        fs::create_dir(&newborn).unwrap();
        fs::create_dir(&foreign).unwrap();
        let second = stage();
        let other = second.stage(&found).unwrap();
        assert!(!dead.exists());
        assert!(used.path().exists() && other.path().exists() && newborn.exists() && foreign.exists());
        assert_ne!(used.path().parent(), other.path().parent());
        File::open(&newborn).unwrap().set_modified(SystemTime::now() - Duration::from_secs(120)).unwrap();
        sweep(&container(&folder));
        assert!(!newborn.exists(), "a folder that was never locked is removed once it is old");
    }

    /// Too small and too large files are refused with the numbers.
    #[test]
    fn size_is_bounded() {
        let (_folder, found) = folder_with(&[1; 1023]);
        assert_eq!(
            refusal(&stage(), &found),
            "the file has only 1023 bytes: it is truncated or still being written"
        );
        let (_folder, found) = folder_with(&[1; 3000]);
        let small = Stage::new(&Handlers { library_bytes_max: 2999, ..Handlers::default() });
        let text = refusal(&small, &found);
        assert_eq!(text, "the file has 3000 bytes, more than handlers.library_bytes_max, which is 2999");
        stage().stage(&found).unwrap();
    }

    /// A file that is written slowly is copied when it is whole, not before.
    #[test]
    fn slow_writer_is_waited_for() {
        let (_folder, found) = folder_with(&[]);
        let (first, begun) = mpsc::sync_channel(1);
        let path = found.path.clone();
        let writer = thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            for _ in 0..20 {
                file.write_all(&[7; 1000]).unwrap();
                let _ = first.try_send(());
                wait(Duration::from_millis(10));
            }
        });
        begun.recv().unwrap();
        let staged = stage().stable_for(Duration::from_secs(1)).stage(&found).unwrap();
        assert_eq!(staged.size(), 20_000);
        writer.join().unwrap();
    }

    /// A file that never comes to rest is given up.
    #[test]
    fn file_that_never_rests_is_refused() {
        let (_folder, found) = folder_with(&[1; 2000]);
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        let (first, begun) = mpsc::sync_channel(1);
        let path = found.path.clone();
        let writer = thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                file.write_all(&[7; 10]).unwrap();
                let _ = first.try_send(());
            }
        });
        begun.recv().unwrap();
        let impatient = Stage { settle_max: Duration::from_millis(700), ..stage() };
        let text = refusal(&impatient.stable_for(Duration::from_millis(500)), &found);
        drop(stop);
        writer.join().unwrap();
        assert_eq!(text, "the file was still changing after 0.7 s");
    }

    /// A file that was replaced by a link, a pipe or a folder since the scan is not opened as what it was.
    #[test]
    fn replaced_file_is_refused() {
        let (folder, found) = folder_with(&[1; 2000]);
        let (outside, target) = folder_with(&[2; 2000]);
        fs::remove_file(&found.path).unwrap();
        assert!(refusal(&stage(), &found).starts_with("cannot open the file: No such file"));
        symlink(&target.path, &found.path).unwrap();
        let text = refusal(&stage(), &found);
        assert!(
            text.ends_with(
                "outside of its handlers folder; copy the file here, or set handlers.follow_links_outside"
            ),
            "{text}"
        );
        let follow = Stage::new(&Handlers { follow_links_outside: true, ..Handlers::default() });
        assert_eq!(follow.stage(&found).unwrap().bytes(), [2; 2000]);
        fs::remove_file(&found.path).unwrap();
        fs::write(folder.path().join("real"), [3; 2000]).unwrap();
        symlink("real", &found.path).unwrap();
        assert_eq!(stage().stage(&found).unwrap().bytes(), [3; 2000]);
        fs::remove_file(&found.path).unwrap();
        fs::create_dir(&found.path).unwrap();
        assert_eq!(refusal(&stage(), &found), "it is not a regular file");
        fs::remove_dir(&found.path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &found.path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(refusal(&stage(), &found), "it is not a regular file");
        drop(outside);
    }

    /// The path was resolved before the link was there: opening it does not follow the link.
    #[test]
    fn link_that_appears_late_is_not_followed() {
        let (folder, _) = folder_with(&[1; 2000]);
        symlink("a_wsh.so", folder.path().join("late")).unwrap();
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(open_beneath(&real, Path::new("late")).unwrap_err(), rustix::io::Errno::LOOP);
        open_beneath(&real, Path::new("a_wsh.so")).unwrap();
    }

    /// Where the handlers folder cannot hold the copies, they go to the temporary folder; a place of one's own is used as named.
    #[test]
    fn copies_have_other_places_to_go() {
        let (folder, found) = folder_with(&[1; 2000]);
        // A file in the way stands for a read-only folder, which does not stop a test that runs as root.
        fs::write(container(&folder), "").unwrap();
        let staged = stage().stage(&found).unwrap();
        assert!(!staged.path().starts_with(folder.path().canonicalize().unwrap()));
        assert!(staged.path().exists());
        let place = tempfile::tempdir().unwrap();
        let own =
            Stage::new(&Handlers { stage_folder: Some(place.path().to_owned()), ..Handlers::default() });
        assert!(own.stage(&found).unwrap().path().starts_with(place.path().canonicalize().unwrap()));
        let missing =
            Stage::new(&Handlers { stage_folder: Some(place.path().join("no")), ..Handlers::default() });
        let text = refusal(&missing, &found);
        assert!(
            text.starts_with("there is no folder for private copies; set handlers.stage_folder; /"),
            "{text}"
        );
    }

    /// A container that others can write to is not used.
    #[test]
    fn open_container_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let container = folder.path().join("c");
        fs::create_dir(&container).unwrap();
        fs::set_permissions(&container, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(PrivateFolder::create(&container).unwrap_err().to_string(), "other users can write to it");
        symlink("c", folder.path().join("l")).unwrap();
        PrivateFolder::create(&folder.path().join("l")).expect_err("a link is not a container");
    }

    /// The copy of a library that asks never to be unloaded does not ask any more, unless its info says that it must not be.
    #[test]
    fn wish_to_stay_is_cleared_in_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        let copy = |name: &str, source: &str| {
            let path = compile(folder.path(), name, source, &["-Wl,-z,nodelete"]);
            let found =
                Found { path, folder: folder.path().to_owned(), resource: "/".into(), name: name.into() };
            let mut staged = stage().stage(&found).unwrap();
            let info = check(staged.bytes()).unwrap();
            let original = staged.bytes().to_vec();
            staged.prepare(&info).unwrap();
            assert!(staged.bytes().is_empty());
            let copied = fs::read(staged.path()).unwrap();
            check(&copied).unwrap();
            assert_eq!(fs::read(&found.path).unwrap(), original);
            original.iter().zip(&copied).filter(|(one, other)| one != other).count()
        };
        assert_eq!(copy("plain", SOUND), 1);
        assert_eq!(copy("go", &SOUND.replace(", 0);", ", WSH_LIBRARY_NO_UNLOAD);")), 0);
    }

    /// Names of handlers become names of files.
    #[test]
    fn file_names_are_plain() {
        assert_eq!(file_name("/"), "root");
        assert_eq!(file_name("sub/grüß 1"), "sub-grüß-1");
        assert!(file_name(&"ü".repeat(200)).len() < 200);
    }
}
