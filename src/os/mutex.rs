//! Robust, error-checking, process-shared mutexes that live in shared memory.

use std::{mem::MaybeUninit, time::Duration};

use super::clock;
use crate::error::{Error, Result};

/// Bytes that [`RobustMutex`] occupies (a 64-byte cell holds one on every libc we know).
pub(crate) const MUTEX_SIZE: usize = size_of::<libc::pthread_mutex_t>();

/// Looks at a held lock before its waiter sleeps; each waits twice as long as the one before, 8 pauses at first.
const SPINS: u32 = 5;

/// Longest sleep of a waiter before it looks for itself. Who is woken, but killed before it has the lock, takes the wake-up
/// with it when another one has taken the lock meanwhile: neither glibc nor the kernel wakes anybody then.
const NAP: Duration = Duration::from_millis(20);

/// How a lock was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    /// As usual.
    Clean,
    /// Its owner died; what it protects must be made whole, then [`RobustMutex::consistent`] called.
    OwnerDied,
}

/// Why [`RobustMutex::try_lock`] did not simply get the lock: held, or its owner died, or it cannot be had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotTaken(libc::c_int);

impl NotTaken {
    /// Whether somebody held it.
    pub(crate) fn is_busy(self) -> bool {
        self.0 == libc::EBUSY
    }
}

/// A pthread mutex at a fixed place in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RobustMutex(*mut libc::pthread_mutex_t);

impl RobustMutex {
    /// # Safety
    /// `at` must be aligned for a `pthread_mutex_t`, stay mapped while this value is used, and hold a mutex that
    /// [`RobustMutex::init`] made (or be about to be initialised, by one process alone).
    pub(crate) unsafe fn at(at: *mut u8) -> Self {
        Self(at.cast())
    }

    /// Initialises the mutex, whatever bytes are there.
    pub(crate) fn init(self) -> Result<()> {
        let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let a = attr.as_mut_ptr();
        // SAFETY: `a` is valid for one attr, initialised by the first call; the mutex cell is ours (contract of `at`).
        let rc = unsafe {
            let mut rc = libc::pthread_mutexattr_init(a);
            for f in [
                libc::pthread_mutexattr_setpshared(a, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_setrobust(a, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutexattr_settype(a, libc::PTHREAD_MUTEX_ERRORCHECK),
            ] {
                rc |= f;
            }
            self.0.cast::<u8>().write_bytes(0, MUTEX_SIZE);
            rc |= libc::pthread_mutex_init(self.0, a);
            libc::pthread_mutexattr_destroy(a);
            rc
        };
        if rc == 0 { Ok(()) } else { Err(os("pthread_mutex_init", rc)) }
    }

    /// Locks if nobody holds it; what is wrong otherwise is for [`RobustMutex::wait`].
    #[inline(always)]
    pub(crate) fn try_lock(self) -> std::result::Result<Locked, NotTaken> {
        // SAFETY: the cell holds an initialised mutex (contract of `at`).
        match unsafe { libc::pthread_mutex_trylock(self.0) } {
            0 => Ok(Locked::Clean),
            rc => Err(NotTaken(rc)),
        }
    }

    /// Goes on where [`RobustMutex::try_lock`] did not get it, waiting up to `timeout` for a live owner.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::WouldDeadlock`] when this thread holds it, [`Error::Damaged`].
    #[cold]
    pub(crate) fn wait(self, first: NotTaken, timeout: Duration) -> Result<Locked> {
        let mut rc = first.0;
        // What a lock protects takes less time than falling asleep and being woken: look again a few times first.
        for round in 0..SPINS {
            if rc != libc::EBUSY {
                break;
            }
            (0..8u32 << round).for_each(|_| std::hint::spin_loop());
            // SAFETY: as in `try_lock`.
            rc = unsafe { libc::pthread_mutex_trylock(self.0) };
        }
        let end = clock::monotonic() + timeout;
        while rc == libc::EBUSY || rc == libc::ETIMEDOUT {
            let left = end.saturating_sub(clock::monotonic());
            if left.is_zero() {
                break;
            }
            let deadline = clock::realtime_deadline(left.min(NAP));
            // SAFETY: as in `try_lock`; the deadline is a valid timespec.
            rc = unsafe { libc::pthread_mutex_timedlock(self.0, &raw const deadline) };
        }
        match rc {
            0 => Ok(Locked::Clean),
            libc::EOWNERDEAD => Ok(Locked::OwnerDied),
            libc::ETIMEDOUT | libc::EBUSY => Err(Error::Timeout { waited: timeout }),
            libc::EDEADLK => Err(Error::WouldDeadlock),
            libc::ENOTRECOVERABLE => Err(Error::Damaged("a lock was given up by its recoverer")),
            rc => Err(os("pthread_mutex_timedlock", rc)),
        }
    }

    /// Declares the protected data whole again, after [`Locked::OwnerDied`].
    pub(crate) fn consistent(self) {
        // SAFETY: as in `try_lock`; an error (the mutex is not ours) changes nothing.
        unsafe { libc::pthread_mutex_consistent(self.0) };
    }

    /// Unlocks. `false` = this thread did not hold it.
    #[inline]
    pub(crate) fn unlock(self) -> bool {
        // SAFETY: as in `try_lock`; an error-checking mutex refuses a thread that is not its owner.
        unsafe { libc::pthread_mutex_unlock(self.0) == 0 }
    }
}

fn os(call: &'static str, rc: libc::c_int) -> Error {
    Error::Os { call, source: std::io::Error::from_raw_os_error(rc) }
}
