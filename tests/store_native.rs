//! Stores created by native uWSGI itself, opened by ucache: every plausible item is imported.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/server.rs"]
#[allow(dead_code, reason = "every test binary uses its own part")]
mod server;

use std::{ffi::c_char, fs, path::Path};

use engine_proc::{alone, say};
use engine_store::{Copy, config, in_two, memory, refused, rounds};
use server::{Flavor, Server};
use ucache::engine::{Blocks, Config, Engine, Eviction, NativeShape, Touch};

/// Starts a server of a flavor on a store, runs Python in it, and stops it; returns the answer and
/// the log.
fn serve(flavor: Flavor, definition: &str, store: &Path, source: &str) -> (String, String) {
    let options = format!("cache2 = name=c,{definition},store={}", store.display());
    let server = Server::start(flavor, 1, &options);
    let answer = server.run(1, source);
    (answer, server.log())
}

/// Items of all permitted lengths, some deleted, updated, counted, with and without a TTL.
const FILL: &str = "
for n in range(40):
    uwsgi.cache_set(f'key {n}' + 'x' * n, chr(65 + n % 26) * (1 + n * 13 % 200))
for n in range(0, 40, 7): uwsgi.cache_del(f'key {n}' + 'x' * n)
for n in range(1, 40, 7): uwsgi.cache_update(f'key {n}' + 'x' * n, f'updated {n}')
uwsgi.cache_set('ttl', 'lives', 5000)
uwsgi.cache_set('late', 'dies', 1)
uwsgi.cache_inc('n', 41)
uwsgi.cache_set(bytes(range(1, 100)).decode('latin1').encode('latin1'), bytes(range(256))[:200])
";
/// The content; native's own answer is the expected one of ucache.
const READ: &str =
    "sorted((k, uwsgi.cache_get(k)) for k in uwsgi.cache_keys() if k != b'late'), uwsgi.cache_num('n')";

#[test]
fn stores_of_every_shape_are_imported() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let shapes = [
        "items=100,blocksize=256,keysize=128",
        "items=60,blocksize=4096",
        "items=100,blocksize=256,keysize=128,blocks=150,hash=murmur2,hashsize=64",
        "items=100,blocksize=64,blocks=1000,keysize=128,bitmap=1",
        "items=100,blocksize=256,keysize=128,purge_lru=1",
        "items=100,blocksize=32,blocks=900,keysize=150,bitmap=1,purge_lru=1",
    ];
    for (n, shape) in shapes.iter().enumerate() {
        let store = dir.path().join(format!("store {n}").replace(' ', "_"));
        let (native, _) = serve(Flavor::Native, shape, &store, &format!("{FILL}\n{READ}"));
        assert!(native.contains("updated 8") && native.contains("lives"), "{shape}: {native}");
        let before = fs::read(&store).expect("read");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let (ours, log) = serve(Flavor::Ucache, shape, &store, READ);
        assert_eq!(ours, native, "{shape}\n{log}");
        let kept = store.with_extension("native");
        assert!(
            log.contains("native uWSGI's") && log.contains(&kept.display().to_string()),
            "{shape}: {log}"
        );
        assert!(log.contains(" imported; left out: 0 damaged, "), "{shape}: {log}");
        assert!(fs::read(&kept).expect("the old file") == before, "{shape}: the native file was changed");
        // From now on it is a ucache store.
        let (again, log) = serve(Flavor::Ucache, shape, &store, READ);
        assert_eq!(again, native, "{shape}: opened again");
        assert!(!log.contains("imported"), "{shape}: {log}");
        // Another definition means another layout: native refuses the file, and so does ucache,
        // unchanged.
        let other = shape.replace("items=100", "items=99").replace("items=60", "items=61");
        let options = format!("cache2 = name=c,{other},store={}", kept.display());
        let log = Server::refuse(Flavor::Ucache, &options);
        assert!(log.contains("is not a ucache store"), "{shape}: {log}");
        assert!(fs::read(&kept).expect("read") == before, "{shape}: refused, but changed");
    }
}

/// The order of use is kept: the item used last is evicted last.
#[test]
fn the_lru_order_is_imported() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store");
    let shape = "items=11,blocksize=64,purge_lru=1";
    let fill = "
for n in range(10): uwsgi.cache_set(f'k{n}', 'v')
for n in (3, 1, 4, 0): uwsgi.cache_get(f'k{n}')
";
    serve(Flavor::Native, shape, &store, fill);
    let push = "
