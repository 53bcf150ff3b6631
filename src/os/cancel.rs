//! `pthread_cancel`: a cancelled thread must not end inside this crate.
//!
//! glibc ends a cancelled thread at its next cancellation point (`open`, `fallocate`, `fsync`, `poll`, ...) by unwinding its
//! stack, which a Rust frame that catches panics turns into an abort; where it did not, locks would stay taken. A
//! [`Shield`] stands around what may block. A cancellation that comes meanwhile stays pending, and the thread ends at the
//! next cancellation point of its own.

use std::{ffi::c_int, marker::PhantomData};

/// `PTHREAD_CANCEL_ENABLE` and `PTHREAD_CANCEL_DISABLE` of pthread.h, the same in glibc and musl.
const ENABLE: c_int = 0;
const DISABLE: c_int = 1;

#[cfg(not(miri))]
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Keeps the calling thread from being cancelled, for as long as it lives. They nest.
#[derive(Debug)]
#[must_use = "it ends where it is dropped"]
pub(crate) struct Shield {
    before: c_int,
    /// Of one thread.
    _here: PhantomData<*const ()>,
}

impl Shield {
    pub(crate) fn raise() -> Self {
        Self { before: set(DISABLE), _here: PhantomData }
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        if self.before == ENABLE {
            set(ENABLE);
        }
    }
}

/// Sets the calling thread's state; gives the one before.
fn set(state: c_int) -> c_int {
    let mut before = DISABLE;
    #[cfg(not(miri))]
    // SAFETY: a known state and a place for the old one. With the deferred type, which callers have, it is no cancellation
    // point itself. Without success nothing was changed, and `before` makes sure that nothing will be.
    unsafe {
        pthread_setcancelstate(state, &raw mut before);
    }
    #[cfg(miri)]
    let _ = (state, &mut before);
    before
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    /// The state, which can only be asked for by setting it.
    fn state() -> c_int {
        let now = set(DISABLE);
        set(now);
        now
    }

    #[test]
    fn shields_nest_and_give_back_what_was() {
        assert_eq!(state(), ENABLE);
        let outer = Shield::raise();
        let inner = Shield::raise();
        assert_eq!(state(), DISABLE);
        drop(inner);
        assert_eq!(state(), DISABLE);
        drop(outer);
        assert_eq!(state(), ENABLE);
        // Who had it disabled keeps it so.
        set(DISABLE);
        drop(Shield::raise());
        assert_eq!(state(), DISABLE);
        set(ENABLE);
    }
}
