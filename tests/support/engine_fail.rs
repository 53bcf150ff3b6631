//! Resources that cannot be had: a kind of call that fails at its first, second, ... time, until nothing fails any more.
//!
//! The functions below take the place of libc's in the test's program, for whatever the engine's `os` layer and the standard
//! library beneath it ask of the kernel. So the library under test is the one that is shipped: a switch inside of it would be
//! code that runs in tests alone, and would not see the calls of the standard library.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    ffi::{c_char, c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst},
};

use crate::engine_proc::say;

/// The calls that can be made to fail. Where there is another way to the same, the next such call fails as well.
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
/// Fails from its time on, and is counted as the third.
const LASTING: usize = CALLS.len() - 1;
const MMAP: usize = 2;
static FAIL: AtomicUsize = AtomicUsize::new(usize::MAX);
static AFTER: AtomicUsize = AtomicUsize::new(0);
/// Whether it goes on failing.
static ALWAYS: AtomicBool = AtomicBool::new(false);
/// Whether the test itself is at work.
static ASIDE: AtomicBool = AtomicBool::new(false);
static WITH: AtomicI32 = AtomicI32::new(0);
static SEEN: [AtomicUsize; CALLS.len()] = [const { AtomicUsize::new(0) }; CALLS.len()];

/// Counts a call; -1 with errno when it is its turn to fail.
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
            // SAFETY: the system call of the same name, with what the caller vouches for.
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

/// The number of a call in [`CALLS`].
pub(crate) fn call(name: &str) -> usize {
    CALLS.iter().position(|&c| c == name).expect("a call")
}

/// Runs `f` with the `n`-th call of a kind failing; says whether it came to that.
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

/// What the test does for itself meanwhile: its calls neither fail nor count.
pub(crate) fn aside<T>(f: impl FnOnce() -> T) -> T {
    ASIDE.store(true, SeqCst);
    let result = f();
    ASIDE.store(false, SeqCst);
    result
}

/// How often a call was made so far.
pub(crate) fn seen(name: &str) -> usize {
    SEEN[call(name)].load(SeqCst)
}

/// What a call fails with at its `n`-th time.
pub(crate) fn errno_of(call: usize, n: usize) -> c_int {
    match CALLS[call] {
        "open" => [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO][n % 4],
        "fcntl" => [libc::ENOLCK, libc::ENOMEM][n % 2],
        "statx" | "fstatfs" | "read" | "pread" => [libc::ENOMEM, libc::EIO][n % 2],
        _ => [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::ENOMEM][(n + call) % 4],
    }
}

/// `f` with each call failing at each of its times, until there is no such time.
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
