//! A repair, an opening or a lookup that cannot get a resource (memory, mappings, descriptors)
//! causes no damage: it fails with an error, everything stored is kept, and the next attempt
//! succeeds.

#[path = "support/engine_fail.rs"]
mod engine_fail;
#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_step.rs"]
mod engine_step;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    io::Error as IoError,
    os::unix::process::CommandExt,
    process::Command,
    ptr::null_mut,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use engine_fail::{CALLS, call, errno_of, failing, without};
use engine_proc::{Child, Scratch, alone, say, seed};
use engine_step::Stepped;
use engine_store::{KEYS, UPDATE, assert_filled, fill, memory};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ucache::{
    Error, Result,
    engine::{Blocks, Config, Engine, Eviction, Expires, Fill, Math, Store},
};

/// The key that a dying writer changes; its neighbours are those of `engine_store`.
const AT: &[u8] = b"the key that a dying writer is at";

/// A kind of cache and the place of its store, if it has one.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    eviction: Eviction,
    blocks: bool,
    store: Option<tempfile::TempDir>,
}

fn kinds() -> Vec<Kind> {
    let kind =
        |name, eviction, blocks, stored: bool| Kind { name, eviction, blocks, store: stored.then(memory) };
    vec![
        kind("plain", Eviction::None, false, false),
        kind("lru", Eviction::Lru, false, false),
        kind("s3fifo", Eviction::S3Fifo, false, false),
        kind("sieve", Eviction::Sieve, false, false),
        kind("bitmap", Eviction::None, true, false),
        kind("store", Eviction::None, false, true),
        kind("store, lru", Eviction::Lru, false, true),
    ]
}

impl Kind {
    fn config(&self) -> Config {
        let mut config = Config::new(self.name, 2000);
        config.max_value = 200_000;
        config.eviction = self.eviction;
        config.blocks = self.blocks.then_some(Blocks { size: 1024, count: 8000 });
        config.store =
            self.store.as_ref().map(|dir| Store { path: dir.path().join("store"), delete_unusable: false });
        config
    }

