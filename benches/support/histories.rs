//! Histories of a cache whose footprint is measured: sizes that stay, differ, wander, shrink, and items that outlive
//! their neighbours. A history is a list of stores and deletes, apart from any cache, so that every contender replays
//! the same one, in whatever language it is driven.
#![allow(dead_code, reason = "every bench and test uses its own part")]

use std::collections::BTreeMap;

use fastrand::Rng;

/// Bytes of a key.
pub(crate) const KEY: u32 = 16;
/// The length of an item that is not there, in a reply.
const MISSING: u32 = u32::MAX;
/// The length in a step that deletes.
const DELETE: u32 = u32::MAX;

/// What happens to a cache with room for so many items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// 100-byte values, the cache full.
    Fixed,
    /// 1,000-byte values, the cache full.
    Kilobyte,
    /// Every other value of 40 bytes, the others of 900; half of the items.
    Bimodal,
    /// A sixth of the items, of 8 to 398 bytes, never deleted.
    Spread,
    /// Fourteen rounds: each stores a quarter of the items in another size, 40 to 1,301 bytes, and deletes 99 of 100.
    Wandering,
    /// Values of 8 to 398 bytes, the cache full; then nine of ten are deleted.
    Survivors,
    /// 1,000-byte values, half of the items, that become 40 bytes long.
    Shrinking,
    /// Values of 8 to 600 bytes, stored and deleted at random under half as many keys as there is room for.
    Churn,
    /// Values of 20 to 2,000 bytes for half of the items; each key gets values of other lengths, at random, eight times.
    Pages,
    /// Values of 65,536 bytes, one for 64 items.
    Large,
}

/// A store of so many bytes under a key, or a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: [u8; KEY as usize],
    /// `None`: delete.
    pub(crate) length: Option<u32>,
}

/// The steps of a history, and what they leave.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// The steps that stored what is there in the end, in the order of their keys' numbers.
    pub(crate) live: Vec<usize>,
    /// The most bytes of keys and values that were there at a time.
    pub(crate) peak: u64,
    /// The most items that were there at a time.
    pub(crate) most: u64,
}

/// The key of a number, in text (memcached takes no control bytes), spread over all values.
pub(crate) fn key(n: u32) -> [u8; KEY as usize] {
    let mixed = (u64::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::array::from_fn(|at| b"0123456789abcdef"[(mixed >> (60 - 4 * at)) as usize & 15])
}

impl History {
    pub(crate) const ALL: [Self; 10] = [
        Self::Fixed,
        Self::Kilobyte,
        Self::Bimodal,
        Self::Spread,
        Self::Wandering,
        Self::Survivors,
        Self::Shrinking,
        Self::Churn,
        Self::Pages,
        Self::Large,
    ];

    /// Bytes of its largest value, the limit of its cache.
    pub(crate) fn largest(self) -> u32 {
        match self {
            Self::Fixed => 100,
            Self::Kilobyte | Self::Shrinking => 1000,
            Self::Bimodal => 900,
            Self::Spread | Self::Survivors => 398,
            Self::Wandering => 1301,
            Self::Churn => 600,
            Self::Pages => 2000,
            Self::Large => 65_536,
        }
    }

    /// Gives each step to `step`: a key's number, and the length to store or `None` to delete.
    pub(crate) fn each(self, items: u32, rng: &mut Rng, mut step: impl FnMut(u32, Option<u32>)) {
        match self {
            Self::Fixed => (0..items).for_each(|n| step(n, Some(100))),
            Self::Kilobyte => (0..items).for_each(|n| step(n, Some(1000))),
            Self::Bimodal => (0..items / 2).for_each(|n| step(n, Some(if n % 2 == 0 { 40 } else { 900 }))),
            Self::Spread => (0..items / 6).for_each(|n| step(n, Some(rng.u32(8..=398)))),
            Self::Wandering => {
                let each = items / 4;
                for round in 0..14 {
                    let first = round * each;
                    (first..first + each).for_each(|n| step(n, Some(40 + 97 * round)));
                    (first..first + each).filter(|n| n % 100 != 0).for_each(|n| step(n, None));
                }
            }
            Self::Survivors => {
                (0..items).for_each(|n| step(n, Some(rng.u32(8..=398))));
                (0..items).filter(|_| rng.u32(0..10) != 0).for_each(|n| step(n, None));
            }
            Self::Shrinking => {
                (0..items / 2).for_each(|n| step(n, Some(1000)));
                (0..items / 2).for_each(|n| step(n, Some(40)));
            }
            Self::Churn => {
                for _ in 0..items * 4 {
                    let n = rng.u32(0..items / 2);
                    step(n, rng.bool().then(|| rng.u32(8..=600)));
                }
            }
            Self::Pages => {
                let keys = items / 2;
                (0..keys).for_each(|n| step(n, Some(rng.u32(20..=2000))));
                for _ in 0..keys * 8 {
                    step(rng.u32(0..keys), Some(rng.u32(20..=2000)));
                }
            }
            Self::Large => (0..(items / 64).max(1)).for_each(|n| step(n, Some(65_536))),
        }
    }

    /// All of it, the same in every run.
    pub(crate) fn plan(self, items: u32) -> Plan {
        let mut steps = Vec::new();
        let mut live: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        let (mut bytes, mut peak, mut most) = (0, 0, 0);
        self.each(items, &mut Rng::with_seed(7), |n, length| {
            let now = length.map(|length| (steps.len(), u64::from(KEY + length)));
            let before = match now {
                Some(now) => live.insert(n, now),
                None => live.remove(&n),
            };
            bytes = bytes + now.map_or(0, |now| now.1) - before.map_or(0, |before| before.1);
            peak = peak.max(bytes);
            most = most.max(live.len());
            steps.push(Step { key: key(n), length });
        });
        let live = live.into_values().map(|(at, _)| at).collect();
        Plan { steps, live, peak, most: u64::try_from(most).expect("a count") }
    }
}

impl Plan {
    /// For another program: how many steps and how many live items (64 bits each), the steps (16 bytes of key, 32
    /// bits of length, [`DELETE`]), the keys of the live items.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for count in [self.steps.len(), self.live.len()] {
            out.extend_from_slice(&(count as u64).to_le_bytes());
        }
        for step in &self.steps {
            out.extend_from_slice(&step.key);
            out.extend_from_slice(&step.length.unwrap_or(DELETE).to_le_bytes());
        }
        self.live.iter().for_each(|&at| out.extend_from_slice(&self.steps[at].key));
        out
    }
}

