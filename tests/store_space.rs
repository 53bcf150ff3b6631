//! Real file systems that fill up, and a store that is truncated: errors and misses, never the end
//! of a process. File systems are mounted in a child's private mount namespace.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/on_mounts.rs"]
mod on_mounts;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/private_mounts.rs"]
mod private_mounts;

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use engine_proc::{Child, alone, say};
use engine_store::{ADD, UPDATE, assert_filled, config, fill, place, put, refused, seq};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{SigHandler, Signal, signal},
};
use on_mounts::on_mounts;
use ucache::{
    Error, StoreFault,
    engine::{Config, Engine, Eviction, Touch},
};

/// Runs `body` in a child on a file system mounted for it alone.
fn on(setup: impl Fn(&Path), body: impl Fn(&Path)) {
    on_mounts(|dir| {
        let at = dir.join("mounted");
        fs::create_dir(&at).expect("mkdir");
        setup(&at);
        body(&at);
    });
}

fn tmpfs(at: &Path, options: &str) {
    mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).expect("a tmpfs can be mounted");
}

/// A file of `mib` with a file system made by `mkfs`, mounted through a loop device.
fn on_a_disk(at: &Path, mib: u64, package: &str, mkfs: &[&str]) {
    let disk = at.with_file_name("disk");
    File::create(&disk).and_then(|file| file.set_len(mib << 20)).expect("a file");
    let run = |program: &str, args: &[&str], last: &[&Path]| {
        let done = Command::new(program).args(args).args(last).output();
        let done = done.unwrap_or_else(|e| panic!("{program}: {e} (apt-get install {package})"));
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run(mkfs[0], &mkfs[1..], &[&disk]);
    // mount(8) takes a free loop device, which is released with the namespace's mount.
    run("mount", &["-o", "loop"], &[&disk, at]);
}

/// Fills a store until the file system is full, reads, deletes, stores again; other users of the
/// disk take the rest.
fn fill_up(at: &Path, eviction: Eviction) {
    let path = at.join("store");
    // SIGBUS would end this child.
    let engine = Engine::create(&Config { eviction, capacity: 4000, ..config(&path) }).expect("a store");
    let value = |n: u32| vec![n as u8; 50_000];
    let name = |n: u32| format!("large {n}").into_bytes();
    let read = |n: u32| engine_value::get(&engine, &name(n), Touch::No).expect("get").map(|(_, bytes)| bytes);
    let (mut stored, mut refusals) = (Vec::new(), 0);
    for n in 0..1200 {
        match engine.set(&name(n), &value(n), &ADD) {
            Ok(_) => stored.push(n),
            Err(e) => {
                assert!(matches!(e, Error::NoSpace { .. }), "{e:?}");
                refusals += 1;
                // Some file systems take long to refuse.
                if refusals == 60 {
                    break;
                }
            }
        }
    }
    // Another program takes the rest.
    let _ = fs::write(at.join("other"), vec![1; 64 << 20]);
    let stats = engine.stats();
    if eviction == Eviction::Lru {
        assert!(
            stored.len() == 1200 && stats.evicted > 800,
            "{} stored, {} evicted",
            stored.len(),
            stats.evicted
        );
    } else {
        assert!(stats.no_space == 60 && stored.len() > 20, "{} stored, {stats:?}", stored.len());
        assert!(stored.iter().all(|&n| read(n) == Some(value(n))), "what was stored stays");
    }
    for round in 0..3 {
        for &n in &stored {
            engine.delete(&name(n)).expect("delete");
        }
        engine.sweep().expect("sweep");
        // The file keeps its blocks: deleted items can be replaced on the full disk, also in other
        // sizes.
        let room = stats.bytes as usize / 2;
        for n in 0..room / 9000 {
            let n = n as u32;
            engine
                .set(&name(n), &vec![n as u8; 3000 + round * 2000], &UPDATE)
                .expect("the place of what was deleted");
        }
        engine.clear().expect("clear");
    }
    fill_small(&engine);
    engine.sync().expect("sync");
    drop(engine);
    // The same on a disk that is full again: another program takes what a sweep gave back.
    let _ = fs::write(at.join("more"), vec![1; 64 << 20]);
    let engine = Engine::create(&Config { eviction, capacity: 4000, ..config(&path) }).expect("the store");
    assert_small(&engine);
    // There is no space to move its items; trying loses nothing.
    drop(engine);
    let moved = Engine::create(&Config { eviction, capacity: 50_000_000, ..config(&path) });
    refused(moved, &["4000", "50000000", "No space left"]);
    let engine = Engine::attach(&path).expect("the store");
    assert_small(&engine);
}

fn fill_small(engine: &Engine) {
    for key in 0..90 {
        put(engine, key, 9).expect("set");
    }
}

fn assert_small(engine: &Engine) {
    (0..90).for_each(|key| assert_eq!(seq(engine, key), Some(9), "key {key}"));
}

#[test]
fn a_full_tmpfs() {
    let _alone = alone();
    for eviction in [Eviction::None, Eviction::Lru] {
        on(|at| tmpfs(at, "size=8M"), |at| fill_up(at, eviction));
    }
    // Too small from the start: a clean error.
    on(
        |at| tmpfs(at, "size=128k"),
        |at| {
            let error = Engine::create(&config(&at.join("store"))).expect_err("there is no room");
            assert!(error.to_string().contains("No space left"), "{error}");
        },
    );
}

/// On a full disk there is no room to move entries to: what is free between them is used, however
/// often everything goes.
#[test]
fn a_full_disk_is_filled_again_after_clears_and_sweeps() {
    let _alone = alone();
    for sweep in [false, true] {
        on(
            |at| tmpfs(at, "size=1M"),
            |at| {
                let engine = Engine::create(&Config { capacity: 10_000, ..config(&at.join("store")) });
                let engine = engine.expect("a store");
                let name = |round: u32, n: u32| format!("{round} {n}").into_bytes();
                let fill = |round: u32| {
                    let set = |n: &u32| engine.set(&name(round, *n)[..], &[1; 500], &ADD).is_ok();
                    (0..2000).filter(set).count()
                };
                let first = fill(0);
                assert!(first > 1000, "{first}");
                for round in 1..5 {
                    if round % 2 == 1 {
                        engine.clear().expect("clear");
                    } else {
                        (0..2000).for_each(|n| _ = engine.delete(&name(round - 1, n)).expect("delete"));
                    }
                    if sweep {
                        engine.sweep().expect("sweep");
                        engine.sync().expect("sync");
                    }
                    let again = fill(round);
                    assert!(again * 20 >= first * 19, "{again} of {first} in round {round}, sweep {sweep}");
                }
                assert_eq!(engine.inspect(false, |_, _| ()).expect("inspect").heap, 0);
            },
        );
    }
}

#[test]
fn a_full_ext4() {
    let _alone = alone();
    for eviction in [Eviction::None, Eviction::Lru] {
        on(|at| on_a_disk(at, 24, "e2fsprogs", &["mkfs.ext4", "-q", "-F"]), |at| fill_up(at, eviction));
    }
}

/// btrfs copies on write: a full disk raises SIGBUS there, unless the file is written in place. New
/// stores are.
#[test]
fn a_btrfs_is_written_in_place() {
    let _alone = alone();
    let mkfs = ["mkfs.btrfs", "-q", "-f", "-M"];
    on(
        |at| on_a_disk(at, 40, "btrfs-progs", &mkfs),
        |at| {
            let path = at.join("store");
            fill_small(&Engine::create(&config(&path)).expect("a store"));
            let flags =
                Command::new("lsattr").arg(&path).output().expect("lsattr runs (apt-get install e2fsprogs)");
            let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
            assert!(flags.split(' ').next().is_some_and(|f| f.contains('C')), "{flags}");
            assert_small(&Engine::create(&Config { capacity: 3000, ..config(&path) }).expect("moved"));
            assert_small(&Engine::attach(&path).expect("the store"));
            // Created by another program, copied on write.
            let other = at.join("other");
            fs::copy(&path, &other).expect("a copy");
            let before = fs::read(&other).expect("read");
            refused(Engine::create(&config(&other)), &["btrfs", "chattr +C"]);
            assert!(fs::read(&other).expect("read") == before);
        },
    );
}

/// Holes made by a copying program, on a disk without space for them: refused when opened, not
/// SIGBUS later.
#[test]
fn a_copy_with_holes_is_backed_first() {
    let _alone = alone();
    on(
        |at| tmpfs(at, "size=8M"),
        |at| {
            let path = at.join("store");
            fill_small(&Engine::create(&config(&path)).expect("a store"));
            let sparse = at.join("sparse");
            let done = Command::new("cp")
                .args(["--sparse=always"])
                .args([&path, &sparse])
                .status()
                .expect("cp runs");
            assert!(done.success());
            fs::remove_file(&path).expect("remove");
            let _ = fs::write(at.join("other"), vec![1; 64 << 20]);
            let error = Engine::create(&config(&sparse)).expect_err("there is no room");
            assert!(error.to_string().contains("No space left"), "{error}");
            fs::remove_file(at.join("other")).expect("remove");
            assert_small(&Engine::create(&config(&sparse)).expect("with room"));
        },
    );
}

/// Exceeding a file size limit is an error like a full disk, whatever SIGXFSZ does.
#[test]
fn a_limit_on_the_files_size() {
    let _alone = alone();
    let (_dir, path) = place();
    Child::fork(|| {
        // SAFETY: the default action runs no handler.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigDfl) }.expect("signal");
        let engine = Engine::create(&config(&path)).expect("a store");
        let limit = fs::metadata(&path).expect("stat").len() + (2 << 20);
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, limit, limit)
            .expect("setrlimit");
        let full = (0..100_u32).find_map(|n| engine.set(format!("{n}").as_bytes(), &[7; 90_000], &ADD).err());
        assert!(matches!(full, Some(Error::NoSpace { .. })), "{full:?}");
    })
    .join();
}

