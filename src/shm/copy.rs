//! Copies between private memory and shared memory that other processes may write at the same time
//! (I13).
//!
//! A plain copy of such memory would be a data race. Here it is either relaxed atomic words, or
//! inline assembly, which the compiler must treat as opaque (as in the Linux kernel; see
//! rust-lang/rfcs#3301, `AtomicPerByte`). A reader checks the bucket's sequence number afterwards
//! and throws a torn copy away.

use std::sync::atomic::{AtomicU64, Ordering};

/// From here on the loop of 32-byte vectors beats that of 16-byte ones, with its head and tail.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const AVX_FROM: usize = 256;
/// From here on `rep movsb` beats the loop of 16-byte vectors.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const MOVSB_FROM: usize = 1024;
/// From here on, on Intel's processors, `rep movsb` also beats 32-byte vectors: it writes whole
/// lines without reading them first.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const MOVSB_FROM_ON_INTEL: usize = 32 << 10;
/// Except where source and destination differ by so few bytes modulo 4096: AMD's `rep movsb` then
/// takes up to five times as long, and an entry's value (32 bytes into its span) is often that near
/// to what malloc returns (16 into a page).
#[cfg(all(target_arch = "x86_64", not(miri)))]
const ALIASED: usize = 128;

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
        unsafe { if len <= 128 { copy_ends(src, dst, len) } else { copy_wide(src, dst, len) } };
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
    if (16..=128).contains(&len) {
        // SAFETY: the caller's contract covers exactly `len` bytes on both sides.
        unsafe { copy_ends(src, dst, len) };
        return;
    }
    // SAFETY: passed on.
    unsafe { store_other(src, dst, len) };
}

/// [`store`] of other lengths.
///
/// # Safety
/// As [`store`].
#[inline(never)]
unsafe fn store_other(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= 16 {
        // SAFETY: the caller's contract covers exactly `len` bytes on both sides.
        unsafe { if len <= 128 { copy_ends(src, dst, len) } else { copy_wide(src, dst, len) } };
        return;
    }
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

/// # Safety
/// Both sides must be mapped for `len` bytes, `len >= 16`; they must not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(never)]
unsafe fn copy_wide(src: *const u8, dst: *mut u8, len: usize) {
    use std::arch::asm;
    let by_string = len >= MOVSB_FROM_ON_INTEL && is_intel();
    if len >= AVX_FROM && !by_string && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the contract is passed on; the CPU has AVX2 and `len` is enough.
        unsafe { copy_avx(src, dst, len) };
        return;
    }
    let apart = (dst.addr().wrapping_sub(src.addr())) & 4095;
    if by_string || len >= MOVSB_FROM && (ALIASED..4096 - ALIASED).contains(&apart) {
        // SAFETY: copies exactly `len` bytes (contract); the direction flag is clear in the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rsi") src => _, inout("rdi") dst => _,
                options(nostack, preserves_flags));
        }
        return;
    }
    // 32 bytes a round, then the last 16 or 32 bytes once more, overlapping what is copied already.
    let rounds = len / 32;
    // SAFETY: rounds * 32 <= len; the tail reads and writes [len - 16, len) and, for a rest above
    // 16, the 16 before.
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

/// Whether the processor is one of Intel's with fast string moves (leaf 7, EBX bit 9). Asked once:
/// a virtual machine's host answers. Without a lock, which a fork could leave taken.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn is_intel() -> bool {
    use std::{
        arch::x86_64::{__cpuid, __cpuid_count},
        sync::atomic::AtomicU8,
    };
    static ANSWER: AtomicU8 = AtomicU8::new(0);
    match ANSWER.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: every processor of this architecture has the instruction; leaf 7 is asked for
            // where there is one.
            #[allow(unused_unsafe, reason = "newer compilers take it for safe")]
            let (first, seventh) = unsafe {
                let first = __cpuid(0);
                (first, if first.eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 })
            };
            let name = [first.ebx, first.edx, first.ecx].map(u32::to_le_bytes);
            let is = name.as_flattened() == b"GenuineIntel" && seventh >> 9 & 1 != 0;
            ANSWER.store(1 + u8::from(is), Ordering::Relaxed);
            is
        }
        answer => answer == 2,
    }
}

