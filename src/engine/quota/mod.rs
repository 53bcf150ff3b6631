//! Exact limits: items and blocks.
#![forbid(unsafe_code)]

mod blocks;
mod items;
pub(in crate::engine) mod limit;

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Shortage {
    /// Items.
    Items,
    /// Blocks: `need` more beside the `held` ones of the value that is replaced.
    Blocks { need: u32, held: u32 },
    /// Memory or disk: this many contiguous bytes (0 = a bucket of the index).
    Space(u64),
    /// A part of the index of a store that has no blocks on disk yet, for a key of this home bucket.
    Index(u64),
}
