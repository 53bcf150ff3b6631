//! uWSGI's options for caches, in addition to `cache2`.

use std::path::Path;

use crate::{get, on_both, patience::within, ports::free_port, server::Server, uwsgi_request};

#[test]
fn check_cache_reads_the_first_cache_whatever_it_names() {
    on_both(|flavor| {
        for line in ["check-cache = true", "check-cache = second"] {
            let server = Server::start(
                flavor,
                1,
                &format!("cache2 = name=true,items=9\ncache2 = name=second,items=9\n{line}"),
            );
            assert_eq!(
                server.run(1, "uwsgi.cache_set('/a', 'first'), uwsgi.cache_set('/b', 'second', 0, 'second')"),
                "(True, True)"
            );
            assert_eq!(get(&server, "/a").body, "first", "{flavor:?} {line}");
            assert_eq!(get(&server, "/b").status, 200, "{flavor:?} {line}");
        }
        let log = Server::refuse(flavor, "cache2 = name=c,items=9\ncheck-cache = nothing");
        assert!(log.contains("unable to find cache \"nothing\""), "{flavor:?}\n{log}");
    });
}

#[test]
fn cached_static_paths_expire_and_need_a_cache() {
    let files = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(files.path().join("one"), "file one").expect("a file can be written");
    on_both(|flavor| {
        let lines = format!(
            "cache2 = name=c,items=9\ncache-expire-freq = 1\nstatic-cache-paths = 1\nstatic-map = /s={}",
            files.path().display()
        );
        let server = Server::start(flavor, 1, &lines);
        assert_eq!(get(&server, "/s/one").body, "file one");
        assert_eq!(server.run(1, "len(uwsgi.cache_keys('c'))"), "1", "without a name it is the first");
        within("the path expires", || server.run(1, "uwsgi.cache_keys('c')") == "[]");
        drop(server);
        let log = Server::refuse(flavor, "static-cache-paths = 1");
        assert!(log.contains("caching of static paths requires uWSGI caching"), "{flavor:?}\n{log}");
        let log = Server::refuse(
            flavor,
            "cache2 = name=c,items=9\nstatic-cache-paths = 1\nstatic-cache-paths-name = no",
        );
        assert!(log.contains("unable to find cache \"no\""), "{flavor:?}\n{log}");
    });
}

#[test]
fn the_sweeper_reports_what_it_frees() {
    on_both(|flavor| {
        let lines = "cache2 = name=c,items=9\ncache-expire-freq = 1\ncache-report-freed-items = true";
        let server = Server::start(flavor, 1, lines);
        // the master starts it possibly after the workers
        within("the sweeper", || server.log().contains("cache sweeper thread enabled"));
        assert_eq!(server.run(1, "[uwsgi.cache_set(k, 'v', 1) for k in 'abc']"), "[True, True, True]");
        within("the line", || server.log().contains("freed 3 items for cache \"c\""));
    });
}

#[test]
fn a_file_to_load_must_be_there() {
    on_both(|flavor| {
        for option in ["load-file-in-cache", "load-file-in-cache-gzip"] {
            let log = Server::refuse(flavor, &format!("cache2 = name=c,items=9\n{option} = /nowhere/at/all"));
            assert!(log.contains("/nowhere/at/all"), "{flavor:?}\n{log}");
        }
    });
}

#[test]
fn other_lock_engines_serve_as_well() {
    on_both(|flavor| {
        let server = Server::start(flavor, 2, "lock-engine = ipcsem\ncache2 = name=c,items=9,purge_lru=1");
        assert!(server.log().contains("lock engine: ipcsem"), "{}", server.log());
        assert_eq!(server.run(1, "uwsgi.cache_set('k', 'v'), uwsgi.cache_inc('n', 3)"), "(True, True)");
        assert_eq!(server.run(2, "uwsgi.cache_get('k'), uwsgi.cache_num('n')"), "(b'v', 3)");
    });
}

#[test]
fn old_style_stores_survive_a_restart() {
    on_both(|flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("store");
        let lines = format!(
            "cache = 10\ncache-blocksize = 100\ncache-store = {}\ncache-store-sync = 1",
            path.display()
        );
        let server = Server::start(flavor, 1, &lines);
        assert_eq!(server.run(1, "uwsgi.cache_set('k', 'kept'), uwsgi.cache_inc('n', 7)"), "(True, True)");
        drop(server);
        let server = Server::start(flavor, 1, &lines);
        assert_eq!(server.run(1, "uwsgi.cache_get('k'), uwsgi.cache_num('n', 'default')"), "(b'kept', 7)");
    });
}

