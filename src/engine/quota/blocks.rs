//! Blocks as a limit (uWSGI's `bitmap=1`).
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, generation,
        quota::{Shortage, limit},
        shard::guard::ShardGuard,
    },
    error::Result,
    shm::layout::shard,
};

impl Engine {
    /// Blocks that a value needs; 0 without a block limit.
    #[inline]
    pub(in crate::engine) fn blocks_for(&self, value_len: u64) -> u64 {
        self.config.blocks.map_or(0, |b| value_len.div_ceil(b.size))
    }

    /// Takes `n` blocks for a value of this shard, beside the `held` ones of the value that it
    /// replaces.
    #[inline(always)]
    pub(in crate::engine) fn take_blocks(
        &self,
        guard: &ShardGuard<'_>,
        n: u64,
        held: u64,
    ) -> Result<(), Shortage> {
        if n == 0 { Ok(()) } else { self.take_some(guard, n, held) }
    }

    #[inline(never)]
    fn take_some(&self, guard: &ShardGuard<'_>, n: u64, held: u64) -> Result<(), Shortage> {
        let taken =
            limit::acquire(guard.word(shard::BLOCKS), n) || self.blocks.take_from_others(guard.cells, n);
        if taken { Ok(()) } else { Err(Shortage::Blocks { need: n as u32, held: held as u32 }) }
    }

    /// Returns `n` blocks after the value became unreachable.
    #[inline(always)]
    pub(in crate::engine) fn give_blocks(&self, guard: &ShardGuard<'_>, n: u64) {
        if n != 0 {
            self.give_some(guard, n);
        }
    }

    #[inline(never)]
    fn give_some(&self, guard: &ShardGuard<'_>, n: u64) {
        self.blocks.release(guard.word(shard::BLOCKS), n);
    }

    /// Blocks in use.
    pub(in crate::engine) fn blocks_used(&self) -> u64 {
        if self.config.blocks.is_none() {
            return 0;
        }
        let current = generation::number(self.clear_gen());
        let reaped = |no: &u64| self.region.shard(*no).reaped() == current;
        (0..self.geo.shards).filter(reaped).map(|no| self.blocks.used(no)).sum()
    }
}
