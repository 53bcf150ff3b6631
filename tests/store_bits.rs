//! Every bit of a store's 64 KiB of tables, one after the other, and all other kinds of damage: a
//! store that opens is right.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{fs, path::Path};

use engine_proc::{alone, say};
use engine_store::{Copy, Tally, UPDATE, config, in_two, memory, rounds};
use engine_value::Stamp;
use ucache::{
    Error,
    engine::{Blocks, Config, Engine, Eviction, Touch},
};

const ITEMS: u32 = 60;
const SPAN: usize = 4 << 10;

/// A key of 12 bytes, values of three sizes: few spans hold them all.
fn key(n: u32) -> Vec<u8> {
    format!("key number {n:02}").into_bytes()
}

fn len(n: u32) -> usize {
    [40, 200, 900][n as usize % 3]
}

fn put(engine: &Engine, n: u32, seq: u32) -> Result<(), Error> {
    let mut value = Vec::new();
    engine_value::write(Stamp { key: n, writer: 1, seq }, len(n), &mut value);
    engine.set(&key(n), &value, &UPDATE).map(|_| ())
}

/// The sequence number of an item, which must be whole and its own.
fn seq(engine: &Engine, n: u32, what: &str) -> Option<u32> {
    let (_, value) = engine_value::get(engine, &key(n), Touch::Yes).expect("get")?;
    Some(engine_value::read(n, &value).unwrap_or_else(|fault| panic!("{what}: item {n}: {fault:?}")).seq)
}

fn small(path: &Path) -> Config {
    Config { capacity: 64, max_key: 64, max_value: 1000, ..config(path) }
}

/// The bytes of a store with [`ITEMS`] items, each stored twice, after a clear.
fn store(make: impl Fn(&Path) -> Config) -> Vec<u8> {
    let dir = memory();
    let path = dir.path().join("store");
    {
        let engine = Engine::create(&make(&path)).expect("a store");
        put(&engine, 1, 1).expect("set");
        engine.clear().expect("clear");
        for seq in [4, 5] {
            (0..ITEMS).for_each(|n| put(&engine, n, seq).expect("set"));
        }
        engine.sync().expect("sync");
    }
    fs::read(&path).expect("read")
}

/// Bytes of a store before its data, at most: its first keys are there.
fn tables(bytes: &[u8]) -> usize {
    bytes.windows(11).position(|w| w == b"key number ").expect("a key") / SPAN * SPAN
}

/// End of the last non-zero span.
fn end_of_data(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&b| b != 0).expect("not empty") / SPAN * SPAN + SPAN
}

const OPENED: usize = 0;
const REFUSED: usize = 1;
const KEPT: usize = 2;
const LOST_MANY: usize = 3;

/// Opens the copy: refused and left unchanged, or used, and then without any fault.
fn check(copy: &Copy, tally: &Tally, what: &str) {
    match Engine::attach(&copy.path) {
        Err(_) => tally.add(REFUSED, 1),
        Ok(engine) => {
            let found = (0..ITEMS).filter(|&n| {
                let seq = seq(&engine, n, what);
                assert!(seq.is_none_or(|seq| seq == 5), "{what}: item {n} has {seq:?}");
                seq.is_some()
            });
            let found = found.count();
            tally.add(OPENED, 1);
            tally.add(KEPT, found);
            tally.add(LOST_MANY, usize::from(found + 1 < ITEMS as usize));
            // Limits and space may have any value now, but without a crash, a hang or a wrong
            // value.
            let again = put(&engine, 7, 6);
            assert!(again.is_err() || seq(&engine, 7, what) == Some(6), "{what}: a store that is gone");
            let _ = engine.delete(&key(8));
            assert!(seq(&engine, 8, what).is_none(), "{what}: deleted and there");
        }
    }
}

fn flip(copy: &Copy, bit: usize) {
    copy.become_with(bit / 8, &[copy.bytes[bit / 8] ^ 1 << (bit % 8)]);
}

