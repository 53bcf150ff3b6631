//! Containers: processes in their own PID and time namespaces, and without a `/proc` that shows
//! others. Also children not created through the C library.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/private_mounts.rs"]
mod private_mounts;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use engine_proc::{Child, Scratch, alone};
use engine_value::Bytes;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use patience::within;
use private_mounts::unshare_mounts;
use ucache::{
    Cache, Error, StoreFault,
    engine::{Config, Engine, Expires, Math, SetOptions, Store, Touch},
};

const ROOT: &str = "this test makes namespaces: run it as root, with CAP_SYS_ADMIN";

/// Runs `body` as the first process of a new PID namespace.
fn in_a_container(body: impl Fn()) {
    Child::fork(|| {
        unshare(CloneFlags::CLONE_NEWPID).expect(ROOT);
        Child::fork(|| {
            assert_eq!(std::process::id(), 1);
            body();
        })
        .join();
    })
    .join();
}

/// Locks identify their owners by thread ids, which two namespaces assign independently: users of
/// one store share one.
#[test]
fn a_store_has_users_of_one_pid_namespace() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let open = || Cache::attach(&path);
    let here = Cache::builder("shared").items(100).store(&path).build().expect("a store");
    here.set("from", "outside").expect("set");
    in_a_container(|| {
        let refused = open();
        let Err(Error::Store { fault, .. }) = refused else { panic!("{refused:?}") };
        assert!(matches!(fault, StoreFault::PidNamespace), "{fault}");
    });
    assert_eq!(here.get_str("from").expect("get").as_deref(), Some("outside"));
    drop(here);
    // The first user of an unused store determines the namespace.
    in_a_container(|| {
        let inside = open().expect("a store");
        assert_eq!(inside.get_str("from").expect("get").as_deref(), Some("outside"));
        Child::fork(|| assert!(open().is_ok(), "of the same namespace")).join();
    });
    open().expect("a store");
}

const UPDATE: SetOptions = SetOptions::set(Expires::Never);

fn set(engine: &Engine, key: &str, value: &str) -> Result<(), Error> {
    engine.set(key.as_bytes(), value.as_bytes(), &UPDATE).map(drop)
}

/// The value of the key "from", read with and without the shard's lock.
fn assert_readable(engine: &Engine) {
    let (mut plain, mut counted) = (Bytes::default(), Bytes::default());
    assert!(engine.get(b"from", Touch::Yes, &mut plain).expect("get").is_some());
    assert!(engine.get_counted(b"from", &mut counted).expect("get_counted").is_some());
    assert_eq!((&plain.0[..], &counted.0[..]), (&b"outside"[..], &b"outside"[..]));
}

/// Everything that needs a lock is refused with `reason`; reads work.
fn assert_foreign(engine: &Engine, reason: &str) {
    assert_readable(engine);
    let lease = Duration::from_secs(1);
    let refused = [
        set(engine, "from", "inside"),
        engine.delete(b"from").map(drop),
        engine.math(b"number", Math::Inc, 1, &UPDATE).map(drop),
        engine.begin_fill(b"page", lease, lease, &mut Bytes::default()).map(drop),
        engine.sweep().map(drop),
        engine.exclusive_begin(),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        let Err(Error::ForeignProcess(why)) = refused else { panic!("{number}: {refused:?}") };
        assert!(why.contains(reason), "{number}: {why}");
    }
}

fn outside(store: Option<&Path>) -> Arc<Engine> {
    let mut config = Config::new("outside", 100);
    config.lock_timeout = Duration::from_millis(200);
    config.store = store.map(|path| Store { path: path.to_owned(), delete_unusable: false });
    let engine = Engine::create(&config).expect("a cache");
    set(&engine, "from", "outside").expect("set");
    engine
}

/// No process was delayed, nothing is left behind.
fn assert_untouched(engine: &Engine) {
    assert_readable(engine);
    set(engine, "from", "outside").expect("set");
    engine.math(b"number", Math::Inc, 1, &UPDATE).expect("math");
    engine.sweep().expect("sweep");
    let stats = engine.stats();
    assert_eq!((stats.owner_dead, stats.timeouts, stats.lock_lost), (0, 0, 0));
}

/// glibc writes the parent's thread id into the locks of a child created by a bare system call, and
/// the kernel does not release them when it dies.
#[test]
fn a_bare_clone_may_not_write_and_its_threads_and_children_may() {
    let _alone = alone();
    let cache = outside(None);
    Child::clone_bare(|| {
        assert_foreign(&cache, "bare fork or clone");
        scope(|threads| {
            threads.spawn(|| set(&cache, "thread", "of the C library's").expect("set"));
        });
        assert_foreign(&cache, "bare fork or clone");
        Child::fork(|| set(&cache, "child", "of the C library's").expect("set")).join();
        assert_foreign(&cache, "bare fork or clone");
    })
    .join();
    assert_untouched(&cache);
    for key in ["thread", "child"] {
        assert!(cache.exists(key.as_bytes()).is_some(), "{key}");
    }
}

