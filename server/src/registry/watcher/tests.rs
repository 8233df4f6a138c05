//! Every way to write a library is noticed, and nothing else is. Tests with events look by themselves only once an hour, so that
//! what they notice they were told.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::SystemTime;

use tempfile::TempDir;

use super::super::scan::{Scan, scan};
use super::*;
use crate::config::Handlers;

/// Resource path and contents of every library, sound or refused.
type Libraries = BTreeMap<String, String>;

const NEVER: Duration = Duration::from_secs(3600);
const OFTEN: Duration = Duration::from_millis(50);

/// Longer than any test takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry in small: when it is told that something changed, it scans, and watches what the scan went through.
struct Registry {
    root: TempDir,
    handlers: Handlers,
    watcher: Watcher,
    told: Receiver<()>,
    calls: Arc<AtomicUsize>,
    found: Libraries,
}

impl Registry {
    /// With the handlers folders `h` and `i` and a folder `store` that is not watched.
    fn start(mode: WatchMode, poll: Duration) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["h", "i", "store"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self::start_in(root, &["h", "i"], mode, poll)
    }

    fn start_in(root: TempDir, folders: &[&str], mode: WatchMode, poll: Duration) -> Self {
        let folders = folders.iter().map(|folder| root.path().join(folder)).collect();
        let handlers =
            Handlers { folders, allow_empty: true, follow_links_outside: true, ..Handlers::default() };
        let (tell, told) = sync_channel(1);
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let watcher = Watcher::start(mode, poll, move || {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = tell.try_send(());
        });
        let mut registry = Self { root, handlers, watcher, told, calls, found: Libraries::new() };
        registry.rescan();
        registry.settle();
        registry
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below.replace(".so", std::env::consts::DLL_SUFFIX))
    }

    /// Runs a program; words that begin with `@` are paths of this test.
    fn run(&self, command: &str) {
        let words = command.split(' ').map(|word| match word.strip_prefix('@') {
            Some(below) => self.path(below).into_os_string(),
            None => word.into(),
        });
        let words: Vec<_> = words.collect();
        let status = Command::new(&words[0]).args(&words[1..]).status();
        assert!(status.unwrap_or_else(|error| panic!("{command}: {error}")).success(), "{command}");
    }

    fn write(&self, below: &str, text: &str) {
        fs::write(self.path(below), text).unwrap();
    }

    /// What is there now, by a scan like any other.
    fn scan(&self) -> Option<(Scan, Libraries)> {
        let scan = scan(&self.handlers).ok()?;
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| error.kind().to_string());
        let found = scan.found.iter().map(|found| (found.resource.clone(), read(&found.path)));
        let refused =
            scan.refused.iter().map(|refused| (refused.path.display().to_string(), read(&refused.path)));
        let libraries = found.chain(refused).collect();
        Some((scan, libraries))
    }

    fn rescan(&mut self) {
        let Some((scan, found)) = self.scan() else { return };
        self.found = found;
        self.watcher.watch(Watched { folders: scan.folders, files: scan.links });
    }

    /// Waits until it is told and finds what is there.
    fn notices(&mut self, what: &str) {
        let (_, there) = self.scan().expect("the folders are there");
        assert_ne!(self.found, there, "{what} changes nothing");
        self.finds(what, &there);
    }

    fn finds(&mut self, what: &str, expected: &Libraries) {
        let deadline = Instant::now() + PATIENCE;
        while self.found != *expected {
            let left = deadline.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left);
            told.unwrap_or_else(|error| {
                panic!("{what} went unnoticed ({error}): {:?} instead of {expected:?}", self.found)
            });
            self.rescan();
        }
    }

    fn looks(&self) -> u64 {
        self.watcher.shared.lock().looks
    }

    /// Waits until the watcher has looked at everything that happened before this call, and follows what it says.
    fn settle(&mut self) {
        loop {
            let calls = self.calls.load(Ordering::Relaxed);
            // One look may have begun before.
            self.look_once();
            self.look_once();
            while self.told.try_recv().is_ok() {
                self.rescan();
            }
            if self.calls.load(Ordering::Relaxed) == calls {
                return;
            }
        }
    }

    /// As `settle`, for tests that watch something else than the scan says.
    fn settle_without_scan(&mut self) {
        let handlers = std::mem::replace(
            &mut self.handlers,
            Handlers { folders: vec![PathBuf::from("/no/such/folder")], ..Handlers::default() },
        );
        self.settle();
        self.handlers = handlers;
    }

    /// Makes the watcher look, if it does not by itself, by an event that means nothing. The system tells it after all others.
    fn look_once(&self) {
        let deadline = Instant::now() + PATIENCE;
        let folder = self.watcher.shared.lock().watched.folders.first().cloned();
        let aside = folder.unwrap_or_default().join("aside");
        let before = self.looks();
        while self.looks() == before {
            let _ = fs::write(&aside, "")
                .and_then(|()| fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)))
                .and_then(|()| fs::remove_file(&aside));
            for _ in 0..500 {
                if self.looks() != before {
                    break;
                }
                thread::park_timeout(Duration::from_millis(1));
            }
            assert!(Instant::now() < deadline, "the watcher does not look");
        }
    }

    /// Does something and returns how many calls that made.
    fn calls_for(&mut self, act: impl FnOnce(&Self)) -> usize {
        self.settle();
        let before = self.calls.load(Ordering::Relaxed);
        act(self);
        self.settle();
        self.calls.load(Ordering::Relaxed) - before
    }
}

