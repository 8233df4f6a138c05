//! Libraries of every kind are taken out of memory, or kept with the right reason, and nothing is called that is gone.
//!
//! What is measured here belongs to a whole process, and what goes wrong ends it. So each test runs in a process of its own: this
//! test program, with that one test to run.

mod support;

use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};

use libloading::Library;

use self::support::{
    DONE, LONG, Loaded, Original, SHORT, alone, call, deletes, is_mapped, key_made_at, raise, threads,
    wait_until, waits_for,
};
use super::unmap::{Before, turn};
use super::{Retained, image, interpose};

/// What the fixture `clinging_wsh` does.
const CLINGING: [&str; 4] = ["thread_local_value", "current_thread", "channel_and_thread", "caught_panic"];

/// A library that does through another one what a test asks for.
const USES_SUPPORT: &str = "
    int keys(int);
    int signal_handler(int);
    int (*const used[])(int) = { keys, signal_handler };
";

// ---- what goes ---------------------------------------------------------------------------------------------------------

#[test]
fn a_library_calls_the_functions_of_this_program() {
    alone("a_library_calls_the_functions_of_this_program", || {
        assert!(interpose::is_effective());
        let mut original = Original::c(&[]);
        let loaded = Loaded::new(original.copy(), |_, library| {
            // SAFETY: the fixture defines it so.
            let theirs = unsafe { library.get::<extern "C" fn() -> usize>(b"address_of_pthread_create") };
            let theirs = theirs.expect("the fixture has it")();
            let image = image::Image::around(theirs).expect("an address of something mapped");
            assert!(image.path.is_empty(), "{image:?} is not the program");
        });
        loaded.goes();
    });
}

#[test]
fn thread_local_values_keep_nothing() {
    alone("thread_local_values_keep_nothing", || {
        Original::rust("clinging").repeat(50, 10, &["thread_local_value"]);
    });
}

#[test]
fn the_handle_of_a_thread_keeps_nothing() {
    alone("the_handle_of_a_thread_keeps_nothing", || {
        Original::rust("clinging").repeat(50, 10, &["current_thread"]);
    });
}

#[test]
fn a_channel_and_a_joined_thread_keep_nothing() {
    alone("a_channel_and_a_joined_thread_keep_nothing", || {
        Original::rust("clinging").repeat(50, 10, &["channel_and_thread"]);
    });
}

/// With `RUST_BACKTRACE=1`, which `alone` sets.
#[test]
fn a_caught_panic_keeps_nothing() {
    alone("a_caught_panic_keeps_nothing", || {
        assert_eq!(std::env::var("RUST_BACKTRACE").as_deref(), Ok("1"));
        Original::rust("clinging").repeat(50, 10, &["caught_panic"]);
    });
}

/// A process has 1024 keys, and the std of each loaded library makes one.
#[test]
fn more_libraries_than_there_are_keys_come_and_go() {
    alone("more_libraries_than_there_are_keys_come_and_go", || {
        Original::rust("clinging").repeat(1_100, 300, &CLINGING);
    });
}

#[test]
fn a_tokio_runtime_of_its_own_keeps_nothing() {
    alone("a_tokio_runtime_of_its_own_keeps_nothing", || {
        Original::rust("runtime").repeat(40, 10, &["own_runtime"]);
    });
}

#[test]
fn a_thread_local_value_in_cpp_keeps_nothing() {
    alone("a_thread_local_value_in_cpp_keeps_nothing", || {
        Original::cpp(&["-fno-gnu-unique"]).repeat(300, 100, &["thread_local_string"]);
    });
}

#[test]
fn keys_of_every_kind_are_deleted() {
    alone("keys_of_every_kind_are_deleted", || {
        // Each of them makes five.
        Original::c(&[]).repeat(1_100, 300, &["keys"]);
    });
}

/// A library's destructor deletes its key, makes another, and leaves a value in it for the end of the thread that closes it.
#[test]
fn a_destructor_may_use_keys() {
    alone("a_destructor_may_use_keys", || {
        Original::c(&["-DUSES_KEYS_AT_THE_END"]).repeat(1_100, 300, &["keys"]);
    });
}

