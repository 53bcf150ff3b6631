//! SIMD comparison of all tags of a bucket, as in a SwissTable.

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether [`match_tag`] may use AVX-512's comparisons, of 256 bits at a time: those do not make
/// any processor slower.
pub(super) fn compares_wide() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl");
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    false
}

/// Which of the eight words at `line`, but for the first, have `tag` as their high 16 bits: bit `4
/// n + 3` for word `n`.
///
/// # Safety
/// `line` must be 64-aligned with 64 bytes mapped; `wide` is [`compares_wide`]'s answer, or false.
#[inline(always)]
pub(super) unsafe fn match_tag(line: *const u8, tag: u16, wide: bool) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the contract is passed on.
    return unsafe { if wide { match_tag_avx512(line, tag) } else { match_tag_sse2(line, tag) } };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    (1..8).fold(0, |mask, i| {
        let _ = wide;
        // SAFETY: word `i` is mapped and aligned (contract).
        let w = unsafe { AtomicU64::from_ptr(line.cast_mut().cast::<u64>().add(i)) }.load(Ordering::Relaxed);
        mask | u32::from(w >> 48 == u64::from(tag)) << (4 * i + 3)
    })
}

/// [`match_tag`] in five instructions. Registers above the fifteenth have no upper halves that
/// would have to be cleared.
///
/// # Safety
/// As [`match_tag`], on a CPU with AVX-512's BW and VL.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn match_tag_avx512(line: *const u8, tag: u16) -> u32 {
    let same: u32;
    // SAFETY: reads the 64 mapped and aligned bytes (contract).
    unsafe {
        std::arch::asm!(
            "vpbroadcastw ymm16, {tag:e}",
            "vpcmpeqw k1, ymm16, [{p}]",
            "vpcmpeqw k2, ymm16, [{p} + 32]",
            "kunpckwd k1, k2, k1",
            "kmovd {same:e}, k1",
            p = in(reg) line, tag = in(reg) u32::from(tag), same = out(reg) same,
            out("xmm16") _, out("k1") _, out("k2") _, options(nostack, preserves_flags, readonly)
        );
    }
    same & 0x8888_8880
}

/// [`match_tag`] for all words at once: no branch depends on where the tag is.
///
/// # Safety
/// As [`match_tag`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn match_tag_sse2(line: *const u8, tag: u16) -> u32 {
    use std::arch::{asm, x86_64::*};
    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: reads the 64 mapped and aligned bytes (contract); SSE2 is part of x86-64.
    unsafe {
        asm!(
            "movdqa {a}, [{p}]",
            "movdqa {b}, [{p} + 16]",
            "movdqa {c}, [{p} + 32]",
            "movdqa {d}, [{p} + 48]",
            p = in(reg) line, a = out(xmm_reg) a, b = out(xmm_reg) b, c = out(xmm_reg) c, d = out(xmm_reg) d,
            options(nostack, preserves_flags, readonly)
        );
        let want = _mm_set1_epi16(tag.cast_signed());
        let same = |v| _mm_cmpeq_epi16(v, want);
        // A byte for each 16 bits; the fourth of a word is its high end.
        let low = _mm_movemask_epi8(_mm_packs_epi16(same(a), same(b))) & 0x8880;
        let high = _mm_movemask_epi8(_mm_packs_epi16(same(c), same(d))) & 0x8888;
        (low | high << 16).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_every_place() {
        #[repr(align(64))]
        struct Line([u64; 8]);
        for set in 0..256u32 {
            let mut line = Line([0x1234_0000_0000_5678; 8]);
            for i in (0..8).filter(|i| set >> i & 1 != 0) {
                line.0[i] = 0xABCD_1234_5678_ABCD;
            }
            let want = (1..8).fold(0, |mask, i| mask | (set >> i & 1) << (4 * i + 3));
            // SAFETY: a line is aligned and has 64 bytes.
            let found = |wide| unsafe { match_tag(line.0.as_ptr().cast(), 0xABCD, wide) };
            assert_eq!((found(false), found(compares_wide())), (want, want));
        }
    }
}
