//! What happens when something runs out: grow, sweep, evict, clear, or refuse. Never with a shard's
//! lock held (I11); evicting one item for one, under the lock, is in `evict`.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{Engine, lock::visit::Missed, policy::Policy, quota::Shortage, stats::Counter},
    error::{Error, Result},
    os::clock,
    shm::{
        layout::{BUCKET, SPAN, header},
        slab, span,
        sync::*,
    },
};

/// Evictions per write beyond one for each item: others may take what was freed.
const TRIES: u64 = 256;
/// How often one write makes room in one piece.
const SPACE_TRIES: u64 = 4;
/// Bytes that a write moves at most to find room, beside twice its own.
const MAX_MOVED: u64 = 1 << 20;
/// Free spans with pages that are kept for the next large value.
const MAX_DIRTY_SPANS: u64 = 4096;
/// Spans that a store grows by at least.
pub(in crate::engine) const MIN_GROWTH: u64 = 64;

/// Spans whose pages a write gives back at most: a fraction of a millisecond.
const MAX_RELEASED_SPANS: u64 = 1024;
/// How long a write waits for somebody who gives pages back: a piece takes less.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(20);

/// What one write has already done to make room.
#[derive(Debug, Default)]
pub(in crate::engine) struct MakeRoom {
    evicted: u64,
    revived: bool,
    counted: bool,
    swept: bool,
    visited: bool,
    emptied: bool,
    compacted: bool,
    cleared: bool,
    waited: bool,
    /// Shards that were not searched yet, because they were locked. Large, and rarely needed.
    missed: Option<Missed>,
}

impl MakeRoom {
    /// Makes room for a write to a shard, or says why there is none. `keep` is the item being
    /// written; it is not evicted.
    pub(in crate::engine) fn make(
        &mut self,
        e: &Engine,
        shard_no: u64,
        shortage: Shortage,
        keep: Option<u32>,
    ) -> Result<()> {
        if let Shortage::Space(bytes) = shortage
            && e.grow(bytes)?
        {
            return Ok(());
        }
        if !self.revived && !matches!(shortage, Shortage::Space(_)) {
            self.revived = true;
            let revived = e.has_dead() && self.revive(e);
            // Or returned while this writer looked for it.
            if e.settle_quotas() || revived || shortage == Shortage::Items && e.items.may_be_spare() {
                return Ok(());
            }
        }
        if !self.counted {
            self.counted = true;
            e.count(Counter::Full, 1);
        }
        if !self.swept {
            self.swept = true;
            if !e.nothing_due() && self.sweep(e) > 0 {
                self.cleared = true; // As in native uWSGI: no clear if the sweep freed anything.
                return Ok(());
            }
        }
        if !self.visited && e.may_be_more(shortage) {
            self.visited = true;
            if matches!(shortage, Shortage::Space(_)) {
                e.wait_for_page_release()?;
            }
            self.note(e.release_idle(shortage));
            return Ok(());
        }
        if let (Shortage::Space(bytes), false) = (shortage, e.policy == Policy::None) {
            // Others may take what was freed.
            while self.evicted < SPACE_TRIES {
                self.evicted += 1;
                if e.evict_for_space(shard_no, bytes, keep)? {
                    return Ok(());
                }
            }
        } else if e.policy != Policy::None && e.can_fit(shortage) && self.evicted < e.geo.capacity + TRIES {
            // The first victim comes from the writer's own shard, which keeps its block; further
            // ones come from any shard.
            let evicted = e.evict((self.evicted == 0).then_some(shard_no), keep)?;
            if evicted || !self.emptied {
                self.evicted += u64::from(evicted);
                // Nothing is left to evict: another thread (a clear) has made room meanwhile.
                self.emptied |= !evicted;
                return Ok(());
            }
        }
        // A store frees what it moves only after a sync: slow, but better than to refuse.
        if let (Shortage::Space(_), Some(_), false) = (shortage, e.region.file(), self.compacted) {
            self.compacted = true;
            if e.compact_for_room() {
                return Ok(());
            }
        }
        // Before everything is cleared or the write refused: wait for the shards that were held.
        if let Some(missed) = self.missed.take() {
            return self.wait_for_missed(e, missed);
        }
        if e.config.clear_on_full && !self.cleared {
            self.cleared = true;
            e.clear()?;
            e.sweep_shards()?;
            return Ok(());
        }
        Err(refuse(e, shortage))
    }

