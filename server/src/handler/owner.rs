//! Who runs a library's code: the threads of each generation, and those that its library started.
//!
//! In: `claim_thread` of each worker, and each thread that a library starts, by `interpose`. Out: which of them are still there,
//! for `unmap`. A thread that was joined or has returned is gone only when the kernel knows it no more, because its
//! thread-local values are destroyed last.
//!
//! A thread that a library starts is noted for the owner of the thread that starts it, and for the library that its code lies
//! in; so a thread that runs in a shared support library counts for the handler that asked for it. Threads that run the
//! program's own code are not noted: they run a library's code only where they claim to.

use std::cell::Cell;
use std::ffi::c_void;
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::image::Image;
use super::interpose;

/// Everything that is known about who runs a library's code. One for each generation.
#[derive(Debug)]
pub(crate) struct Owner {
    id: u64,
    name: String,
}

impl Owner {
    /// Make it before the library is loaded. The name is for the thread that takes the library out of memory.
    pub(crate) fn new(name: String) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(NOBODY + 1);
        // Asks the loader, which can be asked while no library is being loaded yet.
        interpose::is_effective();
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), name })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Marks the current thread, for the rest of its life, as one that runs the library's code. Call it before the first call
    /// into the library, `dlopen` included. What the library starts on this thread counts as the library's.
    pub(crate) fn claim_thread(&self) {
        self.inherit_to_this_thread();
        let life = Arc::new(Life::unborn());
        life.begin();
        Known::with(|known| known.threads.push(Thread { owner: self.id, enters: 0, life }));
    }

    /// As `claim_thread`, but the thread itself does not count.
    pub(super) fn inherit_to_this_thread(&self) {
        OWNER.set(self.id);
    }

    /// Tells where the library lies in memory. Call it as soon as `dlopen` has returned, with the address of anything in it.
    ///
    /// Threads and keys that its constructors made are known by then, because their thread was claimed.
    pub(crate) fn mapped(&self, address_in_library: *const c_void) {
        let Some(image) = Image::around(address_in_library.addr()) else { return };
        Known::with(|known| {
            known.libraries.retain(|library| library.owner != self.id);
            known.libraries.push(Library { owner: self.id, range: image.range });
        });
    }

    /// From here on the library's addresses may become another library's.
    pub(super) fn forget_library(&self) {
        Known::with(|known| known.libraries.retain(|library| library.owner != self.id));
    }

    /// Waits until no thread is left that may run code of the library at `range`. The error are those that are left.
    pub(super) fn wait_for_threads(&self, range: &Range<usize>, limit: Duration) -> Result<(), Vec<String>> {
        let begun = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            let left = self.threads(range);
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= limit {
                return Err(left.iter().map(|life| life.name()).collect());
            }
            // Nothing tells that a thread is gone. Mostly it was joined a moment ago and is gone with the first look.
            std::thread::park_timeout(pause.min(limit));
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn threads(&self, range: &Range<usize>) -> Vec<Arc<Life>> {
        let mut left = Vec::new();
        Known::with(|known| {
            // A thread that is gone has noted those that it started, so one pass sees them all.
            known.threads.retain(|thread| {
                let counts = thread.owner == self.id || range.contains(&thread.enters);
                if !counts {
                    return true;
                }
                let lives = !thread.life.is_over();
                if lives {
                    left.push(thread.life.clone());
                }
                lives
            });
        });
        left
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.forget_library();
    }
}

/// A range of addresses that is another handler's library.
pub(super) fn is_in_a_library(address: usize) -> bool {
    Known::with(|known| known.libraries.iter().any(|library| library.range.contains(&address)))
        .unwrap_or_default()
}

