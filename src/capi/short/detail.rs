//! From a call's outcome to its number, and the sentence about the thread's last error.

use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_int},
};

use super::{handle::ucache, nodes::Nodes, status::Status};
use crate::{capi::guard::guard, engine::Engine, error::Error, os::local::Local};

static DETAIL: Local<RefCell<CString>> = Local::new(RefCell::default);

/// Why a call did not succeed.
pub(super) enum Fault {
    /// An argument that cannot be.
    Argument(&'static str),
    /// What the engine says.
    Error(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(super) type Outcome = Result<Status, Fault>;

/// `Ok` if it is so, else this answer.
pub(super) fn answer(yes: bool, no: Status) -> Outcome {
    Ok(if yes { Status::Ok } else { no })
}

/// Runs the body of a function.
pub(super) fn run(body: impl FnOnce() -> Outcome) -> c_int {
    let status = guard(None, || Some(told(body())));
    status.unwrap_or_else(|| {
        guard((), || remember("a defect of the library, which its log tells of".to_owned()));
        Status::Internal as c_int
    })
}

fn told(outcome: Outcome) -> c_int {
    match outcome {
        Ok(status) => status as c_int,
        Err(Fault::Argument(text)) => {
            remember(text.to_owned());
            Status::Argument as c_int
        }
        Err(Fault::Error(error)) => {
            let status = Status::from(&error);
            // An answer is no error: it costs no text.
            if (status as c_int) < 0 {
                remember(error.to_string());
            }
            status as c_int
        }
    }
}

/// Runs the body of a function that works on a cache.
///
/// # Safety
/// `cache` is a handle, see [`super`].
pub(super) unsafe fn on(cache: *mut ucache, body: impl FnOnce(&Engine) -> Outcome) -> c_int {
    // SAFETY: passed on.
    unsafe { change(cache, |engine, _| body(engine)) }
}

/// [`on`], for what changes the cache: the nodes are to be told.
///
/// # Safety
/// As [`on`].
pub(super) unsafe fn change(cache: *mut ucache, body: impl FnOnce(&Engine, Nodes) -> Outcome) -> c_int {
    run(|| {
        // SAFETY: the caller vouches for the handle.
        let cache = unsafe { cache.as_ref() }.ok_or(Fault::Argument("the cache is NULL"))?;
        body(cache.engine(), cache.nodes())
    })
}

#[cold]
fn remember(text: String) {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    DETAIL.with(|detail| detail.replace(text));
}

/// What was wrong with the last call of this thread that gave an error, in one sentence with the values at fault; ""
/// if there was none. Belongs to the thread, until its next call that gives an error.
#[unsafe(no_mangle)]
pub extern "C" fn ucache_error() -> *const c_char {
    DETAIL.with(|detail| detail.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
