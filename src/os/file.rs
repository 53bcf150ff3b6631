//! Store files: opening, locking between processes, growing.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed},
};

use super::{
    cancel::Shield,
    clock,
    descriptor::above_standard,
    dir_entry::{DirEntry, FileId},
    filesystem::{self, Fit},
};
use crate::error::{Error, Result, StoreFault};

/// An open store file; its descriptor is checked before every use, because a host may close and
/// reuse it.
#[derive(Debug)]
pub(crate) struct StoreFile {
    /// `None` only while dropping.
    file: Option<File>,
    id: FileId,
    refusal: Refusal,
    /// Whether this process has just created it.
    made: bool,
    /// Whether space is allocated by writing zeros where the file system has no `fallocate`.
    zeros: bool,
}

/// The last growth that the file system refused. Some file systems take long to refuse, so a
/// request of that size or more is not repeated for a while. Per process; a race costs one more
/// request at worst.
#[derive(Debug, Default)]
struct Refusal {
    /// Bytes requested.
    size: AtomicU64,
    /// When to try again, milliseconds of the monotonic clock; 0 = nothing was refused.
    until: AtomicU64,
    /// The error.
    errno: AtomicI32,
}

/// How often to retry opening a file that other processes create and remove.
const TRIES: usize = 100;
/// How long a refusal is remembered, milliseconds.
const REMEMBERED: u64 = 1000;

impl Refusal {
    fn now() -> u64 {
        u64::try_from(clock::monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// `Ok` if this many bytes may be requested now; otherwise the error of the last refusal.
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

/// The kind of lock on a byte of the file (the byte need not exist).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Many may hold it.
    Shared,
    /// One may hold it.
    Exclusive,
    /// No lock. This also releases it for forked children, which share the file description.
    Unlock,
}

/// The lock that serialises openers.
pub(crate) const OPENING: i64 = i64::MAX - 2;
/// The lock that every user of the store holds shared.
pub(crate) const USERS: i64 = i64::MAX - 1;

impl StoreFile {
    /// Opens a regular file for reading and writing, close-on-exec; with `create` it is created
    /// (0600) if missing. An existing file may be reached through links; a new one is created where
    /// [`DirEntry`] allows it.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self> {
        for _ in 0..TRIES {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path);
            match file {
                Err(e) if create && e.kind() == io::ErrorKind::NotFound => {}
                file => {
                    let file = file.map_err(|source| Error::Os { call: "open", source })?;
                    return Self::new(path, file, false);
                }
            }
            let entry = DirEntry::of(path)?;
            entry.check_links(None)?;
            match entry.create() {
                // Another process created it first.
                Err(Error::Os { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                file => return Self::new(path, file?, true),
            }
        }
        Err(Error::store(path, StoreFault::Moved))
    }

    /// Opens the file of an entry; a symbolic link is an error.
    pub(crate) fn open_at(entry: &DirEntry) -> Result<Self> {
        Self::new(entry.path(), entry.open()?, false)
    }

    /// Creates the file of an entry, which must not exist.
    pub(crate) fn make_at(entry: &DirEntry) -> Result<Self> {
        Self::new(entry.path(), entry.create()?, true)
    }

    fn new(path: &Path, file: File, made: bool) -> Result<Self> {
        // No lock is held yet, which closing the original would release.
        let file = above_standard(file).map_err(|source| Error::Os { call: "dup", source })?;
        let meta = file.metadata().map_err(|source| Error::Os { call: "fstat", source })?;
        if !meta.file_type().is_file() {
            return Err(Error::store(path, StoreFault::NotAFile));
        }
        let id = FileId { dev: meta.dev(), ino: meta.ino() };
        Ok(Self { id, file: Some(file), refusal: Refusal::default(), made, zeros: false })
    }

    fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or(Error::Damaged("the store is closed"))
    }

    /// Device and inode.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Whether this process has just created it.
    pub(crate) fn is_made(&self) -> bool {
        self.made
    }

    /// Whether the descriptor still refers to the file that was opened.
    pub(crate) fn is_same(&self) -> bool {
        self.check_same().is_ok()
    }

    /// [`StoreFile::is_same`] as a `Result`.
    pub(super) fn check_same(&self) -> Result<()> {
        match self.file()?.metadata() {
            Ok(m) if (m.dev(), m.ino()) == (self.id.dev, self.id.ino) => Ok(()),
            Err(source) if source.raw_os_error() != Some(libc::EBADF) => {
                Err(Error::Os { call: "fstat", source })
            }
            _ => Err(Error::Damaged("the store's file descriptor was closed outside of ucache")),
        }
    }

    /// Length, bytes.
    pub(crate) fn len(&self) -> Result<u64> {
        Ok(self.file()?.metadata().map_err(|source| Error::Os { call: "fstat", source })?.len())
    }

    /// Bytes of the blocks that it has on disk.
    pub(crate) fn disk(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        // In units of 512 bytes on every file system.
        Ok(self.file()?.metadata().map_err(|source| Error::Os { call: "fstat", source })?.blocks() * 512)
    }

    /// Reads from `at` on, up to the end of the file or of the buffer.
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
        self.write(bytes, 0)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        use std::os::unix::fs::FileExt;
        self.check_limit("pwrite", at + bytes.len() as u64)?;
        self.file()?.write_all_at(bytes, at).map_err(|source| Error::Os { call: "pwrite", source })
    }

