//! The hash functions of [`uwsgi_hash`](crate::wire::uwsgi_hash) for C, and for several keys at
//! once.

use std::ffi::c_char;

pub(crate) use crate::wire::uwsgi_hash::Algorithm;
use crate::{
    capi::types::uwsgi_hash_algo,
    engine::{djb33x, murmur2},
};

impl Algorithm {
    /// [`Algorithm::hash`] of several keys at once: the steps of one hash depend on each other, but
    /// not on those of other keys.
    pub(crate) fn hashes(self, keys: [&[u8]; LANES]) -> [u32; LANES] {
        match self {
            Self::Murmur2 => keys.map(murmur2),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: every x86-64 has SSE2.
            _ => unsafe { djb33x_lanes(keys) }.unwrap_or_else(|| keys.map(djb33x)),
            #[cfg(not(target_arch = "x86_64"))]
            _ => keys.map(djb33x),
        }
    }

    /// The struct from which C reads the name; static.
    pub(crate) fn as_c(self) -> *mut uwsgi_hash_algo {
        (&raw const TABLE[self as usize].0).cast_mut()
    }
}

/// Number of keys that [`Algorithm::hashes`] hashes at once: 32-bit lanes of a vector register.
pub(crate) const LANES: usize = 4;

/// [`djb33x`] of keys with the same length; `None` = their lengths differ.
///
/// # Safety
/// The processor has SSE2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn djb33x_lanes(keys: [&[u8]; LANES]) -> Option<[u32; LANES]> {
    use std::arch::x86_64::*;
    let len = keys[0].len();
    if keys.iter().any(|key| key.len() != len) {
        return None;
    }
    // 33 times the hash, xor the sign-extended byte in the highest position of a lane.
    let step = |hash, word| {
        let times_33 = _mm_add_epi32(_mm_slli_epi32::<5>(hash), hash);
        _mm_xor_si128(times_33, _mm_srai_epi32::<24>(word))
    };
    let mut hash = _mm_set1_epi32(djb33x(&[]).cast_signed());
    let [a, b, c, d] = keys.map(|key| key.as_chunks::<4>().0);
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        let [a, b, c, d] = [a, b, c, d].map(|bytes| i32::from_le_bytes(*bytes));
        let word = _mm_set_epi32(d, c, b, a);
        hash = step(hash, _mm_slli_epi32::<24>(word));
        hash = step(hash, _mm_slli_epi32::<16>(word));
        hash = step(hash, _mm_slli_epi32::<8>(word));
        hash = step(hash, word);
    }
    for at in len / 4 * 4..len {
        let [a, b, c, d] = keys.map(|key| i32::from(key[at]) << 24);
        hash = step(hash, _mm_set_epi32(d, c, b, a));
    }
    let lanes =
        [hash, _mm_shuffle_epi32::<1>(hash), _mm_shuffle_epi32::<2>(hash), _mm_shuffle_epi32::<3>(hash)];
    Some(lanes.map(|lane| _mm_cvtsi128_si32(lane).cast_unsigned()))
}

struct Algo(uwsgi_hash_algo);

// SAFETY: the table and the literals it points to are never written.
unsafe impl Sync for Algo {}

macro_rules! algo {
    ($name:literal, $func:ident) => {
        Algo(uwsgi_hash_algo {
            name: $name.as_ptr().cast_mut(),
            func: Some($func),
            next: std::ptr::null_mut(),
        })
    };
}

/// In the order of [`Algorithm`].
static TABLE: [Algo; 5] = [
    algo!(c"djb33x", c_djb33x),
    algo!(c"murmur2", c_murmur2),
    algo!(c"random", c_djb33x),
    algo!(c"rand", c_djb33x),
    algo!(c"rr", c_djb33x),
];

/// # Safety
/// `key` is NULL or has `len` readable bytes.
unsafe extern "C" fn c_djb33x(key: *mut c_char, len: u64) -> u32 {
    // SAFETY: C passes `len` readable bytes at `key`, as uwsgi.h requires for this function type.
    djb33x(unsafe { crate::capi::arg::bytes(key, len) }.unwrap_or_default())
}

/// # Safety
/// As [`c_djb33x`].
unsafe extern "C" fn c_murmur2(key: *mut c_char, len: u64) -> u32 {
    // SAFETY: as above.
    murmur2(unsafe { crate::capi::arg::bytes(key, len) }.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step-by-step reference implementation.
    fn djb33x_by_steps(key: &[i32]) -> u32 {
        let mut hash: u32 = 5381;
        for c in key {
            hash = hash.wrapping_mul(33) ^ c.cast_unsigned();
        }
        hash
    }

    #[test]
    fn djb33x_counts_bytes_as_char() {
        assert_eq!(djb33x(b""), 5381);
        assert_eq!(djb33x(b"a"), (5381 * 33) ^ 97);
        let chars = if c_char::MIN == 0 { [255, 128, 1] } else { [-1, -128, 1] };
        assert_eq!(djb33x(&[0xff, 0x80, 1]), djb33x_by_steps(&chars));
    }

    #[test]
    fn keys_hash_together_as_each_alone() {
        let bytes: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(37)).collect();
        for (a, b) in (0..40).flat_map(|a| [(a, a), (a, a / 2), (0, a)]) {
            let keys = [&bytes[..a], &bytes[50..50 + a], &bytes[100..100 + b], &bytes[150..150 + a]];
            for algorithm in [Algorithm::Djb33x, Algorithm::Murmur2] {
                assert_eq!(algorithm.hashes(keys), keys.map(|key| algorithm.hash(key)), "{a} {b}");
            }
        }
    }

    #[test]
    fn names_lead_to_structs_with_the_same_name() {
        for name in ["djb33x", "murmur2", "random", "rand", "rr"] {
            let algorithm = Algorithm::by_name(name.as_bytes()).expect(name);
            // SAFETY: `as_c` points into the static table, whose names are literals.
            let found = unsafe { std::ffi::CStr::from_ptr((*algorithm.as_c()).name) };
            assert_eq!(found.to_str(), Ok(name));
        }
        assert_eq!(Algorithm::by_name(b"md5"), None);
    }
}
