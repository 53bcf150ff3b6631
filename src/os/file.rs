//! Store files: opening, locking between processes, growing.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed},
};

use super::{cancel::Shield, clock};
use crate::error::{Error, Result};

/// An open store file; its descriptor is checked before every use, because a host may close and reuse it.
#[derive(Debug)]
pub(crate) struct StoreFile {
    /// `None` only while dropping.
    file: Option<File>,
    id: FileId,
    refusal: Refusal,
}

/// The last growth that the file system refused. Asking is dear, some think long before they say no: as much is not asked
/// for again for a while. Of this process alone; a race at worst asks once more.
#[derive(Debug, Default)]
struct Refusal {
    /// Bytes that were asked for.
    size: AtomicU64,
    /// When to ask again, milliseconds of the monotonic clock; 0 = there was none.
    until: AtomicU64,
    /// The error.
    errno: AtomicI32,
}

/// How long a refusal is remembered, milliseconds.
const REMEMBERED: u64 = 1000;

impl Refusal {
    fn now() -> u64 {
        u64::try_from(clock::monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether to ask for so many bytes; else the error is that of the last time.
    fn ask(&self, size: u64) -> Result<()> {
        let until = self.until.load(Relaxed);
        if until == 0 || size < self.size.load(Relaxed) || Self::now() >= until {
            return Ok(());
        }
        let source = io::Error::from_raw_os_error(self.errno.load(Relaxed));
        Err(Error::Os { call: "fallocate", source })
    }

    fn note(&self, size: u64, done: &Result<()>) {
        let until = match done {
            Ok(()) => 0,
            Err(e) => {
                let errno = if let Error::Os { source, .. } = e { source.raw_os_error() } else { None };
                self.size.store(size, Relaxed);
                self.errno.store(errno.unwrap_or(libc::EIO), Relaxed);
                Self::now() + REMEMBERED
            }
        };
        self.until.store(until, Relaxed);
    }
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    /// Device.
    pub(crate) dev: u64,
    /// Inode.
    pub(crate) ino: u64,
}

/// What lock to take on a byte of the file (no bytes need to exist there).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Many may hold it.
    Shared,
    /// One may hold it.
    Exclusive,
    /// None: also for the copies of the description that forked children have.
    Unlock,
}

/// The lock that serialises openers.
pub(crate) const OPENING: i64 = i64::MAX - 2;
/// The lock that every user of the store holds shared.
pub(crate) const USERS: i64 = i64::MAX - 1;

impl StoreFile {
    /// Opens (with `create`: or makes) a regular file for reading and writing, 0600, close-on-exec.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| Error::Os { call: "open", source })?;
        let meta = file.metadata().map_err(|source| Error::Os { call: "fstat", source })?;
        if !meta.file_type().is_file() || meta.file_type().is_fifo() {
            return Err(refused(path, "is not a regular file"));
        }
        let this = Self {
            id: FileId { dev: meta.dev(), ino: meta.ino() },
            file: Some(file),
            refusal: Refusal::default(),
        };
        if let Some(reason) = this.unfit_filesystem()? {
            return Err(refused(path, reason));
        }
        Ok(this)
    }

    fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or(Error::Damaged("the store is closed"))
    }

    /// Device and inode.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Whether the descriptor still is the file that was opened.
    pub(crate) fn is_same(&self) -> bool {
        self.file()
            .and_then(|f| f.metadata().map_err(|source| Error::Os { call: "fstat", source }))
            .is_ok_and(|m| (m.dev(), m.ino()) == (self.id.dev, self.id.ino))
    }

    /// Length, bytes.
    pub(crate) fn len(&self) -> Result<u64> {
        Ok(self.file()?.metadata().map_err(|source| Error::Os { call: "fstat", source })?.len())
    }

    /// Reads from `at` on, as much as there is.
    pub(crate) fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < buf.len() {
            match self.file()?.read_at(&mut buf[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Os { call: "pread", source }),
            }
        }
        Ok(done)
    }

    /// Writes at the start.
    pub(crate) fn write_start(&self, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        self.file()?.write_all_at(bytes, 0).map_err(|source| Error::Os { call: "pwrite", source })
    }

    /// Allocates `[from, to)` on disk behind the end of the file, or leaves the file as it was. What was refused is not
    /// tried again for a second, nor is more than that.
    pub(crate) fn grow(&self, from: u64, to: u64) -> Result<()> {
        self.refusal.ask(to - from)?;
        let done = self.allocate(from, to);
        self.refusal.note(to - from, &done);
        // ext4 keeps what a failed call had got already: give it back.
        if done.is_err() && self.len()? > from {
            let _ = self.truncate(from);
        }
        done
    }

    /// Makes sure that the first `len` bytes are allocated on disk: a copy may have holes, and writing to one of a full
    /// disk is SIGBUS.
    pub(crate) fn back(&self, len: u64) -> Result<()> {
        self.allocate(0, len)
    }

    fn allocate(&self, from: u64, to: u64) -> Result<()> {
        let _shield = Shield::raise();
        if !self.is_same() {
            return Err(Error::Damaged("the store's descriptor was closed by somebody else"));
        }
        if to > size_limit() {
            // The call itself would end the process with SIGXFSZ.
            return Err(Error::Os { call: "fallocate", source: io::Error::from_raw_os_error(libc::EFBIG) });
        }
        loop {
            // SAFETY: plain system call on an open descriptor.
            let rc = unsafe {
                libc::fallocate(self.as_raw_fd(), 0, from.cast_signed(), (to - from).cast_signed())
            };
            if rc == 0 {
                return Ok(());
            }
            let source = io::Error::last_os_error();
            if source.kind() != io::ErrorKind::Interrupted {
                return Err(Error::Os { call: "fallocate", source });
            }
        }
    }

    /// Gives the file the owner and the permissions of another one, as far as this process may.
    pub(crate) fn resemble(&self, other: &Self) -> Result<()> {
        let (mine, meta) = (self.file()?, other.file()?.metadata());
        let meta = meta.map_err(|source| Error::Os { call: "fstat", source })?;
        // Who may not give a file away keeps it, as with any new file.
        let _ = std::os::unix::fs::fchown(mine, Some(meta.uid()), Some(meta.gid()));
        mine.set_permissions(meta.permissions()).map_err(|source| Error::Os { call: "fchmod", source })
    }

    /// Sets the length.
    pub(crate) fn truncate(&self, len: u64) -> Result<()> {
        self.file()?.set_len(len).map_err(|source| Error::Os { call: "ftruncate", source })
    }

    /// Waits until everything is on disk.
    pub(crate) fn fsync(&self) -> Result<()> {
        let _shield = Shield::raise();
        if !self.is_same() {
            return Err(Error::Damaged("the store's descriptor was closed by somebody else"));
        }
        self.file()?.sync_all().map_err(|source| Error::Os { call: "fsync", source })
    }

    /// Takes or changes a lock of this open file description (forked children share it). `Ok(false)` = held by
    /// others and `wait` is false.
    pub(crate) fn lock(&self, byte: i64, lock: Lock, wait: bool) -> Result<bool> {
        let l_type = match lock {
            Lock::Shared => libc::F_RDLCK,
            Lock::Exclusive => libc::F_WRLCK,
            Lock::Unlock => libc::F_UNLCK,
        };
        // SAFETY: all-zero is a valid flock.
        let mut fl: libc::flock = unsafe { std::mem::zeroed() };
        fl.l_type = l_type as libc::c_short;
        fl.l_whence = libc::SEEK_SET as libc::c_short;
        fl.l_start = byte;
        fl.l_len = 1;
        let cmd = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
        loop {
            // SAFETY: `fl` is a valid flock and outlives the call.
            if unsafe { libc::fcntl(self.as_raw_fd(), cmd, &raw mut fl) } == 0 {
                return Ok(true);
            }
            let source = io::Error::last_os_error();
            match source.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::EACCES) if !wait => return Ok(false),
                _ => return Err(Error::Os { call: "fcntl(F_OFD_SETLK)", source }),
            }
        }
    }

    fn fs_type(&self) -> Option<u64> {
        // SAFETY: all-zero is a valid statfs; the descriptor is open.
        unsafe {
            let mut st: libc::statfs = std::mem::zeroed();
            (libc::fstatfs(self.as_raw_fd(), &raw mut st) == 0).then_some(st.f_type as u64 & 0xFFFF_FFFF)
        }
    }

    /// Why no store can be on this file system, if so: memory must be shared by all, and what `fallocate` has given must
    /// stay writable on a full disk.
    fn unfit_filesystem(&self) -> Result<Option<&'static str>> {
        Ok(match self.fs_type().map_or(Fit::Good, fitness) {
            Fit::Good => None,
            Fit::Never(reason) => Some(reason),
            Fit::InPlaceOnly if self.len()? == 0 && self.write_in_place() => None,
            Fit::InPlaceOnly if self.inode_flags().is_some_and(|flags| flags & NOCOW != 0) => None,
            Fit::InPlaceOnly => Some(
                "is on btrfs and copied on every write: make its directory `chattr +C` and let it be made there",
            ),
        })
    }

    fn inode_flags(&self) -> Option<libc::c_int> {
        let mut flags: libc::c_int = 0;
        // SAFETY: the call writes one int (whatever the request's number says), and `flags` is one.
        (unsafe { libc::ioctl(self.as_raw_fd(), GET_FLAGS, &raw mut flags) } == 0).then_some(flags)
    }

    /// Asks for an empty file's blocks to be written in place, not copied on write.
    fn write_in_place(&self) -> bool {
        let Some(old) = self.inode_flags() else { return false };
        let flags = old | NOCOW;
        // SAFETY: the call reads one int.
        let set = unsafe { libc::ioctl(self.as_raw_fd(), SET_FLAGS, &raw const flags) } == 0;
        set && self.inode_flags().is_some_and(|flags| flags & NOCOW != 0)
    }
}

