//! Every key of a `cache2` definition, by each of its names.

use serde_json::Value;

use crate::{
    on_both,
    patience::within,
    server::{Flavor, Server},
};

/// Definitions valid on both; the statistics of each must be the same.
const DEFINITIONS: [&str; 44] = [
    "items=10",
    "max_items=11",
    "maxitems=12",
    "items=10,blocksize=100",
    "items=10,blocks=20",
    "items=10,hash=djb33x",
    "items=10,hash=murmur2",
    "items=10,hash=random",
    "items=10,hash=rand",
    "items=10,hash=rr",
    "items=10,hashsize=17",
    "items=10,hash_size=18",
    "items=10,keysize=19",
    "items=10,key_size=20",
    "items=10,store={dir}/a",
    "items=10,store={dir}/b,store_sync=7",
    "items=10,store={dir}/c,storesync=7",
    "items=10,store={dir}/d,store_delete=1",
    "items=10,store={dir}/e,storedelete=1",
    "items=10,node=127.0.0.1:9",
    "items=10,nodes=127.0.0.1:9;127.0.0.1:10",
    "items=10,udp=127.0.0.1:0",
    "items=10,udp_servers=127.0.0.1:0;127.0.0.1:0",
    "items=10,udp_server=127.0.0.1:0",
    "items=10,udpservers=127.0.0.1:0",
    "items=10,udpserver=127.0.0.1:0",
    "items=10,blocks=15,blocksize=16,bitmap=1",
    "items=10,lastmod=1",
    "items=10,math_initial=-5",
    "items=10,ignore_full=1",
    "items=10,purge_lru=1",
    "items=10,lru=1",
    "items=10,lazy_expire=1",
    "items=10,lazy=1",
    "items=10,sweep_on_full=5",
    "items=10,clear_on_full=1",
    "items=10,no_expire=1",
    // as people write: twice, an empty value, an empty part, a blank before a number, unknown ones
    "items=10,items=21",
    "items=10,lastmod=",
    "items=10,,keysize=22,",
    "items= 23",
    "items=10,keysize=024",
    "items=10,no_such_key=1",
    "items=10,lastmod",
];

#[test]
fn every_key_of_a_definition_gives_the_same_cache() {
    let figures = on_both(|flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lines: String = DEFINITIONS
            .iter()
            .enumerate()
            .map(|(n, text)| format!("cache2 = name=c{n},{text}\n"))
            .collect::<String>()
            .replace("{dir}", &dir.path().display().to_string());
        let server = Server::start(flavor, 1, &lines);
        // stored items are found in each, and a full one behaves as its keys say
        let stored = "[uwsgi.cache_set('k', 'v', 0, f'c{n}') for n in range(44)].count(True)";
        assert_eq!(server.run(1, stored), "44", "{flavor:?}\n{}", server.log());
        let held =
            "[[uwsgi.cache_set(str(k), 'v', 0, f'c{n}') for k in range(25)].count(True) for n in range(44)]";
        let held = server.run(1, held);
        // the statistics are updated in the master's next cycle
        within("live figures", || server.cache_stats("c0")["full"] == 17);
        let counted = |n: &usize| {
            let one = server.cache_stats(&format!("c{n}"));
            ["items", "full", "hits", "miss"].map(|field| one[field].to_string()).join(" ")
        };
        let counted: Vec<_> =
            (0..DEFINITIONS.len()).filter(|n| !(7..10).contains(n)).map(|n| counted(&n)).collect();
        // except for the hashes of D-11
        let number = "[(uwsgi.cache_clear(f'c{n}'), uwsgi.cache_inc('n', 1, 0, f'c{n}'), \
                      uwsgi.cache_num('n', f'c{n}'))[2] for n in range(44) if n not in (7, 8, 9)]";
        let number = server.run(1, number);
        let all: Value = serde_json::from_str(&server.stats()).expect("statistics are JSON");
        let shape = |one: &Value| {
            ["name", "hash", "hashsize", "keysize", "max_items", "blocks", "blocksize"]
                .map(|field| one[field].clone())
        };
        let caches: Vec<_> = all["caches"].as_array().expect("caches are listed").iter().map(shape).collect();
        let files: Vec<_> = "abcde".chars().map(|name| dir.path().join(name.to_string()).exists()).collect();
        (caches, held, number, files, counted)
    });
    let [native, ucache] = figures;
    for (n, (theirs, ours)) in native.0.iter().zip(&ucache.0).enumerate() {
        assert_eq!(theirs, ours, "{}", DEFINITIONS[n]);
    }
    assert_eq!(native.0.len(), DEFINITIONS.len());
    assert_eq!(native.1, ucache.1, "how many items each holds");
    assert_eq!(native.2, ucache.2, "the first number in each");
    assert_eq!(native.4, ucache.4, "items, full, hits, misses");
    assert_eq!((native.3, ucache.3), (vec![true; 5], vec![true; 5]), "stores");
}

#[test]
fn numbers_end_where_they_end() {
    // native reads only the digits: 64 bytes per value
    let rubbish = ["items=10x", "items=10,blocksize=64w", "items=10,keysize=100.5"];
    let lines: String =
        rubbish.iter().enumerate().map(|(n, text)| format!("cache2 = name=c{n},{text}\n")).collect();
    let server = Server::start(Flavor::Native, 1, &lines);
    let figures = [("c0", "max_items"), ("c1", "blocksize"), ("c2", "keysize")]
        .map(|(name, field)| server.cache_stats(name)[field].clone());
    assert_eq!(figures, [10, 64, 100]);
    drop(server);
    for text in rubbish {
        let log = Server::refuse(Flavor::Ucache, &format!("cache2 = name=c,{text}"));
        assert!(log.contains("must be a number from "), "{text}: {log}");
    }
}

/// D-47: native reads the digits only.
#[test]
fn units_are_what_they_say() {
    let line = "cache2 = name=c,items=1k,blocksize=64K,keysize=1KiB,store_sync=5m,hashsize=4k";
    let fields = ["max_items", "blocks", "blocksize", "keysize", "hashsize"];
    let figures = |flavor| {
        let server = Server::start(flavor, 1, line);
        let stats = server.cache_stats("c");
        let longest = server.run(1, "uwsgi.cache_set('k', 'v' * 65536, 0, 'c')");
        (fields.map(|field| stats[field].as_u64().expect("a number")), longest, server.log())
    };
    // A native cache of one item holds none.
    assert_eq!(figures(Flavor::Native).0, [1, 1, 64, 1, 4]);
    let (ours, longest, log) = figures(Flavor::Ucache);
    assert_eq!((ours, longest.as_str()), ([1000, 1000, 65_536, 1024, 4000], "True"));
    for (text, value, digits) in [
        ("items=1k", 1000, 1),
        ("blocksize=64K", 65_536, 64),
        ("keysize=1KiB", 1024, 1),
        ("store_sync=5m", 300, 5),
    ] {
        let said = format!("option {text} is {value} (uWSGI's own cache reads it as {digits})");
        assert_eq!(log.matches(&said).count(), 1, "{said}\n{log}");
    }
}

/// D-47, too: values that native accepts.
#[test]
fn names_and_numbers_that_can_be_no_cache_s() {
    for (definition, why) in [("name=,items=10", "1 to 255 bytes"), ("name=a@b,items=10", "without '@'")] {
        // It starts.
        drop(Server::start(Flavor::Native, 1, &format!("cache2 = {definition}")));
        let log = Server::refuse(Flavor::Ucache, &format!("cache2 = {definition}"));
        assert!(log.contains(why), "{definition}: {log}");
    }
}
