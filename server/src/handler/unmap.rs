//! Takes a library out of memory, or says why it stays.
//!
//! In: a library that nobody will call any more. Out: its memory is free, or a reason in words. Nothing is taken on trust that can
//! be looked at, and any doubt keeps the library: memory that is kept costs some hundred kilobytes, memory that is called
//! after it was freed costs the server.
//!
//! Why what is unmapped is not called any more:
//!
//! 1. No thread is in it. Those that claimed to run its code, those that it started and those that have thread-local values of it
//!    are gone by the kernel's word, so their destructors have run.
//! 2. No signal handler leads into it, nor into a support library that would go with it.
//! 3. Its own destructors run on a thread that is thrown away. What they register for the end of that thread is dropped.
//! 4. The keys that lead into it are deleted by that thread, before it ends and before anybody can get their numbers. One thread
//!    at a time does so, because what goes meanwhile seems to each of them to go with its own library.
//! 5. The C library unregisters by itself what it ties to a library: `atexit`, `pthread_atfork`.

use std::ffi::{CString, c_void};
use std::fs;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object::elf;
use object::read::elf::{Dyn, ElfFile, FileHeader, Sym};

use super::image::{self, Image};
use super::interpose;
use super::keys::{self, Key};
use super::owner::{self, Owner};
use super::retained::Retained;

/// Takes a library out of memory. Call it when its workers were joined and nothing of it is called or read any more, from a thread
/// that did not claim to be the library's.
///
/// Blocks: up to `limit` for the threads to be gone, and up to `limit` for the library's destructors. They run on a thread of
/// their own. `path` is what was given to `dlopen`; the file should still be there, because it may say why the library stays.
///
/// # Errors
/// Why it stays in memory. It then stays to the end of the process, and its file should as well.
pub(crate) fn unmap(
    library: libloading::Library,
    owner: &Arc<Owner>,
    path: &Path,
    limit: Duration,
) -> Result<(), Retained> {
    let handle = Handle::new(library);
    if !interpose::is_effective() {
        return Err(Retained::NotWatched);
    }
    let image = handle.image().ok_or(Retained::NotFound)?;
    owner.wait_for_threads(&image.range, limit).map_err(Retained::ThreadsAlive)?;
    if let Some(signal) = signal_handled_in(&image.range) {
        return Err(Retained::SignalHandler(signal));
    }
    // Before it is closed, because the next library may come to the same addresses.
    owner.forget_library();
    let closing = Closing { handle, image, owner: owner.clone(), path: path.to_owned() };
    closing.on_a_thread_of_its_own(limit)
}

/// A handle of `dlopen` that is not closed when it is dropped.
struct Handle(*mut c_void);

// SAFETY: the loader takes its handles from any thread.
unsafe impl Send for Handle {}

impl Handle {
    fn new(library: libloading::Library) -> Self {
        Self(libloading::os::unix::Library::from(library).into_raw())
    }

    fn image(&self) -> Option<Image> {
        // SAFETY: the handle came from an open library and is closed only by `close`, which takes it.
        unsafe { Image::of(self.0) }
    }

    /// Runs the library's destructors on this thread.
    fn close(self) -> Result<(), libloading::Error> {
        // SAFETY: as in `image`; nobody else has the handle.
        unsafe { libloading::os::unix::Library::from_raw(self.0) }.close()
    }
}

/// All that the thread needs that closes a library.
struct Closing {
    handle: Handle,
    image: Image,
    owner: Arc<Owner>,
    path: PathBuf,
}

impl Closing {
    fn on_a_thread_of_its_own(self, limit: Duration) -> Result<(), Retained> {
        let (done, outcome) = sync_channel(1);
        // The first time that a thread waits here it gets a thread-local value with a destructor, for which the C library asks the
        // loader; later the loader may be what is waited for.
        let _ = outcome.recv_timeout(Duration::from_millis(1));
        let name = format!("{} close", self.owner.name());
        // If there is no thread the handle is dropped, and the library stays.
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || {
                let result = self.run();
                // Nobody listens when it took too long; it was retained by then.
                let _ = done.send(result);
            })
            .map_err(|error| Retained::NoThread(error.to_string()))?;
        let result = match outcome.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => return Err(Retained::CloseTimedOut(limit)),
            Err(RecvTimeoutError::Disconnected) => Err(Retained::StillMapped),
        };
        // It has nothing left to do but to end.
        let _ = thread.join();
        result
    }

    fn run(self) -> Result<(), Retained> {
        let Self { handle, image, owner, path } = self;
        // What the destructors start counts as the library's.
        owner.inherit_to_this_thread();
        interpose::drop_thread_locals_of_this_thread();
        let _turn = turn();
        let mut before = Before::look(|| {});
        keep_support_libraries_with_signal_handlers(&before.images, &image);
        handle.close().map_err(|error| Retained::Refused(error.to_string()))?;
        let stays = is_open(&image, &path);
        let after = Image::all();
        // The destructors may have made keys. A library that came to the same addresses meanwhile has another owner.
        before.keys.extend(keys::existing().into_iter().filter(|key| key.maker == owner.id()));
        for key in before.keys_of_what_went(&after) {
            // A destructor of the library may have deleted it, and its number may be another's by now.
            if key.take() {
                interpose::delete(*key);
            }
        }
        if stays || after.contains(&image) { Err(why_it_stays(&path)) } else { Ok(()) }
    }
}

