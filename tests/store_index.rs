//! The index of a store on a full disk: what has no blocks there is not touched.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/on_mounts.rs"]
mod on_mounts;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/private_mounts.rs"]
mod private_mounts;

use std::{fs, path::Path};

use engine_proc::alone;
use engine_store::{UPDATE, config, put, seq};
use nix::mount::{MsFlags, mount};
use on_mounts::on_mounts;
use ucache::{
    Error,
    engine::{Config, Engine, Eviction, Touch},
};

/// Most of the index of a store with few items has no blocks on disk. On a full tmpfs even a read there would be a bus
/// error: whatever is looked for, stored or walked, nothing touches it.
#[test]
fn an_index_without_blocks_is_not_touched() {
    let _alone = alone();
    for eviction in [Eviction::None, Eviction::Lru, Eviction::S3Fifo, Eviction::Sieve] {
        on_mounts(|dir| {
            let at = dir.join("mounted");
            fs::create_dir(&at).expect("mkdir");
            mount(Some("none"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=6M"))
                .expect("a tmpfs can be mounted");
            use_few(&at, eviction);
        });
    }
}

fn use_few(at: &Path, eviction: Eviction) {
    const FEW: u32 = 20;
    let path = at.join("store");
    // SIGBUS would end this child.
    let config = Config { eviction, capacity: 200_000, ..config(&path) };
    let engine = Engine::create(&config).expect("a store");
    (0..FEW).for_each(|key| _ = put(&engine, key, 3).expect("set"));
    let _ = fs::write(at.join("other"), vec![1; 16 << 20]);
    let name = |n: u32| format!("absent {n}").into_bytes();
    let mut refusals = 0;
    for n in 0..20_000_u32 {
        let key = name(n);
        assert!(engine_value::get(&engine, &key, Touch::Yes).expect("get").is_none());
        assert!(engine.exists(&key).is_none());
        assert!(engine.get_counted(&key, &mut Vec::new()).expect("get").is_none());
        assert!(!engine.delete(&key).expect("delete"));
        if let Some(id) = std::num::NonZeroU32::new(n * 100) {
            let id = ucache::engine::ItemId(id);
            _ = engine.use_of(id);
        }
        if n % 100 == 0 {
            match engine.set(&key, b"small", &UPDATE) {
                Ok(_) => assert!(engine.delete(&key).expect("delete")),
                Err(e) => {
                    assert!(matches!(e, Error::NoSpace { .. }), "{e:?}");
                    refusals += 1;
                }
            }
        }
    }
    assert!(refusals > 20, "{refusals} refused: the index has blocks, and nothing was shown");
    engine.sweep().expect("sweep");
    for engine in [engine, Engine::create(&config).expect("the store")] {
        let items = engine_value::all_items(&engine);
        assert_eq!(items.len(), FEW as usize);
        (0..FEW).for_each(|key| assert_eq!(seq(&engine, key), Some(3), "key {key}"));
        let found = engine.inspect(true, |_, _| ()).expect("inspect");
        assert_eq!((found.damaged, found.loose, found.items), (0, 0, FEW.into()));
    }
    // With space again, everything can be stored.
    fs::remove_file(at.join("other")).expect("remove");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let engine = Engine::attach(&path).expect("the store");
    (0..100).for_each(|n| _ = engine.set(&name(n), b"small", &UPDATE).expect("set"));
}
