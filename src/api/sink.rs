//! Where the reads of the Rust interface put a value.
#![forbid(unsafe_code)]

use crate::{engine::Sink, shm::Source};

/// The caller's buffer, and how long the value is.
pub(super) struct SliceSink<'a> {
    pub(super) buffer: &'a mut [u8],
    pub(super) len: usize,
}

impl Sink for SliceSink<'_> {
    #[inline(always)]
    fn take(&mut self, src: &Source<'_>) -> bool {
        self.len = src.len();
        let Some(dst) = self.buffer.get_mut(..self.len) else { return false };
        src.copy_to_slice(dst);
        true
    }
}

/// A number, or the length of what is not one.
#[derive(Default)]
pub(super) struct IntSink {
    pub(super) bytes: [u8; 8],
    pub(super) len: usize,
}

impl Sink for IntSink {
    #[inline(always)]
    fn take(&mut self, src: &Source<'_>) -> bool {
        self.len = src.len();
        if self.len == self.bytes.len() {
            src.copy_to_slice(&mut self.bytes);
        }
        true
    }
}

/// Wants no value, only what is known of it.
pub(super) struct NoSink;

impl Sink for NoSink {
    #[inline(always)]
    fn take(&mut self, _src: &Source<'_>) -> bool {
        true
    }
}
