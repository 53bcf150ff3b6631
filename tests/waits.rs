//! Waits: none depends on the wall clock or lasts forever, whatever the locks contain and whoever
//! died in one.

#[path = "support/clock_steps.rs"]
mod clock_steps;
#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/store_header.rs"]
mod store_header;

use std::{
    ffi::CString,
    fs,
    net::TcpListener,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant, SystemTime},
};

use clock_steps::pass_beside_such_a_clock;
use engine_proc::{Child, Scratch, alone};
use engine_value::Bytes;
use patience::within;
use store_header::{FOREIGN, Header, LEASE_SEQ, LEASE_WAITED, LOCK_FOREIGN, LOCK_POOL, LOCK_SHARD};
use ucache::{
    Error, Eviction,
    capi::compat::magic::uwsgi_cache_magic_get,
    engine::{Blocks, Config, Engine, Expires, Fill, SetOptions, Store},
};

const UPDATE: SetOptions = SetOptions::set(Expires::Never);
/// `lock_timeout` of the caches here, and other waits.
const WAIT: Duration = Duration::from_millis(300);
/// Less than an hour, more than the delay of a loaded machine.
const LATE: Duration = Duration::from_secs(30);

/// A store, its engine and its header.
struct Rig {
    engine: Arc<Engine>,
    header: Header,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store");
        let mut config = Config::new("waits", 50);
        // With exact order one shard has all keys.
        config.eviction = Eviction::Lru;
        config.lock_timeout = WAIT;
        config.max_value = 8 << 20;
        config.store = Some(Store { path: path.clone(), delete_unusable: false });
        change(&mut config);
        let engine = Engine::create(&config).expect("a store");
        assert!(engine.stats().shards == 1 || config.eviction == Eviction::None);
        Self { engine, header: Header::map(&path), dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.engine.set(key.as_bytes(), value, &UPDATE).map(drop)
    }

    fn fill(&self, lease: Duration, patience: Duration) -> Fill {
        self.engine.begin_fill(b"page", lease, patience, &mut Bytes::default()).expect("begin_fill")
    }
}

/// Runs `hold` in a child that keeps what it holds until it is killed.
fn holder(hold: impl FnOnce()) -> Child {
    let held = Scratch::new(1);
    let child = Child::fork(|| {
        hold();
        held[0].store(1, SeqCst);
        thread::sleep(engine_proc::HANG);
    });
    within("the holder", || held[0].load(SeqCst) == 1);
    child
}

/// A wait takes about the expected time, neither an hour nor no time.
fn lasts<T>(what: &str, at_least: Duration, wait: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let got = wait();
    let took = start.elapsed();
    // Some waits count from the kernel's last tick.
    assert!(took + Duration::from_millis(50) > at_least && took < LATE, "{what}: {took:?}");
    got
}

/// The clock is set back and forward by an hour, many times in each wait: this test, run again in a
/// process with such a clock.
#[test]
fn waits_do_not_follow_the_wall_clock() {
    let _alone = alone();
    if std::env::var_os("UCACHE_CLOCK").is_some() {
        return beside_a_clock_that_is_set();
    }
    pass_beside_such_a_clock("waits_do_not_follow_the_wall_clock", 0, &[]);
}

fn beside_a_clock_that_is_set() {
    let (first, second) = (SystemTime::now(), SystemTime::now());
    let apart = first.duration_since(second).unwrap_or_else(|e| e.duration());
    assert!(apart > Duration::from_secs(3600), "the clock stands still: {apart:?}");
    // SAFETY: a wait of an hour ends the process.
    unsafe { libc::alarm(100) };
    locks_time_out();
    fillers_and_openers_are_waited_for();
    a_silent_peer_is_given_up();
    a_full_cache_is_swept_after_the_clock_went_back();
}

