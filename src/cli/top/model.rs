//! The data of `top`: the last statistics, their rates, the most used and the largest items.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::engine::{Cursor, Engine, NearStats, Stats};

/// Updates kept: more than a wide terminal shows.
const HISTORY: usize = 600;
/// Items visited in one tick: a large cache takes several ticks for a round.
const STEP: usize = 50_000;
/// Items of a list.
const LIST: usize = 50;

/// One item of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranked {
    /// The ranking criteria.
    pub(super) rank: (u64, u64),
    pub(super) key: Vec<u8>,
    pub(super) len: u64,
}

/// Changes per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) reads: f64,
    pub(super) writes: f64,
    pub(super) evicted: f64,
    pub(super) expired: f64,
    pub(super) rejected: f64,
    /// Messages about changes at a server.
    pub(super) changes: f64,
}

/// The state of the view.
pub(super) struct Model {
    pub(super) engine: Arc<Engine>,
    pub(super) stats: Stats,
    /// Of a region with copies.
    pub(super) near: Option<NearStats>,
    /// Reads that a copy answered, percent of the last ones.
    pub(super) near_ratio: u64,
    pub(super) rates: Rates,
    /// Operations per second.
    pub(super) operations: VecDeque<u64>,
    /// Hit ratio in percent; without reads, the previous value.
    pub(super) ratios: VecDeque<u64>,
    pub(super) shards: Vec<u64>,
    pub(super) hottest: Vec<Ranked>,
    pub(super) largest: Vec<Ranked>,
    pub(super) paused: bool,
    cursor: Cursor,
    round: (Vec<Ranked>, Vec<Ranked>),
}

impl Model {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self {
            stats: engine.stats(),
            near: engine.has_copies().then(|| engine.copy_stats()),
            near_ratio: 0,
            shards: engine.shard_items(),
            engine,
            rates: Rates::default(),
            operations: VecDeque::new(),
            ratios: VecDeque::new(),
            hottest: Vec::new(),
            largest: Vec::new(),
            paused: false,
            cursor: Cursor::default(),
            round: (Vec::new(), Vec::new()),
        }
    }

    /// Updates the data `after` the previous update.
    pub(super) fn tick(&mut self, after: Duration) {
        if self.paused {
            return;
        }
        let (old, new) = (self.stats, self.engine.stats());
        let secs = after.as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = |f: fn(&Stats) -> u64| f(&new).saturating_sub(f(&old)) as f64 / secs;
        let copies = self.engine.has_copies().then(|| self.engine.copy_stats());
        let (old_copies, new_copies) = (self.near.unwrap_or_default(), copies.unwrap_or_default());
        let heard = |n: &NearStats| n.invalidated + n.invalidated_absent;
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let changes = heard(&new_copies).saturating_sub(heard(&old_copies)) as f64 / secs;
        self.rates = Rates {
            changes,
            reads: rate(|s| s.hits + s.misses),
            writes: rate(|s| s.stored + s.deleted),
            evicted: rate(|s| s.evicted),
            expired: rate(|s| s.expired),
            rejected: rate(|s| s.rejected_limit + s.rejected_full),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate, shown as a bar"
        )]
        push(&mut self.operations, (self.rates.reads + self.rates.writes) as u64);
        let hits = new.hits.saturating_sub(old.hits);
        let reads = hits + new.misses.saturating_sub(old.misses);
        let near_hits = new_copies.hits.saturating_sub(old_copies.hits);
        self.near_ratio = (near_hits * 100).checked_div(reads).unwrap_or(self.near_ratio);
        self.near = copies;
        let before = self.ratios.back().copied().unwrap_or(0);
        push(&mut self.ratios, (hits * 100).checked_div(reads).unwrap_or(before));
        self.stats = new;
        self.shards = self.engine.shard_items();
        self.walk();
    }

    fn walk(&mut self) {
        for _ in 0..STEP {
            let Some(item) = self.engine.walk(&mut self.cursor) else {
                let (hottest, largest) = std::mem::take(&mut self.round);
                self.hottest = best(hottest);
                self.largest = best(largest);
                self.cursor = Cursor::default();
                return;
            };
            let (hits, stamp) = self.engine.use_of(item.id);
            let (hottest, largest) = &mut self.round;
            if hits > 0 || stamp > 0 {
                note(
                    hottest,
                    Ranked { rank: (hits.into(), stamp), key: item.key.clone(), len: item.value_len },
                );
            }
            note(largest, Ranked { rank: (item.value_len, 0), key: item.key, len: item.value_len });
        }
    }
}

/// Bounds the length of a list by sorting it now and then.
fn note(list: &mut Vec<Ranked>, item: Ranked) {
    if list.len() >= 20 * LIST {
        *list = best(std::mem::take(list));
    }
    if list.len() < LIST || list[LIST - 1] < item {
        list.push(item);
    }
}

fn best(mut list: Vec<Ranked>) -> Vec<Ranked> {
    list.sort_unstable_by(|a, b| b.cmp(a));
    list.truncate(LIST);
    list
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() >= HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_many_are_kept() {
        let mut list = Vec::new();
        for i in 0..10_000_u64 {
            // Every number once, in no order.
            let n = i * 7919 % 10_000;
            note(&mut list, Ranked { rank: (n, 0), key: n.to_string().into_bytes(), len: n });
        }
        let ranks: Vec<u64> = best(list).into_iter().map(|r| r.rank.0).collect();
        assert_eq!(ranks, (9950..10_000).rev().collect::<Vec<_>>());
    }
}
