//! The caches of both sides, in one uWSGI.

use crate::op::Key;

/// One cache: its definition and its parameters for the model.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    /// The definition after `name=`; `{dir}` stands for the server's directory.
    pub(crate) text: &'static str,
    pub(crate) items: u64,
    pub(crate) keysize: u64,
    pub(crate) blocksize: u64,
    pub(crate) blocks: u64,
    pub(crate) bitmap: bool,
    pub(crate) lru: bool,
    pub(crate) lazy: bool,
    pub(crate) no_expire: bool,
    pub(crate) sweep_on_full: u64,
    pub(crate) clear_on_full: bool,
    pub(crate) math_initial: i64,
    pub(crate) last_modified: bool,
    pub(crate) store: bool,
    /// ucache's values are at a server: there the limits mean nothing (D-62).
    pub(crate) place: Place,
}

/// Where ucache's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Region,
    /// At a server, which is asked for each.
    Server,
    /// At a server, and copies in the region.
    Near,
}

const DEFINITIONS: [(&str, &str); 34] = [
    ("plain", "items=64,blocksize=256,keysize=64"),
    ("bitmap", "items=32,blocks=64,blocksize=16,keysize=48,bitmap=1,hashsize=20"),
    ("bytes", "items=20,blocks=100,blocksize=1,keysize=20,bitmap=1,ignore_full=1,hashsize=22"),
    ("bitlru", "items=24,blocks=48,blocksize=16,keysize=48,bitmap=1,purge_lru=1,hashsize=19"),
    ("bitclear", "items=16,blocks=24,blocksize=8,keysize=40,bitmap=1,clear_on_full=1,hashsize=18"),
    ("bitsweep", "items=16,blocks=24,blocksize=8,keysize=40,bitmap=1,sweep_on_full=4,hashsize=18"),
    ("lru", "items=16,blocksize=128,keysize=32,purge_lru=1,hashsize=18"),
    ("lruthree", "items=3,blocksize=64,keysize=32,lru=1,hashsize=19"),
    ("lru4k", "items=4097,blocksize=64,keysize=16,purge_lru=1,hashsize=4002"),
    ("lru6k", "items=6001,blocksize=64,keysize=16,purge_lru=1,ignore_full=1,hashsize=4002"),
    ("tight", "items=10,blocksize=1,keysize=1,hashsize=19"),
    ("eight", "items=12,blocksize=8,keysize=3,hashsize=21"),
    ("seven", "items=12,blocksize=7,keysize=9,hashsize=21"),
    ("math", "items=24,blocksize=40,keysize=24,math_initial=41,hashsize=19"),
    ("mathmin", "items=24,blocksize=8,keysize=24,math_initial=-9223372036854775808,hashsize=19"),
    ("sweep", "items=12,blocksize=64,keysize=24,sweep_on_full=7,hashsize=21"),
    ("clear", "items=12,blocksize=64,keysize=24,clear_on_full=1,hashsize=21"),
    ("sweepclear", "items=14,blocksize=64,keysize=24,sweep_on_full=3,clear_on_full=1,hashsize=16"),
    ("lrusweep", "items=14,blocksize=64,keysize=24,sweep_on_full=3,purge_lru=1,hashsize=16"),
    ("lruclear", "items=14,blocksize=64,keysize=24,clear_on_full=1,purge_lru=1,hashsize=16"),
    ("noexpire", "items=20,blocksize=64,keysize=24,no_expire=1,hashsize=22"),
    ("noexpiresweep", "items=12,blocksize=64,keysize=24,no_expire=1,sweep_on_full=5,hashsize=21"),
    ("lazy", "items=20,blocksize=64,keysize=24,lazy_expire=1,hashsize=22"),
    ("lazylru", "items=20,blocksize=64,keysize=24,lazy=1,lru=1,hashsize=22"),
    ("lazynoexpire", "items=20,blocksize=64,keysize=24,lazy_expire=1,no_expire=1,hashsize=22"),
    ("lastmod", "items=24,blocksize=64,keysize=24,lastmod=1,hashsize=19"),
    ("lastmodlru", "items=12,blocksize=64,keysize=24,lastmod=1,purge_lru=1,hashsize=21"),
    ("large", "items=8,keysize=65535"),
    ("store", "items=40,blocksize=300,keysize=50,store={dir}/store,hashsize=21"),
    (
        "storelru",
        "items=20,blocks=40,blocksize=64,keysize=50,bitmap=1,purge_lru=1,store={dir}/storelru,lastmod=1",
    ),
    ("murmur", "items=40,blocks=60,blocksize=64,keysize=24,hash=murmur2,hashsize=3"),
    ("one", "items=1,blocksize=64,keysize=24,hashsize=17"),
    ("two", "items=2,blocksize=64,keysize=24"),
    ("many", "items=3000,blocksize=48,keysize=16,hashsize=500"),
];

