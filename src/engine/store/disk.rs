//! The header page of a store file, read before anything is mapped.
#![forbid(unsafe_code)]

use std::{path::Path, time::Duration};

use crate::{
    engine::{
        Blocks, Config, HugePages, Store, admission,
        geometry::MAX_SHARDS,
        index::{bucket::MAX_OVERFLOW, hash::Secret},
        policy,
    },
    error::{Error, Result, StoreFault},
    os::{file::StoreFile, mutex::MUTEX_SIZE, process},
    shm::layout::{Geometry, Layout, SPAN, header},
};

/// "ucache" and a byte that shows the byte order.
pub(in crate::engine) const MAGIC: u64 = 0x0165_6863_6163_7575;
pub(in crate::engine) const VERSION: u64 = 6;
/// State of a region that is being created.
pub(in crate::engine) const INIT: u64 = 1;
/// State of a region that is ready for use.
pub(in crate::engine) const READY: u64 = 2;

/// The header's words that never change after the creation of a store.
pub(in crate::engine) fn fixed() -> impl Iterator<Item = u64> {
    (header::MAGIC..header::STATE).chain(header::CAPACITY..header::DEV).step_by(8)
}

/// The limits and the name.
pub(in crate::engine) fn changeable() -> impl Iterator<Item = u64> {
    (header::MAX_KEY..header::CLEAR_GEN).chain(header::NAME_LEN..header::NAME + 256).step_by(8)
}

/// Checksum of header words.
pub(in crate::engine) fn sum(at: impl Iterator<Item = u64>, word: impl Fn(u64) -> u64) -> u64 {
    let bytes: Vec<u8> = at.flat_map(|at| word(at).to_le_bytes()).collect();
    // The secret is part of what is summed: fixed words serve as the key, random ones, because a
    // word of what is summed that equals one of the key's would hide others.
    Secret([0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03, 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB])
        .hash(&bytes)
}

/// The first page of an existing store, read before anything is mapped.
pub(in crate::engine) struct Disk<'a> {
    pub(in crate::engine) path: &'a Path,
    /// Bytes of the file.
    pub(in crate::engine) len: u64,
    page: Vec<u8>,
}

