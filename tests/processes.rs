//! Several processes in one cache: no torn, foreign or stale value, no lost update.
//!
//! `UCACHE_TORTURE_SECS=600` runs the mixed loads for ten minutes in total,
//! `UCACHE_TORTURE_WORKERS=4` with 4 processes only; the results are always printed.

#[path = "support/engine_audit.rs"]
mod engine_audit;
#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_rig.rs"]
mod engine_rig;
#[path = "support/engine_shared.rs"]
mod engine_shared;
#[path = "support/engine_times.rs"]
mod engine_times;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/engine_worker.rs"]
mod engine_worker;
#[path = "support/patience.rs"]
mod patience;

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use engine_proc::{Scratch, alone, in_children, say};
use engine_rig::{ADD, Load, Rig, Tally, UPDATE};
use engine_value::Bytes;
use patience::within;
use ucache::engine::{
    Blocks, Config, Engine, Eviction, Expires, Fill, Math, SetOptions, Store, Stored, Touch,
};

const LOADS: u32 = 6;

fn setting(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Numbers of processes, one after the other.
fn worker_counts() -> Vec<usize> {
    setting("UCACHE_TORTURE_WORKERS").map_or_else(|| vec![2, 4, 8], |n| vec![n as usize])
}

/// Duration of one load with one number of processes.
fn share_of_time() -> Duration {
    setting("UCACHE_TORTURE_SECS").map_or(Duration::from_millis(350), |secs| {
        Duration::from_secs(secs.into()) / (LOADS * worker_counts().len() as u32)
    })
}

/// Runs the load with 2, 4 and 8 processes, then audits the cache.
fn torture(load: impl Fn(usize) -> Load) {
    let _alone = alone();
    for workers in worker_counts() {
        let rig = Rig::new(load(workers));
        let mut children: Vec<_> = (0..workers).map(|worker| rig.start(worker, 0)).collect();
        let (start, mut last, mut moved) = (Instant::now(), 0, Instant::now());
        while start.elapsed() < share_of_time() {
            std::thread::sleep(Duration::from_millis(10));
            let ops = rig.sum(Tally::Ops);
            if ops > last {
                (last, moved) = (ops, Instant::now());
            }
            assert!(moved.elapsed() < engine_proc::HANG, "nothing moves: {}", rig.report());
            assert!(children.iter_mut().all(|child| child.try_end().is_none()), "a worker died");
        }
        rig.stop();
        children.into_iter().for_each(engine_proc::Child::join);
        assert!(rig.sum(Tally::Ops) > 1000, "too little was done to say anything: {}", rig.report());
        engine_audit::audit(&rig, false);
    }
}

#[test]
fn plain() {
    torture(|workers| Load::new("plain", workers));
}

#[test]
fn many_shards() {
    torture(|workers| {
        let mut load = Load { shared: 6000, max_len: 4096, ..Load::new("shards", workers) };
        load.config.capacity = load.keys();
        load
    });
}

#[test]
fn exact_lru() {
    torture(|workers| {
        let mut load = Load { may_miss: true, ..Load::new("lru", workers) };
        load.config.capacity = load.keys() / 2;
        load.config.eviction = Eviction::Lru;
        load
    });
}

#[test]
fn sampled_lru() {
    torture(|workers| {
        let mut load = Load { may_miss: true, shared: 8000, max_len: 4096, ..Load::new("sampled", workers) };
        load.config.capacity = 5000;
        load.config.eviction = Eviction::Lru;
        load
    });
}

#[test]
fn counted_blocks() {
    torture(|workers| {
        let mut load = Load::new("blocks", workers);
        load.max_len = 20_000;
        // Enough for an old and a new value of every key.
        load.config.blocks = Some(Blocks { size: 1024, count: load.keys() * 40 });
        load
    });
}

#[test]
fn counted_blocks_lru_and_clears() {
    torture(|workers| {
        let mut load =
            Load { may_miss: true, clears: true, max_len: 20_000, ..Load::new("blocks-lru", workers) };
        load.config.eviction = Eviction::Lru;
        load.config.blocks = Some(Blocks { size: 1000, count: load.keys() * 2 });
        load
    });
}

/// All processes change the same hot number and some others, between stores that move memory.
fn count_together(config: &Config) {
    const EACH: u64 = 20_000;
    let engine = Engine::create(config).expect("a cache");
    for workers in worker_counts() {
        let keep = SetOptions { keep_ttl: true, ..UPDATE };
        in_children(workers, |worker| {
            let mut last = i64::MIN;
            for n in 0..EACH {
                let now = engine.math(b"hot", Math::Inc, 1, &keep).expect("math");
                assert!(now > last, "process {worker}: {now} after {last}");
                last = now;
                engine.math(format!("cold {}", n % 7).as_bytes(), Math::Dec, 3, &keep).expect("math");
                if n % 50 == 0 {
                    engine.set(format!("other {}", n % 13).as_bytes(), &vec![1; 300], &UPDATE).expect("set");
                }
            }
        });
        let read = |key: &[u8]| {
            let (_, value) = engine_value::get(&engine, key, Touch::No).expect("get").expect("a counter");
            i64::from_le_bytes(value.try_into().expect("8 bytes"))
        };
        let all = i64::try_from(u64::try_from(workers).expect("few") * EACH).expect("small");
        assert_eq!(read(b"hot"), all, "{workers} processes");
        let cold: i64 = (0..7).map(|n| read(format!("cold {n}").as_bytes())).sum();
        assert_eq!(cold, -3 * all, "{workers} processes");
        engine.clear().expect("clear");
    }
}

#[test]
fn increments_are_never_lost() {
    let _alone = alone();
    count_together(&Config::new("counters", 100));
}

#[test]
fn increments_are_never_lost_in_a_store_file() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config::new("counters", 100);
    config.store = Some(Store { path: dir.path().join("store"), delete_unusable: false });
    count_together(&config);
}

