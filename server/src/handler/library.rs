//! Opens a handler library, exchanges tables with it, and keeps it mapped.

use std::ffi::c_void;
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handler_api::abi;

use super::extension::Extensions;
use super::host;
use super::{Owner, Retained, unmap};
use crate::generation::Services;

/// A library that was loaded, initialised and found healthy.
///
/// Whoever holds one may call its functions, on the threads of its generation only: that is what makes the calls sound, and
/// the generation's workers are the only ones that own this value.
pub(crate) struct HandlerLibrary {
    /// Without a function until [`enter`](HandlerLibrary::enter) has succeeded.
    pub(super) table: abi::wsh_handler_api,
    /// As the table.
    pub(super) extensions: Extensions,
    /// The library may log as long as it is mapped, also from its destructors, so this is freed after it is unmapped, or never.
    identity: ManuallyDrop<Box<Identity>>,
    // Never closed by a drop. Unmapping is sound only after every thread that ran its code is gone, and that is decided by the
    // retirement of a generation.
    mapped: ManuallyDrop<libloading::Library>,
    path: PathBuf,
}

/// Who a library is: what `wsh_library *` points at.
pub(crate) struct Identity {
    /// Name of the handler, for instance `chat`.
    pub(crate) name: Arc<str>,
    /// Number of the generation, counted from 1 for each handler.
    pub(crate) generation: u64,
    /// The last thing the library logged as an error, so that a refused load can say why.
    pub(super) last_error: Mutex<Option<String>>,
    /// What the library can ask for beyond the functions that are about sessions.
    pub(super) services: Arc<Services>,
}

impl Identity {
    pub(crate) fn new(name: Arc<str>, generation: u64, services: Arc<Services>) -> Self {
        Self { name, generation, last_error: Mutex::new(None), services }
    }
}

