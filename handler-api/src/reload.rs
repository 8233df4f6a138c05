//! What becomes of the sessions of a library that is replaced: the words of `export_handler!`, and the functions that they put
//! into the table. Not for use by hand.

use std::ffi::c_void;

use crate::abi::{self, wsh_session, wsh_sink, wsh_status};
use crate::export::{Migrates, StartsEmpty, accept, bytes, fence, object};
use crate::handler::Handler;
use crate::migrate::Migrate;
use crate::websocket::WebSocket;

/// The parts of info and table that are about reloads.
#[derive(Debug, Clone, Copy)]
pub struct Reload {
    pub(crate) flags: u32,
    pub(crate) state_version: u32,
    pub(crate) export_state:
        Option<unsafe extern "C" fn(*mut c_void, *mut wsh_session, wsh_sink, *mut c_void) -> wsh_status>,
    pub(crate) cancel_export: Option<unsafe extern "C" fn(*mut c_void, *mut wsh_session) -> wsh_status>,
    pub(crate) import_state: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *mut wsh_session,
            u32,
            *const u8,
            usize,
            *mut *mut c_void,
        ) -> wsh_status,
    >,
}

/// `export_handler!(H)`: sessions finish on the code they began with.
pub const fn drain() -> Reload {
    Reload { flags: 0, state_version: 0, export_state: None, cancel_export: None, import_state: None }
}

/// `export_handler!(H, restart)`: sessions are closed with 1012.
pub const fn restart() -> Reload {
    Reload { flags: abi::WSH_LIBRARY_RESTARTS, ..drain() }
}

/// `export_handler!(H, migrate)`: sessions move with what [`Migrate`] writes.
pub const fn migrate<H: Migrates>() -> Reload {
    H::RELOAD
}

/// `export_handler!(H, stateless)`: sessions move with nothing.
pub const fn stateless<H: StartsEmpty>() -> Reload {
    H::RELOAD
}

pub(crate) const fn version_of<H: Migrate>() -> u32 {
    assert!(H::STATE_VERSION > 0, "STATE_VERSION is 1 or more; 0 is for handlers without state");
    H::STATE_VERSION
}

impl<H: Handler + Migrate> Migrates for H {
    const RELOAD: Reload = Reload {
        flags: abi::WSH_LIBRARY_MIGRATES,
        state_version: version_of::<H>(),
        export_state: Some(export_state::<H>),
        cancel_export: Some(cancel_export::<H>),
        import_state: Some(import_state::<H>),
    };
}

impl<H: Handler + Default> StartsEmpty for H {
    const RELOAD: Reload = Reload {
        flags: abi::WSH_LIBRARY_MIGRATES,
        state_version: 0,
        export_state: Some(export_nothing),
        cancel_export: None,
        import_state: Some(import_default::<H>),
    };
}

unsafe extern "C" fn export_state<H: Handler + Migrate>(
    ctx: *mut c_void,
    session: *mut wsh_session,
    sink: wsh_sink,
    sink_ctx: *mut c_void,
) -> wsh_status {
    fence("export_state", abi::WSH_E_PANIC, || {
        // SAFETY: the host passes the object of this session and a session that is good until this returns (wsh.h).
        let (handler, socket) = unsafe { (object::<H>(ctx), &WebSocket::new(session)) };
        let Ok(state) = handler.export_state(socket) else { return abi::WSH_E_BUSY };
        // SAFETY: inside the call that the sink was given to, on its thread; the state is readable.
        let status = unsafe { sink(sink_ctx, state.as_ptr(), state.len()) };
        if status < abi::WSH_OK {
            // For the host an export that fails has not frozen anything; the handler has to hear that it goes on.
            handler.cancel_export(socket);
        }
        status
    })
}

unsafe extern "C" fn cancel_export<H: Handler + Migrate>(
    ctx: *mut c_void,
    session: *mut wsh_session,
) -> wsh_status {
    fence("cancel_export", abi::WSH_E_PANIC, || {
        // SAFETY: as in `export_state`.
        let (handler, socket) = unsafe { (object::<H>(ctx), &WebSocket::new(session)) };
        handler.cancel_export(socket);
        abi::WSH_OK
    })
}

unsafe extern "C" fn import_state<H: Handler + Migrate>(
    _: *mut c_void,
    session: *mut wsh_session,
    from_version: u32,
    state: *const u8,
    len: usize,
    slot: *mut *mut c_void,
) -> wsh_status {
    fence("import_state", abi::WSH_E_PANIC, || {
        // SAFETY: the session is good and the state readable until this returns (wsh.h).
        let (socket, state) = unsafe { (&WebSocket::new(session), bytes(state, len)) };
        match H::import_state(from_version, state, socket) {
            // SAFETY: the slot is writable (wsh.h).
            Some(handler) => unsafe { accept(slot, handler) },
            None => abi::WSH_E_REJECTED,
        }
    })
}

unsafe extern "C" fn export_nothing(
    _: *mut c_void,
    _: *mut wsh_session,
    _: wsh_sink,
    _: *mut c_void,
) -> wsh_status {
    abi::WSH_OK
}

/// Takes over whatever state an older or newer version had: this one has no use for it.
unsafe extern "C" fn import_default<H: Handler + Default>(
    _: *mut c_void,
    _: *mut wsh_session,
    _: u32,
    _: *const u8,
    _: usize,
    slot: *mut *mut c_void,
) -> wsh_status {
    // SAFETY: the slot is writable (wsh.h).
    fence("import_state", abi::WSH_E_PANIC, || unsafe { accept(slot, H::default()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Busy, Message, Reject, Upgrade, export};

    #[derive(Default)]
    struct Any;

    impl Handler for Any {
        fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
            Ok(Self)
        }
        fn on_message(&mut self, _: &WebSocket, _: Message<'_>) {}
    }

    impl Migrate for Any {
        const STATE_VERSION: u32 = 3;

        fn export_state(&mut self, _: &WebSocket) -> Result<Vec<u8>, Busy> {
            Ok(Vec::new())
        }
        fn import_state(_: u32, _: &[u8], _: &WebSocket) -> Option<Self> {
            Some(Self)
        }
    }

    /// Flags, version and functions say the same thing: the server goes by all of them.
    #[test]
    fn each_word_of_export_handler_is_what_the_server_reads() {
        let migrates = abi::WSH_LIBRARY_MIGRATES;
        for (reload, flags, state_version) in [
            (drain(), 0, 0),
            (restart(), abi::WSH_LIBRARY_RESTARTS, 0),
            (migrate::<Any>(), migrates, 3),
            (stateless::<Any>(), migrates, 0),
        ] {
            let info = export::info::<Any>("any_wsh", "1.0.0", false, &reload);
            assert_eq!((info.flags, info.state_version), (flags, state_version));
            let table = export::table::<Any>(&reload);
            assert_eq!(table.export_state.is_some(), flags == migrates);
            assert_eq!(table.import_state.is_some(), flags == migrates);
        }
    }
}