/// Of all processes that add, or delete, the same key, exactly one succeeds.
#[test]
fn add_and_delete_succeed_once() {
    let _alone = alone();
    const KEYS: u32 = 5000;
    for capacity in [u64::from(KEYS), 60_000] {
        let engine = Engine::create(&Config::new("once", capacity)).expect("a cache");
        let wins = Scratch::new(2);
        in_children(4, |worker| {
            for key in 0..KEYS {
                match engine.set(&key.to_le_bytes(), &[1; 20], &ADD).expect("set") {
                    Stored::Inserted => drop(wins[0].fetch_add(1, SeqCst)),
                    Stored::Kept => {}
                    Stored::Updated => panic!("process {worker}: an add that updates"),
                }
            }
        });
        assert_eq!(wins[0].load(SeqCst), u64::from(KEYS), "adds");
        in_children(4, |_| {
            for key in 0..KEYS {
                let won = engine.delete(&key.to_le_bytes()).expect("delete");
                wins[1].fetch_add(u64::from(won), SeqCst);
            }
        });
        assert_eq!(wins[1].load(SeqCst), u64::from(KEYS), "deletes");
        assert_eq!(engine.stats().items, 0);
    }
}

/// Of all processes that miss a key, one fills it and the others get its value.
#[test]
fn one_process_fills_and_the_others_wait() {
    let _alone = alone();
    const ROUNDS: u32 = 100;
    let engine = Engine::create(&Config::new("fill", 1000)).expect("a cache");
    let fills = Scratch::new(1);
    let long = Duration::from_secs(50);
    in_children(8, |worker| {
        for round in 0..ROUNDS {
            let key = format!("page {round}");
            let mut sink = Bytes::default();
            match engine.begin_fill(key.as_bytes(), long, long, &mut sink).expect("begin_fill") {
                Fill::Filler(token) => {
                    fills[0].fetch_add(1, SeqCst);
                    // Long enough for the others to arrive and wait.
                    std::thread::sleep(Duration::from_millis(1));
                    let value = format!("content {round}");
                    let done = engine.end_fill(key.as_bytes(), token, value.as_bytes(), Expires::Never);
                    assert_eq!(done.expect("end_fill"), Stored::Inserted, "process {worker}");
                }
                Fill::Hit(_) => assert_eq!(sink.0, format!("content {round}").as_bytes(), "process {worker}"),
                Fill::TimedOut => panic!("process {worker} waited in vain for {key}"),
            }
        }
    });
    assert_eq!(fills[0].load(SeqCst), u64::from(ROUNDS), "each key is filled once");
}

