//! Helpers shared by the tests of the protocol.

/// A small generator with a fixed seed (splitmix64), so that failures are reproducible.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Damages a packet: flips, cuts, repeats or replaces some of its bytes.
    pub(crate) fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len().max(1));
            match self.below(5) {
                0 => out.truncate(at),
                1 if !out.is_empty() => out[at] ^= 1 << self.below(8),
                2 if !out.is_empty() => out[at] = [0, 1, 255, b'-', b'9'][self.below(5)],
                3 => out.extend_from_within(at.min(out.len())..),
                _ => {
                    let len = self.below(8);
                    let more = self.bytes(len);
                    out.splice(at.min(out.len())..at.min(out.len()), more);
                }
            }
        }
        out
    }
}

/// Rounds of a fuzz loop.
pub(crate) const ROUNDS: usize = 20_000;