/// With any limit and any first write: an error, a file that is complete or absent, and no SIGXFSZ.
/// Space allocated before the limit is used as before.
#[test]
fn a_limit_on_the_files_size_from_the_start() {
    let _alone = alone();
    let (dir, path) = place();
    fill_small(&Engine::create(&config(&path)).expect("a store"));
    for limit in [0, 1, 16, 31, 32, 33, 4096, 65_536, 200_000] {
        Child::fork(|| {
            // SAFETY: the default action runs no handler.
            unsafe { signal(Signal::SIGXFSZ, SigHandler::SigDfl) }.expect("signal");
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, limit, limit)
                .expect("setrlimit");
            let new = Engine::create(&config(&dir.path().join(format!("new {limit}"))));
            let error = new.expect_err("the limit leaves no room for a store");
            assert!(error.to_string().contains("File too large"), "{limit}: {error}");
            refused(
                Engine::create(&Config { capacity: 3000, ..config(&path) }),
                &["2000", "3000", "too large"],
            );
            assert!(!path.with_file_name("store.new").exists(), "{limit}");
            let engine = Engine::create(&config(&path)).expect("the store");
            assert_small(&engine);
            // A new value lies beside the old one before it replaces it: where a shard has no room
            // for both, the store would have to grow.
            let stored = (0..90).filter(|&key| match put(&engine, key, 9) {
                Ok(_) => true,
                Err(Error::NoSpace { .. }) => false,
                Err(other) => panic!("{other}"),
            });
            assert!(stored.count() > 45, "{limit}");
            assert_small(&engine);
        })
        .join();
    }
    let engine = Engine::create(&config(&dir.path().join("new 31"))).expect("without a limit");
    fill_small(&engine);
}

