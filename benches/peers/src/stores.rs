//! The caches that live in a process or in memory shared by processes, each behind [`Store`].

use std::{hint::black_box, path::Path, sync::Arc};

use heed::{Database, Env, EnvFlags, EnvOpenOptions, types::Bytes};
use ucache::{Builder, Cache, Expires};

use crate::{floor::Floor, load::Store};

/// ucache through its Rust interface: copies out of shared memory.
impl Store for Cache {
    fn get(&mut self, key: &[u8; 16], out: &mut [u8; 100]) -> bool {
        let found = self.get_into(key, out).expect("get_into") == Some(100);
        black_box(out);
        found
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        Self::set(self, key, value).expect("set");
    }
}

/// Builds a cache for the keys and values of the load. As in the others, no item expires.
pub(crate) fn builder(name: &str, items: u64) -> Builder {
    Cache::builder(name).items(items).max_key_bytes(64).max_value_bytes(256).timeout(Expires::Never)
}

/// A cache for `count` keys, and half as many again.
pub(crate) fn ucache(count: u32) -> Cache {
    builder(&format!("peers-{count}"), u64::from(count) * 3 / 2).build().expect("a cache")
}

/// The bare loop: what the memory takes.
impl Store for &Floor {
    fn get(&mut self, key: &[u8; 16], out: &mut [u8; 100]) -> bool {
        let found = Floor::get(self, key, out);
        black_box(out);
        found
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        assert!(self.update(key, value));
    }
}

/// In one process only; a value is handed out as a copy.
pub(crate) struct Quick(pub(crate) Arc<quick_cache::sync::Cache<[u8; 16], [u8; 100]>>);

impl Store for Quick {
    fn get(&mut self, key: &[u8; 16], _: &mut [u8; 100]) -> bool {
        black_box(&self.0.get(key)).is_some()
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        self.0.insert(*key, *value);
    }
}

/// In one process only.
pub(crate) struct Moka(pub(crate) moka::sync::Cache<[u8; 16], [u8; 100]>);

impl Store for Moka {
    fn get(&mut self, key: &[u8; 16], _: &mut [u8; 100]) -> bool {
        black_box(&self.0.get(key)).is_some()
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        self.0.insert(*key, *value);
    }
}

/// LMDB in memory (`/dev/shm`), without syncing: a transaction for each operation, as a cache would
/// be used.
pub(crate) struct Lmdb {
    env: Env,
    database: Database<Bytes, Bytes>,
}

/// The environment in `folder` on a tmpfs, of at most so many bytes, and its database.
pub(crate) fn lmdb_environment(folder: &Path, limit: u64) -> (Env, Database<Bytes, Bytes>) {
    let mut options = EnvOpenOptions::new();
    options.map_size(usize::try_from(limit).expect("64 bits"));
    // SAFETY: the folder is this run's own; nothing but LMDB changes its files, and they are on a
    // tmpfs, where what the flags give up (durability after a crash of the machine) means nothing.
    let env = unsafe {
        options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP | EnvFlags::NO_META_SYNC).open(folder)
    };
    let env = env.expect("LMDB opens");
    let mut write = env.write_txn().expect("a transaction");
    let database = env.create_database(&mut write, None).expect("a database");
    write.commit().expect("commit");
    (env, database)
}

impl Lmdb {
    /// Opens the environment in `folder`; each process opens its own.
    pub(crate) fn open(folder: &Path) -> Self {
        let (env, database) = lmdb_environment(folder, 4 << 30);
        Self { env, database }
    }

    /// Stores all keys in one transaction.
    pub(crate) fn fill(&self, keys: &[[u8; 16]]) {
        let mut write = self.env.write_txn().expect("a transaction");
        for key in keys {
            self.database.put(&mut write, key, &[b'v'; 100]).expect("put");
        }
        write.commit().expect("commit");
    }
}

impl Store for Lmdb {
    fn get(&mut self, key: &[u8; 16], out: &mut [u8; 100]) -> bool {
        let read = self.env.read_txn().expect("a transaction");
        let value = self.database.get(&read, key).expect("get");
        value.is_some_and(|value| {
            out.copy_from_slice(value);
            black_box(out);
            true
        })
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        let mut write = self.env.write_txn().expect("a transaction");
        self.database.put(&mut write, key, value).expect("put");
        write.commit().expect("commit");
    }
}
