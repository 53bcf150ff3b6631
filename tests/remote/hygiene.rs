//! Properties of a whole process: its descriptors and threads. Each such test runs alone, in a
//! child.

use std::{
    env,
    net::TcpListener,
    process::{Command, Stdio},
    thread,
};

use crate::{c, patience::within, ports::free_address, server};

const ALONE: &str = "UCACHE_TEST_ALONE";

/// Runs `body` in a child process that runs only `test`; it gets what `prepare` returns here.
pub(crate) fn alone(test: &str, prepare: impl FnOnce() -> String, body: impl FnOnce(&str)) {
    if let Ok(text) = env::var(ALONE) {
        body(&text);
        eprintln!("ran alone");
        return;
    }
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, prepare())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && err.contains("ran alone"), "{test}: {out}{err}");
    // The result, for `--nocapture`.
    eprint!("{err}");
}

fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn calls_leave_no_descriptor_behind() {
    alone("hygiene::calls_leave_no_descriptor_behind", String::new, |_| descriptors());
}

fn descriptors() {
    let start = open();
    c::create("name=fds,items=100,blocksize=100000");
    let good = format!("fds@{}", server::start());
    let nobody = format!("fds@{}", free_address());
    let rude = TcpListener::bind("127.0.0.1:0").unwrap();
    let rude_at = format!("fds@{}", rude.local_addr().unwrap());
    thread::spawn(move || rude.incoming().for_each(drop));
    let round = || {
        for server in [&good, &nobody, &rude_at, &"fds@/nonexistent".to_owned()] {
            c::update(b"k", &[1; 50_000], server);
            c::get(b"k", server);
            c::del(b"k", server);
        }
    };
    round();
    // The server's threads close theirs a moment later.
    within("a quiet moment", || open() < start + 10);
    let before = open();
    (0..100).for_each(|_| round());
    within("no more descriptors than before", || open() <= before);
}
