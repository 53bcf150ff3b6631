//! Why a command ends without success: the exit status, what is wrong, and what to do.

use std::{fmt, io};

use super::text::line;
use crate::error::Error;

/// What the commands return.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    /// Exit status.
    pub(super) code: u8,
    /// What is wrong; empty = the status says it all.
    text: String,
    /// What to do.
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
/// Whoever read the output went away: what a program has that SIGPIPE ended.
pub(super) const CLOSED: u8 = 141;

impl Failure {
    /// Without a word.
    pub(super) fn silent(code: u8) -> Self {
        Self { code, text: String::new(), hint: None }
    }

    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), hint: None }
    }

    /// Says what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Something of standard output, or of a file that is written.
    pub(super) fn output(error: &io::Error, what: &str) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(CLOSED);
        }
        let failure = Self::new(IO, format!("cannot write {what}: {error}"));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                failure.hint("free some space, or write elsewhere; what was written so far is incomplete")
            }
            _ => failure,
        }
    }

    /// Something of what is read.
    pub(super) fn input(error: &io::Error, what: &str) -> Self {
        Self::new(IO, format!("cannot read {what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names and reasons come from outside: a part stays one line, and says nothing to a terminal.
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

/// An operation that a cache did not do.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::EmptyKey => Some("a key has at least one byte"),
            Error::KeyTooLong { .. } => Some("the limit is the cache's `keysize`"),
            Error::EmptyValue => Some("a value has at least one byte; `del` removes a key"),
            Error::ValueTooLong { .. } => Some("the limit is the cache's `blocksize`"),
            Error::NotANumber { .. } => Some("counters have 8 bytes: `set --int` makes one, `incr` too"),
            Error::Full { .. } | Error::OutOfBlocks { .. } => {
                Some("delete keys, or give the cache more `items`, or `purge_lru=1`")
            }
            Error::NoSpace { .. } => Some("the disk of the store is full: free some space"),
            Error::Timeout { .. } => Some(
                "a process that holds the lock stands still: look for one that is stopped (state T in ps)",
            ),
            Error::LockLost { .. } => {
                Some("of a store, the next user that has it alone makes its locks anew")
            }
            Error::Damaged(_) => Some("`ucache check --repair` mends what can be mended"),
            _ => None,
        };
        let failure = Self::new(REFUSED, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
