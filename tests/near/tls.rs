//! TLS to Debian's Redis: certificates that are right, and all that can be wrong with them.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ucache::{Backend, BackendFault, Cache, Error, OnDown};

use crate::{
    backend::Server,
    certificates::{Authority, Pair},
    copies::{armed, is_hit, machine, patient, within},
    options,
    ports::free_port,
};

/// A server that speaks TLS, and asks clients for certificates if `asks`.
fn server(authority: &Authority, pair: &Pair, asks: bool, more: &[&str]) -> (Server, u16) {
    let port = free_port();
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let (port_text, ca) = (port.to_string(), text(&authority.file()));
    let (cert, key) = (text(&pair.cert), text(&pair.key));
    let clients = if asks { "yes" } else { "no" };
    let mut args = vec!["--tls-port", &port_text, "--tls-cert-file", &cert, "--tls-key-file", &key];
    args.extend(["--tls-ca-cert-file", &ca, "--tls-auth-clients", clients]);
    args.extend(more);
    (Server::with(Path::new("redis-server"), 0, &args), port)
}

fn url(port: u16) -> String {
    format!("rediss://127.0.0.1:{port}")
}

/// A cache without copies.
fn far(name: &str, backend: Backend) -> Cache {
    let backend = backend.near(false).on_down(OnDown::Error).prefix("p:");
    Cache::builder(name).items(10).backend(backend).build().expect("a cache")
}