    /// Allocates `[from, to)` on disk behind the end of the file; on failure the file is left as it
    /// was. A refused size, and any larger one, is not tried again for a second.
    pub(crate) fn grow(&self, from: u64, to: u64) -> Result<()> {
        self.refusal.ask(to - from)?;
        let done = self.allocate(from, to);
        self.refusal.note(to - from, &done);
        // ext4 keeps the blocks that a failed call has allocated already: free them.
        if done.is_err() && self.len()? > from {
            let _ = self.truncate(from);
        }
        done
    }

    /// Frees the blocks on disk of a piece of the file, which reads as zeros afterwards; `false` =
    /// this file system cannot do that.
    pub(crate) fn punch_hole(&self, from: u64, len: u64) -> bool {
        let _shield = Shield::raise();
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain system call on an open descriptor.
        self.check_same().is_ok()
            && unsafe { libc::fallocate(self.as_raw_fd(), mode, from.cast_signed(), len.cast_signed()) } == 0
    }

    /// Makes sure that the bytes from `from` to `to` are allocated on disk: a copy may have holes,
    /// and writing to one on a full disk raises SIGBUS.
    pub(crate) fn back(&self, from: u64, to: u64) -> Result<()> {
        self.allocate(from, to)
    }

    /// Allocates a part of the file that lies before its end; what is there stays. A refused size,
    /// and any larger one, is not tried again for a second.
    pub(crate) fn reserve(&self, from: u64, to: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        self.refusal.ask(to - from)?;
        let done = self.allocate(from, to);
        if done.is_err() {
            self.refusal.note(to - from, &done);
        }
        done
    }

    /// Allocates a part of the file that lies before its end and was never used.
    pub(crate) fn grow_table(&self, from: u64, to: u64) -> Result<()> {
        if self.zeros { self.write_all_zeros(from, to) } else { self.allocate(from, to) }
    }

    fn allocate(&self, from: u64, to: u64) -> Result<()> {
        let _shield = Shield::raise();
        self.check_same()?;
        self.check_limit("fallocate", to)?;
        if from >= to {
            return Ok(());
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
            if self.zeros && source.raw_os_error() == Some(libc::EOPNOTSUPP) {
                return self.write_zeros(from, to);
            }
            if source.kind() != io::ErrorKind::Interrupted {
                return Err(Error::Os { call: "fallocate", source });
            }
        }
    }

    /// Replaces `fallocate` where it is missing. Existing content stays unchanged and may have
    /// holes.
    fn write_zeros(&self, from: u64, to: u64) -> Result<()> {
        self.write_all_zeros(from.max(self.len()?), to)
    }

    fn write_all_zeros(&self, from: u64, to: u64) -> Result<()> {
        const PIECE: u64 = 1 << 16;
        let zeros = [0; PIECE as usize];
        let mut at = from;
        while at < to {
            let n = PIECE.min(to - at);
            self.write(&zeros[..n as usize], at)?;
            at += n;
        }
        Ok(())
    }

    /// Checks `len` against RLIMIT_FSIZE: exceeding it in the call itself would raise SIGXFSZ.
    fn check_limit(&self, call: &'static str, len: u64) -> Result<()> {
        // Existing content beyond a limit set later may still be written.
        if len > size_limit() && len > self.len()? {
            return Err(Error::Os { call, source: io::Error::from_raw_os_error(libc::EFBIG) });
        }
        Ok(())
    }