/// Another process truncates the store while this one uses it. With the guard: misses and errors in
/// every user; without: SIGBUS.
#[test]
fn a_truncated_store_ends_as_misses_with_the_guard() {
    let _alone = alone();
    let (_dir, path) = place();
    for cut in [0, 100, 4096, 8192, 70_000, 200_000, 1 << 20] {
        let _ = fs::remove_file(&path);
        let guarded = Config { store_guard: true, ..config(&path) };
        let first = Engine::create(&guarded).expect("a store");
        fill(&first, 1);
        Child::fork(|| {
            let engine = Engine::create(&guarded).expect("a store in use");
            assert_filled(&engine, 1);
            File::options().write(true).open(&path).and_then(|file| file.set_len(cut)).expect("ftruncate");
            // Reads all items, so that it meets the end.
            let found = |engine: &Engine| (0..300).filter(|&key| seq(engine, key).is_some()).count();
            found(&engine);
            assert_eq!(found(&engine), 0, "cut to {cut}: found again");
            for key in 0..300 {
                let stored = put(&engine, key, 2);
                assert!(matches!(stored, Err(Error::Damaged(_))), "cut to {cut}: {stored:?}");
            }
            engine.delete(b"x").expect_err("a store that is no more");
            engine_value::all_items(&engine);
            engine.stats();
            let _ = engine.clear();
            let _ = engine.sweep();
            // Its child meets the end on its own.
            Child::fork(|| assert_eq!(found(&engine), 0)).join();
        })
        .join();
        // This process has not touched it since; if the header is gone, nothing can tell it that
        // writers must stop.
        let found = (0..300).filter(|&key| seq(&first, key).is_some()).count();
        assert!((0..300).all(|key| put(&first, key, 3).is_err()), "cut to {cut}: stored");
        let after = (0..300).filter(|&key| seq(&first, key).is_some()).count();
        assert_eq!(after, 0, "cut to {cut}: {found} found before, and after");
    }
}

