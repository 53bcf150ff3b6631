//! The keyed hash: folded 64x64 -> 128-bit multiplications, in the way of Wang Yi's wyhash (public
//! domain), with four random secrets of each cache instead of constants, so that an attacker cannot
//! choose keys that collide. Its results are part of the store format.
#![forbid(unsafe_code)]

/// Four random words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u64; 4]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let m = u128::from(a) * u128::from(b);
    (m as u64) ^ (m >> 64) as u64
}

#[inline]
fn word(b: &[u8]) -> u64 {
    b.first_chunk().map_or(0, |c| u64::from_le_bytes(*c))
}

/// Initial values for byte strings of 0 to 16 bytes.
pub(crate) struct Seeds([u64; SHORT + 1]);

impl std::fmt::Debug for Seeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seeds(..)")
    }
}

/// Maximum length that is hashed as two words.
const SHORT: usize = 16;
/// Bytes of shared memory that are hashed at a time, a multiple of 32.
const CHUNK: usize = 1024;

impl Secret {
    /// Hash of `bytes`.
    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        let seed = self.seed(bytes.len());
        if bytes.len() > SHORT { self.long(bytes, seed) } else { self.of_short(bytes, seed) }
    }

    /// [`Secret::hash`] with precomputed seeds: saves a multiplication.
    #[inline(always)]
    pub(crate) fn hash_with(&self, seeds: &Seeds, bytes: &[u8]) -> u64 {
        match seeds.0.get(bytes.len()) {
            Some(seed) => self.of_short(bytes, *seed),
            None => self.long(bytes, self.seed(bytes.len())),
        }
    }

    pub(crate) fn seeds(&self) -> Seeds {
        Seeds(std::array::from_fn(|len| self.seed(len)))
    }

    #[inline]
    fn seed(&self, len: usize) -> u64 {
        let s = &self.0;
        s[0] ^ fold(len as u64 ^ s[1], s[2])
    }

    #[inline(always)]
    fn of_short(&self, bytes: &[u8], seed: u64) -> u64 {
        let s = &self.0;
        let (a, b) = Self::short(bytes);
        fold(s[3] ^ seed, fold(a ^ s[1], b ^ seed) ^ s[2])
    }

    /// Hashes more than 16 bytes.
    #[inline(never)]
    fn long(&self, bytes: &[u8], mut seed: u64) -> u64 {
        let s = &self.0;
        let (mut rest, mut lane) = (bytes, seed ^ s[3]);
        while rest.len() > 32 {
            seed = fold(word(rest) ^ s[1], word(&rest[8..]) ^ seed);
            lane = fold(word(&rest[16..]) ^ s[2], word(&rest[24..]) ^ lane);
            rest = &rest[32..];
        }
        seed ^= lane;
        if rest.len() > 16 {
            seed = fold(word(rest) ^ s[1], word(&rest[8..]) ^ seed);
        }
        // The last 16 bytes, overlapping those already read.
        let tail = &bytes[bytes.len() - 16..];
        fold(s[3] ^ seed, fold(word(tail) ^ s[1], word(&tail[8..]) ^ seed) ^ s[2])
    }

    /// [`Secret::hash`] of `len` bytes of shared memory: `read` copies those from a multiple of 8
    /// on. Takes no memory but the stack's.
    pub(crate) fn hash_pieces(&self, len: usize, mut read: impl FnMut(usize, &mut [u8])) -> u64 {
        let (s, mut piece) = (&self.0, [0; CHUNK]);
        if len <= CHUNK {
            read(0, &mut piece[..len]);
            return self.hash(&piece[..len]);
        }
        let mut seed = self.seed(len);
        let mut lane = seed ^ s[3];
        // As in `long`: 1 to 32 bytes remain, and the last 16 are read again.
        let whole = (len - 1) / 32 * 32;
        for at in (0..whole).step_by(CHUNK) {
            let bytes = &mut piece[..CHUNK.min(whole - at)];
            read(at, bytes);
            for block in bytes.chunks_exact(32) {
                seed = fold(word(block) ^ s[1], word(&block[8..]) ^ seed);
                lane = fold(word(&block[16..]) ^ s[2], word(&block[24..]) ^ lane);
            }
        }
        seed ^= lane;
        let bytes = &mut piece[..len - (whole - 16)];
        read(whole - 16, bytes);
        let (rest, tail) = (&bytes[16..], &bytes[bytes.len() - 16..]);
        if rest.len() > 16 {
            seed = fold(word(rest) ^ s[1], word(&rest[8..]) ^ seed);
        }
        fold(s[3] ^ seed, fold(word(tail) ^ s[1], word(&tail[8..]) ^ seed) ^ s[2])
    }

    /// Up to 16 bytes as two words; every byte counts, and the seed depends on the length.
    #[inline]
    fn short(bytes: &[u8]) -> (u64, u64) {
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => (crate::shm::load_partial(bytes), bytes.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const S: Secret =
        Secret([0x1234_5678_9ABC_DEF1, 0xFEDC_BA98_7654_3211, 0x0F1E_2D3C_4B5A_6979, 0x1122_3344_5566_7789]);

    #[test]
    fn pieces_have_the_hash_of_the_whole() {
        let bytes: Vec<u8> = (0..4 * CHUNK + 100).map(|i| (i * 31 / 7) as u8).collect();
        for len in (0..200).chain(CHUNK - 70..CHUNK + 70).chain(2 * CHUNK - 70..bytes.len()) {
            let read = |at: usize, into: &mut [u8]| {
                assert!(at.is_multiple_of(8), "{len}: {at}");
                into.copy_from_slice(&bytes[at..at + into.len()]);
            };
            assert_eq!(S.hash_pieces(len, read), S.hash(&bytes[..len]), "{len}");
        }
    }

    #[test]
    fn every_byte_and_the_length_count() {
        let base: Vec<u8> = (0..200).map(|i| i as u8).collect();
        for len in 1..200 {
            let h = S.hash(&base[..len]);
            assert_ne!(h, S.hash(&base[..len - 1]), "length {len}");
            assert_eq!(h, S.hash_with(&S.seeds(), &base[..len]), "length {len}");
            for i in 0..len {
                let mut other = base[..len].to_vec();
                other[i] ^= 1;
                assert_ne!(h, S.hash(&other), "length {len} byte {i}");
            }
        }
    }

    #[test]
    fn high_and_low_bits_spread() {
        let mut high = HashSet::new();
        let mut low = HashSet::new();
        for i in 0..10_000 {
            let h = S.hash(format!("key:{i:012}").as_bytes());
            high.insert(h >> 48);
            low.insert(h & 0xFFFF);
        }
        // 10,000 balls in 65,536 urns fill about 9,270 of them.
        assert!(high.len() > 9_100 && low.len() > 9_100, "{} {}", high.len(), low.len());
    }

    #[test]
    fn the_secret_decides() {
        let other = Secret([5, 6, 7, 8]);
        for len in [1, 7, 8, 15, 16, 17, 32, 33, 100, 2000] {
            // Keys whose home buckets (high bits) or tags (low bits) are the same under both
            // secrets.
            let (mut homes, mut tags) = (0, 0);
            let keys = if len == 1 { 256 } else { 4096 };
            for i in 0..keys {
                let mut key = vec![b'k'; len];
                let bytes = (i as u16).to_le_bytes();
                key[..len.min(2)].copy_from_slice(&bytes[..len.min(2)]);
                let (a, b) = (S.hash(&key), other.hash(&key));
                assert_ne!(a, b, "length {len}");
                homes += u32::from(a >> 48 == b >> 48);
                tags += u32::from(a & 0xFFFF == b & 0xFFFF);
            }
            // By chance each is the same for one key in 65,536.
            assert!(homes <= 2 && tags <= 2, "length {len}: {homes} {tags} of {keys}");
        }
    }
}
