//! Clocks.

use std::time::Duration;

/// Unix time in whole seconds, at the kernel's tick (about 3 ns: the vDSO reads one word). It is behind
/// [`unix_secs`] for up to 10 ms of each second, longer where a hypervisor delays the tick: not for
/// expiries.
#[inline]
pub(crate) fn coarse_unix_secs() -> u64 {
    // SAFETY: time() with NULL writes nothing.
    let t = unsafe { libc::time(std::ptr::null_mut()) };
    u64::try_from(t).unwrap_or(0)
}

#[inline]
fn timespec_of(clock: libc::clockid_t) -> libc::timespec {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid place for one timespec.
    unsafe { libc::clock_gettime(clock, &raw mut ts) };
    ts
}

/// Whole milliseconds; 0 for a time before the clock's begin.
#[inline]
fn millis_of(time: libc::timespec) -> u64 {
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    secs.wrapping_mul(1000).wrapping_add(time.tv_nsec.cast_unsigned() / 1_000_000)
}

fn read(clock: libc::clockid_t) -> Duration {
    let ts = timespec_of(clock);
    Duration::new(u64::try_from(ts.tv_sec).unwrap_or(0), u32::try_from(ts.tv_nsec).unwrap_or(0))
}

/// Unix time, milliseconds (about 25 ns).
pub(crate) fn unix_millis() -> u64 {
    millis_of(timespec_of(libc::CLOCK_REALTIME))
}

/// Unix time in whole seconds (about 25 ns), as expiries count them.
pub(crate) fn unix_secs() -> u64 {
    u64::try_from(timespec_of(libc::CLOCK_REALTIME).tv_sec).unwrap_or(0)
}

/// Whether a Unix time, milliseconds, is still to come. The coarse seconds tell while it is more
/// than one away.
#[inline(always)]
pub(crate) fn is_ahead(millis: u64) -> bool {
    let second = coarse_unix_secs() * 1000;
    second + 2000 <= millis || is_ahead_to_the_millisecond(second, millis)
}

#[inline(never)]
fn is_ahead_to_the_millisecond(second: u64, millis: u64) -> bool {
    second < millis && unix_millis() < millis
}

/// Milliseconds since boot at the kernel's tick resolution (about 6 ns), the same for all processes
/// of the host.
#[inline]
pub(crate) fn coarse_millis() -> u64 {
    millis_of(timespec_of(libc::CLOCK_MONOTONIC_COARSE))
}

/// Milliseconds since boot (about 25 ns). [`coarse_millis`] is behind it: by a tick, or by more where
/// a hypervisor delays the kernel's timer.
#[cfg(feature = "redis")]
pub(crate) fn millis() -> u64 {
    millis_of(timespec_of(libc::CLOCK_MONOTONIC))
}

/// Time since boot, the same for all processes of the host.
pub(crate) fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// Converts a duration, or a time of one of the clocks, for a system call.
pub(super) fn timespec(t: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(t.subsec_nanos().cast_signed()),
    }
}