/// A step that writes, and in words what it does.
type Way = (&'static str, fn(&Registry));

/// Every step changes what a scan finds, and begins with what the step before left. Contents have one length, so that the size
/// tells nothing.
const WAYS: &[Way] = &[
    ("a first copy", |at| {
        at.write("store/1", "one");
        at.write("store/2", "two");
        at.write("store/3", "3rd");
        at.run("cp @store/1 @h/a_wsh.so");
    }),
    ("cp over it", |at| at.run("cp @store/2 @h/a_wsh.so")),
    ("cp that keeps the times", |at| {
        let long_ago = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::options().write(true).open(at.path("store/3")).unwrap().set_times(long_ago).unwrap();
        at.run("cp -p @store/3 @h/a_wsh.so");
    }),
    ("install over it", |at| at.run("install -m 755 @store/1 @h/a_wsh.so")),
    ("mv over it", |at| {
        at.run("cp @store/2 @store/new");
        at.run("mv @store/new @h/a_wsh.so");
    }),
    ("rsync, which renames a hidden file with the times of the source", |at| {
        at.run("cp -p @store/3 @h/.a_wsh.so.Kx3u7A");
        at.run("mv @h/.a_wsh.so.Kx3u7A @h/a_wsh.so");
    }),
    ("an editor, which renames a backup and writes anew", |at| {
        at.run("mv @h/a_wsh.so @h/a_wsh.so~");
        at.write("h/a_wsh.so", "one");
        at.run("rm @h/a_wsh.so~");
    }),
    ("a linker that writes in place", |at| {
        let mut file = File::options().write(true).open(at.path("h/a_wsh.so")).unwrap();
        std::io::Write::write_all(&mut file, b"two").unwrap();
    }),
    ("a linker that takes its time", |at| {
        let mut file = File::create(at.path("h/a_wsh.so")).unwrap();
        for _ in 0..30 {
            std::io::Write::write_all(&mut file, b"slow").unwrap();
            thread::park_timeout(Duration::from_millis(10));
        }
    }),
    ("cargo, which removes the file and links another one", |at| {
        fs::create_dir(at.path("h/deps")).unwrap();
        at.write("h/.fingerprint", "");
        at.write("h/deps/a_wsh.so", "3rd");
        fs::remove_file(at.path("h/a_wsh.so")).unwrap();
        fs::hard_link(at.path("h/deps/a_wsh.so"), at.path("h/a_wsh.so")).unwrap();
    }),
    ("the end of a build folder", |at| fs::remove_file(at.path("h/.fingerprint")).unwrap()),
    ("a hard link put over it", |at| at.run("ln -f @store/1 @h/a_wsh.so")),
    ("a write through another hard link", |at| at.run("cp @store/2 @h/deps/a_wsh.so")),
    ("a removed subfolder", |at| at.run("rm -r @h/deps")),
    ("a link", |at| at.run("ln -s @store/2 @i/b_wsh.so")),
    ("a link that is switched", |at| at.run("ln -sfn @store/3 @i/b_wsh.so")),
    ("a write to what the link leads to", |at| at.run("cp @store/1 @store/3")),
    ("a rename over what the link leads to", |at| {
        at.run("cp @store/2 @store/new");
        at.run("mv @store/new @store/3");
    }),
    ("a link that leads nowhere now", |at| at.run("mv @store/3 @store/4")),
    ("and somewhere again", |at| at.run("mv @store/4 @store/3")),
    ("a new subfolder with a library", |at| {
        at.run("mkdir @h/sub");
        at.run("cp @store/1 @h/sub/c_wsh.so");
    }),
    ("a library in an older subfolder", |at| at.run("cp @store/2 @h/sub/d_wsh.so")),
    ("new subfolders, one in the other", |at| {
        at.run("mkdir -p @h/sub/1/2/3");
        at.run("cp @store/1 @h/sub/1/2/3/_wsh.so");
    }),
    ("a subfolder that is renamed", |at| at.run("mv @h/sub @h/bus")),
    ("a library in a subfolder that was renamed", |at| at.run("cp @store/1 @h/bus/d_wsh.so")),
    ("a subfolder that is moved in", |at| {
        at.run("mkdir @store/e");
        at.run("cp @store/1 @store/e/_wsh.so");
        at.run("mv @store/e @i/e");
    }),
    ("a library with an unusable name", |at| at.run("cp @store/1 @i/a%_wsh.so")),
    ("a removed library", |at| at.run("rm @h/a_wsh.so")),
    ("a library that is moved away", |at| at.run("mv @h/bus/d_wsh.so @store/d")),
];

fn every_way_to_write_is_noticed(mode: WatchMode, poll: Duration) {
    let mut registry = Registry::start(mode, poll);
    for (what, write) in WAYS {
        registry.settle();
        write(&registry);
        registry.notices(what);
    }
    assert_eq!(registry.watcher.notes(), Vec::<String>::new());
}

#[test]
fn events_tell_of_every_way_to_write() {
    every_way_to_write_is_noticed(WatchMode::Auto, NEVER);
}

#[test]
fn looking_finds_every_way_to_write() {
    every_way_to_write_is_noticed(WatchMode::Poll, OFTEN);
}

/// What no event tells is found by the look: here a write through a hard link from a folder that nobody listens to.
#[test]
fn looking_finds_what_no_event_tells() {
    let mut registry = Registry::start(WatchMode::Auto, OFTEN);
    registry.write("store/1", "one");
    fs::hard_link(registry.path("store/1"), registry.path("h/a_wsh.so")).unwrap();
    registry.notices("a hard link");
    registry.settle();
    registry.write("store/1", "two");
    registry.notices("a write through a hard link");
}

/// Reading, other files, hidden ones, and what cargo writes beside the libraries make no call.
#[test]
fn nothing_is_said_of_other_files() {
    for (mode, poll) in [(WatchMode::Auto, NEVER), (WatchMode::Poll, OFTEN)] {
        let mut registry = Registry::start(mode, poll);
        registry.write("h/a_wsh.so", "one");
        registry.write("h/.fingerprint", "");
        fs::create_dir(registry.path("h/deps")).unwrap();
        fs::create_dir(registry.path("i/sub")).unwrap();
        registry.notices("a library");
        let calls = registry.calls_for(|at| {
            for number in 0..20 {
                at.write(&format!("h/{number}.d"), "");
                at.write("h/liba.rlib", "x");
                at.write("h/deps/a_wsh.so", "x");
                at.write(&format!("i/sub/{number}"), "");
                fs::read(at.path("h/a_wsh.so")).unwrap();
                fs::read_dir(at.path("h")).unwrap().count();
            }
            at.write("h/.b_wsh.so", "x");
            fs::create_dir_all(at.path("h/.wsh-generations/1-1")).unwrap();
            at.write("h/.wsh-generations/1-1/a.g1.so", "x");
            fs::create_dir(at.path("h/examples")).unwrap();
            at.run("mv @h/liba.rlib @h/libb.rlib");
            at.run("rm @h/libb.rlib");
            at.write("store/a_wsh.so", "x");
            fs::create_dir(at.path("folder")).unwrap();
        });
        assert_eq!(calls, 0, "{mode}");
    }
}

/// A thousand changes are a few calls: never more than one in 20 ms, and after a burst one.
#[test]
fn burst_of_changes_is_told_in_few_calls() {
    let mut registry = Registry::start(WatchMode::Auto, NEVER);
    registry.write("h/a_wsh.so", "one");
    registry.notices("a library");
    let mut took = Duration::ZERO;
    let calls = registry.calls_for(|at| {
        let began = Instant::now();
        let file = File::options().write(true).open(at.path("h/a_wsh.so")).unwrap();
        for _ in 0..1000 {
            file.set_modified(SystemTime::now()).unwrap();
        }
        took = began.elapsed();
    });
    let most = 2 + took.as_millis() / QUIET.as_millis();
    assert!((1..=most).contains(&(calls as u128)), "{calls} calls within {took:?}");
}

/// Looking takes a fifth of the time at most, also when a look takes long.
#[test]
fn looks_pause_for_others() {
    assert_eq!(pause_after(Duration::from_millis(1)), Duration::from_millis(20));
    assert_eq!(pause_after(Duration::from_secs(1)), Duration::from_secs(4));
}

/// What changed may lead elsewhere, where nobody listened before: so each change is followed by one more look.
#[test]
fn change_is_followed_by_another_look() {
    let mut registry = Registry::start(WatchMode::Auto, NEVER);
    registry.write("store/1", "one");
    let before = registry.looks();
    // One event, and so one burst.
    fs::hard_link(registry.path("store/1"), registry.path("h/a_wsh.so")).unwrap();
    registry.notices("a library");
    let deadline = Instant::now() + PATIENCE;
    while registry.looks() < before + 2 {
        assert!(Instant::now() < deadline, "there was one look");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// A new time alone is a change: contents are compared by whoever is told.
#[test]
fn touched_library_is_a_change() {
    for (mode, poll) in [(WatchMode::Auto, NEVER), (WatchMode::Poll, OFTEN)] {
        let mut registry = Registry::start(mode, poll);
        registry.write("h/a_wsh.so", "one");
        registry.notices("a library");
        assert_eq!(registry.calls_for(|at| at.run("touch @h/a_wsh.so")), 1);
        assert_eq!(registry.calls_for(|at| at.run("chmod 600 @h/a_wsh.so")), 1);
    }
}

/// Whatever happens between a scan and the call of `watch` for what it found is told.
#[test]
fn library_in_a_new_subfolder_is_not_missed() {
    for (mode, poll) in [(WatchMode::Auto, NEVER), (WatchMode::Poll, OFTEN)] {
        let mut registry = Registry::start(mode, poll);
        registry.run("mkdir @h/sub");
        registry.told.recv_timeout(PATIENCE).unwrap();
        let (scan, _) = registry.scan().unwrap();
        // No call can come of this, for the subfolder is not watched.
        registry.write("h/sub/a_wsh.so", "one");
        registry.watcher.watch(Watched { folders: scan.folders, files: scan.links });
        registry.notices("a library that came too early");
    }
}

/// A handlers folder that vanishes is told of and noted once, and so is its return.
#[test]
fn vanished_folder_may_return() {
    for (mode, poll) in [(WatchMode::Auto, NEVER), (WatchMode::Poll, OFTEN)] {
        let mut registry = Registry::start(mode, poll);
        registry.write("h/a_wsh.so", "one");
        registry.notices("a library");
        for text in ["two", "3rd"] {
            registry.settle();
            registry.run("rm -r @h");
            assert!(registry.scan().is_none());
            let notes = loop {
                // The first call may be for the library in it.
                registry.told.recv_timeout(PATIENCE).unwrap();
                let notes = registry.watcher.notes();
                if !notes.is_empty() {
                    break notes;
                }
            };
            let gone = registry.path("h").display().to_string();
            assert_eq!(notes, [format!("the folder {gone} is gone; it is watched again when it is back")]);
            assert!(registry.watcher.notes().is_empty(), "{mode}");
            registry.run("mkdir @h");
            registry.write("h/a_wsh.so", text);
            registry.notices("a folder that is back");
            registry.settle();
            assert!(registry.watcher.notes().is_empty());
        }
    }
}

/// A folder that is made anew at once often has the number of the old one, and nothing listens to it.
#[test]
fn folder_that_is_made_anew_is_watched() {
    let mut registry = Registry::start(WatchMode::Auto, NEVER);
    for number in 0..20 {
        fs::remove_dir_all(registry.path("h")).unwrap();
        fs::create_dir(registry.path("h")).unwrap();
        if number % 2 == 0 {
            registry.settle();
        }
        registry.write("h/a_wsh.so", &number.to_string());
        registry.notices("a library in a folder that was made anew");
    }
}

/// A handlers folder is found by its name: moved away and back, and with the folders above.
#[test]
fn moved_folders_are_followed() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("srv/wshd/h")).unwrap();
    let mut registry = Registry::start_in(root, &["srv/wshd/h"], WatchMode::Auto, NEVER);
    registry.write("srv/wshd/h/a_wsh.so", "one");
    registry.notices("a library");
    for (folder, aside) in [("srv/wshd/h", "aside"), ("srv/wshd", "aside")] {
        registry.settle();
        registry.run(&format!("mv @{folder} @{aside}"));
        registry.told.recv_timeout(PATIENCE).unwrap();
        registry
            .write(&format!("{}/a_wsh.so", if folder == "srv/wshd" { "aside/h" } else { "aside" }), folder);
        registry.run(&format!("mv @{aside} @{folder}"));
        registry.notices("a folder that is back");
        registry.settle();
        registry.write("srv/wshd/h/a_wsh.so", "again");
        registry.notices("a library in a folder that is back");
    }
}

/// Links on the way, such as the one that says which release is current, are switched while the server runs.
#[test]
fn links_on_the_way_are_followed() {
    for (mode, poll) in [(WatchMode::Auto, NEVER), (WatchMode::Poll, OFTEN)] {
        let root = tempfile::tempdir().unwrap();
        for release in ["1", "2"] {
            let folder = root.path().join("releases").join(release).join("h");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("a_wsh{}", std::env::consts::DLL_SUFFIX)), release).unwrap();
        }
        fs::create_dir(root.path().join("i")).unwrap();
        symlink("releases/1", root.path().join("current")).unwrap();
        let library = format!("b_wsh{}", std::env::consts::DLL_SUFFIX);
        let target = format!("../current/h/a_wsh{}", std::env::consts::DLL_SUFFIX);
        symlink(target, root.path().join("i").join(library)).unwrap();
        let mut registry = Registry::start_in(root, &["current/h", "i"], mode, poll);
        for release in ["2", "1", "2"] {
            registry.settle();
            registry.run(&format!("ln -sfn releases/{release} @current"));
            registry.notices("a link that was switched");
            assert!(registry.found.values().all(|text| text == release) && registry.found.len() == 2);
            registry.settle();
            registry.write(&format!("releases/{release}/h/c_wsh.so"), release);
            registry.notices("a library where the link leads now");
            registry.settle();
            registry.run(&format!("rm @releases/{release}/h/c_wsh.so"));
            registry.notices("a library removed where the link leads now");
        }
    }
}

