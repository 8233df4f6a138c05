//! Libraries that come and go, each time from a file of a new name, and what is left in the process when they are gone.

use std::ffi::c_void;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use handler_api::abi;
use libloading::{Library, Symbol};
use tempfile::TempDir;

use super::super::image::Image;
use super::super::{Identity, Offload, OffloadLimits, Owner, Retained, host, unmap};
use crate::admission::Admission;
use crate::config::Config;
use crate::generation::{Clock, Inbox, Services, Surroundings};
use crate::topics::{InProcess, Topics};

/// Long enough for any machine; nothing waits so long unless it is broken.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// For what must not come.
pub(super) const SHORT: Duration = Duration::from_millis(200);

/// Tells the process that runs the body from the one that starts it.
const ALONE: &str = "WSHD_TEST_ALONE";

/// What that process says when the body has returned, because a process in which no test ran succeeds too.
pub(super) const DONE: &str = "alone and done";

/// Runs the body of a test in a process of its own.
pub(super) fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        body();
        println!("{DONE}");
        return;
    }
    let (_, module) = module_path!().split_once("::").expect("a module of a crate");
    let module = module.trim_end_matches("::support");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}"), "--include-ignored", "--nocapture"])
        .args(["--test-threads=1"])
        .env(ALONE, "1")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(DONE), "{}\n{text}", output.status);
    print!("{text}");
}

/// A library file that is copied to a new name each time it is loaded.
pub(super) struct Original {
    pub(super) path: PathBuf,
    folder: TempDir,
    copies: usize,
}

impl Original {
    fn new(build: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = build(folder.path());
        Self { path, folder, copies: 0 }
    }

    /// A fixture that cargo built beside this program, because it is a dev-dependency.
    pub(super) fn rust(name: &str) -> Self {
        let file = libloading::library_filename(format!("{name}_wsh"));
        let built = std::env::current_exe().unwrap().with_file_name(file);
        Self::new(|folder| {
            let path = folder.join(built.file_name().unwrap());
            fs::copy(&built, &path).unwrap();
            // The debug information is nine tenths of the file, and is copied a thousand times. Without strip it takes longer.
            let _ = Command::new("strip").arg("--strip-debug").arg(&path).output();
            path
        })
    }

    pub(super) fn c(flags: &[&str]) -> Self {
        let flags = [&["-std=c11"], flags].concat();
        Self::new(|folder| compile("cc", &fixture("leaving.c"), folder, "libsupport.so", &flags))
    }

    pub(super) fn cpp(flags: &[&str]) -> Self {
        let flags = [&["-std=c++17"], flags].concat();
        Self::new(|folder| compile("c++", &fixture("leaving.cc"), folder, "leaving.so", &flags))
    }

    /// A library made of this text, which needs `self` as its support library.
    pub(super) fn within(&self, text: &str, flags: &[&str]) -> Self {
        let folder = self.folder.path().to_str().unwrap();
        let (search, run_path) = (format!("-L{folder}"), format!("-Wl,-rpath,{folder}"));
        let flags = [flags, &["-std=c11", &search, &run_path, "-lsupport"]].concat();
        Self::new(|folder| {
            let source = folder.join("source.c");
            fs::write(&source, text).unwrap();
            compile("cc", &source, folder, "needy.so", &flags)
        })
    }

