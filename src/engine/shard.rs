//! A shard's lock, and what every writer does after taking it.
//!
//! The usual case is inlined and does without a `Result` of the crate's error: a guard that moves through one is copied
//! in pieces, which the CPU cannot forward to the loads that follow.
#![forbid(unsafe_code)]

use std::{mem::ManuallyDrop, time::Duration};

use super::{Engine, generation, stats::Counter};
use crate::{
    error::{Error, Result},
    os::{
        clock,
        mutex::{Locked, NotTaken, RobustMutex},
        process::Owner,
    },
    shm::{
        Home, Region,
        layout::{SHARD, header, shard},
        order,
        sync::*,
    },
};

/// What trying a shard's mutex gave: it is held, or somebody has it.
pub(super) type Tried = std::result::Result<Locked, NotTaken>;

/// A held shard lock.
#[derive(Debug)]
pub(crate) struct ShardGuard<'a> {
    pub(super) home: Home<'a>,
}

impl<'a> std::ops::Deref for ShardGuard<'a> {
    type Target = Home<'a>;

    #[inline(always)]
    fn deref(&self) -> &Home<'a> {
        &self.home
    }
}

impl Drop for ShardGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Half a change may stand: the next owner rebuilds, as after a death.
            self.set_dirty(true);
        }
        self.lock().unlock();
    }
}

