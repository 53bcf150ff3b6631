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
                ("  for want of blocks", count(s.rejected_blocks)),
                ("  of memory or disk", count(s.no_space)),
                ("lock waits", count(s.lock_waits)),
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
    for figure in stats.figures() {
        all[figure.name] = figure.value.into();
    }
    all["last_unclean"] = stats.last_unclean.into();
    all
}
