//! Exceptions, and the boundaries of calls: the GIL, panics.

use std::{
    ffi::CString,
    panic::{AssertUnwindSafe, catch_unwind},
};

use pyo3_ffi as ffi;

use super::{Py, Raised, Ref};

pub(super) fn is_raised() -> bool {
    // SAFETY: asks the thread's state.
    !unsafe { ffi::PyErr_Occurred() }.is_null()
}

pub(crate) fn clear() {
    // SAFETY: changes the thread's state.
    unsafe { ffi::PyErr_Clear() }
}

/// Sets an exception.
#[cold]
pub(crate) fn raise(kind: Ref<'_>, message: &str) -> Raised {
    let message = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: a class and a text.
    unsafe { ffi::PyErr_SetString(kind.as_ptr(), message.as_ptr()) };
    Raised
}

macro_rules! built_in {
    ($($name:ident $class:ident;)+) => {
        $(#[cold]
        pub(crate) fn $name(message: &str) -> Raised {
            // SAFETY: the interpreter's classes always exist.
            let kind = unsafe { Ref::borrowed(ffi::$class) };
            raise(kind.expect("a class"), message)
        })+
    };
}

built_in! {
    type_error PyExc_TypeError;
    value_error PyExc_ValueError;
    overflow_error PyExc_OverflowError;
    import_error PyExc_ImportError;
    system_error PyExc_SystemError;
}

/// Runs a function without the GIL.
pub(crate) fn released<T>(body: impl FnOnce() -> T) -> T {
    struct Reacquire(*mut ffi::PyThreadState);
    impl Drop for Reacquire {
        fn drop(&mut self) {
            // SAFETY: the state that was saved by this thread.
            unsafe { ffi::PyEval_RestoreThread(self.0) }
        }
    }
    // SAFETY: the GIL is held; it is again when the guard is dropped, also by a panic.
    let _guard = Reacquire(unsafe { ffi::PyEval_SaveThread() });
    body()
}

/// The boundary to the interpreter: a panic becomes an exception.
#[inline]
pub(crate) fn guarded<T>(failed: T, body: impl FnOnce() -> Py<T>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(Raised)) => failed,
        Err(_) => {
            system_error("ucache: internal error; the reason is on stderr");
            failed
        }
    }
}
