//! The location of a file: its directory, kept open, and its name there. If the path changes
//! meanwhile, files are still created, removed and renamed in the directory that was meant.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::MetadataExt,
        },
    },
    path::{Path, PathBuf},
};

use crate::error::{Error, Result, StoreFault};

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    /// Device.
    pub(crate) dev: u64,
    /// Inode.
    pub(crate) ino: u64,
}

/// A symbolic link made by a user who is neither root nor the user of this process. It is not
/// followed to where its owner has no rights.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    owner: u32,
    /// In a directory where everybody may make links (`/tmp`): never followed, as with the kernel's
    /// fs.protected_symlinks.
    nowhere: bool,
}

impl Stranger {
    fn of(link: &Metadata, dir: &Metadata) -> Option<Self> {
        let owner = link.uid();
        // SAFETY: geteuid always succeeds.
        let own = owner == 0 || owner == unsafe { libc::geteuid() };
        (!own).then_some(Self { owner, nowhere: dir.mode() & 0o1002 == 0o1002 && owner != dir.uid() })
    }

    /// Whether the link gives its owner no new access, because its target already belongs to `uid`.
    fn owns(self, uid: u32) -> bool {
        self.owner == uid && !self.nowhere
    }
}

/// Links followed in a row, the same number as in the kernel.
const MOST_LINKS: usize = 40;

/// A name in an open directory; the file need not exist.
#[derive(Debug)]
pub(crate) struct DirEntry {
    /// Opened with O_PATH: it need not be readable.
    dir: File,
    name: OsString,
    path: PathBuf,
    /// Links of other users on the way here.
    strangers: Vec<Stranger>,
}

impl DirEntry {
    /// Resolves a path; its last component is followed if it is a link.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let (mut path, mut links) = (path.to_owned(), Vec::new());
        for _ in 0..MOST_LINKS {
            let Some(name) = path.file_name().map(OsStr::to_owned) else {
                return Err(Error::store(&path, StoreFault::NotAFile));
            };
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let dir = os("open of the directory", open_at(libc::AT_FDCWD, parent.as_os_str(), DIRECTORY, 0))?;
            let Some((link, to)) = link_at(&dir, &name)? else {
                let above = os("fstat", dir.metadata())?;
                // The owner of the directory could create the file there without a link.
                let strangers = links.into_iter().filter(|link: &Stranger| !link.owns(above.uid())).collect();
                return Ok(Self { dir, name, path, strangers });
            };
            links.extend(Stranger::of(&link, &os("fstat", dir.metadata())?));
            path = parent.join(to);
        }
        Err(Error::Os { call: "open", source: io::Error::from_raw_os_error(libc::ELOOP) })
    }

    /// Another name in the same directory.
    pub(crate) fn beside(&self, suffix: &str) -> Result<Self> {
        let (mut name, mut path) = (self.name.clone(), self.path.clone().into_os_string());
        name.push(suffix);
        path.push(suffix);
        let dir = os("dup", self.dir.try_clone())?;
        Ok(Self { dir, name, path: path.into(), strangers: self.strangers.clone() })
    }

    /// The path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's owner and permissions.
    pub(super) fn directory(&self) -> Result<Metadata> {
        os("fstat", self.dir.metadata())
    }

    /// The owner of a link to a place where that user has no rights.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "for what the command writes"))]
    pub(crate) fn stranger(&self) -> Option<u32> {
        self.strangers.first().map(|stranger| stranger.owner)
    }

    /// Refuses to create something that only another user's link leads to: that user would choose
    /// the place, and the rights of this process would be used. `owner` is the owner of the
    /// existing file.
    pub(crate) fn check_links(&self, owner: Option<u32>) -> Result<()> {
        match self.strangers.iter().find(|stranger| !owner.is_some_and(|owner| stranger.owns(owner))) {
            None => Ok(()),
            Some(stranger) => {
                Err(Error::store(&self.path, StoreFault::ForeignLink { owner: stranger.owner }))
            }
        }
    }

    /// Creates the file, 0600, which must not exist; a link counts as existing.
    pub(super) fn create(&self) -> Result<File> {
        os("open", open_at(self.dir.as_raw_fd(), &self.name, OPEN | libc::O_CREAT | libc::O_EXCL, 0o600))
    }

    /// Opens the file itself; a link is an error.
    pub(super) fn open(&self) -> Result<File> {
        os("open", open_at(self.dir.as_raw_fd(), &self.name, OPEN, 0))
    }

    /// The file that has the name now; `None` = there is none, or a link.
    pub(crate) fn id(&self) -> Option<FileId> {
        let file = open_at(self.dir.as_raw_fd(), &self.name, libc::O_PATH | libc::O_NOFOLLOW, 0).ok()?;
        let meta = file.metadata().ok().filter(|meta| !meta.file_type().is_symlink())?;
        Some(FileId { dev: meta.dev(), ino: meta.ino() })
    }

    /// Removes the name.
    pub(crate) fn remove(&self) -> Result<()> {
        let name = c_string(&self.name)?;
        // SAFETY: an open directory and a string that ends with a NUL.
        done("unlink", unsafe { libc::unlinkat(self.dir.as_raw_fd(), name.as_ptr(), 0) })
    }

    /// Removes the file of a path, if it is still this one. Nothing is lost if it stays.
    pub(crate) fn remove_only(path: &Path, id: FileId) {
        if let Ok(entry) = Self::of(path)
            && entry.id() == Some(id)
        {
            let _ = entry.remove();
        }
    }

    /// Gives the file the name of `other`, replacing what had it.
    pub(crate) fn rename_to(&self, other: &Self) -> Result<()> {
        let (from, to) = (c_string(&self.name)?, c_string(&other.name)?);
        let (at, other) = (self.dir.as_raw_fd(), other.dir.as_raw_fd());
        // SAFETY: open directories and strings that end with a NUL.
        done("rename", unsafe { libc::renameat(at, from.as_ptr(), other, to.as_ptr()) })
    }

    /// Adds the name of `other`, which must be free.
    pub(crate) fn link_to(&self, other: &Self) -> Result<()> {
        let (from, to) = (c_string(&self.name)?, c_string(&other.name)?);
        let (at, other) = (self.dir.as_raw_fd(), other.dir.as_raw_fd());
        // SAFETY: as above.
        done("link", unsafe { libc::linkat(at, from.as_ptr(), other, to.as_ptr(), 0) })
    }

    /// Waits until the directory's entries are on disk.
    pub(crate) fn sync_names(&self) -> Result<()> {
        let readable = libc::O_RDONLY | libc::O_DIRECTORY;
        let dir = open_at(self.dir.as_raw_fd(), OsStr::new("."), readable, 0);
        os("fsync of the directory", dir.and_then(|dir| dir.sync_all()))
    }
}

