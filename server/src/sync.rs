//! The locks and atomics of what has to be right in every order of threads: std's, or in the model checker loom's.
//!
//! `cargo xtask test` runs the models: tests named `model_`, built with `--cfg wshd_loom`.

#[cfg(not(wshd_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(wshd_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