/// The same through the C interface and in uWSGI.
#[test]
fn a_bare_clone_is_told_so_in_c() {
    use std::ptr;

    use ucache::capi::{
        compat::{
            lifecycle::uwsgi_cache_create,
            raw::{uwsgi_cache_exists2, uwsgi_cache_set2},
        },
        handle::{
            error::ucache_error,
            open::{ucache_close, ucache_open},
            status::ucache_strerror,
            store::ucache_set,
        },
    };
    let _alone = alone();
    let said = |text| {
        // SAFETY: a string of the library.
        unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let mut handle = ptr::null_mut();
    // SAFETY: a variable for the handle, and a string that ends with a NUL.
    assert_eq!(unsafe { ucache_open(&raw mut handle, c"name=short,items=100".as_ptr()) }, 0);
    // SAFETY: as above.
    let uwsgi = unsafe { uwsgi_cache_create(c"name=uwsgi,items=100".as_ptr()) };
    Child::clone_bare(|| {
        // SAFETY: a handle, key and value of one byte each.
        let status = unsafe { ucache_set(handle, c"k".as_ptr().cast(), 1, c"v".as_ptr().cast(), 1, 0) };
        assert_eq!(
            (status, said(ucache_strerror(status))),
            (-16, "the calling process may not write to the cache".to_owned())
        );
        assert!(said(ucache_error()).contains("bare fork or clone"), "{}", said(ucache_error()));
        // SAFETY: a cache of this library, key and value of one byte each.
        unsafe {
            assert_eq!(uwsgi_cache_set2(uwsgi, c"k".as_ptr(), 1, c"v".as_ptr(), 1, 0, 0), -1);
            assert_eq!(uwsgi_cache_exists2(uwsgi, c"k".as_ptr(), 1), 0);
        }
    })
    .join();
    // SAFETY: the handle, closed here.
    unsafe { ucache_close(handle) };
}

/// Two namespaces use the same thread ids, and neither notices the deaths of the other's threads.
#[test]
fn a_child_in_another_pid_namespace_may_not_write() {
    let _alone = alone();
    let cache = outside(None);
    in_a_container(|| {
        assert_foreign(&cache, "another PID namespace");
        Child::fork(|| assert_foreign(&cache, "another PID namespace")).join();
        // A cache created here, with children, works as usual.
        let own = Cache::builder("inside").items(100).build().expect("a cache");
        Child::fork(|| {
            own.set("child", "v").expect("set");
        })
        .join();
        own.set("own", "v").expect("set");
        assert_eq!(own.stats().items, 2);
    });
    assert_untouched(&cache);
}

/// The opener of a store has ended, and its child in another namespace continues.
#[test]
fn a_store_inherited_into_another_pid_namespace_is_not_written_there() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let words = Scratch::new(1);
    let opener = Child::fork(|| {
        let cache = outside(Some(&path));
        unshare(CloneFlags::CLONE_NEWPID).expect(ROOT);
        // SAFETY: the child continues after its parent has ended, and ends by itself.
        if unsafe { libc::fork() } == 0 {
            words[0].store(1, SeqCst);
            within("the other user", || words[0].load(SeqCst) == 2);
            assert_foreign(&cache, "another PID namespace");
            words[0].store(3, SeqCst);
            // SAFETY: ends this process and nothing else.
            unsafe { libc::_exit(0) };
        }
        within("the child", || words[0].load(SeqCst) == 1);
        // SAFETY: as above; the child keeps the store in use.
        unsafe { libc::_exit(0) };
    });
    opener.join();
    let here = Engine::attach(&path).expect("the store of this namespace");
    set(&here, "here", "v").expect("set");
    words[0].store(2, SeqCst);
    within("the child", || words[0].load(SeqCst) == 3);
    assert_untouched(&here);
}

/// In another time namespace threads have other start times, so live ones look dead, and leases end
/// early or late.
#[test]
fn a_child_in_another_time_namespace_may_not_write() {
    const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let (cache, words) = (outside(None), Scratch::new(1));
    let store = outside(Some(&path));
    Child::fork(|| {
        unshare(CLONE_NEWTIME).expect(ROOT);
        fs::write("/proc/self/timens_offsets", "monotonic 9000 0\nboottime 9000 0\n").expect(ROOT);
        Child::fork(|| {
            assert_foreign(&cache, "another time namespace");
            let refused = Cache::attach(&path);
            let Err(Error::Store { fault, .. }) = refused else { panic!("{refused:?}") };
            assert!(matches!(fault, StoreFault::TimeNamespace), "{fault}");
            words[0].store(1, SeqCst);
        })
        .join();
    })
    .join();
    assert_eq!(words[0].load(SeqCst), 1);
    assert_untouched(&cache);
    assert_untouched(&store);
}