/// The caches that also run with a backend.
const BACKED: [&str; 11] =
    ["plain", "lru", "tight", "eight", "seven", "math", "mathmin", "noexpire", "lazy", "lastmod", "large"];

/// All caches; their number is their index.
pub(crate) fn all() -> Vec<Config> {
    DEFINITIONS.iter().map(|&(name, text)| Config::parse(name, text)).collect()
}

/// The number of the cache with this name, -1 = none.
pub(crate) fn number_of(name: &str) -> i64 {
    let found = DEFINITIONS.iter().position(|&(known, _)| known == name);
    found.map_or(-1, |at| i64::try_from(at).expect("few caches"))
}

impl Config {
    fn parse(name: &'static str, text: &'static str) -> Self {
        let mut c = Self {
            name,
            text,
            items: 0,
            keysize: 2048,
            blocksize: 65_536,
            blocks: 0,
            bitmap: false,
            lru: false,
            lazy: false,
            no_expire: false,
            sweep_on_full: 0,
            clear_on_full: false,
            math_initial: 0,
            last_modified: false,
            store: false,
            place: Place::Region,
        };
        for (key, value) in text.split(',').map(|part| part.split_once('=').expect("key=value")) {
            let number = || value.parse().expect("a number");
            match key {
                "items" => c.items = number(),
                "keysize" => c.keysize = number(),
                "blocksize" => c.blocksize = number(),
                "blocks" => c.blocks = number(),
                "bitmap" => c.bitmap = true,
                "purge_lru" | "lru" => c.lru = true,
                "lazy_expire" | "lazy" => c.lazy = true,
                "no_expire" => c.no_expire = true,
                "sweep_on_full" => c.sweep_on_full = number(),
                "clear_on_full" => c.clear_on_full = true,
                "math_initial" => c.math_initial = value.parse().expect("a number"),
                "lastmod" => c.last_modified = true,
                "store" => c.store = true,
                "hash" | "hashsize" | "ignore_full" => {}
                other => panic!("{other}: the model does not know it"),
            }
        }
        c.blocks = c.blocks.max(c.items);
        c
    }

    /// Whether it runs with a backend in the run that has one.
    pub(crate) fn can_be_backed(&self) -> bool {
        BACKED.contains(&self.name)
    }

    /// The line of the configuration; `backend`: options of the caches that can have one.
    pub(crate) fn line(&self, dir: &str, backend: &str) -> String {
        let backend = if self.can_be_backed() { backend } else { "" };
        format!("cache2 = name={},{}{backend}\n", self.name, self.text.replace("{dir}", dir))
    }

    /// Longest value, bytes.
    pub(crate) fn max_value(&self) -> u64 {
        if self.bitmap { self.blocksize * self.blocks } else { self.blocksize }
    }

    /// More items than ucache keeps in exact LRU order (D-31).
    pub(crate) fn sampled(&self) -> bool {
        self.lru && self.items - 1 > 4096
    }

    /// The keys used by the script: more than fit, of all lengths, and some that are never
    /// accepted.
    pub(crate) fn universe(&self, rng: &mut fastrand::Rng) -> Vec<Key> {
        let want = usize::try_from(if self.items > 100 { self.items * 4 / 3 } else { self.items * 2 + 6 });
        let want = want.expect("a small cache");
        let longest = u16::try_from(self.keysize).expect("a key has 16 bits");
        let mut keys = vec![Key::new(0, 0), Key::new(1, 0), Key::new(longest, 1)];
        if longest < u16::MAX {
            keys.extend([Key::new(longest + 1, 2), Key::new(u16::MAX, 3)]);
        }
        while keys.len() < want {
            let len = match rng.u8(0..8) {
                0 => longest,
                1 => rng.u16(1..=longest),
                2 => rng.u16(1..=longest.min(3)),
                _ => rng.u16(1..=longest.min(24)),
            };
            let key = Key::new(len, rng.u32(..));
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}
