//! SIGBUS handler for mapped files that other programs may truncate. Touching a page that is gone
//! raises SIGBUS; the handler maps zeros there and marks the file, so that every user of it sees
//! that it is gone.
//!
//! The handler calls only async-signal-safe functions (`fstat`, `mmap`), takes no lock, and passes
//! on signals that are not its own.

use std::{
    os::fd::AsRawFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering},
};

use super::{dir_entry::FileId, file::StoreFile, page::page_size};
use crate::error::{Error, Result};

/// Maximum number of guarded mappings of one process.
const MAX_WATCHED: usize = 128;

/// What to change on a file's first page when a page behind it turns out to be gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SigbusWords {
    /// Offsets of two words to add 1 to, multiples of 8 on the first page.
    pub(crate) advance: [usize; 2],
}

/// A guarded mapping; `start` 0 = unused, 1 = being written.
struct Cell {
    start: AtomicUsize,
    len: AtomicUsize,
    fd: AtomicI32,
    dev: AtomicU64,
    ino: AtomicU64,
    advance: [AtomicUsize; 2],
}

static CELLS: [Cell; MAX_WATCHED] = [const {
    Cell {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        fd: AtomicI32::new(-1),
        dev: AtomicU64::new(0),
        ino: AtomicU64::new(0),
        advance: [AtomicUsize::new(0), AtomicUsize::new(0)],
    }
}; MAX_WATCHED];

/// The previous SIGBUS handler and its flags.
static BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static BEFORE_FLAGS: AtomicI32 = AtomicI32::new(0);
/// Where a signal is being passed on: its information and a stack address. The previous handler may
/// have installed itself again in front of this one, and pass the signal back.
static PASSING: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// Guards one mapping; dropped before the range is unmapped.
#[derive(Debug)]
pub(crate) struct Watch(usize);

impl Watch {
    /// Guards `len` bytes at `start`, a mapping of `file`. The handler stays for the life of the
    /// process.
    ///
    /// # Errors
    /// [`Error::Os`] when the handler cannot be installed or too many mappings are guarded.
    pub(super) fn new(start: NonNull<u8>, len: usize, file: &StoreFile, guard: SigbusWords) -> Result<Self> {
        PAGE.store(page_size(), Ordering::Relaxed);
        install()?;
        let free =
            |cell: &Cell| cell.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let at = CELLS.iter().position(free).ok_or_else(|| Error::Os {
            call: "store_guard (at most 128 stores a process)",
            source: std::io::Error::from_raw_os_error(libc::ENOSPC),
        })?;
        let (cell, FileId { dev, ino }) = (&CELLS[at], file.id());
        cell.len.store(len, Ordering::Relaxed);
        cell.fd.store(file.as_raw_fd(), Ordering::Relaxed);
        cell.dev.store(dev, Ordering::Relaxed);
        cell.ino.store(ino, Ordering::Relaxed);
        for (word, offset) in cell.advance.iter().zip(guard.advance) {
            word.store(offset, Ordering::Relaxed);
        }
        cell.start.store(start.as_ptr() as usize, Ordering::Release);
        Ok(Self(at))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        CELLS[self.0].start.store(0, Ordering::Release);
    }
}

/// Installs the handler unless it is the current one.
fn install() -> Result<()> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: all-zero is a valid sigaction; the handler has the signature that SA_SIGINFO
    // requires. Two threads that run this at once see and install the same.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut old) != 0 {
            return Err(Error::last_os("sigaction"));
        }
        if old.sa_sigaction == handler as usize {
            return Ok(());
        }
        BEFORE_FLAGS.store(old.sa_flags, Ordering::Relaxed);
        BEFORE.store(old.sa_sigaction, Ordering::Release);
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler as usize;
        // NODEFER: the handler itself may fault on the first page.
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        if libc::sigaction(libc::SIGBUS, &raw const new, ptr::null_mut()) != 0 {
            return Err(Error::last_os("sigaction"));
        }
    }
    Ok(())
}

/// Unblocks SIGBUS in the calling thread. Where it is blocked, as in uWSGI's own threads, a fault
/// ends the process whatever the handler.
pub(crate) fn admit() {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` writes the set before the others use it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; errno is this thread's.
    let (code, at, errno) =
        unsafe { ((*info).si_code, (*info).si_addr() as usize, *libc::__errno_location()) };
    let hit = CELLS.iter().find_map(|cell| {
        let (start, len) = (cell.start.load(Ordering::Acquire), cell.len.load(Ordering::Relaxed));
        (start > 1 && at >= start && at - start < len).then_some((cell, start, len))
    });
    match hit {
        Some((cell, start, len)) if code == libc::BUS_ADRERR && bury(cell, at - start, start, len) => {}
        _ => pass_on(signal, info, context),
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Maps zeros where the file is gone; `false` = impossible.
fn bury(cell: &Cell, fault: usize, start: usize, len: usize) -> bool {
    let page = PAGE.load(Ordering::Relaxed);
    // The remaining length of the file; after a disk error, or if the descriptor was reused,
    // nothing. SAFETY: all-zero is a valid stat; fstat may be called in a handler.
    let end = unsafe {
        let mut meta: libc::stat = std::mem::zeroed();
        let same = libc::fstat(cell.fd.load(Ordering::Relaxed), &raw mut meta) == 0
            && meta.st_dev == cell.dev.load(Ordering::Relaxed)
            && meta.st_ino == cell.ino.load(Ordering::Relaxed);
        if same { usize::try_from(meta.st_size).unwrap_or(0).next_multiple_of(page) } else { 0 }
    };
    let end = if end <= fault && end > page { end } else { 0 };
    if fault >= page {
        for offset in &cell.advance {
            let word = start + offset.load(Ordering::Relaxed);
            // SAFETY: a word of the mapping's first page, aligned, only ever used as an atomic. If
            // that page is gone, too, this handler runs again inside itself and maps zeros there.
            unsafe { AtomicU64::from_ptr(word as *mut u64) }.fetch_add(1, Ordering::AcqRel);
        }
    }
    // Shared: private memory of the store's length may exceed RLIMIT_DATA.
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: replaces pages of a mapping that its owner keeps mapped while the cell is set; all
    // accesses are atomics or copies that may see zeros.
    let p = unsafe {
        let from = (start + end) as *mut libc::c_void;
        libc::mmap(from, len - end, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    p != libc::MAP_FAILED
}

/// Passes the signal to the previous handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let here = (&raw const info).addr();
    // Same signal, deeper on the stack: the previous handler passed it back.
    let [passed, from] = PASSING.each_ref().map(|word| word.load(Ordering::Acquire));
    let is_back = passed == info.addr() && here < from;
    let old = if is_back { libc::SIG_DFL } else { BEFORE.load(Ordering::Acquire) };
    PASSING[0].store(info.addr(), Ordering::Release);
    PASSING[1].store(here, Ordering::Release);
    match (old, BEFORE_FLAGS.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0) {
        (libc::SIG_DFL | libc::SIG_IGN, _) => {
            // SAFETY: with the default action in place the access faults again, and the process
            // ends as without this handler.
            unsafe {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                if (*info).si_code <= 0 {
                    // Sent by a process: there is no access to fault again.
                    libc::raise(signal);
                }
            }
        }
        (handler, true) => {
            // SAFETY: the kernel would have called this address with these arguments (SA_SIGINFO).
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        (handler, false) => {
            // SAFETY: as above, without SA_SIGINFO.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
    PASSING[0].store(0, Ordering::Release);
}
