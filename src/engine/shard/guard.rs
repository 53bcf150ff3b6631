//! A shard's lock.
//!
//! The fast path is inlined and does not use a `Result` with the crate's error: a guard that moves
//! through one is copied field by field, which defeats store-to-load forwarding.
#![forbid(unsafe_code)]

use std::{mem::ManuallyDrop, time::Duration};

use crate::{
    engine::{Engine, stats::Counter},
    error::{Error, Result},
    os::mutex::{Locked, NotTaken, RobustMutex},
    shm::{ShardCells, layout::header, sync::*},
};

/// The result of trying a shard's mutex.
pub(in crate::engine) type Tried = std::result::Result<Locked, NotTaken>;

/// A held shard lock.
#[derive(Debug)]
pub(crate) struct ShardGuard<'a> {
    pub(in crate::engine) cells: ShardCells<'a>,
}

impl<'a> std::ops::Deref for ShardGuard<'a> {
    type Target = ShardCells<'a>;

    #[inline(always)]
    fn deref(&self) -> &ShardCells<'a> {
        &self.cells
    }
}

impl Drop for ShardGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        leave(self.cells);
    }
}

/// Unlocks after a change that may be incomplete. Gets a copy of the cells, so that the guard itself
/// needs no place in memory.
#[inline(never)]
fn leave(cells: ShardCells<'_>) {
    if std::thread::panicking() {
        // The next owner rebuilds, as after a death (I6).
        cells.set_dirty(true);
    }
    cells.lock().unlock();
}

impl ShardGuard<'_> {
    /// The same lock, for a function that is called only sometimes: a guard that nobody has the
    /// address of stays in registers. It never unlocks.
    #[inline(always)]
    pub(in crate::engine) fn alias(&self) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self { cells: self.cells })
    }

    /// Unlocks after a complete change, even while the thread panics for another reason.
    #[inline(always)]
    pub(in crate::engine) fn release(self) {
        ManuallyDrop::new(self).lock().unlock();
    }

    /// Notes that an item expires at `expires`; returns whether that is the shard's earliest
    /// expiry.
    #[inline]
    pub(in crate::engine) fn note_expiry(&self, expires: u64) -> bool {
        // What the word says is of items that are gone, if the one being written (which is counted
        // already) is the only one: also one without expiry replaces it.
        if self.used() <= 1 {
            self.set_earliest(if expires == 0 { u64::MAX } else { expires });
            return expires != 0;
        }
        let is_first = expires != 0 && expires < self.earliest();
        if is_first {
            self.set_earliest(expires);
        }
        is_first
    }
}

impl Engine {
    /// The bare lock; the shard may need a rebuild.
    pub(in crate::engine) fn lock_as_is(&self, no: u64) -> Result<ShardGuard<'_>> {
        let tried = self.region.shard(no).lock().try_lock();
        self.enter(no, tried, self.config.lock_timeout)
    }

    /// Continues from the result of trying the lock. A dead owner's shard is marked dirty (I6); a
    /// user that a new opener of the store did not see gets an error.
    pub(in crate::engine) fn enter(
        &self,
        no: u64,
        tried: Tried,
        patience: Duration,
    ) -> Result<ShardGuard<'_>> {
        let cells = self.region.shard(no);
        let locked = self.acquire_after(cells.lock(), tried, patience)?;
        let guard = ShardGuard { cells };
        if locked == Locked::OwnerDied {
            guard.set_dirty(true);
            self.count(Counter::OwnerDead, 1);
            // The mark records it from here on, even if the rebuild is interrupted.
            guard.lock().consistent();
        }
        if self.region.word(header::LOCK_GEN).load(Relaxed) != self.lock_gen {
            return Err(reopened());
        }
        Ok(guard)
    }

    /// Locks within `patience`; counts waits, and operations given up after `lock_timeout`.
    pub(in crate::engine) fn acquire(&self, mutex: RobustMutex, patience: Duration) -> Result<Locked> {
        let tried = if self.is_admitted() { mutex.try_lock() } else { Err(NotTaken::UNTRIED) };
        self.acquire_after(mutex, tried, patience)
    }

    fn acquire_after(&self, mutex: RobustMutex, tried: Tried, patience: Duration) -> Result<Locked> {
        let tried = match tried {
            Err(taken) if taken.is_untried() => {
                self.admit()?;
                mutex.try_lock()
            }
            tried => tried,
        };
        let taken = match tried {
            Ok(locked) => return Ok(locked),
            Err(taken) => taken,
        };
        self.count(Counter::LockWaits, u64::from(taken.is_busy()));
        let locked = mutex.wait(taken, patience);
        if patience == self.config.lock_timeout && matches!(locked, Err(Error::Timeout { .. })) {
            self.count(Counter::Timeouts, 1);
            if let Some(thread) = mutex.lost_owner() {
                self.count(Counter::LockLost, 1);
                return Err(Error::LockLost { thread });
            }
        }
        locked
    }

    /// Runs `f` under a lock of the header (pool or quota), which it waits for up to `patience`;
    /// runs `mend` first if the owner died.
    pub(in crate::engine) fn under<T>(
        &self,
        lock: u64,
        patience: Duration,
        mend: impl FnOnce(),
        f: impl FnOnce() -> T,
    ) -> Result<T> {
        struct Unlock(RobustMutex);
        impl Drop for Unlock {
            fn drop(&mut self) {
                self.0.unlock();
            }
        }
        let mutex = self.region.mutex(lock);
        let locked = self.acquire(mutex, patience)?;
        let _unlock = Unlock(mutex);
        if locked == Locked::OwnerDied {
            self.count(Counter::OwnerDead, 1);
            mend();
            mutex.consistent();
        }
        Ok(f())
    }
}

#[cold]
fn reopened() -> Error {
    Error::Damaged("the store was reopened by a process that did not see this one: close and reopen it")
}
