//! Short notes of a thread's that every operation looks at.
//!
//! A `thread_local!` of a shared library is found by a call (`__tls_get_addr`, some 35 instructions, a sixth of a read), or
//! takes room in the static block, of which glibc has little for libraries that are loaded later. These notes lie in a table
//! of the process instead, where a thread finds its own by its thread pointer, which no other thread has at the same time.
//! Who has no place there, as others have it, does without. And one thread of each process, the first that asks, finds its
//! note of an engine in a place that only that engine has ([`First`]).

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use once_cell::race::OnceBox;

use super::process::wiped_page;

/// Notes of the process, a power of two.
const NOTES: usize = 256;
/// Notes of a thread that do not displace each other when they are made one after the other.
const OWN: usize = 8;

/// A note: the thread that it belongs to, and `name << 8 | value`. Only that thread changes it, and takes it by a
/// compare-and-swap; 0 = nobody's. A signal handler of the thread sees it before or after a change, never in between.
struct Note {
    thread: AtomicU64,
    word: AtomicU64,
}

struct Table([Note; NOTES]);

static TABLE: Table = Table::new();

/// The thread pointer. It is page-aligned or nearly so, as it lies at the end of a stack's mapping.
#[inline(always)]
fn pointer() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let tp: u64;
        // SAFETY: the first word behind the base of FS is the thread pointer itself (the ABI for thread-local storage).
        unsafe {
            std::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) tp, options(pure, nomem, nostack, preserves_flags));
        }
        tp
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        let tp: u64;
        // SAFETY: reads the register that holds the thread pointer.
        unsafe {
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) tp, options(pure, nomem, nostack, preserves_flags))
        };
        tp
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    {
        thread_local! { static HERE: u8 = const { 0 } }
        HERE.with(|here| std::ptr::from_ref(here).addr() as u64)
    }
}

impl Table {
    const fn new() -> Self {
        Self([const { Note { thread: AtomicU64::new(0), word: AtomicU64::new(0) } }; NOTES])
    }

    #[inline(always)]
    fn place(&self, thread: u64, name: u64) -> &Note {
        &self.0[((thread >> 12) as usize * OWN + name as usize) % NOTES]
    }

    #[inline(always)]
    fn noted(&self, name: u64) -> Option<u8> {
        let thread = pointer();
        let note = self.place(thread, name);
        let word = note.word.load(Relaxed);
        (note.thread.load(Relaxed) == thread && word >> 8 == name).then_some(word as u8)
    }

    fn note(&self, name: u64, value: u8) {
        let thread = pointer();
        let note = self.place(thread, name);
        let is_mine = note.thread.load(Relaxed) == thread;
        if is_mine || note.thread.compare_exchange(0, thread, Relaxed, Relaxed).is_ok() {
            note.word.store(name << 8 | u64::from(value), Relaxed);
        }
    }

    fn forget(&self, name: u64) {
        let thread = pointer();
        let note = self.place(thread, name);
        if note.thread.load(Relaxed) == thread {
            note.word.store(0, Relaxed);
            note.thread.store(0, Relaxed);
        }
    }
}

/// What the calling thread noted under `name`, of at most 56 bits and not 0; `None` = nothing, or a later note took the place.
#[inline(always)]
pub(crate) fn noted(name: u64) -> Option<u8> {
    TABLE.noted(name)
}

/// Notes `value` under `name`, as in [`noted`], for the calling thread, if there is a place.
pub(crate) fn note(name: u64, value: u8) {
    TABLE.note(name, value);
}

/// Gives up the place where the calling thread noted something under `name`: before it ends, and its pointer is another's.
pub(crate) fn forget(name: u64) {
    TABLE.forget(name);
}

