//! Keeps panics from crossing into C: they become the function's failure value.

use std::{
    any::Any,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    capi::host::env,
    os::{cancel::Shield, worker},
};

static LOGGED: AtomicBool = AtomicBool::new(false);

/// Runs `body`; if it panics, returns `fail` and logs the panic (only the first of the process).
pub(crate) fn guard<T>(fail: T, body: impl FnOnce() -> T) -> T {
    // A panic under a shard lock marks the shard for recovery (the engine's guards), so later calls
    // see no inconsistent state: unwind safety holds.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            report(payload);
            fail
        }
    }
}

/// [`guard`] for calls that may block: the calling thread cannot be cancelled in `body`, which
/// calls no function of the program.
pub(crate) fn shielded<T>(fail: T, body: impl FnOnce() -> T) -> T {
    guard(fail, || {
        let _shield = Shield::raise();
        body()
    })
}

/// Starts a thread with all signals blocked; a panic ends it and is logged.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    worker::spawn(name, move || guard((), body))
}

/// Logs a panic if it is the first of the process.
#[cold]
pub(crate) fn report(payload: Box<dyn Any + Send>) {
    // A payload's destructor may panic, too, so it is never run.
    let payload = ManuallyDrop::new(payload);
    if LOGGED.swap(true, Ordering::Relaxed) {
        return;
    }
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    // The host's log function is foreign code, whose panic must not escape either.
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