/// A single file is watched by its name: written, renamed over, removed, and made together with its folder. Its neighbours are not.
#[test]
fn single_files_are_watched() {
    for (mode, poll) in [(WatchMode::Auto, NEVER), (WatchMode::Poll, OFTEN)] {
        let mut registry = Registry::start(mode, poll);
        let files = vec![registry.path("store/c.toml"), registry.path("etc/wshd/d.toml")];
        // Here `settle` has its event that means nothing.
        let folders = vec![registry.path("h")];
        registry.watcher.watch(Watched { folders, files });
        let steps: &[fn(&Registry)] = &[
            |at| at.run("cp /dev/null @store/c.toml"),
            |at| at.write("store/c.toml", "port = 1"),
            |at| at.run("touch @store/c.toml"),
            |at| {
                at.write("store/.c.toml.swp", "port = 2");
                at.run("mv @store/.c.toml.swp @store/c.toml");
            },
            |at| at.run("rm @store/c.toml"),
            |at| {
                at.run("mkdir -p @etc/wshd");
                at.write("etc/wshd/d.toml", "port = 3");
            },
            |at| at.write("etc/wshd/d.toml", "port = 4"),
            |at| at.run("rm -r @etc"),
        ];
        registry.settle_without_scan();
        for (number, step) in steps.iter().enumerate() {
            let before = registry.calls.load(Ordering::Relaxed);
            step(&registry);
            registry.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("step {number} in mode {mode}"));
            registry.settle_without_scan();
            assert!(registry.calls.load(Ordering::Relaxed) > before);
        }
        let before = registry.calls.load(Ordering::Relaxed);
        registry.write("store/d.toml", "port = 1");
        registry.run("cp @store/d.toml @store/e.toml");
        registry.settle_without_scan();
        assert_eq!(registry.calls.load(Ordering::Relaxed), before, "{mode}");
    }
}

