//! State that a call keeps while it runs a callback of the program.
//!
//! The thread may end in there by `pthread_exit` or a cancellation, which is enabled exactly as for
//! the caller. Both unwind the stack without a Rust exception, which Rust frames only allow if they
//! have nothing to drop. So droppable data is on the heap, with pointers in a thread-local list,
//! and is freed with the thread if it is still listed. No Rust frame that catches panics is on the
//! stack, and the functions are `C-unwind`.

use std::cell::RefCell;

use crate::{capi::panic::guard, engine::FillToken, near::Position, os::local::Local};

use super::open::Shared;

/// Data freed with the thread.
pub(super) enum Kept {
    /// A walk over the keys with a prefix.
    Walk { at: Position, prefix: Vec<u8> },
    /// The computation of a value.
    Fill(Filling),
}

/// A value being computed by the program. Dropping it abandons the fill.
pub(super) struct Filling {
    pub(super) engine: Shared,
    /// A copy, since the function may write to the memory of the caller's key.
    pub(super) key: Vec<u8>,
    /// The lease; `None` = compute without storing.
    token: Option<FillToken>,
}

impl Filling {
    pub(super) fn new(engine: Shared, key: Vec<u8>, token: Option<FillToken>) -> Self {
        Self { engine, key, token }
    }

    /// The lease, unless this is a child forked by the function.
    pub(super) fn take_token(&mut self) -> Option<FillToken> {
        self.token.take().filter(|token| !token.is_inherited())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Some(token) = self.take_token() {
            // If this fails, a waiter takes over after the filler's deadline.
            let _ = self.engine.abandon_fill(&self.key, token);
        }
    }
}

/// The thread's data, that of the innermost call last.
static LIST: Local<RefCell<List>> = Local::new(RefCell::default);

#[derive(Default)]
struct List(Vec<*mut Kept>);

impl Drop for List {
    fn drop(&mut self) {
        for kept in self.0.drain(..).rev() {
            // SAFETY: created by `keep`; the call that would `give_back` has ended with its thread.
            guard((), || drop(unsafe { Box::from_raw(kept) }));
        }
    }
}

/// Keeps data while the program's functions are called, until [`give_back`].
pub(super) fn keep(kept: Kept) -> *mut Kept {
    let kept = Box::into_raw(Box::new(kept));
    // Without space in the list it leaks with the thread, and the fill ends by its deadline.
    LIST.with_mut(|list| list.0.push(kept));
    kept
}

/// Returns the data of [`keep`].
///
/// # Safety
/// `kept` is from `keep` in the same call, and returned only once.
pub(super) unsafe fn give_back(kept: *mut Kept) -> Kept {
    // An inner call that was jumped over leaves its data behind, for the thread's end.
    LIST.with_mut(|list| list.0.retain(|&listed| listed != kept));
    // SAFETY: the caller vouches for it.
    *unsafe { Box::from_raw(kept) }
}
