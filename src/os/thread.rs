//! Short per-thread notes that every operation reads.
//!
//! A `thread_local!` of a shared library is reached by a call (`__tls_get_addr`, some 35
//! instructions, a sixth of a read), or takes static TLS space, of which glibc has little for
//! libraries loaded later. These notes are in one table of the process instead. A thread finds its
//! own by its thread pointer, which no other thread has at the same time. If other threads occupy
//! its cells, a thread works without a note. In addition, one thread of each process, the first to
//! try, has its note for an engine in a cell of that engine ([`First`]).

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use once_cell::race::OnceBox;

use super::process::wiped_page;

/// Notes of the process, a power of two.
const NOTES: usize = 256;
/// Consecutive notes of one thread that do not displace each other.
const OWN: usize = 8;

/// A note: the owning thread, and `name << 8 | value`. Only that thread changes it, and claims it
/// by compare-and-swap; 0 = free. A signal handler of the thread sees it before or after a change,
/// never in between.
struct Note {
    thread: AtomicU64,
    word: AtomicU64,
}

struct Table([Note; NOTES]);

static TABLE: Table = Table::new();

/// The thread pointer. It is page-aligned or nearly so, since it lies at the end of a stack's
/// mapping.
#[inline(always)]
fn pointer() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let tp: u64;
        // SAFETY: the first word at the base of FS is the thread pointer itself (TLS ABI).
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

/// The calling thread's note under `name` (at most 56 bits, not 0); `None` = there is none, or a
/// later note replaced it.
#[inline(always)]
pub(crate) fn noted(name: u64) -> Option<u8> {
    TABLE.noted(name)
}

/// Notes `value` under `name`, as in [`noted`], for the calling thread, if a cell is free.
pub(crate) fn note(name: u64, value: u8) {
    TABLE.note(name, value);
}

/// Frees the calling thread's note under `name`: to be called before it ends and its pointer is
/// reused.
pub(crate) fn forget(name: u64) {
    TABLE.forget(name);
}

/// A cell for one note of the first thread in the process that writes it. It lies in memory that
/// the kernel wipes in a child of fork, so no code has to check for forks.
#[derive(Clone, Copy)]
pub(crate) struct First(&'static Note);

/// Shared fallback cell; stays empty.
static NOWHERE: Note = Note { thread: AtomicU64::new(0), word: AtomicU64::new(0) };
/// Marks a cell that is being claimed: no thread has this pointer.
const TAKING: u64 = 1;

impl First {
    /// A new cell; after some hundreds of them, or where the kernel cannot wipe pages, one that
    /// takes no note.
    pub(crate) fn new() -> Self {
        static PAGE: OnceBox<Option<&'static [Note; NOTES]>> = OnceBox::new();
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        const { assert!(size_of::<[Note; NOTES]>() <= 4096) };
        // SAFETY: zeros are valid notes, in a page that is never unmapped and that only this
        // function hands out.
        let page = PAGE.get_or_init(|| Box::new(wiped_page().map(|page| unsafe { &*page.cast() })));
        let free = page.and_then(|notes: &'static [Note; NOTES]| notes.get(TAKEN.fetch_add(1, Relaxed)));
        Self(free.unwrap_or(&NOWHERE))
    }

    /// The calling thread's note here.
    #[inline(always)]
    pub(crate) fn noted(self) -> Option<u8> {
        (self.0.thread.load(Relaxed) == pointer()).then(|| self.0.word.load(Relaxed) as u8)
    }

    /// Notes `value` for the calling thread, unless another thread has the cell.
    pub(crate) fn note(self, value: u8) {
        let thread = &self.0.thread;
        if !std::ptr::eq(self.0, &raw const NOWHERE)
            && thread.compare_exchange(0, TAKING, Acquire, Relaxed).is_ok()
        {
            self.0.word.store(value.into(), Relaxed);
            thread.store(pointer(), Release);
        }
    }

    /// Frees the cell if it is the calling thread's; to be called before the thread ends.
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
        assert_eq!((t.noted(12), t.noted(12 + NEXT)), (None, Some(8)), "the last note of a cell counts");
        t.forget(11);
        assert_eq!((t.noted(11), t.noted(12 + NEXT)), (None, Some(8)));
    }

    #[test]
    fn no_thread_takes_another_thread_s_cell() {
        // More notes than cells: some threads have none, and no thread reads another's.
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
        assert!(table.0.iter().all(|note| note.thread.load(Relaxed) == 0), "every cell was freed");
    }

    #[test]
    fn a_first_cell_belongs_to_one_thread_and_no_child() {
        // In a page of its own: other tests may have taken all cells of the process's.
        let page = wiped_page().expect("a page");
        // SAFETY: zeros are a valid note, and the page is never unmapped.
        let first = First(unsafe { &*page.cast() });
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
