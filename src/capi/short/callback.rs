//! What a call keeps while it is in a function of the program's.
//!
//! The thread may end in there: `pthread_exit`, or a cancellation, which is as enabled as the caller had it. Both unwind the
//! stack without a Rust exception, which frames of Rust may only see pass if they have nothing to drop. So what is to be
//! dropped lies on the heap, its pointers in a list of the thread's, and what is still listed goes with the thread. Nothing
//! of Rust that catches panics is on the stack, and the functions are `C-unwind`.

use std::cell::RefCell;

use crate::{
    capi::guard::guard,
    engine::{Cursor, FillToken},
    os::{local::Local, process::fork_count},
};

use super::handle::Shared;

/// What goes with the thread.
pub(super) enum Kept {
    /// A walk over the keys with a prefix.
    Walk { cursor: Cursor, prefix: Vec<u8> },
    /// The computation of a value.
    Fill(Filling),
}

/// A value that the program computes. Dropping it gives the fill up.
pub(super) struct Filling {
    pub(super) engine: Shared,
    /// Where the function writes may be where the caller's key lies.
    pub(super) key: Vec<u8>,
    /// The right to fill; `None` = computed, but not stored.
    token: Option<FillToken>,
    forks: u32,
}

impl Filling {
    pub(super) fn new(engine: Shared, key: Vec<u8>, token: Option<FillToken>) -> Self {
        Self { engine, key, token, forks: fork_count() }
    }

    /// The right to fill, which a child that the function forked has not got.
    pub(super) fn take_token(&mut self) -> Option<FillToken> {
        let token = self.token.take();
        token.filter(|_| self.forks == fork_count())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Some(token) = self.take_token() {
            // If this fails, a waiter takes over when the time of the filler is up.
            let _ = self.engine.abandon_fill(&self.key, token);
        }
    }
}

/// What the thread keeps, its innermost call's last.
static LIST: Local<RefCell<List>> = Local::new(RefCell::default);

#[derive(Default)]
struct List(Vec<*mut Kept>);

impl Drop for List {
    fn drop(&mut self) {
        for kept in self.0.drain(..).rev() {
            // SAFETY: `keep` made it, and the call that would `give_back` has ended with its thread.
            guard((), || drop(unsafe { Box::from_raw(kept) }));
        }
    }
}

/// Keeps something while the program's functions are called, up to [`give_back`].
pub(super) fn keep(kept: Kept) -> *mut Kept {
    let kept = Box::into_raw(Box::new(kept));
    // Without a place in the list it is lost with the thread, and the fill up to its time.
    LIST.with_mut(|list| list.0.push(kept));
    kept
}

/// Takes back what [`keep`] kept.
///
/// # Safety
/// `kept` is from `keep` in the same call, and taken back once.
pub(super) unsafe fn give_back(kept: *mut Kept) -> Kept {
    // An inner call that was jumped over has left its own behind, for the thread's end.
    LIST.with_mut(|list| list.0.retain(|&listed| listed != kept));
    // SAFETY: the caller vouches for it.
    *unsafe { Box::from_raw(kept) }
}