    /// Such a cache with the keys of `engine_store` and [`AT`] in it.
    fn filled(&self) -> Arc<Engine> {
        let engine = Engine::create(&self.config()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        fill(&engine, 1);
        engine.set(AT, &[1; 100], &UPDATE).expect("set");
        engine
    }
}

/// A change of [`AT`] during which a process dies.
type Change = (&'static str, fn(&Engine) -> Result<()>);

const CHANGES: [Change; 2] = [
    ("a longer value", |e| e.set(AT, &[2; 3000], &UPDATE).map(drop)),
    ("a deletion", |e| e.delete(AT).map(drop)),
];

/// A process dies in a change while it holds a lock: this many instructions after the start, or,
/// as the path of a change varies a little, at the next one with a lock.
fn die_in(engine: &Engine, change: &Change, at: u64) {
    for at in [at, 0] {
        let mut stepped = stepped(engine, change);
        while stepped.steps < at && stepped.step() {}
        let holds = stepped.step_into_lock();
        stepped.kill();
        if holds {
            return;
        }
    }
    panic!("{} takes no lock", change.0);
}

fn stepped(engine: &Engine, change: &Change) -> Stepped {
    let warm = || _ = engine.set(b"warm", b"x", &UPDATE).expect("set");
    Stepped::new(warm, || change.1(engine).expect("the change"))
}

/// Points of death in a change: the first, a middle and a late instruction at which it holds a
/// lock.
fn places(engine: &Engine, change: &Change) -> [u64; 3] {
    engine_step::pin();
    engine.set(AT, &[1; 100], &UPDATE).expect("set");
    let (mut stepped, mut held) = (stepped(engine, change), Vec::new());
    while stepped.step_into_lock() {
        held.push(stepped.steps);
        stepped.step();
    }
    assert!(held.len() > 100, "{}: a lock is held at {} instructions", change.0, held.len());
    [0, held.len() / 2, held.len() * 9 / 10].map(|n| held[n])
}

/// Operations on a shard left by a dead writer.
type Operation = (&'static str, fn(&Engine) -> Result<()>);

const OPERATIONS: [Operation; 8] = [
    ("set", |e| e.set(AT, &[3; 50], &UPDATE).map(drop)),
    ("delete", |e| e.delete(AT).map(drop)),
    ("math", |e| match e.math(AT, Math::Inc, 1, &UPDATE) {
        Err(Error::NotANumber { .. }) => Ok(()),
        other => other.map(drop),
    }),
    ("expire", |e| e.expire(AT, Expires::In(1000)).map(drop)),
    ("fill", |e| {
        let patience = std::time::Duration::from_secs(1);
        match e.begin_fill(AT, patience, patience, &mut Vec::new())? {
            Fill::Filler(token) => e.end_fill(AT, token, b"filled", Expires::Never).map(drop),
            _ => Ok(()),
        }
    }),
    ("sweep", |e| e.sweep().map(drop)),
    ("inspect", |e| e.inspect(false, |_, _| ()).map(|found| assert_eq!(found.damaged, 0, "{found:?}"))),
    ("exclusive", |e| e.exclusive_begin().map(|()| e.exclusive_end())),
];

/// Everything acknowledged is found in every way of reading, and nothing was lost.
fn assert_whole(engine: &Engine, what: &str) {
    assert_filled(engine, 1);
    let mut name = Vec::new();
    for key in 0..KEYS {
        engine_value::key_bytes(key, &mut name);
        assert!(engine.exists(&name).is_some(), "{what}: key {key}");
        let counted = engine.get_counted(&name, &mut Vec::new());
        assert!(matches!(counted, Ok(Some(_))), "{what}: key {key}: {counted:?}");
    }
    let met = engine_value::all_items(engine).len() as u32;
    assert!((KEYS..=KEYS + 2).contains(&met), "{what}: a walk meets {met} items");
    let stats = engine.stats();
    assert_eq!((stats.evicted, stats.dropped_corrupt, stats.full, stats.no_space), (0, 0, 0, 0), "{what}");
}

/// In another process: the operation with the `n`-th call of a kind failing. It may succeed without
/// the resource, or return an error. Returns whether that call was made.
fn with_a_failure(engine: &Engine, operation: &Operation, which: usize, n: usize, what: &str) -> bool {
    let came = Scratch::new(1);
    Child::fork(|| {
        let errno = errno_of(which, n);
        let (done, failed) = failing(which, n, errno, || operation.1(engine));
        came[0].store(u64::from(failed), SeqCst);
        match done {
            Ok(()) => {}
            Err(Error::Os { source, .. }) if failed => {
                assert_eq!(source.raw_os_error(), Some(errno), "{what}");
            }
            Err(e) => panic!("{what}: {e}"),
        }
        assert_whole(engine, what);
    })
    .join();
    came[0].load(SeqCst) == 1
}

/// A dead writer's shard whose repair gets any resource failure: nothing is lost, the failure is
/// reported, and the next process repairs.
#[test]
fn a_repair_that_fails_loses_nothing() {
    let _alone = alone();
    let shift = seed() as usize % 7;
    for (number, kind) in kinds().iter().enumerate() {
        let (engine, mut failures) = (kind.filled(), 0);
        let places = CHANGES.map(|change| places(&engine, &change));
        // A set in each kind of cache, and one of the others: each of them once, in another kind in each run.
        for turn in 0..2 {
            let operation = &OPERATIONS[if turn == 0 { 0 } else { 1 + (2 * number + shift) % 7 }];
            let (change, places) = (&CHANGES[turn % 2], &places[turn % 2]);
            let at = places[(number + turn) % places.len()];
            for (which, call) in CALLS.iter().enumerate() {
                for n in 1.. {
                    let what = format!(
                        "{}: a death in {} after {at}, then {} with {call} {n} failing",
                        kind.name, change.0, operation.0
                    );
                    engine.set(AT, &[1; 100], &UPDATE).unwrap_or_else(|e| panic!("{what}: {e}"));
                    let before = engine.stats();
                    die_in(&engine, change, at);
                    let failed = with_a_failure(&engine, operation, which, n, &what);
                    // This process repairs, if that was not done.
                    engine.set(AT, &[4; 60], &UPDATE).unwrap_or_else(|e| panic!("{what}: {e}"));
                    let after = engine.stats();
                    assert!(after.owner_dead > before.owner_dead, "{what}: nobody met the dead writer");
                    assert!(after.repaired > before.repaired, "{what}: nobody has repaired the shard");
                    assert_whole(&engine, &what);
                    let found = engine.inspect(false, |_, _| ()).expect("inspect");
                    assert_eq!((found.damaged, found.loose), (0, 0), "{what}: {found:?}");
                    if !failed {
                        break;
                    }
                    failures += 1;
                }
            }
        }
        say(&format!("{}: {failures} failures", kind.name));
        assert!(failures > 10, "{}: {failures} failures", kind.name);
    }
}

/// The allocator of this program: counts, and can be told to fail.
struct Malloc;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static NO_MEMORY: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static MALLOC: Malloc = Malloc;

// SAFETY: the system's allocator, or NULL.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: passed on.
        if NO_MEMORY.load(SeqCst) { null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

/// A repair does not use malloc: its locks may be a dead thread's, and a Rust program without
/// memory aborts. In a thread that has used the cache before, the operations around it do not
/// either.
#[test]
fn a_repair_does_without_malloc() {
    let _alone = alone();
    for kind in kinds() {
        let engine = kind.filled();
        let at = places(&engine, &CHANGES[0])[0];
        for operation in OPERATIONS.iter().filter(|operation| operation.0 != "fill") {
            engine.set(AT, &[1; 100], &UPDATE).expect("set");
            die_in(&engine, &CHANGES[0], at);
            let before = engine.stats().repaired;
            Child::fork(|| {
                NO_MEMORY.store(true, SeqCst);
                let (count, done) = (ALLOCATIONS.load(SeqCst), operation.1(&engine));
                let asked = ALLOCATIONS.load(SeqCst) - count;
                NO_MEMORY.store(false, SeqCst);
                // Operations that copy a value out return an error.
                assert!(done.is_ok() || operation.0 == "expire", "{}: {}: {done:?}", kind.name, operation.0);
                assert!(asked == 0 || operation.0 == "expire", "{}: {}: {asked}", kind.name, operation.0);
            })
            .join();
            engine.set(AT, &[1; 100], &UPDATE).expect("set");
            assert!(engine.stats().repaired > before, "{}: {}", kind.name, operation.0);
            assert_whole(&engine, kind.name);
        }
    }
}

/// As long as no process can repair, none writes to the shard, and all read.
#[test]
fn readers_need_no_repair() {
    let _alone = alone();
    for kind in kinds() {
        let engine = kind.filled();
        for at in places(&engine, &CHANGES[0]) {
            engine.set(AT, &[1; 100], &UPDATE).expect("set");
            die_in(&engine, &CHANGES[0], at);
            let before = engine.stats();
            Child::fork(|| {
                without(call("mmap"), libc::ENOMEM, || {
                    for _ in 0..3 {
                        let written = engine.set(AT, &[3; 50], &UPDATE).map(drop);
                        assert!(
                            matches!(&written, Err(Error::Os { call: "mmap", source })
                                if source.raw_os_error() == Some(libc::ENOMEM)),
                            "{}: {written:?}",
                            kind.name
                        );
                        assert_whole(&engine, kind.name);
                    }
                    // A failure leaves no thread exclusive, and exclusive mode is available.
                    engine.exclusive_begin().expect("exclusive_begin");
                    engine.exclusive_end();
                });
            })
            .join();
            let after = engine.stats();
            assert_eq!((after.repaired, after.items), (before.repaired, before.items), "{}", kind.name);
            engine.set(AT, &[3; 50], &UPDATE).expect("who has memory repairs");
            assert!(engine.stats().repaired > before.repaired, "{}", kind.name);
            assert_whole(&engine, kind.name);
        }
    }
}

fn limit(resource: Resource, to: u64) {
    setrlimit(resource, to, getrlimit(resource).expect("getrlimit").1).expect("setrlimit");
}

/// Address space of the calling process, bytes.
fn address_space() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("statm");
    pages.split(' ').next().expect("a word").parse::<u64>().expect("a number") * 4096
}

/// The limits of a process that meets a dead writer's shard, as enforced by the kernel.
#[test]
fn real_limits_lose_nothing() {
    let _alone = alone();
    for kind in kinds() {
        let engine = kind.filled();
        let at = places(&engine, &CHANGES[1])[0];
        for (resource, repairs) in
            [(Resource::RLIMIT_AS, false), (Resource::RLIMIT_DATA, true), (Resource::RLIMIT_NOFILE, true)]
        {
            engine.set(AT, &[1; 100], &UPDATE).expect("set");
            die_in(&engine, &CHANGES[1], at);
            let before = engine.stats().repaired;
            Child::fork(|| {
                // An RLIMIT_DATA of 0 would mean unlimited to the kernel.
                limit(
                    resource,
                    match resource {
                        Resource::RLIMIT_AS => address_space(),
                        Resource::RLIMIT_DATA => 4096,
                        _ => 0,
                    },
                );
                let written = engine.set(AT, &[3; 50], &UPDATE).map(drop);
                limit(resource, getrlimit(resource).expect("getrlimit").1);
                let no_memory = matches!(&written, Err(Error::Os { source, .. })
                    if source.raw_os_error() == Some(libc::ENOMEM));
                assert!(
                    if repairs { written.is_ok() } else { no_memory },
                    "{}: {resource:?}: {written:?}",
                    kind.name
                );
            })
            .join();
            assert_eq!(engine.stats().repaired > before, repairs, "{}: {resource:?}", kind.name);
            engine.set(AT, &[3; 50], &UPDATE).expect("set");
            assert_whole(&engine, kind.name);
        }
    }
}

/// A truncated guarded store gives misses and errors, also to a process that may have no private
/// memory.
#[test]
fn a_guard_needs_no_private_memory() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let mut config = engine_store::config(&path);
    config.store_guard = true;
    config.capacity = 200_000;
    let engine = Engine::create(&config).expect("a store");
    fill(&engine, 1);
    let mut name = Vec::with_capacity(1000);
    Child::fork(|| {
        limit(Resource::RLIMIT_DATA, 4096);
        fs::File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("truncate");
        for key in 0..KEYS {
            engine_value::key_bytes(key, &mut name);
            assert!(engine.exists(&name).is_none(), "key {key}");
        }
        assert!(engine.set(AT, b"x", &UPDATE).is_err());
    })
    .join();
}

/// `ucache check` with few descriptors: it reports the missing resource, or that there is no
/// damage; the store stays intact.
#[test]
fn a_check_under_limits_finds_no_damage() {
    let Some(program) = option_env!("CARGO_BIN_EXE_ucache") else { return };
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    fill(&Engine::create(&engine_store::config(&path)).expect("a store"), 1);
    let check = |repair: bool, resource: Resource, to: u64| {
        let mut command = Command::new(program);
        command.arg("check").args(repair.then_some("--repair")).arg(&path);
        let limit = move || setrlimit(resource, to, to).map_err(IoError::from);
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(limit) };
        let ended = command.output();
        let text = ended.as_ref().map_or_else(ToString::to_string, |ended| {
            String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr)
        });
        let clean = ended.is_ok_and(|ended| ended.status.success());
        assert!(clean == text.contains("no damage"), "{resource:?} {to}: {text}");
        assert!(!text.contains("damaged items"), "{resource:?} {to}: {text}");
        let engine = Engine::create(&engine_store::config(&path)).expect("the store");
        assert_filled(&engine, 1);
        assert_eq!(engine.stats().dropped_corrupt, 0, "{resource:?} {to}");
        clean
    };
    for repair in [false, true] {
        let files: Vec<bool> = (3..16).map(|files| check(repair, Resource::RLIMIT_NOFILE, files)).collect();
        assert!(files.contains(&false) && files.contains(&true), "{files:?}");
        let spaces: Vec<bool> = (22..40).map(|bit| check(repair, Resource::RLIMIT_AS, 1 << bit)).collect();
        assert!(spaces.contains(&false) && spaces.contains(&true), "{spaces:?}");
    }
}
