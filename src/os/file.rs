//! Store files: opening, locking between processes, growing.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use crate::error::{Error, Result};

/// An open store file; its descriptor is checked before every use, because a host may close and reuse it.
#[derive(Debug)]
pub(crate) struct StoreFile {
    /// `None` only while dropping.
    file: Option<File>,
    id: FileId,
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
        let this = Self { id: FileId { dev: meta.dev(), ino: meta.ino() }, file: Some(file) };
        if let Some(name) = this.unfit_filesystem() {
            return Err(refused(
                path,
                &format!("is on {name}, which cannot share memory between processes safely"),
            ));
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

    /// Reads from the start, as much as there is.
    pub(crate) fn read_start(&self, buf: &mut [u8]) -> Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < buf.len() {
            match self.file()?.read_at(&mut buf[done..], done as u64) {
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

    /// Allocates `[from, to)` on disk, or leaves the file as it was.
    pub(crate) fn grow(&self, from: u64, to: u64) -> Result<()> {
        if !self.is_same() {
            return Err(Error::Damaged("the store's descriptor was closed by somebody else"));
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
            if source.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            // ext4 keeps what a failed call had got already: give it back.
            if self.len()? > from {
                let _ = self.truncate(from);
            }
            return Err(Error::Os { call: "fallocate", source });
        }
    }

    /// Sets the length.
    pub(crate) fn truncate(&self, len: u64) -> Result<()> {
        self.file()?.set_len(len).map_err(|source| Error::Os { call: "ftruncate", source })
    }

    /// Waits until everything is on disk.
    pub(crate) fn fsync(&self) -> Result<()> {
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

    /// Whether the file lies on tmpfs (where reading a hole of a full file system is SIGBUS: never punch one).
    pub(crate) fn on_tmpfs(&self) -> bool {
        self.fs_type() == Some(0x0102_1994)
    }

    fn fs_type(&self) -> Option<u64> {
        // SAFETY: all-zero is a valid statfs; the descriptor is open.
        unsafe {
            let mut st: libc::statfs = std::mem::zeroed();
            (libc::fstatfs(self.as_raw_fd(), &raw mut st) == 0).then_some(st.f_type as u64 & 0xFFFF_FFFF)
        }
    }

    fn unfit_filesystem(&self) -> Option<&'static str> {
        match self.fs_type()? {
            0x6969 => Some("NFS"),
            0xFF53_4D42 | 0xFE53_4D42 | 0x517B => Some("CIFS/SMB"),
            0x6573_5546 => Some("FUSE"),
            0x0102_1997 => Some("9p"),
            _ => None,
        }
    }
}

impl AsRawFd for StoreFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        if !self.is_same() {
            // The number belongs to somebody else by now: closing it would be theft.
            if let Some(file) = self.file.take() {
                let _ = std::os::fd::IntoRawFd::into_raw_fd(file);
            }
        }
    }
}

pub(crate) fn refused(path: &Path, reason: &str) -> Error {
    Error::Store { path: path.to_owned(), reason: reason.to_owned() }
}
