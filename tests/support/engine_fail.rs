//! Fault injection: a kind of call fails at its first, second, ... time, until a run has no more
//! such calls.
//!
//! The functions below replace libc's in the test program, for all calls of the engine's `os` layer
//! and of the standard library beneath it. So the library under test is the shipped one: a switch
//! inside it would be code for tests only, and would miss the calls of the standard library.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    ffi::{c_char, c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst},
};

use crate::engine_proc::say;

/// The calls that can fail. If there is an alternative to a call, its next call fails, too.
pub(crate) const CALLS: [&str; 20] = [
    "fallocate",
    "ftruncate",
    "mmap",
    "msync",
    "fsync",
    "pwrite",
    "rename",
    "munmap",
    "madvise",
    "open",
    "statx",
    "pread",
    "read",
    "fcntl",
    "fstatfs",
    "getrandom",
    "linkat",
    "unlink",
    "fchmod",
    "each mmap from",
];
/// Fails from its time on; counted as the third call.
const LASTING: usize = CALLS.len() - 1;
const MMAP: usize = 2;
static FAIL: AtomicUsize = AtomicUsize::new(usize::MAX);
static AFTER: AtomicUsize = AtomicUsize::new(0);
/// Whether all later calls fail, too.
static ALWAYS: AtomicBool = AtomicBool::new(false);
/// Whether the test itself is making calls.
static ASIDE: AtomicBool = AtomicBool::new(false);
static WITH: AtomicI32 = AtomicI32::new(0);
static SEEN: [AtomicUsize; CALLS.len()] = [const { AtomicUsize::new(0) }; CALLS.len()];

/// Counts a call; `true`, with errno set, if this one is to fail.
fn turn(call: usize) -> bool {
    if ASIDE.load(SeqCst) {
        return false;
    }
    SEEN[call].fetch_add(1, SeqCst);
    let asked = FAIL.load(SeqCst);
    if asked == LASTING && call == MMAP {
        if AFTER.load(SeqCst) > 1 {
            AFTER.fetch_sub(1, SeqCst);
            return false;
        }
        AFTER.store(0, SeqCst);
        // SAFETY: errno is this thread's.
        unsafe { *libc::__errno_location() = WITH.load(SeqCst) };
        return true;
    }
    if asked != call || !ALWAYS.load(SeqCst) && AFTER.fetch_sub(1, SeqCst) != 1 {
        return false;
    }
    if !ALWAYS.load(SeqCst) {
        FAIL.store(usize::MAX, SeqCst);
    }
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = WITH.load(SeqCst) };
    true
}

macro_rules! in_place_of {
    ($($call:literal $name:ident = $number:ident ($($arg:ident: $type:ty),+);)+) => {$(
        /// # Safety
        /// As the function of this name.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),+) -> isize {
            // SAFETY: the system call of the same name, under the caller's contract.
            if turn($call) { -1 } else { unsafe { libc::syscall(libc::$number, $($arg),+) as isize } }
        }
    )+};
}