/// `FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS` and `FS_NOCOW_FL` of linux/fs.h.
const GET_FLAGS: libc::c_ulong = 0x8008_6601;
const SET_FLAGS: libc::c_ulong = 0x4008_6602;
const NOCOW: libc::c_int = 0x0080_0000;

/// What a file system is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Good,
    /// Only files that are not copied on write.
    InPlaceOnly,
    /// No store; why.
    Never(&'static str),
}

/// By the magic numbers of linux/magic.h and of the modules outside of the kernel.
fn fitness(fs_type: u64) -> Fit {
    match fs_type {
        0x6969 => Fit::Never("is on NFS, which cannot share memory between processes safely"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => {
            Fit::Never("is on CIFS/SMB, which cannot share memory between processes safely")
        }
        0x6573_5546 => Fit::Never("is on FUSE, which cannot share memory between processes safely"),
        0x0102_1997 => Fit::Never("is on 9p, which cannot share memory between processes safely"),
        0x2FC1_2FC1 => Fit::Never("is on ZFS, which copies on write: a full disk would be a bus error"),
        0xCA45_1A4E => Fit::Never("is on bcachefs, which copies on write: a full disk would be a bus error"),
        0x9123_683E => Fit::InPlaceOnly,
        _ => Fit::Good,
    }
}

/// The longest file that this process may write, bytes.
fn size_limit() -> u64 {
    // SAFETY: all-zero is a valid rlimit, which the call fills in.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) == 0 { limit.rlim_cur } else { u64::MAX }
    }
}

/// Waits until the names in the directory of `path` are on disk.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let _shield = Shield::raise();
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let done = File::open(parent).and_then(|dir| dir.sync_all());
    done.map_err(|source| Error::Os { call: "fsync of the directory", source })
}

impl AsRawFd for StoreFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        // Closing may block, too.
        let _shield = Shield::raise();
        let is_same = self.is_same();
        match self.file.take() {
            // The number belongs to somebody else by now: closing it would be theft.
            Some(file) if !is_same => drop(std::os::fd::IntoRawFd::into_raw_fd(file)),
            mine => drop(mine),
        }
    }
}

pub(crate) fn refused(path: &Path, reason: &str) -> Error {
    Error::Store { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_that_cannot_keep_a_store_are_told_apart() {
        for magic in [0x6969, 0xFF53_4D42, 0xFE53_4D42, 0x6573_5546, 0x0102_1997, 0x2FC1_2FC1, 0xCA45_1A4E] {
            assert!(matches!(fitness(magic), Fit::Never(_)), "{magic:x}");
        }
        assert_eq!(fitness(0x9123_683E), Fit::InPlaceOnly);
        // ext4, xfs, tmpfs, overlayfs.
        for magic in [0xEF53, 0x5846_5342, 0x0102_1994, 0x794C_7630] {
            assert_eq!(fitness(magic), Fit::Good, "{magic:x}");
        }
    }
}