/// Why a cache with this backend cannot use its server.
#[track_caller]
fn why(name: &str, backend: Backend) -> String {
    match far(name, backend.timeout(Duration::from_secs(5))).get("k") {
        Err(Error::Backend { fault: BackendFault::Unreachable { reason }, server }) => {
            assert!(server.starts_with("rediss://127.0.0.1:"), "{server}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// Why options are refused.
fn refused(pairs: &[(&str, &str)]) -> String {
    let pairs = [&[("backend", "rediss://cache")], pairs].concat();
    options(&pairs).check("c", OnDown::Error).expect_err("refused").to_string()
}

#[test]
fn copies_are_kept_and_values_of_any_length_pass() {
    let authority = Authority::new();
    let (server, port) = server(&authority, &authority.certificate("s", &["127.0.0.1"]), false, &[]);
    let backend = || Backend::url(url(port)).ca_file(authority.file()).timeout(Duration::from_secs(5));
    let [a, b] = ["tls a", "tls b"].map(|name| machine(name, backend()));
    for len in [1, 16 << 10, (16 << 10) + 1, 3 << 20] {
        let value = "v".repeat(len);
        a.set("k", &value).expect("set");
        within("the value is read", || b.get_str("k").expect("get").as_deref() == Some(&value[..]));
        assert!(server.ask(["STRLEN", "p:k"]) == len.to_string());
    }
    a.set("k", "short").expect("set");
    within("a copy", || is_hit(&b, "k"));
    server.ask(["SET", "p:k", "changed"]);
    within("the change", || b.get_str("k").expect("get").as_deref() == Some("changed"));
    // Connections are used again: the server has one of the owner and one of the calls of each.
    let far = far("tls far", backend());
    for n in 0..50_u32 {
        far.set("n", n.to_string()).expect("set");
    }
    let list = server.ask(["CLIENT", "LIST"]);
    assert!(list.matches("name=ucache ").count() <= 4, "{list}");
}

#[test]
fn a_child_of_a_fork_greets_the_server_itself() {
    use nix::{
        sys::wait::{WaitStatus, waitpid},
        unistd::{ForkResult, fork},
    };
    let authority = Authority::new();
    let (_server, port) = server(&authority, &authority.certificate("s", &["127.0.0.1"]), false, &[]);
    let c = machine("tls fork", patient(url(port)).ca_file(authority.file()));
    c.set("k", "parent").expect("set");
    for _ in 0..3 {
        // SAFETY: the child uses the cache, as caches promise, and ends by `_exit`.
        match unsafe { fork() }.expect("a child") {
            ForkResult::Child => {
                let read = c.get_str("k").is_ok_and(|value| value.as_deref() == Some("parent"));
                let done = read && c.set("child", "yes").is_ok();
                // SAFETY: no destructor of the parent may run twice.
                unsafe { nix::libc::_exit(i32::from(!done)) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
                assert_eq!(c.get_str("child").expect("get").as_deref(), Some("yes"));
                c.delete("child").expect("delete");
            }
        }
    }
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let pair = authority.certificate("s", &["127.0.0.1"]);
    let (server, port) = server(&authority, &pair, true, &[]);
    let mine = authority.certificate("client", &["client"]);
    let backend = || patient(url(port)).ca_file(authority.file());
    let c = machine("tls client", backend().client_certificate(&mine.cert, &mine.key));
    c.set("k", "v").expect("set");
    within("a copy", || is_hit(&c, "k"));
    let reason = why("tls none", backend());
    assert!(reason.contains("write cert= and key="), "{reason}");
    let other = stranger.certificate("client", &["client"]);
    let reason = why("tls other", backend().client_certificate(&other.cert, &other.key));
    assert!(!reason.contains("write cert="), "{reason}");
    let old = authority.sign("old", &["client"], (2020, 2021));
    let reason = why("tls old", backend().client_certificate(&old.cert, &old.key));
    assert!(!reason.contains("write cert="), "{reason}");
    assert_eq!(server.ask(["GET", "p:k"]), "v");
}

#[test]
fn a_server_that_is_not_the_right_one_gets_no_password() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(secret.path(), "hush").expect("written");
    let ca = authority.file();
    let cases = [
        (authority.sign("old", &["127.0.0.1"], (2020, 2021)), "has expired"),
        (authority.sign("new", &["127.0.0.1"], (2080, 2090)), "not valid yet"),
        (authority.certificate("name", &["db.example"]), "is for DnsName(\"db.example\"), not for 127.0.0.1"),
        (stranger.certificate("stranger", &["127.0.0.1"]), "not of an authority in ca="),
    ];
    for (n, (pair, words)) in cases.into_iter().enumerate() {
        let (server, port) = server(&authority, &pair, false, &[]);
        let mut monitor = server.client();
        monitor.ask(["MONITOR"]);
        let backend = patient(url(port)).user("web").secret_file(secret.path());
        let reason = why(&format!("tls wrong {n}"), backend.ca_file(&ca));
        assert!(reason.contains(words) && !reason.contains("hush"), "{reason}");
        server.ask(["PING"]);
        let line = monitor.reply().expect("a line");
        assert!(line.contains("PING"), "something was sent: {line}");
    }
    // A certificate for another name is right if the options name that.
    let pair = authority.certificate("name", &["db.example"]);
    let (_server, port) = server(&authority, &pair, false, &[]);
    armed(&machine("tls named", patient(url(port)).ca_file(&ca).tls_name("db.example")));
    // The system's authorities have not signed it.
    let reason = why("tls system", Backend::url(url(port)));
    assert!(reason.contains("the system's list"), "{reason}");
    armed(&machine("tls any", patient(url(port)).accept_any_certificate()));
}

#[test]
fn users_of_acls_log_in_by_tls() {
    let authority = Authority::new();
    let (server, port) = server(&authority, &authority.certificate("s", &["127.0.0.1"]), false, &[]);
    let docs = include_str!("../../src/docs/fleet.md");
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the line");
    assert_eq!(server.ask(line.replace("pages:", "p:").split(' ')), "OK");
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(secret.path(), "secret\n").expect("written");
    let backend = || patient(url(port)).ca_file(authority.file()).user("web");
    let c = machine("tls acl", backend().secret_file(secret.path()));
    c.set("k", "v").expect("set");
    fs::write(secret.path(), "wrong-hush").expect("written");
    let error = far("tls wrong", backend().secret_file(secret.path())).get("k").expect_err("refused");
    let text = format!("{error} {error:?}");
    assert!(text.contains("WRONGPASS") && !text.contains("wrong-hush"), "{text}");
}

#[test]
fn a_server_without_tls_and_one_that_says_nothing() {
    let port = free_port();
    let plain = Server::with(Path::new("redis-server"), port, &[]);
    let authority = Authority::new();
    // It waits for the end of what it takes for a command.
    let soon = |port| Backend::url(url(port)).ca_file(authority.file()).timeout(Duration::from_millis(300));
    let start = Instant::now();
    match far("tls plain", soon(port)).get("k") {
        Err(Error::Backend { fault: BackendFault::Unreachable { reason }, .. }) => {
            assert!(reason.contains("does the server speak TLS"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
    assert_eq!(plain.ask(["DBSIZE"]), "0");
    // The other way round.
    let (_server, port) = server(&authority, &authority.certificate("s", &["127.0.0.1"]), false, &[]);
    let error = far("tls needed", Backend::url(format!("redis://127.0.0.1:{port}"))).get("k");
    let text = error.expect_err("no reply").to_string();
    assert!(text.contains("write rediss://"), "{text}");
    // One that says something at once.
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // At start, and for the call.
    let greets = thread::spawn(move || {
        [(); 2].map(|()| {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"-ERR max number of clients reached\r\n").expect("sent");
            stream
        })
    });
    let reason = why("tls greets", Backend::url(url(port)).ca_file(authority.file()));
    assert!(reason.contains("does not speak TLS"), "{reason}");
    drop(greets.join().expect("it ended"));
    // Bytes that are no protocol, and an end.
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let rogue = thread::spawn(move || {
        for bytes in [&b"\x16\x03\x03\xff\xff"[..], b"\x15\x03\x03\x00\x02\x02\x28", b"", &[0; 70_000]] {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("a connection");
                let _ = stream.write_all(bytes);
            }
        }
    });
    for n in 0..4 {
        let reason = why(&format!("tls rogue {n}"), Backend::url(url(port)).ca_file(authority.file()));
        assert!(!reason.is_empty());
    }
    rogue.join().expect("it ended");
}

#[test]
fn files_that_are_wrong_are_refused_at_start() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a directory"));
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let file = |name: &str, content: &str| {
        fs::write(dir.path().join(name), content).expect("written");
        text(&dir.path().join(name))
    };
    let [one, two] = ["one", "two"].map(|name| authority.certificate(name, &["client"]));
    let (cert, key) = (text(&one.cert), text(&one.key));
    let empty = file("empty", "");
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cut = file("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let begin = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = file("locked", begin);
    for (pairs, words) in [
        (&[("ca", "/no/such")][..], "ca=/no/such: the file cannot be read: No such file"),
        (&[("ca", &empty)], "the file has no certificate"),
        (&[("ca", &key)], "the file has no certificate"),
        (&[("ca", &broken)], "certificate 1 of the file cannot be used"),
        (&[("ca", &cut)], "not valid PEM"),
        (&[("cert", &cert)], "needs key=/path"),
        (&[("key", &key)], "needs cert=/path"),
        (&[("cert", &cert), ("key", &cert)], "the file has no private key"),
        (&[("cert", &cert), ("key", &locked)], "the key is encrypted"),
        (&[("cert", &cert), ("key", "/no/such")], "key=/no/such: the file cannot be read"),
        (&[("cert", &cert), ("key", &text(&two.key))], "is not the key of the certificate in cert="),
        (&[("tls_name", "a b")], "must be the host name or the IP address"),
        (&[("insecure", "1")], "if you must, write insecure=accept-any-certificate"),
        (&[("insecure", "accept-any-certificate"), ("ca", &cert)], "no certificate is checked"),
        (&[("backend", "redis://cache"), ("ca", &cert)], "needs TLS, as in backend=rediss://"),
        (&[("sentinel_user", "me")], "needs sentinels"),
    ] {
        assert!(refused(pairs).contains(words), "{pairs:?}: {}", refused(pairs));
    }
    let insecure = options(&[("backend", "rediss://cache"), ("insecure", "accept-any-certificate")]);
    let settings = insecure.check("c", OnDown::Error).expect("valid").expect("a backend");
    assert!(settings.notes()[0].contains("gets the password"), "{:?}", settings.notes());
}
