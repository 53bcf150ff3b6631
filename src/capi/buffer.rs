//! Copies of values in `malloc` memory: those that `uwsgi_cache_magic_get` gives to the caller, and
//! those that the raw tier keeps per thread.

use std::{ffi::c_char, mem::MaybeUninit, ptr, slice};

use crate::{engine::Sink, shm::SharedBytes};

/// A copy for the caller, followed by a NUL for callers that forget the length.
#[derive(Debug)]
pub(crate) struct MallocBuf {
    data: *mut u8,
    len: usize,
}

impl MallocBuf {
    /// Empty, without an allocation.
    pub(crate) const fn new() -> Self {
        Self { data: ptr::null_mut(), len: 0 }
    }

    /// Bytes of the copy.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Passes the memory to a caller who will `free` it; NULL if empty.
    pub(crate) fn into_raw(mut self) -> *mut c_char {
        std::mem::replace(&mut self.data, ptr::null_mut()).cast()
    }

    /// Allocates `len` bytes and a NUL behind them; `None` = no memory.
    #[inline(always)]
    pub(crate) fn room(&mut self, len: usize) -> Option<&mut [MaybeUninit<u8>]> {
        let need = len.checked_add(1)?;
        self.release();
        // SAFETY: malloc has no preconditions.
        self.data = unsafe { libc::malloc(need) }.cast();
        if self.data.is_null() {
            return None;
        }
        self.len = len;
        // SAFETY: len + 1 bytes, owned by this value and borrowed mutably with it.
        unsafe {
            self.data.add(len).write(0);
            Some(slice::from_raw_parts_mut(self.data.cast(), len))
        }
    }

    #[inline(always)]
    fn release(&mut self) {
        if !self.data.is_null() {
            // SAFETY: allocated by malloc and not passed on (`into_raw` leaves NULL).
            unsafe { libc::free(self.data.cast()) };
        }
    }
}

impl Sink for MallocBuf {
    #[inline(always)]
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        let Some(room) = self.room(src.len()) else { return false };
        src.copy_to_uninit(room);
        true
    }
}

impl Drop for MallocBuf {
    #[inline(always)]
    fn drop(&mut self) {
        self.release();
    }
}

/// Bytes in `malloc` memory, 16-aligned, followed by a NUL for callers that forget the length.
#[derive(Debug)]
pub(crate) struct Buffer {
    data: *mut u8,
    len: usize,
    /// Bytes allocated, including the NUL.
    capacity: usize,
}

impl Buffer {
    /// Empty, without an allocation.
    pub(crate) const fn new() -> Self {
        Self { data: ptr::null_mut(), len: 0, capacity: 0 }
    }

    /// Bytes of the copy.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    /// Start of the copy; NULL if empty.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut c_char {
        self.data.cast()
    }

    /// Frees the memory if it is more than `keep` bytes.
    pub(crate) fn shrink(&mut self, keep: usize) {
        if self.capacity > keep {
            *self = Self::new();
        }
    }

    #[inline]
    fn allocate(&mut self, need: usize) -> Option<()> {
        if self.capacity > 0 {
            *self = Self::new();
        }
        // SAFETY: malloc has no preconditions.
        let data = unsafe { libc::malloc(need) }.cast::<u8>();
        if data.is_null() {
            return None;
        }
        (self.data, self.capacity) = (data, need);
        Some(())
    }

    /// Space for `len` bytes and the NUL, discarding the old content; `None` = no memory.
    #[inline(always)]
    fn room(&mut self, len: usize) -> Option<&mut [MaybeUninit<u8>]> {
        let need = len.checked_add(1)?;
        if need > self.capacity {
            self.allocate(need)?;
        }
        self.len = len;
        // SAFETY: `data` has `capacity` >= len + 1 bytes, owned by this buffer and borrowed mutably
        // with it.
        unsafe {
            self.data.add(len).write(0);
            Some(slice::from_raw_parts_mut(self.data.cast(), len))
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for Buffer {
    #[inline(always)]
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        let Some(room) = self.room(src.len()) else { return false };
        src.copy_to_uninit(room);
        true
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if self.data.is_null() {
            return;
        }
        // SAFETY: `data` came from malloc.
        unsafe { libc::free(self.data.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gift_is_new_memory_each_time() {
        let mut gift = MallocBuf::new();
        assert!(gift.room(usize::MAX).is_none() && gift.data.is_null());
        assert_eq!(gift.room(10).map(|r| r.len()), Some(10));
        assert_eq!(gift.room(100).map(|r| r.len()), Some(100));
        assert_eq!(gift.len(), 100);
        let data = gift.into_raw();
        // SAFETY: 101 bytes, the last one written by `room`; ours to free.
        unsafe {
            assert_eq!(*data.add(100), 0);
            libc::free(data.cast());
        }
        assert!(MallocBuf::new().into_raw().is_null());
    }

    #[test]
    fn a_buffer_is_reused_grown_and_shrunk() {
        let mut buffer = Buffer::new();
        assert_eq!(buffer.room(100).map(|r| r.len()), Some(100));
        let first = buffer.as_mut_ptr();
        assert_eq!(buffer.room(10).map(|r| r.len()), Some(10));
        assert_eq!((buffer.as_mut_ptr(), buffer.len()), (first, 10));
        buffer.shrink(101);
        assert!(!buffer.as_mut_ptr().is_null());
        buffer.shrink(100);
        assert!(buffer.as_mut_ptr().is_null());
        assert!(buffer.room(usize::MAX).is_none());
    }
}
