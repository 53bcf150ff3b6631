//! `pthread_cancel`: a cancelled thread must not end inside this crate.
//!
//! glibc ends a cancelled thread at its next cancellation point (`open`, `fallocate`, `fsync`,
//! `poll`, ...) by unwinding its stack. A Rust frame that catches panics turns that into an abort;
//! without such a frame, locks would stay taken. A [`Shield`] surrounds calls that may block: a
//! cancellation that arrives meanwhile stays pending, and the thread ends at its own next
//! cancellation point.

use std::{ffi::c_int, marker::PhantomData};

/// `PTHREAD_CANCEL_ENABLE` and `PTHREAD_CANCEL_DISABLE` of pthread.h, the same in glibc and musl.
const ENABLE: c_int = 0;
const DISABLE: c_int = 1;

#[cfg(not(miri))]
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// While it lives, the calling thread cannot be cancelled. Shields nest.
#[derive(Debug)]
#[must_use = "it ends where it is dropped"]
pub(crate) struct Shield {
    before: c_int,
    /// Not `Send`: the cancellation state belongs to one thread.
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

/// Sets the calling thread's state and returns the previous one.
fn set(state: c_int) -> c_int {
    let mut before = DISABLE;
    #[cfg(not(miri))]
    // SAFETY: a valid state, and a variable for the old one. With the deferred cancellation type,
    // which callers have, this call is no cancellation point. If it fails, nothing has changed, and
    // `before` keeps `drop` from changing anything.
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

    /// The state can only be read by setting it.
    fn state() -> c_int {
        let now = set(DISABLE);
        set(now);
        now
    }

    #[test]
    fn shields_nest_and_restore_the_state() {
        assert_eq!(state(), ENABLE);
        let outer = Shield::raise();
        let inner = Shield::raise();
        assert_eq!(state(), DISABLE);
        drop(inner);
        assert_eq!(state(), DISABLE);
        drop(outer);
        assert_eq!(state(), ENABLE);
        // A thread that had cancellation disabled keeps it disabled.
        set(DISABLE);
        drop(Shield::raise());
        assert_eq!(state(), DISABLE);
        set(ENABLE);
    }
}
