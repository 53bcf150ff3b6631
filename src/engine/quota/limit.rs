//! An exact limit without a shared counter: each shard has reserved a part of it, and uses part of
//! that.
//!
//! ```text
//! a shard's word    reserved 32 | used 32
//! a shard's moves   odd while something is being moved to this shard
//! ```
//! `used` changes under the shard's lock. `reserved` may change without: a shard that has reserved
//! too little takes exactly what it needs from what others do not use, by an exchange of each word
//! (I10). Between two exchanges of such a move, what is moved is in no word; a death there loses
//! it. `settle` finds it again: the limit less what all shards have reserved, if no move was in
//! progress meanwhile.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::shm::{
    Region, ShardCells,
    layout::{Layout, header, shard},
    order::quota,
    sync::*,
};

fn unpack(w: u64) -> (u64, u64) {
    (w >> 32, w & 0xFFFF_FFFF)
}

fn pack(reserved: u64, used: u64) -> u64 {
    reserved << 32 | used
}

/// What a shard may take or give away.
fn spare(w: u64) -> u64 {
    let (reserved, used) = unpack(w);
    reserved.saturating_sub(used)
}

/// Takes `n` of what the shard has reserved; `false` = it has less to spare. Under its lock.
#[inline(always)]
pub(in crate::engine) fn acquire(word: &AtomicU64, n: u64) -> bool {
    let mut w = word.load(quota::READ);
    loop {
        if (w & 0xFFFF_FFFF) + n > w >> 32 {
            return false;
        }
        match word.compare_exchange(w, w + n, quota::CHANGE, quota::READ) {
            Ok(_) => return true,
            // Another shard took some.
            Err(now) => w = now,
        }
    }
}

/// Returns `n` to what the shard has to spare. Under its lock. `hint` is the quota's hint that a shard
/// may have something to spare.
#[inline(always)]
pub(in crate::engine) fn release(word: &AtomicU64, n: u64, hint: &AtomicU64) {
    let used = word.load(quota::READ) & 0xFFFF_FFFF;
    word.fetch_sub(n.min(used), quota::CHANGE);
    note_spare(hint);
}

/// Notes that a shard has something to spare, after it has.
#[inline(always)]
fn note_spare(hint: &AtomicU64) {
    if hint.load(quota::HINT) == 0 {
        hint.store(1, quota::HINT);
    }
}

/// One limit, and the words of its shards.
#[derive(Debug)]
pub(in crate::engine) struct Quota {
    region: Arc<Region>,
    /// The word within a shard.
    at: u64,
    /// Offset of the shards' counts of moves.
    moves: u64,
    /// Offset of the hint that a shard may have something to spare.
    hint: u64,
    shards: u64,
    limit: u64,
}

impl Quota {
    /// The item limit of a region.
    pub(in crate::engine) fn items(region: Arc<Region>, layout: &Layout) -> Self {
        Self::new(region, layout, shard::ITEMS, header::SPARE_ITEMS, layout.geo.capacity)
    }

    /// The block limit of a region; 0 = blocks are not counted.
    pub(in crate::engine) fn blocks(region: Arc<Region>, layout: &Layout, limit: u64) -> Self {
        Self::new(region, layout, shard::BLOCKS, header::SPARE_BLOCKS, limit)
    }

    fn new(region: Arc<Region>, layout: &Layout, at: u64, hint: u64, limit: u64) -> Self {
        Self { region, at, moves: layout.moves, hint, shards: layout.geo.shards, limit }
    }

    fn word(&self, shard_no: u64) -> &AtomicU64 {
        self.region.shard(shard_no).word(self.at)
    }

    /// What a shard uses.
    pub(in crate::engine) fn used(&self, shard_no: u64) -> u64 {
        unpack(self.word(shard_no).load(quota::READ)).1
    }

    /// What all shards use.
    pub(in crate::engine) fn all_used(&self) -> u64 {
        (0..self.shards).map(|no| self.used(no)).sum()
    }

    /// [`release`] with the quota's own hint.
    pub(in crate::engine) fn release(&self, word: &AtomicU64, n: u64) {
        release(word, n, self.region.word(self.hint));
    }

    fn note_spare(&self) {
        note_spare(self.region.word(self.hint));
    }

    /// Whether a shard may have something to spare. A release at the same moment may be missed.
    #[inline(always)]
    pub(in crate::engine) fn may_be_spare(&self) -> bool {
        self.region.word(self.hint).load(quota::HINT) != 0
    }

