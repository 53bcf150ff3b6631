//! What is on disk of a store, before anything of it is mapped.
#![forbid(unsafe_code)]

use std::{path::Path, time::Duration};

use super::{Blocks, Config, Eviction, HugePages, Store, geometry::MAX_SHARDS, hash::Secret, users};
use crate::{
    error::{Error, Result},
    os::{
        file::{self, StoreFile},
        mutex::MUTEX_SIZE,
        process,
    },
    shm::layout::{Geometry, Layout, SPAN, header},
};

/// "ucache" and a byte that tells the byte order.
pub(super) const MAGIC: u64 = 0x0165_6863_6163_7575;
pub(super) const VERSION: u64 = 5;
/// State of a region that is being made.
pub(super) const INIT: u64 = 1;
/// State of a region that can be used.
pub(super) const READY: u64 = 2;

/// The header's words that never change after a store was made.
pub(super) fn fixed() -> impl Iterator<Item = u64> {
    (header::MAGIC..header::STATE).chain(header::CAPACITY..header::DEV).step_by(8)
}

/// The limits and the name.
pub(super) fn changeable() -> impl Iterator<Item = u64> {
    (header::MAX_KEY..header::CLEAR_GEN).chain(header::NAME_LEN..header::NAME + 256).step_by(8)
}

