//! Reused connections. Each test runs alone, in a child: the pool belongs to a process.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    c,
    commands::array,
    hygiene::alone,
    native::Server,
    patience::{PATIENCE, within},
    server,
};

/// Forwards connections to `server` and counts them.
pub(crate) fn counted(server: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            let there = TcpStream::connect(&server).unwrap();
            for (from, to) in [(client.try_clone(), there.try_clone()), (Ok(there), Ok(client))] {
                let (mut from, mut to) = (from.unwrap(), to.unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address, count)
}

#[test]
fn d51_one_connection_serves_many_calls() {
    alone("pool::d51_one_connection_serves_many_calls", String::new, |_| {
        c::create("name=many,items=100,blocksize=3000000");
        let (address, count) = counted(server::start());
        let there = format!("many@{address}");
        for i in 0..100_u32 {
            let key = i.to_string();
            assert!(c::set(key.as_bytes(), b"value", 0, 0, &there) != (i == 99), "items=100 holds 99");
            assert_eq!(c::value(key.as_bytes(), &there).is_some(), i != 99);
            assert!(c::inc(b"0", 1, &there) == (c::value(b"0", &there).unwrap().len() == 8));
            assert!(!c::exists(b"nothing", &there) && !c::del(b"nothing", &there));
        }
        assert!(c::clear(&there));
        for sum in 1..=100 {
            assert!(c::inc(b"n", 1, &there));
            assert_eq!(c::number(b"n", &there), Some(sum));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let native = Server::start(&["name=many,items=100"], &[]);
        let (address, closed) = counted(native.tcp.clone());
        let native = format!("many@{address}");
        (0..10).for_each(|_| assert!(c::update(b"k", b"v", &native)));
        assert_eq!(closed.load(Ordering::SeqCst), 10, "native closes after each answer");
        // Values of every size arrive complete, over it or over their own connection.
        for len in [1, 16_384, 16_385, 65_536, 1 << 20, (1 << 20) + 1, 3_000_000] {
            let value: Vec<u8> = (0..len).map(|i: usize| i.to_le_bytes()[i % 3]).collect();
            assert!(c::update(b"long", &value, &there), "{len}");
            assert!(c::value(b"long", &there).unwrap() == value, "{len}");
        }
        let connections = count.load(Ordering::SeqCst);
        assert!(connections <= 4, "{connections}");
        assert!(!c::update(b"long", &vec![1; 3_000_001], &there), "longer than the server takes");
        assert!(c::value(b"long", &there).unwrap().len() == 3_000_000);
    });
}

/// Threads take different connections, and never get each other's answers.
#[test]
fn threads_do_not_share_a_connection() {
    alone("pool::threads_do_not_share_a_connection", String::new, |_| {
        c::create("name=threads,items=1000");
        let (address, count) = counted(server::start());
        let there = &format!("threads@{address}");
        thread::scope(|s| {
            for t in 0..8 {
                s.spawn(move || {
                    for i in 0..200 {
                        let key = format!("{t} {}", i % 10);
                        assert!(c::update(key.as_bytes(), format!("{key} {i}").as_bytes(), there));
                        assert_eq!(c::value(key.as_bytes(), there).unwrap(), format!("{key} {i}").as_bytes());
                        assert!(c::inc(b"n", 1, there));
                    }
                });
            }
        });
        assert_eq!(c::number(b"n", there), Some(1600));
        let connections = count.load(Ordering::SeqCst);
        assert!(connections <= 16, "{connections} for 4800 calls");
    });
}

fn sockets() -> Vec<i32> {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_socket = |to: std::path::PathBuf| to.to_string_lossy().starts_with("socket:");
    let sockets = all.filter(|fd| fs::read_link(fd.path()).is_ok_and(is_socket));
    sockets.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect()
}

/// A child of fork closes its parent's kept connections, and opens its own.
#[test]
fn a_child_of_fork_uses_none_of_its_parent_s_connections() {
    alone("pool::a_child_of_fork_uses_none_of_its_parent_s_connections", String::new, |_| {
        c::create("name=fork,items=100");
        let at = server::start();
        let there = format!("fork@{at}");
        assert!(c::inc(b"n", 1, &there) && c::inc(b"n", 1, &there));
        let open = sockets();
        // SAFETY: the child only makes system calls and calls C functions of this library, none of
        // which needs a lock that another thread of the parent may have held, and leaves with
        // _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: accepts any number.
            let alive = open.iter().filter(|fd| unsafe { libc::fcntl(**fd, libc::F_GETFD) } != -1).count();
            // Of the five (the server's listener, the two ends of this connection, and the two that
            // wake its thread) the kept one is closed.
            let mut good = alive + 1 == open.len();
            for _ in 0..10 {
                good &= c::inc(b"n", 1, &there);
            }
            // SAFETY: never returns.
            unsafe { libc::_exit(if good { 7 } else { 8 }) };
        }
        for _ in 0..10 {
            assert!(c::inc(b"n", 1, &there), "the parent's connection is still its own");
        }
        let mut status = 0;
        // SAFETY: waits for this process's child.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7, "{open:?}");
        assert_eq!(c::number(b"n", &there), Some(22));
    });
}

fn ask_to_keep(stream: &mut TcpStream, name: &[u8]) -> Vec<u8> {
    let payload = array(&[b"cmd", b"exists", b"key", b"k", b"cache", name, b"keep", b"1"]);
    stream.write_all(&[&[111, u8::try_from(payload.len()).unwrap(), 0, 17], &payload[..]].concat()).unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut answer = vec![0; head[1].into()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Clients that hold connections cannot use up a server's descriptors, and invalid ones are
/// disconnected.
#[test]
fn a_process_keeps_a_bounded_number_of_connections_and_no_strangers() {
    let test = "pool::a_process_keeps_a_bounded_number_of_connections_and_no_strangers";
    alone(test, String::new, |_| {
        c::create("name=bound,items=100");
        let at = server::start();
        let keep = |stream: &mut TcpStream| ask_to_keep(stream, b"bound").ends_with(&array(&[b"keep", b"1"]));
        let mut held: Vec<TcpStream> = (0..128).map(|_| connect(&at)).collect();
        assert!(held.iter_mut().all(keep));
        assert!(!keep(&mut connect(&at)), "one more is answered, but not kept");
        assert!(held.iter_mut().all(keep), "those kept go on");
        // A slot is free again when a client leaves.
        drop(held.split_off(100));
        within("places are given back", || keep(&mut connect(&at)));
        let closes = |bytes: &[u8]| {
            let mut stream = connect(&at);
            assert!(keep(&mut stream));
            stream.write_all(bytes).unwrap();
            let mut rest = Vec::new();
            // A reset ends it, too.
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty(), "{bytes:?}: {rest:?}");
        };
        let dump = array(&[b"cmd", b"dump", b"cache", b"bound"]);
        let huge = array(&[b"cmd", b"set", b"key", b"k", b"size", b"99999999999"]);
        for payload in [&dump, &huge, &array(&[b"cmd", b"nothing"]), &array(&[b"cmd"]), &Vec::new()] {
            closes(&[&[111, u8::try_from(payload.len()).unwrap(), 0, 17], &payload[..]].concat());
        }
        closes(b"GET / HTTP/1.0\r\n\r\n");
        closes(b"\x6f\x01\0\x06k");
        closes(&vec![0xff; 65_536]);
        // Half a request, or one that does not ask to keep it, end it, too.
        let mut stream = connect(&at);
        assert!(keep(&mut stream));
        let last = array(&[b"cmd", b"exists", b"key", b"k", b"cache", b"bound"]);
        stream.write_all(&[&[111, u8::try_from(last.len()).unwrap(), 0, 17], &last[..]].concat()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.len() > 4 && !rest.ends_with(&array(&[b"keep", b"1"])));
        // Many pipelined requests are all answered, in order.
        let mut stream = connect(&at);
        assert!(keep(&mut stream) && c::update(b"k", b"v", "bound"));
        let get = array(&[b"cmd", b"get", b"key", b"k", b"cache", b"bound", b"keep", b"1"]);
        let get = [&[111, u8::try_from(get.len()).unwrap(), 0, 17], &get[..]].concat();
        stream.write_all(&get.repeat(500)).unwrap();
        let one = array(&[b"status", b"ok", b"size", b"1", b"keep", b"1"]);
        let one = [&[111, u8::try_from(one.len()).unwrap(), 0, 17], &one[..], b"v"].concat();
        let mut answers = vec![0; one.len() * 500];
        stream.read_exact(&mut answers).unwrap();
        assert!(answers == one.repeat(500));
        assert!(held.iter_mut().all(keep), "nothing of that disturbs the others");
    });
}

/// The serving process ends: its clients notice at once, though a child of it lives on.
#[test]
fn an_exit_closes_the_connections_of_forked_copies_too() {
    if let Ok(file) = env::var("UCACHE_TEST_SERVE") {
        c::create("name=exit,items=100");
        fs::write(&file, server::start()).unwrap();
        within("told to end", || fs::read_to_string(&file).is_ok_and(|text| text == "end"));
        // SAFETY: the child only waits, and leaves with _exit.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: no preconditions; ends by itself.
            unsafe {
                libc::sleep(20);
                libc::_exit(0);
            }
        }
        std::process::exit(0);
    }
    let test = "pool::an_exit_closes_the_connections_of_forked_copies_too";
    alone(test, String::new, |_| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("UCACHE_TEST_SERVE", file.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut at = String::new();
        within("it serves", || {
            at = fs::read_to_string(file.path()).unwrap();
            !at.is_empty()
        });
        let mut stream = connect(&at);
        // The second answer is from the thread that keeps it: the server's own is not forked in between.
        for _ in 0..2 {
            assert!(ask_to_keep(&mut stream, b"exit").ends_with(&array(&[b"keep", b"1"])));
        }
        fs::write(file.path(), "end").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("closed, though the copies in the fork live on");
        assert_eq!(rest, b"\x6f\0\0\x11", "a goodbye");
        assert!(child.wait().unwrap().success());
    });
}
