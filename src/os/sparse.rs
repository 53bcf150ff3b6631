//! Files whose parts have blocks on disk only where they are used.

use std::{io, os::fd::AsRawFd};

use super::{cancel::Shield, file::StoreFile};
use crate::error::{Error, Result};

/// Whether the file system can allocate parts of the file (`fallocate`): otherwise all that will
/// be used must be written first.
pub(crate) fn can_reserve(file: &StoreFile) -> bool {
    let _shield = Shield::raise();
    // SAFETY: plain system call on an open descriptor.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, 1) } == 0;
    done || io::Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP)
}

/// Calls `f` with each piece between `from` and `to` that has data: all of them where the file
/// system cannot tell.
pub(crate) fn each_data(file: &StoreFile, from: u64, to: u64, mut f: impl FnMut(u64, u64)) -> Result<()> {
    let seek = |at: u64, whence: libc::c_int| {
        // SAFETY: plain system call on an open descriptor.
        let found = unsafe { libc::lseek(file.as_raw_fd(), at.cast_signed(), whence) };
        if found < 0 { Err(io::Error::last_os_error()) } else { Ok(found.cast_unsigned()) }
    };
    file.check_same()?;
    let mut at = from;
    while at < to {
        let data = match seek(at, libc::SEEK_DATA) {
            Ok(data) => data,
            // None behind it.
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => break,
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => at,
            Err(source) => return Err(Error::Os { call: "lseek", source }),
        };
        if data >= to {
            break;
        }
        let end = seek(data, libc::SEEK_HOLE).unwrap_or(to).clamp(data + 1, to);
        f(data, end);
        at = end;
    }
    // Whoever reads the file from its beginning.
    seek(0, libc::SEEK_SET).map(|_| ()).map_err(|source| Error::Os { call: "lseek", source })
}
