//! Copies between private memory and shared memory that other processes may write at the same time
//! (I13).
//!
//! A plain copy of such memory would be a data race. Here it is either relaxed atomic words, or
//! inline assembly, which the compiler must treat as opaque (as in the Linux kernel; see
//! rust-lang/rfcs#3301, `AtomicPerByte`). A reader checks the bucket's sequence number afterwards
//! and throws a torn copy away.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[path = "copy_wide.rs"]
mod wide;

#[cfg(all(target_arch = "x86_64", not(miri)))]
use wide::{Side, copy_wide};

/// Finds out how this processor copies, so that no write does so under a lock.
pub(super) fn learn_processor() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    wide::Processor::here();
}

/// Copies `len` bytes out of shared memory.
///
/// # Safety
/// `src` must be 8-aligned with `len` rounded up to 8 bytes mapped; `dst` must be valid for writes
/// of `len` bytes and private to the caller.
#[inline]
pub(super) unsafe fn load(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= 16 {
        // SAFETY: the caller's contract covers exactly `len` bytes on both sides.
        unsafe { if len <= 128 { copy_ends(src, dst, len) } else { copy_wide(Side::Load, src, dst, len) } };
        return;
    }
    let words = src.cast_mut().cast::<u64>();
    for i in 0..len / 8 {
        // SAFETY: word `i` is mapped and aligned (contract); `dst` has room for it.
        unsafe {
            let w = AtomicU64::from_ptr(words.add(i)).load(Ordering::Relaxed);
            dst.add(i * 8).copy_from_nonoverlapping(w.to_ne_bytes().as_ptr(), 8);
        }
    }
    if !len.is_multiple_of(8) {
        // SAFETY: the last word is mapped whole (contract); only the bytes asked for are written.
        unsafe {
            let w = AtomicU64::from_ptr(words.add(len / 8)).load(Ordering::Relaxed);
            dst.add(len & !7).copy_from_nonoverlapping(w.to_ne_bytes().as_ptr(), len % 8);
        }
    }
}

/// Copies `len` bytes into shared memory that no reader can reach yet (a stale reader may still
/// look).
///
/// # Safety
/// `dst` must be 8-aligned with `len` rounded up to 8 bytes mapped, and owned by the caller for
/// writing; `src` must be valid for reads of `len` bytes.
#[inline(always)]
pub(super) unsafe fn store(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= 16 {
        // SAFETY: the caller's contract covers exactly `len` bytes on both sides.
        unsafe { if len <= 128 { copy_ends(src, dst, len) } else { copy_wide(Side::Store, src, dst, len) } };
        return;
    }
    // SAFETY: passed on.
    unsafe { store_words(src, dst, len) };
}

/// [`store`] of what is mostly short: 16 to 32 bytes need two comparisons.
///
/// # Safety
/// As [`store`].
#[inline(always)]
pub(super) unsafe fn store_short(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if (16..=32).contains(&len) {
        // SAFETY: the first 16 bytes and the last (contract).
        unsafe { copy_two(src, dst, len) };
        return;
    }
    // SAFETY: passed on.
    unsafe { store(src, dst, len) };
}

/// [`store`] word by word.
///
/// # Safety
/// As [`store`].
#[inline(never)]
unsafe fn store_words(src: *const u8, dst: *mut u8, len: usize) {
    let words = dst.cast::<u64>();
    let mut i = 0;
    while i < len {
        let mut w = [0u8; 8];
        let n = (len - i).min(8);
        // SAFETY: `n` bytes from `i` are readable; word `i / 8` is mapped, aligned and ours
        // (contract).
        unsafe {
            w.as_mut_ptr().copy_from_nonoverlapping(src.add(i), n);
            AtomicU64::from_ptr(words.add(i / 8)).store(u64::from_ne_bytes(w), Ordering::Relaxed);
        }
        i += 8;
    }
}

/// Eight bytes of shared memory, of one word or of two: in the latter case one may be older than
/// the other.
///
/// # Safety
/// The words must be mapped.
#[inline(always)]
pub(super) unsafe fn peek(at: *const u8) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let bytes: u64;
        // SAFETY: reads 8 mapped bytes (contract).
        unsafe {
            std::arch::asm!("mov {}, qword ptr [{}]", out(reg) bytes, in(reg) at,
                options(nostack, preserves_flags, readonly));
        }
        bytes
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        let (first, shift) = (at.wrapping_sub(at.addr() & 7), 8 * (at.addr() & 7) as u32);
        // SAFETY: a mapped and aligned word (contract).
        let word =
            |at: *const u8| unsafe { AtomicU64::from_ptr(at.cast_mut().cast()) }.load(Ordering::Relaxed);
        if shift == 0 {
            return word(first);
        }
        let both = u128::from(word(first).to_le()) | u128::from(word(first.wrapping_add(8)).to_le()) << 64;
        u64::from_le((both >> shift) as u64)
    }
}

