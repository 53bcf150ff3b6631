//! A thread-local value that lives as long as any code runs in the thread.
//!
//! `thread_local!` values of the main thread are dropped before `exit` runs `atexit` handlers and
//! C++ destructors, which may well use a cache. The destructors of a `pthread` key run after those
//! of C++ in the same thread, run again for values that they create, and never run for the main
//! thread.

use std::{
    alloc::{Layout, alloc},
    cell::RefCell,
    ffi::c_void,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

/// One value per thread, created at its first use.
pub(crate) struct Local<T: 'static> {
    /// The key plus one, 0 = none yet. No `OnceLock`: a child forked while another thread
    /// initialises it would wait forever.
    key: AtomicU64,
    make: fn() -> T,
}

impl<T: 'static> Local<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { key: AtomicU64::new(0), make }
    }

    /// Calls `f` with the thread's value; `None` = out of memory, or the process has no free keys.
    #[inline]
    pub(crate) fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Option<R> {
        let key = match self.key.load(Acquire) {
            0 => self.make_key()?,
            one_more => (one_more - 1) as libc::pthread_key_t,
        };
        // SAFETY: the key of this value, which is never deleted.
        let mut here = unsafe { libc::pthread_getspecific(key) }.cast::<T>();
        if here.is_null() {
            here = self.begin(key)?;
        }
        // SAFETY: only `begin` sets the key, to a value that is freed after the thread's last
        // access to the key. A shared reference, since a signal handler may hold one, too.
        Some(f(unsafe { &*here }))
    }

    #[cold]
    fn begin(&self, key: libc::pthread_key_t) -> Option<*mut T> {
        const { assert!(size_of::<T>() > 0) };
        // `Box::new` would abort the process when out of memory.
        // SAFETY: the size is not 0.
        let here = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
        if here.is_null() {
            return None;
        }
        // SAFETY: memory for one `T` that no other code has.
        unsafe { here.write((self.make)()) };
        // SAFETY: as above; the thread has no value yet.
        if unsafe { libc::pthread_setspecific(key, here.cast()) } != 0 {
            // SAFETY: allocated above as a box would be, and no other code has it.
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
                // SAFETY: created above, and no other code has it.
                unsafe { libc::pthread_key_delete(key) };
                Some((first - 1) as libc::pthread_key_t)
            }
        }
    }

    extern "C" fn end(value: *mut c_void) {
        // SAFETY: `begin` created it with this type, as a box would be; the key is cleared, so it
        // cannot be found any more.
        drop(unsafe { Box::from_raw(value.cast::<T>()) });
    }
}

impl<T: 'static> Local<RefCell<T>> {
    /// [`Local::with`] with mutable access; `None` also in a signal handler that interrupted a
    /// change.
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
            // The thread creates another value here, which is dropped, too.
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
