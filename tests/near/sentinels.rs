//! Caches whose server is found by sentinels. `tests/fleet/failover.rs` judges failovers under load.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ucache::{Backend, BackendFault, Cache, Error, OnDown};

use crate::{
    backend::Server,
    certificates::Authority,
    copies::{armed, is_hit, machine, within},
    ports::free_port,
    sentinel::{SERVICE, Sentinel, Service, is_replica},
};

const MAX_STALE: Duration = Duration::from_millis(300);

/// A cache without copies.
fn far(name: &str, url: &str) -> Cache {
    let backend = Backend::url(url).near(false).on_down(OnDown::Error).prefix("p:");
    Cache::builder(name).items(10).backend(backend).build().expect("a cache")
}

fn reason(error: &Error) -> String {
    match error {
        Error::Backend { fault: BackendFault::Unreachable { reason }, .. } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// Why the server cannot be reached, whatever was said a moment ago.
fn why(c: &Cache) -> String {
    let mut said = String::new();
    within("a call is tried", || match c.get("k") {
        Err(Error::Backend { fault: BackendFault::Down { .. }, .. }) => false,
        Err(error) => {
            said = reason(&error);
            true
        }
        Ok(value) => panic!("{value:?}"),
    });
    said
}

/// Something that speaks for a sentinel: says what it is told to whatever is asked.
fn impostor(reply: impl Fn() -> String + Clone + Send + 'static) -> u16 {
    use std::io::{Read, Write};
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let reply = reply.clone();
            thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(reply().as_bytes());
                }
            });
        }
    });
    port
}

/// The replies of a sentinel that names the server at this port, since a failover of this number.
fn naming(port: u16, epoch: u64) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let address = [bulk("127.0.0.1"), bulk(&port.to_string())].concat();
    format!("*2\r\n{address}*2\r\n{}{}", bulk("config-epoch"), bulk(&epoch.to_string()))
}

#[test]
fn copies_and_calls_follow_a_failover() {
    let service = Service::start();
    let c = machine("sentinel", Backend::url(service.url()).max_stale(MAX_STALE));
    let idle = far("sentinel idle", &service.url());
    idle.set("idle", "1").expect("set");
    c.set("k", "before").expect("set");
    within("a copy", || is_hit(&c, "k"));
    let terms = c.near_stats().expect("a backend").terms;

    // The primary hangs, and its successor has all that it had.
    service.drain(0, 1);
    service.servers[0].0.freeze(true);
    service.wait_for_primary(1);
    within("writes reach the new primary", || c.set("k", "after").is_ok());
    assert_eq!(service.servers[1].0.ask(["GET", "p:k"]), "after");
    armed(&c);
    assert!(c.near_stats().expect("a backend").terms > terms);

    // It goes on, and does not know that it is the primary no more: what it stores will be lost.
    service.servers[0].0.freeze(false);
    let old = &service.servers[0].0;
    old.ask(["CLIENT", "UNPAUSE"]);
    assert!(old.ask(["ROLE"]).starts_with("master"), "it was told in time, and shows nothing here");
    // A connection of the time before leads there; this process asks a sentinel first.
    idle.set("idle", "2").expect("set");
    assert_eq!(service.servers[1].0.ask(["GET", "p:idle"]), "2");
    assert_eq!(idle.get_str("idle").expect("get").as_deref(), Some("2"));
    for n in 0..20_u32 {
        c.set("k", n.to_string()).expect("set");
        assert_eq!(c.get_str("k").expect("get"), Some(n.to_string()));
        service.servers[1].0.ask(["SET", "p:other", &n.to_string()]);
        let start = Instant::now();
        within("the change is seen", || c.get_str("other").expect("get") == Some(n.to_string()));
        assert!(start.elapsed() < MAX_STALE + Duration::from_millis(500), "{:?}", start.elapsed());
    }

    // Back again, as an operator does it.
    within("the old primary is a replica", || is_replica(&service.servers[0].0));
    service.wait_for_sentinels();
    service.drain(1, 0);
    within("a failover begins", || service.sentinels[0].ask(&format!("SENTINEL FAILOVER {SERVICE}")) == "OK");
    service.wait_for_primary(0);
    within("writes reach the first primary", || c.set("k", "back").is_ok());
    within("the first primary has it", || old.try_ask(["GET", "p:k"]).is_ok_and(|v| v == "back"));
    armed(&c);
    assert_eq!(c.get_str("idle").expect("get").as_deref(), Some("2"));
}