/// What is no longer watched is silent, what is watched instead is not, and the same again changes nothing.
#[test]
fn what_is_watched_can_be_replaced() {
    for (mode, poll) in [(WatchMode::Auto, NEVER), (WatchMode::Poll, OFTEN)] {
        let mut registry = Registry::start(mode, poll);
        let calls = |at: &Registry| at.calls.load(Ordering::Relaxed);
        let only = |folder| Watched { folders: vec![folder], files: Vec::new() };
        registry.watcher.watch(only(registry.path("i")));
        registry.settle_without_scan();
        let before = calls(&registry);
        registry.write("h/a_wsh.so", "one");
        registry.settle_without_scan();
        assert_eq!(calls(&registry), before, "a folder that is not watched");
        registry.write("i/a_wsh.so", "one");
        registry.told.recv_timeout(PATIENCE).unwrap();
        registry.settle_without_scan();
        let before = calls(&registry);
        registry.watcher.watch(only(registry.path("i")));
        assert!(!registry.watcher.shared.lock().replaced);
        registry.watcher.watch(Watched::default());
        registry.watcher.watch(only(registry.path("i")));
        registry.settle_without_scan();
        assert!(calls(&registry) <= before + 1, "the same folder");
        registry.watcher.watch(only(registry.path("h")));
        registry.told.recv_timeout(PATIENCE).expect("a folder that is new is told of");
        registry.settle_without_scan();
        registry.write("h/a_wsh.so", "two");
        registry.told.recv_timeout(PATIENCE).unwrap();
    }
}

