//! System calls that fail: each call that a store makes, at its first, second, ... time, until nothing fails any more.
//! The functions below take the place of libc's in this program.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;

use std::{
    ffi::{c_int, c_void},
    fs,
    sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use engine_proc::{alone, say};
use engine_store::{ADD, UPDATE, assert_filled, config, fill, memory};
use ucache::{
    Error,
    engine::{Config, Engine, Touch},
};

/// The calls that can be made to fail.
const CALLS: [&str; 7] = ["fallocate", "ftruncate", "mmap", "msync", "fsync", "pwrite", "renameat"];
static FAIL: AtomicUsize = AtomicUsize::new(usize::MAX);
static AFTER: AtomicUsize = AtomicUsize::new(0);
/// Whether it goes on failing.
static ALWAYS: AtomicBool = AtomicBool::new(false);
static WITH: AtomicI32 = AtomicI32::new(0);
static SEEN: [AtomicUsize; CALLS.len()] = [const { AtomicUsize::new(0) }; CALLS.len()];

/// Counts a call; -1 with errno when it is its turn to fail.
fn turn(call: usize) -> bool {
    SEEN[call].fetch_add(1, SeqCst);
    if FAIL.load(SeqCst) != call || !ALWAYS.load(SeqCst) && AFTER.fetch_sub(1, SeqCst) != 1 {
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
    6 renameat = SYS_renameat (at: c_int, from: *const libc::c_char, to_at: c_int, to: *const libc::c_char);
}

/// Runs `f` with the `n`-th call of a kind failing; says whether it came to that.
fn failing<T>(call: usize, n: usize, errno: c_int, f: impl FnOnce() -> T) -> (T, bool) {
    WITH.store(errno, SeqCst);
    AFTER.store(n, SeqCst);
    FAIL.store(call, SeqCst);
    let result = f();
    (result, FAIL.swap(usize::MAX, SeqCst) == usize::MAX)
}

fn seen(call: &str) -> usize {
    SEEN[CALLS.iter().position(|&c| c == call).expect("a call")].load(SeqCst)
}

/// `f` with each call failing at each of its times and each error, until there is no such time.
fn exhaust(what: &str, f: impl Fn(&str)) {
    let mut failures = 0;
    for (call, name) in CALLS.iter().enumerate() {
        for n in 1.. {
            let errno = [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::ENOMEM][(n + call) % 4];
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

/// Making a store fails cleanly, and the next try makes it.
#[test]
fn creation() {
    let _alone = alone();
    exhaust("creation", |what| {
        let dir = memory();
        let path = dir.path().join("store");
        let first = Engine::create(&config(&path));
        let again = first.unwrap_or_else(|e| {
            assert!(matches!(e, Error::Os { .. } | Error::Store { .. }), "{what}: {e:?}");
            Engine::create(&config(&path)).unwrap_or_else(|e| panic!("{what}: again: {e}"))
        });
        fill_once(&again, what);
        drop(dir);
    });
}

fn fill_once(engine: &Engine, what: &str) {
    engine.set(b"k", b"v", &UPDATE).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(engine_value::get(engine, b"k", Touch::No).expect("get").is_some(), "{what}");
}

/// Opening a store, or moving it to other settings, fails cleanly or not at all; everything is there afterwards.
#[test]
fn opening_and_moving() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    fill(&Engine::create(&config(&path)).expect("a store"), 1);
    let copy = dir.path().join("copy");
    for capacity in [2000, 2001] {
        exhaust(&format!("opening for {capacity}"), |what| {
            fs::copy(&path, &copy).expect("a copy");
            let wanted = Config { capacity, ..config(&copy) };
            // The first one to fail is the one that the loop asked for; the second opening has none.
            let first = Engine::create(&wanted).map(|engine| assert_filled(&engine, 1));
            if let Err(e) = first {
                assert!(matches!(e, Error::Os { .. } | Error::Store { .. }), "{what}: {e:?}");
                let again = Engine::create(&wanted).unwrap_or_else(|e| panic!("{what}: again: {e}"));
                assert_filled(&again, 1);
            }
            fs::remove_file(&copy).expect("remove");
            assert!(!dir.path().join("copy.new").exists(), "{what}: something was left");
        });
    }
}

/// A copy is not trusted, also after an opening of it that was cut off.
#[test]
fn an_opening_that_fails_proves_nothing() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let value = *b"a value that is found in the file";
    let engine = Engine::create(&config(&path)).expect("a store");
    engine.set(b"damaged", &value, &UPDATE).expect("set");
    drop(engine);
    let mut bytes = fs::read(&path).expect("the store");
    let at = bytes.windows(value.len()).position(|w| w == value).expect("the value is there");
    bytes[at] ^= 1;
    exhaust("opening of a damaged copy", |what| {
        let copy = dir.path().join("copy");
        fs::write(&copy, &bytes).expect("a copy");
        let engine = Engine::create(&config(&copy)).or_else(|_| Engine::create(&config(&copy)));
        let engine = engine.unwrap_or_else(|e| panic!("{what}: again: {e}"));
        assert_eq!((engine.exists(b"damaged"), engine.stats().dropped_corrupt), (None, 1), "{what}");
        drop(engine);
        fs::remove_file(&copy).expect("the copy");
    });
}

/// Storing while the disk is full, or broken: an error and a counter, and everything else goes on.
#[test]
fn storing() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let mut refused = 0;
    for errno in [libc::ENOSPC, libc::EDQUOT, libc::EIO] {
        let engine = Engine::create(&config(&path)).expect("a store");
        fill(&engine, 1);
        let before = fs::metadata(&path).expect("stat").len();
        for n in 0..200_u32 {
            // Growing is tried amply, then barely; what failed is not tried again for a while.
            WITH.store(errno, SeqCst);
            let key = format!("large {n}");
            let (stored, _) = failing(0, 1, errno, || engine.set(key.as_bytes(), &[7; 190_000], &ADD));
            if let Err(e) = stored {
                assert!(matches!(e, Error::NoSpace { .. }), "{e:?}");
                refused += 1;
            }
        }
        assert_filled(&engine, 1);
        assert!(fs::metadata(&path).expect("stat").len() > before, "it grew when it could");
        let stats = engine.stats();
        assert_eq!(stats.no_space, refused, "each refusal is counted");
        refused = 0;
        drop(engine);
        let engine = Engine::create(&config(&path)).expect("the store");
        assert_filled(&engine, 1);
        assert_eq!(engine.stats().dropped_corrupt, 0);
        drop(engine);
        fs::remove_file(&path).expect("remove");
    }
}

/// A full disk is asked twice (amply and barely), and again after a second: a refused item costs no system call.
#[test]
fn a_full_disk_is_not_asked_for_each_item() {
    let _alone = alone();
    let dir = memory();
    let engine = Engine::create(&config(&dir.path().join("store"))).expect("a store");
    fill(&engine, 1);
    let large = |n: u32| engine.set(format!("large {n}").as_bytes(), &[7; 190_000], &ADD);
    // What is backed already is used up first.
    WITH.store(libc::ENOSPC, SeqCst);
    ALWAYS.store(true, SeqCst);
    FAIL.store(0, SeqCst);
    let start = Instant::now();
    let (before, mut refused) = (seen("fallocate"), 0);
    for n in 0..1000 {
        refused += usize::from(matches!(large(n), Err(Error::NoSpace { .. })));
    }
    let (asked, seconds) = (seen("fallocate") - before, start.elapsed().as_secs() as usize);
    // The disk has room again: that is noticed.
    FAIL.store(usize::MAX, SeqCst);
    ALWAYS.store(false, SeqCst);
    say(&format!("{refused} refused items, {asked} calls of fallocate"));
    assert!(refused > 900, "{refused} refused");
    assert!(asked >= 2 && asked <= 2 * (seconds + 1), "{asked} calls for {refused} items in {seconds} s");
    assert_filled(&engine, 1);
    while large(2000).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "the store does not grow again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A sync that fails says so, once; the cache goes on and the next one succeeds.
#[test]
fn syncing() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let engine = Engine::create(&config(&path)).expect("a store");
    fill(&engine, 1);
    for call in [3, 4] {
        for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT] {
            let (synced, failed) = failing(call, 1, errno, || engine.sync());
            assert!(failed && matches!(synced, Err(Error::Os { .. })), "{}: {synced:?}", CALLS[call]);
            engine.sync().expect("the next one");
            fill(&engine, 2);
            assert_filled(&engine, 2);
        }
    }
}

/// No request writes to the disk: `msync` and `fsync` are called by `sync` alone, and then both.
#[test]
fn requests_do_not_sync() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let engine = Engine::create(&config(&path)).expect("a store");
    let before = (seen("msync"), seen("fsync"));
    for round in 1..4 {
        fill(&engine, round);
        assert_filled(&engine, round);
        engine.math(b"n", ucache::engine::Math::Inc, 1, &UPDATE).expect("math");
        engine.exists(b"n").expect("there");
        engine.delete(b"n").expect("delete");
        engine_value::all_items(&engine);
        engine.clear().expect("clear");
        engine.sweep().expect("sweep");
        engine.stats();
    }
    assert_eq!((seen("msync"), seen("fsync")), before);
    engine.sync().expect("sync");
    assert_eq!((seen("msync"), seen("fsync")), (before.0 + 1, before.1 + 1));
    drop(engine);
    assert_eq!((seen("msync"), seen("fsync")), (before.0 + 1, before.1 + 1), "closing does not sync either");
}
