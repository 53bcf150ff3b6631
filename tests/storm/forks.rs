//! Forks from parents with busy threads, and threads and programs that end in the middle: exec, the
//! end of a thread with a lock held, a signal handler that re-enters the cache.

use std::{
    ffi::CString,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use nix::sys::{
    pthread::{pthread_kill, pthread_self},
    signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};
use ucache::{
    Error,
    engine::{Config, Engine, Expires, Math, SetOptions, Touch},
};

use crate::{
    engine_proc::{Child, HANG, Scratch, alone, say},
    engine_value::{self, Hook},
    patience::within,
};

const UPDATE: SetOptions = SetOptions::set(Expires::Never);
const KEYS: u32 = 40;

fn cache() -> Arc<Engine> {
    let engine = Engine::create(&Config::new("forks", 500)).expect("a cache");
    for key in 0..KEYS {
        engine.set(&key.to_le_bytes(), &[1; 100], &UPDATE).expect("set");
    }
    engine
}

/// Every operation works on every key.
fn usable(engine: &Engine) {
    for key in 0..KEYS {
        engine.set(&key.to_le_bytes(), &[2; 120], &UPDATE).expect("set");
        assert!(engine_value::get(engine, &key.to_le_bytes(), Touch::Yes).expect("get").is_some());
        let other = (key + 100).to_le_bytes();
        engine.math(&other, Math::Inc, 1, &UPDATE).expect("math");
        engine.delete(&other).expect("delete");
    }
}

fn forks() -> u32 {
    std::env::var("UCACHE_FORKS")
        .map_or(300, |text| text.parse().unwrap_or_else(|_| panic!("UCACHE_FORKS={text} is not a number")))
}

#[test]
fn children_of_busy_parents_use_the_cache_at_once() {
    let _alone = alone();
    let engine = cache();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    usable(&engine);
                }
            });
        }
        for _ in 0..forks() {
            // Nothing else: the parent's threads may hold locks of the allocator, which only
            // glibc's fork handles.
            Child::fork(|| usable(&engine)).join();
        }
        over.store(true, SeqCst);
    });
    assert_eq!(engine.stats().owner_dead, 0, "nobody died with a lock");
    say(&format!("{} forks from a parent with three busy threads", forks()));
}

/// Waits with a lock held, then lets `end` run.
fn holding(engine: &Engine, inside: &Scratch, end: impl Fn()) {
    let body = || {
        inside[0].store(1, SeqCst);
        end();
    };
    let _ = engine.get_counted(&7_u32.to_le_bytes(), &mut Hook(body));
}

#[test]
fn exec_with_a_lock_held_is_a_death() {
    let _alone = alone();
    for round in 1..=10 {
        let engine = cache();
        let inside = Scratch::new(1);
        let child = Child::fork(|| {
            holding(&engine, &inside, || {
                let args = ["/bin/sleep", "60"].map(|text| CString::new(text).expect("no NUL"));
                let failed = nix::unistd::execv(&args[0], &args);
                panic!("{failed:?}");
            });
        });
        within("the child", || inside[0].load(SeqCst) == 1);
        usable(&engine);
        assert_eq!(engine.stats().owner_dead, 1, "round {round}");
        assert!(child.kill(), "another program by now, and alive");
    }
}

#[test]
fn a_thread_that_ends_with_a_lock_held_is_a_death() {
    let _alone = alone();
    for round in 1..=10 {
        let engine = cache();
        let inside = Scratch::new(1);
        let child = Child::fork(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    holding(&engine, &inside, || {
                        // SAFETY: ends only this thread; its resources stay, as after any such end.
                        unsafe { libc::syscall(libc::SYS_exit, 0) };
                    });
                });
                within("the thread", || inside[0].load(SeqCst) == 1);
                usable(&engine);
                assert_eq!(engine.stats().owner_dead, 1, "round {round}");
                inside[0].store(2, SeqCst);
                // The scope waits for a thread that will never report its end.
                thread::sleep(HANG);
            });
        });
        within("the child", || inside[0].load(SeqCst) == 2);
        assert!(child.kill());
        usable(&engine);
    }
}

static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
static DONE: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Enters the cache at any point of the thread's own operation. Allocates nothing.
extern "C" fn handler(_: libc::c_int) {
    let Some(engine) = ENGINE.get() else { return };
    for key in 0..4_u32 {
        match engine.set(&key.to_le_bytes(), &[3; 110], &UPDATE) {
            Ok(_) => DONE.fetch_add(1, SeqCst),
            Err(Error::WouldDeadlock) => REFUSED.fetch_add(1, SeqCst),
            // Any other result is wrong; the count below would not match.
            Err(_) => 0,
        };
        let _ = engine.exists(&key.to_le_bytes());
    }
}

#[test]
fn a_signal_handler_enters_the_cache_again() {
    let _alone = alone();
    let engine = ENGINE.get_or_init(cache);
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler only enters the cache, the subject of this test, and accesses atomics.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("sigaction");
    const SIGNALS: u64 = 500;
    let (worker, sent) = (pthread_self(), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while sent.load(SeqCst) < SIGNALS {
                pthread_kill(worker, Signal::SIGUSR1).expect("pthread_kill");
                sent.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_micros(100));
            }
        });
        while sent.load(SeqCst) < SIGNALS {
            for key in 0..KEYS {
                // Never refused: the handler holds nothing when it returns.
                engine.set(&key.to_le_bytes(), &[2; 120], &UPDATE).expect("set");
                assert!(engine.exists(&key.to_le_bytes()).is_some());
            }
        }
    });
    let (done, refused) = (DONE.load(SeqCst), REFUSED.load(SeqCst));
    say(&format!(
        "{SIGNALS} signals: {done} stores in handlers, {refused} refused because the thread was inside"
    ));
    assert!(done > 0 && refused > 0 && (done + refused).is_multiple_of(4), "{done} and {refused}");
    usable(engine);
    assert_eq!(engine.stats().owner_dead, 0);
}
