//! C code that belongs neither to uWSGI's core nor to ucache: a plugin that Debian ships as source
//! (`uwsgi-src`), and one that keeps a cache's lock.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use crate::{
    on_both,
    patience::within,
    ports::{free_address, free_port},
    server::{Flavor, Server, root},
};

/// Compiles a plugin for uWSGI like its own build: with its flags and header.
fn plugin(dir: &Path, source: &Path, name: &str) -> PathBuf {
    let uwsgi = std::env::var("UWSGI_BIN").unwrap_or_else(|_| "uwsgi".to_owned());
    let tell = |option: &str| {
        let told = Command::new(&uwsgi).arg(option).stdin(Stdio::null()).output();
        String::from_utf8(told.expect("uWSGI runs (`make deps`)").stdout).expect("text")
    };
    std::fs::write(dir.join("uwsgi.h"), tell("--dot-h")).expect("a file can be written");
    assert!(source.exists(), "no {}: apt-get install uwsgi-src", source.display());
    let library = dir.join(name);
    // quoted words have versions and paths, which these do not use
    let flags = tell("--cflags");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-I"])
        .arg(dir)
        .args(flags.split_whitespace().filter(|word| word.starts_with("-D") && !word.contains('"')))
        .args([Path::new("-o"), &library, source])
        .output()
        .expect("cc runs (apt-get install gcc)");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

#[test]
fn a_member_that_joins_is_asked_for_its_cache() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = Path::new("/usr/src/uwsgi/plugins/legion_cache_fetch/legion_cache_fetch.c");
    let plugin = plugin(dir.path(), source, "legion_cache_fetch_plugin.so");
    on_both(|flavor| {
        let (here, there) = (&free_address(), &free_address());
        let member = |own, other, more: &str| {
            let tcp = free_port();
            let lines = format!(
                "plugin = cache\nplugin = {}\nsocket = 127.0.0.1:{tcp}\nlegion = l {own} 10 aes-128-cbc:secret\n\
                 legion-node = l {other}\nlegion-scroll = l dump-socket=127.0.0.1:{tcp}\n\
                 cache2 = name=c,items=9\n{more}",
                plugin.display()
            );
            Server::start(flavor, 1, &lines)
        };
        let first = member(here, there, "");
        let fill =
            "uwsgi.cache_set('k', 'of the first'), uwsgi.cache_set('ttl', 'v', 100), uwsgi.cache_inc('n', 3)";
        assert_eq!(first.run(1, fill), "(True, True, True)");
        let second = member(there, here, "legion-node-joined = l legion-cache-fetch:c");
        within("the copy", || {
            let read = "uwsgi.cache_get('k'), uwsgi.cache_get('ttl'), uwsgi.cache_num('n')";
            second.run(1, read) == "(b'of the first', b'v', 3)"
        });
        assert!(second.log().contains("[legion-cache-fetch] getting cache 'c'"), "{}", second.log());
        assert_eq!(second.run(1, "uwsgi.cache_set('k', 'x'), uwsgi.cache_set('more', 'x')"), "(None, True)");
    });
}

/// A write lock that is not released: readers continue (D-32), writers give up after `lock_timeout`
/// (D-50). In native all wait until it is released.
#[test]
fn a_write_lock_that_is_kept() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let library = plugin(dir.path(), &root().join("tests/surfaces/holder.c"), "holder.so");
    on_both(|flavor| {
        let server = Server::start(flavor, 2, "cache2 = name=c,items=9\ncache2 = name=flags,items=9");
        let load = format!("import ctypes; H = ctypes.CDLL({:?})", library.display().to_string());
        assert_eq!(server.run(1, &load), "");
        assert_eq!(server.run(1, "H.listed(b'c'), H.listed(b'flags')"), "(1, 1)");
        // on native the other worker cannot release it: it waits, too
        let limit = if flavor == Flavor::Native { 15 } else { 200 };
        let seen = thread::scope(|scope| {
            let holder = scope.spawn(|| server.run(1, &format!("H.hold(b'c', {limit})")));
            within("the lock is held", || server.run(2, "uwsgi.cache_exists('held', 'flags')") == "True");
            let seen = server.run(
                2,
                "uwsgi.cache_get('state'), uwsgi.cache_update('mine', 'v'), uwsgi.cache_get('state')",
            );
            assert_eq!(server.run(2, "uwsgi.cache_set('go', '1', 0, 'flags')"), "True");
            holder.join().expect("no panic");
            seen
        });
        match flavor {
            Flavor::Native => assert_eq!(seen, "(b'done', True, b'done')"),
            Flavor::Ucache => assert_eq!(seen, "(b'held', None, b'held')"),
        }
        assert_eq!(
            server.run(2, "uwsgi.cache_get('state'), uwsgi.cache_update('mine', 'v')"),
            "(b'done', True)"
        );
    });
}