#[test]
fn sentinels_that_are_down_at_start_are_found_later() {
    let primary_port = free_port();
    let primary = Server::with(Path::new("redis-server"), primary_port, &[]);
    let mut sentinel = Sentinel::start(primary_port, "", "");
    sentinel.down();
    let dead = free_port();
    let url = format!("redis+sentinel://127.0.0.1:{};127.0.0.1:{dead}/{SERVICE}", sentinel.port);
    let backend = Backend::url(&url).prefix("p:").on_down(OnDown::Error).max_stale(MAX_STALE);
    let c = Cache::builder("late sentinel").items(10).backend(backend).build().expect("it starts");
    let said = why(&c);
    let expected = format!("sentinel 127.0.0.1:{dead}: no connection: Connection refused");
    assert!(said.contains(&expected) && said.contains(&sentinel.port.to_string()), "{said}");
    sentinel.up();
    within("it is found", || c.set("k", "v").is_ok());
    armed(&c);
    // They are down again, and the primary is not: new connections lead to it all the same.
    sentinel.down();
    primary.ask(["CLIENT", "KILL", "TYPE", "normal"]);
    within("it goes on", || c.set("k", "w").is_ok());
    armed(&c);
    primary.ask(["SET", "p:k", "x"]);
    within("changes are seen", || c.get_str("k").expect("get").as_deref() == Some("x"));
}

#[test]
fn a_sentinel_that_hangs_or_lies_misleads_nobody() {
    let ports = [(); 3].map(|()| free_port());
    let primary = Server::with(Path::new("redis-server"), ports[0], &[]);
    let replica_of = format!("127.0.0.1 {}", ports[0]);
    let _replica = Server::with(Path::new("redis-server"), ports[1], &["--replicaof", &replica_of]);
    let stranger = Server::with(Path::new("redis-server"), ports[2], &[]);
    // Accepts, and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
    let silent_port = silent.local_addr().expect("an address").port();
    let lies = impostor(move || naming(ports[1], 9));
    let strange = impostor(move || naming(ports[2], 0));
    let says = impostor(move || naming(ports[0], 0));
    let says_too = impostor(move || naming(ports[0], 0));
    let knows_nothing = impostor(|| "*-1\r\n-ERR No such master with that name\r\n".to_owned());
    let all = [silent_port, lies, strange, knows_nothing, says, says_too];
    let places: Vec<_> = all.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let url = format!("redis+sentinel://{}/{SERVICE}", places.join(";"));
    for (n, near) in [false, true].into_iter().enumerate() {
        let backend = Backend::url(&url).prefix("p:").near(near).timeout(Duration::from_secs(5));
        let c = Cache::builder(format!("lies {n}")).items(10).backend(backend).build().expect("a cache");
        c.set("k", "v").expect("set");
        assert_eq!(primary.ask(["GET", "p:k"]), "v");
        assert_eq!(stranger.ask(["DBSIZE"]), "0");
        if near {
            armed(&c);
        }
    }
    // Nobody who names a primary.
    let url = |port| format!("redis+sentinel://127.0.0.1:{port}/{SERVICE}");
    let said = why(&far("only a replica", &url(lies)));
    assert!(said.contains("it is a replica now"), "{said}");
    let said = why(&far("no service", &url(knows_nothing)));
    assert!(said.contains("it knows no service \"pages\""), "{said}");
    let said = why(&far("hangs", &url(silent_port)));
    assert!(said.contains("no reply within"), "{said}");
}

