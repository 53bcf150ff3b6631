//! The definition of a cache, `cache2 = name=...,items=...`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The parser itself holds what must be true of a definition that it accepts.
    let _ = ucache::capi::host::check_definition(data);
});