/// All 524,288 bits of the tables with UCACHE_STORE_FLIPS=1 (then also those of the items, and
/// other layouts); else every non-zero bit and each 16th of the rest.
#[test]
fn a_flipped_bit_costs_no_more_than_an_item() {
    let _alone = alone();
    let step = rounds("UCACHE_STORE_FLIPS", 16);
    let mut layouts = vec![("plain", store(small))];
    if step == 1 {
        layouts.push(("lru", store(|path| Config { eviction: Eviction::Lru, ..small(path) })));
        let blocks = Some(Blocks { size: 64, count: 900 });
        layouts.push(("bitmap", store(|path| Config { blocks, ..small(path) })));
    }
    for (name, bytes) in layouts {
        let dir = memory();
        let setup = |half| Copy::new(dir.path(), half, bytes.clone());
        let tables = tables(&bytes);
        let end = if step == 1 { end_of_data(&bytes) } else { tables };
        // Only the non-zero part of the data.
        let wanted = |&bit: &usize| bytes[bit / 8] != 0 || bit / 8 < tables && (bit / 8 + bit) % step == 0;
        let bits: Vec<usize> = (0..end * 8).filter(wanted).collect();
        for (part, bits) in [
            ("tables", bits.iter().copied().filter(|bit| bit / 8 < tables).collect::<Vec<_>>()),
            ("data", bits.iter().copied().filter(|bit| bit / 8 >= tables).collect()),
        ] {
            let tally = in_two(bits.len(), setup, |n, copy, tally| {
                flip(copy, bits[n]);
                check(copy, tally, &format!("{name}: bit {}", bits[n]));
            });
            if bits.is_empty() {
                continue;
            }
            let all = bits.len() as u64 * u64::from(ITEMS);
            say(&format!(
                "{name}, {part}: {} bits flipped, {} opened, {} refused, {} of {all} items kept; more than one item lost: {} \
                 times",
                bits.len(),
                tally.get(OPENED),
                tally.get(REFUSED),
                tally.get(KEPT),
                tally.get(LOST_MANY)
            ));
            assert_eq!(tally.get(LOST_MANY), 0, "one bit cost more than an item");
            // The bits of the tables left out are zeros: the loss is one of all bits. A flip in the
            // data damages one item.
            let (of, damaged) =
                if part == "data" { (bits.len(), bits.len() as u64) } else { (tables * 8, 0) };
            let most = of as u64 * u64::from(ITEMS) / 1000 + damaged;
            assert!(all - tally.get(KEPT) <= most, "less than 99.9 % of the undamaged items were kept");
        }
    }
}

/// Random damage, from a byte to pages, and every kind of truncation: 100,000 with
/// UCACHE_STORE_DAMAGE=100000.
#[test]
fn random_damage_and_cuts_are_never_wrong() {
    let _alone = alone();
    let bytes = store(small);
    let (tables, end) = (tables(&bytes), end_of_data(&bytes));
    let dir = memory();
    let count = rounds("UCACHE_STORE_DAMAGE", 3000);
    let seed = fastrand::u64(..);
    let tally = in_two(
        count,
        |half| Copy::new(dir.path(), half, bytes.clone()),
        |n, copy, tally| {
            let mut rng = fastrand::Rng::with_seed(seed ^ n as u64);
            let what = format!("seed {seed} round {n}");
            if rng.u8(0..4) == 0 {
                let len = match rng.u8(0..3) {
                    0 => rng.usize(0..bytes.len()),
                    1 => rng.usize(0..bytes.len() / 512) * 512,
                    _ => rng.usize(0..bytes.len() / SPAN) * SPAN,
                };
                copy.become_with(0, &[]);
                copy.cut(len);
                let before = fs::read(&copy.path).expect("read");
                check(copy, tally, &what);
                assert!(tally.get(OPENED) > 0 || copy.is(&before), "{what}: refused, but changed");
                return;
            }
            let len = 1 << rng.u32(0..14);
            let at = match rng.u8(0..3) {
                0 => rng.usize(0..4096),
                1 => rng.usize(0..tables),
                _ => rng.usize(0..end - len),
            };
            let damage: Vec<u8> = match rng.u8(0..4) {
                0 => vec![0; len],
                1 => vec![0xff; len],
                // Bytes from elsewhere in the store are the most plausible damage.
                2 => {
                    let from = rng.usize(0..end - len);
                    bytes[from..from + len].to_vec()
                }
                _ => (0..len).map(|_| rng.u8(..)).collect(),
            };
            copy.become_with(at, &damage);
            check(copy, tally, &what);
        },
    );
    let (opened, refused) = (tally.get(OPENED), tally.get(REFUSED));
    say(&format!(
        "{count} damaged or cut: {opened} opened with {} of {} items, {refused} refused",
        tally.get(KEPT),
        opened * u64::from(ITEMS)
    ));
    assert!(
        opened * 4 > count as u64 && refused > 0,
        "{opened} opened, {refused} refused: nothing was shown"
    );
}
