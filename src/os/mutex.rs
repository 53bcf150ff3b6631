//! Robust, error-checking, process-shared mutexes that live in shared memory.

use std::{
    mem::{MaybeUninit, transmute},
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use super::{cancel::Shield, clock, process};
use crate::error::{Error, Result};

/// Bytes that [`RobustMutex`] occupies (a 64-byte cell holds one on every libc we know).
pub(crate) const MUTEX_SIZE: usize = size_of::<libc::pthread_mutex_t>();

/// Looks at a held lock before its waiter sleeps; each waits twice as long as the one before, 8 pauses at first.
const SPINS: u32 = 5;

/// Longest sleep of a waiter before it looks for itself. Who is woken, but killed before it has the lock, takes the wake-up
/// with it when another one has taken the lock meanwhile: neither glibc nor the kernel wakes anybody then.
const NAP: Duration = Duration::from_millis(20);

/// Longest sleep of a waiter whose libc cannot wait by the monotonic clock, and so is not woken.
const SHORT_NAP: Duration = Duration::from_millis(1);

/// Bits of a robust lock's word that are its owner's thread id (the kernel's FUTEX_TID_MASK).
const TID: u32 = 0x3FFF_FFFF;

/// `pthread_mutex_clocklock`: waits by a clock that is named. `pthread_mutex_timedlock` follows the wall clock, which somebody may
/// set back in the middle of a wait. glibc has it since 2.30; musl does not.
type ClockLock =
    unsafe extern "C" fn(*mut libc::pthread_mutex_t, libc::clockid_t, *const libc::timespec) -> libc::c_int;

/// It, once [`prepare`] has found it.
static CLOCK_LOCK: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());

/// Which 32-bit word of a mutex holds the owner's thread id, found by [`thread_standing`]; [`NOT_FOUND`] = unknown.
static OWNER_AT: AtomicUsize = AtomicUsize::new(NOT_FOUND);
const NOT_FOUND: usize = usize::MAX;

/// Looks for what waits need. Not where they need it: `dlsym` takes a lock that a child of fork may find taken.
pub(crate) fn prepare() {
    // SAFETY: looks a name up; what it leads to is only called as what it is.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_mutex_clocklock".as_ptr()) };
    CLOCK_LOCK.store(found, Relaxed);
}

fn clock_lock() -> Option<ClockLock> {
    let found = CLOCK_LOCK.load(Relaxed);
    // SAFETY: the symbol of this name has this type in every libc that has it.
    (!found.is_null()).then(|| unsafe { transmute::<*mut libc::c_void, ClockLock>(found) })
}

/// Whether the locks that the calling thread takes are its own to everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Of all threads of the process.
    Process,
    /// Of this one; the first thread of the process came by a bare `fork` or `clone`.
    Thread,
    /// No: the C library writes the parent's thread id into them, or the kernel will not pass them on when the thread dies.
    /// A child that a system call made, and not the library's `fork` or `pthread_create`.
    Foreign,
}

