//! The bytes of a region as a dead process would leave them: taken from a single-stepped child and
//! loaded into the checker's region.
//!
//! The checker and the child start from one region. The child then gets its own memory at the same
//! addresses, so that the checker's region can be overwritten: any state of the child can be loaded
//! there and recovered, without starting anew.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use nix::unistd::Pid;
use ucache::engine::Engine;

use crate::engine_proc::{Child, Scratch};

pub(crate) const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
/// The third 32-bit word of the engine's mutexes: process-shared, robust, error-checking (glibc).
const MUTEX_KIND: u32 = 0x92;
/// The kernel's mark on a robust lock whose owner has died.
const OWNER_DIED: u32 = 0x4000_0000;
const TID: u32 = 0x3fff_ffff;
/// The bits of `/proc/*/pagemap` for a page that exists.
const PRESENT_OR_SWAPPED: u64 = 3 << 62;
/// A thread id beyond any that Linux assigns.
const NOBODY: u64 = 0x3fff_fff0;

/// The mapping of a region in this process, and in every child forked from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    start: usize,
    pages: usize,
}

/// A thread as the engine records it: its id and when it started, in clock ticks since boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mortal {
    tid: u32,
    start: u32,
}

impl Mortal {
    pub(crate) fn new(pid: Pid) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
        let ticks: u64 = fields.and_then(|mut f| f.nth(19)?.parse().ok()).expect("a start time");
        let start = u32::try_from(ticks & u64::from(u32::MAX)).expect("masked").max(1);
        Self { tid: u32::try_from(pid.as_raw()).expect("a process id"), start }
    }
}

fn shared_mappings() -> Vec<Range<usize>> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        rest.starts_with("rw-s").then_some(hex(from)?..hex(to)?)
    };
    maps.lines().filter_map(parse).collect()
}

impl Window {
    /// Creates an engine and finds its mapping.
    pub(crate) fn around(make: impl FnOnce() -> Arc<Engine>) -> (Arc<Engine>, Self) {
        let before = shared_mappings();
        let engine = make();
        let len = usize::try_from(engine.stats().reserved).expect("64 bits").next_multiple_of(PAGE);
        let new: Vec<_> =
            shared_mappings().into_iter().filter(|m| m.len() == len && !before.contains(m)).collect();
        assert_eq!(new.len(), 1, "one new shared mapping of {len} bytes");
        (engine, Self { start: new[0].start, pages: len / PAGE })
    }

    /// Address of its first byte.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    fn page(&self, page: usize) -> &[AtomicU64; WORDS] {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the caller keeps the engine, which maps these pages; all access to them is
        // atomic.
        unsafe { &*((self.start + page * PAGE) as *const [AtomicU64; WORDS]) }
    }

    /// Pages touched since the mapping was created or they were released.
    fn resident(&self) -> Vec<usize> {
        let mut resident = vec![0_u8; self.pages];
        // SAFETY: the range is one mapping of the engine's; the vector has a byte for each of its
        // pages.
        let rc = unsafe { libc::mincore(self.start as *mut _, self.pages * PAGE, resident.as_mut_ptr()) };
        assert_eq!(rc, 0, "mincore");
        (0..self.pages).filter(|&page| resident[page] & 1 == 1).collect()
    }

    /// Pages with any non-zero byte. Untouched pages stay untouched.
    pub(crate) fn used(&self) -> Vec<usize> {
        let holds = |page: &usize| self.page(*page).iter().any(|word| word.load(Relaxed) != 0);
        self.resident().into_iter().filter(holds).collect()
    }

    /// All bytes, page by page.
    pub(crate) fn take(&self, pages: &[usize]) -> Vec<u8> {
        let words = pages.iter().flat_map(|&page| self.page(page));
        words.flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect()
    }

    /// Gives the region these pages' content, and zeros elsewhere. Keeps pages allocated: the next
    /// state needs them.
    pub(crate) fn put(&self, pages: &[usize], bytes: &[u8]) {
        let mut kept = pages.iter().copied().peekable();
        for page in self.resident() {
            while kept.next_if(|&one| one < page).is_some() {}
            if kept.peek() != Some(&page) {
                self.page(page).iter().for_each(|word| word.store(0, Relaxed));
            }
        }
        for (&page, bytes) in pages.iter().zip(bytes.chunks_exact(PAGE)) {
            for (word, bytes) in self.page(page).iter().zip(bytes.as_chunks::<8>().0) {
                word.store(u64::from_ne_bytes(*bytes), Relaxed);
            }
        }
    }

    /// Overwrites one word.
    pub(crate) fn scribble(&self, page: usize, word: usize, value: u64) {
        self.page(page)[word].store(value, Relaxed);
    }

    /// In a child: replaces the region by private memory with the same content at the same address.
    pub(crate) fn part(&self) {
        let pages = self.used();
        let bytes = self.take(&pages);
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
        // SAFETY: replaces exactly the engine's mapping, keeping its address and length.
        let at = unsafe {
            libc::mmap(self.start as *mut _, self.pages * PAGE, prot, flags | libc::MAP_NORESERVE, -1, 0)
        };
        assert_eq!(at as usize, self.start, "mmap in place");
        self.put(&pages, &bytes);
    }

    /// The pages that hold data before, during or after `operation`, which a child runs on a copy.
    pub(crate) fn touched(&self, operation: impl FnOnce()) -> Vec<usize> {
        let marks = Scratch::new(self.pages);
        for page in self.used() {
            marks[page].store(1, Relaxed);
        }
        Child::fork(|| {
            self.part();
            operation();
            // Also pages not in use now: a bucket may have had items for a while. Only touched
            // pages are resident.
            for page in self.resident() {
                marks[page].store(1, Relaxed);
            }
        })
        .join();
        (0..self.pages).filter(|&page| marks[page].load(Relaxed) == 1).collect()
    }

    /// The pages touched so far by a child with its own memory here.
    pub(crate) fn touched_by(&self, child: Pid) -> Vec<usize> {
        let mut words = vec![0; self.pages * 8];
        let map = File::open(format!("/proc/{child}/pagemap")).expect("a child's pages");
        map.read_exact_at(&mut words, (self.start / PAGE * 8) as u64).expect("a word a page");
        let here = |word: &[u8; 8]| u64::from_ne_bytes(*word) & PRESENT_OR_SWAPPED != 0;
        words.as_chunks().0.iter().enumerate().filter(|(_, word)| here(word)).map(|(page, _)| page).collect()
    }

    /// A stepped child's memory at these pages.
    pub(crate) fn of_child(&self, child: Pid, pages: &[usize]) -> Image {
        let memory = File::open(format!("/proc/{child}/mem")).expect("a traced child's memory");
        Image::new(memory, self.start, pages)
    }
}

