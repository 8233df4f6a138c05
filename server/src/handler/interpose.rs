//! The functions of the C library by which a library starts threads and leaves destructors behind, as this program defines them.
//!
//! The loader looks for a function in the program first, so what a library calls under these names is what stands here, provided
//! that the program exports them (`build.rs`). Each one does what the function of the C library does, by calling it, and
//! notes what `unmap` has to know later: which threads may run a library's code (`owner`), and which keys lead into it (`keys`).
//!
//! Everything in the process comes through here: the server's own std, every library, the constructors of preloaded ones
//! before `main`. So nothing is assumed to be initialised; what does not concern a handler library takes no lock and no memory
//! on its way; and the loader is asked only once for each function, because its lock may be held by a constructor that hangs.
//!
//! What is not seen: threads that a library makes by a bare `clone`, and those that the C library starts by itself to call a
//! library back (`SIGEV_THREAD` of timers, message queues and asynchronous I/O).

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::image;
use super::keys;
use super::owner::{self, Birth};

/// What a thread runs. "C-unwind", because `pthread_exit` and cancellation unwind through it.
type Routine<R> = unsafe extern "C-unwind" fn(*mut c_void) -> R;
type Destructor = unsafe extern "C" fn(*mut c_void);

type PthreadCreate = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Option<Routine<*mut c_void>>,
    *mut c_void,
) -> c_int;
type ThrdCreate = unsafe extern "C" fn(*mut c_void, Option<Routine<c_int>>, *mut c_void) -> c_int;
type KeyCreate = unsafe extern "C" fn(*mut libc::pthread_key_t, Option<Destructor>) -> c_int;
type KeyDelete = unsafe extern "C" fn(libc::pthread_key_t) -> c_int;
type TssDelete = unsafe extern "C" fn(libc::pthread_key_t);
type ThreadAtexit = unsafe extern "C" fn(Option<Destructor>, *mut c_void, *mut c_void) -> c_int;

static PTHREAD_CREATE: Next = Next::new(c"pthread_create");
static THRD_CREATE: Next = Next::new(c"thrd_create");
static PTHREAD_KEY_CREATE: Next = Next::new(c"pthread_key_create");
static PTHREAD_KEY_DELETE: Next = Next::new(c"pthread_key_delete");
static TSS_CREATE: Next = Next::new(c"tss_create");
static TSS_DELETE: Next = Next::new(c"tss_delete");
static THREAD_ATEXIT: Next = Next::new(c"__cxa_thread_atexit_impl");

/// Whether libraries really find the functions of this file. Asked before the first library is loaded, and then remembered: the
/// loader answers it, and would not while a constructor hangs.
pub(super) fn is_effective() -> bool {
    static EFFECTIVE: OnceLock<bool> = OnceLock::new();
    *EFFECTIVE.get_or_init(|| {
        let ours: [(&Next, *const ()); 7] = [
            (&PTHREAD_CREATE, pthread_create as PthreadCreate as *const ()),
            (&THRD_CREATE, thrd_create as ThrdCreate as *const ()),
            (&PTHREAD_KEY_CREATE, pthread_key_create as KeyCreate as *const ()),
            (&PTHREAD_KEY_DELETE, pthread_key_delete as KeyDelete as *const ()),
            (&TSS_CREATE, tss_create as KeyCreate as *const ()),
            (&TSS_DELETE, tss_delete as TssDelete as *const ()),
            (&THREAD_ATEXIT, __cxa_thread_atexit_impl as ThreadAtexit as *const ()),
        ];
        ours.into_iter().all(|(next, ours)| {
            // SAFETY: the name ends with a NUL; the address is compared and not used.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, next.name.as_ptr()) };
            found.cast_const().cast() == ours && !next.address().is_null()
        })
    })
}

/// Deletes a key that was taken from the table.
pub(super) fn delete(key: keys::Key) {
    let next = PTHREAD_KEY_DELETE.address();
    if !next.is_null() {
        // SAFETY: `Next` found the function of this name, which has this type.
        let next = unsafe { transmute::<*mut c_void, KeyDelete>(next) };
        // SAFETY: a number is all it takes; one that is no key is refused.
        unsafe { next(key.number) };
    }
}

