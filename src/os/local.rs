//! A thread's own value that is there as long as the thread runs anybody's code.
//!
//! What `thread_local!` drops at a thread's end is gone in the main thread before `exit` runs the handlers of `atexit` and the
//! destructors of C++, and those may well use a cache. The destructors of a `pthread` key run after C++'s of the same
//! thread, once more for what they make, and for the main thread never.

use std::{
    alloc::{Layout, alloc},
    cell::RefCell,
    ffi::c_void,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

/// A value of each thread, made at its first use.
pub(crate) struct Local<T: 'static> {
    /// The key and one, 0 = none yet. No `OnceLock`: a child forked while another thread makes it would wait forever.
    key: AtomicU64,
    make: fn() -> T,
}

impl<T: 'static> Local<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { key: AtomicU64::new(0), make }
    }

    /// Calls `f` with the thread's value; `None` = there is no memory for it, or the process has no more keys.
    #[inline]
    pub(crate) fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Option<R> {
        let key = match self.key.load(Acquire) {
            0 => self.make_key()?,
            one_more => (one_more - 1) as libc::pthread_key_t,
        };
        // SAFETY: a key of this value's, which is never deleted.
        let mut here = unsafe { libc::pthread_getspecific(key) }.cast::<T>();
        if here.is_null() {
            here = self.begin(key)?;
        }
        // SAFETY: only `begin` sets the key, to a value that is freed after the thread's last look at the key. Shared, as a
        // signal handler may be here, too.
        Some(f(unsafe { &*here }))
    }

    #[cold]
    fn begin(&self, key: libc::pthread_key_t) -> Option<*mut T> {
        const { assert!(size_of::<T>() > 0) };
        // `Box::new` would end the process where there is no memory.
        // SAFETY: of a size that is not 0.
        let here = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
        if here.is_null() {
            return None;
        }
        // SAFETY: memory for one `T` that nobody else has.
        unsafe { here.write((self.make)()) };
        // SAFETY: as above; the thread has no value yet.
        if unsafe { libc::pthread_setspecific(key, here.cast()) } != 0 {
            // SAFETY: made above as a box makes it, and nobody else has it.
            drop(unsafe { Box::from_raw(here) });
            return None;
        }
        Some(here)
    }

    #[cold]
    fn make_key(&self) -> Option<libc::pthread_key_t> {
        let mut key = 0;
        // SAFETY: writes the key; `end` is code of a library that is never unloaded (build.rs).
        if unsafe { libc::pthread_key_create(&raw mut key, Some(Self::end)) } != 0 {
            return None;
        }
        match self.key.compare_exchange(0, u64::from(key) + 1, Release, Acquire) {
            Ok(_) => Some(key),
            Err(first) => {
                // SAFETY: made above, and nobody has it.
                unsafe { libc::pthread_key_delete(key) };
                Some((first - 1) as libc::pthread_key_t)
            }
        }
    }

    extern "C" fn end(value: *mut c_void) {
        // SAFETY: `begin` made it of this type, as a box makes it; the key is empty again, so nobody finds it any more.
        drop(unsafe { Box::from_raw(value.cast::<T>()) });
    }
}

impl<T: 'static> Local<RefCell<T>> {
    /// [`Local::with`], to change it; `None` also in a signal handler that interrupted a change.
    #[inline]
    pub(crate) fn with_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.with(|value| value.try_borrow_mut().ok().map(|mut value| f(&mut value)))?
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
        thread,
    };

    use super::*;

    static DROPPED: AtomicU32 = AtomicU32::new(0);
    static NUMBER: Local<Number> = Local::new(|| Number(Cell::new(1)));

    struct Number(Cell<u32>);

    impl Drop for Number {
        fn drop(&mut self) {
            // The thread has another one from here on, which is dropped, too.
            if self.0.get() > 1 {
                assert_eq!(NUMBER.with(|number| number.0.get()), Some(1));
            }
            DROPPED.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn each_thread_has_its_own_to_its_very_end() {
        let count = || NUMBER.with(|number| number.0.replace(number.0.get() + 1));
        assert_eq!((count(), count()), (Some(1), Some(2)));
        let before = DROPPED.load(SeqCst);
        assert_eq!(thread::spawn(move || (count(), count())).join().expect("no panic"), (Some(1), Some(2)));
        assert_eq!(DROPPED.load(SeqCst) - before, 2);
        assert_eq!(count(), Some(3));
    }
}
