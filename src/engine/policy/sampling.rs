//! Random buckets of a shard, for policies that look for a victim among a few items. The next
//! buckets are known before they are needed, so their lines are prefetched.
#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::{
    engine::{Engine, index::places::OwnBuckets, shard::guard::ShardGuard},
    os::process::Owner,
    shm::{layout::shard, sync::*},
};

impl Engine {
    /// The thread's next random number (xorshift), for sampling.
    pub(in crate::engine) fn random(&self) -> u64 {
        thread_local! { static STATE: Cell<u64> = const { Cell::new(0) } }
        let mut x = STATE.get();
        if x == 0 {
            x = self.secret.0[0] ^ Owner::me().to_word() | 1;
        }
        x = next_random(x);
        STATE.set(x);
        x
    }

    /// Calls `f` with number and stamps of `N` random buckets of the shard (of all, for the `whole`
    /// one).
    #[inline]
    pub(super) fn each_sampled<const N: usize>(
        &self,
        guard: &ShardGuard<'_>,
        whole: bool,
        mut f: impl FnMut(u64, &[AtomicU64; 8]),
    ) {
        let own = self.own_buckets(guard);
        let look = |n: u64| f(n, self.stamps_of(own.nth(&self.geo, n)));
        if whole {
            return (0..own.all).for_each(look);
        }
        self.sample::<N>(guard, own.all).into_iter().for_each(look);
        // These lines arrive before the shard's next sample.
        self.prefetch_samples::<N>(guard, &own);
    }

    /// Numbers below `all` by the shard's own random bits, which [`Engine::prefetch_samples`] knows
    /// before.
    #[inline(always)]
    pub(super) fn sample<const N: usize>(&self, guard: &ShardGuard<'_>, all: u64) -> [u64; N] {
        let word = guard.word(shard::RNG_STATE);
        let before = word.load(Relaxed);
        let now = if before == 0 { self.random() } else { before };
        word.store(next_random(now), Relaxed);
        sampled(now, all)
    }

    #[inline(always)]
    pub(super) fn prefetch_samples<const N: usize>(&self, guard: &ShardGuard<'_>, own: &OwnBuckets) {
        let random = guard.word(shard::RNG_STATE).load(Relaxed);
        for n in sampled::<N>(random, own.all) {
            self.region.prefetch(self.layout.stamp(own.nth(&self.geo, n), 0));
        }
    }
}

/// The random number after `x`, neither of them 0 (Marsaglia's xorshift).
#[inline(always)]
fn next_random(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^ x << 17
}

/// Numbers below `all`, derived from random bits.
#[inline(always)]
fn sampled<const N: usize>(random: u64, all: u64) -> [u64; N] {
    let mut numbers = [0; N];
    for (i, number) in numbers.iter_mut().enumerate() {
        *number = ((random >> (i * 16) & 0xFFFF) * all) >> 16;
    }
    numbers
}
