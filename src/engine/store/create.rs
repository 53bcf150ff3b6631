//! Creating regions: the header, the locks, and a process's private copy of constants.
#![forbid(unsafe_code)]

use std::sync::{Arc, atomic::Ordering};

use crate::{
    engine::{
        Config, Engine, HugePages,
        index::hash::Secret,
        policy::{Policy, victims::VictimList},
        quota::limit::Quota,
        store::{
            disk::{self, MAGIC, READY, VERSION},
            sizing,
        },
    },
    error::Result,
    os::{
        huge,
        mutex::{self, MUTEX_SIZE},
        process,
        thread::First,
    },
    shm::{
        HeaderLen, Region,
        layout::{Layout, SPAN, header, shard},
        sync::*,
    },
};

impl Engine {
    pub(in crate::engine) fn anonymous(config: &Config) -> Result<Arc<Self>> {
        let mut notes = Vec::new();
        let mut max_spans = u64::MAX;
        loop {
            let layout = sizing::layout(config, max_spans)?;
            match huge::anonymous(layout.end as usize, config.huge_pages) {
                Ok((map, huge_pages, note)) => {
                    notes.extend(note);
                    let region = Region::new(map, layout, None)?;
                    region.keep_out_of_dumps();
                    let engine = Self::assemble(region, Config { huge_pages, ..config.clone() }, notes);
                    engine.init(config)?;
                    return Ok(Arc::new(engine.reload()));
                }
                Err(e) if layout.geo.spans <= 4 => return Err(e),
                Err(_) => {
                    max_spans = layout.geo.spans / 2;
                    notes = vec![format!(
                        "address space is limited: {} MiB reserved for data; values may be refused before the limits are reached",
                        (max_spans * SPAN) >> 20
                    )];
                }
            }
        }
    }

    pub(in crate::engine) fn assemble(region: Region, config: Config, notes: Vec<String>) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        mutex::prepare();
        let layout = *region.layout();
        let secret = Secret(read_secret(&region));
        let region = Arc::new(region);
        let policy = Policy::new(&layout.geo);
        let header_len = HeaderLen::of(layout.geo.checksums);
        Self {
            geo: layout.geo,
            layout,
            policy,
            seeds: secret.seeds(),
            secret,
            first: First::new(),
            header_len,
            header_bytes: header_len as u64,
            homes_per_shard: layout.homes_per_shard(),
            buckets: layout.buckets(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            victims: VictimList::new(policy, &layout.geo),
            lock_gen: region.word(header::LOCK_GEN).load(Relaxed),
            // Reserved huge pages are never released.
            may_punch: config.huge_pages != HugePages::Reserved,
            items: Quota::items(Arc::clone(&region), &layout),
            blocks: Quota::blocks(Arc::clone(&region), &layout, config.blocks.map_or(0, |b| b.count)),
            region,
            config,
            forks: AtomicU32::new(0),
            admitted: AtomicU32::new(u32::MAX),
            restarted: false,
            no_dead: AtomicU64::new(0),
            dropped: 0,
            notes,
        }
    }

    /// After the header was written: reads this process's copies of it.
    pub(in crate::engine) fn reload(mut self) -> Self {
        self.secret = Secret(read_secret(&self.region));
        self.seeds = self.secret.seeds();
        self.lock_gen = self.region.word(header::LOCK_GEN).load(Relaxed);
        // So that the first operation takes the same path as later ones.
        self.region.refresh_committed();
        self
    }

    /// Initialises a new region of zeros.
    pub(in crate::engine) fn init(&self, config: &Config) -> Result<()> {
        let w = |at: u64| self.region.word(at);
        w(header::VERSION).store(VERSION, Relaxed);
        w(header::ABI).store(Layout::abi(MUTEX_SIZE), Relaxed);
        w(header::CAPACITY).store(self.geo.capacity, Relaxed);
        w(header::SHARDS).store(self.geo.shards, Relaxed);
        w(header::HOMES).store(self.geo.homes, Relaxed);
        w(header::OVERFLOW).store(self.geo.overflow, Relaxed);
        w(header::SPANS).store(self.geo.spans, Relaxed);
        w(header::FLAGS).store(self.geo.flags(), Relaxed);
        let mut secret = [0; 4];
        process::random_words(&mut secret);
        for (i, s) in (0..).zip(secret) {
            w(header::SECRET + i * 8).store(s | 1, Relaxed);
        }
        if self.region.file().is_none() {
            w(header::COMMITTED).store(self.layout.end, Relaxed);
            w(header::OVERFLOW_READY).store(self.geo.overflow, Relaxed);
        }
        w(header::LOCK_GEN).store(1, Relaxed);
        self.write_limits(config);
        self.stamp_identity(1)?;
        self.init_locks()?;
        self.items.spread();
        self.blocks.spread();
        w(header::MAGIC).store(MAGIC, Relaxed);
        w(header::SUM).store(disk::sum(disk::fixed(), |at| w(at).load(Relaxed)), Relaxed);
        w(header::STATE).store(READY, Release);
        Ok(())
    }

    pub(in crate::engine) fn init_locks(&self) -> Result<()> {
        for lock in [header::LOCK_EXCLUSIVE, header::LOCK_POOL, header::LOCK_CAPACITY, header::LOCK_OWNER] {
            self.region.mutex(lock).init()?;
        }
        (0..self.geo.shards)
            .try_for_each(|no| self.region.mutex(self.layout.shard_word(no, shard::LOCK)).init())
    }

    pub(in crate::engine) fn write_limits(&self, c: &Config) {
        let w = |at: u64, value: u64| self.region.word(at).store(value, Relaxed);
        w(header::LIMITS_SUM, 0);
        fence(Release);
        w(header::MAX_KEY, c.max_key);
        w(header::MAX_VALUE, c.max_value);
        w(header::BLOCK_SIZE, c.blocks.map_or(0, |b| b.size));
        w(header::BLOCK_COUNT, c.blocks.map_or(0, |b| b.count));
        // The policy is in the geometry; its bit here is unused.
        let flags = [false, c.clear_on_full, c.no_expire, c.last_modified];
        w(header::POLICY_FLAGS, (0..).zip(flags).fold(0, |bits, (i, on)| bits | u64::from(on) << i));
        w(header::SWEEP_ON_FULL, u64::from(c.sweep_on_full));
        w(header::MATH_INITIAL, c.math_initial.cast_unsigned());
        w(header::LOCK_TIMEOUT, u64::try_from(c.lock_timeout.as_nanos()).unwrap_or(u64::MAX));
        w(header::NAME_LEN, c.name.len() as u64);
        self.region.write(header::NAME, c.name.as_bytes());
        let sum = disk::sum(disk::changeable(), |at| self.region.word(at).load(Relaxed));
        self.region.word(header::LIMITS_SUM).store(sum, Release);
    }
}

fn read_secret(r: &Region) -> [u64; 4] {
    [0, 1, 2, 3].map(|i| r.word(header::SECRET + i * 8).load(Relaxed))
}
