//! Work that blocks, on a thread where it makes no session wait.

use std::ffi::c_void;
use std::fmt;

use crate::abi::{self, wsh_offload_api};
use crate::export::fence;
use crate::host;

/// Why work was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffloadError {
    /// So much waits already as `handlers.offload_queue_max` allows.
    Full,
    /// This version of the library is at its end.
    Ending,
    /// No thread could be had, or there is no server, or it does not offer this.
    NoThread,
}

impl fmt::Display for OffloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too much work waits already",
            Self::Ending => "the library is ending",
            Self::NoThread => "there is no thread for it",
        })
    }
}

impl std::error::Error for OffloadError {}

/// Runs this soon on another thread, which may block: for files, databases, long computations. From any thread.
///
/// The server has at most `handlers.offload_threads_max` such threads for each version of a library. What was taken is run, also
/// when the library is replaced meanwhile: the end of the old code waits for it, and comes before
/// [`on_unload`](crate::Handler::on_unload). A panic is logged and ends nothing else.
///
/// The result gets back to a session by its [`Handle`](crate::Handle): send it from there, or leave it where `on_wake` finds it and
/// [`wake`](crate::Handle::wake).
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use handler_api::{Handle, Handler, Message, OffloadError, Reject, Upgrade, WebSocket, offload};
///
/// #[derive(Default)]
/// struct Hasher {
///     ready: Arc<Mutex<Vec<u64>>>,
/// }
///
/// impl Handler for Hasher {
///     fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
///         Ok(Hasher::default())
///     }
///
///     fn on_message(&mut self, socket: &WebSocket, message: Message<'_>) {
///         let (input, ready, handle) = (message.as_bytes().to_vec(), self.ready.clone(), socket.handle());
///         let taken = offload(move || {
///             let sum = input.iter().map(|byte| u64::from(*byte)).sum();
///             ready.lock().unwrap().push(sum);
///             handle.wake();
///         });
///         if taken == Err(OffloadError::Full) {
///             socket.send("busy");
///         }
///     }
///
///     fn on_wake(&mut self, socket: &WebSocket) {
///         for sum in self.ready.lock().unwrap().drain(..) {
///             socket.send(&sum.to_string());
///         }
///     }
/// }
///
/// # #[cfg(feature = "testing")] {
/// use handler_api::testing::{Fake, Sent, run_offloaded};
///
/// let mut session = Fake::<Hasher>::upgrade("/hasher").open().expect("accepted");
/// session.binary(&[1, 2, 3]);
/// assert_eq!(run_offloaded(), 1);
/// assert_eq!(session.sent(), [Sent::Text("6".into())]);
/// # }
/// ```
///
/// # Errors
/// It is not run, and dropped.
pub fn offload<F: FnOnce() + Send + 'static>(work: F) -> Result<(), OffloadError> {
    // SAFETY: the type is the one of this name.
    let Some(table) = (unsafe { host::extension::<wsh_offload_api>(abi::WSH_OFFLOAD) }) else {
        return Err(OffloadError::NoThread);
    };
    let context: *mut F = Box::into_raw(Box::new(work));
    // SAFETY: this library's own pointer. [any] Function and context fit together.
    let status = unsafe { (table.offload)(host::library(), run::<F>, context.cast()) };
    if status >= abi::WSH_OK {
        return Ok(());
    }
    // SAFETY: it was not accepted, so the box is still ours.
    drop(unsafe { Box::from_raw(context) });
    Err(match status {
        abi::WSH_E_FULL => OffloadError::Full,
        abi::WSH_E_CLOSED => OffloadError::Ending,
        _ => OffloadError::NoThread,
    })
}

unsafe extern "C" fn run<F: FnOnce()>(context: *mut c_void) {
    fence("offloaded work", (), || {
        // SAFETY: the box of `offload`, which is passed to this function once.
        let work = unsafe { Box::from_raw(context.cast::<F>()) };
        work();
    });
}
