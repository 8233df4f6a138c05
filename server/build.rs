//! Lets handler libraries find the functions of libc that the program defines itself, see `src/handler/interpose.rs`.
//!
//! A linker exports nothing from an executable unless it is told to. The names go to everything that is linked from this
//! package: the program, and the tests, which load libraries too. Whether it worked is asked at run time
//! (`interpose::is_effective`), so a name that is missing here makes every library stay in memory and nothing worse.

use std::env;

/// What `src/handler/interpose.rs` defines.
const NAMES: [&str; 7] = [
    "pthread_create",
    "thrd_create",
    "pthread_key_create",
    "pthread_key_delete",
    "tss_create",
    "tss_delete",
    "__cxa_thread_atexit_impl",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(wshd_interposes)");
    if interposes() {
        println!("cargo:rustc-cfg=wshd_interposes");
        for name in NAMES {
            println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol={name}");
        }
    }
}

/// Where it is known how the loader and the threads of the C library behave. A static program has no loader, and sanitizers
/// define the same functions themselves.
fn interposes() -> bool {
    let target = |what: &str| env::var(format!("CARGO_CFG_{what}")).unwrap_or_default();
    target("TARGET_OS") == "linux"
        && target("TARGET_ENV") == "gnu"
        && !target("TARGET_FEATURE").split(',').any(|feature| feature == "crt-static")
        && env::var_os("CARGO_CFG_SANITIZE").is_none()
}
