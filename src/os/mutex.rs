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

/// Bytes of a [`RobustMutex`] (a 64-byte cell holds one on every known libc).
pub(crate) const MUTEX_SIZE: usize = size_of::<libc::pthread_mutex_t>();

/// How often a waiter retries before it sleeps; each wait is twice the previous one, from 8 pauses
/// on.
const SPINS: u32 = 5;

/// Longest sleep of a waiter before it retries by itself. A waiter that is killed between its
/// wake-up and taking the lock loses the wake-up if another thread has taken the lock meanwhile:
/// neither glibc nor the kernel wakes the next waiter then.
const NAP: Duration = Duration::from_millis(20);

/// Longest sleep of a waiter that is not woken, because its libc cannot wait by the monotonic
/// clock.
const SHORT_NAP: Duration = Duration::from_millis(1);

/// The bits of a robust lock's word that hold its owner's thread id (the kernel's FUTEX_TID_MASK).
const TID: u32 = 0x3FFF_FFFF;
/// The bit that the kernel sets when the owner dies (FUTEX_OWNER_DIED).
const DIED: u32 = 0x4000_0000;

/// `pthread_mutex_clocklock`, which waits by a given clock. `pthread_mutex_timedlock` uses the wall
/// clock, which may be set back during the wait. In glibc since 2.30; not in musl.
type ClockLock =
    unsafe extern "C" fn(*mut libc::pthread_mutex_t, libc::clockid_t, *const libc::timespec) -> libc::c_int;

/// Its address, once [`prepare`] has found it.
static CLOCK_LOCK: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());

/// Index of the 32-bit word of a mutex that holds the owner's thread id, found by
/// [`thread_standing`]; [`NOT_FOUND`] = unknown.
static OWNER_AT: AtomicUsize = AtomicUsize::new(NOT_FOUND);
const NOT_FOUND: usize = usize::MAX;

/// Looks up the functions that waits need. Done early: `dlsym` takes a lock that may be held in a
/// child of fork.
pub(crate) fn prepare() {
    // SAFETY: looks up a name; the result is only called with its documented type.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_mutex_clocklock".as_ptr()) };
    CLOCK_LOCK.store(found, Relaxed);
}

fn clock_lock() -> Option<ClockLock> {
    let found = CLOCK_LOCK.load(Relaxed);
    // SAFETY: the symbol of this name has this type in every libc that exports it.
    (!found.is_null()).then(|| unsafe { transmute::<*mut libc::c_void, ClockLock>(found) })
}

/// Whether other threads and processes see the locks of the calling thread as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Yes, for all threads of the process.
    Process,
    /// Yes, for this thread only; the first thread of the process was created by a bare `fork` or
    /// `clone`.
    Thread,
    /// No: the C library writes the parent's thread id into them, or the kernel will not release
    /// them when the thread dies. The thread was created by a system call, not by the library's
    /// `fork` or `pthread_create`.
    Foreign,
}

/// Locks a private mutex and inspects the result. Async-signal-safe calls only.
pub(crate) fn thread_standing() -> Standing {
    let mut cell = MaybeUninit::<libc::pthread_mutex_t>::uninit();
    // SAFETY: the cell is aligned, lives on this stack until the end, and no other code knows it.
    let mutex = unsafe { RobustMutex::at(cell.as_mut_ptr().cast()) };
    if mutex.init().is_err() || mutex.try_lock().is_err() {
        return Standing::Thread; // Nothing can be found out.
    }
    let own = process::thread_id();
    let known = Some(OWNER_AT.load(Relaxed)).filter(|&at| at != NOT_FOUND);
    let mut places = known.map_or(0..MUTEX_SIZE / 4, |at| at..at + 1);
    let at = places.find(|&at| mutex.word(at) & TID == own);
    // The C library may register its list with the first robust lock: look while it is held.
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
    /// Normally.
    Clean,
    /// Its owner died; the protected data must be repaired, then [`RobustMutex::consistent`]
    /// called.
    OwnerDied,
}

/// Why [`RobustMutex::try_lock`] did not get the lock: it is held, its owner died, or it is
/// unusable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotTaken(libc::c_int);

impl NotTaken {
    /// Not tried: the calling process has not been checked yet ([`thread_standing`]).
    pub(crate) const UNTRIED: Self = Self(-1);

    /// Whether this is [`NotTaken::UNTRIED`].
    pub(crate) fn is_untried(self) -> bool {
        self.0 == Self::UNTRIED.0
    }

    /// Whether another thread held it.
    pub(crate) fn is_busy(self) -> bool {
        self.0 == libc::EBUSY
    }
}

/// A pthread mutex at a fixed place in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RobustMutex(*mut libc::pthread_mutex_t);

/// Where a mutex says who its owner is, and that he died: for a look at many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnerAt {
    at: usize,
    /// 0 = none of them says so.
    died: u32,
}

impl OwnerAt {
    #[inline(always)]
    pub(crate) fn known() -> Self {
        match OWNER_AT.load(Relaxed) {
            NOT_FOUND => Self { at: 0, died: 0 },
            at => Self { at, died: DIED },
        }
    }

    /// Whether one of the owners died, by all their words ([`RobustMutex::owner_word`]) in one.
    #[inline(always)]
    pub(crate) fn has_died(self, words: u32) -> bool {
        words & self.died != 0
    }
}

