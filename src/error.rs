//! The one error type of the crate: what was wrong, and the limit that was hit.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What went wrong, with the value that was refused and the limit it hit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of a cache is out of its range or malformed.
    #[error("option {option}={value}: {reason}")]
    InvalidOption {
        /// The option as the user wrote it, for example `items`.
        option: &'static str,
        /// The value that was refused.
        value: String,
        /// The bound, or what was expected instead.
        reason: String,
    },
    /// The key has no bytes.
    #[error("the key is empty")]
    EmptyKey,
    /// The key is longer than the cache accepts.
    #[error("the key has {len} bytes, the limit is {limit}")]
    KeyTooLong {
        /// Length of the key, bytes.
        len: usize,
        /// The cache's limit, bytes.
        limit: usize,
    },
    /// The value has no bytes; an item holds at least one.
    #[error("the value is empty")]
    EmptyValue,
    /// The value is longer than the cache accepts.
    #[error("the value has {len} bytes, the limit is {limit}")]
    ValueTooLong {
        /// Length of the value, bytes.
        len: u64,
        /// The cache's limit, bytes.
        limit: u64,
    },
    /// Arithmetic on a value that is not an 8-byte number.
    #[error("the value has {len} bytes, a number has 8")]
    NotANumber {
        /// Length of the value, bytes.
        len: u64,
    },
    /// The value is not valid UTF-8.
    #[error("the value is not valid UTF-8")]
    NotUtf8,
    /// The value is not of the requested type, or a value cannot be written as bytes.
    #[error("the value does not fit its type: {0}")]
    Type(Box<dyn std::error::Error + Send + Sync>),
    /// The key exists and the call does not replace.
    #[error("the key exists")]
    Exists,
    /// All items are in use and nothing may be evicted.
    #[error("the cache is full: {limit} items")]
    Full {
        /// How many items the cache holds at most.
        limit: u64,
    },
    /// All blocks of a cache that counts blocks are in use.
    #[error("the cache is full: {need} blocks needed, {limit} in all")]
    OutOfBlocks {
        /// Blocks that the value needs.
        need: u64,
        /// Blocks of the cache.
        limit: u64,
    },
    /// No memory or disk space for an entry, though items are free.
    #[error("no space for {len} bytes in the cache's region")]
    NoSpace {
        /// Bytes requested.
        len: u64,
    },
    /// A lock was held by a live process for longer than `lock_timeout`, or a sweep's limit of 20 ms.
    #[error("a lock of the cache was not released within {waited:?}")]
    Timeout {
        /// The time limit that passed.
        waited: Duration,
    },
    /// The calling thread already holds this lock (a signal handler re-entered the cache).
    #[error("the calling thread is already inside this cache")]
    WouldDeadlock,
    /// The calling thread or process may not lock: it came by a bare `clone`, or is in another PID
    /// or time namespace. Reads still work.
    #[error("the calling process may not write to the cache: {0}")]
    ForeignProcess(&'static str),
    /// The holder of a lock is dead, and the kernel did not pass the lock on.
    #[error(
        "a lock of the cache belongs to thread {thread}, which is dead, and the kernel did not pass it on (out of memory, \
         before Linux 5.18): end all users of the cache"
    )]
    LockLost {
        /// Its thread id.
        thread: u32,
    },
    /// The caller's buffer is too small for the value.
    #[error("the value has {needed} bytes, the buffer {len}")]
    BufferTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes of the buffer.
        len: usize,
    },
    /// Another live cache of this process has the name.
    #[error("a cache named {0:?} exists in this process")]
    NameInUse(String),
    /// No cache of that name in this process.
    #[error("no cache named {0:?} in this process")]
    NoSuchCache(String),
    /// A store file cannot be used; it was left untouched.
    #[error("store {path}: {fault}", path = path.display())]
    Store {
        /// The store file.
        path: PathBuf,
        /// Why it cannot be used.
        fault: StoreFault,
    },
    /// The server behind a cache could not be used.
    #[error("backend {server}: {fault}")]
    Backend {
        /// Its address, without user and password.
        server: String,
        /// What went wrong.
        fault: BackendFault,
    },
    /// The region is in a state that recovery could not mend.
    #[error("the cache's region is damaged: {0}")]
    Damaged(&'static str),
    /// A system call failed.
    #[error("{call}: {source}")]
    Os {
        /// The system call.
        call: &'static str,
        /// Its error.
        r#source: io::Error,
    },
}

