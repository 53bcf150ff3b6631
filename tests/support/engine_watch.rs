//! A child that single-steps its own operation and stops whenever watched memory has changed.
//!
//! On x86-64 it uses the processor's trap flag: a signal after each instruction, whose handler
//! compares. That is ten times as fast as ptrace, which is used elsewhere, and with
//! `UCACHE_STEPPER=ptrace`.

use std::{os::fd::RawFd, sync::atomic::Ordering::SeqCst};

use nix::unistd::Pid;

use crate::{
    engine_image::{Image, PAGE},
    engine_proc::{Child, Scratch},
    engine_step::Stepped,
};

/// What is watched: pages of a mapping; those of a file only up to its end.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) start: usize,
    pub(crate) pages: Vec<usize>,
    pub(crate) file: Option<RawFd>,
}

/// A child stopped before, in or after its operation.
#[derive(Debug)]
pub(crate) enum Watched {
    Itself { child: Child, words: Scratch },
    Traced { child: Stepped, image: Image },
}

/// Words shared by the self-stepping child and its watcher: whose turn it is, instructions
/// executed, where else to stop.
const TURN: usize = 0;
const STEPS: usize = 1;
const UNTIL: usize = 2;
const CHILD: u64 = 0;
const CHANGED: u64 = 1;
const ENDED: u64 = 2;

impl Watched {
    /// Forks a child that prepares and stops right before `operation`.
    pub(crate) fn new(
        places: &Places,
        prepare: impl FnOnce(),
        operation: impl FnOnce(),
        image: impl FnOnce(Pid) -> Image,
    ) -> Self {
        let traced = std::env::var("UCACHE_STEPPER").is_ok_and(|how| how == "ptrace");
        if traced || cfg!(not(target_arch = "x86_64")) {
            let child = Stepped::new(prepare, operation);
            let image = image(child.pid());
            return Self::Traced { child, image };
        }
        let words = Scratch::new(3);
        let child = Child::fork(|| {
            prepare();
            #[cfg(target_arch = "x86_64")]
            itself::run(places, &words, operation);
        });
        let mut watched = Self::Itself { child, words };
        watched.wait();
        watched
    }

    pub(crate) fn pid(&self) -> Pid {
        match self {
            Self::Itself { child, .. } => child.pid(),
            Self::Traced { child, .. } => child.pid(),
        }
    }

    /// Instructions executed.
    pub(crate) fn steps(&self) -> u64 {
        match self {
            Self::Itself { words, .. } => words[STEPS].load(SeqCst),
            Self::Traced { child, .. } => child.steps,
        }
    }

    /// Continues to the next instruction that changes watched memory; `false` = the operation has
    /// ended.
    pub(crate) fn next_change(&mut self) -> bool {
        if let Self::Traced { child, image } = self {
            while child.step() {
                if image.look() {
                    return true;
                }
            }
            return false;
        }
        if let Self::Itself { words, .. } = self
            && words[TURN].load(SeqCst) != ENDED
        {
            words[TURN].store(CHILD, SeqCst);
            futex::wake(&words[TURN]);
        }
        self.wait() == CHANGED
    }

    /// Continues until `target` instructions are executed, or to the end.
    pub(crate) fn step_to(&mut self, target: u64) {
        if let Self::Itself { words, .. } = self {
            words[UNTIL].store(target, SeqCst);
        }
        if let Self::Traced { child, .. } = self {
            while child.steps < target && child.step() {}
        } else {
            while self.steps() < target && self.next_change() {}
        }
    }

    /// Waits for the child's turn to end.
    fn wait(&mut self) -> u64 {
        let Self::Itself { child, words } = self else { return ENDED };
        loop {
            match words[TURN].load(SeqCst) {
                CHILD => {
                    futex::wait(&words[TURN], CHILD);
                    if words[TURN].load(SeqCst) == CHILD
                        && let Some(how) = child.try_end()
                    {
                        panic!("the stepped child ended by itself: {how:?}");
                    }
                }
                turn => return turn,
            }
        }
    }

    /// Sends SIGKILL at the current instruction.
    pub(crate) fn kill(self) {
        match self {
            Self::Itself { child, .. } => assert!(child.kill(), "the stepped child ended by itself"),
            Self::Traced { child, .. } => child.kill(),
        }
    }
}

/// Sleeping on a word that two processes share.
mod futex {
    use std::{ptr, sync::atomic::AtomicU64};

    /// Sleeps for a tenth of a second at most, unless the word's low half differs.
    pub(super) fn wait(word: &AtomicU64, while_it_is: u64) {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let low = u32::try_from(while_it_is).expect("a small number");
        // SAFETY: the word and the time are valid for the call, which writes to neither.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, low, &raw const time) };
    }

    pub(super) fn wake(word: &AtomicU64) {
        let none = ptr::null::<libc::timespec>();
        // SAFETY: as in `wait`.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1, none) };
    }
}