    pub(super) fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        let copy = self.folder.path().join(format!("it.g{}.so", self.copies));
        fs::copy(&self.path, &copy).unwrap();
        copy
    }

    /// Loads a copy, calls the functions on both workers, and takes it out of memory. Returns how long that took.
    pub(super) fn comes_and_goes(&mut self, functions: &[&str]) -> Duration {
        let path = self.copy();
        let begun = Instant::now();
        let loaded = Loaded::new(path.clone(), |_, library| {
            for function in functions {
                assert_eq!(call(library, function, 0), 1, "{function}");
            }
        });
        loaded.goes();
        let took = begun.elapsed();
        fs::remove_file(path).unwrap();
        took
    }

    /// The same many times over: everything goes, and what the process has at the end is what it had after `warm_up` times.
    pub(super) fn repeat(&mut self, times: u32, warm_up: u32, functions: &[&str]) {
        let (mut begin, mut took) = (0, Duration::ZERO);
        let mut before = (0, 0);
        for time in 0..times {
            took += self.comes_and_goes(functions);
            if time + 1 == warm_up {
                (begin, before) = (resident_kilobytes(), (threads_at_rest(), descriptors()));
            }
        }
        let grown = resident_kilobytes().saturating_sub(begin);
        let measured = u64::from(times - warm_up);
        println!(
            "{} {functions:?}: {times} times, {:.2} ms and {:.3} kB each",
            self.path.file_name().unwrap().display(),
            (took / times).as_secs_f64() * 1e3,
            grown as f64 / measured as f64
        );
        assert_eq!((threads_at_rest(), descriptors()), before, "threads and descriptors");
        // A heap breathes by some pages, which is too much for a short run to tell anything.
        assert!(measured < 500 || grown < measured, "{grown} kB in {measured} times");
    }
}

/// A generation as far as these tests need one: a library, and two workers that are gone already.
pub(super) struct Loaded {
    library: Library,
    pub(super) owner: Arc<Owner>,
    pub(super) path: PathBuf,
    _identity: Option<Box<Identity>>,
}

impl Loaded {
    /// Each worker, 0 and then 1, calls `work`.
    pub(super) fn new(path: PathBuf, work: impl Fn(usize, &Library) + Sync) -> Self {
        let owner = Owner::new("it.g1".into());
        let on_worker = |job: &(dyn Fn() + Sync)| {
            std::thread::scope(|scope| {
                let worker = scope.spawn(|| {
                    owner.claim_thread();
                    job();
                });
                // The end of the scope alone does not wait for the destructors of the thread.
                worker.join().expect("the worker says why it ends");
            });
        };
        let loaded = OnceLock::new();
        on_worker(&|| {
            // SAFETY: its constructors are the fixture's.
            let library = unsafe { Library::new(&path) }.unwrap();
            owner.mapped(dynamic_symbol(&library));
            let identity = enter(&library);
            work(0, &library);
            assert!(loaded.set((library, identity)).is_ok(), "set once");
        });
        let (library, identity) = loaded.into_inner().expect("worker 0 loaded it");
        on_worker(&|| work(1, &library));
        Self { library, owner, path, _identity: identity }
    }

    pub(super) fn image(&self) -> Image {
        Image::around(dynamic_symbol(&self.library).addr()).expect("it is mapped")
    }

    pub(super) fn goes(self) {
        if let Err(reason) = unmap(self.library, &self.owner, &self.path, LONG) {
            panic!("it stays in memory: {reason}");
        }
        assert!(!is_mapped(&self.path));
    }

    pub(super) fn stays(self) -> Retained {
        self.stays_after(LONG)
    }

    /// For a reason that is found when the time is up.
    pub(super) fn stays_after(self, limit: Duration) -> Retained {
        let reason = unmap(self.library, &self.owner, &self.path, limit).expect_err("it is kept");
        assert!(is_mapped(&self.path), "{reason}");
        reason
    }
}

/// An address in the library.
fn dynamic_symbol(library: &Library) -> *const c_void {
    let names = [abi::INFO_SYMBOL, "address_of_pthread_create", "thread_local_string", "used"];
    // SAFETY: the address is not used as anything else.
    let found = names.iter().find_map(|name| unsafe { library.get::<*const c_void>(name.as_bytes()) }.ok());
    *found.expect("each fixture has one of them")
}

/// What the server does first with a handler library; the other fixtures have no entry.
fn enter(library: &Library) -> Option<Box<Identity>> {
    // SAFETY: the type of wsh.h.
    let entry: Symbol<'_, abi::wsh_handler_entry_v1> =
        unsafe { library.get(abi::ENTRY_SYMBOL.as_bytes()) }.ok()?;
    let identity = Box::new(Identity::new("it".into(), 1, services()));
    let mut table: *const abi::wsh_handler_api = std::ptr::null();
    // SAFETY: a static, an identity that outlives the library, and a slot.
    let status =
        unsafe { entry(&raw const host::TABLE, (&raw const *identity).cast_mut().cast(), &raw mut table) };
    assert_eq!(status, abi::WSH_OK);
    Some(identity)
}