/// A place for one note, of the first thread in the process that makes it. It lies in memory that the kernel empties in a
/// child of fork, so that nobody has to look for forks.
#[derive(Clone, Copy)]
pub(crate) struct First(&'static Note);

/// Nobody's place; stays empty.
static NOWHERE: Note = Note { thread: AtomicU64::new(0), word: AtomicU64::new(0) };
/// Says that a place is being taken: no thread's pointer.
const TAKING: u64 = 1;

impl First {
    /// A new place; after some hundred of them, or where the kernel cannot empty it, one that takes no note.
    pub(crate) fn new() -> Self {
        static PAGE: OnceBox<Option<&'static [Note; NOTES]>> = OnceBox::new();
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        const { assert!(size_of::<[Note; NOTES]>() <= 4096) };
        // SAFETY: zeros, which are notes, in a page that is never unmapped and that only this function hands out.
        let page = PAGE.get_or_init(|| Box::new(wiped_page().map(|page| unsafe { &*page.cast() })));
        let free = page.and_then(|notes: &'static [Note; NOTES]| notes.get(TAKEN.fetch_add(1, Relaxed)));
        Self(free.unwrap_or(&NOWHERE))
    }

    /// What the calling thread noted here.
    #[inline(always)]
    pub(crate) fn noted(self) -> Option<u8> {
        (self.0.thread.load(Relaxed) == pointer()).then(|| self.0.word.load(Relaxed) as u8)
    }

    /// Notes `value` for the calling thread, if no thread has the place.
    pub(crate) fn note(self, value: u8) {
        let thread = &self.0.thread;
        if !std::ptr::eq(self.0, &raw const NOWHERE)
            && thread.compare_exchange(0, TAKING, Acquire, Relaxed).is_ok()
        {
            self.0.word.store(value.into(), Relaxed);
            thread.store(pointer(), Release);
        }
    }

    /// Gives up the place, if it is the calling thread's: before the thread ends.
    pub(crate) fn forget(self) {
        if self.0.thread.load(Relaxed) == pointer() {
            self.0.thread.store(0, Release);
        }
    }
}

impl std::fmt::Debug for First {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("First(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_a_thread_s_own() {
        const NEXT: u64 = NOTES as u64;
        let table = Table::new();
        let t = &table;
        assert_eq!(t.noted(11), None);
        t.note(11, 5);
        assert_eq!((t.noted(11), t.noted(11 + NEXT), t.noted(12)), (Some(5), None, None));
        t.note(12, 6);
        assert_eq!((t.noted(11), t.noted(12)), (Some(5), Some(6)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(t.noted(11), None);
                t.note(11, 7);
                assert_ne!(t.noted(11), Some(5));
                t.forget(11);
                assert_eq!(t.noted(11), None);
            });
        });
        assert_eq!(t.noted(11), Some(5));
        t.note(12 + NEXT, 8);
        assert_eq!((t.noted(12), t.noted(12 + NEXT)), (None, Some(8)), "the last note of a place counts");
        t.forget(11);
        assert_eq!((t.noted(11), t.noted(12 + NEXT)), (None, Some(8)));
    }

    #[test]
    fn no_thread_takes_another_one_s_place() {
        // More notes than places: some threads have none, and nobody reads what is not its own.
        let (table, barrier) = (Table::new(), std::sync::Barrier::new(64));
        std::thread::scope(|scope| {
            for value in 0..64 {
                let (table, barrier) = (&table, &barrier);
                scope.spawn(move || {
                    let names = 100..100 + OWN as u64;
                    names.clone().for_each(|name| table.note(name, value));
                    barrier.wait();
                    let found: Vec<_> = names.clone().filter_map(|name| table.noted(name)).collect();
                    assert!(found.iter().all(|&v| v == value), "{value}: {found:?}");
                    barrier.wait();
                    names.clone().for_each(|name| table.forget(name));
                    assert!(names.clone().all(|name| table.noted(name).is_none()));
                });
            }
        });
        assert!(table.0.iter().all(|note| note.thread.load(Relaxed) == 0), "every place was given up");
    }

    #[test]
    fn a_first_place_is_one_thread_s_and_no_child_s() {
        let first = First::new();
        assert_eq!(first.noted(), None);
        first.note(7);
        assert_eq!(first.noted(), Some(7));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                first.note(8);
                assert_eq!(first.noted(), None);
                first.forget();
            });
        });
        assert_eq!(first.noted(), Some(7));
        // SAFETY: the child only reads memory of its own and ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let empty = first.noted().is_none();
            first.note(9);
            // SAFETY: ends this process and nothing else.
            unsafe { libc::_exit(i32::from(!empty || first.noted() != Some(9))) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!((status, first.noted()), (0, Some(7)));
        first.forget();
        assert_eq!(first.noted(), None);
        assert_eq!(First(&NOWHERE).noted(), None);
        First(&NOWHERE).note(1);
        assert_eq!(First(&NOWHERE).noted(), None);
    }
}