/// Lets one thread at a time close a library and delete the keys of what went.
///
/// Two of them would each find the other's keys. A key that the one has taken and not yet deleted is passed over by the other,
/// which ends, and the C library calls its destructor, in a library that is gone. Nobody waits longer for this than for the loader,
/// which runs the destructors of one library at a time.
pub(super) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What there is before a library is closed.
pub(super) struct Before {
    keys: Vec<Key>,
    images: Vec<Image>,
}

impl Before {
    /// Looks at the keys first. Otherwise a library that is there at the first look may go, the next one come to the same addresses
    /// and make keys, and these would be taken for keys of what went. `between` is for tests.
    pub(super) fn look(between: impl FnOnce()) -> Self {
        let keys = keys::existing();
        between();
        Self { keys, images: Image::all() }
    }

    /// The keys of the library, and of support libraries that nobody else needs.
    pub(super) fn keys_of_what_went(&self, after: &[Image]) -> impl Iterator<Item = &Key> {
        let gone: Vec<_> = self.images.iter().filter(|image| !after.contains(image)).collect();
        self.keys.iter().filter(move |key| gone.iter().any(|image| key.leads_into(&image.range)))
    }
}

/// Whether the loader still has a library. If so it is opened once more, for ever: what the loader kept for some reason it could
/// give up at any later `dlclose`, when nobody looks after its keys and threads.
fn is_open(image: &Image, path: &Path) -> bool {
    let given = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    [image.path.clone(), given].iter().any(|path| !path.is_empty() && open_again(path, 0))
}

/// Opens a library once more if it is loaded, and never closes it.
fn open_again(path: &CString, flags: i32) -> bool {
    // SAFETY: a C string. A library that is not loaded is not loaded by this either, so no code runs.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD | flags) };
    !handle.is_null()
}

/// The first signal whose handler lies there.
fn signal_handled_in(range: &Range<usize>) -> Option<i32> {
    signal_handlers().find(|(_, handler)| range.contains(handler)).map(|(signal, _)| signal)
}

/// A support library may go with the library that needed it. One that handles a signal is kept, as if it were linked with
/// `-z nodelete`; the library itself need not stay for that.
fn keep_support_libraries_with_signal_handlers(images: &[Image], library: &Image) {
    for (_, handler) in signal_handlers() {
        let holds = |image: &&Image| image.range.contains(&handler) && !image::is_in_program(handler);
        // Another handler's library is looked after when its own turn comes.
        let Some(image) = images.iter().find(holds).filter(|_| !owner::is_in_a_library(handler)) else {
            continue;
        };
        if image != library {
            open_again(&image.path, libc::RTLD_NODELETE);
        }
    }
}

/// Every signal that has a handler, with its address.
fn signal_handlers() -> impl Iterator<Item = (i32, usize)> {
    (1..=libc::SIGRTMAX()).filter_map(|signal| {
        // SAFETY: all-zero is a valid sigaction: no flags, no handler, no signals blocked.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: without a new action the call only writes the present one to `action`. It refuses the signals that the C
        // library keeps for itself.
        let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
        let has_handler = result == 0 && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        has_handler.then_some((signal, action.sa_sigaction))
    })
}

#[cfg(target_pointer_width = "64")]
type Header = elf::FileHeader64<object::Endianness>;
#[cfg(target_pointer_width = "32")]
type Header = elf::FileHeader32<object::Endianness>;

/// What the file says about why the loader does not let go of it.
fn why_it_stays(path: &Path) -> Retained {
    let Ok(bytes) = fs::read(path) else { return Retained::StillMapped };
    let Ok(file) = ElfFile::<Header>::parse(&*bytes) else { return Retained::StillMapped };
    let endian = file.endian();
    let symbols = file.elf_dynamic_symbol_table();
    let is_unique = |symbol: &&<Header as FileHeader>::Sym| {
        symbol.st_bind() == elf::STB_GNU_UNIQUE && !symbol.is_undefined(endian)
    };
    let mut unique = symbols.iter().filter(is_unique);
    if let Some(one) = unique.next() {
        let one = one.name(endian, symbols.strings()).unwrap_or_default();
        return Retained::UniqueSymbols {
            count: 1 + unique.count(),
            one: String::from_utf8_lossy(one).into_owned(),
        };
    }
    let flags = |entry: &<Header as FileHeader>::Dyn| entry.d_tag(endian) == elf::DT_FLAGS_1;
    let entries = file.elf_dynamic_table().map(|table| table.dynamics()).unwrap_or_default();
    match entries.iter().find(|entry| flags(entry)) {
        Some(entry) if entry.val(endian) & elf::DF_1_NODELETE.0 != 0 => Retained::NoDelete,
        _ => Retained::StillMapped,
    }
}
