//! `check`: damage is found, reported and, with --repair, dropped; nothing else changes.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use ucache::Cache;

use crate::{Store, patience::within, ucache};

/// Flips a bit of the value made of `byte`s, in the file.
fn damage(path: &Path, byte: u8) {
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(200).position(|w| w.iter().all(|&b| b == byte)).expect("the value is in the file");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[byte ^ 1], at as u64 + 100).unwrap();
}

fn fill(cache: &Cache) {
    for i in 0..200 {
        cache.set(format!("key {i}"), format!("value {i}")).unwrap();
    }
    cache.set("victim", [0xA7; 200]).unwrap();
}

#[test]
fn a_store_in_use_is_checked_in_place() {
    let store = Store::new("cli check used");
    fill(&store.cache);
    let said = store.run(&["check"]).text();
    assert!(
        said.contains("in use, checked in place") && said.contains("201 items") && said.contains("no damage"),
        "{said}"
    );
    damage(&store.path(), 0xA7);
    let ran = store.run(&["check"]);
    let said = String::from_utf8(ran.out).unwrap();
    assert_eq!(ran.code, Some(1), "{said}");
    assert!(said.contains("checksum is wrong") && said.contains("1 damaged items"), "{said}");
    assert!(ran.err.contains("--repair"), "{}", ran.err);
    assert!(store.cache.contains("victim"), "looking drops nothing");
    let said = store.run(&["check", "--repair"]).text();
    assert!(said.contains("1 damaged items dropped"), "{said}");
    assert!(!store.cache.contains("victim"), "its users see that at once");
    assert_eq!(store.cache.keys().count(), 200);
    assert!(store.run(&["check"]).text().contains("no damage"));
    assert!(store.cache.add("victim", "again").unwrap());
    let json: serde_json::Value = serde_json::from_str(&store.run(&["check", "--json"]).text()).unwrap();
    assert_eq!((&json["damaged"], &json["items"], &json["in_use"]), (&0.into(), &201.into(), &true.into()));
}

#[test]
fn a_store_that_nobody_uses_is_checked_on_a_copy() {
    let store = Store::new("cli check alone");
    fill(&store.cache);
    let (path, Store { dir: _dir, cache }) = (store.path(), store);
    drop(cache);
    let check = |more: &[&str]| ucache([&["check", path.to_str().unwrap()], more].concat());
    // A child forked by another test may have the file open, too, for a moment.
    within("nobody uses the store", || {
        String::from_utf8(check(&[]).out).unwrap().contains("not in use, checked on a copy")
    });
    let before = fs::read(&path).unwrap();
    assert!(check(&[]).text().contains("no damage"));
    assert!(fs::read(&path).unwrap() == before, "a check changes nothing");
    damage(&path, 0xA7);
    let before = fs::read(&path).unwrap();
    let ran = check(&[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(String::from_utf8(ran.out).unwrap().contains("1 damaged items"));
    assert!(fs::read(&path).unwrap() == before, "not even where there is damage");
    assert!(check(&["--repair"]).text().contains("1 damaged items dropped"));
    assert!(check(&[]).text().contains("no damage"));
    let cache = Cache::attach(&path).unwrap();
    assert_eq!(cache.keys().count(), 200);
    assert!(!cache.contains("victim"));
}
