//! A shard's lock, and what every writer does after taking it.
//!
//! The steps are inlined into one another: a `Result` with the crate's error is large, and would be copied at each.
#![forbid(unsafe_code)]

use super::{Engine, stats::Counter};
use crate::{
    error::{Error, Result},
    os::{
        mutex::{Locked, NotTaken, RobustMutex},
        process::Owner,
    },
    shm::{
        layout::{SHARD, header, shard},
        sync::*,
    },
};

/// A held shard lock.
#[derive(Debug)]
pub(crate) struct ShardGuard<'a> {
    pub(super) no: u64,
    pub(super) off: u64,
    /// The shard's words behind the lock's line.
    words: &'a [AtomicU64; 16],
    mutex: RobustMutex,
}

impl Drop for ShardGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Half a change may stand: the next owner rebuilds, as after a death.
            self.word(shard::DIRTY).store(1, Release);
        }
        self.mutex.unlock();
    }
}

impl ShardGuard<'_> {
    #[inline]
    pub(super) fn word(&self, at: u64) -> &AtomicU64 {
        &self.words[(at - 64) as usize / 8]
    }

    /// Adds to the count of items.
    #[inline]
    pub(super) fn add_used(&self, by: i64) {
        let w = self.word(shard::USED);
        w.store(w.load(Relaxed).saturating_add_signed(by), Relaxed);
    }

    /// Notes that an item expires at `expires`; tells whether none does before.
    #[inline]
    pub(super) fn note_expiry(&self, expires: u64) -> bool {
        let w = self.word(shard::EARLIEST);
        let is_first = expires != 0 && expires < w.load(Relaxed);
        if is_first {
            w.store(expires, Relaxed);
        }
        is_first
    }
}

impl Engine {
    #[inline]
    pub(super) fn shard_off(&self, no: u64) -> u64 {
        self.layout.shards + no * SHARD
    }

    /// Locks a shard for a writer: rebuilt if its last owner died, reaped if a clear came, and not against a thread
    /// that has the cache to itself.
    #[inline(always)]
    pub(super) fn lock(&self, no: u64) -> Result<ShardGuard<'_>> {
        let guard = self.lock_or_wait(no)?;
        let current = self.clear_gen();
        if guard.word(shard::REAPED).load(Relaxed) != current {
            self.reap(&guard, current, None);
        }
        Ok(guard)
    }

    #[inline(always)]
    fn lock_or_wait(&self, no: u64) -> Result<ShardGuard<'_>> {
        loop {
            let guard = self.lock_raw(no)?;
            if self.region.word(header::FOREIGN).load(SeqCst) == 0 || self.is_mine() {
                return Ok(guard);
            }
            // Never wait with a shard held: the other thread may need it.
            drop(guard);
            self.wait_exclusive()?;
        }
    }

    /// Whether nobody, or this thread, has the cache to itself.
    #[cold]
    pub(super) fn is_mine(&self) -> bool {
        let foreign = self.region.word(header::FOREIGN).load(SeqCst);
        foreign == 0 || foreign == Owner::me().to_word()
    }

    /// The lock alone; the shard may have to be rebuilt.
    #[inline(always)]
    pub(super) fn lock_as_is(&self, no: u64) -> Result<ShardGuard<'_>> {
        let off = self.shard_off(no);
        let mutex = self.region.mutex(off + shard::LOCK);
        let locked = self.acquire(mutex)?;
        let guard = ShardGuard { no, off, words: self.region.words(off + 64), mutex };
        if locked == Locked::OwnerDied {
            guard.word(shard::DIRTY).store(1, Release);
            self.count(Counter::OwnerDead, 1);
            // The mark says it from here on, also if the rebuild is cut off.
            mutex.consistent();
        }
        if self.region.word(header::LOCK_GEN).load(Relaxed) != self.lock_gen {
            return Err(opened_anew());
        }
        Ok(guard)
    }

    /// The lock, of a shard that is whole.
    #[inline(always)]
    pub(super) fn lock_raw(&self, no: u64) -> Result<ShardGuard<'_>> {
        let guard = self.lock_as_is(no)?;
        if guard.word(shard::DIRTY).load(Acquire) != 0 {
            self.recover(&guard);
        }
        Ok(guard)
    }

    /// Locks within `lock_timeout`; counts waits, and what was given up.
    #[inline(always)]
    pub(super) fn acquire(&self, mutex: RobustMutex) -> Result<Locked> {
        match mutex.try_lock() {
            Ok(locked) => Ok(locked),
            Err(taken) => self.wait_for(mutex, taken),
        }
    }

    #[cold]
    fn wait_for(&self, mutex: RobustMutex, taken: NotTaken) -> Result<Locked> {
        self.count(Counter::LockWaits, u64::from(taken.is_busy()));
        let locked = mutex.wait(taken, self.config.lock_timeout);
        if matches!(locked, Err(Error::Timeout { .. })) {
            self.count(Counter::Timeouts, 1);
        }
        locked
    }

    /// Runs `f` under a lock of the header (pool or capacity), mended by `mend` when its owner died.
    pub(super) fn under<T>(&self, lock: u64, mend: impl FnOnce(), f: impl FnOnce() -> T) -> Result<T> {
        struct Unlock(RobustMutex);
        impl Drop for Unlock {
            fn drop(&mut self) {
                self.0.unlock();
            }
        }
        let mutex = self.region.mutex(lock);
        let locked = self.acquire(mutex)?;
        let _unlock = Unlock(mutex);
        if locked == Locked::OwnerDied {
            self.count(Counter::OwnerDead, 1);
            mend();
            mutex.consistent();
        }
        Ok(f())
    }

    /// The current clear generation.
    #[inline]
    pub(super) fn clear_gen(&self) -> u64 {
        self.region.word(header::CLEAR_GEN).load(Acquire)
    }
}

#[cold]
fn opened_anew() -> Error {
    Error::Damaged("the store was opened anew by somebody who saw no user of it")
}