    /// Takes `n` for a shard whose lock the caller holds, from what other shards do not use.
    /// Exactly as much as is needed: what is being moved is as good as used. `false` = there is
    /// less.
    #[inline(never)]
    pub(in crate::engine) fn take_from_others(&self, cells: ShardCells<'_>, n: u64) -> bool {
        if !self.is_spare(n) {
            // Cleared before the second look: one of us and a shard that releases sees the other.
            self.region.word(self.hint).store(0, quota::HINT);
            if !self.is_spare(1) {
                return false;
            }
            self.note_spare();
            if !self.is_spare(n) {
                return false;
            }
        }
        self.move_to(cells, n, || {}) && acquire(cells.word(self.at), n)
    }

    /// Moves to a shard what it lacks to have `n` to spare, as far as others do not use it; whether
    /// it had them. `between` runs after each exchange but the last: tests look there.
    #[inline(always)]
    fn move_to(&self, cells: ShardCells<'_>, n: u64, between: impl Fn()) -> bool {
        let (own, moves) = (cells.word(self.at), self.moves(cells.no));
        let before = moves.load(Relaxed);
        moves.store(before.wrapping_add(1), quota::BEGIN);
        let got = spare(own.load(quota::READ)).min(n);
        let mut moved = 0;
        for no in (cells.no + 1..self.shards).chain(0..cells.no) {
            if got + moved >= n {
                break;
            }
            moved += self.take_unused(no, n - got - moved);
            between();
        }
        own.fetch_add(pack(moved, 0), quota::CHANGE);
        moves.store(before.wrapping_add(2), quota::END);
        got + moved >= n
    }

    /// Whether the shards have `n` to spare.
    fn is_spare(&self, n: u64) -> bool {
        let mut sum = 0;
        (0..self.shards).any(|no| {
            sum += spare(self.word(no).load(quota::LOOK));
            sum >= n
        })
    }

    /// Takes up to `n` of what a shard has reserved and does not use.
    fn take_unused(&self, shard_no: u64, n: u64) -> u64 {
        let mut taken = 0;
        let take = |w| {
            taken = spare(w).min(n);
            (taken > 0).then(|| w - pack(taken, 0))
        };
        let changed = self.word(shard_no).fetch_update(quota::CHANGE, quota::READ, take);
        if changed.is_ok() { taken } else { 0 }
    }

    /// Rebuild: sets what a shard uses, and ends what its last owner was moving.
    pub(in crate::engine) fn recover(&self, cells: ShardCells<'_>, used: u64) {
        let set = |w| Some(pack(unpack(w).0.max(used), used));
        let _ = cells.word(self.at).fetch_update(quota::CHANGE, quota::READ, set);
        let moves = self.moves(cells.no);
        let now = moves.load(Relaxed);
        moves.store(now.wrapping_add(now & 1), quota::END);
        self.note_spare();
    }

    /// Corrects what all shards have reserved to the limit: what was lost in a move goes to a
    /// shard, and what is beyond the limit (after an unclean end, or with a lower limit) goes away
    /// as far as it is not used. One caller at a time. Tells whether something was found; `None` = a
    /// move is in progress, and nothing was corrected.
    pub(in crate::engine) fn settle(&self, shard_no: u64) -> Option<bool> {
        let reserved = self.all_reserved()?;
        if reserved < self.limit {
            self.word(shard_no).fetch_add(pack(self.limit - reserved, 0), quota::CHANGE);
            self.note_spare();
        }
        let mut beyond = reserved.saturating_sub(self.limit);
        for no in 0..self.shards {
            if beyond == 0 {
                break;
            }
            beyond -= self.take_unused(no, beyond);
        }
        Some(reserved < self.limit)
    }

    /// What all shards have reserved together; `None` = something is being moved.
    fn all_reserved(&self) -> Option<u64> {
        let moves = |order| (0..self.shards).map(move |no| self.moves(no).load(order));
        let before = moves(quota::BEFORE)
            .try_fold(0u64, |sum, moves| (moves & 1 == 0).then(|| sum.wrapping_add(moves)))?;
        let reserved = (0..self.shards).map(|no| unpack(self.word(no).load(quota::LOOK)).0).sum();
        fence(quota::AGAIN);
        // Each only grows: the sums are equal if all are.
        (moves(Relaxed).fold(0, u64::wrapping_add) == before).then_some(reserved)
    }

    fn moves(&self, shard_no: u64) -> &AtomicU64 {
        self.region.word(self.moves + shard_no * 8)
    }

