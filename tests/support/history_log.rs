//! The records of operations: one log per process, in memory outside the cache that survives any
//! death.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::{
    engine_proc::{Scratch, now},
    history::{Answer, Op, What},
};

/// A log's entry. `stage`: 0 = none, 1 = invoked, 2 = returned.
#[repr(C)]
struct Slot {
    stage: AtomicU64,
    op: Op,
}

/// The logs of some writers, shared with all processes forked later.
#[derive(Debug)]
pub(crate) struct Log {
    base: NonNull<Slot>,
    writers: usize,
    capacity: usize,
    /// Per writer: number of entries; current process; values and leases created.
    heads: Scratch,
}

const WORDS: usize = 3;

/// Unix time as the engine reads it, seconds.
pub(crate) fn unix_secs() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

impl Log {
    /// Space for `capacity` operations of each of `writers`.
    pub(crate) fn new(writers: usize, capacity: usize) -> Self {
        let bytes = NonZeroUsize::new(writers * capacity * size_of::<Slot>()).expect("some");
        let (prot, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a fresh anonymous mapping at an address the kernel chooses touches no other
        // memory.
        let base = unsafe { mmap_anonymous(None, bytes, prot, flags) }.expect("mmap").cast();
        Self { base, writers, capacity, heads: Scratch::new(writers * WORDS) }
    }

    fn slot(&self, writer: usize, at: usize) -> NonNull<Slot> {
        assert!(writer < self.writers && at < self.capacity);
        // SAFETY: inside the mapping, as just asserted.
        unsafe { self.base.add(writer * self.capacity + at) }
    }

    fn stage(&self, writer: usize, at: usize) -> &AtomicU64 {
        // SAFETY: the slot is mapped until drop, zeroed or written as a Slot, and its stage only
        // accessed as an atomic.
        unsafe { &(*self.slot(writer, at).as_ptr()).stage }
    }

    pub(crate) fn head(&self, writer: usize) -> &AtomicU64 {
        &self.heads[writer * WORDS]
    }

    /// Number of operations that still fit into the writer's log.
    pub(crate) fn room(&self, writer: usize) -> u64 {
        self.capacity as u64 - self.head(writer).load(Relaxed)
    }

    /// Starts recording by a new process; returns its number.
    pub(crate) fn enter(&self, writer: usize) -> u32 {
        self.heads[writer * WORDS + 1].fetch_add(1, SeqCst);
        self.process(writer)
    }

    /// The process that writes, or wrote last.
    pub(crate) fn process(&self, writer: usize) -> u32 {
        let count = self.heads[writer * WORDS + 1].load(SeqCst);
        u32::try_from(count * self.writers as u64 + writer as u64).expect("few processes")
    }

    /// A number not used for any other value or lease of this writer.
    pub(crate) fn fresh(&self, writer: usize) -> u32 {
        u32::try_from(self.heads[writer * WORDS + 2].fetch_add(1, SeqCst) + 1).expect("32 bits")
    }

    /// Records `f`, which does `what` to `key`, unless it returns that nothing was done. Only one
    /// process at a time records for a writer.
    pub(crate) fn record(
        &self,
        (writer, process): (usize, u32),
        (key, what): (u32, What),
        f: impl FnOnce() -> Option<Answer>,
    ) -> Option<Answer> {
        let head = self.head(writer);
        let at = usize::try_from(head.load(Relaxed)).expect("an index");
        let (slot, stage) = (self.slot(writer, at).as_ptr(), self.stage(writer, at));
        let secs = unix_secs();
        let op =
            Op { process, key, what, answer: Answer::Unknown, invoked: now(), returned: 0, secs: (secs, 0) };
        // SAFETY: only this process writes to the slot, and it is not read before its stage allows
        // it.
        unsafe { (&raw mut (*slot).op).write(op) };
        stage.store(1, SeqCst);
        let answer = f();
        // The operation's stores are visible before the time is read.
        fence(SeqCst);
        let Some(answer) = answer else {
            stage.store(0, Release);
            return None;
        };
        // SAFETY: as above; if the process dies at stage 1, none of this is read.
        unsafe {
            (&raw mut (*slot).op).write(Op { answer, returned: now(), secs: (secs, unix_secs()), ..op });
        }
        stage.store(2, Release);
        head.store(at as u64 + 1, Release);
        Some(answer)
    }

    /// After the writer's process has ended: its last operation gave no answer, and took effect by
    /// now or never.
    pub(crate) fn close(&self, writer: usize) {
        let head = self.head(writer);
        let at = usize::try_from(head.load(Acquire)).expect("an index");
        if at == self.capacity {
            return;
        }
        if self.stage(writer, at).load(Acquire) == 1 {
            let slot = self.slot(writer, at).as_ptr();
            // SAFETY: its only writer has ended, at stage 1: the arguments are complete. Fields
            // that a death may have left half written are replaced.
            unsafe {
                (*slot).op.returned = now();
                (*slot).op.secs.1 = unix_secs();
                (&raw mut (*slot).op.answer).write(Answer::Unknown);
            }
            self.stage(writer, at).store(2, Release);
        }
        if self.stage(writer, at).load(Acquire) == 2 {
            head.store(at as u64 + 1, Release);
        }
    }

    /// Takes all recorded operations out of the log. No process may be recording.
    pub(crate) fn take(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for writer in 0..self.writers {
            let head = self.head(writer).swap(0, SeqCst);
            for at in 0..usize::try_from(head).expect("an index") {
                assert_eq!(self.stage(writer, at).swap(0, SeqCst), 2, "writer {writer}, entry {at}");
                // SAFETY: stage 2 = a complete entry, and no process writes now.
                ops.push(unsafe { (*self.slot(writer, at).as_ptr()).op });
            }
        }
        ops
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // SAFETY: `new` created the mapping with this length, and no reference into it outlives the
        // log.
        let _ = unsafe { munmap(self.base.cast(), self.writers * self.capacity * size_of::<Slot>()) };
    }
}

// SAFETY: entries are passed on by their stages and by the ends of processes, as described at the
// methods.
unsafe impl Sync for Log {}
