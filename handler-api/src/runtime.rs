//! A tokio runtime for this copy of the library, behind the feature `tokio`.
//!
//! It starts when it is first asked for, with one thread, and ends after [`on_unload`](crate::AsyncHandler::on_unload): what
//! still runs then is dropped at its next `await`, and blocking work has [`PATIENCE`] to come to its end. A library with a
//! runtime can therefore be unloaded. The futures of an [`AsyncHandler`](crate::AsyncHandler) run within it: sleeping, sockets
//! and [`spawn`] work in them.

use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio::task::JoinHandle;

/// How long work that does not end keeps the library from being unloaded.
pub const PATIENCE: Duration = Duration::from_secs(10);

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);
static HANDLE: OnceLock<Handle> = OnceLock::new();

/// The runtime of this library.
///
/// # Panics
/// The operating system gives it no thread or no descriptor.
pub fn handle() -> &'static Handle {
    HANDLE.get_or_init(|| {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tokio")
            .enable_all()
            .build()
            .unwrap_or_else(|error| panic!("the runtime cannot start: {error}"));
        let handle = runtime.handle().clone();
        crate::export::AT_THE_END.get_or_init(|| shut_down);
        *RUNTIME.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
        handle
    })
}

/// Runs a future beside the sessions, on the thread of the runtime.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    handle().spawn(future)
}

/// Runs what blocks on a thread of its own.
pub fn spawn_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    handle().spawn_blocking(work)
}

pub(crate) fn enter() -> EnterGuard<'static> {
    handle().enter()
}

/// The last thing that this library does with it.
fn shut_down() {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(runtime) = runtime {
        runtime.shutdown_timeout(PATIENCE);
    }
}