    /// Makes room for a key in its chain: blocks on disk for the index, or the slot of another item of
    /// the chain. Items of other chains are not evicted: that would rarely help.
    pub(in crate::engine) fn make_index(&mut self, e: &Engine, home: u64, keep: Option<u32>) -> Result<()> {
        match e.back_index(home) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // The descriptor of the store is gone, which no room would mend.
            Err(error @ Error::Damaged(_)) => return Err(error),
            Err(error) => e.note_grow_fault(&error),
        }
        if !std::mem::replace(&mut self.swept, true) && (!e.nothing_due() && self.sweep(e) > 0) {
            return Ok(());
        }
        if self.evicted < SPACE_TRIES && e.evict_from_chain(home, keep)? {
            self.evicted += 1;
            return Ok(());
        }
        if let Some(missed) = self.missed.take() {
            return self.wait_for_missed(e, missed);
        }
        if e.config.clear_on_full && !std::mem::replace(&mut self.cleared, true) {
            e.clear()?;
            e.sweep_shards()?;
            return Ok(());
        }
        Err(refuse(e, Shortage::Index(home)))
    }

    /// Rebuilds shards whose writers died; tells whether there was one.
    #[cold]
    fn revive(&mut self, e: &Engine) -> bool {
        let mut any = false;
        let died = |no: u64| {
            let cells = e.region.shard(no);
            cells.is_dirty() || cells.lock().owner_died()
        };
        let missed = e.visit(0, Duration::ZERO, died, |_| {
            any = true;
            true
        });
        self.note(missed);
        any
    }

    /// Sweeps all shards; returns the number of expired items removed.
    fn sweep(&mut self, e: &Engine) -> u64 {
        let (gone, missed) = e.sweep_for_room();
        self.note(missed);
        gone
    }

    /// Waits for the missed shards and frees what can be freed there.
    fn wait_for_missed(&mut self, e: &Engine, missed: Missed) -> Result<()> {
        if std::mem::replace(&mut self.waited, true) {
            return e.fail_for(missed);
        }
        let now = (!e.config.no_expire).then(clock::unix_millis);
        let missed = e.visit_missed(e.config.lock_timeout, missed, |guard| {
            e.reap(guard, e.clear_gen(), now);
            slab::release_idle(&e.region, guard.cells);
            true
        });
        self.note(missed);
        Ok(())
    }

    /// Adds the shards that a walk missed.
    fn note(&mut self, missed: Missed) {
        if !missed.has_none() {
            self.missed.get_or_insert_default().add(missed);
        }
    }
}

fn refuse(e: &Engine, shortage: Shortage) -> Error {
    e.count(Counter::RejectedFull, 1);
    match shortage {
        Shortage::Items => Error::Full { limit: e.geo.capacity },
        Shortage::Blocks { need, .. } => {
            e.count(Counter::RejectedBlocks, 1);
            Error::OutOfBlocks { need: need.into(), limit: e.config.blocks.map_or(0, |b| b.count) }
        }
        Shortage::Space(len) => {
            e.count(Counter::NoSpace, 1);
            Error::NoSpace { len }
        }
        Shortage::Index(_) => {
            e.count(Counter::NoSpace, 1);
            Error::NoSpace { len: BUCKET }
        }
    }
}

impl Engine {
    /// Grows the data area of a store; `false` = it has its full size, or the disk is full.
    ///
    /// # Errors
    /// Errors of the pool's lock: it is unknown whether the store could grow. [`Error::Damaged`]: the
    /// store's descriptor is not the store's any more.
    pub(in crate::engine) fn grow(&self, bytes: u64) -> Result<bool> {
        let Some(file) = self.region.file() else { return Ok(false) };
        let need = bytes.div_ceil(SPAN) * SPAN;
        let committed = self.region.word(header::COMMITTED);
        let seen = committed.load(Acquire);
        let mend = || span::recover_pool(&self.region);
        let mut broken = None;
        let grown = self.under(header::LOCK_POOL, self.config.lock_timeout, mend, || {
            let now = committed.load(Acquire);
            if now != seen {
                return true; // Another thread was faster.
            }
            let ample = (need + MIN_GROWTH * SPAN).max((now - self.layout.data) / 256 / SPAN * SPAN);
            // What was given back first, as far as it is long enough; at the end all of it.
            let refill = |least: u64| {
                span::holes(&self.region) != 0
                    && span::fill_holes(&self.region, least, ample / SPAN, |from, to| {
                        let filled = file.back(from, to);
                        filled.inspect_err(|e| self.note_grow_fault(e)).is_ok()
                    }) != 0
            };
            refill(need / SPAN)
                || [ample, need.max(SPAN)].into_iter().any(|more| {
                    let to = (now + more).min(self.layout.end);
                    if to < now + need || to <= now {
                        return false;
                    }
                    let table = |end: u64| self.layout.table_end(end);
                    let grown = file.grow_table(table(now), table(to)).and_then(|()| file.grow(now, to));
                    if let Err(e) = grown {
                        self.note_grow_fault(&e);
                        broken = Some(e).filter(|e| matches!(e, Error::Damaged(_)));
                        return false;
                    }
                    committed.store(to, Release);
                    true
                })
                || refill(1)
        })?;
        broken.map_or(Ok(grown), Err)
    }