/// uWSGI's own threads block every signal: a fault in one of them would end the process.
#[test]
fn the_guard_serves_threads_that_block_its_signal() {
    let _alone = alone();
    let (_dir, path) = place();
    let guarded = Config { store_guard: true, ..config(&path) };
    Child::fork(|| {
        let engine = Engine::create(&guarded).expect("a store");
        fill(&engine, 1);
        let thread = std::thread::spawn(move || {
            nix::sys::signal::SigSet::all().thread_block().expect("pthread_sigmask");
            assert!(seq(&engine, 1).is_some(), "a thread is known from its first operation on");
            File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("ftruncate");
            assert_eq!((0..300).filter(|&key| seq(&engine, key).is_some()).count(), 0);
        });
        thread.join().expect("the thread ends well");
    })
    .join();
}

/// `store_delete` is for files that are no stores: a store whose items have no space to move is
/// valid.
#[test]
fn a_store_that_cannot_be_moved_is_not_deleted() {
    let _alone = alone();
    on(
        |at| tmpfs(at, "size=9m"),
        |at| {
            let path = at.join("store");
            let made = |capacity: u64, delete_unusable: bool| {
                let mut config = Config { capacity, ..config(&path) };
                config.store = Some(ucache::engine::Store { path: path.clone(), delete_unusable });
                Engine::create(&config)
            };
            let engine = made(600, false).expect("a store");
            for n in 0..600_u32 {
                engine.set(&n.to_le_bytes(), &[7; 8000], &ADD).expect("set");
            }
            drop(engine);
            for delete in [false, true] {
                let refused = made(2000, delete);
                let Err(Error::Store { fault, .. }) = refused else { panic!("{refused:?}") };
                assert!(matches!(fault, StoreFault::NotConverted { .. }), "{fault}");
            }
            assert_eq!(made(600, true).expect("the store").stats().items, 600);
            // And a file that is no store is replaced.
            fs::write(&path, "nothing of ours").expect("write");
            assert_eq!(made(600, true).expect("a new store").stats().items, 0);
        },
    );
}