#[test]
fn old_style_nodes_and_sync_servers() {
    on_both(|flavor| {
        let (tcp, udp) = (free_port(), free_port());
        let served = format!(
            "plugin = cache\nsocket = 127.0.0.1:{tcp}\ncache = 10\ncache-udp-server = 127.0.0.1:{udp}"
        );
        let first = Server::start(flavor, 1, &served);
        assert_eq!(first.run(1, "uwsgi.cache_set('early', 'copied')"), "True");
        let follows = format!("cache = 10\ncache-sync = 127.0.0.1:{tcp}\ncache-udp-node = 127.0.0.1:{udp}");
        let second = Server::start(flavor, 1, &follows);
        assert_eq!(second.run(1, "uwsgi.cache_get('early')"), "b'copied'", "{flavor:?}\n{}", second.log());
        within("the node is told", || {
            second.run(1, "uwsgi.cache_update('late', 'told')");
            first.run(1, "uwsgi.cache_get('late', 'default')") == "b'told'"
        });
    });
}

#[test]
fn a_request_may_name_a_key_to_be_answered() {
    on_both(|flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("uwsgi");
        let lines = format!("socket = {}\nmap-socket = 1:1\ncache2 = name=c,items=9", socket.display());
        let server = Server::start(flavor, 1, &lines);
        assert_eq!(server.run(1, "uwsgi.cache_set('held', 'from the cache')"), "True");
        let ask = |key: &str| {
            let vars = [
                ("REQUEST_METHOD", "GET"),
                ("REQUEST_URI", "/"),
                ("PATH_INFO", "/"),
                ("UWSGI_CACHE_GET", key),
            ];
            String::from_utf8(uwsgi_request(&socket, &vars)).expect("text")
        };
        assert_eq!(ask("held"), "from the cache", "{flavor:?}\n{}", server.log());
        assert!(ask("nothing").contains(" 200 OK\r\n"), "{}", ask("nothing"));
    });
}

/// Debian's OpenSSL is newer than the last one for which uWSGI compiles its cache of TLS sessions.
#[test]
fn tls_sessions_are_not_cached_with_todays_openssl() {
    on_both(|flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (cert, key) = certificate(dir.path());
        let port = free_port();
        let lines = format!(
            "plugin = http\nhttps = 127.0.0.1:{port},{cert},{key}\nhttp-to = {}/uwsgi\nsocket = {0}/uwsgi\n\
             map-socket = 1:1\nssl-sessions-use-cache = c\nssl-sessions-timeout = 60\n\
             cache2 = name=c,items=9,blocksize=4096",
            dir.path().display()
        );
        let server = Server::start(flavor, 1, &lines);
        assert_eq!(server.run(1, "uwsgi.opt['ssl-sessions-use-cache']"), "b'c'");
        for _ in 0..2 {
            assert_eq!(curl(&format!("https://127.0.0.1:{port}/"), &[]), "", "{flavor:?}\n{}", server.log());
        }
        let stats = server.cache_stats("c");
        assert_eq!((&stats["items"], &stats["hits"], &stats["miss"]), (&0.into(), &0.into(), &0.into()));
        // if it is compiled in, a cache with smaller blocks ends the server
        assert_eq!(server.run(1, "uwsgi.cache_set('k', 'v'), uwsgi.cache_get('k')"), "(True, b'v')");
    });
}

/// A self-signed certificate and its key.
pub(crate) fn certificate(dir: &Path) -> (String, String) {
    let at = |name: &str| dir.join(name).display().to_string();
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-keyout", &at("key.pem"), "-out", &at("cert.pem")])
        .output()
        .expect("openssl runs (apt-get install openssl)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (at("cert.pem"), at("key.pem"))
}

/// The output of curl.
pub(crate) fn curl(url: &str, options: &[&str]) -> String {
    let done = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "20"])
        .args(options)
        .arg(url)
        .output()
        .expect("curl runs (apt-get install curl)");
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

/// The fields of the statistics, in order, with their kinds, and the output of a viewer such as
/// uwsgicachetop.
#[test]
fn viewers_of_the_statistics_see_the_same_fields() {
    let fields = on_both(|flavor| {
        let server = Server::start(flavor, 1, "cache2 = name=c,items=9,lastmod=1");
        server.run(1, "uwsgi.cache_set('k', 'v'), uwsgi.cache_get('k'), uwsgi.cache_get('no')");
        within("live figures", || server.cache_stats("c")["hits"] == 1);
        let text = server.stats();
        let from = text.find("\"caches\"").expect("caches are listed");
        let text = &text[from..][..text[from..].find(']').expect("the list ends")];
        let kind = |line: &str| {
            let (name, value) = line.trim().split_once(':')?;
            Some((name.to_owned(), if value.starts_with('"') { "text" } else { "number" }))
        };
        let fields: Vec<_> = text.split([',', '\n', '{', '}']).filter_map(kind).collect();
        assert_eq!(fields.len(), 13, "{text}");
        fields
    });
    assert_eq!(fields[0], fields[1]);
}