/// The keys of a support library that nobody else needs go with it.
#[test]
fn a_support_library_goes_too() {
    alone("a_support_library_goes_too", || {
        let support = Original::c(&["-Wl,-soname,libsupport.so"]);
        support.within(USES_SUPPORT, &[]).repeat(1_100, 300, &["keys"]);
        assert!(!is_mapped(&support.path));
    });
}

#[test]
fn threads_may_end_in_any_way() {
    alone("threads_may_end_in_any_way", || {
        Original::c(&[]).repeat(50, 10, &["threads_that_end", "thread_that_is_refused"]);
    });
}

#[test]
fn threads_that_are_late_are_waited_for() {
    alone("threads_that_are_late_are_waited_for", || {
        for function in ["detached_thread", "detached_c11_thread"] {
            waits_for(&mut Original::c(&[]), function);
        }
    });
}

/// Its code begins in libstdc++; only the thread that started it tells whose it is.
#[test]
fn a_thread_of_a_support_library_is_waited_for() {
    alone("a_thread_of_a_support_library_is_waited_for", || {
        waits_for(&mut Original::cpp(&["-fno-gnu-unique"]), "detached_cpp_thread");
    });
}

/// It runs before anybody knows where the library lies.
#[test]
fn a_thread_of_a_constructor_is_waited_for() {
    alone("a_thread_of_a_constructor_is_waited_for", || {
        let mut original = Original::c(&["-DSTARTS_A_THREAD"]);
        let path = original.copy();
        // The end of the pipe that the thread waits for is in the library; it is closed while nobody has called unmap.
        Loaded::new(path, |worker, library| assert!(worker == 1 || call(library, "tell", 0) == 1)).goes();
        let loaded = Loaded::new(original.copy(), |_, _| {});
        let reason = loaded.stays_after(SHORT);
        assert!(reason.to_string().contains("endless (thread "), "{reason}");
    });
}

/// The constructors of preloaded libraries run before anything in this program does.
#[test]
fn a_preloaded_library_is_served_before_main() {
    let original = Original::c(&["-DSTARTS_A_THREAD"]);
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.arg("--list").env("LD_PRELOAD", &original.path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("a_preloaded_library"), "{output:?}");
}

/// A library goes while another one is about to be closed, and the next one comes to its place.
#[test]
fn the_keys_of_a_library_that_comes_to_the_place_of_another_are_its_own() {
    alone("the_keys_of_a_library_that_comes_to_the_place_of_another_are_its_own", || {
        let mut original = Original::c(&[]);
        let to_the_same_place = (0..100).any(|_| {
            let first = Loaded::new(original.copy(), |_, _| {});
            let place = first.image().range;
            let mut second = None;
            let before = Before::look(|| {
                first.goes();
                second = Some(Loaded::new(original.copy(), |_, library| {
                    assert_eq!(call(library, "keys", 0), 1);
                }));
            });
            let second = second.expect("it was loaded between the two looks");
            let is_there = second.image().range == place;
            assert_eq!(before.keys_of_what_went(&image::Image::all()).count(), 0);
            second.goes();
            is_there
        });
        assert!(to_the_same_place, "no library came to the place of another");
    });
}

/// The variable of the key is gone, as one on a stack is, and a library comes to its place.
#[test]
fn a_key_is_not_a_librarys_because_its_variable_was_where_the_library_is() {
    alone("a_key_is_not_a_librarys_because_its_variable_was_where_the_library_is", || {
        let mut original = Original::c(&[]);
        let to_the_same_place = (0..100).any(|_| {
            let first = Loaded::new(original.copy(), |_, _| {});
            let place = first.image().range;
            first.goes();
            let Some(key) = key_made_at(&place) else { return false };
            let second = Loaded::new(original.copy(), |_, _| {});
            let is_there = second.image().range == place;
            second.goes();
            assert!(deletes(key), "it was deleted with the library");
            is_there
        });
        assert!(to_the_same_place, "no library came to the place of the variable");
    });
}

