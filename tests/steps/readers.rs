//! Readers that are stopped between two of their instructions.

use ucache::engine::{Engine, Touch};

use crate::{
    engine_step::Stepped,
    engine_value::{self, read},
};

/// Stops a reader of `key` after so many instructions, and lets it go on after `meanwhile`. `check`
/// gets what it finds. `false` = it had ended before.
pub(super) fn stopped(
    engine: &Engine,
    instructions: u64,
    key: &[u8],
    check: impl Fn(Option<Vec<u8>>),
    meanwhile: impl FnOnce(),
) -> bool {
    let warm_up = || drop(engine_value::get(engine, b"warm up", Touch::No));
    let get = || check(engine_value::get(engine, key, Touch::No).expect("get").map(|(_, bytes)| bytes));
    let mut reader = Stepped::new(warm_up, get);
    let inside = (0..instructions).all(|_| reader.step());
    if inside {
        meanwhile();
        reader.finish();
    }
    reader.kill();
    inside
}

/// Checks that these bytes are the first value of a key, whole.
pub(super) fn assert_first(key: u32, len: usize, bytes: &[u8]) {
    let stamp = read(key, bytes).unwrap_or_else(|fault| panic!("{fault:?}: {bytes:?}"));
    assert!(stamp.seq == 1 && bytes.len() == len, "{stamp:?}");
}