/// Pages of changing memory or a file, with their content at the last look.
#[derive(Debug)]
pub(crate) struct Image {
    source: File,
    base: usize,
    runs: Vec<Range<usize>>,
    pub(crate) pages: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
    next: Vec<u8>,
}

impl Image {
    pub(crate) fn new(source: File, base: usize, pages: &[usize]) -> Self {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for &page in pages {
            match runs.last_mut() {
                Some(run) if run.end == page => run.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        let bytes = vec![0; pages.len() * PAGE];
        let mut image = Self { source, base, runs, pages: pages.to_vec(), next: bytes.clone(), bytes };
        image.look();
        image
    }

    /// Reads the pages again; returns whether anything changed. Bytes beyond the end of a file read
    /// as zeros.
    pub(crate) fn look(&mut self) -> bool {
        let mut at = 0;
        for run in &self.runs {
            let len = run.len() * PAGE;
            let place = u64::try_from(self.base + run.start * PAGE).expect("an address");
            let into = &mut self.next[at..at + len];
            let mut got = 0;
            while got < len {
                match self.source.read_at(&mut into[got..], place + got as u64).expect("memory can be read") {
                    0 => break,
                    n => got += n,
                }
            }
            into[got..].fill(0);
            at += len;
        }
        let changed = self.next != self.bytes;
        std::mem::swap(&mut self.next, &mut self.bytes);
        changed
    }

    /// Non-zero pages of a file that are not watched.
    pub(crate) fn overlooked(&self) -> Vec<usize> {
        let len = self.source.metadata().expect("metadata").len();
        let mut bytes = vec![0; usize::try_from(len).expect("64 bits")];
        self.source.read_exact_at(&mut bytes, 0).expect("a file can be read");
        let holds = |page: &[u8]| page.iter().any(|&byte| byte != 0);
        let pages = bytes.chunks(PAGE).enumerate().filter(|(_, bytes)| holds(bytes)).map(|(page, _)| page);
        pages.filter(|page| self.pages.binary_search(page).is_err()).collect()
    }

    /// The bytes as the kernel leaves them when a thread ends: its robust locks are marked. The
    /// engine's records of the thread are replaced by those of a thread that does not exist.
    /// Returns the number of locks it held.
    pub(crate) fn after_death(&self, dead: Mortal) -> (Vec<u8>, u32) {
        let Mortal { tid, start } = dead;
        let (mut bytes, mut held) = (self.bytes.clone(), 0);
        let word = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).map(|b| u32::from_ne_bytes(b.try_into().unwrap_or([0; 4])))
        };
        for at in (0..bytes.len()).step_by(8) {
            let low = word(&bytes, at).unwrap_or(0);
            if low & TID == tid && word(&bytes, at + 16) == Some(MUTEX_KIND) {
                bytes[at..at + 4].copy_from_slice(&(low & !TID | OWNER_DIED).to_ne_bytes());
                held += 1;
            } else if low == start && word(&bytes, at + 4) == Some(tid) {
                bytes[at..at + 8].copy_from_slice(&(NOBODY << 32 | 1).to_ne_bytes());
            }
        }
        (bytes, held)
    }
}
