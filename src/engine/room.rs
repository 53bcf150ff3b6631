//! What happens when something runs out: grow, sweep, evict, clear, or refuse. Never with a shard's lock held; where one
//! item makes room for one, under the lock, is in `evict`.
#![forbid(unsafe_code)]

use super::{Engine, Eviction, generation, stats::Counter};
use crate::{
    error::{Error, Result},
    os::clock,
    shm::{
        block,
        layout::{SPAN, header, shard},
        span,
        sync::*,
    },
};

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// Items.
    Items,
    /// Blocks: so many are needed beside the `held` ones of the value that is replaced.
    Blocks { need: u32, held: u32 },
    /// Memory or disk: so many bytes in one piece (0 = a bucket of the index).
    Space(u64),
}

/// Evictions for one write beyond one of each item: others may take what was freed.
const TRIES: u64 = 256;
/// Free spans with pages that are kept for the next large value.
const KEEP_DIRTY: u64 = 256;
/// Spans that a store grows by at least.
const GROW: u64 = 16;

/// How far one write's search for room has come.
#[derive(Debug, Default)]
pub(super) struct Room {
    evicted: u64,
    asked: bool,
    counted: bool,
    swept: bool,
    visited: bool,
    emptied: bool,
    cleared: bool,
}

impl Room {
    /// Makes room for a write to a shard, or says why there is none. `keep` is the item that the write is about.
    pub(super) fn make(&mut self, e: &Engine, shard_no: u64, short: Short, keep: Option<u32>) -> Result<()> {
        if let Short::Space(bytes) = short
            && e.grow(bytes)
        {
            return Ok(());
        }
        if short == Short::Items && !self.asked {
            self.asked = true;
            if e.collect_kept_ids()? {
                return Ok(());
            }
        }
        if !self.counted {
            self.counted = true;
            e.count(Counter::Full, 1);
        }
        if !self.swept {
            self.swept = true;
            if !e.nothing_due() && e.sweep_for_room()? > 0 {
                self.cleared = true; // As native: what sweeping freed spares the clear.
                return Ok(());
            }
        }
        // Idle spans, numbers that shards keep, or what a dead writer's shard holds until somebody locks it.
        if !self.visited && (matches!(short, Short::Space(_)) || e.counted_items() < e.geo.capacity) {
            self.visited = true;
            if matches!(short, Short::Space(_)) {
                // Somebody may be giving the free spans' pages back: they can be had when that is done.
                e.under(header::LOCK_POOL, || span::recover_pool(&e.region), || ())?;
            }
            e.release_idle()?;
            return Ok(());
        }
        if e.config.eviction != Eviction::None && e.can_fit(short) && self.evicted < e.geo.capacity + TRIES {
            // One of the writer's own shard leaves what it had to that; more than one are taken from all.
            let evicted = e.evict((self.evicted == 0).then_some(shard_no), keep)?;
            if evicted || !self.emptied {
                self.evicted += u64::from(evicted);
                // Nothing to evict any more: somebody else (a clear) has made room meanwhile.
                self.emptied |= !evicted;
                if matches!(short, Short::Space(_)) {
                    // The victim's span stays with its size until it is asked for.
                    e.release_idle()?;
                }
                return Ok(());
            }
        }
        if e.config.clear_on_full && !self.cleared {
            self.cleared = true;
            e.clear()?;
            e.sweep()?;
            return Ok(());
        }
        Err(refuse(e, short))
    }
}

fn refuse(e: &Engine, short: Short) -> Error {
    e.count(Counter::RejectedFull, 1);
    match short {
        Short::Items => Error::Full { limit: e.geo.capacity },
        Short::Blocks { need, .. } => {
            e.count(Counter::RejectedBlocks, 1);
            Error::OutOfBlocks { need: need.into(), limit: e.config.blocks.map_or(0, |b| b.count) }
        }
        Short::Space(len) => {
            e.count(Counter::NoSpace, 1);
            Error::NoSpace { len }
        }
    }
}