/// Why a library that passed the checks on its file could not be taken into service.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The dynamic loader refused it; its own words.
    Open(String),
    /// The entry symbol is not there.
    NoEntry(String),
    /// The entry function returned an error.
    Entry { status: i32, said: Option<String> },
    /// The entry function returned success and no table.
    NoTable,
    /// The table is shorter than what version 1.0 begins with, or of another major version.
    Table(String),
    /// The table has no `on_message`.
    NoOnMessage,
    /// `health` returned an error.
    Unhealthy { status: i32, said: Option<String> },
    /// It did not return in time from a constructor, its entry or its health check. Its thread is lost.
    TimedOut(Duration),
    /// The thread for it could not be started or ended early.
    Thread(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |f: &mut fmt::Formatter<'_>, said: &Option<String>| match said {
            Some(said) => write!(f, ": it said \"{said}\""),
            None => Ok(()),
        };
        match self {
            Self::Open(text) => write!(f, "the dynamic loader refused it: {text}"),
            Self::NoEntry(text) => write!(f, "it has no function {}: {text}", abi::ENTRY_SYMBOL),
            Self::Entry { status, said } => {
                write!(f, "its {} returned {}", abi::ENTRY_SYMBOL, status_name(*status))?;
                because(f, said)
            }
            Self::NoTable => write!(f, "its {} returned success without a table", abi::ENTRY_SYMBOL),
            Self::Table(text) => f.write_str(text),
            Self::NoOnMessage => {
                f.write_str("its table has no on_message, the one function that is required")
            }
            Self::Unhealthy { status, said } => {
                write!(f, "its health check returned {}", status_name(*status))?;
                because(f, said)
            }
            Self::TimedOut(limit) => {
                write!(f, "it did not finish initialising within {} s", limit.as_secs_f64())
            }
            Self::Thread(text) => write!(f, "no thread could be had for it: {text}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl HandlerLibrary {
    /// Maps the library and runs its constructors. Call it on the control thread of the generation, which `owner` has claimed;
    /// it may block for as long as the library pleases.
    ///
    /// The file must be a private copy that nobody writes to any more.
    pub(crate) fn map(path: &Path, identity: Identity, owner: &Arc<Owner>) -> Result<Self, LoadError> {
        // RTLD_NOW: a missing function is an error now and not a crash at its first call.
        // RTLD_LOCAL: handlers do not see each other's symbols.
        let flags = libloading::os::unix::RTLD_NOW | libloading::os::unix::RTLD_LOCAL;
        // SAFETY: loading runs the library's constructors. Handler libraries are trusted code of the server's owner; the
        // file passed the checks of `registry::check` and a trial load in a child process.
        let mapped: libloading::Library = unsafe { libloading::os::unix::Library::open(Some(path), flags) }
            .map_err(|error| LoadError::Open(loader_text(&error)))?
            .into();
        // SAFETY: the symbol is only looked at, not called or read.
        if let Ok(entry) = unsafe { mapped.get::<*const c_void>(abi::ENTRY_SYMBOL.as_bytes()) } {
            owner.mapped(*entry);
        }
        Ok(Self {
            // SAFETY: all-zero is a valid table: no context and no function.
            table: unsafe { std::mem::zeroed() },
            extensions: Extensions::default(),
            identity: ManuallyDrop::new(Box::new(identity)),
            mapped: ManuallyDrop::new(mapped),
            path: path.to_owned(),
        })
    }

    /// Calls its entry and its health check, on the thread that mapped it. Nothing else of it may be called before, nor after
    /// this has failed.
    pub(crate) fn enter(&mut self) -> Result<(), LoadError> {
        // SAFETY: the type is the one that wsh.h gives this symbol; the check of the file saw that it is a function.
        let entry: abi::wsh_handler_entry_v1 = unsafe { self.mapped.get(abi::ENTRY_SYMBOL.as_bytes()) }
            .map(|symbol| *symbol)
            .map_err(|error| LoadError::NoEntry(loader_text(&error)))?;
        let library: *const Identity = &raw const **self.identity;
        let mut table: *const abi::wsh_handler_api = std::ptr::null();
        // SAFETY: `host::TABLE` is a static, the identity lives in a box that is kept as long as the mapping, and `table` is
        // writable for the length of the call.
        let status = unsafe { entry(&raw const host::TABLE, library.cast_mut().cast(), &raw mut table) };
        if status < abi::WSH_OK {
            return Err(LoadError::Entry { status, said: self.identity.take_last_error() });
        }
        self.table = read_table(table)?;
        self.extensions = Extensions::of(&self.table);
        self.check_health()
    }

    /// Takes the library out of memory, after every thread of its generation was joined.
    ///
    /// # Errors
    /// In any doubt it stays mapped for ever.
    pub(crate) fn unmap(mut self, owner: &Arc<Owner>, limit: Duration) -> Result<(), Retained> {
        // SAFETY: taken once: the value is consumed, and has no Drop that would take it again.
        let mapped = unsafe { ManuallyDrop::take(&mut self.mapped) };
        unmap(mapped, owner, &self.path, limit)?;
        // SAFETY: as above; the library is gone, and with it whoever knew the identity's address.
        drop(unsafe { ManuallyDrop::take(&mut self.identity) });
        Ok(())
    }

    /// Keeps the library mapped for ever.
    pub(crate) fn retain(self, why: Retained) -> Retained {
        // Neither mapping nor identity is ever dropped by itself.
        drop(self);
        why
    }

    fn check_health(&self) -> Result<(), LoadError> {
        let Some(health) = self.table.health else { return Ok(()) };
        // SAFETY: control thread, right after entry; `library_ctx` is what the library gave for this purpose.
        let status = unsafe { health(self.table.library_ctx) };
        if status < abi::WSH_OK {
            return Err(LoadError::Unhealthy { status, said: self.identity.take_last_error() });
        }
        Ok(())
    }

    /// Tells the library that no new session comes. Control thread only.
    pub(crate) fn quiesce(&self) {
        if let Some(quiesce) = self.table.quiesce {
            // SAFETY: control thread; the library is mapped and initialised.
            unsafe { quiesce(self.table.library_ctx) }
        }
    }

    /// The last call into the library. Control thread only, after every session was freed.
    pub(crate) fn shutdown(&self) {
        if let Some(shutdown) = self.table.shutdown {
            // SAFETY: control thread; the generation calls this once, when no session and no other worker is left.
            unsafe { shutdown(self.table.library_ctx) }
        }
    }
}

// SAFETY: the table holds function pointers, which any thread may hold, and `library_ctx`, which is only ever passed back to
// functions whose contract says on which threads they are called. `Identity` is made of Send and Sync parts.
unsafe impl Send for HandlerLibrary {}
// SAFETY: as above; no method changes the table.
unsafe impl Sync for HandlerLibrary {}

impl fmt::Debug for HandlerLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerLibrary")
            .field("name", &self.identity.name)
            .field("generation", &self.identity.generation)
            .finish_non_exhaustive()
    }
}

