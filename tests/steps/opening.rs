//! Creating and opening a store, interrupted after each instruction.

use std::{
    fs,
    fs::File,
    ops::{Range, RangeInclusive},
    path::Path,
    sync::Arc,
};

use ucache::engine::{Config, Engine, Expires, Store, Touch};

use super::{
    audit::audit,
    cases::{Case, Held, Others, UPDATE, X, key, prepare, value},
    walk::{Count, pages_of, write_copy},
};
use crate::{
    engine_image::{Image, PAGE},
    engine_step::Stepped,
    engine_value,
};

pub(crate) fn case(name: &'static str, items: u32) -> Case {
    let mut config = Config::new(name, 10);
    config.max_key = 512;
    config.max_value = 4096;
    Case {
        name,
        config,
        items,
        before: Held::Nothing,
        expires: Expires::Never,
        run: Box::new(|_| {}),
        after: Held::Nothing,
        others: Others::Stay,
        lease: false,
        refresh: false,
        sparse: false,
        crowded: false,
        long: false,
    }
}

pub(crate) fn on(case: &Case, path: &Path) -> Config {
    Config { store: Some(Store { path: path.to_owned(), delete_unusable: false }), ..case.config.clone() }
}

/// Steps `Engine::create` on `path`; each state must open, with all its items.
fn step_through(case: &Case, path: &Path, pages: &[usize]) -> Count {
    let copy = path.with_file_name("copy");
    let config = on(case, path);
    let mut opened: Option<Arc<Engine>> = None;
    let mut child = Stepped::new(|| (), || opened = Engine::create(&config).ok());
    let mut count = Count::default();
    let mut image: Option<Image> = None;
    let mut len = 0;
    loop {
        let more = child.step();
        // The file may be created only now, and grow.
        if image.is_none() {
            image = File::open(path).ok().map(|file| Image::new(file, 0, pages));
        }
        if let Some(image) = &mut image {
            let now = fs::metadata(path).expect("metadata").len();
            if image.look() || now != len || !more {
                len = now;
                write_copy(image, &image.bytes, len, &copy);
                let opened = Engine::create(&on(case, &copy));
                let opened = opened.unwrap_or_else(|e| panic!("instruction {}: {e}", child.steps));
                audit(case, &opened, 0, &format!("instruction {}", child.steps));
                drop(opened);
                fs::remove_file(&copy).expect("remove");
                count.recovered += 1;
            }
        }
        if !more {
            break;
        }
    }
    count.visited = child.steps;
    child.kill();
    count
}

pub(crate) fn cut_off_anywhere() -> Count {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let path = dir.path().join("store");
    // A new one.
    let empty = case("opening a store", 0);
    drop(Engine::create(&on(&empty, &path)).expect("a store"));
    let pages = pages_of(&path);
    fs::remove_file(&path).expect("remove");
    let mut total = step_through(&empty, &path, &pages);
    fs::remove_file(&path).expect("remove");
    // One with items, whose users have all died.
    let full = case("opening a store", 8);
    let engine = Engine::create(&on(&full, &path)).expect("a store");
    prepare(&full, &engine);
    let dead = path.with_file_name("dead");
    fs::copy(&path, &dead).expect("copy");
    drop(engine);
    total += step_through(&full, &dead, &pages_of(&dead));
    total
}

/// What is written to a disk at once.
const SECTOR: usize = 512;

/// After a power loss any of the pages written since the last sync may be on disk, and any not. An
/// index that leads to a reused block, over the page from before: the earlier content of that block
/// must not reappear. Returns the files that were opened.
pub(crate) fn freed_values_are_gone() -> u32 {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    // A large value is all old or all new: a mixture has no valid checksum.
    let mut files = mixtures(dir.path(), (0, 33_000), PAGE, true).expect("a large value");
    // A small one whose header lies in two sectors: the first has what an entry of its size would
    // have as well.
    let small = (0..64).filter_map(|shift| mixtures(dir.path(), (8 * shift, 200), SECTOR, false));
    let (headers, opened) = small.fold((0, 0), |(headers, all), opened| (headers + 1, all + opened));
    assert_eq!(headers, 3, "a header in two sectors is divided after each of its words");
    files += opened;
    files
}

/// X gets three values of `len` bytes, the third one in the first one's block, after a sync; `shift`
/// moves that block. Opens each mixture, in units of so many bytes, of the file at the sync and at
/// the end. Units side by side are one if they are `joined`; if not, the block's header must lie in
/// two, or `None` is returned.
fn mixtures(dir: &Path, (shift, len): (usize, usize), bytes: usize, joined: bool) -> Option<u32> {
    let path = dir.join("store");
    let _ = fs::remove_file(&path);
    let mut case = case("opening a store", 4);
    case.config.max_value = 65_536;
    let engine = Engine::create(&on(&case, &path)).expect("a store");
    prepare(&case, &engine);
    engine.set(b"before", &vec![1; 16 + shift], &UPDATE).expect("set");
    let put = |seq| engine.set(&key(X), &value(X, seq, len), &UPDATE).expect("set");
    // The second value frees the first one's block, and the third gets it.
    put(1);
    let (written, first) = (fs::read(&path).expect("read"), value(X, 1, len));
    let at = written.windows(len).position(|bytes| bytes == first).expect("the value");
    if !joined && !HEADER.contains(&(at % bytes)) {
        return None;
    }
    put(2);
    engine.sync().expect("sync");
    let synced = fs::read(&path).expect("read");
    put(3);
    let later = fs::read(&path).expect("read");
    assert_eq!(later[at..][..len], value(X, 3, len), "another block");
    let units = units(&synced, &later, bytes, joined);
    assert!((2..12).contains(&units.len()), "{units:?} were written");
    let copy = dir.join("copy");
    for subset in 0..1_u32 << units.len() {
        let mut mixed = synced.clone();
        let chosen = units.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1);
        for (_, unit) in chosen {
            mixed[unit.clone()].copy_from_slice(&later[unit.clone()]);
        }
        fs::write(&copy, &mixed).expect("write");
        let opened = Engine::create(&on(&case, &copy)).expect("a store");
        let found = engine_value::get(&opened, &key(X), Touch::No).expect("get");
        let seq = found.map(|(_, value)| engine_value::read(X, &value).expect("a whole value").seq);
        assert_ne!(seq, Some(1), "{subset:b} of {units:?}: a value from before the last sync");
        drop(opened);
        fs::remove_file(&copy).expect("remove");
    }
    Some(1 << units.len())
}

/// Where a value begins in its sector if the one before ends with a word of its header: those are
/// three, and one of key follows.
const HEADER: RangeInclusive<usize> = 8..=24;

/// The parts of a file that differ.
fn units(one: &[u8], other: &[u8], bytes: usize, joined: bool) -> Vec<Range<usize>> {
    let mut units: Vec<Range<usize>> = Vec::new();
    let all = (0..one.len()).step_by(bytes).map(|start| start..start + bytes);
    for unit in all.filter(|unit| one[unit.clone()] != other[unit.clone()]) {
        match units.last_mut() {
            Some(last) if joined && last.end == unit.start => last.end = unit.end,
            _ => units.push(unit),
        }
    }
    units
}
