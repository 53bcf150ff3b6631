//! No panic crosses into C: it becomes the function's failure value.

use std::{
    any::Any,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
};

use super::env;
use crate::os::cancel::Shield;

static LOGGED: AtomicBool = AtomicBool::new(false);

/// Runs `body`; a panic in it is logged (the first of the process) and the call gives `fail`.
pub(crate) fn guard<T>(fail: T, body: impl FnOnce() -> T) -> T {
    // A panic under a shard lock marks the shard for recovery (the engine's guards do), so nothing that a later
    // call can see is left half-made: unwind safety holds.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            report(payload);
            fail
        }
    }
}

/// [`guard`] for what may block: the calling thread is not cancelled in `body`, which calls no function of the program's.
pub(crate) fn shielded<T>(fail: T, body: impl FnOnce() -> T) -> T {
    guard(fail, || {
        let _shield = Shield::raise();
        body()
    })
}

#[cold]
fn report(payload: Box<dyn Any + Send>) {
    // A payload's destructor may panic in its turn, so it is never run.
    let payload = ManuallyDrop::new(payload);
    if LOGGED.swap(true, Ordering::Relaxed) {
        return;
    }
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    // The host's log function is foreign code: it must not bring the panic back.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        env::get().log(&format!("internal error: {text}; the call failed, further ones are not logged"));
    }));
}

#[cfg(test)]
mod tests {
    use super::guard;

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a payload that panics when dropped");
        }
    }

    #[test]
    fn a_panic_becomes_the_failure_value() {
        assert_eq!(guard(-1, || 7), 7);
        assert_eq!(guard(-1, || -> i32 { panic!("boom") }), -1);
        assert_eq!(guard(-1, || -> i32 { std::panic::panic_any(Bomb) }), -1);
    }
}
