//! The limits and policies of a cache, validated once.
#![forbid(unsafe_code)]

use std::{path::PathBuf, time::Duration};

use crate::error::{Error, Result};

pub use crate::os::huge::HugePages;

/// Most items of one cache: with room for chains, their places in the index have 32 bits.
pub const MAX_ITEMS: u64 = (1 << 28) - 2;
/// Longest key, bytes.
pub const MAX_KEY: u64 = 65_535;
/// Longest value, bytes: a length has 32 bits.
pub const MAX_VALUE: u64 = u32::MAX as u64;
/// Most blocks of a cache that counts blocks.
pub const MAX_BLOCKS: u64 = u32::MAX as u64;
/// Longest `lock_timeout`.
pub const MAX_LOCK_TIMEOUT: Duration = Duration::from_secs(3600);

/// Blocks as a limit (uWSGI's `bitmap=1`): a value uses `ceil(len / size)` of `count` blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes of a block, at least 1.
    pub size: u64,
    /// Number of blocks, `1..=`[`MAX_BLOCKS`].
    pub count: u64,
}

/// What makes room when the cache is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// Nothing: a store of a new key is refused.
    #[default]
    None,
    /// The least recently used item goes: exact up to 4,096 items, sampled above.
    Lru,
    /// S3-FIFO (Yang et al., SOSP 2023): what is read once makes room for what is read again. The
    /// better choice where popularity changes slowly; LRU follows fast changes sooner.
    S3Fifo,
    /// SIEVE (Zhang et al., NSDI 2024): a queue from which the oldest item is evicted, unless it
    /// was read since it was examined last. Exact up to 4,096 items, sampled above. A hit writes at
    /// most once.
    Sieve,
}

impl Eviction {
    /// All policies.
    #[cfg(feature = "capi")]
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Lru, Self::S3Fifo, Self::Sieve];

    /// Its value of the key `evict` in a cache's definition, and its name for people.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::None => ("none", ""),
            Self::Lru => ("lru", "LRU"),
            Self::S3Fifo => ("s3fifo", "S3-FIFO"),
            Self::Sieve => ("sieve", "SIEVE"),
        }
    }

    /// Its name for people; empty for [`Eviction::None`].
    #[cfg(feature = "capi")]
    pub(crate) fn title(self) -> &'static str {
        self.names().1
    }
}

impl std::fmt::Display for Eviction {
    /// As the key `evict` of a cache's definition has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.names().0)
    }
}

/// A store file that backs the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Path of the file.
    pub path: PathBuf,
    /// Whether a file that cannot be used is deleted and created again (uWSGI's `store_delete`).
    pub delete_unusable: bool,
}

/// The settings of a native uWSGI cache that determine the layout of its store file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeShape {
    /// `items`, as written.
    pub items: u64,
    /// `keysize`
    pub key_size: u64,
    /// `blocks`
    pub blocks: u64,
    /// `blocksize`
    pub block_size: u64,
    /// `bitmap`
    pub bitmap: bool,
}

/// Everything that makes one cache differ from another. Public fields are checked by
/// [`Config::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name, not empty.
    pub name: String,
    /// How many items can be stored at the same time, `1..=`[`MAX_ITEMS`] (uWSGI's `items=N` is N-1
    /// here).
    pub capacity: u64,
    /// Longest key accepted, bytes, `1..=`[`MAX_KEY`].
    pub max_key: u64,
    /// Longest value accepted, bytes, `1..=`[`MAX_VALUE`].
    pub max_value: u64,
    /// Counts blocks too, when given.
    pub blocks: Option<Blocks>,
    /// What makes room in a full cache.
    pub eviction: Eviction,
    /// With `no_expire`, a full cache sweeps expired items out at most once in this many seconds; 0
    /// = never. Without, it does so whenever there are any.
    pub sweep_on_full: u32,
    /// A full cache is cleared when sweeping freed nothing.
    pub clear_on_full: bool,
    /// TTLs are kept but not enforced: neither reads nor sweeps drop an expired item (a full cache
    /// may).
    pub no_expire: bool,
    /// What the first math call on a missing key starts from.
    pub math_initial: i64,
    /// Keeps the time of the last change in the statistics.
    pub last_modified: bool,
    /// How long a writer waits for a lock that a live process holds.
    pub lock_timeout: Duration,
    /// The store file; `None` = anonymous memory, shared with forked children only.
    pub store: Option<Store>,
    /// A store file that native uWSGI made with these settings is imported; `None` = refused.
    pub native: Option<NativeShape>,
    /// If the store file is truncated, reads miss and writes fail from then on, and the process
    /// survives (a SIGBUS handler is installed).
    pub store_guard: bool,
    /// The store may be on a file system that is not known to keep one (`store_fs=trust`).
    pub store_fs_trust: bool,
    /// The pages of anonymous memory; without effect on a store.
    pub huge_pages: HugePages,
}

impl Config {
    /// The defaults of uWSGI for a cache of `capacity` items: keys of 2,048 and values of 65,536
    /// bytes at most.
    #[must_use]
    pub fn new(name: &str, capacity: u64) -> Self {
        Self {
            name: name.to_owned(),
            capacity,
            max_key: 2048,
            max_value: 65_536,
            blocks: None,
            eviction: Eviction::None,
            sweep_on_full: 0,
            clear_on_full: false,
            no_expire: false,
            math_initial: 0,
            last_modified: false,
            lock_timeout: Duration::from_secs(1),
            store: None,
            native: None,
            store_guard: false,
            store_fs_trust: false,
            huge_pages: HugePages::Off,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] names the option, the value and the bound.
    pub fn check(&self) -> Result<()> {
        if self.name.is_empty() || self.name.len() > 255 || self.name.contains(['@', '\0']) {
            return Err(Error::InvalidOption {
                option: "name",
                value: format!("{:?}", self.name),
                reason: "must have 1 to 255 bytes, without '@' and NUL".to_owned(),
            });
        }
        in_range("items", self.capacity, 1, MAX_ITEMS)?;
        in_range("keysize", self.max_key, 1, MAX_KEY)?;
        in_range("blocksize", self.max_value, 1, MAX_VALUE)?;
        if let Some(b) = self.blocks {
            in_range("blocksize", b.size, 1, MAX_VALUE)?;
            in_range("blocks", b.count, 1, MAX_BLOCKS)?;
        }
        if self.lock_timeout.is_zero() || self.lock_timeout > MAX_LOCK_TIMEOUT {
            return Err(Error::InvalidOption {
                option: "lock_timeout",
                value: format!("{:?}", self.lock_timeout),
                reason: format!("must be more than 0 and at most {MAX_LOCK_TIMEOUT:?}"),
            });
        }
        Ok(())
    }
}

fn in_range(option: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::InvalidOption { option, value: value.to_string(), reason: format!("must be {min} to {max}") })
}
