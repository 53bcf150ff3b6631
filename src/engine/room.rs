//! What happens when something runs out: grow, sweep, evict, clear, or refuse. Never with a shard's lock held; where one
//! item makes room for one, under the lock, is in `evict`.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Engine, Eviction, generation, stats::Counter, visit::Missed};
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
    /// The quota's lock: it was held when so many blocks were asked for.
    Quota { need: u32 },
    /// Memory or disk: so many bytes in one piece (0 = a bucket of the index).
    Space(u64),
}

/// Evictions for one write beyond one of each item: others may take what was freed.
const TRIES: u64 = 256;
/// Free spans with pages that are kept for the next large value.
const KEEP_DIRTY: u64 = 256;
/// Spans that a store grows by at least.
const GROW: u64 = 16;

/// Spans whose pages a write gives back at most: a fraction of a millisecond.
const PIECE: u64 = 64;
/// How long a write waits for somebody who gives pages back: a piece takes less.
const PIECE_PATIENCE: Duration = Duration::from_millis(20);

/// How far one write's search for room has come.
#[derive(Debug, Default)]
pub(super) struct Room {
    evicted: u64,
    quota_asked: u64,
    asked: bool,
    counted: bool,
    swept: bool,
    visited: bool,
    emptied: bool,
    cleared: bool,
    waited: bool,
    /// Shards that could not be searched yet, because somebody held them. Large, and rarely needed.
    missed: Option<Missed>,
}

impl Room {
    /// Makes room for a write to a shard, or says why there is none. `keep` is the item that the write is about.
    pub(super) fn make(&mut self, e: &Engine, shard_no: u64, short: Short, keep: Option<u32>) -> Result<()> {
        match short {
            Short::Quota { need } => return self.wait_for_quota(e, shard_no, need),
            Short::Space(bytes) if e.grow(bytes)? => return Ok(()),
            _ => {}
        }
        if short == Short::Items && !self.asked {
            self.asked = true;
            let (any, missed) = e.collect_kept_ids();
            self.note(missed);
            if any {
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
                self.cleared = true; // As native: what sweeping freed spares the clear.
                return Ok(());
            }
        }
        // Idle spans, numbers that shards keep, or what a dead writer's shard holds until somebody locks it.
        if !self.visited && (matches!(short, Short::Space(_)) || e.counted_items() < e.geo.capacity) {
            self.visited = true;
            if matches!(short, Short::Space(_)) {
                e.wait_for_trimmer()?;
            }
            self.note(e.release_idle());
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
                    self.note(e.release_idle());
                }
                return Ok(());
            }
        }
        // Before everything is cleared or the write is refused: room that a held shard may have.
        if let Some(missed) = self.missed.take() {
            return self.wait_for_missed(e, missed);
        }
        if e.config.clear_on_full && !self.cleared {
            self.cleared = true;
            e.clear()?;
            e.sweep()?;
            return Ok(());
        }
        Err(refuse(e, short))
    }

    /// Expired items of all shards; returns how many went.
    fn sweep(&mut self, e: &Engine) -> u64 {
        let (gone, missed) = e.sweep_for_room();
        self.note(missed);
        gone
    }

    /// Waits for the quota's lock, with no shard held, and asks for the blocks.
    fn wait_for_quota(&mut self, e: &Engine, shard_no: u64, need: u32) -> Result<()> {
        self.quota_asked += 1;
        if self.quota_asked > TRIES {
            return Err(Error::Timeout { waited: e.config.lock_timeout });
        }
        e.grant_blocks(shard_no, need.into(), e.config.lock_timeout).map(|_| ())
    }

    /// Waits for the shards that were passed over, and frees there what can be freed.
    fn wait_for_missed(&mut self, e: &Engine, missed: Missed) -> Result<()> {
        if std::mem::replace(&mut self.waited, true) {
            return e.fail_for(missed);
        }
        let now = (!e.config.no_expire).then(clock::unix_secs);
        let missed = e.visit_missed(e.config.lock_timeout, missed, |guard| {
            e.reap(guard, e.clear_gen(), now);
            block::release_idle(&e.region, guard.home);
            e.release_kept_id(guard.home);
            true
        });
        self.note(missed);
        Ok(())
    }

    /// Adds shards that a walk has missed.
    fn note(&mut self, missed: Missed) {
        if missed.count() != 0 {
            self.missed.get_or_insert_default().add(missed);
        }
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
        Short::Quota { .. } => Error::Timeout { waited: e.config.lock_timeout },
    }
}

impl Engine {
    /// Backs more of the data area, in a store; `false` = there is no more, or the disk is full.
    ///
    /// # Errors
    /// Those of the pool's lock: whether there is more could not be found out.
    fn grow(&self, bytes: u64) -> Result<bool> {
        let Some(file) = self.region.file() else { return Ok(false) };
        let need = bytes.div_ceil(SPAN) * SPAN;
        let committed = self.region.word(header::COMMITTED);
        let seen = committed.load(Acquire);
        let mend = || span::recover_pool(&self.region);
        self.under(header::LOCK_POOL, self.config.lock_timeout, mend, || {
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
        })
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
    fn sweep_for_room(&self) -> (u64, Missed) {
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

    /// Gives a piece of memory back once much of it lies free.
    #[inline(always)]
    pub(super) fn trim_if_much(&self) {
        let dirty = span::dirty(&self.region);
        if dirty > KEEP_DIRTY && dirty > span::frontier(&self.region) / 8 {
            self.trim_piece();
        }
    }

    /// Gives the pages of free spans back, where the kernel takes them: piece by piece, so that nobody waits long.
    pub(super) fn trim(&self) {
        for _ in 0..span::frontier(&self.region) {
            if span::dirty(&self.region) == 0 || !self.trim_piece() {
                return;
            }
        }
    }

    /// One piece of [`Engine::trim`]; `false` = somebody else is at it, or the kernel declines.
    #[cold]
    #[inline(never)]
    fn trim_piece(&self) -> bool {
        let mend = || span::recover_pool(&self.region);
        self.may_punch
            && self
                .under(header::LOCK_POOL, Duration::ZERO, mend, || span::trim(&self.region, PIECE))
                .unwrap_or(false)
    }

    /// Spans whose pages are being given back can be had when that is done. Who is stopped meanwhile is not waited for.
    fn wait_for_trimmer(&self) -> Result<()> {
        let patience = PIECE_PATIENCE.min(self.config.lock_timeout);
        match self.under(header::LOCK_POOL, patience, || span::recover_pool(&self.region), || ()) {
            Err(Error::Timeout { .. }) => Ok(()),
            other => other,
        }
    }

    /// Frees the spans and item numbers that shards keep for their next store; returns the shards that were missed.
    fn release_idle(&self) -> Missed {
        self.visit(
            0,
            Duration::ZERO,
            |_| true,
            |guard| {
                block::release_idle(&self.region, guard.home);
                self.release_kept_id(guard.home);
                true
            },
        )
    }

    /// Whether a shard has something to reap.
    pub(super) fn is_due(&self, no: u64, now: Option<u64>) -> bool {
        let home = self.region.shard(no);
        home.reaped() != generation::number(self.clear_gen())
            || now.is_some_and(|now| home.word(shard::EARLIEST).load(Relaxed) <= now)
    }
}
