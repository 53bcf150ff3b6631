//! Machine code of aarch64; every instruction is a 32-bit word.

use super::Step;

const BTI_C: u32 = 0xd503_245f;
const PACIASP: u32 = 0xd503_233f;
const AUTIASP: u32 = 0xd503_23bf;
const PACIBSP: u32 = 0xd503_237f;
const AUTIBSP: u32 = 0xd503_23ff;
/// brk with any immediate.
const BRK: (u32, u32) = (0xffe0_001f, 0xd420_0000);

/// Bytes of a breakpoint.
pub(crate) const BREAKPOINT: usize = 4;
/// Bytes of [`branch`].
pub(super) const BRANCH: usize = 16;
/// Bytes of [`branch`] behind the address.
pub(super) const AFTER_ADDRESS: usize = 0;

/// ldr x16, #8; br x16, followed by the address. Linkers use x16 for the same purpose.
pub(super) fn branch(to: usize) -> Vec<u8> {
    let (ldr, br) = (0x5800_0050_u32.to_le_bytes(), 0xd61f_0200_u32.to_le_bytes());
    [&ldr[..], &br, &to.to_le_bytes()].concat()
}

/// b: a branch at the address `from` to an address within 128 MB.
pub(super) fn near_branch(from: usize, to: usize) -> Option<Vec<u8>> {
    let distance = i32::try_from(to.wrapping_sub(from).cast_signed()).ok()?;
    let is_near = distance % 4 == 0 && (-(1 << 27)..1 << 27).contains(&distance);
    let words = (distance >> 2).cast_unsigned() & 0x03ff_ffff;
    is_near.then(|| (0x1400_0000 | words).to_le_bytes().to_vec())
}

/// Whether `code` starts with a breakpoint.
pub(crate) fn breakpoint(code: &[u8]) -> bool {
    word(code).is_some_and(|word| word & BRK.0 == BRK.1)
}

/// Whether `code` starts with a landing pad for indirect branches.
pub(super) fn is_pad(code: &[u8]) -> bool {
    matches!(word(code), Some(BTI_C | PACIASP | PACIBSP))
}

fn word(code: &[u8]) -> Option<u32> {
    code.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Registers that may be clobbered, one bit each: x8 to x17 and unused argument registers.
pub(super) fn scratch(arguments: usize) -> u32 {
    (0..=17).filter(|&register| register >= 8 || register >= arguments).fold(0, |set, r| set | 1 << r)
}

/// The first instruction of `code`, if it can be undone. A register that it saves becomes scratch.
pub(super) fn step(code: &[u8], scratch: &mut u32) -> Option<Step> {
    let word = word(code)?;
    let [first, second] = [word & 31, word >> 10 & 31];
    let undo = match word {
        BTI_C => None,
        PACIASP => Some(AUTIASP),
        PACIBSP => Some(AUTIBSP),
        // sub sp, sp, #n and add sp, sp, #n
        _ if word & 0xff80_03ff == 0xd100_03ff => Some(word ^ 1 << 30),
        // stp a, b, [sp, #-n]! and ldp a, b, [sp], #n
        _ if word & 0xffe0_03e0 == 0xa9a0_03e0 => {
            let n = 0x80 - (word >> 15 & 0x7f);
            if n > 63 {
                return None;
            }
            *scratch |= 1 << first | 1 << second;
            Some(0xa8c0_03e0 | n << 15 | second << 10 | first)
        }
        // str a, [sp, #-n]! and ldr a, [sp], #n
        _ if word & 0xfff0_0fe0 == 0xf810_0fe0 => {
            let n = 0x200 - (word >> 12 & 0x1ff);
            if n > 255 {
                return None;
            }
            *scratch |= 1 << first;
            Some(0xf840_07e0 | n << 12 | first)
        }
        _ if without_effect(word, *scratch) => None,
        _ => return None,
    };
    Some(Step { len: 4, undo: undo.map(u32::to_le_bytes).into_iter().flatten().collect() })
}

/// Whether an instruction only changes flags and scratch registers.
fn without_effect(word: u32, scratch: u32) -> bool {
    let may_change = scratch >> (word & 31) & 1 == 1 && word & 31 != 31;
    // cmp with an immediate; adrp; mov from a register; movz; ldr with a base register
    let compares = word & 0x7f80_001f == 0x7100_001f;
    let loads = word & 0x9f00_0000 == 0x9000_0000
        || word & 0x7fe0_ffe0 == 0x2a00_03e0
        || word & 0x7f80_0000 == 0x5280_0000
        || word & 0xbfc0_0000 == 0xb940_0000;
    compares || may_change && loads
}
