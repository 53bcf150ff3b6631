//! The copy of a cache from another server, to and from a native one.

use std::{
    ffi::c_char,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{c, hygiene::alone, native::Server, patience::within, ports::free_address, server};

pub(crate) fn fill(cache: &str) {
    for i in 0..300_u32 {
        let value = vec![b'a' + u8::try_from(i % 26).unwrap(); usize::try_from(i).unwrap() * 3 + 1];
        let expires = if i % 3 == 0 { 5000 } else { 0 };
        assert!(c::set(format!("key {i} \u{fc}").as_bytes(), &value, expires, c::UPDATE, cache), "{i}");
    }
    assert!(c::set(b"gone", b"v", 1, c::UPDATE, cache));
    if !cache.contains('@') {
        within("one has expired", || !c::exists(b"gone", cache));
    }
}

pub(crate) fn check(cache: &str) {
    for i in 0..300_u32 {
        let (value, expires) =
            c::get(format!("key {i} \u{fc}").as_bytes(), cache).unwrap_or_else(|| panic!("{i}"));
        assert_eq!(value.len(), usize::try_from(i).unwrap() * 3 + 1);
        assert!(value.iter().all(|b| *b == b'a' + u8::try_from(i % 26).unwrap()));
        assert_eq!(expires != 0, i % 3 == 0, "{i}: {expires}");
        if expires != 0 {
            assert!((c::now() + 4000..=c::now() + 5000).contains(&expires), "{i}: {expires}");
        }
    }
}

#[test]
fn a_copy_of_a_native_cache() {
    for (name, options) in [("s1", ""), ("s2", ",hash=murmur2"), ("s3", ",bitmap=1,blocks=2000")] {
        let shape = format!("name={name},items=500,keysize=100,blocksize=1000{options}");
        let native = Server::start(&[&shape], &[]);
        fill(&native.cache(name));
        c::create(&format!("{shape},sync={}", native.tcp));
        check(name);
    }
}

/// A native server reads the chains and hashes of our image: it must find every key through them.
#[test]
fn a_native_server_starts_from_a_copy_of_ours() {
    let at = server::start();
    for (name, options) in [("s4", ""), ("s5", ",hash=murmur2"), ("s6", ",purge_lru=1")] {
        // Native resets its table as if it had 65536 buckets, whatever its real size.
        let shape = format!("name={name},items=500,keysize=100,blocksize=1000{options}");
        c::create(&shape);
        fill(name);
        let native = Server::start(&[&format!("{shape},sync={at}")], &[]);
        assert!(native.log().contains("restored 300 items"), "{}", native.log());
        let there = native.cache(name);
        check(&there);
        // Its structures are intact: it can change the copied items, and fill up.
        for i in 0..300_u32 {
            let key = format!("key {i} \u{fc}");
            if i % 2 == 0 {
                assert!(c::del(key.as_bytes(), &there), "{i}");
            } else {
                assert!(c::update(key.as_bytes(), b"new", &there), "{i}");
            }
        }
        for i in 0..349_u32 {
            assert!(c::set(format!("more {i}").as_bytes(), b"v", 0, 0, &there), "{i}");
        }
        assert_eq!(c::set(b"one too many", b"v", 0, 0, &there), name == "s6", "items=500 holds 499");
    }
}

/// The name is part of the request, so a second process makes the copy.
#[test]
fn a_copy_between_ucaches_needs_no_equal_shape() {
    let serve = || {
        c::create("name=s7,items=500,blocksize=1000");
        fill("s7");
        server::start()
    };
    alone("sync::a_copy_between_ucaches_needs_no_equal_shape", serve, |at| {
        c::create(&format!("name=s7,items=1000,blocksize=70000,keysize=64,sync={at}"));
        check("s7");
        assert!(!c::exists(b"gone", "s7"));
    });
}

#[test]
fn servers_that_are_down_or_at_odds_do_not_stop_the_start() {
    let native = Server::start(&["name=s8,items=500,blocksize=1000,keysize=100"], &[]);
    fill(&native.cache("s8"));
    let down = free_address();
    c::create(&format!("name=s8,items=400,blocksize=1000,keysize=100,sync={};{down}", native.tcp));
    assert!(!c::exists(b"key 1 \xc3\xbc", "s8"), "items differ");
    assert!(c::update(b"k", b"v", "s8"), "and the cache works");
}

#[test]
fn the_next_server_is_asked_when_the_first_cannot() {
    let native = Server::start(&["name=s9,items=500,blocksize=1000,keysize=100"], &[]);
    fill(&native.cache("s9"));
    c::create(&format!(
        "name=s9,items=500,blocksize=1000,keysize=100,sync={};{}",
        free_address(),
        native.tcp
    ));
    check("s9");
}

#[test]
fn a_server_that_comes_up_later_is_asked_again() {
    alone("sync::a_server_that_comes_up_later_is_asked_again", free_address, |at| {
        c::create(&format!("name=late,items=100,sync={at}"));
        assert!(c::update(b"stored meanwhile", b"newer", "late"));
        let native = Server::start_on(at, &["name=late,items=100"], &[]);
        assert!(c::update(b"k", b"v", &native.cache("late")));
        assert!(c::update(b"stored meanwhile", b"older", &native.cache("late")));
        c::start_sync_servers();
        within("the copy arrives", || c::exists(b"k", "late"));
        assert_eq!(c::value(b"stored meanwhile", "late").unwrap(), b"newer");
    });
}

/// Calls of the system's resolver by this process.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

type Lookup = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const libc::addrinfo,
    *mut *mut libc::addrinfo,
) -> libc::c_int;

/// Replaces libc's function in the whole test program.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    found: *mut *mut libc::addrinfo,
) -> libc::c_int {
    LOOKUPS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: libc has a function of this name and type; the caller vouches for the arguments.
    unsafe {
        let real = libc::dlsym(libc::RTLD_NEXT, c"getaddrinfo".as_ptr());
        std::mem::transmute::<*mut libc::c_void, Lookup>(real)(node, service, hints, found)
    }
}

/// The retrying threads run beside a master that forks, and a child would inherit the resolver's
/// locks.
#[test]
fn a_name_is_looked_up_once_and_not_by_the_threads_that_ask_again() {
    let test = "sync::a_name_is_looked_up_once_and_not_by_the_threads_that_ask_again";
    alone(test, free_address, |at| {
        let port = at.rsplit_once(':').unwrap().1;
        let before = LOOKUPS.load(Ordering::SeqCst);
        c::create(&format!("name=named,items=100,sync=localhost:{port};no.such.host.invalid:1"));
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), before + 2);
        c::start_sync_servers();
        let native = Server::start_on(at, &["name=named,items=100"], &[]);
        assert!(c::update(b"k", b"v", &native.cache("named")));
        within("the copy arrives", || c::exists(b"k", "named"));
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), before + 2);
    });
}
