use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ucache::{Cache, Error};

use super::{builder, cache, process::Child};

#[test]
fn open_shares_the_cache_and_its_defaults() {
    let built = cache();
    let opened = Cache::open(built.name()).unwrap();
    opened.set("k", "v").unwrap();
    assert_eq!(built.get("k").unwrap(), Some(b"v".to_vec()));
    let third = Cache::open(String::from(built.name())).unwrap();
    let name = built.name().to_owned();
    drop((built, opened));
    assert_eq!(third.get("k").unwrap(), Some(b"v".to_vec()));
    drop(third);
    assert!(matches!(Cache::open(&name), Err(Error::NoSuchCache(missing)) if missing == name));
}

#[test]
fn a_name_is_used_once() {
    let first = cache();
    first.set("k", "v").unwrap();
    let error = builder().build().unwrap_err();
    assert!(matches!(&error, Error::NameInUse(name) if name == first.name()), "{error}");
    assert!(error.to_string().contains(first.name()), "{error}");
    drop(first);
    let second = cache();
    assert!(!second.contains("k"), "a new cache, not the old one");
}

#[test]
fn a_name_in_use_leaves_the_store_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other");
    std::fs::write(&path, "not a store").unwrap();
    let _first = cache();
    let second = builder().store(&path).store_delete(true).build();
    assert!(matches!(second, Err(Error::NameInUse(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"not a store");
}

#[test]
fn a_child_opens_what_its_parent_built() {
    let parents = cache();
    parents.set("k", "v").unwrap();
    let name = parents.name().to_owned();
    let mut handle = Some(parents);
    let child = Child::fork(|| {
        // Only the child's copy is dropped, and with it the name in the child.
        handle = None;
        let gone = matches!(Cache::open(&name), Err(Error::NoSuchCache(_)));
        let again = Cache::builder(&name).items(10).build().unwrap();
        gone && again.add("k", "child's own").unwrap()
    });
    assert!(child.ended_well());

    let parents = handle.expect("the parent's copy is still there");
    let child = Child::fork(|| {
        let opened = Cache::open(&name).unwrap();
        opened.get_str("k").unwrap().as_deref() == Some("v")
            && opened.add("answer", "from the child").unwrap()
    });
    assert!(child.ended_well());
    assert_eq!(parents.get_str("answer").unwrap().as_deref(), Some("from the child"));
}

#[test]
fn forks_at_any_time_leave_a_child_that_works() {
    let base = cache();
    base.set("k", "v").unwrap();
    let name = base.name().to_owned();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for who in 0..2 {
            let (base, stop) = (&base, &stop);
            scope.spawn(move || {
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let own =
                        Cache::builder(format!("fork storm {who} {}", n % 5)).items(10).build().unwrap();
                    own.set("k", "v").unwrap();
                    base.incr("n", 1).unwrap();
                    assert!(Cache::open(own.name()).unwrap().contains("k"));
                }
            });
        }
        let good = (0..100).all(|n| {
            Child::fork(|| {
                let opened = Cache::open(&name).unwrap();
                let own = Cache::builder(format!("child {n}")).items(10).build().unwrap();
                own.set("k", "v").unwrap();
                opened.contains("k") && opened.incr("n", 1).is_ok() && Cache::open(own.name()).is_ok()
            })
            .ended_well()
        });
        stop.store(true, Ordering::Relaxed);
        assert!(good);
    });
}