/// Marks this thread as one that takes a library out of memory; what is registered on it for the thread's end is dropped.
///
/// The destructors of a library run on it, and may use thread-local values that have destructors themselves. Those would be
/// called when the thread ends, in a library that is gone by then.
pub(super) fn drop_thread_locals_of_this_thread() {
    CLOSES.set(true);
}

thread_local! {
    // Constant and without destructor: it is there in every thread from its first to its last instruction and needs no key.
    static CLOSES: Cell<bool> = const { Cell::new(false) };
}

// ---- threads -----------------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    routine: Option<Routine<*mut c_void>>,
    argument: *mut c_void,
) -> c_int {
    let next = PTHREAD_CREATE.address();
    if next.is_null() {
        return libc::ENOSYS;
    }
    // SAFETY: `Next` found the function of this name, which has this type.
    let next = unsafe { transmute::<*mut c_void, PthreadCreate>(next) };
    let Some(errand) = Errand::new(routine, argument) else {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { next(thread, attributes, routine, argument) };
    };
    let errand = Box::into_raw(Box::new(errand));
    // SAFETY: the caller's arguments; the errand is what `run` takes, and belongs to the new thread if there is one.
    let result = unsafe { next(thread, attributes, Some(run), errand.cast()) };
    if result != 0 {
        // SAFETY: no thread was made, so the errand is still this function's.
        unsafe { Errand::take_back(errand) };
    }
    result
}

/// `thrd_create` of C11, which reaches the C library's `pthread_create` by an inner name.
#[unsafe(no_mangle)]
unsafe extern "C" fn thrd_create(
    thread: *mut c_void,
    routine: Option<Routine<c_int>>,
    argument: *mut c_void,
) -> c_int {
    let next = THRD_CREATE.address();
    if next.is_null() {
        return THRD_ERROR;
    }
    // SAFETY: `Next` found the function of this name, which has this type.
    let next = unsafe { transmute::<*mut c_void, ThrdCreate>(next) };
    let Some(errand) = Errand::new(routine, argument) else {
        // SAFETY: the caller's arguments, unchanged.
        return unsafe { next(thread, routine, argument) };
    };
    let errand = Box::into_raw(Box::new(errand));
    // SAFETY: the caller's arguments; the errand is what `run` takes, and belongs to the new thread if there is one.
    let result = unsafe { next(thread, Some(run), errand.cast()) };
    if result != 0 {
        // SAFETY: no thread was made, so the errand is still this function's.
        unsafe { Errand::take_back(errand) };
    }
    result
}

/// `thrd_error` of `<threads.h>`.
const THRD_ERROR: c_int = 2;

/// What a thread that is noted was started for.
struct Errand<R> {
    birth: Birth,
    routine: Routine<R>,
    argument: *mut c_void,
}

impl<R> Errand<R> {
    /// None for a thread that runs the program's own code: it is not noted.
    fn new(routine: Option<Routine<R>>, argument: *mut c_void) -> Option<Self> {
        let routine = routine?;
        let address = routine as usize;
        if image::is_in_program(address) {
            return None;
        }
        Some(Self { birth: owner::expect_thread(address), routine, argument })
    }

    /// # Safety
    /// The errand came from `Box::into_raw`, and nobody else has it.
    unsafe fn take_back(errand: *mut Self) {
        // SAFETY: the caller's promise.
        let errand = unsafe { Box::from_raw(errand) };
        errand.birth.failed();
    }
}

/// The beginning of a thread that is noted. When the errand is unpacked nothing is left here that an unwinding
/// `pthread_exit` would have to drop.
unsafe extern "C-unwind" fn run<R>(errand: *mut c_void) -> R {
    // SAFETY: `pthread_create` and `thrd_create` pass an errand of this type, once.
    let (routine, argument) = unsafe { unpack::<R>(errand.cast()) };
    // SAFETY: what the caller of `pthread_create` or `thrd_create` asked for.
    unsafe { routine(argument) }
}

/// # Safety
/// As `Errand::take_back`, and on the thread that was made for the errand.
unsafe fn unpack<R>(errand: *mut Errand<R>) -> (Routine<R>, *mut c_void) {
    // SAFETY: the caller's promise.
    let Errand { birth, routine, argument } = *unsafe { Box::from_raw(errand) };
    birth.began();
    (routine, argument)
}

