//! Clocks.

use std::time::Duration;

/// Unix time, whole seconds (about 3 ns: the vDSO reads a word of the kernel's).
#[inline]
pub(crate) fn unix_secs() -> u64 {
    // SAFETY: time() with NULL writes nothing.
    let t = unsafe { libc::time(std::ptr::null_mut()) };
    u64::try_from(t).unwrap_or(0)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid place for one timespec.
    unsafe { libc::clock_gettime(clock, &raw mut ts) };
    Duration::new(u64::try_from(ts.tv_sec).unwrap_or(0), u32::try_from(ts.tv_nsec).unwrap_or(0))
}

/// Milliseconds since boot, at the kernel's tick (about 6 ns), the same for all processes of the host.
#[inline]
pub(crate) fn coarse_millis() -> u64 {
    u64::try_from(read(libc::CLOCK_MONOTONIC_COARSE).as_millis()).unwrap_or(u64::MAX)
}

/// Time since boot, the same for all processes of the host.
pub(crate) fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// A duration, or a time of one of the clocks, for a system call.
pub(super) fn timespec(t: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(t.subsec_nanos().cast_signed()),
    }
}