    /// Gives the file, created as `entry`, the permissions of `other`, and its owner if that is
    /// safe: the owner is this process's user or owns the directory, or nobody else can have put
    /// the old file there. Returns a message if the owner was not kept.
    pub(crate) fn resemble(&self, other: &Self, entry: &DirEntry) -> Result<Option<String>> {
        let (mine, meta, dir) = (self.file()?, other.file()?.metadata(), entry.directory()?);
        let meta = meta.map_err(|source| Error::Os { call: "fstat", source })?;
        // SAFETY: geteuid always succeeds.
        let own = unsafe { libc::geteuid() };
        let private = [0, own].contains(&dir.uid()) && dir.mode() & 0o022 == 0 || dir.mode() & 0o1000 != 0;
        let mut note = None;
        if meta.uid() == own || meta.uid() == dir.uid() || private {
            // Without the privilege to change the owner the file stays ours, like any new file.
            let _ = std::os::unix::fs::fchown(mine, Some(meta.uid()), Some(meta.gid()));
        } else {
            note = Some(format!(
                "belonged to user {}, who does not own its directory, and belongs to user {own} now",
                meta.uid()
            ));
        }
        let mode = Permissions::from_mode(meta.mode() & 0o777);
        mine.set_permissions(mode).map_err(|source| Error::Os { call: "fchmod", source })?;
        Ok(note)
    }

    /// Its number of hard links.
    pub(crate) fn names(&self) -> Result<u64> {
        Ok(self.file()?.metadata().map_err(|source| Error::Os { call: "fstat", source })?.nlink())
    }

    /// User id of the owner.
    pub(crate) fn owner(&self) -> Result<u32> {
        Ok(self.file()?.metadata().map_err(|source| Error::Os { call: "fstat", source })?.uid())
    }

    /// Copies the whole file to a new one, 0600.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the command makes copies"))]
    pub(crate) fn copy_to(&self, path: &Path) -> io::Result<()> {
        let mut from = self.file().map_err(io::Error::from)?;
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        io::copy(&mut from, &mut to).map(|_| ())
    }

    /// Sets the length.
    pub(crate) fn truncate(&self, len: u64) -> Result<()> {
        self.file()?.set_len(len).map_err(|source| Error::Os { call: "ftruncate", source })
    }

    /// Waits until everything is on disk.
    pub(crate) fn fsync(&self) -> Result<()> {
        let _shield = Shield::raise();
        self.check_same()?;
        self.file()?.sync_all().map_err(|source| Error::Os { call: "fsync", source })
    }

    /// Takes or changes a lock of this open file description (forked children share it).
    /// `Ok(false)` = others hold it and `wait` is false.
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

    /// Refuses a file system that is not known to be safe, unless `trust` is set (then the reason
    /// is returned). A file that was just created there is removed again.
    pub(crate) fn check_filesystem(&mut self, path: &Path, trust: bool) -> Result<Option<String>> {
        let fit = filesystem::of(self.file()?)?;
        let flags = || self.inode_flags().is_some_and(|flags| flags & NOCOW != 0);
        let in_place = fit == Fit::InPlaceOnly && (self.len()? == 0 && self.write_in_place() || flags());
        let Some(reason) = fit.reason(in_place) else { return Ok(None) };
        if trust {
            self.zeros = true;
            return Ok(Some(format!("{reason}; used anyway (store_fs=trust)")));
        }
        if self.made && self.len()? == 0 {
            DirEntry::remove_only(path, self.id);
        }
        Err(Error::store(path, StoreFault::FileSystem { reason }))
    }

    fn inode_flags(&self) -> Option<libc::c_int> {
        let mut flags: libc::c_int = 0;
        // SAFETY: the call writes one int (although the request's number encodes a long), and
        // `flags` is one.
        (unsafe { libc::ioctl(self.as_raw_fd(), GET_FLAGS, &raw mut flags) } == 0).then_some(flags)
    }

    /// Requests that an empty file's blocks are written in place, not copied on write.
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

/// The longest file that this process may write, bytes.
fn size_limit() -> u64 {
    // SAFETY: all-zero is a valid rlimit, which the call fills in.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) == 0 { limit.rlim_cur } else { u64::MAX }
    }
}

/// Makes exceeding RLIMIT_FSIZE an error of the write, instead of a signal that ends the process.
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "a program's own decision: only the command makes it")
)]
pub(crate) fn report_size_limit() {
    // SAFETY: ignoring the signal runs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
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
            // The descriptor now belongs to other code: do not close it.
            Some(file) if !is_same => drop(std::os::fd::IntoRawFd::into_raw_fd(file)),
            mine => drop(mine),
        }
    }
}
