//! Copies of 129 bytes and more on x86-64, in the way that suits the processor: by what CPUID says
//! it has, and by one measurement of what CPUID does not say.

use std::{
    arch::{
        asm,
        x86_64::{__cpuid_count, _mm_lfence, _rdtsc},
    },
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// From here on there are 32-byte vectors, where the processor has them.
const ENDS_FROM: usize = 128;
/// Up to here 32-byte vectors copy both ends, overlapping in the middle, without a loop.
const ENDS_TO: usize = 256;
/// From here on a load prefetches what it reads: a processor's own prefetching begins anew on each
/// page. What a store reads is private, and mostly in a cache.
const AHEAD_FROM: usize = 32 << 10;
/// From here on, without AVX2, `rep movsb` beats the loop of 16-byte vectors.
const STRING_FROM: usize = 1024;
/// From here on `rep movsb` also beats 32-byte vectors where it is fast for any two addresses: it
/// writes whole lines without reading them first.
const STRING_FROM_WITH_AVX: usize = 32 << 10;
/// Where the destination lies so few bytes above the source modulo 4096, or below, some
/// processors' `rep movsb` takes up to twenty times as long; an entry's value (32 bytes into its
/// span) is often that near to what malloc returns (16 into a page).
const ALIASED: usize = 128;
/// Stores of this many times the second-level cache bypass the caches. With a quarter of that, the
/// next reader of the value would lose more than the store gains.
const CACHES_STREAMED: usize = 8;

/// How a copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// 16-byte vectors.
    Sse,
    /// Both ends in 32-byte vectors: 128 to 256 bytes.
    Ends,
    /// 32-byte vectors: 256 bytes and more.
    Avx,
    /// The same, prefetching the source.
    Ahead,
    /// The same with stores that bypass the caches.
    Streaming,
    /// `rep movsb`.
    String,
}

/// Which side is the shared memory. Private memory is mostly in the caches, shared is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Load,
    Store,
}

/// What a copy needs to know of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Processor {
    pub(super) avx2: bool,
    /// `rep movsb` moves lines, not bytes (ERMS).
    pub(super) strings: bool,
    /// It does so for any two addresses.
    pub(super) any_address: bool,
    /// Bytes of the second-level cache.
    pub(super) l2: usize,
}

impl Processor {
    /// The way for `len` bytes whose destination lies `apart` bytes above the source.
    pub(super) fn way(self, side: Side, len: usize, apart: usize) -> Way {
        let aliased = !self.any_address && !(ALIASED..4096 - ALIASED).contains(&(apart & 4095));
        if self.avx2 && len >= ENDS_FROM {
            return match side {
                _ if len <= ENDS_TO => Way::Ends,
                _ if self.strings && self.any_address && len >= STRING_FROM_WITH_AVX => Way::String,
                Side::Store if len >= CACHES_STREAMED * self.l2 => Way::Streaming,
                Side::Load if len >= AHEAD_FROM => Way::Ahead,
                _ => Way::Avx,
            };
        }
        if self.strings && len >= STRING_FROM && !aliased { Way::String } else { Way::Sse }
    }

    /// This one. Asked once: a virtual machine's host answers CPUID. Without a lock, which a fork
    /// could leave taken.
    #[inline]
    pub(super) fn here() -> Self {
        static KNOWN: AtomicU64 = AtomicU64::new(0);
        let mut bits = KNOWN.load(Relaxed);
        if bits == 0 {
            bits = Self::ask().to_bits();
            KNOWN.store(bits, Relaxed);
        }
        Self::from_bits(bits)
    }

    fn to_bits(self) -> u64 {
        1 | u64::from(self.avx2) << 1
            | u64::from(self.strings) << 2
            | u64::from(self.any_address) << 3
            | (self.l2 as u64) << 4
    }

    #[inline]
    fn from_bits(bits: u64) -> Self {
        let has = |bit: u32| bits >> bit & 1 != 0;
        Self { avx2: has(1), strings: has(2), any_address: has(3), l2: (bits >> 4) as usize }
    }

