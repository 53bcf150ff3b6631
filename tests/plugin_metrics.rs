//! Cache statistics among uWSGI's metrics, in real uWSGIs: the installed one and 2.0.31.

#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;

use std::fs;

use patience::within;
use server::{Build, Flavor, Server};

/// Waits until a worker reads these values of metrics (the master collects once a second).
fn await_metrics(server: &Server, wanted: &[(&str, i64)]) {
    let list =
        |names: &mut dyn Iterator<Item = String>| format!("[{}]", names.collect::<Vec<_>>().join(", "));
    let source = list(&mut wanted.iter().map(|(name, _)| format!("uwsgi.metric_get('cache.{name}')")));
    let values = list(&mut wanted.iter().map(|(_, value)| value.to_string()));
    let mut seen = String::new();
    let mut tries = 0;
    while seen != values {
        assert!(tries < 300, "{wanted:?}: {seen}\n{}", server.log());
        tries += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
        seen = server.run(2, &source);
    }
}

#[test]
fn every_figure_is_a_metric() {
    for build in [Build::Installed, Build::Pypi] {
        let options = "enable-metrics = true\ncache2 = name=lru,items=11,purge_lru=1,blocksize=16\n\
                       cache2 = name=blocks,items=100,blocks=100,bitmap=1,blocksize=10\n\
                       cache2 = name=a b/c,items=3\n\
                       metric-threshold = key=cache.lru.evicted,value=1000000";
        let server = Server::start_on(build, Flavor::Ucache, 2, options);
        // 15 keys of which 10 fit, 2 values too long, a hit, 2 misses
        server.run(1, "[uwsgi.cache_set(f'k{n}', 'v', 0, 'lru') for n in range(15)]");
        server.run(1, "[uwsgi.cache_set(f'long{n}', 'v' * 17, 0, 'lru') for n in range(2)]");
        server.run(
            1,
            "uwsgi.cache_get('k14', 'lru'), uwsgi.cache_get('k0', 'lru'), uwsgi.cache_get('k1', 'lru')",
        );
        // 90 of 100 blocks; 11 more are refused, twice
        server.run(2, "uwsgi.cache_set('large', 'v' * 900, 0, 'blocks')");
        server.run(2, "[uwsgi.cache_set('more', 'v' * 110, 0, 'blocks') for n in range(2)]");
        // 2 of 2 items, 3 refused
        server.run(1, "[uwsgi.cache_set(str(n), 'v', 0, 'a b/c') for n in range(5)]");
        server.run(1, "uwsgi.cache_del('0', 'a b/c')");
        let wanted = [
            ("lru.items", 10),
            ("lru.capacity", 10),
            ("lru.stored", 15),
            ("lru.evicted", 5),
            ("lru.rejected_limit", 2),
            ("lru.hits", 1),
            ("lru.misses", 2),
            ("lru.dropped_corrupt", 0),
            // k5 to k14
            ("lru.payload_bytes", 35),
            ("lru.disk_bytes", 0),
            ("blocks.payload_bytes", 905),
            ("blocks.items", 1),
            ("blocks.blocks_used", 90),
            ("blocks.rejected_full", 2),
            ("blocks.rejected_blocks", 2),
            ("blocks.no_space", 0),
            ("a_b_c.items", 1),
            ("a_b_c.deleted", 1),
            ("a_b_c.rejected_full", 3),
            ("a_b_c.rejected_blocks", 0),
            ("a_b_c.timeouts", 0),
        ];
        await_metrics(&server, &wanted);
        // the statistics have the same values, with gauges (1) and counters (0)
        let stats: serde_json::Value = serde_json::from_str(&server.stats()).expect("statistics are JSON");
        for (name, value) in wanted {
            assert_eq!(stats["metrics"][format!("cache.{name}")]["value"], value, "{build:?} {name}");
        }
        assert_eq!(stats["metrics"]["cache.lru.items"]["type"], 1);
        assert_eq!(stats["metrics"]["cache.lru.evicted"]["type"], 0);
        assert!(stats["metrics"]["cache.blocks.bytes"]["value"].as_u64() > Some(900), "{stats}");
        assert!(stats["metrics"]["cache.lru.resident_bytes"]["value"].as_u64() > Some(4096), "{stats}");
        assert!(server.log().contains("added threshold for metric cache.lru.evicted"), "{}", server.log());
    }
}

#[test]
fn expirations_and_clears_are_counted() {
    let options = "enable-metrics = true\ncache-expire-freq = 1\ncache2 = name=c,items=100";
    let server = Server::start(Flavor::Ucache, 2, options);
    server.run(1, "[uwsgi.cache_set(str(n), 'v', 1) for n in range(7)], uwsgi.cache_set('kept', 'v')");
    await_metrics(&server, &[("c.expired", 7), ("c.items", 1), ("c.cleared", 0)]);
    server.run(1, "uwsgi.cache_clear()");
    await_metrics(&server, &[("c.items", 0), ("c.cleared", 1)]);
}

/// The values of a server with `metrics-dir`, after `source` and once the files contain `wanted`.
fn in_directory(options: &str, dir: &std::path::Path, source: &str, wanted: &[(&str, &str)]) {
    let options = format!("enable-metrics = true\nmetrics-dir = {}\n{options}", dir.display());
    let server = Server::start(Flavor::Ucache, 1, &options);
    server.run(1, source);
    let read = |name: &str| {
        let text = fs::read_to_string(dir.join(format!("cache.{name}"))).expect("a metric is a file");
        text.trim_end_matches('\0').trim().to_owned()
    };
    within("files of the metrics", || wanted.iter().all(|(name, value)| read(name) == *value));
}

#[test]
fn restored_metrics_go_on_counting_and_gauges_do_not_add_up() {
    let (dir, store) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let longest = "n".repeat(255);
    let caches = format!(
        "cache2 = name=memory,items=100\ncache2 = name=disk,items=100,store={}\ncache2 = name={longest},items=9\n",
        store.path().join("store").display()
    );
    let fill = "[uwsgi.cache_set(k, k, 0, c) for k in ('a', 'b', 'c') for c in ('memory', 'disk')]";
    let first = [("memory.items", "3"), ("memory.stored", "3"), ("disk.items", "3"), ("disk.stored", "3")];
    in_directory(&caches, dir.path(), fill, &first);
    // The store kept its 3 items and its count, memory starts anew: 3 of the last server and 1.
    let restored = format!("metrics-dir-restore = true\n{caches}");
    let more = "[uwsgi.cache_set('d', 'd', 0, c) for c in ('memory', 'disk')]";
    let second = [("memory.items", "1"), ("memory.stored", "4"), ("disk.items", "4"), ("disk.stored", "4")];
    in_directory(&restored, dir.path(), more, &second);
    assert!(dir.path().join(format!("cache.{}.items", "n".repeat(200))).exists());
}

#[test]
fn without_metrics_there_are_none() {
    let server = Server::start(Flavor::Ucache, 1, "cache2 = name=c,items=10");
    assert_eq!(server.run(1, "uwsgi.cache_set('a', 'a'), uwsgi.metric_get('cache.c.items')"), "(True, 0)");
    assert!(!server.stats().contains("cache.c.items"));
}
