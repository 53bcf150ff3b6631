//! The region: the only raw memory of the crate. Other layers see offsets, atomics and copies,
//! never pointers.

mod bins;
mod block;
mod class;
mod coalesce;
mod compact;
mod copy;
mod entry_view;
mod extent;
pub(crate) mod heap_check;
pub(crate) mod heap_use;
mod holes;
pub(crate) mod kept_run;
pub(crate) mod layout;
mod load_partial;
pub(crate) mod number;
pub mod order;
mod pair;
mod region;
pub(crate) mod scratch;
mod shard_cells;
mod simd_tags;
pub(crate) mod slab;
pub(crate) mod span;
pub(crate) mod span_claim;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use entry_view::{
    Bucket, HeaderLen, entry_size, first_match, key_len, prefetch_bucket, value_len,
};
pub(crate) use load_partial::load_partial;
pub use region::SharedBytes;
pub(crate) use region::{Region, sync};
pub(crate) use shard_cells::ShardCells;
