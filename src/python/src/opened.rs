//! Caches that this process opened, by name, and those of the host.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::{CStr, CString},
    ptr,
    sync::{Arc, Mutex, MutexGuard},
};

use ::ucache::capi::handle::{status::Status, ucache};

use crate::{library::Library, py::released};

const NOT_FOUND: i32 = Status::NotFound as i32;

/// A handle in use. The last one closes it.
#[derive(Clone)]
pub(crate) struct Opened(Arc<Handle>);

struct Handle {
    library: &'static Library,
    handle: *mut ucache,
    /// The address of the server behind it.
    server: Option<Box<[u8]>>,
    /// Whether a number is stored as digits.
    is_decimal: bool,
}

// SAFETY: a handle may be used by all threads at the same time.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the last user is gone.
        unsafe { (self.library.ucache_close)(self.handle) }
    }
}

impl Opened {
    #[inline]
    pub(crate) fn handle(&self) -> *mut ucache {
        self.0.handle
    }

    #[inline]
    pub(crate) fn is_backed(&self) -> bool {
        self.0.server.is_some()
    }

    pub(crate) fn is_decimal(&self) -> bool {
        self.0.is_decimal
    }

    pub(crate) fn server(&self) -> Option<&[u8]> {
        self.0.server.as_deref()
    }
}

/// The caches by their names. The lock is held with the GIL, for a moment.
static OPENED: Mutex<BTreeMap<CString, Opened>> = Mutex::new(BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<CString, Opened>> {
    OPENED.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How a handle comes to be: `ucache_open`, `ucache_attach`, `ucache_named`.
type Make = unsafe extern "C" fn(*mut *mut ucache, *const std::ffi::c_char) -> i32;

fn make(library: &'static Library, make: Make, text: &CStr) -> Result<Opened, i32> {
    let mut handle = ptr::null_mut();
    // SAFETY: a place and a text.
    let status = unsafe { make(&raw mut handle, text.as_ptr()) };
    if status != 0 {
        return Err(status);
    }
    let (mut server, mut len) = ([0_u8; 512], 0);
    let mut number = [0_u8; 8];
    // SAFETY: the handle is open, the buffers have their sizes.
    let (found, _) = unsafe {
        let (buffer, size) = (server.as_mut_ptr().cast(), server.len());
        let found = (library.ucache_server)(handle, buffer, size, &raw mut len);
        let (buffer, mut digits) = (number.as_mut_ptr().cast(), 0);
        (found, (library.ucache_number_value)(handle, 0, buffer, number.len(), &raw mut digits))
    };
    // Of an address that is too long for a message the beginning is kept.
    let server = (found != NOT_FOUND).then(|| server[..len.min(512)].into());
    Ok(Opened(Arc::new(Handle { library, handle, server, is_decimal: number[0] == b'0' })))
}

/// A cache of this name: opened here, else of the host.
pub(crate) fn find(library: &'static Library, name: &CStr) -> Result<Opened, i32> {
    let known = all().get(name).cloned();
    match known {
        Some(opened) => Ok(opened),
        None => make(library, library.ucache_named, name),
    }
}

/// Opens a cache under a name. `None` = the name is in use.
pub(crate) fn open(library: &'static Library, name: &CStr, definition: &CStr) -> Result<bool, i32> {
    add(name, || make(library, library.ucache_open, definition))
}

/// Attaches to a store under a name.
pub(crate) fn attach(library: &'static Library, name: &CStr, path: &CStr) -> Result<bool, i32> {
    add(name, || make(library, library.ucache_attach, path))
}

/// `false` = the name is in use.
fn add(name: &CStr, make: impl FnOnce() -> Result<Opened, i32>) -> Result<bool, i32> {
    if all().contains_key(name) {
        return Ok(false);
    }
    // Without the GIL, and not under the lock: it may read a large file.
    let opened = released(make)?;
    match all().entry(name.to_owned()) {
        Entry::Vacant(place) => {
            place.insert(opened);
            Ok(true)
        }
        Entry::Occupied(_) => Ok(false),
    }
}

/// Closes a cache once its last call has returned; `false` = it was not opened here.
pub(crate) fn close(name: &CStr) -> bool {
    let removed = all().remove(name);
    removed.is_some()
}

/// The names of the caches opened here.
pub(crate) fn names() -> Vec<CString> {
    all().keys().cloned().collect()
}
