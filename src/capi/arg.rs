//! Converts C arguments to slices and back.

use std::{
    ffi::{CStr, c_char},
    slice,
};

/// The bytes of a key or value; `None` for NULL, an empty or an impossibly long one.
///
/// # Safety
/// `data` is NULL or has `len` readable bytes that do not change while the slice is in use.
pub(crate) unsafe fn bytes<'a>(data: *const c_char, len: u64) -> Option<&'a [u8]> {
    let len = usize::try_from(len).ok().filter(|&len| len > 0 && len <= isize::MAX as usize)?;
    if data.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for `len` readable bytes; NULL and lengths over isize::MAX are
    // excluded above.
    Some(unsafe { slice::from_raw_parts(data.cast(), len) })
}

/// The bytes of a name, without its NUL; empty for NULL.
///
/// # Safety
/// `name` is NULL or a NUL-terminated string that does not change while the slice is in use.
pub(crate) unsafe fn name<'a>(name: *const c_char) -> &'a [u8] {
    if name.is_null() {
        return &[];
    }
    // SAFETY: the caller vouches for the NUL.
    unsafe { CStr::from_ptr(name) }.to_bytes()
}

/// Writes through an out parameter, unless it is NULL.
///
/// # Safety
/// `out` is NULL or points to writable memory of its type.
pub(crate) unsafe fn store<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: the caller vouches for a writable `T`; unaligned, because C callers are not
        // always careful.
        unsafe { out.write_unaligned(value) };
    }
}
