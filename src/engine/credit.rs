//! Blocks as an exact limit without a shared counter: each shard is granted some and uses some.
//!
//! The word is `granted 32 | used 32`. `used` changes under the shard's lock, `granted` under the capacity lock; both
//! by CAS, because others may take what is granted and not used. The pool is the limit less all that is granted: it is
//! computed, never stored, so a death loses nothing. Recovery of a shard counts `used` again.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{
    Engine,
    entry::{Header, LEASE},
    generation,
    room::Short,
    shard::ShardGuard,
};
use crate::{
    error::Result,
    shm::{
        layout::{header, shard},
        order::quota,
        sync::*,
    },
};

/// Blocks granted at a time, when there are enough.
const BATCH: u64 = 16;

fn unpack(w: u64) -> (u64, u64) {
    (w >> 32, w & 0xFFFF_FFFF)
}

fn pack(granted: u64, used: u64) -> u64 {
    granted << 32 | used
}

impl Engine {
    /// Blocks that a value needs; 0 where blocks are not counted.
    #[inline]
    pub(super) fn blocks_for(&self, value_len: u64) -> u64 {
        self.config.blocks.map_or(0, |b| value_len.div_ceil(b.size))
    }

    /// Blocks that an entry holds: a placeholder none, so that its value needs no more than a value does.
    pub(super) fn blocks_of(&self, h: &Header) -> u64 {
        if h.flags & LEASE == 0 { self.blocks_for(h.value_len) } else { 0 }
    }

    fn credit(&self, shard_no: u64) -> &AtomicU64 {
        self.region.word(self.shard_off(shard_no) + shard::CREDIT)
    }

    /// Takes `n` blocks for a value of this shard, beside the `held` ones of the value that it replaces.
    #[inline(always)]
    pub(super) fn take_blocks(&self, guard: &ShardGuard<'_>, n: u64, held: u64) -> Result<(), Short> {
        if n == 0 { Ok(()) } else { self.take_some(guard, n, held) }
    }

    #[inline(never)]
    fn take_some(&self, guard: &ShardGuard<'_>, n: u64, held: u64) -> Result<(), Short> {
        let take = |w| {
            let (granted, used) = unpack(w);
            (granted.saturating_sub(used) >= n).then(|| pack(granted, used + n))
        };
        let word = self.credit(guard.no);
        let taken = || word.fetch_update(quota::CHANGE, quota::READ, take).is_ok();
        if taken() {
            return Ok(());
        }
        // Never wait for the quota with a shard held: its other writers would wait, too.
        match self.grant_blocks(guard.no, n, Duration::ZERO) {
            Ok(true) if taken() => Ok(()),
            Ok(false) => Err(Short::Blocks { need: n as u32, held: held as u32 }),
            // Another shard took the grant, or the lock is held.
            _ => Err(Short::Quota { need: n as u32 }),
        }
    }

    /// Gives `n` blocks back, after the value became unreachable.
    #[inline(always)]
    pub(super) fn give_blocks(&self, guard: &ShardGuard<'_>, n: u64) {
        if n != 0 {
            self.give_some(guard, n);
        }
    }

    #[inline(never)]
    fn give_some(&self, guard: &ShardGuard<'_>, n: u64) {
        let give = |w| {
            let (granted, used) = unpack(w);
            Some(pack(granted, used.saturating_sub(n)))
        };
        let _ = self.credit(guard.no).fetch_update(quota::CHANGE, quota::READ, give);
    }

    /// Grants a shard enough for `n` more blocks: from the pool, else from what other shards do not use. `false` = there are
    /// not so many. Waits up to `patience` for the quota's lock.
    pub(super) fn grant_blocks(&self, shard_no: u64, n: u64, patience: Duration) -> Result<bool> {
        let limit = self.config.blocks.map_or(0, |b| b.count);
        // The pool is computed: after a death there is nothing to mend.
        self.under(
            header::LOCK_CAPACITY,
            patience,
            || {},
            || {
                let (granted, used) = unpack(self.credit(shard_no).load(quota::READ));
                let need = n.saturating_sub(granted.saturating_sub(used));
                let total: u64 =
                    (0..self.geo.shards).map(|s| unpack(self.credit(s).load(quota::READ)).0).sum();
                let mut got = limit.saturating_sub(total).min(need.max(BATCH));
                for s in 0..self.geo.shards {
                    if got >= need {
                        break;
                    }
                    if s != shard_no {
                        got += self.take_spare(s, need - got);
                    }
                }
                let grant = |w| {
                    let (granted, used) = unpack(w);
                    Some(pack(granted + got, used))
                };
                let _ = self.credit(shard_no).fetch_update(quota::CHANGE, quota::READ, grant);
                got >= need
            },
        )
    }

    /// Takes up to `n` blocks that a shard was granted and does not use.
    fn take_spare(&self, shard_no: u64, n: u64) -> u64 {
        let mut taken = 0;
        let _ = self.credit(shard_no).fetch_update(quota::CHANGE, quota::READ, |w| {
            let (granted, used) = unpack(w);
            taken = granted.saturating_sub(used).min(n);
            (taken > 0).then(|| pack(granted - taken, used))
        });
        taken
    }

    /// Recovery: sets what a shard uses. What it was granted follows if that is less.
    pub(super) fn recount_blocks(&self, shard_no: u64, used: u64) {
        let set = |w| {
            let (granted, _) = unpack(w);
            Some(pack(granted.max(used), used))
        };
        let _ = self.credit(shard_no).fetch_update(quota::CHANGE, quota::READ, set);
    }

    /// The first opener of a store, after the limit may have changed: nothing is granted beyond use.
    pub(super) fn revoke_spare(&self) {
        for s in 0..self.geo.shards {
            let (_, used) = unpack(self.credit(s).load(quota::READ));
            self.credit(s).store(pack(used, used), Relaxed);
        }
    }

    /// Blocks in use.
    pub(super) fn blocks_used(&self) -> u64 {
        let current = generation::number(self.clear_gen());
        let reaped = |no: &u64| self.region.shard(*no).reaped() == current;
        (0..self.geo.shards).filter(reaped).map(|s| unpack(self.credit(s).load(quota::READ)).1).sum()
    }
}
