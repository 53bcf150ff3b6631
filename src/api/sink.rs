//! Sinks that receive the values of reads through the Rust interface.
#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::{engine::Sink, shm::SharedBytes};

/// A larger buffer goes back to the allocator after its use.
const KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with a buffer that the thread reuses. A call within `f` gets another buffer, and so
/// does a call while the thread ends.
pub(super) fn with_buffer<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    let result = f(&mut buffer);
    if buffer.capacity() <= KEPT {
        let _ = BUFFER.try_with(|place| place.set(buffer));
    }
    result
}

/// The caller's buffer, and the length of the value.
pub(super) struct SliceSink<'a> {
    pub(super) buffer: &'a mut [u8],
    pub(super) len: usize,
}

impl Sink for SliceSink<'_> {
    #[inline(always)]
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        self.len = src.len();
        let Some(dst) = self.buffer.get_mut(..self.len) else { return false };
        src.copy_to_slice(dst);
        true
    }
}

/// A number, or the length of a value that is not a number.
#[derive(Default)]
pub(super) struct IntSink {
    pub(super) bytes: [u8; 8],
    pub(super) len: usize,
}

impl Sink for IntSink {
    #[inline(always)]
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        self.len = src.len();
        if self.len == self.bytes.len() {
            src.copy_to_slice(&mut self.bytes);
        }
        true
    }
}