/// Locks a mutex that nobody else has, and looks at what that left. Async-signal-safe calls only.
pub(crate) fn thread_standing() -> Standing {
    let mut cell = MaybeUninit::<libc::pthread_mutex_t>::uninit();
    // SAFETY: the cell is aligned, on this stack until the end, and nobody else knows it.
    let mutex = unsafe { RobustMutex::at(cell.as_mut_ptr().cast()) };
    if mutex.init().is_err() || mutex.try_lock().is_err() {
        return Standing::Thread; // Nothing can be told.
    }
    let own = process::thread_id();
    let known = Some(OWNER_AT.load(Relaxed)).filter(|&at| at != NOT_FOUND);
    let mut places = known.map_or(0..MUTEX_SIZE / 4, |at| at..at + 1);
    let at = places.find(|&at| mutex.word(at) & TID == own);
    // The C library may register its list with the first robust lock: asked while it is held.
    let listed = process::has_robust_list(own);
    mutex.unlock();
    // SAFETY: initialised above, and not locked.
    unsafe { libc::pthread_mutex_destroy(cell.as_mut_ptr()) };
    let Some(at) = at.filter(|_| listed != Some(false)) else { return Standing::Foreign };
    OWNER_AT.store(at, Relaxed);
    if process::has_robust_list(process::first_thread_id()) == Some(false) {
        return Standing::Thread;
    }
    Standing::Process
}

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
    /// Nobody tried: the calling process has not shown yet that it may.
    pub(crate) const UNTRIED: Self = Self(-1);

    /// Whether this is [`NotTaken::UNTRIED`].
    pub(crate) fn is_untried(self) -> bool {
        self.0 == Self::UNTRIED.0
    }

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
        self.wait_by(clock_lock(), first, timeout)
    }

    fn wait_by(self, by_clock: Option<ClockLock>, first: NotTaken, timeout: Duration) -> Result<Locked> {
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
        let start = clock::monotonic();
        let (mut now, end) = (start, start + timeout);
        while (rc == libc::EBUSY || rc == libc::ETIMEDOUT) && now < end {
            rc = match by_clock {
                Some(lock) => self.sleep(lock, end.min(now + NAP)),
                None => self.nap(((now - start) / 8).min(end - now)),
            };
            now = clock::monotonic();
        }
        match rc {
            0 => Ok(Locked::Clean),
            libc::EOWNERDEAD => Ok(Locked::OwnerDied),
            libc::ETIMEDOUT | libc::EBUSY => Err(Error::Timeout { waited: timeout }),
            libc::EDEADLK => Err(Error::WouldDeadlock),
            libc::ENOTRECOVERABLE => Err(Error::Damaged("a lock was given up by its recoverer")),
            rc => Err(os("pthread_mutex_clocklock", rc)),
        }
    }

    /// Sleeps for the lock until a time of the monotonic clock.
    fn sleep(self, lock: ClockLock, until: Duration) -> libc::c_int {
        let until = clock::timespec(until);
        // SAFETY: as in `try_lock`; the time is a valid timespec.
        unsafe { lock(self.0, libc::CLOCK_MONOTONIC, &raw const until) }
    }

    /// Sleeps for about `time`, [`SHORT_NAP`] at most, and tries again.
    fn nap(self, time: Duration) -> libc::c_int {
        let _shield = Shield::raise();
        thread::sleep(time.clamp(SHORT_NAP / 16, SHORT_NAP));
        // SAFETY: as in `try_lock`.
        unsafe { libc::pthread_mutex_trylock(self.0) }
    }

    /// One of its 32-bit words.
    fn word(self, at: usize) -> u32 {
        // SAFETY: within the cell, and aligned; atomic, as others may be changing it.
        unsafe { &*self.0.cast::<AtomicU32>().add(at) }.load(Relaxed)
    }

    /// The thread that holds it and is dead, though the kernel has not marked that: it will never be free again. The kernel reads the
    /// list of a dying thread's locks in that thread's memory, which Linux before 5.18 may have taken away by then, where the
    /// machine had run out of it.
    pub(crate) fn lost_owner(self) -> Option<u32> {
        let at = OWNER_AT.load(Relaxed);
        let word = if at == NOT_FOUND { 0 } else { self.word(at) };
        let owner = word & TID;
        // The same before and after: it was not given up, and taken by somebody else, meanwhile.
        let lost = owner != 0 && process::has_ended(owner) && self.word(at) == word;
        lost.then_some(owner)
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    struct Cell(Box<libc::pthread_mutex_t>);

    // SAFETY: a mutex is made to be reached from several threads.
    unsafe impl Sync for Cell {}

    impl Cell {
        fn new() -> Self {
            let cell = Self(Box::new(libc::PTHREAD_MUTEX_INITIALIZER));
            cell.mutex().init().expect("init");
            cell
        }

        fn mutex(&self) -> RobustMutex {
            // SAFETY: aligned, there as long as the cell, and only reached as a mutex.
            unsafe { RobustMutex::at((&raw const *self.0).cast_mut().cast()) }
        }
    }

    #[test]
    fn waits_are_as_long_with_a_libc_that_only_naps() {
        prepare();
        #[cfg(target_env = "gnu")]
        assert!(clock_lock().is_some());
        for by_clock in [clock_lock(), None] {
            let (cell, held) = (Cell::new(), Barrier::new(2));
            thread::scope(|scope| {
                scope.spawn(|| {
                    assert_eq!(cell.mutex().try_lock().expect("free"), Locked::Clean);
                    held.wait();
                    held.wait();
                    thread::sleep(Duration::from_millis(60));
                    assert!(cell.mutex().unlock());
                    held.wait();
                    // The thread ends with it.
                    assert_eq!(cell.mutex().try_lock().expect("free"), Locked::Clean);
                });
                held.wait();
                let wait = |time| cell.mutex().wait_by(by_clock, NotTaken(libc::EBUSY), time);
                let (start, short) = (clock::monotonic(), Duration::from_millis(50));
                assert!(matches!(wait(short), Err(Error::Timeout { .. })));
                assert!(clock::monotonic() - start >= short);
                assert_eq!(cell.mutex().lost_owner(), None, "it lives");
                held.wait();
                assert_eq!(wait(Duration::from_secs(60)).expect("given up"), Locked::Clean);
                assert!(matches!(wait(short), Err(Error::WouldDeadlock)));
                assert!(cell.mutex().unlock());
                held.wait();
            });
            let taken = cell.mutex().wait_by(by_clock, NotTaken(libc::EBUSY), Duration::from_secs(60));
            assert_eq!(taken.expect("a dead owner's"), Locked::OwnerDied);
            cell.mutex().consistent();
            assert!(cell.mutex().unlock());
        }
    }

    #[test]
    fn threads_of_the_c_library_may_lock() {
        assert_eq!(thread_standing(), Standing::Process);
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(thread_standing(), Standing::Process));
        });
    }
}
