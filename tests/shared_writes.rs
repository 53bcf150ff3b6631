//! Number of cache lines of the shared region that each operation writes, and so takes away from
//! other processors. Counted by valgrind from the program's own stores; `--nocapture` shows the
//! table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hint::black_box,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use ucache::{Cache, Stored};

/// Tells the child of this test its role.
const CHILD: &str = "UCACHE_SHARED_WRITES_CHILD";
const LINE: u64 = 64;

/// A store here marks the start or the end of an operation in valgrind's trace.
static MARK: AtomicU64 = AtomicU64::new(0);

/// A name, and its operation.
type Operation = (&'static str, fn(&Cache));

/// The operations counted; each runs often enough to reach its steady state.
const OPERATIONS: [Operation; 8] = [
    ("get, hit", |c| assert!(c.get_into("key 5", &mut [0; 100]).unwrap().is_some())),
    ("get, miss", |c| assert!(c.get_into("no key", &mut [0; 100]).unwrap().is_none())),
    ("contains", |c| assert!(c.contains("key 5") && !c.contains("no key"))),
    ("set, existing key", |c| assert_eq!(c.set("key 5", [7; 100]).unwrap(), Stored::Updated)),
    ("add, refused", |c| assert!(!c.add("key 5", [7; 100]).unwrap())),
    ("incr", |c| assert!(c.incr("number", 1).unwrap() > 0)),
    ("delete", |c| assert!(c.delete("key 6").unwrap())),
    ("add, new key", |c| assert!(c.add("key 6", [7; 100]).unwrap())),
];

#[allow(clippy::disallowed_macros, reason = "tells its parent")]
/// Prints the addresses of the region and the mark, then runs every operation between two marks.
fn child() {
    let cache = Cache::builder("traced").items(1000).build().unwrap();
    for n in 0..20 {
        cache.set(format!("key {n}"), [1; 100]).unwrap();
    }
    cache.set("number", 1_i64.to_ne_bytes()).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let shared = maps.lines().filter(|l| l.contains("rw-s") && l.contains("/dev/zero"));
    let ranges = shared.map(|l| l.split(' ').next().unwrap().replace('-', " "));
    println!("region {}", ranges.collect::<Vec<_>>().join(" "));
    println!("mark {:x}", (&raw const MARK).addr());
    // Only the second round counts: the first finds its statistics slot, touches pages, fills
    // caches.
    for round in 0..2 {
        for (n, (_, operation)) in OPERATIONS.iter().enumerate() {
            MARK.store(black_box(round * 100 + n as u64 + 1), Ordering::SeqCst);
            operation(&cache);
            MARK.store(black_box(0), Ordering::SeqCst);
        }
    }
}

/// The lines of the region written by each operation of the second round.
fn traced() -> BTreeMap<&'static str, BTreeSet<u64>> {
    let here = std::env::current_exe().unwrap();
    let trace = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes"])
        .arg(format!("--log-file={}", trace.path().display()))
        .arg(here)
        .args(["--exact", "each_operation_writes_few_shared_lines", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("valgrind (apt-get install valgrind)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let hex = |s: &str| u64::from_str_radix(s, 16).unwrap();
    let told = |what: &str| -> Vec<u64> {
        let line = said.lines().find_map(|l| l.split_once(what).map(|(_, rest)| rest)).expect(what);
        line.split_whitespace().map(hex).collect()
    };
    let (region, mark) = (told("region "), told("mark ")[0]);
    let is_shared = |at: u64| region.chunks(2).any(|r| r[0] <= at && at < r[1]);
    let mut written = BTreeMap::new();
    let (mut marks, mut lines) = (0, BTreeSet::new());
    let text = fs::read_to_string(trace.path()).unwrap();
    // " S address,size" is a store, " M" a load and store.
    for access in text.lines().filter_map(|l| l.strip_prefix(" S ").or_else(|| l.strip_prefix(" M "))) {
        let Some((at, size)) = access.split_once(',') else { continue };
        let (at, size) = (hex(at), size.trim().parse::<u64>().unwrap());
        if at == mark {
            marks += 1;
            let (round, n) = ((marks - 1) / 2 / OPERATIONS.len(), (marks - 1) / 2 % OPERATIONS.len());
            if marks % 2 == 0 && round == 1 {
                written.insert(OPERATIONS[n].0, std::mem::take(&mut lines));
            }
            lines.clear();
        } else if is_shared(at) {
            lines.extend((at / LINE..=(at + size - 1) / LINE).map(|line| line * LINE));
        }
    }
    assert_eq!(marks, OPERATIONS.len() * 4, "every operation was seen");
    written
}

#[test]
#[allow(clippy::disallowed_macros, reason = "shows its figures with --nocapture")]
fn each_operation_writes_few_shared_lines() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let written = traced();
    println!("shared cache lines written, the thread's own statistics included:");
    for (operation, lines) in &written {
        println!("  {operation:14} {}", lines.len());
    }
    // A reader writes its thread's own counters, and nothing else that others read.
    assert_eq!(written["contains"].len(), 0);
    assert_eq!(written["get, hit"].len(), 1);
    assert_eq!(written["get, hit"], written["get, miss"], "one line, the thread's own");
    let own = &written["get, hit"];
    for (operation, most) in
        [("add, refused", 1), ("incr", 1), ("set, existing key", 9), ("delete", 12), ("add, new key", 12)]
    {
        let others: Vec<_> = written[operation].difference(own).collect();
        assert!(others.len() <= most, "{operation} writes {} lines: {others:x?}", others.len());
    }
}
