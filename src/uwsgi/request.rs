//! Requests of the cache protocol (modifier1 111).

use std::ffi::c_int;

use super::raw;

/// Serves one request; the host has read its head.
pub(crate) fn handle(_request: *mut raw::wsgi_request) -> c_int {
    0
}