for n in range(6): uwsgi.cache_set(f'new{n}', 'v')
sorted(uwsgi.cache_keys())";
    let (ours, log) = serve(Flavor::Ucache, shape, &store, push);
    let left: Vec<String> = ["k0", "k1", "k3", "k4"].iter().map(|k| format!("b'{k}'")).collect();
    assert!(
        left.iter().all(|k| ours.contains(k.as_str())) && ours.matches("'k").count() == 4,
        "{ours}\n{log}"
    );
}

const ITEMS: u64 = 65;
const KEY_SIZE: u64 = 32;
const BLOCK: u64 = 64;

/// A native store with known items, laid out like real ones (`stores_of_every_shape_are_imported`
/// verifies the reading), and its settings.
fn synthetic(bitmap: bool) -> (Vec<u8>, NativeShape) {
    let blocks = if bitmap { 300 } else { ITEMS };
    let shape = NativeShape { items: ITEMS, key_size: KEY_SIZE, blocks, block_size: BLOCK, bitmap };
    let values = (ITEMS * (88 + KEY_SIZE)) as usize;
    let mut bytes = vec![0; values + (blocks * BLOCK) as usize];
    let mut next_block = 0;
    for n in 1..=50_u64 {
        let (key, value) = (key(n), value(n));
        let first_block = if bitmap { next_block } else { n };
        next_block += (value.len() as u64).div_ceil(BLOCK);
        let words = [0, key.len() as u64, u64::from(djb33x(&key)), value.len() as u64, first_block];
        let at = (n * (88 + KEY_SIZE)) as usize;
        for (i, word) in words.iter().enumerate() {
            bytes[at + i * 8..at + i * 8 + 8].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[at + 88..at + 88 + key.len()].copy_from_slice(&key);
        let at = values + (first_block * BLOCK) as usize;
        bytes[at..at + value.len()].copy_from_slice(&value);
    }
    (bytes, shape)
}

fn key(n: u64) -> Vec<u8> {
    format!("a key {n}").into_bytes()
}

fn value(n: u64) -> Vec<u8> {
    format!("value {n} ").into_bytes().repeat(1 + n as usize % 5)
}

/// Bytes count as C's `char`.
fn djb33x(key: &[u8]) -> u32 {
    key.iter().fold(5381, |h: u32, &b| (h << 5).wrapping_add(h) ^ i32::from(b as c_char).cast_unsigned())
}

fn wanted(path: &Path, shape: NativeShape) -> Config {
    let blocks = shape.bitmap.then_some(Blocks { size: shape.block_size, count: shape.blocks });
    let max_value = if shape.bitmap { shape.block_size * shape.blocks } else { shape.block_size };
    Config { capacity: shape.items - 1, blocks, max_value, native: Some(shape), ..config(path) }
}

fn read(engine: &Engine, n: u64) -> Option<Vec<u8>> {
    engine_value::get(engine, &key(n), Touch::No).expect("get").map(|(_, bytes)| bytes)
}

fn put_word(bytes: &mut [u8], item: u64, word: usize, value: u64) {
    let at = (item * (88 + KEY_SIZE)) as usize + word * 8;
    bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

/// Each rule, with one fault in each store.
#[test]
fn what_cannot_be_right_is_left_out_and_counted() {
    let _alone = alone();
    let dir = memory();
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let word =
        |item: u64, word: usize, value: u64| -> Change { Box::new(move |b| put_word(b, item, word, value)) };
    let again = |to: u64, prev: u64| -> Change {
        // Item 2 once more, in slot `to`, with another value.
        Box::new(move |b| {
            let slot = (88 + KEY_SIZE) as usize;
            let from = b[2 * slot..3 * slot].to_vec();
            b[to as usize * slot..(to as usize + 1) * slot].copy_from_slice(&from);
            put_word(b, to, 7, prev);
            put_word(b, to, 3, value(to).len() as u64);
            put_word(b, to, 4, to);
            let at = ITEMS as usize * slot + (to * BLOCK) as usize;
            b[at..at + value(to).len()].copy_from_slice(&value(to));
        })
    };
    let (base, shape) = synthetic(false);
    // The change, the items dropped, the counts in the log, the state of item 2.
    let cases: Vec<(&str, Change, &[u64], &str, u64)> = vec![
        ("nothing", Box::new(|_| {}), &[], "50 items imported; left out: 0 damaged, 0 expired, 0 dup", 2),
        ("flags", word(2, 0, 1 << 10), &[2], "49 items imported; left out: 1 damaged", 2),
        ("key length", word(2, 1, 33), &[2], "left out: 1 damaged", 2),
        ("key length, huge", word(2, 1, u64::MAX), &[2], "left out: 1 damaged", 2),
        ("hash", word(2, 2, 77), &[2], "left out: 1 damaged", 2),
        ("hash, huge", word(2, 2, 1 << 40), &[2], "left out: 1 damaged", 2),
        ("value length 0", word(2, 3, 0), &[2], "left out: 1 damaged", 2),
        ("value length", word(2, 3, 65), &[2], "left out: 1 damaged", 2),
        ("value length, huge", word(2, 3, u64::MAX), &[2], "left out: 1 damaged", 2),
        ("first block", word(2, 4, 3), &[2], "left out: 1 damaged", 2),
        ("previous", word(2, 7, 65), &[2], "left out: 1 damaged", 2),
        ("next", word(2, 8, u64::MAX), &[2], "left out: 1 damaged", 2),
        ("lru links", word(2, 10, 1000), &[2], "left out: 1 damaged", 2),
        ("key", Box::new(|b| b[2 * 120 + 88] ^= 1), &[2], "left out: 1 damaged", 2),
        ("slot 0", Box::new(|b| b[0..8].fill(1)), &[], "50 items imported", 2),
        ("slot 0 in use", word(0, 1, 3), &[], "50 items imported; left out: 1 damaged", 2),
        ("expired", word(2, 5, now - 5), &[2], "49 items imported; left out: 0 damaged, 1 expired", 2),
        ("at once", word(2, 5, u64::MAX - 1), &[2], "0 damaged, 1 expired", 2),
        ("not expired", word(2, 5, now + 500), &[], "0 expired", 2),
        ("a TTL in the place of a time", word(2, 5, 500), &[], "0 expired", 2),
        ("freed", word(2, 1, 0), &[2], "49 items imported; left out: 0 damaged", 2),
        (
            "twice: the later head",
            again(60, 0),
            &[],
            "50 items imported; left out: 0 damaged, 0 expired, 1 dup",
            60,
        ),
        ("twice: the head", again(60, 5), &[], "1 dup", 2),
    ];
    for (n, (what, change, gone, counts, second)) in cases.iter().enumerate() {
        let path = dir.path().join(format!("store {n}"));
        let mut bytes = base.clone();
        change(&mut bytes);
        fs::write(&path, &bytes).expect("write");
        let engine = Engine::create(&wanted(&path, shape)).unwrap_or_else(|e| panic!("{what}: {e}"));
        let notes = engine.notes().join("\n");
        assert!(notes.contains(counts), "{what}: {notes}");
        for n in 1..=50 {
            let expected = (!gone.contains(&n)).then(|| value(if n == 2 { *second } else { n }));
            assert_eq!(read(&engine, n), expected, "{what}: item {n}");
        }
        assert!(fs::read(path.with_file_name(format!("store {n}.native"))).expect("kept") == bytes, "{what}");
    }
}

/// Two values in one block: native has written one over the other, and it is unknown which is
/// whole.
#[test]
fn values_that_share_blocks_are_left_out() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let (mut bytes, shape) = synthetic(true);
    let first = |item: u64| {
        let at = (item * (88 + KEY_SIZE)) as usize + 32;
        u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
    };
    let of_ten = first(10);
    put_word(&mut bytes, 20, 4, of_ten);
    // Behind the last block.
    put_word(&mut bytes, 30, 4, 300);
    put_word(&mut bytes, 31, 4, u64::MAX);
    fs::write(&path, &bytes).expect("write");
    let engine = Engine::create(&wanted(&path, shape)).expect("a native store");
    assert!(
        engine.notes().join("").contains("46 items imported; left out: 4 damaged"),
        "{:?}",
        engine.notes()
    );
    for n in 1..=50 {
        assert_eq!(read(&engine, n).is_some(), ![10, 20, 30, 31].contains(&n), "item {n}");
    }
}

/// Other files of the right size stay unchanged; so do those of another size.
#[test]
fn what_only_has_the_size_is_refused() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let (bytes, shape) = synthetic(false);
    let text: Vec<u8> =
        b"some text, by chance as long as that ".iter().copied().cycle().take(bytes.len()).collect();
    let random: Vec<u8> = (0..bytes.len()).map(|_| fastrand::u8(..)).collect();
    for foreign in [text, random, vec![0xff; bytes.len()], bytes[1..].to_vec(), [&bytes[..], &[0]].concat()] {
        fs::write(&path, &foreign).expect("write");
        refused(Engine::create(&wanted(&path, shape)), &["is not a ucache store"]);
        refused(Engine::attach(&path), &["is not a ucache store"]);
        assert!(fs::read(&path).expect("read") == foreign, "refused, but changed");
    }
    // An empty native store is valid: nothing in it, and nothing against it.
    fs::write(&path, vec![0; bytes.len()]).expect("write");
    let engine = Engine::create(&wanted(&path, shape)).expect("an empty native store");
    assert!(engine.notes().join("").contains(" 0 items imported"), "{:?}", engine.notes());
    // Without the settings no file counts as native.
    let other = dir.path().join("other");
    fs::write(&other, &bytes).expect("write");
    refused(Engine::create(&Config { native: None, ..wanted(&other, shape) }), &["is not a ucache store"]);
    let lru = Config { eviction: Eviction::Lru, ..wanted(&other, shape) };
    assert_eq!(Engine::create(&lru).expect("imported with LRU newly on").stats().items, 50);
}

