//! Offloaded work, which waits until the test has it done.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::c_void;

use crate::abi::{self, wsh_library, wsh_offload_api, wsh_status};

/// As in the server, unless it is configured otherwise.
const QUEUE_MAX: usize = 1024;

type Work = (unsafe extern "C" fn(*mut c_void), *mut c_void);

thread_local! {
    // Tests run side by side, each on a thread of its own.
    static QUEUE: RefCell<VecDeque<Work>> = const { RefCell::new(VecDeque::new()) };
}

/// Runs what code on the thread of this test has offloaded, and what that offloads in turn. How many there were.
pub fn run_offloaded() -> usize {
    let mut count = 0;
    while let Some((run, context)) = QUEUE.with_borrow_mut(VecDeque::pop_front) {
        // SAFETY: the two were passed together, for one call.
        unsafe { run(context) };
        count += 1;
    }
    count
}

pub(super) static TABLE: wsh_offload_api =
    wsh_offload_api { size: size_of::<wsh_offload_api>() as u32, reserved0: 0, offload };

unsafe extern "C" fn offload(
    _: *mut wsh_library,
    run: unsafe extern "C" fn(*mut c_void),
    context: *mut c_void,
) -> wsh_status {
    QUEUE.with_borrow_mut(|queue| {
        if queue.len() >= QUEUE_MAX {
            return abi::WSH_E_FULL;
        }
        queue.push_back((run, context));
        abi::WSH_OK
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::OffloadError;
    use crate::testing::host;

    #[test]
    fn offloaded_work_is_done_once_and_what_is_refused_is_dropped() {
        host::serve();
        let count = Arc::new(AtomicUsize::new(0));
        let add = || {
            let count = count.clone();
            crate::offload(move || {
                count.fetch_add(1, Ordering::Relaxed);
            })
        };
        for _ in 0..QUEUE_MAX {
            assert_eq!(add(), Ok(()));
        }
        assert_eq!(add(), Err(OffloadError::Full));
        assert_eq!(crate::offload(|| unreachable!("it is full")), Err(OffloadError::Full));
        assert_eq!(run_offloaded(), QUEUE_MAX);
        assert_eq!(count.load(Ordering::Relaxed), QUEUE_MAX);
        assert_eq!(Arc::strong_count(&count), 1);
        crate::offload(|| std::panic::panic_any("contained")).expect("taken");
        assert_eq!(run_offloaded(), 1);
    }
}
