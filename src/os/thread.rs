//! A few words of the calling thread's own that every operation looks at.
//!
//! A `thread_local!` of a shared library is found by a call (`__tls_get_addr`, some 35 instructions, a sixth of a read).
//! With glibc these words lie in the static block instead, at a fixed distance from the thread pointer (the model
//! "initial-exec" of Ulrich Drepper's "ELF Handling For Thread-Local Storage"): glibc keeps room there for libraries that
//! are loaded later, 1,664 bytes at least, of which this takes 128.

use std::cell::Cell;

/// Words of a thread.
const WORDS: usize = 16;
/// Notes of a thread, of two words each.
const NOTES: usize = WORDS / 2;

/// The words, 0 in a new thread. A child of fork has its parent's.
struct Words([Cell<u64>; WORDS]);

/// What the calling thread noted under `name`, which is not 0; `None` = nothing, or a note since took the place.
#[inline(always)]
pub(crate) fn noted(name: u64) -> Option<u64> {
    with(|words| {
        let at = name as usize % NOTES * 2;
        (words.0[at].get() == name).then(|| words.0[at + 1].get())
    })
}

/// Notes `value` under `name`, which is not 0, for the calling thread.
pub(crate) fn note(name: u64, value: u64) {
    with(|words| {
        let at = name as usize % NOTES * 2;
        words.0[at].set(name);
        words.0[at + 1].set(value);
    });
}

/// Forgets what the calling thread noted under `name`.
pub(crate) fn forget(name: u64) {
    if noted(name).is_some() {
        note(name, 0);
        with(|words| words.0[name as usize % NOTES * 2].set(0));
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64", not(miri)))]
mod place {
    use super::Words;

    /// The symbol of these words: one for each version of the crate that is linked into a program.
    macro_rules! symbol {
        () => {
            concat!(
                "ucache_thread_words_",
                env!("CARGO_PKG_VERSION_MAJOR"),
                "_",
                env!("CARGO_PKG_VERSION_MINOR"),
                "_",
                env!("CARGO_PKG_VERSION_PATCH")
            )
        };
    }

    std::arch::global_asm!(
        ".pushsection .tbss.ucache, \"awT\", @nobits",
        concat!(".globl ", symbol!()),
        concat!(".hidden ", symbol!()),
        concat!(".type ", symbol!(), ", @object"),
        concat!(".size ", symbol!(), ", 128"),
        ".p2align 3",
        concat!(symbol!(), ":"),
        ".zero 128",
        ".popsection",
    );
    const _: () = assert!(size_of::<Words>() == 128 && align_of::<Words>() == 8);

    #[inline(always)]
    pub(super) fn with<T>(f: impl FnOnce(&Words) -> T) -> T {
        let at: *const Words;
        // SAFETY: the instructions form the address of this thread's copy of the symbol above: its distance, which the loader
        // wrote into the GOT, and the thread pointer, which x86-64's ABI keeps in the first word of the segment FS.
        unsafe {
            std::arch::asm!(
                concat!("mov {at}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                "add {at}, qword ptr fs:[0]",
                at = out(reg) at, options(pure, nomem, nostack)
            );
        }
        // SAFETY: 128 bytes of zeros at first, 8-aligned, as `Words` wants them, there as long as the thread; `Cell` keeps the
        // reference in it.
        f(unsafe { &*at })
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64", not(miri))))]
mod place {
    use super::{Cell, WORDS, Words};

    #[inline]
    pub(super) fn with<T>(f: impl FnOnce(&Words) -> T) -> T {
        thread_local! { static HERE: Words = const { Words([const { Cell::new(0) }; WORDS]) } }
        HERE.with(f)
    }
}

use place::with;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_a_thread_s_own() {
        assert_eq!(noted(11), None);
        note(11, 5);
        assert_eq!((noted(11), noted(11 + NOTES as u64), noted(12)), (Some(5), None, None));
        note(12, 6);
        assert_eq!((noted(11), noted(12)), (Some(5), Some(6)));
        std::thread::spawn(|| {
            assert_eq!(noted(11), None);
            note(11, 7);
            assert_eq!(noted(11), Some(7));
        })
        .join()
        .expect("a thread of its own");
        assert_eq!(noted(11), Some(5));
        forget(11 + NOTES as u64);
        assert_eq!(noted(11), Some(5), "of another name");
        forget(11);
        assert_eq!(noted(11), None);
        note(12 + NOTES as u64, 8);
        assert_eq!((noted(12), noted(12 + NOTES as u64)), (None, Some(8)), "the last note of a place counts");
    }
}