/// What a contender made of a plan. In a file: a byte for each step (1: refused), 32 bits for each live item (its
/// length, or [`MISSING`]), resident bytes and bytes on disk (64 bits each).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) refused: Vec<bool>,
    pub(crate) lengths: Vec<Option<u32>>,
    pub(crate) resident: u64,
    pub(crate) disk: u64,
}

impl Reply {
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.refused.iter().map(|&refused| u8::from(refused)).collect();
        for length in &self.lengths {
            out.extend_from_slice(&length.unwrap_or(MISSING).to_le_bytes());
        }
        out.extend_from_slice(&self.resident.to_le_bytes());
        out.extend_from_slice(&self.disk.to_le_bytes());
        out
    }

    pub(crate) fn decoded(plan: &Plan, bytes: &[u8]) -> Option<Self> {
        let (refused, rest) = bytes.split_at_checked(plan.steps.len())?;
        let (lengths, rest) = rest.split_at_checked(plan.live.len() * 4)?;
        let (resident, disk) = rest.split_at_checked(8)?;
        let lengths = lengths.as_chunks::<4>().0.iter().map(|&four| u32::from_le_bytes(four));
        Some(Self {
            refused: refused.iter().map(|&refused| refused != 0).collect(),
            lengths: lengths.map(|length| (length != MISSING).then_some(length)).collect(),
            resident: u64::from_le_bytes(resident.try_into().ok()?),
            disk: u64::from_le_bytes(disk.try_into().ok()?),
        })
    }

    /// Bytes of the keys and values that are there.
    pub(crate) fn payload(&self) -> u64 {
        self.lengths.iter().flatten().map(|&length| u64::from(KEY + length)).sum()
    }

    pub(crate) fn refusals(&self) -> usize {
        self.refused.iter().filter(|&&refused| refused).count()
    }

    /// Items that were stored, not deleted, and are not there: evicted although the history never held more than
    /// its cache has room for.
    pub(crate) fn evicted(&self, plan: &Plan) -> usize {
        let items = plan.live.iter().zip(&self.lengths);
        items.filter(|&(&at, length)| length.is_none() && !self.refused[at]).count()
    }
}
