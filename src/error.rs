//! The one error type of the crate: what was wrong, and the limit that was hit.

use std::{io, path::PathBuf, time::Duration};

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
    /// The value is not of the type that was asked for, or a value cannot be written as bytes.
    #[error("the value does not fit its type: {0}")]
    Type(String),
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
        /// Bytes asked for.
        len: u64,
    },
    /// A lock was held by a live process for longer than `lock_timeout`.
    #[error("a lock of the cache was not released within {waited:?}")]
    Timeout {
        /// The `lock_timeout` that passed.
        waited: Duration,
    },
    /// The calling thread already holds this lock (a signal handler re-entered the cache).
    #[error("the calling thread is already inside this cache")]
    WouldDeadlock,
    /// The calling thread or process may not lock: it came by a bare `clone`, or is in another PID or time namespace. Reads go on.
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
    #[error("store {path}: {reason}", path = path.display())]
    Store {
        /// The store file.
        path: PathBuf,
        /// Why, with both values where two disagree.
        reason: String,
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
        source: io::Error,
    },
}

impl Error {
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
            Error::Timeout { .. } => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// [`std::result::Result`] with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
