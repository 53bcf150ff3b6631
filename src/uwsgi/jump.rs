//! Machine code of the jump that a function of the host begins with from the takeover on.
//!
//! The function's first instruction stays where it is, and what it did is undone before the jump. Tools that observe
//! functions (uprobes, gdb) put a breakpoint on its first byte, run or step over the instruction that the program's
//! *file* has there, and put the file's byte back when they go: all of that has to fit.

#[cfg_attr(target_arch = "x86_64", path = "jump/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "jump/aarch64.rs")]
mod machine;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the takeover knows x86-64 and aarch64");

pub(super) use machine::{BREAKPOINT, breakpoint};

/// A jump for one function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    /// Bytes of the function that stay.
    pub(crate) keeps: usize,
    /// What is written behind them.
    pub(crate) bytes: Vec<u8>,
}

/// An instruction that can stay: its length, and the instruction that undoes it (maybe none).
struct Step {
    len: usize,
    undo: Vec<u8>,
}

impl Jump {
    /// The jump to `to` for a function with `arguments` arguments (integers and pointers) that consists of `code`. It
    /// keeps what stands before `until` and one instruction more (a landing pad for indirect branches is none). Where
    /// an instruction cannot be undone, or there is no room, it keeps less. It clobbers no register that holds an
    /// argument or that the calling convention keeps.
    pub(crate) fn new(code: &[u8], arguments: usize, until: usize, to: usize) -> Self {
        let mut best = Self { keeps: 0, bytes: machine::branch(to) };
        let mut scratch = machine::scratch(arguments);
        let (mut keeps, mut undo) = (0, Vec::new());
        while let Some(step) = machine::step(&code[keeps..], &mut scratch) {
            let is_pad = machine::is_pad(&code[keeps..]);
            keeps += step.len;
            undo.splice(0..0, step.undo);
            let bytes = [&undo[..], &machine::branch(to)].concat();
            if keeps + bytes.len() > code.len() {
                break;
            }
            best = Self { keeps, bytes };
            if keeps > until && !is_pad {
                break;
            }
        }
        best
    }

    /// Bytes that the function must have.
    pub(crate) fn len(&self) -> usize {
        self.keeps + self.bytes.len()
    }

    /// Whether `code` has this jump, to whatever place.
    pub(crate) fn is_in(&self, code: &[u8]) -> bool {
        let address = self.bytes.len() - machine::AFTER_ADDRESS - size_of::<usize>();
        let mut known =
            (0..self.bytes.len()).filter(|i| !(address..address + size_of::<usize>()).contains(i));
        self.len() <= code.len() && known.all(|i| code[self.keeps + i] == self.bytes[i])
    }
}

#[cfg(test)]
mod tests;
