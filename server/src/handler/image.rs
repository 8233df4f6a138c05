//! What is mapped where: the program, and the libraries that the loader has in its list.
//!
//! Asked of `dl_iterate_phdr`, which waits for no constructor. `dladdr` would: it takes the lock under which they run.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ops::Range;
use std::ptr;

/// An object in memory, from its first to its last mapped byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) range: Range<usize>,
    /// As the loader knows it; empty for the program.
    pub(super) path: CString,
}

impl Image {
    /// All that are mapped, the program first.
    pub(super) fn all() -> Vec<Self> {
        let mut images = Vec::new();
        // SAFETY: `note` is a callback of the right type, and its argument is the Vec that it expects, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut images).cast()) };
        images
    }

    /// The one that an address lies in.
    pub(super) fn around(address: usize) -> Option<Self> {
        Self::all().into_iter().find(|image| image.range.contains(&address))
    }

    /// The one that a handle of `dlopen` stands for.
    ///
    /// # Safety
    /// The handle is open.
    pub(super) unsafe fn of(handle: *mut c_void) -> Option<Self> {
        let mut map: *const LinkMap = ptr::null();
        // SAFETY: the caller's promise; this request writes a pointer to the link map.
        let result = unsafe { libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) };
        if result != 0 || map.is_null() {
            return None;
        }
        // SAFETY: the map of an open handle stays, and <link.h> promises these first fields of it.
        Self::around(unsafe { (*map).dynamic.addr() })
    }
}

/// Whether an address lies in the program itself and not in a library.
#[inline]
pub(super) fn is_in_program(address: usize) -> bool {
    // The linker gives these to every executable; their addresses are constants, so there is nothing to initialise.
    unsafe extern "C" {
        static __executable_start: u8;
        static _end: u8;
    }
    ((&raw const __executable_start).addr()..(&raw const _end).addr()).contains(&address)
}

/// Whether an address lies in the program or in a library, and not on a stack or in other memory. Takes no memory.
pub(super) fn is_in_any(address: usize) -> bool {
    // SAFETY: `find` is a callback of the right type, and its argument is the address that it expects, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(find), (&raw const address).cast_mut().cast()) != 0 }
}

/// The beginning of `struct link_map` of <link.h>.
#[repr(C)]
struct LinkMap {
    _base: usize,
    _name: *const libc::c_char,
    dynamic: *const c_void,
}

/// Adds an object to the Vec.
unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, images: *mut c_void) -> c_int {
    // SAFETY: `all` passes its Vec, and nobody else uses it meanwhile; the loader passes a good info.
    let (images, info) = unsafe { (&mut *images.cast::<Vec<Image>>(), &*info) };
    // SAFETY: the loader passes a good info.
    let range = unsafe { range_of(info) };
    let path = if info.dlpi_name.is_null() {
        c""
    } else {
        // SAFETY: a C string that stays while the loader's list is locked.
        unsafe { CStr::from_ptr(info.dlpi_name) }
    };
    images.push(Image { range, path: path.into() });
    0
}

/// Not 0, which ends the search, if the address lies in the object.
unsafe extern "C" fn find(info: *mut libc::dl_phdr_info, _: usize, address: *mut c_void) -> c_int {
    // SAFETY: `is_in_any` passes its address; the loader passes a good info.
    let (address, range) = unsafe { (*address.cast::<usize>(), range_of(&*info)) };
    c_int::from(range.contains(&address))
}

/// # Safety
/// The info is the loader's, in a callback of `dl_iterate_phdr`.
unsafe fn range_of(info: &libc::dl_phdr_info) -> Range<usize> {
    let headers = if info.dlpi_phdr.is_null() {
        &[]
    } else {
        // SAFETY: so many headers, which stay mapped while the loader's list is locked.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
    };
    let base = info.dlpi_addr as usize;
    let (mut start, mut end) = (usize::MAX, 0);
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let begin = base.wrapping_add(header.p_vaddr as usize);
        start = start.min(begin);
        end = end.max(begin.wrapping_add(header.p_memsz as usize));
    }
    start..end
}
