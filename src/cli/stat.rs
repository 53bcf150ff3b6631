//! `stat`: one moment's figures.

use std::{ffi::OsStr, io::Write};

use serde_json::{Value, json};

use super::{
    Context,
    failure::Outcome,
    text::{count, percent, size},
};
use crate::engine::{Engine, Eviction, Stats};

pub(super) fn run(context: &mut Context, target: &OsStr, json: bool) -> Outcome {
    let target = context.open(target)?;
    let engine = target.engine("stat")?;
    let bold = context.colors();
    let out = &mut context.out;
    if json {
        return Ok(writeln!(out, "{}", object(engine))?);
    }
    let stats = engine.stats();
    let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    writeln!(out, "{on}{}{off}", super::text::escape(engine.config().name.as_bytes()))?;
    for (group, rows) in table(engine, &stats) {
        writeln!(out, "\n{on}{group}{off}")?;
        for (name, value) in rows {
            writeln!(out, "  {name:<22} {value}")?;
        }
    }
    Ok(())
}

type Rows = Vec<(&'static str, String)>;

fn table(engine: &Engine, s: &Stats) -> Vec<(&'static str, Rows)> {
    let config = engine.config();
    let mut fill = vec![
        ("items", format!("{} of {} ({})", count(s.items), count(s.capacity), percent(s.items, s.capacity))),
        ("memory of entries", size(s.bytes)),
        ("longest key", size(config.max_key)),
        ("longest value", size(config.max_value)),
        ("when full", when_full(engine).to_owned()),
        ("shards", count(s.shards)),
    ];
    if let Some(blocks) = config.blocks {
        let share = percent(s.blocks_used, blocks.count);
        fill.insert(1, ("blocks", format!("{} of {} ({share})", count(s.blocks_used), count(blocks.count))));
    }
    let reads = s.hits + s.misses;
    vec![
        ("fill", fill),
        (
            "use",
            vec![
                ("hits", format!("{} ({})", count(s.hits), percent(s.hits, reads))),
                ("misses", count(s.misses)),
                ("stored", count(s.stored)),
                ("deleted", count(s.deleted)),
                ("evicted", count(s.evicted)),
                ("expired", count(s.expired)),
                ("clears", count(s.cleared)),
            ],
        ),
        (
            "refused",
            vec![
                ("over a limit", count(s.rejected_limit)),
                ("cache full", count(s.rejected_full)),
                ("no space", count(s.no_space)),
                ("lock timeouts", count(s.timeouts)),
            ],
        ),
        (
            "health",
            vec![
                ("deaths noticed", count(s.owner_dead)),
                ("shards rebuilt", count(s.repaired)),
                ("items dropped", count(s.dropped_corrupt)),
                ("closed cleanly", if s.last_unclean { "no, the last time" } else { "yes" }.to_owned()),
            ],
        ),
    ]
}

fn when_full(engine: &Engine) -> &'static str {
    let config = engine.config();
    match (config.eviction, config.clear_on_full) {
        (Eviction::Lru, _) => "drops the least recently used",
        (Eviction::S3Fifo, _) => "drops what is not used again (S3-FIFO)",
        (Eviction::None, true) => "starts again empty",
        (Eviction::None, false) => "refuses new keys",
    }
}

/// Every figure, under the names that `metrics` uses, too.
pub(super) fn figures(s: &Stats) -> Vec<(&'static str, &'static str, u64)> {
    vec![
        ("items", "Items stored", s.items),
        ("capacity", "Items that fit", s.capacity),
        ("blocks_used", "Blocks in use, where blocks are counted", s.blocks_used),
        ("bytes", "Bytes that entries occupy", s.bytes),
        ("reserved_bytes", "Bytes of address space", s.reserved),
        ("shards", "Independent writers' locks", s.shards),
        ("last_modified", "Unix time of the last change, 0 = none or not kept", s.last_modified),
        ("last_unclean", "Whether the store was not closed cleanly the last time", s.last_unclean.into()),
        ("hits", "Reads that found their key", s.hits),
        ("misses", "Reads that did not", s.misses),
        ("stored", "Values stored", s.stored),
        ("deleted", "Items deleted by a caller", s.deleted),
        ("evicted", "Items evicted to make room", s.evicted),
        ("expired", "Expired items reclaimed", s.expired),
        ("full", "How often a store found the cache full", s.full),
        ("rejected_limit", "Stores refused: over a limit, or not a number", s.rejected_limit),
        ("rejected_full", "Stores refused: no room", s.rejected_full),
        ("no_space", "Stores refused: no memory or disk", s.no_space),
        ("timeouts", "Operations given up after lock_timeout", s.timeouts),
        ("owner_dead", "Locks found with a dead owner", s.owner_dead),
        ("repaired", "Shards rebuilt", s.repaired),
        ("dropped_corrupt", "Items dropped because they were damaged", s.dropped_corrupt),
        ("cleared", "Clears", s.cleared),
    ]
}

/// How many of [`figures`], from the start, may go down: gauges. The others are counters.
pub(super) const GAUGES: usize = 8;

fn object(engine: &Engine) -> Value {
    let config = engine.config();
    let stats = engine.stats();
    let mut all = json!({
        "name": config.name,
        "max_key": config.max_key,
        "max_value": config.max_value,
        "purge_lru": config.eviction == Eviction::Lru,
        "evict": config.eviction.to_string(),
        "clear_on_full": config.clear_on_full,
        "no_expire": config.no_expire,
        "blocks": config.blocks.map(|b| b.count),
        "blocksize": config.blocks.map(|b| b.size),
        "shard_items": engine.shard_items(),
    });
    for (name, _, value) in figures(&stats) {
        all[name] = value.into();
    }
    all["last_unclean"] = stats.last_unclean.into();
    all
}
