//! Why a command fails: the exit status, a message, and a hint.

use std::{fmt, io};

use super::text::line;
use crate::error::Error;

/// The result of a command.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// An unsuccessful end of a command.
#[derive(Debug)]
pub(super) struct Failure {
    /// Exit status.
    pub(super) code: u8,
    /// The message; empty = only the status.
    text: String,
    /// The hint.
    hint: Option<String>,
}

/// The answer is no.
pub(super) const NO: u8 = 1;
/// Wrong usage (clap's own status, too).
pub(super) const USAGE: u8 = 2;
/// The target cannot be opened or reached.
pub(super) const UNREACHABLE: u8 = 3;
/// The cache refused.
pub(super) const REFUSED: u8 = 4;
/// Input or output failed.
pub(super) const IO: u8 = 5;
/// The target cannot do it.
pub(super) const UNSUPPORTED: u8 = 6;
/// The reader of the output has gone: the status of a program that SIGPIPE ended.
pub(super) const CLOSED: u8 = 141;

impl Failure {
    /// Without a message.
    pub(super) fn silent(code: u8) -> Self {
        Self { code, text: String::new(), hint: None }
    }

    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), hint: None }
    }

    /// Adds a hint.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failed write to standard output or a file.
    pub(super) fn output(error: &io::Error, what: &str) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(CLOSED);
        }
        let failure = Self::new(IO, format!("cannot write {what}: {error}"));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                failure.hint("free some space, or write elsewhere; the output is incomplete")
            }
            _ => failure,
        }
    }

    /// A failed read.
    pub(super) fn input(error: &io::Error, what: &str) -> Self {
        Self::new(IO, format!("cannot read {what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names and reasons may be foreign: they stay on one line and cannot control a terminal.
        f.write_str(&line(&self.text))?;
        match &self.hint {
            Some(hint) if !self.text.is_empty() => write!(f, "\n  {}", line(hint)),
            _ => Ok(()),
        }
    }
}

/// Standard output, unless the command says otherwise.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::output(&error, "the output")
    }
}

/// A failed operation of a cache.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::EmptyKey => Some("a key has at least one byte"),
            Error::KeyTooLong { .. } => Some("the limit is the cache's `keysize`"),
            Error::EmptyValue => Some("a value has at least one byte; `del` removes a key"),
            Error::ValueTooLong { .. } => Some("the limit is the cache's `blocksize`"),
            Error::NotANumber { .. } => Some("counters have 8 bytes: `set --int` and `incr` create them"),
            Error::Full { .. } | Error::OutOfBlocks { .. } => {
                Some("delete keys, or give the cache more `items`, or `purge_lru=1`")
            }
            Error::NoSpace { .. } => Some("the disk of the store is full: free some space"),
            Error::Timeout { .. } => {
                Some("the process with the lock makes no progress: look for a stopped one (state T in ps)")
            }
            Error::LockLost { .. } => {
                Some("the locks of a store are made anew by the next process that opens it alone")
            }
            Error::Damaged(_) => Some("`ucache check --repair` repairs what can be repaired"),
            _ => None,
        };
        let down = matches!(&error, Error::Backend { fault, .. } if fault.is_down());
        let failure = Self::new(if down { UNREACHABLE } else { REFUSED }, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
