//! Machine code of the jump at the start of a replaced host function.
//!
//! The function's first instruction stays in place, and its effect is undone before the jump.
//! Observers (uprobes, gdb) set a breakpoint on the first byte, execute or step over the
//! instruction that the program's *file* has there, and restore the file's byte when they detach:
//! with the instruction kept, all of that stays valid.

#[cfg_attr(target_arch = "x86_64", path = "jump/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "jump/aarch64.rs")]
mod machine;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the takeover supports x86-64 and aarch64 only");

pub(super) use machine::{BREAKPOINT, breakpoint};

/// A jump for one function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    /// Length of the part of the function that stays.
    pub(crate) keeps: usize,
    /// The code written behind it.
    pub(crate) bytes: Vec<u8>,
    /// Offset of the target's address in `bytes`; `None` = the jump is relative.
    address: Option<usize>,
}

/// An instruction that can stay: its length, and the instruction that undoes it (possibly none).
struct Step {
    len: usize,
    undo: Vec<u8>,
}

/// Bytes of a veneer: a jump to any address, for functions too short to hold one behind their first
/// instruction.
pub(crate) const VENEER: usize = machine::BRANCH;

/// The bytes of a veneer.
pub(crate) fn veneer(to: usize) -> Vec<u8> {
    machine::branch(to)
}

impl Jump {
    /// The jump to `to` for a function with machine code `code` and `arguments` arguments (integers
    /// and pointers). It keeps everything before `until` and one more instruction, not counting a
    /// landing pad for indirect branches. It keeps less if an instruction cannot be undone or space
    /// runs out. It clobbers no argument register and no callee-saved register.
    pub(crate) fn new(code: &[u8], arguments: usize, until: usize, to: usize) -> Self {
        let best = Self::longest(code, arguments, until, |_| Some(machine::branch(to)));
        let (keeps, bytes) = best.unwrap_or_else(|| (0, machine::branch(to)));
        let address = Some(bytes.len() - machine::AFTER_ADDRESS - size_of::<usize>());
        Self { keeps, bytes, address }
    }

    /// Like [`Jump::new`], for a function at the address `from`, by a short relative branch to a
    /// veneer; `None` = the veneer is too far away, or `code` is too short even so.
    pub(crate) fn near(
        code: &[u8],
        arguments: usize,
        until: usize,
        from: usize,
        veneer: usize,
    ) -> Option<Self> {
        let branch = |at: usize| machine::near_branch(from + at, veneer);
        let (keeps, bytes) = Self::longest(code, arguments, until, branch)?;
        Some(Self { keeps, bytes, address: None })
    }

    /// The jump that keeps the most, up to the requested limit: the kept length, and the bytes
    /// behind it. `branch` encodes the branch at its offset in the function.
    fn longest(
        code: &[u8],
        arguments: usize,
        until: usize,
        branch: impl Fn(usize) -> Option<Vec<u8>>,
    ) -> Option<(usize, Vec<u8>)> {
        let mut best = branch(0).filter(|bytes| bytes.len() <= code.len()).map(|bytes| (0, bytes));
        let mut scratch = machine::scratch(arguments);
        let (mut keeps, mut undo) = (0, Vec::new());
        while let Some(step) = machine::step(&code[keeps..], &mut scratch) {
            let is_pad = machine::is_pad(&code[keeps..]);
            keeps += step.len;
            undo.splice(0..0, step.undo);
            let Some(branch) = branch(keeps + undo.len()) else { break };
            let bytes = [&undo[..], &branch].concat();
            if keeps + bytes.len() > code.len() {
                break;
            }
            best = Some((keeps, bytes));
            if keeps > until && !is_pad {
                break;
            }
        }
        best
    }

    /// Minimum length of the function.
    pub(crate) fn len(&self) -> usize {
        self.keeps + self.bytes.len()
    }

    /// Whether `code` has this jump, to any target.
    pub(crate) fn is_in(&self, code: &[u8]) -> bool {
        let address = self.address.map_or(0..0, |at| at..at + size_of::<usize>());
        let mut known = (0..self.bytes.len()).filter(|i| !address.contains(i));
        self.len() <= code.len() && known.all(|i| code[self.keeps + i] == self.bytes[i])
    }
}

#[cfg(test)]
mod tests;
/// The rules for aarch64 only concern bytes, so they are tested on every architecture.
#[cfg(test)]
mod words_tests;
