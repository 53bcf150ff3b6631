//! The statuses of failed calls, and the message of the thread's last error.

use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_int},
};

use super::status::Status;
use crate::{error::Error, os::local::Local};

static LAST_ERROR: Local<RefCell<CString>> = Local::new(RefCell::default);

/// Why a call failed.
pub(super) enum CallError {
    /// An invalid argument.
    Argument(&'static str),
    /// An error of the engine.
    Error(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(super) type CallResult = Result<Status, CallError>;

/// `Ok` if `yes`, else the given status.
pub(super) fn answer(yes: bool, no: Status) -> CallResult {
    Ok(if yes { Status::Ok } else { no })
}

/// The number of a result; the sentence of an error is remembered.
#[inline]
pub(super) fn status(result: CallResult) -> c_int {
    match result {
        Ok(status) => status as c_int,
        Err(error) => failed(error),
    }
}

#[inline(never)]
fn failed(error: CallError) -> c_int {
    match error {
        CallError::Argument(text) => {
            remember(text.to_owned());
            Status::Argument as c_int
        }
        CallError::Error(error) => {
            let status = Status::from(&error);
            // A status such as "not found" is not an error and needs no text.
            if (status as c_int) < 0 {
                remember(error.to_string());
            }
            status as c_int
        }
    }
}

#[cold]
pub(super) fn remember(text: String) {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    LAST_ERROR.with(|last| last.replace(text));
}

/// What was wrong with the last call of this thread that gave an error, in one sentence with the
/// values at fault; "" if there was none. Belongs to the thread, until its next call that gives an
/// error.
#[unsafe(no_mangle)]
pub extern "C" fn ucache_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