impl<'a> Disk<'a> {
    /// Reads it.
    pub(in crate::engine) fn read(path: &'a Path, file: &StoreFile) -> Result<Self> {
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

    /// Whether words have their checksum; one flipped bit of them or of it is corrected first.
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
    pub(in crate::engine) fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        self.page.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_ne_bytes(*b))
    }

    /// Whether the creation of a store was begun here and interrupted.
    pub(in crate::engine) fn is_unfinished(&self) -> bool {
        self.len == 0 || self.word(header::MAGIC) == MAGIC && self.word(header::STATE) == INIT
    }

    /// Whether it is empty or a store, complete or not.
    pub(in crate::engine) fn is_ours(&self) -> bool {
        self.len == 0 || self.word(header::MAGIC) == MAGIC
    }

    pub(in crate::engine) fn refuse(&self, fault: StoreFault) -> Error {
        Error::store(self.path, fault)
    }

    /// Its geometry, if this build can read it.
    pub(in crate::engine) fn check(&self) -> Result<Geometry> {
        self.check_as(VERSION, Layout::abi(MUTEX_SIZE))
    }

    /// [`Disk::check`] of a store of this format, by builds with this digest of the layout.
    pub(super) fn check_as(&self, version: u64, abi: u64) -> Result<Geometry> {
        let w = |at| self.word(at);
        if w(header::MAGIC).swap_bytes() == MAGIC {
            return Err(self.refuse(StoreFault::ByteOrder));
        }
        if w(header::MAGIC) != MAGIC {
            return Err(self.refuse(StoreFault::NotAStore));
        }
        if w(header::VERSION) != version {
            let found = w(header::VERSION);
            return Err(self.refuse(StoreFault::Format { found, supported: VERSION }));
        }
        if w(header::ABI) != abi {
            return Err(self.refuse(StoreFault::Layout { found: w(header::ABI), supported: abi }));
        }
        if w(header::STATE) == INIT {
            return Err(self.refuse(StoreFault::Unfinished));
        }
        let geo = Geometry {
            capacity: w(header::CAPACITY),
            shards: w(header::SHARDS),
            homes: w(header::HOMES),
            overflow: w(header::OVERFLOW),
            spans: w(header::SPANS),
            stamps: w(header::FLAGS) & 1 != 0,
            checksums: w(header::FLAGS) & 2 != 0,
            ghosts: w(header::FLAGS) & 4 != 0,
            sieve: w(header::FLAGS) & 8 != 0,
        };
        let sane = geo.shards.is_power_of_two()
            && geo.shards <= MAX_SHARDS
            && geo.homes >= geo.shards
            && geo.homes.is_multiple_of(geo.shards)
            && geo.homes < 1 << 28
            && (1..=MAX_OVERFLOW).contains(&geo.overflow)
            && geo.overflow.saturating_mul(geo.shards) < 1 << 28
            && (1..=crate::engine::config::MAX_ITEMS).contains(&geo.capacity)
            && (1..1 << 30).contains(&geo.spans)
            && geo.checksums;
        if !sane || sum(fixed(), w) != w(header::SUM) {
            return Err(self.refuse(StoreFault::Damaged { part: "header" }));
        }
        Ok(geo)
    }

    /// Refuses a store whose users are in another PID namespace: thread ids, by which locks know
    /// their owners, mean other threads there. Of another time namespace: there the times since
    /// boot, by which threads and leases are told apart, are others.
    pub(in crate::engine) fn check_namespace(&self) -> Result<()> {
        let fault = match admission::namespaces(|at| self.word(at))? {
            None => return Ok(()),
            Some(admission::Namespace::Pid) => StoreFault::PidNamespace,
            Some(admission::Namespace::Time) => StoreFault::TimeNamespace,
        };
        Err(self.refuse(fault))
    }

    /// Whether it can be a store of native uWSGI with the settings of `config`.
    pub(in crate::engine) fn may_be_native(&self, config: &Config) -> bool {
        let size = config.native.and_then(|shape| shape.file_len());
        self.word(header::MAGIC) != MAGIC && size == Some(self.len)
    }

    /// The setting that decides the layout and differs from the store's, with both values.
    pub(in crate::engine) fn difference(&self, config: &Config, geo: &Geometry) -> Option<String> {
        let made = policy::eviction(geo);
        if config.capacity != geo.capacity {
            // In a definition, `items` is one more.
            let as_written = match config.native {
                Some(shape) => format!(" (items={} and items={})", geo.capacity + 1, shape.items),
                None => String::new(),
            };
            let (made, asked) = (geo.capacity, config.capacity);
            Some(format!("was made to hold {made} items, {asked} are requested{as_written}"))
        } else if config.eviction != made {
            Some(format!("was made with evict={made}, evict={} is requested", config.eviction))
        } else {
            None
        }
    }

    /// Whether the machine is known not to have been started again since the file was opened the
    /// last time.
    pub(in crate::engine) fn is_of_this_boot(&self) -> Result<bool> {
        let boot = process::boot_id()?;
        Ok(boot != 0 && boot == self.word(header::BOOT))
    }

    /// Bytes of it that are data: the file's length says it, and the header must agree. It may
    /// differ by one flipped bit, by the last growth of a process that died, or because the power
    /// failed between the header and the file's new length.
    pub(in crate::engine) fn committed(&self, layout: &Layout) -> Result<u64> {
        let told = self.word(header::COMMITTED);
        let there = self.len.min(layout.end) / SPAN * SPAN;
        let excused = (told ^ there).count_ones() == 1 || !self.is_of_this_boot()?;
        if there < layout.data || told > there && !(excused && self.len.is_multiple_of(SPAN)) {
            return Err(self.refuse(StoreFault::Truncated { len: self.len, expected: told }));
        }
        Ok(there)
    }

    /// The file as a store setting.
    pub(in crate::engine) fn own_store(&self) -> Option<Store> {
        Some(Store { path: self.path.to_owned(), delete_unusable: false })
    }

    /// The limits it was made with; `None` = they are damaged. The policy is that of `geo`, which
    /// has been checked: what it writes must be in the layout.
    pub(in crate::engine) fn limits(&mut self, geo: &Geometry) -> Option<Config> {
        // 0: its last opener died while it wrote them; the next opener with a configuration writes
        // them again.
        if self.word(header::LIMITS_SUM) != 0 && !self.mend(header::LIMITS_SUM, changeable) {
            return None;
        }
        let w = |at| self.word(at);
        let name = usize::try_from(w(header::NAME_LEN)).unwrap_or(0).min(255);
        let start = header::NAME as usize;
        let flags = w(header::POLICY_FLAGS);
        Some(Config {
            name: String::from_utf8_lossy(&self.page[start..start + name]).into_owned(),
            capacity: w(header::CAPACITY),
            max_key: w(header::MAX_KEY),
            max_value: w(header::MAX_VALUE),
            blocks: (w(header::BLOCK_SIZE) != 0)
                .then(|| Blocks { size: w(header::BLOCK_SIZE), count: w(header::BLOCK_COUNT) }),
            eviction: policy::eviction(geo),
            sweep_on_full: u32::try_from(w(header::SWEEP_ON_FULL)).unwrap_or(u32::MAX),
            clear_on_full: flags & 2 != 0,
            no_expire: flags & 4 != 0,
            math_initial: w(header::MATH_INITIAL).cast_signed(),
            last_modified: flags & 8 != 0,
            lock_timeout: Duration::from_nanos(w(header::LOCK_TIMEOUT)),
            store: self.own_store(),
            native: None,
            store_guard: false,
            store_fs_trust: false,
            huge_pages: HugePages::Off,
        })
    }
}
