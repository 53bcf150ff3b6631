//! A process with the memory mapped writes random words into the data area while others work.
//! Values may be wrong then; but no process crashes, hangs, or accesses memory outside the region.

use std::sync::atomic::Ordering::SeqCst;

use fastrand::Rng;
use ucache::engine::{Config, Engine, Eviction, Expires, Math, SetOptions, Touch};

use crate::{
    engine_image::{PAGE, Window},
    engine_proc::{Child, Scratch, alone, say},
    engine_value,
    patience::within,
};

const UPDATE: SetOptions = SetOptions::set(Expires::Never);
const KEYS: u32 = 600;
const WORKERS: usize = 4;

fn writes() -> u64 {
    std::env::var("UCACHE_SCRIBBLES").map_or(1_000_000, |text| {
        text.parse().unwrap_or_else(|_| panic!("UCACHE_SCRIBBLES={text} is not a number"))
    })
}

/// One operation of any kind, whose answer may be anything.
fn work(engine: &Engine, rng: &mut Rng) {
    let key = rng.u32(0..KEYS).to_le_bytes();
    let lens = [8, 30, 100, 900, 5000, 40_000];
    match rng.u8(0..12) {
        0..4 => drop(engine_value::get(engine, &key, Touch::Yes)),
        4..7 => drop(engine.set(&key, &vec![7; lens[rng.usize(0..lens.len())]], &UPDATE)),
        7 => drop(engine.delete(&key)),
        8 if rng.bool() => drop(engine.get_counted(&key, &mut engine_value::Bytes::default())),
        8 => drop(engine.math(&key, Math::Inc, 1, &UPDATE)),
        9 => drop(engine.exists(&key).map(|id| engine.delete_id(id))),
        10 if rng.u8(0..20) == 0 => drop(engine_value::all_items(engine)),
        11 if rng.u8(0..40) == 0 => drop(engine.clear().and_then(|()| engine.sweep())),
        _ => {
            let _ = engine.exists(&key);
        }
    }
}

/// First page of the data: no value is before it.
fn data(window: &Window) -> usize {
    let mark = [0xa5_u8; 64];
    let holds = |page: &usize| window.take(&[*page]).windows(64).any(|bytes| bytes == mark);
    let first = window.used().into_iter().find(holds).expect("the values are somewhere");
    first / 16 * 16
}

fn scribbled(eviction: Eviction) {
    let mut config = Config::new("scribbled", 1500);
    config.eviction = eviction;
    let (engine, window) = Window::around(|| Engine::create(&config).expect("a cache"));
    for key in 0..KEYS {
        engine.set(&key.to_le_bytes(), &[0xa5; 200], &UPDATE).expect("set");
    }
    let first = data(&window);
    let words = Scratch::new(WORKERS + 1);
    let mut workers: Vec<Child> = (0..WORKERS)
        .map(|worker| {
            Child::fork(|| {
                let mut rng = Rng::new();
                while words[WORKERS].load(SeqCst) == 0 {
                    work(&engine, &mut rng);
                    words[worker].fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let mut rng = Rng::new();
    let mut done = 0;
    while done < writes() / 2 {
        let pages: Vec<usize> = window.used().into_iter().filter(|&page| page >= first).collect();
        // Right after a clear there may be none.
        for _ in 0..if pages.is_empty() { 0 } else { 10_000 } {
            let page = pages[rng.usize(0..pages.len())];
            // Random words, and words like those present: small numbers, lengths, links.
            let word = match rng.u8(0..4) {
                0 => rng.u64(0..1 << 16),
                1 => rng.u64(0..1 << 32) | rng.u64(0..64) << 32,
                _ => rng.u64(..),
            };
            window.scribble(page, rng.usize(0..PAGE / 8), word);
            done += 1;
        }
        let before: Vec<u64> = (0..WORKERS).map(|w| words[w].load(SeqCst)).collect();
        for (number, worker) in workers.iter_mut().enumerate() {
            let ended = worker.try_end();
            assert!(ended.is_none(), "worker {number} ended after {done} words: {ended:?}");
        }
        within("all workers to do something", || (0..WORKERS).all(|w| words[w].load(SeqCst) > before[w]));
    }
    words[WORKERS].store(1, SeqCst);
    workers.into_iter().for_each(Child::join);
    let all: u64 = (0..WORKERS).map(|w| words[w].load(SeqCst)).sum();
    // After the writes end, a clear makes the cache fully usable for new items.
    engine.clear().expect("clear");
    engine.sweep().expect("sweep");
    say(&format!(
        "{done} words scribbled over the data of {WORKERS} workers: {all} operations, no crash, no hang"
    ));
}

#[test]
fn a_scribbling_neighbour_crashes_nobody() {
    let _alone = alone();
    scribbled(Eviction::None);
    scribbled(Eviction::Lru);
}

/// The links of free blocks lie among the data, which others can write: each of them names a block
/// outside the region.
#[test]
fn scribbling_over_the_links_of_free_blocks_costs_space_only() {
    const LEN: usize = 2000;
    const FAR: u16 = u16::MAX;
    let _alone = alone();
    let mut config = Config::new("links", 1500);
    config.max_value = LEN as u64;
    let (engine, window) = Window::around(|| Engine::create(&config).expect("a cache"));
    assert!(engine.stats().reserved < u64::from(FAR) * LEN as u64, "the link leads out of it");
    for key in 0..KEYS {
        engine.set(&key.to_le_bytes(), &[0xa5; LEN], &UPDATE).expect("set");
    }
    let first = data(&window);
    // Every second one: a span without any items would be released as a whole.
    for key in (0..KEYS).step_by(2) {
        assert!(engine.delete(&key.to_le_bytes()).expect("delete"));
    }
    for page in window.used().into_iter().filter(|&page| page >= first) {
        (0..PAGE / 8).for_each(|word| window.scribble(page, word, u64::from(FAR)));
    }
    for key in KEYS..KEYS * 2 {
        engine.set(&key.to_le_bytes(), &[9; LEN], &UPDATE).expect("there is room elsewhere");
    }
    for key in KEYS..KEYS * 2 {
        let found = engine_value::get(&engine, &key.to_le_bytes(), Touch::No).expect("get");
        assert_eq!(found.map(|(_, value)| value), Some(vec![9; LEN]), "key {key}");
    }
}