    /// Called under the pool's lock, or where a lost count does not matter.
    #[cold]
    fn note_grow_fault(&self, error: &Error) {
        let number = if let Error::Os { source, .. } = error { source.raw_os_error() } else { None };
        let word = self.region.word(header::GROW_FAULTS);
        let count = (word.load(Relaxed) as u32).saturating_add(1);
        word.store(u64::from(number.unwrap_or(0).cast_unsigned()) << 32 | u64::from(count), Relaxed);
    }

    /// How often the store could not grow since it was opened, and the last reason.
    #[cfg(feature = "capi")]
    pub(crate) fn grow_faults(&self) -> (u64, std::io::Error) {
        let word = self.region.word(header::GROW_FAULTS).load(Relaxed);
        (word & 0xFFFF_FFFF, std::io::Error::from_raw_os_error((word >> 32) as i32))
    }

    /// Sweeps because the cache is full: expired items of all shards. Where items do not expire by
    /// themselves (`no_expire`), only as often as configured.
    fn sweep_for_room(&self) -> (u64, Missed) {
        let every = u64::from(self.config.sweep_on_full);
        let now = clock::coarse_unix_secs();
        if self.config.no_expire {
            if every == 0 {
                return self.reap_all(None);
            }
            let next = self.region.word(header::NEXT_FULL_SWEEP);
            let due = next.load(Relaxed);
            if !self.is_full_sweep_due(due, now)
                || next.compare_exchange(due, now + every, Relaxed, Relaxed).is_err()
            {
                return self.reap_all(None);
            }
        }
        self.reap_all(Some(clock::unix_millis()))
    }

    /// Whether another attempt may find something: idle spans, or what was returned while others
    /// looked for it.
    fn may_be_more(&self, shortage: Shortage) -> bool {
        match shortage {
            Shortage::Space(_) => true,
            Shortage::Items => self.items.may_be_spare(),
            _ => self.counted_items() < self.geo.capacity,
        }
    }

    /// Whether evicting other items can help: the replaced value must leave enough.
    fn can_fit(&self, shortage: Shortage) -> bool {
        match (shortage, self.config.blocks) {
            (Shortage::Blocks { need, held }, Some(b)) => u64::from(need) + u64::from(held) <= b.count,
            _ => true,
        }
    }

    /// Releases some pages once many spans are free.
    #[inline(always)]
    pub(in crate::engine) fn release_pages_if_many(&self) {
        let dirty = span::dirty(&self.region);
        // Of a store's file only a sweep punches holes.
        if dirty > MAX_DIRTY_SPANS && dirty > span::frontier(&self.region) / 8 && self.region.file().is_none()
        {
            self.release_some_pages();
        }
    }

    /// Releases the pages of free spans, where the kernel accepts it: in steps, so that nobody
    /// waits long.
    pub(in crate::engine) fn release_pages(&self) {
        for _ in 0..span::frontier(&self.region) {
            if span::dirty(&self.region) == 0 || !self.release_some_pages() {
                return;
            }
        }
    }

    /// One piece of [`Engine::release_pages`]; `false` = another thread is doing it, or the kernel
    /// declines.
    #[cold]
    #[inline(never)]
    fn release_some_pages(&self) -> bool {
        let mend = || span::recover_pool(&self.region);
        self.may_punch
            && self
                .under(header::LOCK_POOL, Duration::ZERO, mend, || {
                    span::release_pages(&self.region, MAX_RELEASED_SPANS)
                })
                .unwrap_or(false)
    }

    /// Spans whose pages are being released are free afterwards. A stopped process is not waited
    /// for.
    fn wait_for_page_release(&self) -> Result<()> {
        let patience = RELEASE_TIMEOUT.min(self.config.lock_timeout);
        match self.under(header::LOCK_POOL, patience, || span::recover_pool(&self.region), || ()) {
            Err(Error::Timeout { .. }) => Ok(()),
            other => other,
        }
    }

    /// Frees the spans that shards keep for their next store; returns the shards that
    /// were missed. Where memory is short, sparse extents are emptied, too, up to a limit.
    fn release_idle(&self, shortage: Shortage) -> Missed {
        let mut left = match shortage {
            // In a store it would need a sync to free anything.
            Shortage::Space(bytes) if self.region.file().is_none() => MAX_MOVED + 2 * bytes,
            _ => 0,
        };
        self.visit(
            0,
            Duration::ZERO,
            |_| true,
            |guard| {
                slab::release_idle(&self.region, guard.cells);
                if left > 0 && slab::may_be_sparse(&self.region, guard.cells) {
                    left = left.saturating_sub(self.compact(guard, true).bytes);
                }
                true
            },
        )
    }

    /// Whether a death may have left a shard to rebuild, which may hold some of the limits. All shards'
    /// locks are looked at once in a tick of the clock, 1 to 10 ms: a full cache asks for every key that
    /// it refuses.
    fn has_dead(&self) -> bool {
        let now = clock::coarse_millis();
        if self.no_dead.load(Relaxed) == now {
            return false;
        }
        let any = self.region.has_dead();
        if !any {
            self.no_dead.store(now, Relaxed);
        }
        any
    }
}