thread_local! {
    // Constant and without destructor: they are there in every thread, from its first to its last instruction, and need no key.
    static OWNER: Cell<u64> = const { Cell::new(NOBODY) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

const NOBODY: u64 = 0;

// ---- for `interpose` ---------------------------------------------------------------------------------------------------

/// A thread that is about to be started.
pub(super) struct Birth {
    owner: u64,
    life: Arc<Life>,
}

/// The calling thread starts one that begins at this address, which is not in the program.
pub(super) fn expect_thread(routine: usize) -> Birth {
    let life = Arc::new(Life::unborn());
    let starter = OWNER.get();
    let owner = Known::with(|known| {
        known.make_room();
        known.threads.push(Thread { owner: starter, enters: routine, life: life.clone() });
        known.owner_of(routine)
    });
    Birth { owner: owner.flatten().unwrap_or(starter), life }
}

impl Birth {
    /// On the new thread.
    pub(super) fn began(self) {
        OWNER.set(self.owner);
        self.life.begin();
    }

    /// There is no new thread.
    pub(super) fn failed(self) {
        self.life.tid.store(NEVER, Ordering::Relaxed);
    }
}

/// The owner of the calling thread; 0 if it has none.
pub(super) fn of_this_thread() -> u64 {
    OWNER.get()
}

/// The calling thread gets a destructor for its end from the library that this address lies in. A thread that is not that
/// library's came into it by a way that this program does not see, and is noted here.
pub(super) fn has_thread_local(address: usize) {
    Known::with(|known| {
        let Some(owner) = known.owner_of(address).filter(|owner| *owner != OWNER.get()) else { return };
        let tid = own_tid();
        let same = |thread: &Thread| thread.owner == owner && thread.life.tid.load(Ordering::Relaxed) == tid;
        if known.threads.iter().any(|thread| same(thread) && !thread.life.is_over()) {
            return;
        }
        known.make_room();
        let life = Arc::new(Life::unborn());
        life.begin();
        known.threads.push(Thread { owner, enters: 0, life });
    });
}

// ---- what is known -----------------------------------------------------------------------------------------------------

struct Known {
    threads: Vec<Thread>,
    libraries: Vec<Library>,
    /// So many threads are noted before those that are gone are looked for.
    room: usize,
}

struct Thread {
    owner: u64,
    /// Where it began; 0 for a thread of the program.
    enters: usize,
    life: Arc<Life>,
}

struct Library {
    owner: u64,
    range: Range<usize>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { threads: Vec::new(), libraries: Vec::new(), room: ROOM });

const ROOM: usize = 64;

impl Known {
    /// None, and nothing was done, inside of another `with`: an allocator may start a thread of its own when it is asked for
    /// memory here. That thread is no library's.
    fn with<R>(use_it: impl FnOnce(&mut Self) -> R) -> Option<R> {
        if BUSY.replace(true) {
            return None;
        }
        let result = use_it(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner));
        BUSY.set(false);
        Some(result)
    }

    fn owner_of(&self, address: usize) -> Option<u64> {
        self.libraries.iter().find(|library| library.range.contains(&address)).map(|library| library.owner)
    }

    /// Forgets the threads that are gone each time their number may have doubled, so that a library that starts a thread for
    /// each message does not make this grow.
    fn make_room(&mut self) {
        if self.threads.len() >= self.room {
            self.threads.retain(|thread| !thread.life.is_over());
            self.room = ROOM.max(self.threads.len() * 2);
        }
    }
}

/// The life of one thread, as the kernel sees it.
#[derive(Debug)]
struct Life {
    tid: AtomicI32,
    /// Ticks since the machine was started. The thread was there by then; a later one with its number was not.
    seen: AtomicU64,
}

const UNBORN: i32 = 0;
const NEVER: i32 = -1;

impl Life {
    fn unborn() -> Self {
        Self { tid: AtomicI32::new(UNBORN), seen: AtomicU64::new(u64::MAX) }
    }

    /// On the thread.
    fn begin(&self) {
        self.seen.store(ticks_now(), Ordering::Relaxed);
        self.tid.store(own_tid(), Ordering::Release);
    }

    /// False in doubt.
    fn is_over(&self) -> bool {
        match self.tid.load(Ordering::Acquire) {
            UNBORN => false,
            NEVER => true,
            tid => {
                !exists(tid) || begin_of(tid).is_some_and(|begin| begin > self.seen.load(Ordering::Relaxed))
            }
        }
    }

    /// For people.
    fn name(&self) -> String {
        match self.tid.load(Ordering::Relaxed) {
            UNBORN => "one that begins".to_owned(),
            tid => match fs::read_to_string(format!("/proc/self/task/{tid}/comm")) {
                Ok(name) => format!("{} (thread {tid})", name.trim_end()),
                Err(_) => format!("thread {tid}"),
            },
        }
    }
}

fn own_tid() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Whether this process has a thread of this number.
fn exists(tid: i32) -> bool {
    // SAFETY: signal 0 is none; the call only looks whether it could be sent.
    let looked = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, 0) };
    looked == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// When the thread of this number began, in ticks since the machine was started.
fn begin_of(tid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    // The name stands in parentheses and may have spaces. After it comes field 3; the begin is field 22.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn ticks_now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable; a clock that is not known leaves it alone.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } != 0 {
        return u64::MAX;
    }
    // The kernel gives ticks of 1/100 s to programs, whatever its own clock.
    now.tv_sec as u64 * 100 + now.tv_nsec as u64 / 10_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_given_out_again_is_another_thread() {
        let life = Life::unborn();
        assert!(!life.is_over(), "it may still begin");
        life.begin();
        assert!(!life.is_over(), "it is this thread");
        life.seen.store(0, Ordering::Relaxed);
        assert!(life.is_over(), "this thread began after the machine did");
        life.tid.store(NEVER, Ordering::Relaxed);
        assert!(life.is_over(), "it never began");
    }

    #[test]
    fn threads_that_are_gone_are_forgotten() {
        let mut known = Known { threads: Vec::new(), libraries: Vec::new(), room: ROOM };
        let here = Arc::new(Life::unborn());
        here.begin();
        for _ in 0..10 * ROOM {
            known.make_room();
            let gone = Arc::new(Life { tid: AtomicI32::new(NEVER), seen: AtomicU64::new(0) });
            known.threads.push(Thread { owner: 1, enters: 0, life: gone });
        }
        assert!(known.threads.len() <= ROOM);
        for _ in 0..10 * ROOM {
            known.make_room();
            known.threads.push(Thread { owner: 1, enters: 0, life: here.clone() });
        }
        assert!(known.threads.len() >= 10 * ROOM, "threads that live are kept");
    }
}
