//! Which file systems can hold a store. Memory must be shared between all processes that map a
//! file, and space allocated by `fallocate` must stay writable on a full disk. File systems known
//! to do both, or known not to, are listed; for others the operator has to vouch
//! (`store_fs=trust`).

use std::{
    fs::{self, File},
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// An overlay is judged by its upper file system, which receives the writes.
const OVERLAY: u64 = 0x794C_7630;

/// Whether a file system can hold a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Good,
    /// Only files that are not copied on write (btrfs).
    InPlaceOnly,
    /// Known to be unsuitable.
    Never(&'static str),
    /// Not known.
    Unknown(u64),
}

/// By the magic numbers of linux/magic.h and of out-of-tree modules.
pub(super) fn fitness(fs_type: u64) -> Fit {
    match fs_type {
        // ext2, ext3, ext4; XFS; tmpfs; F2FS.
        0xEF53 | 0x5846_5342 | 0x0102_1994 | 0xF2F5_2010 => Fit::Good,
        0x9123_683E => Fit::InPlaceOnly,
        0x6969 => Fit::Never("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => Fit::Never("CIFS/SMB"),
        0x6573_5546 => Fit::Never("FUSE"),
        0x0102_1997 => Fit::Never("9p"),
        0x00C3_6400 => Fit::Never("CephFS"),
        0x0116_1970 => Fit::Never("GFS2"),
        0x7461_636F => Fit::Never("OCFS2"),
        0x0BD0_0BD0 => Fit::Never("Lustre"),
        0x4750_4653 => Fit::Never("GPFS"),
        0x5346_414F | 0x6B41_4653 => Fit::Never("AFS"),
        0x786F_4256 => Fit::Never("vboxsf"),
        0xBACB_ACBC => Fit::Never("hgfs"),
        0x2FC1_2FC1 => Fit::Never("ZFS"),
        0xCA45_1A4E => Fit::Never("bcachefs"),
        other => Fit::Unknown(other),
    }
}

/// The fitness of the file system of an open file.
pub(super) fn of(file: &File) -> Result<Fit> {
    let st = statfs(file.as_raw_fd()).ok_or_else(|| Error::last_os("fstatfs"))?;
    if magic(&st) != OVERLAY {
        return Ok(fitness(magic(&st)));
    }
    // In a container the upper file system may have no name: kernels accept hardly any but local
    // ones.
    Ok(upper(file, &st).map_or(Fit::Good, fitness))
}

impl Fit {
    /// Why it cannot hold a store, if so. `in_place`: the file is not copied on write.
    pub(super) fn reason(self, in_place: bool) -> Option<String> {
        const SHARED: &str = "which cannot share memory between processes safely";
        const COPIES: &str = "which copies on write: a full disk would raise SIGBUS";
        match self {
            Self::Good => None,
            Self::InPlaceOnly if in_place => None,
            Self::InPlaceOnly => Some(
                "is on btrfs and copied on every write: set `chattr +C` on its directory and let ucache create it there"
                    .to_owned(),
            ),
            Self::Never(name @ ("ZFS" | "bcachefs")) => Some(format!("is on {name}, {COPIES}")),
            Self::Never(name) => Some(format!("is on {name}, {SHARED}")),
            Self::Unknown(magic) => {
                Some(format!("is on a file system of unknown suitability (type {magic:x})"))
            }
        }
    }
}

fn statfs(fd: RawFd) -> Option<libc::statfs> {
    // SAFETY: all-zero is a valid statfs, which the call fills in.
    unsafe {
        let mut st: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(fd, &raw mut st) == 0).then_some(st)
    }
}

fn magic(st: &libc::statfs) -> u64 {
    st.f_type as u64 & 0xFFFF_FFFF
}

/// The type of an overlay's upper file system, found by its directory or by a mount that a
/// container engine made from the same one. (Other mounts are not touched: that of a dead server
/// never answers.)
fn upper(file: &File, overlay: &libc::statfs) -> Option<u64> {
    let at = |path: &Path| File::open(path).ok().and_then(|dir| statfs(dir.as_raw_fd()));
    if let Some(st) = upper_directory(file).and_then(|path| at(&path)) {
        return Some(magic(&st));
    }
    // An overlay reports the numbers of its upper file system.
    let same = |st: &libc::statfs| {
        st.f_blocks != 0
            && (st.f_blocks, st.f_bsize, st.f_files) == (overlay.f_blocks, overlay.f_bsize, overlay.f_files)
    };
    ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
        .iter()
        .filter_map(|path| at(Path::new(path)))
        .find(|st| same(st) && magic(st) != OVERLAY)
        .map(|st| magic(&st))
}

/// Read from the options of the mount that the file was opened on.
fn upper_directory(file: &File) -> Option<PathBuf> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').next() == Some(id))?;
    let (_, options) = mount.split_once(" - overlay ")?;
    let text = options.split(' ').nth(1)?.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
    Some(unescaped(text).into())
}

/// Decodes the octal escapes of blanks and backslashes.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escape, byte)| text.replace(escape, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_that_can_keep_a_store_are_listed() {
        // ext4, xfs, tmpfs, f2fs.
        for magic in [0xEF53, 0x5846_5342, 0x0102_1994, 0xF2F5_2010] {
            assert_eq!(fitness(magic).reason(false), None, "{magic:x}");
        }
        // NFS, CIFS, SMB, FUSE, 9p, ZFS, bcachefs, Ceph, GFS2, OCFS2, Lustre, ramfs, and an unknown
        // one.
        for magic in [
            0x6969,
            0xFF53_4D42,
            0xFE53_4D42,
            0x6573_5546,
            0x0102_1997,
            0x2FC1_2FC1,
            0xCA45_1A4E,
            0x00C3_6400,
            0x0116_1970,
            0x7461_636F,
            0x0BD0_0BD0,
            0x8584_58F6,
            0x1234_5678,
        ] {
            assert!(fitness(magic).reason(true).is_some(), "{magic:x}");
        }
        assert_eq!(fitness(0x9123_683E).reason(true), None);
        assert!(fitness(0x9123_683E).reason(false).is_some_and(|why| why.contains("chattr +C")));
    }

    #[test]
    fn names_in_the_list_of_mounts_are_read() {
        assert_eq!(unescaped("/a\\040b/c\\134d"), "/a b/c\\d");
    }
}