    #[cold]
    fn ask() -> Self {
        // The size of the second-level cache, in KiB, has the same place for Intel and AMD.
        let kib = if leaf(0x8000_0000, 0)[0] >= 0x8000_0006 { leaf(0x8000_0006, 0)[2] >> 16 } else { 0 };
        let strings = leaf(0, 0)[0] >= 7 && leaf(7, 0)[1] >> 9 & 1 != 0;
        let avx2 = std::arch::is_x86_feature_detected!("avx2");
        // A machine that does not tell has the smallest that there is with AVX2.
        let l2 = (kib as usize).max(256) << 10;
        Self { avx2, strings, any_address: strings && avx2 && are_strings_fast_when_aliased(), l2 }
    }
}

/// EAX, EBX and ECX.
fn leaf(number: u32, part: u32) -> [u32; 3] {
    #[allow(unused_unsafe, reason = "newer compilers take it for safe")]
    // SAFETY: every processor of this architecture has the instruction; unknown leaves are harmless.
    let it = unsafe { __cpuid_count(number, part) };
    [it.eax, it.ebx, it.ecx]
}

/// Whether `rep movsb` is fast between addresses that are nearly the same modulo 4096; no bit of
/// CPUID tells. Zen 3 takes 20 times as long as with vectors there; others take 1 to 3 times as
/// long as with vectors. The best of some rounds: takes about 10 us.
fn are_strings_fast_when_aliased() -> bool {
    const LEN: usize = 2048;
    let source = [1_u8; LEN];
    let mut to = [0_u8; LEN + 4096];
    let at = (source.as_ptr().addr() + 16).wrapping_sub(to.as_ptr().addr()) & 4095;
    let mut best = [u64::MAX; 2];
    for round in 0..32 {
        let way = [Way::Avx, Way::String][round % 2];
        // SAFETY: `at` is below 4096, so `to` has `LEN` bytes from there on, as `source` has; the
        // caller saw that the processor has AVX2. Waiting for loads and counting cycles have no
        // other effect.
        let took = unsafe {
            let now = || {
                _mm_lfence();
                _rdtsc()
            };
            let start = now();
            copy(way, source.as_ptr(), to.as_mut_ptr().add(at), LEN);
            now().wrapping_sub(start)
        };
        best[round % 2] = best[round % 2].min(took);
    }
    best[1] < 8 * best[0]
}

/// # Safety
/// Both sides must be mapped for `len` bytes, `len >= 16`; they must not overlap.
#[inline(never)]
pub(super) unsafe fn copy_wide(side: Side, src: *const u8, dst: *mut u8, len: usize) {
    let here = Processor::here();
    // SAFETY: passed on; vectors of 32 bytes are chosen only where the processor has them and
    // `len` is enough.
    unsafe {
        // What `way` says of most lengths, without its other comparisons.
        if here.avx2 && (ENDS_FROM..AHEAD_FROM).contains(&len) {
            if len <= ENDS_TO { copy_both_ends(src, dst, len) } else { copy_avx(src, dst, len) }
        } else {
            copy(here.way(side, len, dst.addr().wrapping_sub(src.addr())), src, dst, len);
        }
    }
}

/// # Safety
/// As [`copy_wide`]; for all but [`Way::Sse`] and [`Way::String`] the processor has AVX2, and the
/// length is one that the way is for.
#[inline]
pub(super) unsafe fn copy(way: Way, src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: passed on.
    unsafe {
        match way {
            Way::Sse => copy_sse(src, dst, len),
            Way::Ends => copy_both_ends(src, dst, len),
            Way::Avx => copy_avx(src, dst, len),
            Way::Ahead => copy_ahead(src, dst, len),
            Way::Streaming => copy_streaming(src, dst, len),
            // The direction flag is clear in the ABI.
            Way::String => asm!("rep movsb", inout("rcx") len => _, inout("rsi") src => _,
                inout("rdi") dst => _, options(nostack, preserves_flags)),
        }
    }
}