/// An item removed by a clear is a miss for all processes from then on, and one stored after it is
/// not.
#[test]
fn clear_is_one_step_for_all_processes() {
    let _alone = alone();
    let engine = Engine::create(&Config::new("clear", 20_000)).expect("a cache");
    let round = Scratch::new(2);
    let rounds = 200;
    let reader = engine_proc::Child::fork(|| {
        for now in 1..=rounds {
            within("the clear", || round[0].load(SeqCst) >= now);
            for key in 0..50_u32 {
                let found = engine_value::get(&engine, &key.to_le_bytes(), Touch::Yes).expect("get");
                assert!(found.is_none(), "round {now}: key {key} survived the clear");
            }
            let new = engine_value::get(&engine, b"new", Touch::Yes).expect("get").expect("stored after it");
            assert_eq!(new.1, now.to_le_bytes(), "round {now}");
            round[1].store(now, SeqCst);
        }
    });
    for now in 1..=rounds {
        for key in 0..50_u32 {
            engine.set(&key.to_le_bytes(), &now.to_le_bytes(), &UPDATE).expect("set");
        }
        engine.clear().expect("clear");
        engine.set(b"new", &now.to_le_bytes(), &UPDATE).expect("set");
        assert_eq!(engine.stats().items, 1, "round {now}");
        round[0].store(now, SeqCst);
        within("the reader", || round[1].load(SeqCst) >= now);
    }
    reader.join();
}

/// Exact hits and misses, though every process counts separately and many start and end.
#[test]
fn hits_and_misses_are_exact_over_many_processes() {
    let _alone = alone();
    let engine = Engine::create(&Config::new("counts", 100)).expect("a cache");
    engine.set(b"there", b"x", &UPDATE).expect("set");
    const EACH: u64 = 5000;
    for round in 1..=30_u64 {
        in_children(4, |_| {
            for n in 0..EACH {
                let key: &[u8] = if n % 5 == 0 { b"not there" } else { b"there" };
                assert_eq!(engine_value::get(&engine, key, Touch::Yes).expect("get").is_some(), n % 5 != 0);
            }
        });
        let stats = engine.stats();
        let all = round * 4 * EACH;
        assert_eq!((stats.hits, stats.misses), (all / 5 * 4, all / 5), "round {round}");
    }
    say(&format!("counts: {} processes in all", 30 * 4));
}

/// A cache of one to three values of maximum length, replaced by concurrent writers: each has space
/// for the new one beside the old.
#[test]
fn a_few_large_values_are_always_replaced() {
    let _alone = alone();
    const LARGEST: usize = 20_000_000;
    for (capacity, eviction) in
        [(1, Eviction::None), (1, Eviction::Lru), (2, Eviction::None), (3, Eviction::None)]
    {
        let mut config = Config::new("a few", capacity);
        (config.max_value, config.eviction) = (LARGEST as u64, eviction);
        let engine = Engine::create(&config).expect("a cache");
        in_children(2, |worker| {
            let mut rng = fastrand::Rng::with_seed(worker as u64);
            let value = vec![b'x'; LARGEST];
            for round in 0..15 {
                let key = rng.u64(0..capacity).to_le_bytes();
                let len = if round % 2 == 0 { LARGEST } else { rng.usize(LARGEST / 2..LARGEST) };
                engine.set(&key, &value[..len], &UPDATE).expect("there is room");
            }
        });
    }
}