/// The child's side. The handler calls nothing that takes a lock or allocates.
#[cfg(target_arch = "x86_64")]
mod itself {
    use std::{
        arch::asm,
        mem::MaybeUninit,
        ptr::{self, NonNull},
        sync::atomic::{
            AtomicPtr,
            Ordering::{Relaxed, SeqCst},
        },
    };

    use super::{CHANGED, CHILD, ENDED, PAGE, Places, STEPS, Scratch, TURN, UNTIL, futex};

    /// The handler's data, created before the first step.
    struct Watch {
        places: Places,
        seen: Vec<u8>,
        words: NonNull<Scratch>,
    }

    static WATCH: AtomicPtr<Watch> = AtomicPtr::new(ptr::null_mut());
    const STACK: usize = 256 << 10;

    pub(super) fn run(places: &Places, words: &Scratch, operation: impl FnOnce()) {
        let seen = vec![0; places.pages.len() * PAGE];
        let watch = Box::leak(Box::new(Watch { places: places.clone(), seen, words: NonNull::from(words) }));
        watch.look();
        WATCH.store(watch, SeqCst);
        handle();
        stop(words);
        flag(true);
        operation();
        flag(false);
        words[TURN].store(ENDED, SeqCst);
        futex::wake(&words[TURN]);
        loop {
            futex::wait(&words[TURN], ENDED);
        }
    }

    /// Hands the turn to the watcher.
    fn stop(words: &Scratch) {
        words[TURN].store(CHANGED, SeqCst);
        futex::wake(&words[TURN]);
        while words[TURN].load(SeqCst) != CHILD {
            futex::wait(&words[TURN], CHANGED);
        }
    }

    fn handle() {
        let stack = libc::stack_t {
            ss_sp: Box::leak(vec![0_u8; STACK].into_boxed_slice()).as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: STACK,
        };
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the stack is never freed; the handler is async-signal-safe (it reads memory,
        // stores atomics and makes bare system calls). An action of zeros except for handler and
        // flags is valid.
        unsafe {
            let handler: extern "C" fn(libc::c_int) = on_step;
            (*action.as_mut_ptr()).sa_sigaction = handler as usize;
            (*action.as_mut_ptr()).sa_flags = libc::SA_ONSTACK;
            assert_eq!(libc::sigaltstack(&raw const stack, ptr::null_mut()), 0, "sigaltstack");
            assert_eq!(libc::sigaction(libc::SIGTRAP, action.as_ptr(), ptr::null_mut()), 0, "sigaction");
        }
    }

    /// Turns traps after every instruction on or off.
    #[inline(always)]
    fn flag(on: bool) {
        // SAFETY: changes only the trap flag, whose signal is handled; the stack is restored.
        unsafe {
            if on {
                asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
            } else {
                asm!("pushfq", "and qword ptr [rsp], -257", "popfq");
            }
        }
    }

    extern "C" fn on_step(_signal: libc::c_int) {
        // SAFETY: created by `run`, used by no other code, and this handler does not interrupt
        // itself; errno is per thread.
        let (watch, errno) = unsafe { (&mut *WATCH.load(Relaxed), libc::__errno_location()) };
        // SAFETY: the words outlive the child.
        let words = unsafe { watch.words.as_ref() };
        let steps = words[STEPS].load(Relaxed) + 1;
        words[STEPS].store(steps, Relaxed);
        // SAFETY: valid for this thread.
        let kept = unsafe { *errno };
        if watch.look() || steps == words[UNTIL].load(Relaxed) {
            stop(words);
        }
        // SAFETY: as above.
        unsafe { *errno = kept };
    }

    impl Watch {
        /// Compares again; whether anything changed.
        fn look(&mut self) -> bool {
            let end = self.places.file.map_or(u64::MAX, length);
            let mut changed = false;
            for (&page, seen) in self.places.pages.iter().zip(self.seen.chunks_exact_mut(PAGE)) {
                // Pages beyond the end of a file cannot be read.
                if ((page + 1) * PAGE) as u64 > end {
                    continue;
                }
                let at = (self.places.start + page * PAGE) as *const u8;
                // SAFETY: a page of a mapping that lasts as long as the child, whose only thread is
                // in this handler.
                unsafe {
                    if libc::memcmp(at.cast(), seen.as_ptr().cast(), PAGE) != 0 {
                        ptr::copy_nonoverlapping(at, seen.as_mut_ptr(), PAGE);
                        changed = true;
                    }
                }
            }
            changed
        }
    }

    fn length(file: libc::c_int) -> u64 {
        let mut stat = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the buffer is a valid stat.
        let size = unsafe {
            libc::fstat(file, stat.as_mut_ptr());
            stat.assume_init().st_size
        };
        u64::try_from(size).unwrap_or(0)
    }
}
