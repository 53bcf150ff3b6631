//! What caches take for what they hold, over histories: every contender replays the same steps.

use serde_json::{Value, json};

use crate::{
    Effort,
    contenders::Contender,
    histories::{History, Plan, Reply},
    host::Rig,
    report::{Report, Table},
};

/// Sizes of ucache's caches with 1, 16 and 256 shards. The others replay the largest.
const ITEMS: [u32; 3] = [4_000, 8_192, 131_072];
const MIB: f64 = 1048576.0;

/// The goal of a history: so many times the payload, and so many bytes.
fn goal(history: History, items: u32) -> (f64, f64) {
    match (history, items) {
        (History::Fixed, 1_000_000..) => (1.30, 0.0),
        (History::Fixed, 50_000) => (1.45, 0.0),
        (History::Kilobyte, 131_072..) => (1.05, 0.0),
        _ => (1.6, MIB),
    }
}

/// A line of the table, in text and in figures.
fn line(
    contender: Contender,
    history: History,
    items: u32,
    plan: &Plan,
    reply: &Reply,
) -> (Vec<String>, Value) {
    let (payload, resident, disk) = (reply.payload() as f64, reply.resident as f64, reply.disk as f64);
    let (refused, evicted) = (reply.refusals(), reply.evicted(plan));
    let is_ours = matches!(contender, Contender::Ucache { .. });
    let (times, bytes) = goal(history, items);
    let met = resident.max(disk) <= payload * times + bytes && refused + evicted == 0;
    let verdict = || {
        let more = if bytes > 0.0 { " + 1 MiB" } else { "" };
        format!("<= {times:.2}x{more} {}", if met { "met" } else { "MISSED" })
    };
    let name = format!("{history:?}").to_lowercase();
    let size = |bytes: f64| if bytes == 0.0 { String::new() } else { format!("{:.2}x", bytes / payload) };
    let count = |n: usize| if n == 0 { String::new() } else { n.to_string() };
    let cells = vec![
        format!("{name}, {items}"),
        contender.name().to_owned(),
        format!("{:.1} MiB", payload / MIB),
        format!("{:.1} MiB", resident / MIB),
        size(resident),
        size(disk),
        count(refused),
        count(evicted),
        if is_ours { verdict() } else { String::new() },
    ];
    let figures = json!({
        "history": name, "items": items, "whose": contender.name(), "payload": reply.payload(),
        "resident": reply.resident, "disk": reply.disk, "refused": refused, "evicted": evicted,
        "goal_met": is_ours.then_some(met),
    });
    (cells, figures)
}

/// Replays a history by these contenders.
fn history(rig: &Rig, table: &mut Table, history: History, items: u32, contenders: &[Contender]) {
    let plan = history.plan(items);
    for &contender in contenders {
        let reply = contender.replay(rig, history, items, &plan);
        let (cells, figures) = line(contender, history, items, &plan, &reply);
        println!("{}", cells.join(" | "));
        table.rows.push(cells);
        table.figures.push(figures);
    }
}

pub(crate) fn run(rig: &Rig, effort: Effort, report: &mut Report) {
    let head = [
        "history, items",
        "whose",
        "payload",
        "resident",
        "of payload",
        "disk, of payload",
        "refused",
        "evicted in vain",
        "goal",
    ];
    let mut table = Table::new(&head);
    let ours = [Contender::Ucache { stored: false }, Contender::Ucache { stored: true }];
    let everyone = [ours.as_slice(), &Contender::PEERS].concat();
    if effort.quick {
        history(rig, &mut table, History::Fixed, 50_000, &everyone);
        history(rig, &mut table, History::Wandering, ITEMS[1], &everyone);
    } else {
        history(rig, &mut table, History::Fixed, 1_000_000, &everyone);
        history(rig, &mut table, History::Fixed, 50_000, &everyone);
        for each in History::ALL {
            for items in ITEMS {
                let largest = items == ITEMS[2];
                history(rig, &mut table, each, items, if largest { &everyone } else { &ours });
            }
        }
    }
    report.table(table);
    report.note(
        "Histories: `benches/support/histories.rs`; the number is the cache's limit of items, and no history ever \
         holds more. 4000 items are one shard in ucache (exact LRU), 8192 are 16, 50,000 are 128, 131,072 or more are 256. \
         Payload: keys of 16 bytes and values, of the items that are there in the end; resident: shared memory of a \
         process (ucache, LMDB, APCu), of the server (native), or what the server's process grew by (memcached, \
         Redis), after one sweep (ucache), two seconds (native) or when it has stayed the same for two \
         seconds (memcached) or twelve (Redis, whose allocator keeps free pages for ten). memcached, Redis, LMDB, APCu and native with bitmap=1 may use four times the most that the history \
         holds and 16 MiB, so that whatever they refuse or evict, they do in vain. Stores and LMDB lie on a tmpfs. \
         Redis with activedefrag is 8.2, from 1 MB and 5 % on: Debian's cannot.",
    );
}