impl Identity {
    fn take_last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Copies the library's table as far as it reaches; what it does not have is not implemented.
fn read_table(table: *const abi::wsh_handler_api) -> Result<abi::wsh_handler_api, LoadError> {
    if table.is_null() {
        return Err(LoadError::NoTable);
    }
    // SAFETY: the entry returned success and this pointer; every table begins with its size, which is at the same place in
    // every version.
    let (size, major, minor) = unsafe { ((*table).size as usize, (*table).abi_major, (*table).abi_minor) };
    if major != abi::WSH_ABI_MAJOR {
        return Err(LoadError::Table(format!(
            "its table is of ABI {major}.{minor}, this server speaks {}.{}",
            abi::WSH_ABI_MAJOR,
            abi::WSH_ABI_MINOR
        )));
    }
    let required = std::mem::offset_of!(abi::wsh_handler_api, on_message) + size_of::<*const c_void>();
    if size < required {
        return Err(LoadError::Table(format!(
            "its table says it is {size} bytes long, the shortest possible one has {required}: is its `size` set?"
        )));
    }
    // SAFETY: all-zero is a valid table: no context and no function.
    let mut copy: abi::wsh_handler_api = unsafe { std::mem::zeroed() };
    let known = size.min(size_of::<abi::wsh_handler_api>());
    // SAFETY: the library vouches for `size` bytes at `table`; `copy` has at least `known` bytes; they cannot overlap.
    unsafe { std::ptr::copy_nonoverlapping(table.cast::<u8>(), (&raw mut copy).cast::<u8>(), known) };
    if copy.on_message.is_none() {
        return Err(LoadError::NoOnMessage);
    }
    Ok(copy)
}

/// The loader's own words, without the name of the call that reported them.
fn loader_text(error: &libloading::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// `WSH_E_PANIC (-7)`: a status as wsh.h names it.
pub(super) fn status_name(status: i32) -> String {
    let name = match status {
        abi::WSH_OK => "WSH_OK",
        abi::WSH_DONE => "WSH_DONE",
        abi::WSH_SLOW => "WSH_SLOW",
        abi::WSH_HOLD => "WSH_HOLD",
        abi::WSH_E_INVALID => "WSH_E_INVALID",
        abi::WSH_E_CLOSED => "WSH_E_CLOSED",
        abi::WSH_E_FULL => "WSH_E_FULL",
        abi::WSH_E_TOO_BIG => "WSH_E_TOO_BIG",
        abi::WSH_E_UNSUPPORTED => "WSH_E_UNSUPPORTED",
        abi::WSH_E_NO_MEMORY => "WSH_E_NO_MEMORY",
        abi::WSH_E_PANIC => "WSH_E_PANIC",
        abi::WSH_E_STATE => "WSH_E_STATE",
        abi::WSH_E_NOT_FOUND => "WSH_E_NOT_FOUND",
        abi::WSH_E_REJECTED => "WSH_E_REJECTED",
        abi::WSH_E_BUSY => "WSH_E_BUSY",
        abi::WSH_E_FORBIDDEN => "WSH_E_FORBIDDEN",
        abi::WSH_E_INTERNAL => "WSH_E_INTERNAL",
        _ => return format!("the unknown status {status}"),
    };
    format!("{name} ({status})")
}