fn locks_time_out() {
    let large = vec![b'v'; 3 << 20];
    for (what, at, value) in [("shard", LOCK_SHARD, &b"v"[..]), ("pool", LOCK_POOL, &large)] {
        let rig = Rig::new(|config| config.blocks = Some(Blocks { size: 1 << 20, count: 50 }));
        let _holder = holder(|| rig.header.lock(at));
        for _ in 0..2 {
            let refused = lasts(what, WAIT, || rig.set("k", value));
            assert!(refused.is_err(), "{what}: {refused:?}");
        }
    }
    let rig = Rig::new(|_| {});
    let _holder = holder(|| rig.engine.exclusive_begin().expect("exclusive_begin"));
    for _ in 0..2 {
        for refused in [
            lasts("a write beside an exclusive holder", WAIT, || rig.set("k", b"v")),
            lasts("a second exclusive holder", WAIT, || rig.engine.exclusive_begin()),
        ] {
            assert!(matches!(refused, Err(Error::Timeout { .. })), "{refused:?}");
        }
    }
}

fn fillers_and_openers_are_waited_for() {
    let rig = Rig::new(|_| {});
    let lease = 3 * WAIT;
    let filler = holder(|| assert!(matches!(rig.fill(2 * LATE, WAIT), Fill::Filler(_))));
    let waited = lasts("a value that somebody computes", WAIT, || rig.fill(lease, WAIT));
    assert!(matches!(waited, Fill::TimedOut), "{waited:?}");
    drop(filler);
    let _late = holder(|| assert!(matches!(rig.fill(lease, LATE), Fill::Filler(_))));
    let start = Instant::now();
    let taken = lasts("a lease that ends", Duration::ZERO, || rig.fill(lease, LATE));
    assert!(matches!(taken, Fill::Filler(_)) && start.elapsed() > WAIT, "{taken:?}, {:?}", start.elapsed());
    rig.engine.sync().expect("sync");
    let path = rig.path();
    let opener = Child::fork(|| {
        let turn = store_header::opening_lock(&path);
        rig.header.half(LEASE_WAITED).store(7, SeqCst);
        thread::sleep(WAIT);
        drop(turn);
    });
    within("the opener", || rig.header.half(LEASE_WAITED).load(SeqCst) == 7);
    lasts("an opener's turn", Duration::ZERO, || Engine::attach(&path)).expect("a store");
    opener.join();
}

fn a_silent_peer_is_given_up() {
    let peer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let name = format!("c@{}", peer.local_addr().expect("an address"));
    let name = CString::new(name).expect("no NUL");
    let (mut len, mut expires) = (0, 0);
    // The timeout of sockets where there is no uWSGI.
    let got = lasts("a remote read", Duration::from_secs(4), || {
        // SAFETY: a key of one byte, two variables, and a string that ends with a NUL.
        unsafe { uwsgi_cache_magic_get(c"k".as_ptr(), 1, &raw mut len, &raw mut expires, name.as_ptr()) }
    });
    assert!(got.is_null());
}

/// `sweep_on_full` is an interval: a sweep "due" in an hour, because the clock was set back, is
/// due.
fn a_full_cache_is_swept_after_the_clock_went_back() {
    let path = std::env::var_os("UCACHE_CLOCK").expect("the clock");
    let set_clock = |by: i64| fs::write(&path, by.to_ne_bytes()).expect("the clock");
    let rig = Rig::new(|config| {
        config.eviction = Eviction::None;
        config.no_expire = true;
        config.sweep_on_full = 60;
    });
    let fill_and_store = |new: &str| {
        let old = SetOptions { expires: Expires::At(1), ..UPDATE };
        let full = |stats: ucache::Stats| stats.items == stats.capacity;
        (0..100_u32).take_while(|_| !full(rig.engine.stats())).for_each(|n| {
            rig.engine.set(&n.to_le_bytes(), b"v", &old).expect("there is room");
        });
        assert!(full(rig.engine.stats()));
        rig.set(new, b"v")
    };
    set_clock(7200);
    fill_and_store("a").expect("swept, as never before");
    let refused = fill_and_store("b");
    assert!(matches!(refused, Err(Error::Full { .. })), "not yet again: {refused:?}");
    set_clock(-7200);
    fill_and_store("c").expect("swept, as the clock says nothing of when it was");
}