/// A SIGBUS not caused by a store has its usual effect, and so has one sent by a process.
#[test]
fn the_guard_passes_on_what_is_not_its_own() {
    let _alone = alone();
    let (dir, path) = place();
    let ended_by = |body: &dyn Fn()| {
        let mut child = Child::fork(body);
        loop {
            match child.try_end() {
                Some(Err(how)) => return how,
                Some(Ok(())) => return "exit 0".to_owned(),
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    };
    let guarded = Config { store_guard: true, ..config(&path) };
    let foreign = dir.path().join("foreign");
    let touch_foreign = || {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&foreign).expect("open");
        file.set_len(4096).expect("ftruncate");
        let len = std::num::NonZeroUsize::new(8192).expect("not 0");
        let (prot, flags) = (nix::sys::mman::ProtFlags::PROT_READ, nix::sys::mman::MapFlags::MAP_SHARED);
        // SAFETY: a new mapping; its second page deliberately has no file behind it.
        unsafe {
            let at = nix::sys::mman::mmap(None, len, prot, flags, &file, 0).expect("mmap");
            at.cast::<u8>().add(4096).read_volatile()
        };
    };
    let dies = ended_by(&|| {
        let _engine = Engine::create(&guarded).expect("a store");
        touch_foreign();
    });
    assert!(dies.contains("SIGBUS"), "{dies}");
    let sent = ended_by(&|| {
        // Rust's own handler would treat one signal as a fault that comes again.
        // SAFETY: the default action runs no handler.
        unsafe { signal(Signal::SIGBUS, SigHandler::SigDfl) }.expect("signal");
        let _engine = Engine::create(&guarded).expect("a store");
        nix::sys::signal::raise(Signal::SIGBUS).expect("raise");
    });
    assert!(sent.contains("SIGBUS"), "{sent}");
    let handled = ended_by(&|| {
        extern "C" fn leave(_: i32) {
            // SAFETY: _exit may be called in a handler.
            unsafe { libc::_exit(7) }
        }
        // SAFETY: the handler only calls _exit.
        unsafe { signal(Signal::SIGBUS, SigHandler::Handler(leave)) }.expect("signal");
        let _engine = Engine::create(&guarded).expect("a store");
        touch_foreign();
    });
    assert!(handled.contains(", 7)"), "{handled}");
    let chained = ended_by(&|| {
        // SAFETY: as above.
        unsafe { signal(Signal::SIGBUS, SigHandler::SigDfl) }.expect("signal");
        let _first = Engine::create(&guarded).expect("a store");
        reporter::install();
        let _second = Engine::create(&Config { store_guard: true, ..config(&dir.path().join("second")) });
        touch_foreign();
    });
    assert!(chained.contains("SIGBUS"), "{chained}");
    let unguarded = ended_by(&|| {
        let engine = Engine::create(&config(&path)).expect("a store");
        File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("ftruncate");
        seq(&engine, 1);
    });
    assert!(unguarded.contains("SIGBUS"), "{unguarded}");
    say("guard: foreign faults end the process or reach the earlier handler");
}

/// A crash reporter, as programs have them: it does its work and passes the signal to the previous
/// handler.
mod reporter {
    use std::sync::OnceLock;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    static BEFORE: OnceLock<SigAction> = OnceLock::new();

    extern "C" fn report(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        if let Some(SigHandler::SigAction(before)) = BEFORE.get().map(SigAction::handler) {
            before(signal, info, context);
        }
    }

    pub(super) fn install() {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER;
        let action = SigAction::new(SigHandler::SigAction(report), flags, SigSet::empty());
        // SAFETY: the handler only calls the one that the kernel would have called.
        let before = unsafe { sigaction(Signal::SIGBUS, &action) }.expect("sigaction");
        BEFORE.set(before).expect("installed once");
    }
}