/// # Safety
/// As [`copy_wide`], `len >= AVX_FROM`, on a CPU with AVX2.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_avx(src: *const u8, dst: *mut u8, len: usize) {
    // The first 32 bytes, up to the destination's next line of 32; whole rounds of 128 from there;
    // then the last 128 bytes once more, overlapping what is copied already.
    let ahead = 32 - (dst.addr() & 31);
    let rounds = (len - ahead) / 128;
    // SAFETY: ahead <= 32, ahead + rounds * 128 <= len, and len >= 256; vzeroupper leaves the
    // registers as SSE code expects them.
    unsafe {
        std::arch::asm!(
            "vmovdqu ymm0, [{s}]",
            "vmovdqu [{d}], ymm0",
            "add {s}, {ahead}",
            "add {d}, {ahead}",
            "2:",
            "vmovdqu ymm0, [{s}]",
            "vmovdqu ymm1, [{s} + 32]",
            "vmovdqu ymm2, [{s} + 64]",
            "vmovdqu ymm3, [{s} + 96]",
            "vmovdqa [{d}], ymm0",
            "vmovdqa [{d} + 32], ymm1",
            "vmovdqa [{d} + 64], ymm2",
            "vmovdqa [{d} + 96], ymm3",
            "sub {s}, -128",
            "sub {d}, -128",
            "dec {n}",
            "jnz 2b",
            "vmovdqu ymm0, [{s_end} - 128]",
            "vmovdqu ymm1, [{s_end} - 96]",
            "vmovdqu ymm2, [{s_end} - 64]",
            "vmovdqu ymm3, [{s_end} - 32]",
            "vmovdqu [{d_end} - 128], ymm0",
            "vmovdqu [{d_end} - 96], ymm1",
            "vmovdqu [{d_end} - 64], ymm2",
            "vmovdqu [{d_end} - 32], ymm3",
            "vzeroupper",
            s = inout(reg) src => _,
            d = inout(reg) dst => _,
            n = inout(reg) rounds => _,
            ahead = in(reg) ahead,
            s_end = in(reg) src.add(len),
            d_end = in(reg) dst.add(len),
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            options(nostack)
        );
    }
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
            move16(src, dst);
            move16(src.add(len - 16), dst.add(len - 16));
        }
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
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[allow(clippy::disallowed_macros, reason = "a test that is skipped says so")]
    fn vectors_copy_exactly_from_and_to_anywhere() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            // The other copies are in use then; the next test covers them.
            eprintln!("no AVX2: its copy is not tested");
            return;
        }
        let src: Vec<u8> = (0..9000u32).map(|i| (i * 31 / 7) as u8).collect();
        for (from, to) in (0..64).flat_map(|i| [(i, 0), (0, i), (i, 64 - i)]) {
            for len in (AVX_FROM..AVX_FROM + 260).chain([4096, 8191]) {
                let mut dst = vec![0xEE_u8; to + len + 64];
                // SAFETY: both vectors have `len` bytes from there on; lengths are at least
                // AVX_FROM.
                unsafe { copy_avx(src.as_ptr().add(from), dst.as_mut_ptr().add(to), len) };
                assert_eq!(&dst[to..to + len], &src[from..from + len], "{from} {to} {len}");
                assert!(dst[..to].iter().chain(&dst[to + len..]).all(|&b| b == 0xEE), "{from} {to} {len}");
            }
        }
    }

    #[test]
    fn copies_every_length_exactly() {
        for len in (1..300).chain([1023, 1024, 1025, 4096, 70_001]) {
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