/// Why a store file cannot be used. Where two values disagree, both are given. Unless a fault says
/// otherwise, the file was left untouched.
///
/// ```
/// use ucache::{Cache, Error, StoreFault};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("diary");
/// std::fs::write(&path, "dear diary")?;
/// let refused = Cache::attach(&path);
/// assert!(matches!(refused, Err(Error::Store { fault: StoreFault::NotAStore, .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// The file does not begin as a store does.
    #[error("is not a ucache store")]
    NotAStore,
    /// The file has the size of a native uWSGI store with the settings given, but no valid item.
    #[error(
        "is not a ucache store; it has the size of a native uWSGI store with these settings, but none of its {items} \
         items is valid"
    )]
    NotNative {
        /// Items that were looked at.
        items: u64,
    },
    /// It holds copies of values that are at a server: only a cache with that backend may use it.
    #[error("holds copies of values that are at a server: give the cache its backend, or name another file")]
    Copies,
    /// It holds values of its own, which a cache with a backend would drop.
    #[error("holds values of its own, and a cache with a backend holds copies: name another file")]
    Values,
    /// The path names a directory, a device or a pipe, or no file at all.
    #[error("is not a regular file")]
    NotAFile,
    /// Another process replaces or removes the file again and again, or did so while it was opened.
    #[error("was replaced or removed by another process meanwhile")]
    Moved,
    /// The store was made on a machine with the other byte order.
    #[error("was made on a machine with the other byte order")]
    ByteOrder,
    /// The store has another format version.
    #[error("has format {found}, this build reads {supported}")]
    Format {
        /// Of the file.
        found: u64,
        /// Of this build.
        supported: u64,
    },
    /// The store was made by a build with another layout of the same format (another C library or
    /// architecture).
    #[error("has layout {found:016x}, this build has {supported:016x}")]
    Layout {
        /// Digest of the file's layout.
        found: u64,
        /// Digest of this build's layout.
        supported: u64,
    },
    /// The process that created the store died before it was complete.
    #[error("is incomplete: its creator died")]
    Unfinished,
    /// A checksum is wrong, or values contradict each other.
    #[error("has a damaged {part}")]
    Damaged {
        /// `header`, `geometry` or `limits`.
        part: &'static str,
    },
    /// The file is shorter than its header says.
    #[error("is cut off: {len} bytes of {expected}")]
    Truncated {
        /// Bytes of the file.
        len: u64,
        /// Bytes that the header promises.
        expected: u64,
    },
    /// Another process has been opening the store all this time.
    #[error("another process has been opening it for {waited:?}")]
    Opening {
        /// How long this process waited.
        waited: Duration,
    },
    /// Something that is not a user of the store holds the lock of its users.
    #[error("its users' lock is held by another program")]
    Locked,
    /// Other processes use the store with settings that decide its layout.
    #[error("is in use; it {difference}")]
    InUse {
        /// Both values.
        difference: String,
    },
    /// The store holds more items than the new settings allow, and nothing may be evicted.
    #[error("{difference}; its {items} items do not fit (store_delete=1 starts fresh)")]
    DoesNotFit {
        /// Both values.
        difference: String,
        /// Live items of the store.
        items: u64,
    },
    /// The store has to be rewritten for new settings, and that failed.
    #[error("{difference}; a new one could not be made ({error}), it stays as it is")]
    NotConverted {
        /// Both values.
        difference: String,
        /// What failed.
        error: Box<Error>,
    },
    /// The file is a native uWSGI store, and its import failed.
    #[error("is a native uWSGI store that could not be imported ({error}), it stays as it is")]
    NotImported {
        /// What failed.
        error: Box<Error>,
    },
    /// Processes of another PID namespace use the store: its locks know their owners by thread ids.
    #[error("is in use in another PID namespace (a container's): join it (nsenter -p), or share it")]
    PidNamespace,
    /// Processes of another time namespace use the store: its leases and owners are told apart by
    /// the time since boot.
    #[error("is in use in another time namespace: join it (nsenter -T), or share it")]
    TimeNamespace,
    /// The file has several names.
    #[error("has several names (hard links): another user may know it by another name; copy it instead")]
    HardLinks,
    /// The file would be created where only another user's symbolic link leads.
    #[error(
        "is empty or missing, and a link of user {owner}, who does not own the directory, leads there: make the store \
         there first (ucache create), or the link as the user of this process"
    )]
    ForeignLink {
        /// User id of the link's owner.
        owner: u32,
    },
    /// The file system cannot hold a store, or is not known to.
    #[error("{reason} (store_fs=trust uses it anyway)")]
    FileSystem {
        /// Which one it is, and what is wrong with it.
        reason: String,
    },
    /// The path is the mount of a single file, which cannot be replaced.
    #[error("cannot be replaced, because this one file is a mount: mount its directory instead")]
    Mount,
    /// The store cannot be used, and cannot be replaced either ([`StoreFault::Mount`]).
    #[error("{fault}; it {}", Self::Mount)]
    NotReplaceable {
        /// Why it cannot be used.
        fault: Box<Self>,
    },
    /// A new store is to be made beside the old one, and a file with that name exists which is not
    /// ours.
    #[error("is in the way: a store is to be made there")]
    InTheWay,
    /// The names for a native store that is kept after its import are all taken.
    #[error("has {limit} .native files beside it already")]
    TooManyKept {
        /// How many are kept at most.
        limit: u32,
    },
    /// A system call failed.
    #[error("{call}: {error}")]
    Os {
        /// The system call.
        call: &'static str,
        /// Its error.
        error: io::Error,
    },
}

