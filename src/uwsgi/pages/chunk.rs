//! The part of a body that a transformation has in hand, and bodies in memory that uWSGI's buffers
//! can give away.

use std::{
    mem::{ManuallyDrop, MaybeUninit},
    ops::{Deref, Range},
    ptr, slice,
};

use super::{
    super::raw,
    calls::{self, Calls},
};
use crate::{engine::Sink, shm::SharedBytes};

/// The part of a body that a transformation has in hand.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    buffer: *mut raw::uwsgi_buffer,
    calls: &'static Calls,
    _transformation: std::marker::PhantomData<&'a mut raw::uwsgi_transformation>,
}

impl Chunk<'_> {
    /// # Safety
    /// uWSGI passed `transformation` to one of our functions, which is still running while the
    /// result is used.
    pub(super) unsafe fn of(transformation: *mut raw::uwsgi_transformation) -> Option<Self> {
        let (calls, _) = calls::get()?;
        // SAFETY: the caller's contract.
        let buffer = unsafe { (*transformation).chunk };
        (!buffer.is_null()).then_some(Self { buffer, calls, _transformation: std::marker::PhantomData })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: uWSGI's buffer has `pos` bytes; nothing else uses it now.
        unsafe {
            let buffer = &*self.buffer;
            if buffer.buf.is_null() { &[] } else { slice::from_raw_parts(buffer.buf.cast(), buffer.pos) }
        }
    }

    /// Replaces the content; `false` = no memory.
    pub(super) fn set(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: as in `bytes`; uWSGI copies them.
        unsafe {
            (*self.buffer).pos = 0;
            bytes.is_empty()
                || (self.calls.buffer_append)(self.buffer, bytes.as_ptr().cast(), bytes.len()) == 0
        }
    }

    /// Takes the content with its memory, without a copy; the buffer is empty then. `None` = no
    /// memory for another one.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        // SAFETY: as in `bytes`. uWSGI's buffers are from malloc(), may be enlarged by realloc(), and
        // are freed by free(): the old one becomes ours, the new one uWSGI's.
        unsafe {
            let buffer = &mut *self.buffer;
            let fresh = libc::malloc(SMALLEST);
            if fresh.is_null() || buffer.buf.is_null() {
                libc::free(fresh);
                return None;
            }
            let taken = Bytes { at: buffer.buf.cast(), len: buffer.pos, room: buffer.len };
            (buffer.buf, buffer.pos, buffer.len) = (fresh.cast(), 0, SMALLEST);
            Some(taken)
        }
    }
}

/// Bytes of a buffer that replaces one that was taken.
const SMALLEST: usize = 64;

/// Bytes in memory of malloc().
#[derive(Debug)]
pub(super) struct Bytes {
    /// NULL = none.
    at: *mut u8,
    len: usize,
    room: usize,
}

impl Bytes {
    pub(super) const fn new() -> Self {
        Self { at: ptr::null_mut(), len: 0, room: 0 }
    }

    /// A copy; `None` = no memory.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut new = Self::new();
        new.extend(bytes).then_some(new)
    }

    /// Adds to the end; `false` = no memory, and nothing was added.
    pub(super) fn extend(&mut self, bytes: &[u8]) -> bool {
        let Some(len) = self.len.checked_add(bytes.len()) else { return false };
        if !self.reserve(len) {
            return false;
        }
        if !bytes.is_empty() {
            // SAFETY: there is room for them behind `len`; `bytes` is not of this memory, which is
            // borrowed mutably.
            unsafe { self.at.add(self.len).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        self.len = len;
        true
    }

    /// Makes room for that many bytes in all.
    fn reserve(&mut self, len: usize) -> bool {
        if len > self.room {
            // Half as much again: a body of many parts is not copied for each.
            let room = len.max(self.len.saturating_add(self.len / 2));
            // SAFETY: NULL, or memory of malloc() that nobody else has.
            let at = unsafe { libc::realloc(self.at.cast(), room) };
            if at.is_null() {
                return false;
            }
            (self.at, self.room) = (at.cast(), room);
        }
        true
    }

    /// Gives the memory away, with a part of the bytes at its start: free() takes it back.
    ///
    /// # Panics
    /// If the part is not among the bytes.
    pub(super) fn give(self, part: Range<usize>) -> *mut u8 {
        assert!(part.start <= part.end && part.end <= self.len, "{part:?} of {} bytes", self.len);
        let own = ManuallyDrop::new(self);
        // SAFETY: `len` bytes were written; the two places may overlap.
        unsafe { ptr::copy(own.at.add(part.start), own.at, part.len()) };
        own.at
    }

    /// Forgets what is behind the first `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// What the engine reads goes to memory that can be given to uWSGI.
impl Sink for Bytes {
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        self.len = 0;
        // At least a byte: an empty value has memory, too.
        if !self.reserve(src.len().max(1)) {
            return false;
        }
        // SAFETY: there is room for them, which nobody else has.
        let room = unsafe { slice::from_raw_parts_mut(self.at.cast::<MaybeUninit<u8>>(), src.len()) };
        src.copy_to_uninit(room);
        self.len = src.len();
        true
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.at.is_null() {
            return &[];
        }
        // SAFETY: `len` bytes were written.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: NULL, or memory of malloc() that nobody else has.
        unsafe { libc::free(self.at.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_grow_and_shrink() {
        let (mut bytes, mut expected) = (Bytes::new(), Vec::new());
        assert!(bytes.is_empty());
        for n in 0..200_u8 {
            let part = vec![n; usize::from(n) * 7];
            assert!(bytes.extend(&part));
            expected.extend(part);
            assert_eq!(*bytes, expected);
        }
        bytes.truncate(1000);
        assert_eq!(*bytes, expected[..1000]);
        bytes.truncate(2000);
        assert_eq!(bytes.len(), 1000);
        let (given, expected) = (Bytes::of(&expected).expect("memory").give(500..700), &expected[500..700]);
        // SAFETY: 200 bytes of malloc(), which are freed once.
        unsafe {
            assert_eq!(slice::from_raw_parts(given, 200), expected);
            libc::free(given.cast());
        }
        assert!(bytes.extend(b"more") && bytes.ends_with(b"more"));
    }
}
