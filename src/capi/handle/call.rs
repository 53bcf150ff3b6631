//! Running the body of a function on a handle.

use std::ffi::c_int;

use super::{
    error::{CallError, CallResult, remember, status},
    nodes::Nodes,
    open::ucache,
    status::Status,
};
use crate::{capi::panic::guard, near::Tier};

/// Runs the body of a function.
pub(super) fn call(body: impl FnOnce() -> CallResult) -> c_int {
    let status = guard(None, || Some(status(body())));
    status.unwrap_or_else(|| {
        guard((), || remember("internal error (a bug in libucache); the log has the details".to_owned()));
        Status::Internal as c_int
    })
}

/// Runs the body of a function that works on a cache.
///
/// # Safety
/// `cache` is a handle, see [`super`].
pub(super) unsafe fn with_cache(cache: *mut ucache, body: impl FnOnce(&Tier) -> CallResult) -> c_int {
    // SAFETY: passed on.
    unsafe { with_nodes(cache, |engine, _| body(engine)) }
}

/// [`with_cache`] for a change, which is sent to the nodes of the cache.
///
/// # Safety
/// As [`with_cache`].
pub(super) unsafe fn with_nodes(cache: *mut ucache, body: impl FnOnce(&Tier, Nodes) -> CallResult) -> c_int {
    call(|| {
        // SAFETY: the caller vouches for the handle.
        let cache = unsafe { cache.as_ref() }.ok_or(CallError::Argument("the cache is NULL"))?;
        body(cache.tier(), cache.nodes())
    })
}