/// More folders than the system should be asked to listen to are looked at instead, and a few notes say so.
#[test]
fn folders_without_events_are_looked_at() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..=1100 {
        fs::create_dir_all(root.path().join(format!("h/{number:04}"))).unwrap();
    }
    let mut registry = Registry::start_in(root, &["h"], WatchMode::Auto, OFTEN);
    let notes = registry.watcher.notes();
    assert_eq!(notes.len(), NOTES_MAX + 1, "{notes:?}");
    assert!(
        notes[0].ends_with("it would be the folder after 1024; looking every 0.05 s instead"),
        "{notes:?}"
    );
    assert!(notes[NOTES_MAX].ends_with(" more folders"), "{notes:?}");
    assert!(registry.watcher.notes().is_empty());
    registry.write("h/1100/a_wsh.so", "one");
    registry.notices("a library without events");
}

/// With watching off there is no thread, no call and no note.
#[test]
fn nothing_is_watched_when_off() {
    let folder = tempfile::tempdir().unwrap();
    let token = Arc::new(());
    let held = token.clone();
    let watcher = Watcher::start(WatchMode::Off, OFTEN, move || drop(held.clone()));
    watcher.watch(Watched { folders: vec![folder.path().join("gone")], files: Vec::new() });
    assert!(watcher.thread.is_none() && watcher.notes().is_empty());
    // The function is gone, so nobody can call it.
    assert_eq!(Arc::strong_count(&token), 1);
}

/// After the drop the thread has ended, and what it would have called is gone.
#[test]
fn dropping_it_ends_its_thread() {
    for mode in [WatchMode::Auto, WatchMode::Poll] {
        let folder = tempfile::tempdir().unwrap();
        let token = Arc::new(());
        let held = token.clone();
        let (tell, told) = sync_channel(1);
        let watcher = Watcher::start(mode, NEVER, move || {
            let _ = (&held, tell.try_send(()));
        });
        watcher.watch(Watched { folders: vec![folder.path().to_owned()], files: Vec::new() });
        told.recv_timeout(PATIENCE).unwrap();
        drop(watcher);
        assert_eq!(Arc::strong_count(&token), 1);
    }
}