/// Checksum of words of the header.
pub(super) fn sum(at: impl Iterator<Item = u64>, word: impl Fn(u64) -> u64) -> u64 {
    let bytes: Vec<u8> = at.flat_map(|at| word(at).to_le_bytes()).collect();
    // The secret is part of what is summed: fixed words serve as the key, random ones, because a word of what is summed
    // that equals one of the key's would hide others.
    Secret([0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03, 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB])
        .hash(&bytes)
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
        let got = file.read_at(&mut page, 0)?;
        let whole = got == page.len();
        let mut disk = Self { path, len: if whole { file.len()? } else { got as u64 }, page };
        if !disk.is_unfinished() {
            disk.mend(header::SUM, fixed);
        }
        Ok(disk)
    }

    fn put(&mut self, at: u64, word: u64) {
        let at = at as usize;
        if let Some(to) = self.page.get_mut(at..at + 8) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
    }

    /// Whether words have their checksum; one flipped bit of them or of it is put back first.
    fn mend<I: Iterator<Item = u64>>(&mut self, sum_at: u64, at: impl Fn() -> I) -> bool {
        let (told, is) = (self.word(sum_at), sum(at(), |at| self.word(at)));
        if (told ^ is).count_ones() <= 1 {
            self.put(sum_at, is);
            return true;
        }
        for (at_word, bit) in at().flat_map(|at| (0..64).map(move |bit| (at, bit))) {
            let word = self.word(at_word);
            self.put(at_word, word ^ 1 << bit);
            if sum(at(), |at| self.word(at)) == told {
                return true;
            }
            self.put(at_word, word);
        }
        false
    }

    /// A word of the header.
    pub(super) fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        self.page.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_ne_bytes(*b))
    }

    /// Whether somebody began to make a store here and ended before it was one.
    pub(super) fn is_unfinished(&self) -> bool {
        self.len == 0 || self.word(header::MAGIC) == MAGIC && self.word(header::STATE) == INIT
    }

    /// Whether it is empty or a store, finished or not.
    pub(super) fn is_ours(&self) -> bool {
        self.len == 0 || self.word(header::MAGIC) == MAGIC
    }

    pub(super) fn refuse(&self, reason: &str) -> Error {
        file::refused(self.path, reason)
    }

    /// Its geometry, if this build can read it.
    pub(super) fn check(&self) -> Result<Geometry> {
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
        if w(header::STATE) == INIT {
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
            && geo.shards <= MAX_SHARDS
            && geo.heads >= geo.shards
            && geo.heads.is_multiple_of(geo.shards)
            && geo.heads < 1 << 28
            && geo.overflow >= 1
            && geo.overflow.saturating_mul(geo.shards) < 1 << 28
            && (1..=super::config::MAX_ITEMS).contains(&geo.capacity)
            && (1..1 << 30).contains(&geo.spans)
            && geo.checksums;
        if !sane || sum(fixed(), w) != w(header::SUM) {
            return Err(self.refuse("has a damaged header"));
        }
        Ok(geo)
    }

    /// Refuses a store whose users are in another PID namespace: thread ids, by which locks know their owners, mean others there.
    /// Of another time namespace: there the times since boot, by which threads and leases are told apart, are others.
    pub(super) fn check_namespace(&self) -> Result<()> {
        let why = match users::namespaces(|at| self.word(at))? {
            None => return Ok(()),
            Some(users::Namespace::Pid) => {
                "is in use in another PID namespace (a container's): join that one (nsenter -p), or share it"
            }
            Some(users::Namespace::Time) => {
                "is in use in another time namespace: join that one (nsenter -T), or share it"
            }
        };
        Err(self.refuse(why))
    }

    /// Whether it can be a store of native uWSGI's with the settings of `config`.
    pub(super) fn may_be_native(&self, config: &Config) -> bool {
        let size = config.native.and_then(|shape| shape.file_len());
        self.word(header::MAGIC) != MAGIC && size == Some(self.len)
    }

    /// What of `config` decides the layout and is not what the store was made for: both values.
    pub(super) fn difference(&self, config: &Config, geo: &Geometry) -> Option<String> {
        let made = eviction(geo);
        if config.capacity != geo.capacity {
            // Who wrote a definition knows the numbers that are one more.
            let as_written = match config.native {
                Some(shape) => format!(" (items={} and items={})", geo.capacity + 1, shape.items),
                None => String::new(),
            };
            let (made, asked) = (geo.capacity, config.capacity);
            Some(format!("was made to hold {made} items, {asked} are asked for{as_written}"))
        } else if config.eviction != made {
            Some(format!("was made with evict={made}, evict={} is asked for", config.eviction))
        } else {
            None
        }
    }

    /// Whether the machine is known not to have been started again since the file was opened the last time.
    pub(super) fn is_of_this_boot(&self) -> Result<bool> {
        let boot = process::boot_id()?;
        Ok(boot != 0 && boot == self.word(header::BOOT))
    }

    /// Bytes of it that are data: the file's length says it, and the header must agree. It may differ by one flipped bit,
    /// by the last growth of who died, or because the power failed between the header and the file's new length.
    pub(super) fn committed(&self, layout: &Layout) -> Result<u64> {
        let told = self.word(header::COMMITTED);
        let there = self.len.min(layout.end) / SPAN * SPAN;
        let excused = (told ^ there).count_ones() == 1 || !self.is_of_this_boot()?;
        if there < layout.data || told > there && !(excused && self.len.is_multiple_of(SPAN)) {
            return Err(self.refuse(&format!("is cut off: {} bytes of {told}", self.len)));
        }
        Ok(there)
    }

    /// The file as a setting.
    pub(super) fn own_store(&self) -> Option<Store> {
        Some(Store { path: self.path.to_owned(), delete_unusable: false })
    }

    /// The limits it was made with; `None` = they are damaged. The policy is that of `geo`, which has been checked: what it
    /// writes must be in the layout.
    pub(super) fn limits(&mut self, geo: &Geometry) -> Option<Config> {
        // 0: its last opener died while it wrote them, and the next one to ask for a cache writes them again.
        if self.word(header::LIMITS_SUM) != 0 && !self.mend(header::LIMITS_SUM, changeable) {
            return None;
        }
        let w = |at| self.word(at);
        let name = usize::try_from(w(header::NAME_LEN)).unwrap_or(0).min(255);
        let start = header::NAME as usize;
        let habits = w(header::HABITS);
        Some(Config {
            name: String::from_utf8_lossy(&self.page[start..start + name]).into_owned(),
            capacity: w(header::CAPACITY),
            max_key: w(header::MAX_KEY),
            max_value: w(header::MAX_VALUE),
            blocks: (w(header::BLOCK_SIZE) != 0)
                .then(|| Blocks { size: w(header::BLOCK_SIZE), count: w(header::BLOCK_COUNT) }),
            eviction: eviction(geo),
            sweep_on_full: u32::try_from(w(header::SWEEP_ON_FULL)).unwrap_or(u32::MAX),
            clear_on_full: habits & 2 != 0,
            no_expire: habits & 4 != 0,
            math_initial: w(header::MATH_INITIAL).cast_signed(),
            last_modified: habits & 8 != 0,
            lock_timeout: Duration::from_nanos(w(header::LOCK_TIMEOUT)),
            store: self.own_store(),
            native: None,
            store_guard: false,
            store_fs_trust: false,
            huge_pages: HugePages::Off,
        })
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
