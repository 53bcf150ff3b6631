//! Machine code of x86-64.

use super::Step;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const RAX: u8 = 0;
const RSP: u8 = 4;
/// The registers of arguments, first to last: rdi, rsi, rdx, rcx, r8, r9.
const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

/// Bytes of a breakpoint.
pub(crate) const BREAKPOINT: usize = 1;
/// Bytes of [`branch`].
pub(super) const BRANCH: usize = 12;
/// Bytes of [`branch`] behind the address.
pub(super) const AFTER_ADDRESS: usize = 2;

/// movabs $to, %rax; jmp *%rax. rax is free at the start of a function without variable arguments.
/// The target needs no endbr64: the loader disables indirect branch tracking for a process with any
/// object built without it (such as any Rust library).
pub(super) fn branch(to: usize) -> Vec<u8> {
    [&[0x48, 0xb8][..], &to.to_le_bytes(), &[0xff, 0xe0]].concat()
}

/// jmp: a branch at the address `from` to an address within 2 GB.
pub(super) fn near_branch(from: usize, to: usize) -> Option<Vec<u8>> {
    let distance = to.wrapping_sub(from.wrapping_add(5)).cast_signed();
    let distance = i32::try_from(distance).ok()?;
    Some([&[0xe9][..], &distance.to_le_bytes()].concat())
}

/// Whether `code` starts with a breakpoint.
pub(crate) fn breakpoint(code: &[u8]) -> bool {
    code.first() == Some(&0xcc)
}

/// Whether `code` starts with a landing pad for indirect branches.
pub(super) fn is_pad(code: &[u8]) -> bool {
    code.starts_with(&ENDBR64)
}

/// Registers that may be clobbered, one bit each: rax, r10, r11 and unused argument registers.
pub(super) fn scratch(arguments: usize) -> u16 {
    let unused = ARGUMENTS.iter().skip(arguments).fold(0, |set, r| set | 1 << r);
    1 << RAX | 1 << 10 | 1 << 11 | unused
}

/// The first instruction of `code`, if it can be undone. A register that it saves becomes scratch.
pub(super) fn step(code: &[u8], scratch: &mut u16) -> Option<Step> {
    if is_pad(code) {
        return Some(Step { len: ENDBR64.len(), undo: Vec::new() });
    }
    match *code {
        // push and pop
        [op @ 0x50..=0x57, ..] => {
            *scratch |= 1 << (op - 0x50);
            Some(Step { len: 1, undo: vec![op + 8] })
        }
        [0x41, op @ 0x50..=0x57, ..] => {
            *scratch |= 1 << (op - 0x50 + 8);
            Some(Step { len: 2, undo: vec![0x41, op + 8] })
        }
        // sub $8, %rsp and pop %rax, which is shorter; sub $n, %rsp and add $n, %rsp
        [0x48, 0x83, 0xec, 8, ..] => Some(Step { len: 4, undo: vec![0x58] }),
        [0x48, 0x83, 0xec, n, ..] => Some(Step { len: 4, undo: vec![0x48, 0x83, 0xc4, n] }),
        [0x48, 0x81, 0xec, a, b, c, d, ..] => Some(Step { len: 7, undo: vec![0x48, 0x81, 0xc4, a, b, c, d] }),
        // mov $n, %register
        [op @ 0xb8..=0xbf, _, _, _, _, ..] if *scratch >> (op - 0xb8) & 1 == 1 && op - 0xb8 != RSP => {
            Some(Step { len: 5, undo: Vec::new() })
        }
        _ => without_effect(code, *scratch).map(|len| Step { len, undo: Vec::new() }),
    }
}

/// The length of the first instruction, if it only changes flags and scratch registers.
fn without_effect(code: &[u8], scratch: u16) -> Option<usize> {
    // REX: 0100WRXB
    let rex = code.first().copied().filter(|b| b & 0xf0 == 0x40);
    let prefix = usize::from(rex.is_some());
    let rex = rex.unwrap_or(0);
    let opcode = *code.get(prefix)?;
    let modrm = *code.get(prefix + 1)?;
    let reg = modrm >> 3 & 7 | (rex & 4) << 1;
    let rm = modrm & 7 | (rex & 1) << 3;
    let is_register = modrm >> 6 == 3;
    let may_change = |register: u8| register != RSP && scratch >> register & 1 == 1;
    let operands = prefix + 1 + modrm_len(&code[prefix + 1..])?;
    let len = match opcode {
        // cmp and test
        0x38..=0x3b | 0x84 | 0x85 => operands,
        0x80 | 0x83 if modrm >> 3 & 7 == 7 => operands + 1,
        0x81 if modrm >> 3 & 7 == 7 => operands + 4,
        // mov to a register, lea, movslq
        0x8b | 0x8d | 0x63 if may_change(reg) => operands,
        // mov and xor from register to register
        0x89 | 0x31 if is_register && may_change(rm) => operands,
        // movzbl, movzwl, movsbl, movswl
        0x0f if matches!(modrm, 0xb6 | 0xb7 | 0xbe | 0xbf) => {
            let modrm = *code.get(prefix + 2)?;
            let reg = modrm >> 3 & 7 | (rex & 4) << 1;
            may_change(reg).then_some(prefix + 2 + modrm_len(&code[prefix + 2..])?)?
        }
        _ => return None,
    };
    (len <= code.len()).then_some(len)
}

/// Length of the ModRM byte at the start of `code`, with the SIB byte and displacement that belong
/// to it.
fn modrm_len(code: &[u8]) -> Option<usize> {
    let modrm = *code.first()?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let sib = usize::from(mode != 3 && rm == 4);
    let displacement = match mode {
        // RIP-relative, or without a base register
        0 if rm == 5 || (rm == 4 && code.get(1)? & 7 == 5) => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some(1 + sib + displacement)
}