// ---- keys --------------------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_key_create(
    variable: *mut libc::pthread_key_t,
    destructor: Option<Destructor>,
) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { create_key(&PTHREAD_KEY_CREATE, libc::EAGAIN, variable, destructor) }
}

/// `tss_create` of C11; a `tss_t` is a key.
#[unsafe(no_mangle)]
unsafe extern "C" fn tss_create(variable: *mut libc::pthread_key_t, destructor: Option<Destructor>) -> c_int {
    // SAFETY: the caller's arguments, unchanged.
    unsafe { create_key(&TSS_CREATE, THRD_ERROR, variable, destructor) }
}

/// # Safety
/// As for the function that `next` leads to: `variable` is writable.
unsafe fn create_key(
    next: &Next,
    missing: c_int,
    variable: *mut libc::pthread_key_t,
    destructor: Option<Destructor>,
) -> c_int {
    let next = next.address();
    if next.is_null() {
        return missing;
    }
    // SAFETY: both functions that `next` may be have this type.
    let next = unsafe { transmute::<*mut c_void, KeyCreate>(next) };
    // SAFETY: the caller's promise.
    let result = unsafe { next(variable, destructor) };
    if result == 0 {
        // SAFETY: it was written a moment ago.
        let number = unsafe { *variable };
        let destructor = destructor.map_or(0, |destructor| destructor as usize);
        keys::record(
            number,
            destructor,
            library_variable(variable.addr(), destructor),
            owner::of_this_thread(),
        );
    }
    result
}

/// The variable of a key if it may tell whose the key is, and otherwise 0: a library may come later to the addresses of a stack.
fn library_variable(variable: usize, destructor: usize) -> usize {
    let tells = !image::is_in_program(destructor) && image::is_in_any(variable);
    if tells { variable } else { 0 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_key_delete(key: libc::pthread_key_t) -> c_int {
    let next = PTHREAD_KEY_DELETE.address();
    if next.is_null() {
        return libc::EINVAL;
    }
    // Before the number is free for another key.
    keys::forget(key);
    // SAFETY: `Next` found the function of this name, which has this type.
    let next = unsafe { transmute::<*mut c_void, KeyDelete>(next) };
    // SAFETY: the caller's argument, unchanged.
    unsafe { next(key) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn tss_delete(key: libc::pthread_key_t) {
    let next = TSS_DELETE.address();
    if next.is_null() {
        return;
    }
    keys::forget(key);
    // SAFETY: `Next` found the function of this name, which has this type.
    let next = unsafe { transmute::<*mut c_void, TssDelete>(next) };
    // SAFETY: the caller's argument, unchanged.
    unsafe { next(key) }
}

// ---- thread-local values -----------------------------------------------------------------------------------------------

/// Registers a destructor for the end of this thread; what C++ and Rust do for thread-local values.
#[unsafe(no_mangle)]
unsafe extern "C" fn __cxa_thread_atexit_impl(
    destructor: Option<Destructor>,
    value: *mut c_void,
    library: *mut c_void,
) -> c_int {
    if !image::is_in_program(destructor.map_or(0, |destructor| destructor as usize)) {
        if CLOSES.get() {
            return 0;
        }
        owner::has_thread_local(library.addr());
    }
    let next = THREAD_ATEXIT.address();
    if next.is_null() {
        // std does without the destructor then, as it would without this function.
        return -1;
    }
    // SAFETY: `Next` found the function of this name, which has this type.
    let next = unsafe { transmute::<*mut c_void, ThreadAtexit>(next) };
    // SAFETY: the caller's arguments, unchanged.
    unsafe { next(destructor, value, library) }
}

// ---- the functions behind ----------------------------------------------------------------------------------------------

/// The function of a name that the program would use if it did not define it itself: the C library's, or that of a preloaded
/// library in between.
struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(ptr::null_mut()) }
    }

    /// NULL if there is none, which no glibc has shown yet.
    #[inline]
    fn address(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Relaxed);
        if found.is_null() { self.look_up() } else { found }
    }

    /// Two threads may do this at once and find the same.
    #[cold]
    fn look_up(&self) -> *mut c_void {
        // SAFETY: the name ends with a NUL. The call stands in the program, after which RTLD_NEXT begins to search.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Relaxed);
        found
    }
}
