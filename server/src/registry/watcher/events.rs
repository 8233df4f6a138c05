//! Events of the system, by the crate `notify`: inotify on Linux. They say when to look, never what changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::super::scan::{BUILD_FOLDER_MARK, is_handler_name, is_hidden};
use super::super::stat::Id;
use super::Shared;
use super::ways::{Interest, Ways};

/// Where the system is listened to. `notify` has a thread of its own for it, which ends soon after this is dropped and calls
/// nothing but [`Shared::touch`].
pub(super) struct Events {
    notify: RecommendedWatcher,
    ways: Arc<Mutex<Ways>>,
    heard: BTreeMap<PathBuf, Id>,
}

impl Events {
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self, String> {
        let ways = Arc::new(Mutex::new(Ways::default()));
        let (for_thread, shared) = (ways.clone(), shared.clone());
        let handler = move |event: notify::Result<Event>| {
            // An error may stand for any number of events.
            let meaning = event.map_or(Some(Meaning::Look), |event| {
                // Before the lock, because it is most of what there is: the looks themselves open folders.
                if is_reading(event.kind) { None } else { meaning(&event, &lock(&for_thread)) }
            });
            if let Some(meaning) = meaning {
                shared.touch(meaning == Meaning::ListenAnew);
            }
        };
        let notify = notify::recommended_watcher(handler).map_err(|error| in_words(&error))?;
        Ok(Self { notify, ways, heard: BTreeMap::new() })
    }

    /// Listens to these folders and to no others; with `anew` also where it thinks it does already. Returns the folders for which
    /// the system refused it, and why.
    pub(super) fn listen(&mut self, ways: Ways, anew: bool) -> Vec<(PathBuf, String)> {
        let wanted: Vec<_> = ways.folders().map(|(path, id)| (path.to_owned(), id)).collect();
        let notify = &mut self.notify;
        self.heard.retain(|path, id| {
            let stays = !anew && ways.get(path).is_some_and(|interest| interest.id == *id);
            if !stays {
                // It is no error that a folder that is gone was not listened to.
                let _ = notify.unwatch(path);
            }
            stays
        });
        *lock(&self.ways) = ways;
        let mut refused = Vec::new();
        let mut no_more = None;
        for (path, id) in wanted {
            if self.heard.contains_key(&path) {
                continue;
            }
            if self.heard.len() == FOLDERS_MAX {
                no_more.get_or_insert_with(|| format!("it would be the folder after {FOLDERS_MAX}"));
            }
            if let Some(why) = &no_more {
                refused.push((path, String::clone(why)));
                continue;
            }
            match self.notify.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.heard.insert(path, id);
                }
                // The next look finds it gone.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    let why = in_words(&error);
                    if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) {
                        no_more = Some(why.clone());
                    }
                    refused.push((path, why));
                }
            }
        }
        refused
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("heard", &self.heard).finish_non_exhaustive()
    }
}

/// The system has a limit for all programs of a user, who needs some elsewhere.
const FOLDERS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Look,
    /// A folder itself was removed or renamed, and with it what listens to it, although a folder of that name may be back.
    ListenAnew,
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn meaning(event: &Event, ways: &Ways) -> Option<Meaning> {
    if event.need_rescan() {
        return Some(Meaning::Look);
    }
    let mut meaning = None;
    for path in &event.paths {
        if ways.get(path).is_some() {
            if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
                return Some(Meaning::ListenAnew);
            }
            meaning = Some(Meaning::Look);
        }
        if let (Some(folder), Some(name)) =
            (path.parent().and_then(|folder| ways.get(folder)), path.file_name())
            && concerns(event.kind, name, folder)
        {
            meaning = Some(Meaning::Look);
        }
    }
    meaning
}

/// Whether an event about this name in a folder may be a change of what is watched.
fn concerns(kind: EventKind, name: &OsStr, folder: &Interest) -> bool {
    // Of other names only a subfolder's count; a rename does not tell what it was.
    let of_a_file = matches!(
        kind,
        EventKind::Create(CreateKind::File)
            | EventKind::Remove(RemoveKind::File)
            | EventKind::Modify(ModifyKind::Data(_))
            | EventKind::Access(_)
    );
    folder.names.contains(name)
        || folder.libraries
            && (is_handler_name(name) || name == BUILD_FOLDER_MARK || !of_a_file && !is_hidden(name))
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        }
        _ => false,
    }
}

fn in_words(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "the limit of watched folders is reached; raise fs.inotify.max_user_watches".into()
        }
        notify::ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => {
            format!("{error}; the limits are ulimit -n and fs.inotify.max_user_instances")
        }
        notify::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}

const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();

fn lock(ways: &Mutex<Ways>) -> std::sync::MutexGuard<'_, Ways> {
    ways.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, Flag, MetadataKind, RenameMode};

    use super::super::Watched;
    use super::*;

    fn event(kind: EventKind, path: PathBuf) -> Event {
        Event::new(kind).add_path(path)
    }

    /// Looks open folders, and libraries are read when they are loaded; neither may ask for a look.
    #[test]
    fn reading_asks_for_nothing() {
        let access =
            [AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read), AccessKind::Read];
        assert!(access.into_iter().all(|access| is_reading(EventKind::Access(access))));
        assert!(!is_reading(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(!is_reading(EventKind::Modify(ModifyKind::Any)));
    }

    /// An event asks for a look if it may be about something watched, and an overflow does, which is about anything.
    #[test]
    fn events_are_judged_by_folder_name_and_kind() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("h")).unwrap();
        let ways = Ways::to(&Watched { folders: vec![root.join("h")], files: vec![root.join("c.toml")] });
        let library = format!("h/a_wsh{}", std::env::consts::DLL_SUFFIX);
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let metadata = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        let (look, anew) = (Some(Meaning::Look), Some(Meaning::ListenAnew));
        let cases = [
            (data, &*library, look),
            (data, "h/a.rlib", None),
            (EventKind::Create(CreateKind::File), "h/a.rlib", None),
            (EventKind::Create(CreateKind::Folder), "h/sub", look),
            (EventKind::Create(CreateKind::Folder), "h/.sub", None),
            (EventKind::Create(CreateKind::Folder), "h/.fingerprint", look),
            (renamed, "h/sub", look),
            (metadata, "h/sub", look),
            (metadata, "h", look),
            (renamed, "h", anew),
            (EventKind::Remove(RemoveKind::Folder), "h", anew),
            (EventKind::Create(CreateKind::Folder), "h", look),
            (data, "c.toml", look),
            (data, "d.toml", None),
            (EventKind::Create(CreateKind::Folder), "sub", None),
            (data, "elsewhere/c.toml", None),
        ];
        for (kind, path, expected) in cases {
            assert_eq!(meaning(&event(kind, root.join(path)), &ways), expected, "{kind:?} of {path}");
        }
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(meaning(&overflow, &ways), look);
    }
}
