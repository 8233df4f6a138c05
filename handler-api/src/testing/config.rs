//! The handler's own config, as a test sets it.

use std::cell::Cell;

use super::host;
use crate::abi::{self, wsh_config_api, wsh_library, wsh_slice, wsh_status};

thread_local! {
    // Tests run side by side, each on a thread of its own.
    static JSON: Cell<&'static str> = const { Cell::new("{}") };
}

/// From here on the table `[handlers.NAME.config]` is this JSON object, for code on the thread of this test.
pub fn set_config(json: &str) {
    host::serve();
    // Read it may be as long as the handler's code runs, and that is here to the end of the program.
    JSON.set(Box::leak(json.into()));
}

pub(super) static TABLE: wsh_config_api =
    wsh_config_api { size: size_of::<wsh_config_api>() as u32, reserved0: 0, get };

unsafe extern "C" fn get(_: *mut wsh_library, json: *mut wsh_slice) -> wsh_status {
    let text = JSON.get();
    // SAFETY: the slot is writable (wsh.h).
    unsafe { json.write(wsh_slice { ptr: text.as_ptr(), len: text.len() }) };
    abi::WSH_OK
}