#[test]
fn a_primary_that_the_sentinels_have_left_is_left() {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    };
    // Both say that they are primaries, as after a partition; which one is, the sentinels say.
    let ports = [(); 2].map(|()| free_port());
    let servers = ports.map(|port| Server::with(Path::new("redis-server"), port, &[]));
    let epoch = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&epoch);
    let says = impostor(move || {
        let epoch = told.load(SeqCst);
        naming(ports[usize::try_from(epoch % 2).expect("0 or 1")], epoch)
    });
    let url = format!("redis+sentinel://127.0.0.1:{says}/{SERVICE}");
    let c = machine("left", Backend::url(&url).max_stale(MAX_STALE));
    let far = far("left far", &url);
    for round in 0..3_usize {
        let (server, value) = (&servers[round % 2], round.to_string());
        for c in [&c, &far] {
            // Until a moment after the sentinels have another opinion the old one is used.
            within("it is left", || {
                c.set("k", &value).expect("set");
                server.ask(["GET", "p:k"]) == value
            });
            server.ask(["DEL", "p:k"]);
        }
        armed(&c);
        server.ask(["SET", "p:k", &format!("{value} there")]);
        within("its changes are heard", || c.get_str("k").expect("get") == Some(format!("{value} there")));
        epoch.fetch_add(1, SeqCst);
    }
}

#[test]
fn passwords_and_tls_for_the_server_and_the_sentinels() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a directory"));
    let pair = authority.certificate("s", &["127.0.0.1"]);
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let (ca, cert, key) = (text(&authority.file()), text(&pair.cert), text(&pair.key));
    let secret = |name: &str| {
        fs::write(dir.path().join(name), name).expect("written");
        dir.path().join(name)
    };
    let port = free_port();
    let port_text = port.to_string();
    let mut args = vec!["--tls-port", &port_text, "--tls-cert-file", &cert, "--tls-key-file", &key];
    args.extend(["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--tls-replication", "yes"]);
    let server = Server::with(Path::new("redis-server"), 0, &args);
    server.ask(["ACL", "SETUSER", "web", "on", ">of-the-server", "~p:*", "allchannels", "+@all"]);
    let files = format!("tls-ca-cert-file {ca}\ntls-cert-file {cert}\ntls-key-file {key}");
    let sentinel_port = free_port();
    let tls = format!("{files}\ntls-port {sentinel_port}\ntls-auth-clients no\ntls-replication yes");
    let users = "user default off\nuser watcher on >of-the-sentinel allchannels +@all";
    let of_service =
        format!("sentinel auth-user {SERVICE} web\nsentinel auth-pass {SERVICE} of-the-server\n{users}");
    let _sentinel = Sentinel::start(port, &tls, &of_service);
    let url = format!("rediss+sentinel://127.0.0.1:{sentinel_port}/{SERVICE}");
    let backend = || {
        let backend = Backend::url(&url).ca_file(&ca).user("web").secret_file(secret("of-the-server"));
        backend.sentinel_user("watcher")
    };
    let c = machine("secret sentinel", backend().sentinel_secret_file(secret("of-the-sentinel")));
    c.set("k", "v").expect("set");
    within("a copy", || is_hit(&c, "k"));
    server.ask(["SET", "p:k", "w"]);
    within("the change", || c.get_str("k").expect("get").as_deref() == Some("w"));
    let wrong = backend().sentinel_secret_file(secret("not-right")).near(false).on_down(OnDown::Error);
    let c = Cache::builder("wrong sentinel").items(10).backend(wrong).build().expect("a cache");
    let said = why(&c);
    assert!(said.contains("WRONGPASS") && !said.contains("not-right"), "{said}");
}
