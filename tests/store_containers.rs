//! Effects of containers on stores, in real uWSGIs, compared with uWSGI's own cache: PID
//! namespaces, file systems, mounts of single files, and a deploy that starts the new server before
//! the old one ends.
#![cfg(feature = "uwsgi")]

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/on_mounts.rs"]
mod on_mounts;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/private_mounts.rs"]
mod private_mounts;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/uwsgi_host.rs"]
mod uwsgi_host;

use std::{fs, fs::File, path::Path};

use engine_proc::alone;
use nix::mount::{MsFlags, mount};
use on_mounts::on_mounts;
use uwsgi_host::{Host, Setup, uwsgi};

const NATIVE: &str = "plugin = python3";

fn native() -> Setup {
    Setup { plugins: NATIVE, ..Setup::default() }
}

/// A server in its own PID namespace, as in a container. (`unshare` of util-linux is on every
/// Debian.)
fn contained(plugins: &'static str) -> Setup {
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"].map(str::to_owned);
    Setup { command: unshare.into_iter().chain([uwsgi()]).collect(), plugins, ..Setup::default() }
}

fn definition(path: &Path, items: u32, more: &str) -> String {
    format!("cache2 = name=c,items={items},blocksize=5000,store={}{more}", path.display())
}

fn put(host: &Host, key: &str) {
    assert_eq!(host.eval(&format!("uwsgi.cache_update('{key}', 'v', 0, 'c')")), "True", "{}", host.log());
}

fn has(host: &Host, key: &str) -> bool {
    host.eval(&format!("uwsgi.cache_get('{key}', 'c')")) == "b'v'"
}

/// D-59: two containers on one store. Native lets both write to it without working locks; ucache
/// refuses the second one, or with `store_delete` starts with a new file.
#[test]
fn a_store_in_use_in_another_pid_namespace() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let (theirs, ours) = (dir.path().join("native"), dir.path().join("ucache"));
    {
        let mut both = [(); 2].map(|()| contained(NATIVE).start(&definition(&theirs, 100, "")));
        put(&both[0], "first");
        // Its own lock and its own counts over the same bytes.
        assert_eq!(both[1].eval("uwsgi.cache_update('second', 'v', 0, 'c')"), "True");
        both.iter_mut().for_each(|host| host.end("KILL"));
    }
    let plugins = Setup::default().plugins;
    let mut old = contained(plugins).start(&definition(&ours, 100, ""));
    put(&old, "first");
    let log = contained(plugins).refuse(&definition(&ours, 100, ""));
    assert!(log.contains("is in use in another PID namespace"), "{log}");
    let mut new = contained(plugins).start(&definition(&ours, 100, ",store_delete=1"));
    assert!(!has(&new, "first") && has(&old, "first"));
    assert_eq!(new.logged("store_delete"), 1, "{}", new.log());
    put(&new, "second");
    put(&old, "third");
    assert!(has(&new, "second") && !has(&new, "third") && has(&old, "third"));
    old.end("KILL");
    new.end("KILL");
    // Not in use: the next opener finds what the last one stored.
    let mut next = contained(plugins).start(&definition(&ours, 100, ""));
    assert!(has(&next, "second"), "{}", next.log());
    next.end("KILL");
}

/// D-60: native maps a file on any file system; ucache does if it is known to work, or if told to.
#[test]
fn a_store_on_a_file_system_that_is_not_listed() {
    let _alone = alone();
    on_mounts(|dir| {
        mount(Some("none"), dir, Some("ramfs"), MsFlags::empty(), None::<&str>).expect("a ramfs");
        {
            let mut host = native().start(&definition(&dir.join("native"), 100, ""));
            put(&host, "k");
            host.end("KILL");
        }
        let path = dir.join("ucache");
        let log = Setup::default().refuse(&definition(&path, 100, ""));
        assert!(
            log.contains("unknown suitability (type 858458f6)") && log.contains("store_fs=trust"),
            "{log}"
        );
        for round in 0..2 {
            let mut host = Host::start(&definition(&path, 100, ",store_fs=trust"));
            assert_eq!(has(&host, "k"), round > 0);
            put(&host, "k");
            assert_eq!(host.logged("used anyway (store_fs=trust)"), 1, "{}", host.log());
            host.end("KILL");
        }
    });
}

/// D-61: one file that is mounted by itself. Native exits where it would have to remove it; ucache
/// says what to mount, and with `store_delete` recreates it in place.
#[test]
fn a_store_that_is_a_mount_of_one_file() {
    let _alone = alone();
    on_mounts(|dir| {
        let bind = |name: &str| {
            let (source, path) = (dir.join(format!("{name}.source")), dir.join(name));
            File::create(&source).and(File::create(&path)).expect("files");
            mount(Some(&source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a mount");
            path
        };
        let (theirs, ours) = (bind("native"), bind("ucache"));
        let log = native().refuse(&definition(&theirs, 100, ",store_delete=1"));
        assert!(log.contains("Cannot remove invalid cache store file"), "{log}");
        let start = |items: u32, more: &str| {
            let mut host = Host::start(&definition(&ours, items, more));
            let had = has(&host, "k");
            put(&host, "k");
            host.end("KILL");
            had
        };
        assert!(!start(100, ""), "an empty file");
        assert!(start(100, ""), "its own store");
        let log = Setup::default().refuse(&definition(&ours, 200, ""));
        assert!(log.contains("mount its directory instead"), "{log}");
        assert!(start(100, ""), "it stays as it was");
        fs::write(&ours, "no store").expect("write");
        assert!(!start(200, ",store_delete=1"), "made anew");
        assert!(start(200, ",store_delete=1"));
    });
}

/// A new server with other settings starts while the old one still runs: both work, native and
/// ucache alike.
#[test]
fn store_delete_starts_afresh_beside_a_running_server() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    for (setup, line) in
        [(native(), "Removing invalid cache store file"), (Setup::default(), "(store_delete)")]
    {
        let path = dir.path().join(setup.plugins.len().to_string());
        let mut old = setup.start(&definition(&path, 100, ",store_delete=1"));
        put(&old, "old");
        let mut new = setup.start(&definition(&path, 200, ",store_delete=1"));
        assert_eq!(new.logged(line), 1, "{}", new.log());
        assert!(!has(&new, "old") && has(&old, "old"));
        put(&new, "new");
        for n in 0..90 {
            put(&old, &format!("k{n}"));
        }
        assert!(has(&new, "new") && !has(&new, "k1") && !has(&old, "new"));
        // The old one ends and closes its file; the new one's file is another.
        old.end("INT");
        assert!(has(&new, "new"));
        new.end("INT");
        let next = setup.start(&definition(&path, 200, ",store_delete=1"));
        assert!(has(&next, "new"), "{}", next.log());
        assert_eq!(next.logged(line), 0, "{}", next.log());
    }
}
