//! Shared mappings.

use std::{os::fd::AsRawFd, ptr::NonNull};

use super::{
    cancel::Shield,
    file::StoreFile,
    page::page_size,
    sigbus::{SigbusWords, Watch},
};
use crate::error::{Error, Result};

/// One `mmap(MAP_SHARED)`, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// Dropped before the range is unmapped.
    watch: Option<Watch>,
}

// SAFETY: the mapping is plain memory without thread affinity; it is read and written by atomics
// (shm).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Advice to the kernel about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Release the pages; they read as zeros afterwards.
    Remove,
    /// Exclude the range from core dumps.
    DontDump,
}

impl Mapping {
    /// Reserves `len` bytes of zeros, shared with forked children. Pages are allocated on first
    /// touch.
    pub(crate) fn anonymous(len: usize) -> Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Self::map(len, libc::PROT_READ | libc::PROT_WRITE, flags, -1)
    }

    /// Maps the first `len` bytes of a file; pages beyond the end of the file must not be touched,
    /// unless there is a guard.
    pub(crate) fn file(file: &StoreFile, len: usize, guard: Option<SigbusWords>) -> Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let mut map = Self::map(len, libc::PROT_READ | libc::PROT_WRITE, flags, file.as_raw_fd())?;
        if let Some(guard) = guard {
            map.watch = Some(Watch::new(map.start, len, file, guard)?);
        }
        Ok(map)
    }

    /// Scratch memory of the calling thread, without malloc (a fork may have left malloc's locks
    /// held).
    pub(crate) fn scratch(len: usize) -> Result<Self> {
        // Shared, although children do not need it: then it does not count against RLIMIT_DATA.
        Self::anonymous(len.max(1)).or_else(|_| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            Self::map(len.max(1), libc::PROT_READ | libc::PROT_WRITE, flags, -1)
        })
    }

    /// Takes ownership of a range that `mmap` returned.
    pub(super) fn from_parts(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, watch: None }
    }

    pub(super) fn map(len: usize, prot: libc::c_int, flags: libc::c_int, fd: libc::c_int) -> Result<Self> {
        // SAFETY: no address is given, so no existing mapping is touched.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        if p == libc::MAP_FAILED {
            return Err(Error::last_os("mmap"));
        }
        let start = NonNull::new(p.cast::<u8>()).ok_or_else(|| Error::last_os("mmap"))?;
        Ok(Self::from_parts(start, len))
    }

    /// First byte; aligned to a page.
    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length, bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Advises the kernel about whole pages; `false` = it declined (never an error for the caller).
    pub(crate) fn advise(&self, offset: usize, len: usize, advice: Advice) -> bool {
        let Some(end) = offset.checked_add(len) else { return false };
        if end > self.len || !offset.is_multiple_of(page_size()) {
            return false;
        }
        let what = match advice {
            Advice::Remove => libc::MADV_REMOVE,
            Advice::DontDump => libc::MADV_DONTDUMP,
        };
        // SAFETY: the range lies in this mapping (checked above); all accesses to it are atomics
        // that may see zeros.
        unsafe { libc::madvise(self.start.as_ptr().add(offset).cast(), len, what) == 0 }
    }

    /// Bytes of a range that are in memory, for whichever process; `None` = the kernel does not tell.
    /// `offset` is a multiple of the page's size.
    pub(crate) fn resident(&self, offset: usize, len: usize) -> Option<u64> {
        let page = page_size();
        let end = offset.checked_add(len).filter(|&end| end <= self.len && offset.is_multiple_of(page))?;
        let (mut at, mut pages) = (offset, 0);
        let mut told = [0_u8; 1024];
        while at < end {
            let part = (end - at).min(told.len() * page);
            // SAFETY: the range lies in this mapping (checked above), and there is a byte for each
            // of its pages.
            if unsafe { libc::mincore(self.start.as_ptr().add(at).cast(), part, told.as_mut_ptr()) } != 0 {
                return None;
            }
            pages += told[..part.div_ceil(page)].iter().filter(|&byte| byte & 1 != 0).count();
            at += part;
        }
        Some((pages * page) as u64)
    }

    /// Writes a range to the file and waits until it is on disk.
    pub(crate) fn sync(&self, offset: usize, len: usize) -> Result<()> {
        let _shield = Shield::raise();
        let len = len.min(self.len.saturating_sub(offset));
        // SAFETY: the range lies in this mapping; msync does not change memory.
        if unsafe { libc::msync(self.start.as_ptr().add(offset.min(self.len)).cast(), len, libc::MS_SYNC) }
            != 0
        {
            return Err(Error::last_os("msync"));
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.watch = None;
        // SAFETY: start and len are those of the mmap; the owner (shm's Region) hands out no
        // reference that outlives it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