/// Of a generation without workers: what is asked of them waits for ever.
fn services() -> Arc<Services> {
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd");
    let limits = OffloadLimits { threads_max: 1, queue_max: 1 };
    let offload = Offload::new(limits, "it.g1".into(), Owner::new("it.g1".into()));
    let surroundings = Surroundings {
        admission: Arc::new(Admission::new(1, &Config::default())),
        clock: Clock::start(),
        panicked: Arc::default(),
        topics: Arc::new(Topics::new(InProcess, 0)),
        metrics: Arc::default(),
        windows: Arc::default(),
    };
    let inbox = Arc::new(Inbox::new(bell));
    Arc::new(Services::new("it".into(), inbox, "{}".into(), false, offload, &surroundings))
}

pub(super) fn call(library: &Library, function: &str, argument: i32) -> i32 {
    // SAFETY: all that the tests name have this type, or take nothing, which the C calling convention does not tell apart.
    let function: Symbol<'_, extern "C" fn(i32) -> i32> =
        unsafe { library.get(function.as_bytes()) }.unwrap();
    function(argument)
}

/// A key that was made in a variable at the beginning of this range, in memory that is gone again. None if the range is taken.
pub(super) fn key_made_at(range: &Range<usize>) -> Option<libc::pthread_key_t> {
    let wanted = std::ptr::without_provenance_mut(range.start);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: new memory, which takes the place of nothing.
    let memory = unsafe { libc::mmap(wanted, range.len(), protection, flags, -1, 0) };
    if memory != wanted {
        assert_eq!(memory, libc::MAP_FAILED, "old kernels do not know the flag");
        return None;
    }
    let variable = memory.cast::<libc::pthread_key_t>();
    // SAFETY: the variable is writable and aligned to a page.
    let result = unsafe { libc::pthread_key_create(variable, None) };
    assert_eq!(result, 0);
    // SAFETY: it was written a moment ago.
    let key = unsafe { *variable };
    // SAFETY: the memory is this function's, and nobody uses it any more.
    assert_eq!(unsafe { libc::munmap(memory, range.len()) }, 0);
    Some(key)
}

/// False if there is no such key.
pub(super) fn deletes(key: libc::pthread_key_t) -> bool {
    // SAFETY: a number is all it takes; one that is no key is refused.
    unsafe { libc::pthread_key_delete(key) == 0 }
}

pub(super) fn raise(signal: i32) {
    // SAFETY: the signal has a handler, which counts.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// A thread that outlives the workers is waited for, and then the library goes.
pub(super) fn waits_for(original: &mut Original, function: &str) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let descriptor = reader.as_raw_fd();
    let loaded = Loaded::new(original.copy(), |worker, library| {
        assert!(worker == 1 || call(library, function, descriptor) == 1);
    });
    let (done, is_done) = sync_channel(1);
    let thread = std::thread::spawn(move || {
        loaded.goes();
        done.send(()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout), "it did not wait");
    writer.write_all(b"!").unwrap();
    is_done.recv_timeout(LONG).unwrap();
    thread.join().unwrap();
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn compile(compiler: &str, source: &Path, folder: &Path, file: &str, flags: &[&str]) -> PathBuf {
    let library = folder.join(file);
    let output = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o"])
        .arg(&library)
        .arg(source)
        .args(flags)
        .output()
        .expect("these tests need a C and a C++ compiler: install gcc and g++");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

pub(super) fn is_mapped(path: &Path) -> bool {
    fs::read_to_string("/proc/self/maps").unwrap().contains(path.to_str().unwrap())
}

fn resident_kilobytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(super) fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// A thread that was joined is seen for a moment longer.
fn threads_at_rest() -> usize {
    let main_and_test = 2;
    wait_until("every other thread is gone", || threads() == main_and_test);
    threads()
}

pub(super) fn wait_until(what: &str, mut it_is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !it_is_so() {
        assert!(begun.elapsed() < LONG, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
