//! Store files that are damaged, foreign or out of space: refused and left unchanged, or used as
//! far as they are valid.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{fs, path::Path};

use engine_proc::{Child, alone};
use engine_store::{ADD, UPDATE, assert_filled, config, fill, place, refused};
use nix::sys::{
    resource::{Resource, setrlimit},
    signal::{SigHandler, Signal, signal},
};
use ucache::{
    Error,
    engine::{Engine, Store, Touch},
};

/// A file that is not a store is refused, stays unchanged byte for byte, and is replaced only on
/// request.
#[test]
fn foreign_files_are_refused_untouched() {
    let _alone = alone();
    let (dir, path) = place();
    drop(Engine::create(&config(&path)).expect("a store"));
    let whole = fs::read(&path).expect("read");
    let mut rng = fastrand::Rng::with_seed(1);
    let mut files: Vec<Vec<u8>> = vec![b"x".to_vec(), vec![0; 4096], vec![0; 1 << 20], vec![0xff; 70_000]];
    files.push((0..200_000).map(|_| rng.u8(..)).collect());
    files.push(whole.iter().map(|byte| !byte).collect());
    for part in [1, 7, 63, 64, 100, 4095, 4096, 4097, whole.len() / 2, whole.len() - 1] {
        files.push(whole[..part].to_vec());
    }
    for (n, bytes) in files.iter().enumerate() {
        let path = dir.path().join(format!("file {n}"));
        fs::write(&path, bytes).expect("write");
        for result in [Engine::create(&config(&path)), Engine::attach(&path)] {
            refused(result, &[]);
            assert!(fs::read(&path).expect("read") == *bytes, "file {n} ({} bytes) was changed", bytes.len());
        }
        let mut replace = config(&path);
        replace.store = Some(Store { path: path.clone(), delete_unusable: true });
        let engine = Engine::create(&replace).expect("a fresh store in its place");
        fill(&engine, 3);
        assert_filled(&engine, 3);
    }
}

/// The policy is that of the layout, whatever the policy flags say, whose checksum may be missing.
#[test]
fn a_policy_that_the_layout_is_not_for_is_not_followed() {
    let _alone = alone();
    let (_dir, path) = place();
    let engine = Engine::create(&config(&path)).expect("a store");
    fill(&engine, 300);
    drop(engine);
    let whole = fs::read(&path).expect("read");
    for habits in [1_u64, 16, 17, u64::MAX] {
        let mut damaged = whole.clone();
        damaged[224..232].copy_from_slice(&habits.to_ne_bytes());
        damaged[152..160].fill(0);
        fs::write(&path, &damaged).expect("write");
        let engine = Engine::attach(&path).expect("its limits are believed, as their writer was cut off");
        fill(&engine, 300);
        assert_filled(&engine, 300);
        (0..2000_u32).for_each(|n| drop(engine.set(&n.to_be_bytes(), b"value", &UPDATE)));
        assert_eq!(engine.stats().evicted, 0);
    }
}

#[test]
fn unusable_paths_are_errors() {
    let _alone = alone();
    let (dir, path) = place();
    let missing = Engine::attach(&path);
    assert!(matches!(missing, Err(Error::Os { .. })), "{missing:?}");
    let missing = ucache::Cache::attach(&path);
    let Err(Error::Store { path: named, fault }) = &missing else { panic!("{missing:?}") };
    assert!(*named == path && fault.to_string().contains("No such file"), "{fault}");
    assert!(!path.exists(), "attaching makes no file");
    assert!(Engine::create(&config(dir.path())).is_err(), "a directory");
    assert!(Engine::create(&config(Path::new("/dev/null"))).is_err(), "a device");
    assert!(Engine::create(&config(&dir.path().join("no/such/place"))).is_err(), "no directory");
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    assert!(Engine::attach(&pipe).is_err(), "a pipe must not be waited for");
}

/// No disk space left (here: a file size limit) is an error of the one store operation, and the
/// cache continues.
#[test]
fn no_space_is_an_error_and_the_cache_goes_on() {
    let _alone = alone();
    let (_dir, path) = place();
    Child::fork(|| {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("signal");
        let mut large = config(&path);
        large.capacity = 4000;
        let engine = Engine::create(&large).expect("a store");
        let limit = fs::metadata(&path).expect("stat").len() + (6 << 20);
        setrlimit(Resource::RLIMIT_FSIZE, limit, limit).expect("setrlimit");
        let value = vec![7; 50_000];
        let full =
            (0..4000).find_map(|n| engine.set(format!("{n}").as_bytes(), &value, &ADD).err().map(|e| (n, e)));
        let (stored, error) = full.expect("200 MB do not fit into 6");
        assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
        assert!(engine.stats().no_space > 0);
        assert!(stored > 20, "{stored} values of 50,000 bytes in 6 MB");
        let read = |n: u32| engine_value::get(&engine, format!("{n}").as_bytes(), Touch::No).expect("get");
        assert!(
            (0..stored).all(|n| read(n).is_some_and(|(_, bytes)| bytes == value)),
            "what was stored stays"
        );
        for n in 0..stored / 2 {
            assert!(engine.delete(format!("{n}").as_bytes()).expect("delete"));
        }
        for n in 0..stored / 3 {
            engine.set(format!("again {n}").as_bytes(), &value, &ADD).expect("the place of what was deleted");
        }
    })
    .join();
    Child::fork(|| {
        let engine = Engine::attach(&path).expect("the store");
        engine.set(b"and on", &[1; 60_000], &UPDATE).expect("without the limit");
    })
    .join();
}