/// Linux before 5.18 could lose the list of a dying process's locks when the machine was out of
/// memory.
#[test]
fn a_lock_that_the_kernel_does_not_pass_on_is_told_of() {
    let _alone = alone();
    let rig = Rig::new(|_| {});
    rig.set("k", b"v").expect("set");
    Child::fork(|| {
        rig.header.lock(LOCK_SHARD);
        // An empty list, as long as the process lives.
        let mut empty = [0_usize; 3];
        empty[0] = empty.as_ptr().addr();
        // SAFETY: the list lives until the process ends, right here.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_set_robust_list, empty.as_ptr(), size_of_val(&empty)), 0);
            libc::_exit(0);
        }
    })
    .join();
    for round in 1..=2 {
        let refused = rig.set("k", b"w");
        let Err(error @ Error::LockLost { .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("which is dead"), "{error}");
        assert_eq!(rig.engine.stats().lock_lost, round);
    }
    // Reads continue, also those that would count the item's hits.
    let mut sink = Bytes::default();
    assert!(rig.engine.get_counted(b"k", &mut sink).expect("get").is_some());
    assert_eq!(sink.0, b"v");
    // The next process that opens the store alone recreates its locks.
    let Rig { engine, dir, .. } = rig;
    drop(engine);
    let engine = Engine::attach(&dir.path().join("store")).expect("the store");
    engine.set(b"k", b"w", &UPDATE).expect("set");
}

/// Each waiter killed in its sleep used to cost every later fill a system call.
#[test]
fn a_waiter_that_is_killed_in_its_sleep_leaves_no_trace() {
    let _alone = alone();
    let rig = Rig::new(|_| {});
    let asleep = || {
        rig.header.half(LEASE_WAITED).load(SeqCst) == rig.header.half(LEASE_SEQ).load(SeqCst).wrapping_add(1)
    };
    for round in 0..3 {
        let Fill::Filler(token) = rig.fill(LATE, LATE) else { panic!("somebody else fills") };
        let waiter = Child::fork(|| panic!("woken: {:?}", rig.fill(LATE, LATE)));
        within("the waiter", asleep);
        assert!(waiter.kill());
        rig.engine.end_fill(b"page", token, b"v", Expires::Never).expect("end_fill");
        assert!(!asleep(), "round {round}: who would be woken?");
        assert!(rig.engine.delete(b"page").expect("delete"));
    }
    // A live waiter is woken long before its next own check, every time.
    let Fill::Filler(token) = rig.fill(LATE, LATE) else { panic!("somebody else fills") };
    let waiter = Child::fork(|| assert!(matches!(rig.fill(LATE, LATE), Fill::Hit(_))));
    within("the waiter", asleep);
    rig.engine.end_fill(b"page", token, b"v", Expires::Never).expect("end_fill");
    waiter.join();
}

/// The mark of an exclusive owner without a lock behind it: it has no owner, and is no reason to
/// wait forever.
#[test]
fn a_mark_that_nobody_set_is_no_reason_to_wait() {
    let _alone = alone();
    let rig = Rig::new(|_| {});
    let mark = rig.header.word(FOREIGN);
    mark.store(1 << 32 | 5, SeqCst);
    Child::fork(|| rig.set("k", b"v").expect("nobody has it")).join();
    assert_eq!(mark.load(SeqCst), 0);
    // A lock that is this thread's by its thread id, and another one's by the mark.
    Child::fork(|| {
        rig.header.lock(LOCK_FOREIGN);
        mark.store(1 << 32 | 5, SeqCst);
        let refused = rig.set("k", b"v");
        assert!(matches!(refused, Err(Error::WouldDeadlock)), "{refused:?}");
    })
    .join();
    rig.set("k", b"v").expect("a dead owner's lock");
}
