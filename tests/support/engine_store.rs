//! A store file with known content.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use ucache::{
    Error, Result,
    engine::{Config, Engine, Expires, SetOptions, Store, Stored, Touch},
};

use crate::{
    engine_proc::{Child, HANG, Scratch},
    engine_value::{self, Stamp},
};

pub(crate) const UPDATE: SetOptions = SetOptions::set(Expires::Never);
pub(crate) const ADD: SetOptions = SetOptions::add(Expires::Never);

pub(crate) const KEYS: u32 = 300;

pub(crate) fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    (dir, path)
}

pub(crate) fn config(path: &Path) -> Config {
    let mut config = Config::new("stored", 2000);
    config.max_value = 200_000;
    config.store = Some(Store { path: path.to_owned(), delete_unusable: false });
    config
}

pub(crate) fn len(key: u32) -> usize {
    if key % 100 == 99 { 150_000 } else { 16 + usize::try_from(key).expect("small") * 7 }
}

pub(crate) fn put(engine: &Engine, key: u32, seq: u32) -> Result<Stored> {
    let (mut name, mut value) = (Vec::new(), Vec::new());
    engine_value::key_bytes(key, &mut name);
    engine_value::write(Stamp { key, writer: 1, seq }, len(key), &mut value);
    engine.set(&name, &value, &UPDATE)
}

/// The sequence number of `key`; asserts that its value is whole and belongs to the key.
pub(crate) fn seq(engine: &Engine, key: u32) -> Option<u32> {
    let mut name = Vec::new();
    engine_value::key_bytes(key, &mut name);
    let (_, value) = engine_value::get(engine, &name, Touch::No).expect("get")?;
    Some(engine_value::read(key, &value).unwrap_or_else(|fault| panic!("key {key}: {fault:?}")).seq)
}

pub(crate) fn fill(engine: &Engine, seq: u32) {
    for key in 0..KEYS {
        put(engine, key, seq).expect("set");
    }
}

pub(crate) fn assert_filled(engine: &Engine, with: u32) {
    for key in 0..KEYS {
        assert_eq!(seq(engine, key), Some(with), "key {key}");
    }
}

/// Asserts that an opening was refused with a reason that contains all of `words`.
pub(crate) fn refused(result: Result<Arc<Engine>>, words: &[&str]) {
    match result {
        Err(error @ Error::Store { .. }) => {
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word), "{text:?} does not say {word:?}");
            }
        }
        other => panic!("should be refused: {other:?}"),
    }
}

/// Counters shared by all processes of a run.
#[derive(Debug)]
pub(crate) struct Tally(Scratch);

impl Tally {
    pub(crate) fn add(&self, what: usize, by: usize) {
        self.0[2 + what].fetch_add(by as u64, Relaxed);
    }

    pub(crate) fn get(&self, what: usize) -> u64 {
        self.0[2 + what].load(Relaxed)
    }
}

/// A number of rounds: `short` in `make test`, another number if the environment says so.
pub(crate) fn rounds(variable: &str, short: usize) -> usize {
    std::env::var(variable).map_or(short, |text| text.parse().expect("a number"))
}

/// Runs `each` for all numbers below `count` in two processes, which must neither die nor hang.
pub(crate) fn in_two(
    count: usize,
    setup: impl Fn(usize) -> Copy,
    each: impl Fn(usize, &Copy, &Tally),
) -> Tally {
    let tally = Tally(Scratch::new(12));
    let worker = |half: usize| {
        let (copy, tally, each) = (setup(half), &tally, &each);
        Child::fork(move || {
            for n in (half..count).step_by(2) {
                each(n, &copy, tally);
                tally.0[half].fetch_add(1, Relaxed);
            }
        })
    };
    let mut running: Vec<(usize, Child, u64, Instant)> =
        (0..2).map(|half| (half, worker(half), 0, Instant::now())).collect();
    while !running.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
        running.retain_mut(|(half, child, seen, since)| {
            let now = tally.0[*half].load(Relaxed);
            if now != *seen {
                (*seen, *since) = (now, Instant::now());
            }
            let at = *half as u64 + *seen * 2;
            assert!(since.elapsed() < HANG, "number {at} hangs");
            match child.try_end() {
                Some(end) => {
                    end.unwrap_or_else(|how| panic!("number {at}: {how}"));
                    false
                }
                None => true,
            }
        });
    }
    tally
}

/// A saved store, and a file in memory to damage and open. It is not the file that was written, so
/// that opening it trusts nothing.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// All bytes beyond this are zeros.
    live: usize,
    file: File,
}

impl Copy {
    pub(crate) fn new(dir: &Path, name: usize, bytes: Vec<u8>) -> Self {
        let path = dir.join(format!("copy {name}"));
        fs::write(&path, &bytes).expect("write");
        let file = File::options().read(true).write(true).open(&path).expect("open");
        let live = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1).next_multiple_of(4096);
        let live = live.min(bytes.len());
        Self { path, bytes, live, file }
    }

    /// Restores the file (except free space used meanwhile), then writes `bytes` at `at`.
    pub(crate) fn become_with(&self, at: usize, bytes: &[u8]) {
        self.file.set_len(self.bytes.len() as u64).expect("ftruncate");
        self.file.write_all_at(&self.bytes[..self.live], 0).expect("write");
        self.file.write_all_at(bytes, at as u64).expect("write");
    }

    pub(crate) fn become_all(&self, bytes: &[u8]) {
        self.file.set_len(bytes.len() as u64).expect("ftruncate");
        self.file.write_all_at(bytes, 0).expect("write");
    }

    pub(crate) fn cut(&self, len: usize) {
        self.file.set_len(len as u64).expect("ftruncate");
    }

    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        fs::read(&self.path).expect("read") == bytes
    }
}

/// A directory in memory: thousands of openings should not wait for a disk.
pub(crate) fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a directory in /dev/shm (a tmpfs must be mounted there)")
}
