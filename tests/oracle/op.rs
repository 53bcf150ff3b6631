//! Messages between the test and the driver: operations, answers, and the bytes and digests that
//! both derive from seeds. `driver.c` has the same in C.

use std::fmt::Write as _;

pub(crate) const UNGETTABLE: u16 = 1;
pub(crate) const UPDATE: u16 = 2;
pub(crate) const LOCAL: u16 = 4;
pub(crate) const ABSEXPIRE: u16 = 8;
pub(crate) const MATH: u16 = 16;
pub(crate) const INC: u16 = 32;
pub(crate) const DEC: u16 = 64;
pub(crate) const MUL: u16 = 128;
pub(crate) const DIV: u16 = 256;
pub(crate) const FIXEXPIRE: u16 = 512;

/// Initial content of an out parameter.
pub(crate) const UNTOUCHED: u64 = 0x7a7a_7a7a_7a7a_7a7a;
/// `how`: no variable for expiry or hits.
pub(crate) const NO_OUT: u8 = 1;
/// `how`: a read lock.
pub(crate) const READ_LOCK: u8 = 2;
/// `how`: the lock is taken with uWSGI's functions instead of its macros.
pub(crate) const BY_FUNCTION: u8 = 4;

/// An operation, in the order of the driver's enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Clock,
    MagicGet,
    MagicSet,
    MagicExists,
    MagicDel,
    MagicClear,
    Get2,
    Get3,
    Get4,
    Num2,
    Exists2,
    Set2,
    Del2,
    /// `exists2`, then `del2` with the number returned.
    DelIndex,
    /// `del2` with any number, on an empty cache.
    DelFreeIndex,
    Keys,
    /// `n_items`, `hits`, `miss`, `full` of the struct.
    Stat,
    LastModified,
    /// `by_name`, `by_namelen`.
    Names,
    /// The fields that never change.
    Fields,
    /// The packets of the remote functions.
    Prepare,
    /// The parser of their answers.
    Context,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) cache: u8,
    /// Index of the key in the cache's set of keys; only known to the test.
    pub(crate) key: u32,
    pub(crate) keylen: u16,
    pub(crate) kid: u32,
    pub(crate) vallen: u32,
    pub(crate) flags: u16,
    /// 0 = the cache's name, 1 = NULL, 2 = "", 3 to 5 = unknown names.
    pub(crate) name: u8,
    pub(crate) how: u8,
    pub(crate) expires: u64,
    /// The first eight bytes of the value: the operand of arithmetic.
    pub(crate) seed: u64,
}

impl Op {
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        to.extend([self.kind as u8, self.cache]);
        to.extend(self.keylen.to_le_bytes());
        to.extend(self.kid.to_le_bytes());
        to.extend(self.vallen.to_le_bytes());
        to.extend(self.flags.to_le_bytes());
        to.extend([self.name, self.how]);
        to.extend(self.expires.to_le_bytes());
        to.extend(self.seed.to_le_bytes());
    }

    /// One line of a report, without fields that are 0.
    pub(crate) fn brief(&self) -> String {
        let mut text = format!("{:?} key {} ({} bytes)", self.kind, self.key, self.keylen);
        const NAMES: [&str; 10] =
            ["ungettable", "update", "local", "abs", "math", "inc", "dec", "mul", "div", "fix"];
        for (bit, name) in NAMES.iter().enumerate().filter(|(bit, _)| self.flags >> bit & 1 != 0) {
            let _ = write!(text, "{}{name}", if self.flags & ((1 << bit) - 1) == 0 { " " } else { "|" });
        }
        let rest = [
            ("len", self.vallen.into()),
            ("name", self.name.into()),
            ("how", self.how.into()),
            ("expires", self.expires),
        ];
        for (name, value) in rest.into_iter().filter(|&(_, value): &(&str, u64)| value != 0) {
            let _ = write!(text, " {name} {value}");
        }
        if self.vallen > 0 {
            let _ = write!(text, " value {}", self.seed.cast_signed());
        }
        text
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// The driver's answer to one call; unused fields are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) ret: i64,
    pub(crate) len: u64,
    pub(crate) hash: u64,
    pub(crate) x: u64,
}

impl Answer {
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn get(from: &[u8]) -> Self {
        let word = |i: usize| u64::from_le_bytes(from[i * 8..i * 8 + 8].try_into().expect("8 bytes"));
        Self { ret: word(0).cast_signed(), len: word(1), hash: word(2), x: word(3) }
    }

    /// One line of a report.
    pub(crate) fn brief(&self) -> String {
        let word = |w: u64| if w == UNTOUCHED { "untouched".to_owned() } else { w.to_string() };
        format!("{}, len {}, hash {:x}, x {}", self.ret, word(self.len), self.hash, word(self.x))
    }

    pub(crate) fn ret(ret: i64) -> Self {
        Self { ret, ..Self::default() }
    }

    /// For the raw calls, which always set their out parameters.
    pub(crate) fn raw(ret: i64) -> Self {
        Self { ret, len: UNTOUCHED, hash: 0, x: UNTOUCHED }
    }
}

fn word(seed: u64, i: u64) -> u64 {
    if i == 0 {
        return seed;
    }
    let w = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    w ^ w >> 31
}

pub(crate) fn mix(h: u64, w: u64) -> u64 {
    let h = (h ^ w).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ h >> 29
}

/// Digest of the `len` bytes derived from `seed`.
pub(crate) fn digest(seed: u64, len: u64) -> u64 {
    let mut h = mix(0, len);
    for i in 0..len.div_ceil(8) {
        let left = len - i * 8;
        let w = word(seed, i);
        h = mix(h, if left < 8 { w & ((1 << (left * 8)) - 1) } else { w });
    }
    h
}

/// The bytes derived from `seed`.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let words = (0..).flat_map(|i| word(seed, i).to_le_bytes());
    words.take(len).collect()
}

/// Digest of these bytes.
pub(crate) fn digest_bytes(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(mix(0, bytes.len() as u64), |h, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        mix(h, u64::from_le_bytes(word))
    })
}

/// A key: `len` bytes, the first four of them `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) len: u16,
    pub(crate) id: u32,
}

impl Key {
    /// The key with these bytes; for short keys the rest of `id` is ignored.
    pub(crate) fn new(len: u16, id: u32) -> Self {
        let id = if len < 4 { id & ((1 << (len * 8)) - 1) } else { id };
        Self { len, id }
    }

    fn seed(self) -> u64 {
        u64::from(self.len) << 32 | u64::from(self.id)
    }

    pub(crate) fn digest(self) -> u64 {
        digest(self.seed(), self.len.into())
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        bytes(self.seed(), self.len.into())
    }
}