/// Prefetches a cache line.
#[inline(always)]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch accesses no memory architecturally and never faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Prefetches 1 to 3 cache lines for writing: other cores give up their copies now, not at the
/// store.
#[inline(always)]
pub(super) fn prefetch_to_write<const LINES: u8>(at: *const u8) {
    const { assert!(LINES >= 1 && LINES <= 3) };
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch accesses no memory architecturally and never faults, whatever the address;
    // a CPU that does not know this one takes it for no operation.
    unsafe {
        use std::arch::asm;
        asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
        if LINES > 1 {
            asm!("prefetchw [{} + 64]", in(reg) at, options(nostack, preserves_flags, readonly));
        }
        if LINES > 2 {
            asm!("prefetchw [{} + 128]", in(reg) at, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Both ends, overlapping in the middle: no loop.
///
/// # Safety
/// Both sides must be mapped for `len` bytes, 16 to 128; they must not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn copy_ends(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: each piece lies within `len` bytes: 16 or more, and 32 or 64 or more where so many
    // are copied at an end.
    unsafe {
        if len > 64 {
            move_ends_of_64(src, dst, len);
        } else if len > 32 {
            move16(src, dst);
            move16(src.add(16), dst.add(16));
            move16(src.add(len - 32), dst.add(len - 32));
            move16(src.add(len - 16), dst.add(len - 16));
        } else {
            copy_two(src, dst, len);
        }
    }
}

/// The first 16 bytes and the last.
///
/// # Safety
/// Both sides must be mapped for `len` bytes, 16 to 32; they must not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn copy_two(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: both pieces lie within `len` bytes (contract).
    unsafe {
        move16(src, dst);
        move16(src.add(len - 16), dst.add(len - 16));
    }
}

/// The first 64 bytes and the last.
///
/// # Safety
/// Both sides must be mapped for `len` bytes, 64 or more.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn move_ends_of_64(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: 64 bytes are mapped from the start on and up to the end of both sides (contract).
    unsafe {
        std::arch::asm!(
            "movdqu {a}, [{s}]", "movdqu {b}, [{s} + 16]", "movdqu {c}, [{s} + 32]", "movdqu {e}, [{s} + 48]",
            "movdqu {f}, [{s} + {n} - 64]", "movdqu {g}, [{s} + {n} - 48]",
            "movdqu {h}, [{s} + {n} - 32]", "movdqu {i}, [{s} + {n} - 16]",
            "movdqu [{d}], {a}", "movdqu [{d} + 16], {b}", "movdqu [{d} + 32], {c}", "movdqu [{d} + 48], {e}",
            "movdqu [{d} + {n} - 64], {f}", "movdqu [{d} + {n} - 48], {g}",
            "movdqu [{d} + {n} - 32], {h}", "movdqu [{d} + {n} - 16], {i}",
            s = in(reg) src, d = in(reg) dst, n = in(reg) len, a = out(xmm_reg) _, b = out(xmm_reg) _,
            c = out(xmm_reg) _, e = out(xmm_reg) _, f = out(xmm_reg) _, g = out(xmm_reg) _, h = out(xmm_reg) _,
            i = out(xmm_reg) _, options(nostack, preserves_flags));
    }
}

/// # Safety
/// Both sides must be mapped for 16 bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn move16(src: *const u8, dst: *mut u8) {
    // SAFETY: 16 bytes are mapped on both sides (contract).
    unsafe {
        std::arch::asm!("movdqu {a}, [{s}]", "movdqu [{d}], {a}", s = in(reg) src, d = in(reg) dst,
            a = out(xmm_reg) _, options(nostack, preserves_flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length_exactly() {
        for len in (1..300).chain([1023, 1024, 1025, 4096, 70_001, 6_000_001]) {
            let src: Vec<u8> = (0..len).map(|i| (i * 7 + 3) as u8).collect();
            let mut shared = vec![u64::MAX; len / 8 + 2];
            let guard = 0xEEu8;
            let mut dst = vec![guard; len + 16];
            let p = shared.as_mut_ptr().cast::<u8>();
            // SAFETY: `shared` is aligned and longer than len rounded up; `dst` has len + 16 bytes.
            unsafe { store(src.as_ptr(), p, len) };
            // Looked at by itself: a fault of the load could undo one of the store.
            let stored: Vec<u8> = shared.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(&stored[..len], &src[..], "length {len}");
            assert!(
                stored[len.next_multiple_of(8)..].iter().all(|&b| b == 0xFF),
                "length {len} wrote too much"
            );
            // SAFETY: as above.
            unsafe { load(shared.as_ptr().cast(), dst.as_mut_ptr(), len) };
            assert_eq!(&dst[..len], &src[..], "length {len}");
            assert!(dst[len..].iter().all(|&b| b == guard), "length {len} wrote past its end");
        }
    }
}