/// # Safety
/// As [`copy_wide`].
unsafe fn copy_sse(src: *const u8, dst: *mut u8, len: usize) {
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
            super::move16(src.add(len - rest), dst.add(len - rest));
        }
        if rest > 0 {
            super::move16(src.add(len - 16), dst.add(len - 16));
        }
    }
}

/// # Safety
/// As [`copy_wide`], 128 to 256 bytes, on a CPU with AVX2.
unsafe fn copy_both_ends(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: 128 bytes are mapped from the start on and up to the end of both sides (contract).
    unsafe {
        asm!(
            "vmovdqu ymm0, [{s}]", "vmovdqu ymm1, [{s} + 32]",
            "vmovdqu ymm2, [{s} + 64]", "vmovdqu ymm3, [{s} + 96]",
            "vmovdqu ymm4, [{s} + {n} - 128]", "vmovdqu ymm5, [{s} + {n} - 96]",
            "vmovdqu ymm6, [{s} + {n} - 64]", "vmovdqu ymm7, [{s} + {n} - 32]",
            "vmovdqu [{d}], ymm0", "vmovdqu [{d} + 32], ymm1",
            "vmovdqu [{d} + 64], ymm2", "vmovdqu [{d} + 96], ymm3",
            "vmovdqu [{d} + {n} - 128], ymm4", "vmovdqu [{d} + {n} - 96], ymm5",
            "vmovdqu [{d} + {n} - 64], ymm6", "vmovdqu [{d} + {n} - 32], ymm7",
            "vzeroupper",
            s = in(reg) src, d = in(reg) dst, n = in(reg) len,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            options(nostack, preserves_flags)
        );
    }
}

/// A loop of 32-byte vectors: what it does first in each round, its store, and what it ends with.
macro_rules! vectors {
    ($name:ident, [$($first:literal),*], $store:literal, [$($last:literal),*]) => {
        /// # Safety
        /// As [`copy_wide`], `len >= 256`, on a CPU with AVX2.
        unsafe fn $name(src: *const u8, dst: *mut u8, len: usize) {
            // The first 32 bytes, up to the destination's next line of 32; whole rounds of 128 from
            // there; then the last 128 bytes once more, overlapping what is copied already.
            let ahead = 32 - (dst.addr() & 31);
            let rounds = (len - ahead) / 128;
            // SAFETY: ahead <= 32, ahead + rounds * 128 <= len, and len >= 256; a prefetch never
            // faults; vzeroupper leaves the registers as SSE code expects them.
            unsafe {
                asm!(
                    "vmovdqu ymm0, [{s}]",
                    "vmovdqu [{d}], ymm0",
                    "add {s}, {ahead}",
                    "add {d}, {ahead}",
                    "2:",
                    $($first,)*
                    "vmovdqu ymm0, [{s}]",
                    "vmovdqu ymm1, [{s} + 32]",
                    "vmovdqu ymm2, [{s} + 64]",
                    "vmovdqu ymm3, [{s} + 96]",
                    concat!($store, " [{d}], ymm0"),
                    concat!($store, " [{d} + 32], ymm1"),
                    concat!($store, " [{d} + 64], ymm2"),
                    concat!($store, " [{d} + 96], ymm3"),
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
                    $($last,)*
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
    };
}

vectors!(copy_avx, [], "vmovdqa", []);
vectors!(copy_ahead, ["prefetcht0 [{s} + 512]", "prefetcht0 [{s} + 576]"], "vmovdqa", []);
// Such stores are seen in any order: the fence puts them before the one that publishes the entry.
vectors!(copy_streaming, ["prefetcht0 [{s} + 512]", "prefetcht0 [{s} + 576]"], "vmovntdq", ["sfence"]);

#[cfg(test)]
#[path = "copy_wide_tests.rs"]
mod tests;
