//! Copies between private memory and memory that other processes may be writing at the same time.
//!
//! A plain copy of such memory would be a data race. Here it is either relaxed atomic words, or inline assembly,
//! which the compiler must treat as opaque (the choice of the Linux kernel and of RFC 3301's discussion). A reader
//! checks the bucket's version afterwards and throws a torn copy away.

use std::sync::atomic::{AtomicU64, Ordering};

/// From here on `rep movsb` beats the vector loop on CPUs with fast short moves.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const MOVSB_FROM: usize = 1024;

/// Copies `len` bytes out of shared memory.
///
/// # Safety
/// `src` must be 8-aligned with `len` rounded up to 8 bytes mapped; `dst` must be valid for writes of `len` bytes
/// and private to the caller.
#[inline]
pub(super) unsafe fn load(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= 16 {
        // SAFETY: the caller's contract covers exactly `len` bytes on both sides.
        unsafe { copy_wide(src, dst, len) };
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

/// Copies `len` bytes into shared memory that no reader can reach yet (a stale reader may still look).
///
/// # Safety
/// `dst` must be 8-aligned with `len` rounded up to 8 bytes mapped, and owned by the caller for writing; `src` must be
/// valid for reads of `len` bytes.
#[inline]
pub(super) unsafe fn store(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= 16 {
        // SAFETY: the caller's contract covers exactly `len` bytes on both sides.
        unsafe { copy_wide(src, dst, len) };
        return;
    }
    let words = dst.cast::<u64>();
    let mut i = 0;
    while i < len {
        let mut w = [0u8; 8];
        let n = (len - i).min(8);
        // SAFETY: `n` bytes from `i` are readable; word `i / 8` is mapped, aligned and ours (contract).
        unsafe {
            w.as_mut_ptr().copy_from_nonoverlapping(src.add(i), n);
            AtomicU64::from_ptr(words.add(i / 8)).store(u64::from_ne_bytes(w), Ordering::Relaxed);
        }
        i += 8;
    }
}

/// # Safety
/// Both sides must be mapped for `len` bytes, `len >= 16`; they must not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy_wide(src: *const u8, dst: *mut u8, len: usize) {
    use std::arch::asm;
    if len >= MOVSB_FROM {
        // SAFETY: copies exactly `len` bytes (contract); the direction flag is clear in the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rsi") src => _, inout("rdi") dst => _,
                options(nostack, preserves_flags));
        }
        return;
    }
    // 32 bytes a round, then the last 16 or 32 bytes once more, overlapping what is copied already.
    let rounds = len / 32;
    // SAFETY: rounds * 32 <= len; the tail reads and writes [len - 16, len) and, for a rest above 16, the 16 before.
    unsafe {
        asm!(
            "test {n}, {n}",
            "jz 3f",
            "2:",
            "movdqu {a}, [{s}]",
            "movdqu {b}, [{s} + 16]",
            "movdqu [{d}], {a}",
            "movdqu [{d} + 16], {b}",
            "add {s}, 32",
            "add {d}, 32",
            "dec {n}",
            "jnz 2b",
            "3:",
            n = inout(reg) rounds => _,
            s = inout(reg) src => _,
            d = inout(reg) dst => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            options(nostack)
        );
        let rest = len % 32;
        if rest > 16 {
            move16(src.add(len - rest), dst.add(len - rest));
        }
        if rest > 0 {
            move16(src.add(len - 16), dst.add(len - 16));
        }
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
        for len in (1..300).chain([1023, 1024, 1025, 4096, 70_001]) {
            let src: Vec<u8> = (0..len).map(|i| (i * 7 + 3) as u8).collect();
            let mut shared = vec![0u64; len / 8 + 2];
            let guard = 0xEEu8;
            let mut dst = vec![guard; len + 16];
            let p = shared.as_mut_ptr().cast::<u8>();
            // SAFETY: `shared` is aligned and longer than len rounded up; `dst` has len + 16 bytes.
            unsafe {
                store(src.as_ptr(), p, len);
                load(p, dst.as_mut_ptr(), len);
            }
            assert_eq!(&dst[..len], &src[..], "length {len}");
            assert!(dst[len..].iter().all(|&b| b == guard), "length {len} wrote past its end");
        }
    }
}
