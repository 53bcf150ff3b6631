//! Steps an operation and audits each state on the way.

use std::{
    fmt,
    fs::{self, File},
    ops::AddAssign,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};

use fastrand::Rng;
use ucache::engine::{Config, Engine, Eviction, Store, Touch};

use super::{
    audit::audit,
    cases::{ADD, Case, base, prepare},
};
use crate::{
    engine_image::{Image, Mortal, PAGE, Window},
    engine_value,
    engine_watch::{Places, Watched},
};

/// One case in this many has a recovery stepped through.
const REPAIRS: u32 = 8;

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    /// Instructions of operations after which the process was treated as dead.
    pub(crate) visited: u64,
    /// Instructions of recoveries after which the recovering process was treated as dead.
    pub(crate) repairs: u64,
    /// States that differ from the previous one: each was recovered and audited.
    pub(crate) recovered: u64,
    /// Of these, the states in which the dead process held a lock.
    pub(crate) locked: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.visited += other.visited;
        self.repairs += other.repairs;
        self.recovered += other.recovered;
        self.locked += other.locked;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { visited, repairs, recovered, locked } = self;
        write!(
            f,
            "{} states visited ({visited} in operations, {repairs} in recoveries), {recovered} distinct ones recovered, {locked} of them with a dead lock holder",
            visited + repairs
        )
    }
}

/// Forks a child that stops before `operation`. One-time work of a process is already done: it has
/// read.
pub(crate) fn stepped(engine: &Engine, operation: &dyn Fn(&Engine)) -> Watched {
    let nothing = Places { start: 0, pages: Vec::new(), file: None };
    let unseen = |_| Image::new(File::open("/dev/null").expect("/dev/null"), 0, &[]);
    Watched::new(&nothing, warm_up(engine, None), || operation(engine), unseen)
}

fn warm_up(engine: &Engine, window: Option<&Window>) -> impl FnOnce() {
    move || {
        if let Some(window) = window {
            window.part();
        }
        drop(engine_value::get(engine, b"warm up", Touch::No));
    }
}

/// The pages that the child will touch. It behaves like the trial: both inherit the same random
/// numbers.
fn touched(engine: &Engine, window: &Window, operation: &dyn Fn(&Engine)) -> Vec<usize> {
    window.touched(|| {
        warm_up(engine, None)();
        operation(engine);
    })
}

/// Starts this thread's random numbers: otherwise each child would start its own and choose other
/// victims.
pub(crate) fn begin_random() {
    let engine = Engine::create(&Config { eviction: Eviction::S3Fifo, ..base(1) }).expect("a cache");
    for key in [b"a", b"b"] {
        engine.set(key, b"x", &ADD).expect("set");
    }
    assert_eq!(engine.stats().evicted, 1, "the second evicts the first");
}

/// The first action of a survivor: a write, which repairs.
pub(crate) fn repair() -> impl Fn(&Engine) {
    |engine: &Engine| drop(engine.delete(b"no such key"))
}

/// One case in anonymous memory, and sometimes the recovery of one of its states (a recovery takes
/// many times as long as an operation).
pub(crate) fn in_memory(case: &Case, rng: &mut Rng) -> Count {
    let (engine, window) = Window::around(|| Engine::create(&case.config).expect("a cache"));
    prepare(case, &engine);
    let mut dead = None;
    let mut locked_states = 0;
    let mut count = Count::default();
    let (visited, recovered, locked) = states(case, &engine, &window, &case.run, |state, held| {
        // Each of the states with a lock held is equally likely.
        locked_states += u64::from(held > 0);
        if held > 0 && rng.u64(0..locked_states) == 0 {
            dead = Some((state.pages.clone(), state.bytes.clone()));
        }
    });
    count.visited += visited;
    count.recovered += recovered;
    count.locked += locked;
    if let Some((pages, bytes)) = dead.filter(|_| !case.long && rng.u32(0..REPAIRS) == 0) {
        window.put(&pages, &bytes);
        let (visited, recovered, locked) = states(case, &engine, &window, &repair(), |_, _| {});
        count.repairs += visited;
        count.recovered += recovered;
        count.locked += locked;
    }
    count
}

