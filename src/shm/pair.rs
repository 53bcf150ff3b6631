//! Two words that are exchanged together, without a lock: what numbers are made of
//! ([`number`](super::number)).

use std::sync::atomic::AtomicU64;

/// Whether the processor can exchange 16 bytes. Elsewhere numbers have no lives, and change under
/// the lock.
pub(super) fn exchanges_pairs() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return std::arch::is_x86_feature_detected!("cmpxchg16b");
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    return aarch64::learn_processor();
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    false
}

/// The two words.
#[derive(Debug)]
#[repr(align(16))]
pub(super) struct Pair(pub(super) [AtomicU64; 2]);

impl Pair {
    /// Stores `new` in the first word if both are as expected; else returns what they are, and has
    /// stored nothing. The ordering is `order::number::CHANGE`.
    ///
    /// Each word returned was there, but on ARM not necessarily both at the same moment: a caller
    /// may conclude from one of them, or try again.
    ///
    /// # Safety
    /// [`exchanges_pairs`] has returned `true`.
    #[inline(always)]
    pub(super) unsafe fn exchange(&self, expected: (u64, u64), new: u64) -> Option<(u64, u64)> {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: the processor has the instruction (contract).
        return unsafe { self.exchange_x86_64(expected, new) };
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        return aarch64::exchange(self, expected, new);
        #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
        {
            // No number has a life here: what looks like one is damage, and is as good as ended.
            let _ = new;
            Some((expected.0, !expected.1))
        }
    }

    /// # Safety
    /// The processor has `cmpxchg16b`.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    unsafe fn exchange_x86_64(&self, (first, second): (u64, u64), new: u64) -> Option<(u64, u64)> {
        let (mut low, mut high, mut done) = (first, second, new);
        // SAFETY: the words are mapped and 16-aligned (the type), and the processor has the
        // instruction (contract). `rbx` belongs to the compiler: it is as before afterwards.
        unsafe {
            std::arch::asm!(
                "xchg {done}, rbx",
                "lock cmpxchg16b xmmword ptr [{at}]",
                "mov rbx, {done}",
                "sete {done:l}",
                at = in(reg) self.0.as_ptr(), done = inout(reg) done,
                inout("rax") low, inout("rdx") high, in("rcx") second,
                options(nostack)
            );
        }
        if done as u8 != 0 { None } else { Some((low, high)) }
    }
}

/// 64-bit ARM: one instruction since 8.1 (LSE), before that an exclusive load and store.
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod aarch64 {
    use std::arch::{asm, is_aarch64_feature_detected};

    use super::Pair;

    /// Every processor can exchange a pair. What the standard library finds out about this one, it
    /// keeps: now, so that it opens no file later, under a lock (I12).
    pub(super) fn learn_processor() -> bool {
        let _ = is_aarch64_feature_detected!("lse");
        true
    }

    /// See [`Pair::exchange`].
    #[inline(always)]
    pub(super) fn exchange(pair: &Pair, expected: (u64, u64), new: u64) -> Option<(u64, u64)> {
        let seen = if is_aarch64_feature_detected!("lse") {
            // SAFETY: the processor has LSE.
            unsafe { exchange_lse(pair, expected, new) }
        } else {
            exchange_exclusive(pair, expected, new)
        };
        if seen == expected { None } else { Some(seen) }
    }

    /// Returns what was there; `expected` = `new` was stored.
    ///
    /// # Safety
    /// The processor has LSE.
    #[inline(always)]
    pub(super) unsafe fn exchange_lse(pair: &Pair, (first, second): (u64, u64), new: u64) -> (u64, u64) {
        let (low, high);
        // SAFETY: the words are mapped and 16-aligned (the type), and the processor has the
        // instruction (contract).
        unsafe {
            asm!(
                // The crate is compiled for processors without it.
                ".arch_extension lse",
                "caspal x4, x5, x6, x7, [{at}]",
                at = in(reg) pair.0.as_ptr(),
                // A pair of registers begins with an even one.
                inout("x4") first => low, inout("x5") second => high,
                in("x6") new, in("x7") second,
                options(nostack, preserves_flags)
            );
        }
        (low, high)
    }

    /// As [`exchange_lse`] on any processor.
    ///
    /// Only a store that succeeds proves that both words were loaded at one moment. If they differ
    /// from what is expected, nothing is stored to prove it: nobody needs that (`Pair::exchange`).
    #[inline(always)]
    pub(super) fn exchange_exclusive(pair: &Pair, (first, second): (u64, u64), new: u64) -> (u64, u64) {
        let (low, high);
        // SAFETY: the words are mapped and 16-aligned (the type). All within one block: an access
        // that the compiler puts between load and store could let every store fail.
        unsafe {
            asm!(
                "2:",
                "ldaxp {low}, {high}, [{at}]",
                "cmp {low}, {first}",
                "ccmp {high}, {second}, #0, eq",
                "b.ne 3f",
                "stlxp {failed:w}, {new}, {second}, [{at}]",
                "cbnz {failed:w}, 2b",
                "3:",
                at = in(reg) pair.0.as_ptr(), first = in(reg) first, second = in(reg) second,
                new = in(reg) new, low = out(reg) low, high = out(reg) high, failed = out(reg) _,
                options(nostack)
            );
        }
        (low, high)
    }
}

#[cfg(all(test, not(miri)))]
#[path = "pair_tests.rs"]
mod tests;
