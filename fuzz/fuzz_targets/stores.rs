//! Opening a store file: arbitrary bytes, or (an even first byte) a good store with some bytes
//! changed.
#![no_main]

use std::{fs, path::PathBuf, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use ucache::Cache;

/// A directory for this process, and the bytes of a good store.
fn good() -> &'static (PathBuf, Vec<u8>) {
    static GOOD: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory").keep();
        let path = directory.join("good");
        let cache = Cache::builder("fuzz").items(20).store(&path).build().expect("a store");
        for n in 0..10 {
            cache.set(format!("key {n}"), vec![b'v'; n * 30 + 1]).expect("room");
        }
        cache.sync().expect("written");
        drop(cache);
        let bytes = fs::read(&path).expect("a file");
        (directory, bytes)
    })
}

/// Each eight bytes of `changes` are an offset and up to four new bytes there.
fn damaged(store: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = store.to_vec();
    for change in changes.chunks_exact(8) {
        let [a, b, c, d, new @ ..] = *change.first_chunk::<8>().expect("eight");
        // Most of what matters is at the start.
        let span = if a & 1 == 0 { bytes.len().min(8192) } else { bytes.len() };
        let at = u32::from_le_bytes([a, b, c, d]) as usize / 2 % span;
        let len = new.len().min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&new[..len]);
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let (directory, store) = good();
    let path = directory.join("input");
    let bytes = if kind & 1 == 0 { damaged(store, rest) } else { rest.to_vec() };
    fs::write(&path, bytes).expect("space");
    // Whatever the file is: an error, or a cache whose operations end.
    if let Ok(cache) = Cache::attach(&path) {
        for n in 0..10 {
            let _ = cache.get(format!("key {n}"));
        }
        let _ = cache.update("new", "value");
        let _ = cache.delete("key 3");
        let _ = cache.keys().count();
        let _ = cache.clear();
    }
});