    /// Before others use the region: spreads what is not used over all shards.
    pub(in crate::engine) fn spread(&self) {
        if self.limit == 0 {
            return; // Nothing is counted, and the shards' words are not touched.
        }
        let free = self.limit.saturating_sub(self.all_used());
        let (each, more) = (free / self.shards, free % self.shards);
        for no in 0..self.shards {
            let used = self.used(no);
            self.word(no).store(pack(used + each + u64::from(no < more), used), Relaxed);
            self.moves(no).store(0, Relaxed);
        }
        self.region.word(self.hint).store(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::{
        layout::Geometry,
        testing::{SMALL, region},
    };

    /// Of four shards.
    fn quota(limit: u64) -> Quota {
        let region = Arc::new(region(Geometry { shards: 4, ..SMALL }));
        let quota = Quota::blocks(region.clone(), region.layout(), limit);
        quota.spread();
        quota
    }

    fn take(quota: &Quota, no: u64, n: u64) -> bool {
        acquire(quota.word(no), n) || quota.take_from_others(quota.region.shard(no), n)
    }

    fn reserved(quota: &Quota) -> u64 {
        quota.all_reserved().expect("nothing is being moved")
    }

    #[test]
    fn what_others_reserved_and_do_not_use_can_be_had() {
        let quota = quota(20);
        assert!(acquire(quota.word(0), 5) && !acquire(quota.word(0), 1), "a quarter each");
        assert!(take(&quota, 1, 6) && take(&quota, 2, 9), "the very last");
        assert_eq!([0, 1, 2, 3].map(|no| quota.used(no)), [5, 6, 9, 0]);
        assert!(quota.may_be_spare() && !take(&quota, 3, 1) && !quota.may_be_spare());
        quota.release(quota.word(1), 2);
        assert!(quota.may_be_spare() && !take(&quota, 3, 3) && take(&quota, 3, 2) && !take(&quota, 0, 1));
        assert_eq!((reserved(&quota), quota.all_used()), (20, 20));
    }

    #[test]
    fn a_rebuild_counts_again() {
        let quota = quota(20);
        assert!(take(&quota, 0, 12));
        quota.recover(quota.region.shard(0), 3);
        assert_eq!((quota.used(0), reserved(&quota)), (3, 20));
        assert!(take(&quota, 1, 17) && !take(&quota, 1, 1));
    }

    #[test]
    fn what_a_death_lost_is_found_again() {
        let quota = quota(20);
        // Somebody died while it moved 4 from shard 0 to shard 2.
        quota.moves(2).store(7, Relaxed);
        assert_eq!(quota.take_unused(0, 4), 4);
        assert_eq!(quota.settle(1), None, "until the rebuild it may be alive");
        quota.recover(quota.region.shard(2), 0);
        assert_eq!((reserved(&quota), quota.moves(2).load(Relaxed)), (16, 8));
        assert_eq!([quota.settle(1), quota.settle(1)], [Some(true), Some(false)]);
        assert!(reserved(&quota) == 20 && acquire(quota.word(1), 9) && !acquire(quota.word(1), 1));
    }

    #[test]
    fn what_is_being_moved_is_not_lost() {
        let quota = quota(20);
        let looks = AtomicU64::new(0);
        let between = || {
            looks.fetch_add(1, Relaxed);
            assert!(quota.settle(1).is_none() && quota.all_reserved().is_none(), "somebody is moving");
        };
        assert!(quota.move_to(quota.region.shard(2), 13, between));
        assert_eq!(looks.load(Relaxed), 2, "from two shards");
        assert!(quota.settle(1) == Some(false) && reserved(&quota) == 20);
        assert!(acquire(quota.word(2), 13) && !take(&quota, 0, 8) && take(&quota, 0, 7));
    }

    #[test]
    fn what_is_beyond_the_limit_goes_away_once_it_is_unused() {
        let quota = quota(20);
        assert!(take(&quota, 0, 20));
        quota.recover(quota.region.shard(1), 3);
        quota.settle(0);
        assert_eq!((reserved(&quota), quota.all_used()), (23, 23));
        quota.release(quota.word(0), 2);
        quota.settle(0);
        assert_eq!(reserved(&quota), 21);
        quota.release(quota.word(1), 3);
        quota.settle(0);
        assert!(reserved(&quota) == 20 && take(&quota, 3, 2) && !take(&quota, 3, 1));
    }

    #[test]
    fn what_is_settled_while_others_take_is_never_too_much() {
        const ROUNDS: u32 = 200_000;
        let quota = quota(20);
        let held = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let takers = [0, 1].map(|no| {
                let (quota, held) = (&quota, &held);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        if take(quota, no, 13) {
                            assert!(held.fetch_add(13, SeqCst) + 13 <= 20);
                            held.fetch_sub(13, SeqCst);
                            quota.release(quota.word(no), 13);
                        }
                    }
                })
            });
            while !takers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                quota.settle(2);
            }
        });
        quota.settle(3);
        assert_eq!((reserved(&quota), quota.all_used()), (20, 0));
    }
}
