//! What an item costs: resident shared memory of a real uWSGI with its own cache and with ucache,
//! master and worker together, each page once.

use crate::{
    Effort,
    host::{BOTH, Flavor, Rig},
    matrix,
    report::Report,
    row::{Goal, Row, Unit},
};

/// One shape of items and of the cache that holds them.
struct Shape {
    name: &'static str,
    limits: &'static str,
    key: u32,
    value: u32,
    items: u32,
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "16 + 100, tight limits",
        limits: "blocksize=128,keysize=16",
        key: 16,
        value: 100,
        items: 1_000_000,
    },
    Shape {
        name: "16 + 1000, tight limits",
        limits: "blocksize=1024,keysize=16",
        key: 16,
        value: 1000,
        items: 300_000,
    },
    Shape {
        name: "30 + 64, tight limits",
        limits: "blocksize=64,keysize=32",
        key: 30,
        value: 64,
        items: 1_000_000,
    },
    Shape { name: "16 + 100, default limits", limits: "", key: 16, value: 100, items: 100_000 },
    Shape { name: "16 + 1000, default limits", limits: "", key: 16, value: 1000, items: 100_000 },
    Shape { name: "30 + 64, default limits", limits: "", key: 30, value: 64, items: 100_000 },
];

/// Kibibytes: empty, with all items, after deleting them.
fn measure(rig: &Rig, flavor: Flavor, shape: &Shape, items: u32) -> [f64; 3] {
    let lines = format!(
        "processes = 1\ncache-expire-freq = 1\ncache2 = name=bench,items={},{}\n",
        items + 1,
        shape.limits
    )
    .replace(",\n", "\n");
    let environment = [
        ("BENCH_ITEMS", items.to_string()),
        ("BENCH_KEY", shape.key.to_string()),
        ("BENCH_VALUE", shape.value.to_string()),
    ];
    let figures = rig.run(flavor, "memory", &lines, &environment);
    ["empty", "full", "deleted"].map(|when| figures[when][0].wall)
}

/// Memory of both sides in every state, and what an item adds to an empty cache.
fn shape(rig: &Rig, shape: &Shape, effort: Effort, report: &mut Report) {
    let items = if effort.quick { 50_000 } else { shape.items };
    let [native, ours] = BOTH.map(|flavor| measure(rig, flavor, shape, items));
    let each = |kib: [f64; 3]| kib[1] * 1024.0 / f64::from(items);
    let payload = f64::from(shape.key + shape.value);
    let row = |name: String, peer, unit, goal, ours: f64, theirs: f64| {
        Row::new(name, peer, unit, vec![ours], vec![theirs]).with(goal)
    };
    let name = format!("an item of {} ({}k of them)", shape.name, items / 1000);
    let most = if items == 1_000_000 && shape.value == 100 { Goal::Most(payload * 1.4) } else { Goal::None };
    report.add(row(name.clone(), "native", Unit::Bytes, most, each(ours), each(native)));
    report.add(row(name, "payload", Unit::Bytes, Goal::None, each(ours), payload));
    for (at, state) in [(0, "empty"), (2, "all deleted")] {
        let name = format!("{state}: {}", shape.name);
        let mib = |kib: [f64; 3]| kib[at] / 1024.0;
        report.add(row(name, "native", Unit::Mib, Goal::None, mib(ours), mib(native)));
    }
}

pub(crate) fn run(effort: Effort) -> Report {
    let rig = Rig::new();
    let mut report = Report::new("memory", false, 1);
    for each in &SHAPES {
        shape(&rig, each, effort, &mut report);
    }
    report.note(
        "Resident shared memory of the whole server, the cache's index, headers and rounding included (and some 100 \
         KiB that are uWSGI's own). A cache is filled to its limit; default limits are keysize 2048, blocksize 65536.",
    );
    matrix::run(&rig, effort, &mut report);
    report
}