impl Engine {
    /// Backs more of the data area, in a store; `false` = there is no more, or the disk is full.
    fn grow(&self, bytes: u64) -> bool {
        let Some(file) = self.region.file() else { return false };
        let need = bytes.div_ceil(SPAN) * SPAN;
        let committed = self.region.word(header::COMMITTED);
        let seen = committed.load(Acquire);
        let mend = || span::recover_pool(&self.region);
        let grown = self.under(header::LOCK_POOL, mend, || {
            let now = committed.load(Acquire);
            if now != seen {
                return true; // Somebody else was faster.
            }
            let ample = (need + GROW * SPAN).max((now - self.layout.data) / 8 / SPAN * SPAN);
            [ample, need.max(SPAN)].into_iter().any(|more| {
                let to = (now + more).min(self.layout.end);
                if to < now + need || to <= now {
                    return false;
                }
                let grown = file.grow(now, to);
                match &grown {
                    Ok(()) => committed.store(to, Release),
                    Err(e) => self.note_grow_fault(e),
                }
                grown.is_ok()
            })
        });
        grown.unwrap_or(false)
    }

    /// Under the pool's lock.
    #[cold]
    fn note_grow_fault(&self, error: &Error) {
        let number = if let Error::Os { source, .. } = error { source.raw_os_error() } else { None };
        let word = self.region.word(header::GROW_FAULTS);
        let count = (word.load(Relaxed) as u32).saturating_add(1);
        word.store(u64::from(number.unwrap_or(0).cast_unsigned()) << 32 | u64::from(count), Relaxed);
    }

    /// How often the store could not grow since it was opened, and why the last time.
    pub(crate) fn grow_faults(&self) -> (u64, std::io::Error) {
        let word = self.region.word(header::GROW_FAULTS).load(Relaxed);
        (word & 0xFFFF_FFFF, std::io::Error::from_raw_os_error((word >> 32) as i32))
    }

    /// Sweeps because the cache is full: expired items of all shards. Where items do not expire by themselves
    /// (`no_expire`), only as often as configured.
    fn sweep_for_room(&self) -> Result<u64> {
        let every = u64::from(self.config.sweep_on_full);
        let now = clock::unix_secs();
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
        self.reap_all(Some(now))
    }

    /// Whether evicting others can help: the value that stays does not take too much already.
    fn can_fit(&self, short: Short) -> bool {
        match (short, self.config.blocks) {
            (Short::Blocks { need, held }, Some(b)) => u64::from(need) + u64::from(held) <= b.count,
            _ => true,
        }
    }

    /// Gives memory back once much of it lies free.
    #[inline(always)]
    pub(super) fn trim_if_much(&self) {
        let dirty = span::dirty(&self.region);
        if dirty > KEEP_DIRTY && dirty > span::frontier(&self.region) / 8 {
            self.trim();
        }
    }

    /// Gives the pages of free spans back, where the kernel takes them.
    pub(super) fn trim(&self) {
        if self.may_punch && span::dirty(&self.region) > 0 {
            let mend = || span::recover_pool(&self.region);
            // A time-out means that somebody else is at it.
            let _ = self.under(header::LOCK_POOL, mend, || span::trim(&self.region));
        }
    }

    /// Frees the spans and item numbers that shards keep for their next store.
    fn release_idle(&self) -> Result<()> {
        for no in 0..self.geo.shards {
            let guard = self.lock(no)?;
            block::release_idle(&self.region, guard.home);
            self.release_kept_id(guard.home);
        }
        Ok(())
    }

    /// Whether a shard has something to reap.
    pub(super) fn is_due(&self, no: u64, now: Option<u64>) -> bool {
        let home = self.region.shard(no);
        home.reaped() != generation::number(self.clear_gen())
            || now.is_some_and(|now| home.word(shard::EARLIEST).load(Relaxed) <= now)
    }
}
