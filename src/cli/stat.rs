//! `stat`: a snapshot of the statistics.

mod memory;

use std::{ffi::OsStr, io::Write};

use serde_json::{Value, json};

use super::{
    Context,
    failure::Outcome,
    text::{count, percent, size},
};
use crate::engine::{Engine, Eviction, Memory, NearStats, Stats};

pub(super) fn run(context: &mut Context, target: &OsStr, json: bool, by_class: bool) -> Outcome {
    let engine = &*context.look(target, "stat")?;
    let bold = context.colors();
    let out = &mut context.out;
    let memory = if by_class { engine.memory() } else { engine.memory_sample() };
    if json {
        return Ok(writeln!(out, "{}", object(engine, &memory, by_class))?);
    }
    let stats = engine.stats();
    let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    writeln!(out, "{on}{}{off}", super::text::escape(engine.config().name.as_bytes()))?;
    for (group, rows) in table(engine, &stats, &memory) {
        writeln!(out, "\n{on}{group}{off}")?;
        for (name, value) in rows {
            writeln!(out, "  {name:<22} {value}")?;
        }
    }
    if by_class {
        writeln!(out, "\n{on}blocks{off}")?;
        memory::classes(out, &memory)?;
    }
    Ok(())
}

type Rows = Vec<(&'static str, String)>;

fn table(engine: &Engine, s: &Stats, memory: &Memory) -> Vec<(&'static str, Rows)> {
    let config = engine.config();
    let mut fill = vec![
        ("items", format!("{} of {} ({})", count(s.items), count(s.capacity), percent(s.items, s.capacity))),
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
    let mut groups = vec![
        ("fill", fill),
        (if memory.sampled { "memory (estimated)" } else { "memory" }, memory::rows(memory)),
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
    ];
    if engine.has_copies() {
        groups.insert(3, ("copies of a server's values", copies(&engine.copy_stats(), reads)));
    }
    groups.extend(pages(engine, s).map(|rows| ("pages", rows)));
    groups
}

/// What the routes of uWSGI did, if they use the cache.
fn pages(engine: &Engine, s: &Stats) -> Option<Rows> {
    let served = s.page_hits + s.page_stale + s.page_coalesced;
    let asked = served + s.page_misses;
    if asked + s.page_bypassed == 0 {
        return None;
    }
    let mut rows = vec![
        ("pages served", format!("{} ({})", count(served), percent(served, asked))),
        ("  old ones", count(s.page_stale)),
        ("  after a wait", count(s.page_coalesced)),
        ("computed", count(s.page_misses)),
        ("refreshed", count(s.page_refreshed)),
    ];
    if s.page_queued + s.page_unqueued > 0 {
        rows.push(("  queued", format!("{}, refused {}", count(s.page_queued), count(s.page_unqueued))));
    }
    rows.push(("bypassed", by_reason(engine, s.page_bypassed, "page_bypassed")));
    rows.push(("not stored", by_reason(engine, s.page_refused, "page_refused")));
    rows.push(("bodies", size(s.page_bytes)));
    let saved = format!("{}.{:03} s", s.page_micros / 1_000_000, s.page_micros / 1000 % 1000);
    rows.push(("time saved", saved));
    Some(rows)
}

/// `7 (5 method, 2 range)`
fn by_reason(engine: &Engine, all: u64, of: &str) -> String {
    let mut reasons: Vec<_> = engine.reasons().filter(|r| r.value > 0 && r.name.starts_with(of)).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.value));
    let named = reasons.iter().map(|r| format!("{} {}", count(r.value), r.reason.unwrap_or(r.name)));
    let named: Vec<_> = named.collect();
    if named.is_empty() { count(all) } else { format!("{} ({})", count(all), named.join(", ")) }
}

fn copies(n: &NearStats, reads: u64) -> Rows {
    let beat = match n.beat_age_ms {
        Some(age) => format!("{} ms", count(age)),
        None if n.untracked => "none: the server refuses to tell of changes, see the log".to_owned(),
        None if n.terms == 0 => "none: nobody keeps the copies up to date".to_owned(),
        None => format!("none for {} ms: reads ask the server", count(n.silence_ms)),
    };
    vec![
        ("beat age", beat),
        ("owner", if n.owner_pid == 0 { "none".to_owned() } else { format!("process {}", n.owner_pid) }),
        ("terms", count(n.terms)),
        ("hits", format!("{} ({} of all reads)", count(n.hits), percent(n.hits, reads))),
        ("misses", count(n.misses)),
        ("known to be absent", count(n.absent)),
        ("bypassed", count(n.bypassed)),
        ("old ones served", count(n.stale_served)),
        ("fills", count(n.fills)),
        ("fills voided", count(n.fills_voided)),
        ("invalidated", count(n.invalidated)),
        ("invalidated absent", count(n.invalidated_absent)),
        ("flushes", count(n.flushes)),
        ("server", if n.is_down { "down: calls fail at once" } else { "up" }.to_owned()),
        ("requests", count(n.requests)),
        ("errors", count(n.errors)),
        ("timeouts", count(n.timeouts)),
        ("connections made", count(n.connects)),
        ("  to another server", count(n.elsewhere)),
    ]
}

fn when_full(engine: &Engine) -> String {
    let config = engine.config();
    match (config.eviction, config.clear_on_full) {
        (Eviction::Lru, _) => "drops the least recently used".to_owned(),
        (Eviction::None, true) => "starts again empty".to_owned(),
        (Eviction::None, false) => "refuses new keys".to_owned(),
        (policy, _) => format!("drops what is not used again ({})", policy.title()),
    }
}

fn object(engine: &Engine, memory: &Memory, by_class: bool) -> Value {
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
    for figure in engine.figures(memory) {
        all[figure.name] = figure.value.into();
    }
    all["memory_sampled"] = memory.sampled.into();
    if by_class {
        all["memory"] = memory::object(memory);
    }
    all["last_unclean"] = stats.last_unclean.into();
    all
}
