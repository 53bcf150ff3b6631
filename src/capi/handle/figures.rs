//! Structs of figures that may grow.

use std::{ffi::c_void, ptr};

use super::error::CallError;

/// A struct of the header, and how each of its figures is made.
macro_rules! figures {
    (
        $(#[$about:meta])*
        $struct:ident: |$($from:ident: $type:ty),+|
        $($name:ident = $value:expr, $doc:literal;)+
    ) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[allow(non_camel_case_types, reason = "the name of the header")]
        pub struct $struct {
            $(#[doc = $doc] pub $name: u64,)+
        }

        impl $struct {
            fn of($($from: $type),+) -> Self {
                Self { $($name: $value,)+ }
            }
        }
    };
}
pub(super) use figures;

/// Larger than the structs will ever be.
const LARGEST: usize = 1 << 16;

/// Writes a struct that may grow, as far as the caller knows it; a newer caller's fields are 0.
///
/// # Safety
/// `out` is NULL or has `size` writable bytes.
pub(super) unsafe fn give<T>(out: *mut T, size: usize, figures: impl FnOnce() -> T) -> Result<(), CallError> {
    if out.is_null() || size == 0 || size > LARGEST || !size.is_multiple_of(size_of::<u64>()) {
        return Err(CallError::Argument("the struct is NULL, or its size is not that of any version of it"));
    }
    let figures = figures();
    let known = size.min(size_of::<T>());
    // SAFETY: the caller vouches for `size` bytes.
    unsafe {
        ptr::write_bytes(out.cast::<u8>().add(known), 0, size - known);
        ptr::copy_nonoverlapping((&raw const figures).cast::<c_void>().cast::<u8>(), out.cast(), known);
    }
    Ok(())
}