const DIRECTORY: libc::c_int = libc::O_PATH | libc::O_DIRECTORY;
const OPEN: libc::c_int = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

fn os<T>(call: &'static str, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Os { call, source })
}

fn done(call: &'static str, rc: libc::c_int) -> Result<()> {
    if rc == 0 { Ok(()) } else { Err(Error::last_os(call)) }
}

fn c_string(name: &OsStr) -> Result<CString> {
    CString::new(name.as_bytes())
        .map_err(|_| Error::Os { call: "open", source: io::ErrorKind::InvalidInput.into() })
}

fn open_at(dir: libc::c_int, name: &OsStr, flags: libc::c_int, mode: libc::c_uint) -> io::Result<File> {
    let name = CString::new(name.as_bytes())?;
    loop {
        // SAFETY: a string that ends with a NUL; `dir` is an open directory or AT_FDCWD.
        let fd = unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        if fd >= 0 {
            // SAFETY: a new descriptor, owned by no other code.
            return Ok(unsafe { File::from_raw_fd(fd) });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The link of this name and its target; `None` = not a link, or nothing there.
fn link_at(dir: &File, name: &OsStr) -> Result<Option<(Metadata, PathBuf)>> {
    let link = match open_at(dir.as_raw_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => os("open", other)?,
    };
    let meta = os("fstat", link.metadata())?;
    if !meta.file_type().is_symlink() {
        return Ok(None);
    }
    let mut text = vec![0; libc::PATH_MAX as usize];
    // SAFETY: the link itself is open, hence the empty name; the buffer has the given length.
    let len = unsafe {
        libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), text.as_mut_ptr().cast::<libc::c_char>(), text.len())
    };
    let Ok(len) = usize::try_from(len) else { return Err(Error::last_os("readlink")) };
    text.truncate(len);
    Ok(Some((meta, OsString::from_vec(text).into())))
}