in_place_of! {
    0 fallocate = SYS_fallocate (fd: c_int, mode: c_int, at: i64, len: i64);
    1 ftruncate = SYS_ftruncate (fd: c_int, len: i64);
    1 ftruncate64 = SYS_ftruncate (fd: c_int, len: i64);
    2 mmap = SYS_mmap (at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, off: i64);
    3 msync = SYS_msync (at: *mut c_void, len: usize, flags: c_int);
    4 fsync = SYS_fsync (fd: c_int);
    5 pwrite = SYS_pwrite64 (fd: c_int, from: *const c_void, len: usize, at: i64);
    5 pwrite64 = SYS_pwrite64 (fd: c_int, from: *const c_void, len: usize, at: i64);
    6 rename = SYS_rename (from: *const c_char, to: *const c_char);
    6 renameat = SYS_renameat (dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char);
    7 munmap = SYS_munmap (at: *mut c_void, len: usize);
    8 madvise = SYS_madvise (at: *mut c_void, len: usize, advice: c_int);
    9 open = SYS_open (path: *const c_char, flags: c_int, mode: c_uint);
    9 open64 = SYS_open (path: *const c_char, flags: c_int, mode: c_uint);
    9 openat = SYS_openat (dir: c_int, path: *const c_char, flags: c_int, mode: c_uint);
    9 openat64 = SYS_openat (dir: c_int, path: *const c_char, flags: c_int, mode: c_uint);
    10 statx = SYS_statx (dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut c_void);
    11 pread = SYS_pread64 (fd: c_int, into: *mut c_void, len: usize, at: i64);
    11 pread64 = SYS_pread64 (fd: c_int, into: *mut c_void, len: usize, at: i64);
    12 read = SYS_read (fd: c_int, into: *mut c_void, len: usize);
    13 fcntl = SYS_fcntl (fd: c_int, command: c_int, arg: c_long);
    14 fstatfs = SYS_fstatfs (fd: c_int, into: *mut c_void);
    14 fstatfs64 = SYS_fstatfs (fd: c_int, into: *mut c_void);
    15 getrandom = SYS_getrandom (into: *mut c_void, len: usize, flags: c_uint);
    16 linkat = SYS_linkat (dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_int);
    17 unlink = SYS_unlink (path: *const c_char);
    17 unlinkat = SYS_unlinkat (dir: c_int, path: *const c_char, flags: c_int);
    18 fchmod = SYS_fchmod (fd: c_int, mode: c_uint);
}

/// The index of a call in [`CALLS`].
pub(crate) fn call(name: &str) -> usize {
    CALLS.iter().position(|&c| c == name).expect("a call")
}

/// Runs `f` with the `n`-th call of a kind failing; also returns whether that call was made.
pub(crate) fn failing<T>(call: usize, n: usize, errno: c_int, f: impl FnOnce() -> T) -> (T, bool) {
    WITH.store(errno, SeqCst);
    AFTER.store(n, SeqCst);
    FAIL.store(call, SeqCst);
    let result = f();
    let asked = FAIL.swap(usize::MAX, SeqCst);
    (result, if asked == LASTING { AFTER.load(SeqCst) == 0 } else { asked == usize::MAX })
}

/// Runs `f` with all calls of a kind failing.
pub(crate) fn without<T>(call: usize, errno: c_int, f: impl FnOnce() -> T) -> T {
    WITH.store(errno, SeqCst);
    ALWAYS.store(true, SeqCst);
    FAIL.store(call, SeqCst);
    let result = f();
    FAIL.store(usize::MAX, SeqCst);
    ALWAYS.store(false, SeqCst);
    result
}

/// Runs calls of the test itself: they neither fail nor count.
pub(crate) fn aside<T>(f: impl FnOnce() -> T) -> T {
    ASIDE.store(true, SeqCst);
    let result = f();
    ASIDE.store(false, SeqCst);
    result
}

/// How often a call has been made so far.
pub(crate) fn seen(name: &str) -> usize {
    SEEN[call(name)].load(SeqCst)
}

/// The error of a call at its `n`-th time.
pub(crate) fn errno_of(call: usize, n: usize) -> c_int {
    match CALLS[call] {
        "open" => [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO][n % 4],
        "fcntl" => [libc::ENOLCK, libc::ENOMEM][n % 2],
        "statx" | "fstatfs" | "read" | "pread" => [libc::ENOMEM, libc::EIO][n % 2],
        _ => [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::ENOMEM][(n + call) % 4],
    }
}

/// Runs `f` with each call failing at each of its times, until a run has no such call.
pub(crate) fn exhaust(what: &str, f: impl Fn(&str)) {
    let mut failures = 0;
    for (call, name) in CALLS.iter().enumerate() {
        for n in 1.. {
            let errno = errno_of(call, n);
            let ((), failed) = failing(call, n, errno, || f(&format!("{what}: {name} {n} errno {errno}")));
            if !failed {
                break;
            }
            failures += 1;
        }
    }
    say(&format!("{what}: {failures} failures"));
    assert!(failures > 0, "{what}: no call was made to fail");
}