/// `unshare --pid --fork` without `--mount-proc`: `/proc` shows other threads with the same ids.
#[test]
fn a_dead_filler_is_noticed_where_proc_is_the_outer_one() {
    let _alone = alone();
    let namesake = Child::fork(|| sleep(Duration::from_secs(300)));
    in_a_container(|| {
        let cache = Cache::builder("outer proc").items(100).build().expect("a cache");
        let before = namesake.pid().as_raw() - 1;
        fs::write("/proc/sys/kernel/ns_last_pid", before.to_string()).expect(ROOT);
        let began = Scratch::new(1);
        let filler = Child::fork(|| {
            let _ = cache.get_or_set_with("dead", |_| {
                began[0].store(1, SeqCst);
                sleep(Duration::from_secs(60));
                "never"
            });
        });
        assert_eq!(filler.pid(), namesake.pid());
        within("the filler to begin", || began[0].load(SeqCst) == 1);
        assert!(filler.kill());
        let start = Instant::now();
        assert_eq!(cache.get_or_set_with("dead", |_| "taken over").expect("filled"), b"taken over");
        assert!(start.elapsed() < Duration::from_secs(20), "the lease of 30 seconds was waited for");
    });
}

/// `udp=` with a multicast group: all servers of a machine receive the datagrams of each.
#[test]
fn servers_of_a_multicast_group_hear_each_other() {
    use std::{ffi::CString, process::Command};

    use ucache::capi::compat::{
        lifecycle::uwsgi_cache_create,
        raw::{uwsgi_cache_exists2, uwsgi_cache_set2},
    };

    unsafe extern "C" {
        safe fn uwsgi_cache_start_sync_servers();
    }
    let _alone = alone();
    Child::fork(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect(ROOT);
        for line in ["link set lo up", "route add 224.0.0.0/4 dev lo"] {
            let done = Command::new("ip").args(line.split(' ')).status();
            assert!(done.expect("ip runs (apt-get install iproute2)").success(), "ip {line}");
        }
        let words = Scratch::new(2);
        let server = |number: usize| {
            let group = "225.1.1.1:17170";
            let definition =
                CString::new(format!("name=c,items=100,udp={group},nodes={group}")).expect("no NUL");
            // SAFETY: a string that ends with a NUL.
            let cache = unsafe { uwsgi_cache_create(definition.as_ptr()) };
            assert!(!cache.is_null());
            uwsgi_cache_start_sync_servers();
            // Its socket opens a moment later.
            sleep(Duration::from_millis(300));
            words[number].store(1, SeqCst);
            within("both servers", || words[0].load(SeqCst) > 0 && words[1].load(SeqCst) > 0);
            let (own, other) = ([b'k', number as u8], [b'k', 1 - number as u8]);
            // SAFETY: a cache of this library, keys and value of their lengths.
            unsafe { uwsgi_cache_set2(cache, own.as_ptr().cast(), 2, c"v".as_ptr(), 1, 0, 0) };
            // SAFETY: as above.
            within(
                "the other's key",
                || unsafe { uwsgi_cache_exists2(cache, other.as_ptr().cast(), 2) } != 0,
            );
            words[number].store(2, SeqCst);
            within("both", || words[1 - number].load(SeqCst) == 2);
        };
        let both = [0, 1].map(|number| Child::fork(move || server(number)));
        both.into_iter().for_each(Child::join);
    })
    .join();
}

/// Runs `body` in a process with an empty `/proc`.
fn without_proc(body: impl Fn()) {
    Child::fork(|| {
        unshare_mounts();
        mount(Some("none"), "/proc", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
        assert!(std::fs::read("/proc/self/stat").is_err());
        body();
    })
    .join();
}

/// A thread about which nothing is known counts as alive while it exists, and one caller fills a
/// key.
#[test]
fn owners_that_cannot_be_seen_are_alive_until_they_end() {
    let _alone = alone();
    without_proc(|| {
        let cache = Cache::builder("hidden").items(100).build().expect("a cache");
        let calls = AtomicU32::new(0);
        scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    let fill = |_: &str| {
                        calls.fetch_add(1, SeqCst);
                        sleep(Duration::from_millis(300));
                        "value"
                    };
                    assert_eq!(cache.get_or_set_with("page", fill).expect("filled"), b"value");
                });
            }
        });
        assert_eq!(calls.load(SeqCst), 1);
        // A dead one does not exist: another caller takes over long before its lease ends.
        let began = Scratch::new(1);
        let filler = Child::fork(|| {
            let _ = cache.get_or_set_with("dead", |_| {
                began[0].store(1, SeqCst);
                sleep(Duration::from_secs(60));
                "never"
            });
        });
        within("the filler to begin", || began[0].load(SeqCst) == 1);
        assert!(filler.kill());
        let start = Instant::now();
        assert_eq!(cache.get_or_set_with("dead", |_| "taken over").expect("filled"), b"taken over");
        assert!(start.elapsed() < Duration::from_secs(20), "the lease of 30 seconds was waited for");
    });
}
