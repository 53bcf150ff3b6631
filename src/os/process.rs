//! Process identity: threads as owners in shared memory, forks, randomness, the boot.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, Read, Write},
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

use once_cell::race::OnceBox;

use super::{cancel::Shield, page::page_size};
use crate::error::{Error, Result};

/// A thread that owns something in shared memory: its id and its start time (ids are reused).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    /// The calling thread; looked up once per thread and fork.
    pub(crate) fn me() -> Self {
        thread_local! { static ME: Cell<(u32, u64)> = const { Cell::new((0, 0)) } }
        let forks = fork_count();
        let (at, word) = ME.get();
        if at == forks {
            return Self(word);
        }
        let tid = thread_id();
        let start = if let Thread::Started(start) = thread(tid) { start } else { UNKNOWN };
        let word = u64::from(tid) << 32 | u64::from(start);
        ME.set((forks, word));
        Self(word)
    }

    /// As a word for shared memory; 0 = no owner.
    pub(crate) fn to_word(self) -> u64 {
        self.0
    }

    /// From a word of shared memory.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Whether the thread is known to have ended. Used for counters and leases, never to break a
    /// lock.
    pub(crate) fn is_dead(self) -> bool {
        let (tid, start) = ((self.0 >> 32) as u32, self.0 as u32);
        match thread(tid) {
            _ if tid == 0 => false,
            Thread::Ended => true,
            Thread::Started(now) => start != UNKNOWN && now != start,
            Thread::Hidden => false,
        }
    }
}

/// The start time of a thread that could not read its own.
const UNKNOWN: u32 = 1;

/// What is known about a thread.
enum Thread {
    /// It does not exist, or is a zombie.
    Ended,
    /// Its start, in clock ticks since boot (low 32 bits, above [`UNKNOWN`]).
    Started(u32),
    /// It exists, but `/proc` shows no more (not mounted, `hidepid`).
    Hidden,
}

/// The calling thread's id from the kernel, not the C library's cached one.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// The id of the thread that the process began with, or that `fork` made.
pub(crate) fn first_thread_id() -> u32 {
    // SAFETY: getpid has no preconditions.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// Whether the kernel has a robust list for a thread of this process; `None` = unknown.
pub(crate) fn has_robust_list(tid: u32) -> Option<bool> {
    let (mut head, mut len) = (ptr::null_mut::<libc::c_void>(), 0_usize);
    // SAFETY: two variables for the results.
    let rc = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) };
    (rc == 0).then_some(!head.is_null())
}

/// Whether no thread has that id in this PID namespace, or only a zombie.
pub(crate) fn has_ended(tid: u32) -> bool {
    matches!(thread(tid), Thread::Ended)
}

/// Whether `/proc` uses the same PID namespace as this process; not so if it was mounted in an
/// outer one.
fn is_proc_ours() -> bool {
    // Without malloc, like `read_stat`.
    let (mut link, mut own) = ([0u8; 16], [0u8; 16]);
    // SAFETY: a string that ends with a NUL, and a buffer of the given length.
    let n = unsafe { libc::readlink(c"/proc/self".as_ptr(), link.as_mut_ptr().cast(), link.len()) };
    let mut rest = &mut own[..];
    usize::try_from(n).is_ok() && write!(rest, "{}", first_thread_id()).is_ok() && link == own
}

fn thread(tid: u32) -> Thread {
    let _shield = Shield::raise();
    let mut room = [0; 1024];
    let stat = if is_proc_ours() { read_stat(tid, &mut room) } else { None };
    let Some(stat) = stat.filter(|stat| !stat.is_empty()) else {
        // SAFETY: signal 0 is not delivered: the call only checks whether the thread exists.
        let rc = unsafe { libc::syscall(libc::SYS_tkill, tid, 0) };
        let gone = rc != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
        return if gone { Thread::Ended } else { Thread::Hidden };
    };
    started(stat).unwrap_or(Thread::Hidden)
}

