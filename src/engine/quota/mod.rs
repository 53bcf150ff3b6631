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
    /// Memory or disk: this many contiguous bytes.
    Space(u64),
    /// A slot for a key of this home bucket: a part of a store's index has no blocks on disk yet, or all
    /// overflow buckets of the shard are in use.
    Index(u64),
}