/// Why the server behind a cache could not be used.
///
/// A write that fails with [`TimedOut`](Self::TimedOut) or [`Lost`](Self::Lost) may have been
/// executed or not: it is never sent a second time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendFault {
    /// No connection could be made.
    #[error("no connection: {reason}")]
    Unreachable {
        /// What the system said.
        reason: String,
    },
    /// Not asked: the server failed a moment ago, and another call is trying it.
    #[error("not asked, because it failed less than {pause:?} ago ({reason})")]
    Down {
        /// How long calls fail at once after a failure.
        pause: Duration,
        /// The failure.
        reason: String,
    },
    /// There was no complete reply within the time limit.
    #[error("no reply within {waited:?}")]
    TimedOut {
        /// The `backend_timeout` that passed.
        waited: Duration,
    },
    /// The connection ended before the reply.
    #[error("the connection was lost: {reason}")]
    Lost {
        /// What the system said.
        reason: String,
    },
    /// The server is there and cannot serve now (it loads its data, a script blocks it, it lost its
    /// primary).
    #[error("it cannot serve now: {reply}")]
    Unavailable {
        /// The server's reply.
        reply: String,
    },
    /// The server has reached its `maxmemory` and evicts nothing.
    #[error("it is full: {reply}")]
    Full {
        /// The server's reply.
        reply: String,
    },
    /// The server refused the command.
    #[error("it refused: {reply}")]
    Refused {
        /// The server's reply.
        reply: String,
    },
    /// The reply is not one to the request.
    #[error("unexpected reply: {what}")]
    Protocol {
        /// What was unexpected.
        what: &'static str,
    },
    /// A cache with a backend has no such operation.
    #[error("{operation} needs a cache without a backend")]
    Unsupported {
        /// The operation.
        operation: &'static str,
    },
}

impl BackendFault {
    /// Whether the server could not be asked, as opposed to an answer that is an error.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Down { .. }
                | Self::TimedOut { .. }
                | Self::Lost { .. }
                | Self::Unavailable { .. }
        )
    }
}

impl Error {
    /// A store that cannot be used.
    pub(crate) fn store(path: &Path, fault: StoreFault) -> Self {
        Self::Store { path: path.to_owned(), fault }
    }

    /// The last error of the operating system, as the failure of `call`.
    pub(crate) fn last_os(call: &'static str) -> Self {
        Self::Os { call, source: io::Error::last_os_error() }
    }
}

/// Lets functions that return [`io::Result`] use `?` on a cache.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Os { source, .. } => source.kind(),
            Error::Timeout { .. } | Error::Backend { fault: BackendFault::TimedOut { .. }, .. } => {
                io::ErrorKind::TimedOut
            }
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// [`std::result::Result`] with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
