//! Containers: processes in PID namespaces of their own, and without a `/proc` that tells of others.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/private_mounts.rs"]
mod private_mounts;

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use engine_proc::{Child, Scratch, alone, wait_for};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use private_mounts::unshare_mounts;
use ucache::{Cache, Error};

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

/// Locks know their owners by thread ids, which two namespaces give out alike: users of one store share one.
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
        let Err(Error::Store { reason, .. }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("another PID namespace"), "{reason}");
    });
    assert_eq!(here.get_str("from").expect("get").as_deref(), Some("outside"));
    drop(here);
    // Whoever comes when nobody has it brings another namespace.
    in_a_container(|| {
        let inside = open().expect("a store");
        assert_eq!(inside.get_str("from").expect("get").as_deref(), Some("outside"));
        Child::fork(|| assert!(open().is_ok(), "of the same namespace")).join();
    });
    open().expect("a store");
}

/// `udp=` of a multicast group: all servers of a machine hear what one of them says.
#[test]
fn servers_of_a_multicast_group_hear_each_other() {
    use std::{ffi::CString, process::Command};

    use ucache::capi::{
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
            // Its socket is there a moment later.
            sleep(Duration::from_millis(300));
            words[number].store(1, SeqCst);
            wait_for("both servers", || words[0].load(SeqCst) > 0 && words[1].load(SeqCst) > 0);
            let (own, other) = ([b'k', number as u8], [b'k', 1 - number as u8]);
            // SAFETY: a cache of this library, keys and value of their lengths.
            unsafe { uwsgi_cache_set2(cache, own.as_ptr().cast(), 2, c"v".as_ptr(), 1, 0, 0) };
            // SAFETY: as above.
            wait_for(
                "the other's key",
                || unsafe { uwsgi_cache_exists2(cache, other.as_ptr().cast(), 2) } != 0,
            );
            words[number].store(2, SeqCst);
            wait_for("both", || words[1 - number].load(SeqCst) == 2);
        };
        let both = [0, 1].map(|number| Child::fork(move || server(number)));
        both.into_iter().for_each(Child::join);
    })
    .join();
}

/// Runs `body` in a process that finds nothing in `/proc`.
fn without_proc(body: impl Fn()) {
    Child::fork(|| {
        unshare_mounts();
        mount(Some("none"), "/proc", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
        assert!(std::fs::read("/proc/self/stat").is_err());
        body();
    })
    .join();
}

/// Of whom nothing can be told is taken for alive while it exists, and one caller fills a key.
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
        // One that is dead is not there: somebody else takes over long before its lease ends.
        let began = Scratch::new(1);
        let filler = Child::fork(|| {
            let _ = cache.get_or_set_with("dead", |_| {
                began[0].store(1, SeqCst);
                sleep(Duration::from_secs(60));
                "never"
            });
        });
        wait_for("the filler to begin", || began[0].load(SeqCst) == 1);
        assert!(filler.kill());
        let start = Instant::now();
        assert_eq!(cache.get_or_set_with("dead", |_| "taken over").expect("filled"), b"taken over");
        assert!(start.elapsed() < Duration::from_secs(20), "the lease of 30 seconds was waited for");
    });
}
