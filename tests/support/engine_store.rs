//! A store file with known content.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use ucache::{
    Error, Result,
    engine::{Config, Engine, Expires, Mode, SetOptions, Store, Stored, Touch},
};

use crate::engine_value::{self, Stamp};

pub(crate) const UPDATE: SetOptions =
    SetOptions { mode: Mode::Update, expires: Expires::Never, keep_ttl: false, ungettable: false };
pub(crate) const ADD: SetOptions = SetOptions { mode: Mode::Add, ..UPDATE };

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

/// The sequence number of `key`; its value must be whole and its own.
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

/// Asserts that an opening was refused, for a reason that holds all of `words`.
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