#[test]
fn one_library_is_closed_at_a_time() {
    alone("one_library_is_closed_at_a_time", || {
        let mut original = Original::c(&[]);
        let loaded = Loaded::new(original.copy(), |_, _| {});
        let turn = turn();
        let (done, is_done) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            loaded.goes();
            done.send(()).unwrap();
        });
        assert_eq!(is_done.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout), "it did not wait");
        drop(turn);
        is_done.recv_timeout(LONG).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn libraries_that_are_unmapped_side_by_side_do_not_disturb_each_other() {
    alone("libraries_that_are_unmapped_side_by_side_do_not_disturb_each_other", || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut original = Original::rust("clinging");
                    for _ in 0..50 {
                        original.comes_and_goes(&CLINGING);
                    }
                });
                scope.spawn(|| {
                    let mut original = Original::c(&["-DUSES_KEYS_AT_THE_END"]);
                    for _ in 0..50 {
                        original.comes_and_goes(&["keys", "threads_that_end"]);
                    }
                });
            }
        });
    });
}

/// The figures of the reference, at full length: `cargo test -p wshd --release --lib -- --ignored --nocapture unmap_figures`.
#[test]
#[ignore = "takes minutes"]
fn unmap_figures() {
    alone("unmap_figures", || {
        let clinging = || Original::rust("clinging");
        clinging().repeat(3_000, 500, &[]);
        for function in CLINGING {
            clinging().repeat(3_000, 500, &[function]);
        }
        clinging().repeat(3_000, 500, &CLINGING);
        Original::rust("runtime").repeat(1_300, 300, &["own_runtime"]);
        Original::cpp(&["-fno-gnu-unique"]).repeat(3_000, 500, &["thread_local_string"]);
        Original::c(&["-DUSES_KEYS_AT_THE_END"]).repeat(3_000, 500, &["keys"]);
    });
}

// ---- what stays --------------------------------------------------------------------------------------------------------

#[test]
fn an_endless_thread_keeps_its_library_and_is_named() {
    alone("an_endless_thread_keeps_its_library_and_is_named", || {
        let mut original = Original::c(&[]);
        let (reader, writer) = std::io::pipe().unwrap();
        let descriptor = reader.as_raw_fd();
        let loaded = Loaded::new(original.copy(), |worker, library| {
            assert!(worker == 1 || call(library, "detached_thread", descriptor) == 1);
        });
        let path = loaded.path.clone();
        let reason = loaded.stays_after(SHORT);
        assert!(matches!(reason, Retained::ThreadsAlive(_)), "{reason}");
        assert!(reason.to_string().contains("endless (thread "), "{reason}");
        // The thread is in the library still; if that were gone the process would end here.
        drop(writer);
        wait_until("the thread ends", || threads() == 2);
        assert!(is_mapped(&path));
    });
}

/// A thread that nobody claimed, and that the library did not start, is found by the thread-local values that it has. When it is
/// gone the library stays nevertheless, as was said.
#[test]
fn a_strange_thread_keeps_the_library_and_is_named() {
    alone("a_strange_thread_keeps_the_library_and_is_named", || {
        let mut original = Original::cpp(&["-fno-gnu-unique"]);
        let (release, released) = sync_channel::<()>(1);
        let (entered, has_entered) = sync_channel(1);
        let loaded = Loaded::new(original.copy(), |_, _| {});
        let path = loaded.path.clone();
        // A second opening, which the loader counts, as a library may do with itself.
        // SAFETY: the library is loaded already.
        let second = unsafe { Library::new(&path) }.unwrap();
        let thread = std::thread::Builder::new().name("stranger".into()).spawn(move || {
            entered.send(call(&second, "thread_local_string", 0)).unwrap();
            let _ = released.recv();
            second.close().unwrap();
        });
        assert_eq!(has_entered.recv(), Ok(1));
        let reason = loaded.stays_after(SHORT);
        assert!(matches!(reason, Retained::ThreadsAlive(_)), "{reason}");
        assert!(reason.to_string().contains("stranger (thread "), "{reason}");
        drop(release);
        thread.unwrap().join().unwrap();
        assert!(is_mapped(&path));
    });
}