impl RobustMutex {
    /// # Safety
    /// `at` must be aligned for a `pthread_mutex_t`, stay mapped while this value is used, and hold
    /// a mutex that [`RobustMutex::init`] made (or be about to be initialised, by one process
    /// alone).
    pub(crate) unsafe fn at(at: *mut u8) -> Self {
        Self(at.cast())
    }

    /// Initialises the mutex over whatever bytes are there.
    pub(crate) fn init(self) -> Result<()> {
        let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let a = attr.as_mut_ptr();
        // SAFETY: `a` is valid for one attr, initialised by the first call; the mutex cell is ours
        // (contract of `at`).
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

    /// Locks if the mutex is free; [`RobustMutex::wait`] handles all other cases.
    #[inline(always)]
    pub(crate) fn try_lock(self) -> std::result::Result<Locked, NotTaken> {
        // SAFETY: the cell holds an initialised mutex (contract of `at`).
        match unsafe { libc::pthread_mutex_trylock(self.0) } {
            0 => Ok(Locked::Clean),
            rc => Err(NotTaken(rc)),
        }
    }

    /// Continues after a failed [`RobustMutex::try_lock`], waiting up to `timeout` for a live
    /// owner.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::WouldDeadlock`] when this thread holds it, [`Error::Damaged`].
    #[cold]
    pub(crate) fn wait(self, first: NotTaken, timeout: Duration) -> Result<Locked> {
        self.wait_by(clock_lock(), first, timeout)
    }

    fn wait_by(self, by_clock: Option<ClockLock>, first: NotTaken, timeout: Duration) -> Result<Locked> {
        let mut rc = first.0;
        // The critical sections are shorter than a sleep and a wake-up: spin a few times first.
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
            libc::ENOTRECOVERABLE => {
                Err(Error::Damaged("a lock cannot be recovered: its last recoverer unlocked it unrepaired"))
            }
            rc => Err(os("pthread_mutex_clocklock", rc)),
        }
    }

    /// Waits for the lock until a time of the monotonic clock.
    fn sleep(self, lock: ClockLock, until: Duration) -> libc::c_int {
        let until = clock::timespec(until);
        // SAFETY: as in `try_lock`; the time is a valid timespec.
        unsafe { lock(self.0, libc::CLOCK_MONOTONIC, &raw const until) }
    }

    /// Sleeps for `time`, [`SHORT_NAP`] at most, and tries again.
    fn nap(self, time: Duration) -> libc::c_int {
        let _shield = Shield::raise();
        thread::sleep(time.clamp(SHORT_NAP / 16, SHORT_NAP));
        // SAFETY: as in `try_lock`.
        unsafe { libc::pthread_mutex_trylock(self.0) }
    }

    /// One of its 32-bit words.
    #[inline(always)]
    fn word(self, at: usize) -> u32 {
        // SAFETY: within the cell, and aligned; atomic, as other threads may be changing it.
        unsafe { &*self.0.cast::<AtomicU32>().add(at) }.load(Relaxed)
    }

    /// Whether its last owner died, and nobody has locked it since.
    pub(crate) fn owner_died(self) -> bool {
        let owner = OwnerAt::known();
        owner.has_died(self.owner_word(owner))
    }

    /// The word that says who its owner is.
    #[inline(always)]
    pub(crate) fn owner_word(self, owner: OwnerAt) -> u32 {
        self.word(owner.at)
    }

    /// The owner, if it is dead without the kernel having marked the mutex, which will then never
    /// be free again. The kernel reads the list of a dying thread's locks from that thread's
    /// memory; Linux before 5.18 may have freed that already, when the machine was out of memory.
    pub(crate) fn lost_owner(self) -> Option<u32> {
        let at = OWNER_AT.load(Relaxed);
        let word = if at == NOT_FOUND { 0 } else { self.word(at) };
        let owner = word & TID;
        // The same word before and after: it was not released and taken by another thread
        // meanwhile.
        let lost = owner != 0 && process::has_ended(owner) && self.word(at) == word;
        lost.then_some(owner)
    }

    /// Declares the protected data repaired, after [`Locked::OwnerDied`].
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

    // SAFETY: a mutex is meant to be used by several threads.
    unsafe impl Sync for Cell {}

    impl Cell {
        fn new() -> Self {
            let cell = Self(Box::new(libc::PTHREAD_MUTEX_INITIALIZER));
            cell.mutex().init().expect("init");
            cell
        }

        fn mutex(&self) -> RobustMutex {
            // SAFETY: aligned, lives as long as the cell, and only used as a mutex.
            unsafe { RobustMutex::at((&raw const *self.0).cast_mut().cast()) }
        }
    }

    #[test]
    fn waits_without_clocklock_last_as_long() {
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
                    // The thread ends holding it.
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
            thread_standing();
            // The kernel marks it when the thread has ended.
            let until = clock::monotonic() + Duration::from_secs(60);
            while !cell.mutex().owner_died() {
                assert!(clock::monotonic() < until);
                thread::sleep(SHORT_NAP);
            }
            let taken = cell.mutex().wait_by(by_clock, NotTaken(libc::EBUSY), Duration::from_secs(60));
            assert_eq!(taken.expect("a dead owner's"), Locked::OwnerDied);
            cell.mutex().consistent();
            assert!(cell.mutex().unlock() && !cell.mutex().owner_died());
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