/// The start of `/proc/TID/stat`, without malloc: a repair uses it, possibly when out of memory.
fn read_stat(tid: u32, room: &mut [u8; 1024]) -> Option<&[u8]> {
    let mut path = [0; 32];
    let mut rest = &mut path[..];
    write!(rest, "/proc/{tid}/stat").ok()?;
    let left = rest.len();
    let path = std::str::from_utf8(&path[..path.len() - left]).ok()?;
    let mut file = File::open(path).ok()?;
    let mut len = 0;
    while len < room.len() {
        match file.read(&mut room[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(&room[..len])
}

/// Reads `/proc/TID/stat`.
fn started(stat: &[u8]) -> Option<Thread> {
    // The name in parentheses may hold any character: count fields after the last ')'.
    let after = stat.iter().rposition(|&b| b == b')')?;
    let mut fields = stat.get(after + 2..)?.split(|&b| b == b' ');
    let state = fields.next()?;
    if matches!(state, b"Z" | b"X") {
        return Some(Thread::Ended);
    }
    let ticks: u64 = std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    Some(Thread::Started((ticks as u32).max(UNKNOWN + 1)))
}

/// Identifies the PID namespace, never 0; `Ok(0)` = this system does not say.
pub(crate) fn pid_namespace() -> Result<u64> {
    namespace("stat of /proc/self/ns/pid", "/proc/self/ns/pid")
}

/// Identifies the time namespace, which offsets the clocks that count from boot.
pub(crate) fn time_namespace() -> Result<u64> {
    namespace("stat of /proc/self/ns/time", "/proc/self/ns/time")
}

fn namespace(call: &'static str, path: &str) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(told(call, fs::metadata(path))?.map_or(0, |ns| ns.ino() ^ ns.dev().rotate_left(32)))
}

/// The answer of `/proc`; `None` = it never answers this (not mounted, not permitted).
///
/// # Errors
/// The question failed this time: a shortage of descriptors must not count as "never answers".
fn told<T>(call: &'static str, asked: io::Result<T>) -> Result<Option<T>> {
    match asked {
        Ok(told) => Ok(Some(told)),
        Err(source) => match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EIO) => {
                Err(Error::Os { call, source })
            }
            _ => Ok(None),
        },
    }
}

/// Forks that led to this process, counted when noticed; starts at 1.
static FORKS: AtomicU32 = AtomicU32::new(1);
/// The word that holds [`FORKS`] here and 0 in a child that has not looked yet; [`NOBODY`] = not
/// created yet.
static WITNESS: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const NOBODY).cast_mut());
/// Used before the first call.
static NOBODY: AtomicU32 = AtomicU32::new(0);

/// Changes in the child of every `fork`, also of a bare system call (the kernel wipes the page).
/// Never 0.
#[inline]
pub(crate) fn fork_count() -> u32 {
    match fork_mark() {
        0 => count_fork(),
        forks => forks,
    }
}

/// [`fork_count`] if it has been called in this process, else 0.
#[inline]
pub(crate) fn fork_mark() -> u32 {
    // SAFETY: the page behind WITNESS is never unmapped, and only accessed as an atomic.
    unsafe { &*WITNESS.load(Ordering::Acquire) }.load(Ordering::Relaxed)
}

#[cold]
fn count_fork() -> u32 {
    let nobody = (&raw const NOBODY).cast_mut();
    let mut witness = WITNESS.load(Ordering::Acquire);
    if witness == nobody {
        let made = witness_page().cast_mut();
        witness = match WITNESS.compare_exchange(nobody, made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            // Another thread was first; the extra page is not worth freeing.
            Err(theirs) => theirs,
        };
    }
    // SAFETY: as in `fork_mark`.
    let word = unsafe { &*witness };
    if word.load(Ordering::Relaxed) == 0 {
        let forks = FORKS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        word.store(forks, Ordering::Relaxed);
    }
    word.load(Ordering::Relaxed)
}

