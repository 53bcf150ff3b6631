//! Statuses: what happened, as the numbers that ucache.h promises for good.

use std::ffi::{c_char, c_int};

use crate::error::{BackendFault, Error};

macro_rules! statuses {
    ($($name:ident = $number:literal, $text:literal;)+) => {
        /// What a call of the short interface says: 0 = done, above = an answer, below = an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i32)]
        #[allow(missing_docs, reason = "the text beside each says it")]
        pub enum Status {
            $($name = $number,)+
        }

        impl Status {
            /// Every status.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)+];
        }

        /// The text of a number; static.
        fn text(number: c_int) -> *const c_char {
            match number {
                $($number => concat!($text, "\0").as_ptr().cast(),)+
                _ => c"unknown status".as_ptr(),
            }
        }
    };
}

statuses! {
    Ok = 0, "done";
    NotFound = 1, "no such key";
    Exists = 2, "the key exists";
    Changed = 3, "the value is not the expected one";
    TooSmall = 4, "the buffer is too small for the value";
    Stopped = 5, "the callback ended the call";
    Lease = 6, "the caller is to compute the value";
    Busy = 7, "another caller computes the value";
    Argument = -1, "an argument is NULL, unknown or out of its range";
    Option = -2, "the definition has an option that cannot be";
    Name = -3, "no cache of that name in this process";
    Key = -4, "the key is empty or too long";
    Value = -5, "the value is empty or too long";
    Number = -6, "the value is not a number of 8 bytes";
    Full = -7, "the cache is full";
    Space = -8, "no memory or disk space for the entry";
    Timeout = -9, "a lock of the cache was not released in time";
    Deadlock = -10, "the calling thread is already inside this cache";
    Store = -11, "the store file cannot be used";
    Damaged = -12, "the cache is damaged beyond repair";
    Memory = -13, "no memory";
    System = -14, "a system call failed";
    Internal = -15, "internal error";
    Process = -16, "the calling process may not write to the cache";
    Backend = -17, "the server behind the cache could not be asked, or refused";
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidOption { .. } => Self::Option,
            Error::EmptyKey | Error::KeyTooLong { .. } => Self::Key,
            Error::EmptyValue | Error::ValueTooLong { .. } => Self::Value,
            Error::NotANumber { .. } | Error::NotUtf8 | Error::Type(_) => Self::Number,
            Error::Exists | Error::NameInUse(_) => Self::Exists,
            Error::Full { .. } | Error::OutOfBlocks { .. } => Self::Full,
            Error::NoSpace { .. } => Self::Space,
            Error::Timeout { .. } => Self::Timeout,
            Error::WouldDeadlock => Self::Deadlock,
            Error::BufferTooSmall { .. } => Self::TooSmall,
            Error::NoSuchCache(_) => Self::Name,
            Error::Store { .. } => Self::Store,
            Error::Damaged(_) | Error::LockLost { .. } => Self::Damaged,
            Error::ForeignProcess(_) => Self::Process,
            Error::Os { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory => Self::Memory,
            Error::Backend { fault: BackendFault::Full { .. }, .. } => Self::Full,
            Error::Backend { .. } => Self::Backend,
            Error::Os { .. } => Self::System,
        }
    }
}

/// A status in one line of English; static memory, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ucache_strerror(status: c_int) -> *const c_char {
    text(status)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, ffi::CStr};

    use super::*;

    #[test]
    fn every_status_has_a_number_and_a_text_of_its_own() {
        let said = |number| {
            // SAFETY: static strings that end with a NUL.
            unsafe { CStr::from_ptr(ucache_strerror(number)) }.to_str().unwrap()
        };
        let texts: BTreeSet<_> = Status::ALL.iter().map(|&status| said(status as c_int)).collect();
        assert_eq!(texts.len(), Status::ALL.len());
        assert!(!texts.contains("unknown status"));
        assert!([8, -18, c_int::MIN, c_int::MAX].iter().all(|&number| said(number) == "unknown status"));
    }
}
