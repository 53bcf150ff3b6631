//! Taking a shard's lock for a writer or a reader: with what is to be done first after a death, a
//! clear or in exclusive mode.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{
        Engine, generation,
        shard::guard::{ShardGuard, Tried},
        stats::Counter,
    },
    error::{Error, Result},
    os::{clock, mutex::NotTaken, process::Owner},
    shm::{Region, ShardCells, layout::header, order, sync::*},
};

impl Engine {
    /// Locks a shard for a writer: rebuilt if its last owner died, reaped if a clear came, and not
    /// while another thread holds the cache exclusively.
    #[inline(always)]
    pub(in crate::engine) fn lock(&self, no: u64) -> Result<ShardGuard<'_>> {
        Ok(match self.lock_fast(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_slow(no, tried, self.config.lock_timeout)?,
        })
    }

    /// [`Engine::lock`] that waits for at most `patience`; with none, only as long as a lock is
    /// usually held.
    pub(in crate::engine) fn lock_within(&self, no: u64, patience: Duration) -> Result<ShardGuard<'_>> {
        Ok(match self.lock_fast(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_slow(no, tried, patience)?,
        })
    }

    /// [`Engine::lock`] if nothing else is to be done; else what [`Engine::lock_slow`] continues
    /// from.
    #[inline(always)]
    pub(in crate::engine) fn lock_fast(&self, no: u64) -> std::result::Result<ShardGuard<'_>, Tried> {
        if !self.is_admitted() {
            return Err(Err(NotTaken::UNTRIED));
        }
        let region = &*self.region;
        let cells = region.shard(no);
        let tried = cells.lock().try_lock();
        if tried.is_ok() && self.is_fast_path(region, cells) {
            return Ok(ShardGuard { cells });
        }
        Err(tried)
    }

    /// Whether a writer with the lock may proceed at once.
    #[inline(always)]
    fn is_fast_path(&self, region: &Region, cells: ShardCells<'_>) -> bool {
        region.header_word::<{ header::LOCK_GEN }>().load(Relaxed) == self.lock_gen
            && region.header_word::<{ header::EXCLUSIVE_OWNER }>().load(order::exclusive::CHECK) == 0
            && cells.is_in_order(generation::number(generation::current(region)))
    }

    #[cold]
    #[inline(never)]
    pub(in crate::engine) fn lock_slow(
        &self,
        no: u64,
        mut tried: Tried,
        patience: Duration,
    ) -> Result<ShardGuard<'_>> {
        let mut start = None;
        loop {
            let guard = self.enter(no, tried, patience)?;
            self.rebuild_if_dirty(&guard)?;
            if self.region.word(header::EXCLUSIVE_OWNER).load(order::exclusive::CHECK) == 0
                || self.may_write()
            {
                let current = self.clear_gen();
                if guard.reaped() != generation::number(current) {
                    self.reap(&guard, current, None);
                }
                return Ok(guard);
            }
            // Never wait with a shard held: the other thread may need it (I11).
            guard.release();
            self.wait_exclusive_within(patience)?;
            // Others may be faster each time. The clock is read only after a wait.
            let now = clock::monotonic();
            if now - *start.get_or_insert(now) > patience {
                self.count(Counter::Timeouts, u64::from(patience == self.config.lock_timeout));
                return Err(Error::Timeout { waited: patience });
            }
            tried = self.region.shard(no).lock().try_lock();
        }
    }

    /// Whether no thread, or this one, holds the cache exclusively.
    #[cold]
    pub(in crate::engine) fn may_write(&self) -> bool {
        let owner = self.region.word(header::EXCLUSIVE_OWNER).load(SeqCst);
        owner == 0 || owner == Owner::me().to_word()
    }

    /// The lock of a shard that is not dirty, also while another thread holds the cache
    /// exclusively.
    #[inline(always)]
    pub(in crate::engine) fn lock_raw(&self, no: u64) -> Result<ShardGuard<'_>> {
        Ok(match self.lock_fast(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_raw_slow(no, tried)?,
        })
    }

    #[cold]
    #[inline(never)]
    fn lock_raw_slow(&self, no: u64, tried: Tried) -> Result<ShardGuard<'_>> {
        let guard = self.enter(no, tried, self.config.lock_timeout)?;
        self.rebuild_if_dirty(&guard)?;
        Ok(guard)
    }

    /// The lock for a reader. A shard that cannot be repaired now can still be read: nobody changes
    /// it meanwhile, and each chain has every key's old or new value, as for readers without the
    /// lock.
    #[inline(always)]
    pub(in crate::engine) fn lock_to_read(&self, no: u64) -> Result<ShardGuard<'_>> {
        Ok(match self.lock_fast(no) {
            Ok(guard) => guard,
            Err(tried) => self.lock_to_read_slow(no, tried)?,
        })
    }

    #[cold]
    #[inline(never)]
    fn lock_to_read_slow(&self, no: u64, tried: Tried) -> Result<ShardGuard<'_>> {
        let guard = self.enter(no, tried, self.config.lock_timeout)?;
        // The next writer meets the same failure and reports it.
        let _ = self.rebuild_if_dirty(&guard);
        Ok(guard)
    }

    /// Rebuilds a shard that a death has left half changed. If that fails the shard stays dirty,
    /// and the next thread that locks it tries again (I6).
    fn rebuild_if_dirty(&self, guard: &ShardGuard<'_>) -> Result<()> {
        if guard.is_dirty() { self.recover(guard) } else { Ok(()) }
    }
}