#[test]
fn a_library_that_is_open_twice_is_kept() {
    alone("a_library_that_is_open_twice_is_kept", || {
        let mut original = Original::c(&[]);
        let loaded = Loaded::new(original.copy(), |_, _| {});
        let path = loaded.path.clone();
        // SAFETY: the library is loaded already.
        let second = unsafe { Library::new(&path) }.unwrap();
        assert_eq!(loaded.stays(), Retained::StillMapped);
        second.close().unwrap();
        assert!(is_mapped(&path));
    });
}

#[test]
fn unique_symbols_keep_a_library_and_are_named() {
    alone("unique_symbols_keep_a_library_and_are_named", || {
        let mut original = Original::cpp(&["-fgnu-unique"]);
        let reason = Loaded::new(original.copy(), |_, library| {
            assert_eq!(call(library, "thread_local_string", 0), 1);
        })
        .stays();
        let Retained::UniqueSymbols { count, one } = &reason else { panic!("{reason}") };
        assert!(*count > 0 && one.starts_with("_Z"), "{reason}");
        assert!(reason.to_string().ends_with("compile it with -fno-gnu-unique"), "{reason}");
    });
}

#[test]
fn a_library_that_is_linked_to_stay_is_kept() {
    alone("a_library_that_is_linked_to_stay_is_kept", || {
        let mut original = Original::c(&["-Wl,-z,nodelete"]);
        assert_eq!(Loaded::new(original.copy(), |_, _| {}).stays(), Retained::NoDelete);
    });
}

#[test]
fn a_signal_handler_keeps_its_library() {
    alone("a_signal_handler_keeps_its_library", || {
        let mut original = Original::c(&[]);
        let loaded = Loaded::new(original.copy(), |_, library| {
            assert_eq!(call(library, "signal_handler", libc::SIGUSR2), 1);
        });
        let reason = loaded.stays();
        assert_eq!(reason, Retained::SignalHandler(libc::SIGUSR2));
        assert!(reason.to_string().contains(&format!("signal {} (SIGUSR2)", libc::SIGUSR2)), "{reason}");
        raise(libc::SIGUSR2);
    });
}

/// Only the support library stays, because the handler is in it.
#[test]
fn a_signal_handler_keeps_a_support_library() {
    alone("a_signal_handler_keeps_a_support_library", || {
        let support = Original::c(&["-Wl,-soname,libsupport.so"]);
        let mut original = support.within(USES_SUPPORT, &[]);
        let loaded = Loaded::new(original.copy(), |_, library| {
            assert_eq!(call(library, "signal_handler", libc::SIGUSR2), 1);
        });
        loaded.goes();
        assert!(is_mapped(&support.path));
        raise(libc::SIGUSR2);
    });
}

#[test]
fn a_worker_that_was_not_joined_keeps_its_library() {
    alone("a_worker_that_was_not_joined_keeps_its_library", || {
        let mut original = Original::c(&[]);
        let loaded = Loaded::new(original.copy(), |_, _| {});
        let (release, released) = sync_channel::<()>(1);
        let (claim, claimed) = sync_channel(1);
        let owner = loaded.owner.clone();
        let thread = std::thread::Builder::new().name("worker".into());
        let thread = thread.spawn(move || {
            owner.claim_thread();
            claim.send(()).unwrap();
            let _ = released.recv();
        });
        claimed.recv().unwrap();
        let reason = loaded.stays_after(SHORT);
        assert!(reason.to_string().contains("worker (thread "), "{reason}");
        drop(release);
        thread.unwrap().join().unwrap();
    });
}

#[test]
fn a_destructor_that_does_not_return_keeps_its_library() {
    alone("a_destructor_that_does_not_return_keeps_its_library", || {
        let mut original = Original::c(&["-DNEVER_RETURNS"]);
        let reason = Loaded::new(original.copy(), |_, _| {}).stays_after(SHORT);
        assert_eq!(reason, Retained::CloseTimedOut(SHORT));
        assert!(reason.blocks_the_loader());
        // The loader waits for the destructor, and the orderly end of a process for the loader.
        println!("{DONE}");
        // SAFETY: there is nothing left that would have to be written.
        unsafe { libc::_exit(0) };
    });
}