impl ShardGuard<'_> {
    /// Unlocks after a change that came to its end, whatever panics elsewhere in the thread.
    #[inline(always)]
    pub(super) fn release(self) {
        ManuallyDrop::new(self).lock().unlock();
    }

    /// Adds to the count of items.
    #[inline]
    pub(super) fn add_used(&self, by: i32) {
        let w = self.used();
        w.store(w.load(Relaxed).saturating_add_signed(by), Relaxed);
    }

    /// Notes that an item expires at `expires`; tells whether none does before.
    #[inline]
    pub(super) fn note_expiry(&self, expires: u64) -> bool {
        let w = self.word(shard::EARLIEST);
        let is_first = expires != 0 && expires < w.load(Relaxed);
        if is_first {
            w.store(expires, order::earliest::SHARD);
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
        Ok(match self.lock_at_once(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_slowly(no, tried, self.config.lock_timeout)?,
        })
    }

    /// [`Engine::lock`] that waits for at most `patience`; with none, only as long as a lock is usually held.
    pub(super) fn lock_within(&self, no: u64, patience: Duration) -> Result<ShardGuard<'_>> {
        Ok(match self.lock_at_once(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_slowly(no, tried, patience)?,
        })
    }

    /// [`Engine::lock`] where nothing else is to be done; else what [`Engine::lock_slowly`] goes on from.
    #[inline(always)]
    pub(super) fn lock_at_once(&self, no: u64) -> std::result::Result<ShardGuard<'_>, Tried> {
        if !self.is_admitted() {
            return Err(Err(NotTaken::UNTRIED));
        }
        let region = &*self.region;
        let home = region.shard(no);
        let tried = home.lock().try_lock();
        if tried.is_ok() && self.is_usual(region, home) {
            return Ok(ShardGuard { home });
        }
        Err(tried)
    }

    /// Whether a writer that took the lock may go on as it is.
    #[inline(always)]
    fn is_usual(&self, region: &Region, home: Home<'_>) -> bool {
        region.header_word::<{ header::LOCK_GEN }>().load(Relaxed) == self.lock_gen
            && region.header_word::<{ header::FOREIGN }>().load(order::exclusive::CHECK) == 0
            && home.is_in_order(generation::number(generation::current(region)))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn lock_slowly(
        &self,
        no: u64,
        mut tried: Tried,
        patience: Duration,
    ) -> Result<ShardGuard<'_>> {
        let mut start = None;
        loop {
            let guard = self.enter(no, tried, patience)?;
            self.make_whole(&guard)?;
            if self.region.word(header::FOREIGN).load(order::exclusive::CHECK) == 0 || self.is_mine() {
                let current = self.clear_gen();
                if guard.reaped() != generation::number(current) {
                    self.reap(&guard, current, None);
                }
                return Ok(guard);
            }
            // Never wait with a shard held: the other thread may need it.
            guard.release();
            self.wait_exclusive_within(patience)?;
            // Others may be faster each time. Who did not have to wait reads no clock.
            let now = clock::monotonic();
            if now - *start.get_or_insert(now) > patience {
                self.count(Counter::Timeouts, u64::from(patience == self.config.lock_timeout));
                return Err(Error::Timeout { waited: patience });
            }
            tried = self.region.shard(no).lock().try_lock();
        }
    }

    /// Whether nobody, or this thread, has the cache to itself.
    #[cold]
    pub(super) fn is_mine(&self) -> bool {
        let foreign = self.region.word(header::FOREIGN).load(SeqCst);
        foreign == 0 || foreign == Owner::me().to_word()
    }

    /// The lock alone; the shard may have to be rebuilt.
    pub(super) fn lock_as_is(&self, no: u64) -> Result<ShardGuard<'_>> {
        let tried = self.region.shard(no).lock().try_lock();
        self.enter(no, tried, self.config.lock_timeout)
    }

    /// The lock, of a shard that is whole, whoever has the cache to itself.
    #[inline(always)]
    pub(super) fn lock_raw(&self, no: u64) -> Result<ShardGuard<'_>> {
        Ok(match self.lock_at_once(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_raw_slowly(no, tried)?,
        })
    }

    #[cold]
    #[inline(never)]
    fn lock_raw_slowly(&self, no: u64, tried: Tried) -> Result<ShardGuard<'_>> {
        let guard = self.enter(no, tried, self.config.lock_timeout)?;
        self.make_whole(&guard)?;
        Ok(guard)
    }

    /// The lock for a reader. A shard that cannot be repaired now can still be read: nobody changes it meanwhile, and each
    /// chain has every key's old or new value, as for readers without the lock.
    #[inline(always)]
    pub(super) fn lock_to_read(&self, no: u64) -> Result<ShardGuard<'_>> {
        Ok(match self.lock_at_once(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_to_read_slowly(no, tried)?,
        })
    }

    #[cold]
    #[inline(never)]
    fn lock_to_read_slowly(&self, no: u64, tried: Tried) -> Result<ShardGuard<'_>> {
        let guard = self.enter(no, tried, self.config.lock_timeout)?;
        // The next writer meets the same failure, and tells it.
        let _ = self.make_whole(&guard);
        Ok(guard)
    }

    /// Goes on from what trying the lock gave. A dead owner's shard is marked; who was left behind by a new opener of
    /// the store goes no further.
    fn enter(&self, no: u64, tried: Tried, patience: Duration) -> Result<ShardGuard<'_>> {
        let home = self.region.shard(no);
        let locked = self.acquire_after(home.lock(), tried, patience)?;
        let guard = ShardGuard { home };
        if locked == Locked::OwnerDied {
            guard.set_dirty(true);
            self.count(Counter::OwnerDead, 1);
            // The mark says it from here on, also if the rebuild is cut off.
            guard.lock().consistent();
        }
        if self.region.word(header::LOCK_GEN).load(Relaxed) != self.lock_gen {
            return Err(opened_anew());
        }
        Ok(guard)
    }

    /// Repairs a shard that a death has left half changed. Without the means the shard keeps its mark: who locks it next
    /// tries again.
    fn make_whole(&self, guard: &ShardGuard<'_>) -> Result<()> {
        if guard.is_dirty() { self.recover(guard) } else { Ok(()) }
    }

    /// Locks within `patience`; counts waits, and operations that gave up after `lock_timeout`.
    pub(super) fn acquire(&self, mutex: RobustMutex, patience: Duration) -> Result<Locked> {
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

    /// Runs `f` under a lock of the header (pool or quota), had within `patience`; `mend` comes first when its owner died.
    pub(super) fn under<T>(
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

    /// The current clear generation.
    #[inline]
    pub(super) fn clear_gen(&self) -> u64 {
        generation::current(&self.region)
    }
}

#[cold]
fn opened_anew() -> Error {
    Error::Damaged("the store was opened anew by somebody who saw no user of it")
}
