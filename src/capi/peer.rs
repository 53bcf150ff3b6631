//! Where the local half of the C surface meets the network half: caches of other servers, and word to the nodes.

pub(super) use super::remote::{
    client::{clear, del, exists, get, set},
    live::{start, tell_clear, tell_del, tell_kept, tell_set},
};
