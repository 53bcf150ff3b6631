//! What is on disk of a store, before anything of it is mapped.
#![forbid(unsafe_code)]

use std::{path::Path, time::Duration};

use super::{Blocks, Config, Eviction, Store, hash::Secret};
use crate::{
    error::{Error, Result},
    os::{
        file::{self, StoreFile},
        mutex::MUTEX_SIZE,
    },
    shm::layout::{Geometry, Layout, header},
};

/// "ucache" and a byte that tells the byte order.
pub(super) const MAGIC: u64 = 0x0165_6863_6163_7575;
pub(super) const VERSION: u64 = 1;
/// State of a region that is being made.
pub(super) const INIT: u64 = 1;
/// State of a region that can be used.
pub(super) const READY: u64 = 2;

/// Checksum of the header's words that never change after a store was made.
pub(super) fn sum(word: impl Fn(u64) -> u64) -> u64 {
    let words = (header::MAGIC..header::STATE).chain(header::CAPACITY..header::DEV).step_by(8);
    let bytes: Vec<u8> = words.flat_map(|at| word(at).to_le_bytes()).collect();
    // The secret is part of what is summed: fixed words serve as the key.
    Secret([MAGIC, VERSION, 0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03]).hash(&bytes)
}

/// The first page of an existing store, read before anything is mapped.
pub(super) struct Disk<'a> {
    pub(super) path: &'a Path,
    /// Bytes of the file.
    pub(super) len: u64,
    page: Vec<u8>,
}

impl<'a> Disk<'a> {
    /// Reads it.
    pub(super) fn read(path: &'a Path, file: &StoreFile) -> Result<Self> {
        let mut page = vec![0u8; 4096];
        let got = file.read_start(&mut page)?;
        let whole = got == page.len();
        Ok(Self { path, len: if whole { file.len()? } else { got as u64 }, page })
    }

    /// A word of the header.
    pub(super) fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        self.page.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_ne_bytes(*b))
    }

    /// Whether somebody began to make a store here and ended before it was one.
    pub(super) fn is_unfinished(&self) -> bool {
        self.len == 0 || self.word(header::MAGIC) == MAGIC && self.word(header::STATE) != READY
    }

    pub(super) fn refuse(&self, reason: &str) -> Error {
        file::refused(self.path, reason)
    }

    /// Its geometry, if this build can read it and it is what `config` asks for.
    pub(super) fn check(&self, config: Option<&Config>) -> Result<Geometry> {
        let w = |at| self.word(at);
        if w(header::MAGIC).swap_bytes() == MAGIC {
            return Err(self.refuse("was made on a machine of the other byte order"));
        }
        if w(header::MAGIC) != MAGIC {
            return Err(self.refuse("is not a ucache store"));
        }
        if w(header::VERSION) != VERSION {
            return Err(
                self.refuse(&format!("has format {}, this build reads {VERSION}", w(header::VERSION)))
            );
        }
        let abi = Layout::abi(MUTEX_SIZE);
        if w(header::ABI) != abi {
            return Err(
                self.refuse(&format!("has layout {:016x}, this build has {abi:016x}", w(header::ABI)))
            );
        }
        if w(header::STATE) != READY {
            return Err(self.refuse("was never finished by who made it"));
        }
        let geo = Geometry {
            capacity: w(header::CAPACITY),
            shards: w(header::SHARDS),
            heads: w(header::HEADS),
            overflow: w(header::OVERFLOW),
            spans: w(header::SPANS),
            stamps: w(header::FLAGS) & 1 != 0,
            checksums: w(header::FLAGS) & 2 != 0,
            ghosts: w(header::FLAGS) & 4 != 0,
        };
        let sane = geo.shards.is_power_of_two()
            && geo.shards <= 4096
            && geo.heads >= geo.shards
            && geo.heads.is_multiple_of(geo.shards)
            && geo.heads < 1 << 28
            && geo.overflow >= 1
            && geo.overflow.saturating_mul(geo.shards) < 1 << 28
            && (1..=super::config::MAX_ITEMS).contains(&geo.capacity)
            && (1..1 << 30).contains(&geo.spans)
            && geo.checksums;
        if !sane || sum(w) != w(header::SUM) {
            return Err(self.refuse("has a damaged header"));
        }
        if let Some(c) = config {
            if c.capacity != geo.capacity {
                let (made, asked) = (geo.capacity, c.capacity);
                return Err(self.refuse(&format!(
                    "was made for {made} items, {asked} are asked for (store_delete=1 starts fresh)"
                )));
            }
            let made = eviction(&geo);
            if c.eviction != made {
                return Err(self.refuse(&format!(
                    "was made with evict={made}, evict={} is asked for (store_delete=1 starts fresh)",
                    c.eviction
                )));
            }
        }
        Ok(geo)
    }

    /// The limits it was made with.
    pub(super) fn limits(&self) -> Config {
        let w = |at| self.word(at);
        let name = usize::try_from(w(header::NAME_LEN)).unwrap_or(0).min(255);
        let start = header::NAME as usize;
        let habits = w(header::HABITS);
        Config {
            name: String::from_utf8_lossy(&self.page[start..start + name]).into_owned(),
            capacity: w(header::CAPACITY),
            max_key: w(header::MAX_KEY),
            max_value: w(header::MAX_VALUE),
            blocks: (w(header::BLOCK_SIZE) != 0)
                .then(|| Blocks { size: w(header::BLOCK_SIZE), count: w(header::BLOCK_COUNT) }),
            eviction: match habits & 17 {
                0 => Eviction::None,
                1 => Eviction::Lru,
                _ => Eviction::S3Fifo,
            },
            sweep_on_full: u32::try_from(w(header::SWEEP_ON_FULL)).unwrap_or(u32::MAX),
            clear_on_full: habits & 2 != 0,
            no_expire: habits & 4 != 0,
            math_initial: w(header::MATH_INITIAL).cast_signed(),
            last_modified: habits & 8 != 0,
            lock_timeout: Duration::from_nanos(w(header::LOCK_TIMEOUT)),
            store: Some(Store { path: self.path.to_owned(), delete_unusable: false }),
        }
    }
}

/// The policy that a geometry is for.
fn eviction(geo: &Geometry) -> Eviction {
    match (geo.stamps, geo.ghosts) {
        (false, _) => Eviction::None,
        (true, false) => Eviction::Lru,
        (true, true) => Eviction::S3Fifo,
    }
}