/// Steps `operation` from the region's current state; returns the states visited, recovered and
/// with a lock held.
fn states(
    case: &Case,
    engine: &Engine,
    window: &Window,
    operation: &dyn Fn(&Engine),
    mut new: impl FnMut(&Dead, u32),
) -> (u64, u64, u64) {
    let pages = touched(engine, window, operation);
    let places = Places { start: window.start(), pages, file: None };
    let of_child = |pid| window.of_child(pid, &places.pages);
    let mut child = Watched::new(&places, warm_up(engine, Some(window)), || operation(engine), of_child);
    let mut image = of_child(child.pid());
    let mortal = Mortal::new(child.pid());
    let (mut recovered, mut locked) = (0, 0);
    let mut more = true;
    let mut changed = true;
    while changed {
        let mut there = window.touched_by(child.pid());
        there.retain(|page| image.pages.binary_search(page).is_err());
        assert!(there.is_empty(), "{}: instruction {}: pages {there:?} missed", case.name, child.steps());
        let (bytes, held) = image.after_death(mortal);
        window.put(&image.pages, &bytes);
        audit(case, engine, held, &format!("instruction {} of {:?}", child.steps(), child.pid()));
        recovered += 1;
        locked += u64::from(held > 0);
        new(&Dead { pages: image.pages.clone(), bytes }, held);
        more = more && child.next_change();
        changed = image.look();
        assert!(changed || !more, "{}: nothing has changed at instruction {}", case.name, child.steps());
    }
    let steps = child.steps();
    child.kill();
    (steps, recovered, locked)
}

/// A state that a dead process left.
pub(crate) struct Dead {
    pub(crate) pages: Vec<usize>,
    bytes: Vec<u8>,
}

/// Non-zero pages of a file.
pub(crate) fn pages_of(path: &Path) -> Vec<usize> {
    let bytes = fs::read(path).expect("read");
    bytes.chunks(PAGE).enumerate().filter(|(_, page)| page.iter().any(|&b| b != 0)).map(|(n, _)| n).collect()
}

/// Writes the state of a store as a new file; `bytes` are those of the image's pages.
pub(crate) fn write_copy(image: &Image, bytes: &[u8], len: u64, copy: &Path) {
    let missed = image.overlooked();
    assert!(missed.is_empty(), "pages {missed:?} missed: without them it is no state that ever was");
    let file = File::create(copy).expect("create");
    file.set_len(len).expect("set_len");
    for (&page, bytes) in image.pages.iter().zip(bytes.chunks_exact(PAGE)) {
        let at = (page * PAGE) as u64;
        if at < len {
            let part = &bytes[..PAGE.min((len - at) as usize)];
            file.write_all_at(part, at).expect("write");
        }
    }
}

/// One case on a store file. All users are dead: each new state is copied, opened and audited.
pub(crate) fn in_a_store(case: &Case, _rng: &mut Rng) -> Count {
    // Memory, not a disk: thousands of stores are created and closed.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let path = dir.path().join("store");
    let copy = dir.path().join("copy");
    let on = |path: &Path| {
        let mut config = case.config.clone();
        config.store = Some(Store { path: path.to_owned(), delete_unusable: false });
        config
    };
    let (engine, window) = Window::around(|| Engine::create(&on(&path)).expect("a store"));
    prepare(case, &engine);
    let source = File::options().read(true).write(true).open(&path).expect("open");
    let len = || source.metadata().expect("metadata").len();
    let before = std::fs::read(&path).expect("read");
    let pages = touched(&engine, &window, &case.run);
    // The trial's memory was a copy; the growth of the file, which some values of the seed cause,
    // and holes that a sweep punched were real.
    assert!(len() >= before.len() as u64, "{}: the trial has cut the store", case.name);
    source.set_len(before.len() as u64).expect("ftruncate");
    let now = std::fs::read(&path).expect("read");
    for (at, (was, is)) in (0_u64..).step_by(PAGE).zip(before.chunks(PAGE).zip(now.chunks(PAGE))) {
        if was != is {
            source.write_all_at(was, at).expect("write");
        }
    }
    let places = Places { start: window.start(), pages, file: Some(source.as_raw_fd()) };
    let of_file = |_| Image::new(source.try_clone().expect("a second handle"), 0, &places.pages);
    let mut child = Watched::new(&places, warm_up(&engine, None), || (case.run)(&engine), of_file);
    let mut image = of_file(child.pid());
    let mortal = Mortal::new(child.pid());
    let mut count = Count::default();
    let mut more = true;
    while more {
        more = child.next_change();
        image.look();
        let (bytes, held) = image.after_death(mortal);
        write_copy(&image, &bytes, len(), &copy);
        let opened = Engine::create(&on(&copy));
        let opened = opened.unwrap_or_else(|e| panic!("{}: instruction {}: {e}", case.name, child.steps()));
        audit(case, &opened, 0, &format!("opened after instruction {}", child.steps()));
        drop(opened);
        fs::remove_file(&copy).expect("remove");
        count.recovered += 1;
        count.locked += u64::from(held > 0);
    }
    count.visited = child.steps();
    child.kill();
    count
}