/// A word in a page that the kernel wipes in a child. Before Linux 4.14 it does not: then
/// `pthread_atfork` counts.
fn witness_page() -> *const AtomicU32 {
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(page) = wiped_page() {
        let word = page.cast::<AtomicU32>();
        // SAFETY: our own page, never unmapped.
        unsafe { (*word).store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed) };
        return word;
    }
    // SAFETY: the handler touches nothing but an atomic.
    unsafe { libc::pthread_atfork(None, None, Some(count)) };
    &raw const FORKS
}

/// A page of zeros that is never unmapped and that the kernel wipes in every child of fork; `None`
/// = unsupported.
pub(super) fn wiped_page() -> Option<*mut u8> {
    let len = page_size();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new private mapping that no other code knows; the advice touches nothing else.
    unsafe {
        let p = libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if p == libc::MAP_FAILED {
            return None;
        }
        if libc::madvise(p, len, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(p, len);
            return None;
        }
        Some(p.cast())
    }
}

/// Fills `words` with random bits from the kernel.
pub(crate) fn random_words(words: &mut [u64]) {
    let _shield = Shield::raise();
    let len = size_of_val(words);
    // SAFETY: the buffer has `len` bytes and any bits make a valid u64.
    let got = unsafe { libc::getrandom(words.as_mut_ptr().cast(), len, 0) };
    if usize::try_from(got) != Ok(len) {
        // Before Linux 3.17 or under a strict seccomp filter: use addresses and the clock.
        for (i, w) in (0u64..).zip(words.iter_mut()) {
            let t = super::clock::monotonic();
            *w = (t.as_nanos() as u64 ^ (w as *const u64 as u64))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15 | (i << 1));
        }
    }
}

/// Identity of the running kernel, 0 if unknown.
pub(crate) fn boot_id() -> Result<u64> {
    // Two threads may both initialise it: a child forked meanwhile must not wait for its parent's
    // thread.
    static ID: OnceBox<u64> = OnceBox::new();
    if let Some(&id) = ID.get() {
        return Ok(id);
    }
    let _shield = Shield::raise();
    let path = "/proc/sys/kernel/random/boot_id";
    let text = told("read of /proc/sys/kernel/random/boot_id", fs::read_to_string(path))?;
    let hex = text.iter().flat_map(|text| text.chars()).filter(char::is_ascii_hexdigit).take(16);
    let id = hex.fold(0, |id, digit| id << 4 | u64::from(digit.to_digit(16).unwrap_or(0)));
    Ok(*ID.get_or_init(|| Box::new(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_question_is_not_an_unanswered_one() {
        let asked = |errno: i32| told("call", Err::<(), _>(io::Error::from_raw_os_error(errno)));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO] {
            assert!(matches!(asked(errno), Err(Error::Os { call: "call", .. })), "{errno}");
        }
        for errno in [libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOTDIR] {
            assert!(matches!(asked(errno), Ok(None)), "{errno}");
        }
        assert!(matches!(told("call", Ok(7)), Ok(Some(7))));
        assert_ne!(boot_id().expect("/proc"), 0);
    }

    #[test]
    fn the_start_of_a_thread_is_read_without_malloc() {
        // SAFETY: gettid has no preconditions.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
        let whole = fs::read_to_string(format!("/proc/{tid}/stat")).expect("/proc");
        let mut room = [0; 1024];
        let read = read_stat(tid, &mut room).expect("/proc");
        assert_eq!(read.split(|&b| b == b' ').next(), Some(tid.to_string().as_bytes()));
        assert_eq!(
            whole.split(' ').nth(21),
            read.split(|&b| b == b' ').nth(21).and_then(|w| std::str::from_utf8(w).ok())
        );
        assert!(read_stat(u32::MAX, &mut room).is_none());
    }
}