const IMPORTED: usize = 0;
const REFUSED: usize = 1;
const ALIKE: usize = 2;

/// Damaged native stores: no crash, and no wrong key, except for damage that keeps the key's hash:
/// djb33x misses some changes of two neighbouring bytes, and native has no other check. 100,000
/// with UCACHE_STORE_DAMAGE=100000.
#[test]
fn damaged_native_stores_are_imported_as_far_as_they_are_right() {
    let _alone = alone();
    let dir = memory();
    let count = rounds("UCACHE_STORE_DAMAGE", 2000);
    let seed = fastrand::u64(..);
    for bitmap in [false, true] {
        let (bytes, shape) = synthetic(bitmap);
        let setup = |half| Copy::new(dir.path(), half, bytes.clone());
        let tally = in_two(count, setup, |n, copy, tally| {
            let mut rng = fastrand::Rng::with_seed(seed ^ n as u64);
            let mut damaged = bytes.clone();
            let tables = (ITEMS * (88 + KEY_SIZE)) as usize;
            for _ in 0..rng.usize(1..20) {
                let len = (1 << rng.u32(0..10)).min(200);
                let at = rng.usize(0..tables - len);
                damaged[at..at + len].fill_with(|| rng.u8(..));
                if rng.bool() {
                    // A field of some item: small numbers are more plausible than random ones.
                    put_word(&mut damaged, rng.u64(0..ITEMS), rng.usize(0..11), rng.u64(0..400));
                }
            }
            let path = copy.path.with_extension("damaged");
            fs::write(&path, &damaged).expect("write");
            match Engine::create(&wanted(&path, shape)) {
                Ok(engine) => {
                    tally.add(IMPORTED, 1);
                    let known: Vec<Vec<u8>> = (1..=50).map(key).collect();
                    for item in engine_value::all_items(&engine) {
                        let alike =
                            |key: &Vec<u8>| key.len() == item.key.len() && djb33x(key) == djb33x(&item.key);
                        assert!(known.iter().any(alike), "round {n}: {item:?}");
                        tally.add(ALIKE, usize::from(!known.contains(&item.key)));
                    }
                    assert!(engine.stats().items <= 50);
                }
                Err(_) => {
                    tally.add(REFUSED, 1);
                    assert!(fs::read(&path).expect("read") == damaged, "round {n}: refused, but changed");
                }
            }
            for left in [path.clone(), path.with_extension("damaged.native")] {
                let _ = fs::remove_file(left);
            }
        });
        say(&format!(
            "{count} damaged native stores: {} imported, {} refused; {} keys with the hash of the one that was damaged",
            tally.get(IMPORTED),
            tally.get(REFUSED),
            tally.get(ALIKE)
        ));
        assert!(tally.get(IMPORTED) > 0, "nothing was shown");
        assert!(tally.get(ALIKE) * 1000 <= tally.get(IMPORTED) + 1000, "damaged keys are imported");
    }
}
