//! Real clients over TCP: h2load for many at once, curl for what HTTP says; directly and through
//! uWSGI's own HTTP router.

use std::process::Command;

use serde_json::json;

use super::{patience::within, ports::free_port, server::Build, site::Site};

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=600,lock=300,gzip=1";

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}: `make deps` installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{errors}");
    text
}

/// A site that listens on a port, its URL, and the directory of its router's socket. `router`:
/// uWSGI's, with connections that are kept; without it each answer ends its connection.
fn on_port(build: Build, workers: usize, options: &str, router: bool) -> (Site, String, tempfile::TempDir) {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
    let behind = dir.path().join("workers");
    let behind = behind.display();
    let plugin = if build == Build::Installed { "plugin = http\n" } else { "" };
    let listen = if router {
        format!(
            "{plugin}http = 127.0.0.1:{port}\nhttp-to = {behind}\nsocket = {behind}\nhttp-keepalive = 1\n\
             http-auto-chunked = true"
        )
    } else {
        format!("http-socket = 127.0.0.1:{port}\nadd-header = Connection: close")
    };
    let site = Site::start_on(build, workers, &format!("{listen}\n{options}\n{ROUTE}"));
    within("the port listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (site, format!("http://127.0.0.1:{port}"), dir)
}

/// Many clients at once; each request has a whole answer, and the application runs once.
fn load(build: Build, options: &str, router: bool) {
    const REQUESTS: usize = 1000;
    const BODY: usize = 100_000;
    let (site, url, _dir) = on_port(build, 2, options, router);
    site.script(
        &json!({"/hot": {"size": BODY, "sleep": 0.05, "length": true, "headers": [["Content-Type", "image/x-test"]]}}),
    );
    let report = run(
        "h2load",
        &["--h1", "-n", &REQUESTS.to_string(), "-c", "20", "-T", "60s", "-N", "60s", &format!("{url}/hot")],
    );
    let line =
        |start: &str| report.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    let requests = line("requests: ");
    let all = format!("{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(requests.contains(&all), "{build:?} {options} {report}\n{}", site.log());
    assert!(line("status codes: ").contains(&format!("{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{report}");
    // "traffic: 95.60MB (100245120) total, ..., 95.37MB (100000000) data": bodies.
    let bodies = format!("({}) data", REQUESTS * BODY);
    assert!(line("traffic: ").contains(&bodies), "{build:?} {options} {report}");
    assert_eq!(site.runs(), 1, "{build:?} {options}\n{}", site.log());
}

#[test]
fn many_clients_of_h2load() {
    for &build in Build::all() {
        load(build, "", false);
        load(build, "", true);
    }
    for options in [
        "threads = 4\nenable-threads = true",
        "offload-threads = 2",
        "threads = 4\nenable-threads = true\noffload-threads = 2",
        "plugin = gevent_python3\ngevent = 40\ngevent-monkey-patch = true",
    ] {
        load(Build::Installed, options, false);
    }
}

/// Status, `X-Cache` and length of the body of one answer.
fn curl(args: &[&str]) -> String {
    const WRITE: &str = "%{http_code} %header{x-cache} %{size_download}\\n";
    run("curl", &[&["-sS", "-o", "/dev/null", "-w", WRITE], args].concat()).trim_end().to_owned()
}

fn speaks_http(build: Build, router: bool) {
    let (site, url, _dir) = on_port(build, 2, "", router);
    site.script(&json!({
        "/page": {"body": "0123456789"},
        "/text": {"size": 50_000},
        "/none": {"status": "204 No Content", "body": ""},
        "/parts": {"parts": ["one ", "two ", "three"], "pause": 0.01},
        "/large": {"size": 900_000, "headers": [["Content-Type", "image/x-test"]]},
    }));
    let at = |path: &str| format!("{url}{path}");
    for (path, length) in
        [("/page", 10), ("/text", 50_000), ("/none", 0), ("/parts", 13), ("/large", 900_000)]
    {
        let status = if path == "/none" { 204 } else { 200 };
        for cache in ["MISS", "HIT", "HIT"] {
            let expected = format!("{status} {cache} {length}");
            assert_eq!(curl(&[&at(path)]), expected, "{path} {router}\n{}", site.log());
        }
        assert_eq!(curl(&["-I", &at(path)]), format!("{status} HIT 0"), "{path}");
        if router && status == 204 {
            // The router ends an answer without a body as a chunked one, whoever made it: the bytes
            // of that chunk may come before the next answer.
            continue;
        }
        // Each answer has an end of its own: the second one begins behind it.
        let both = curl(&[&at(path), "-o", "/dev/null", &at(path)]);
        assert_eq!(both.lines().count(), 2, "{both}");
        assert!(both.lines().all(|line| line == format!("{status} HIT {length}")), "{path} {both}");
    }
    assert_eq!(curl(&["-r", "2-5", &at("/page")]), "206 HIT 4");
    assert_eq!(curl(&["-r", "10-", &at("/page")]), "416 HIT 0");
    assert_eq!(curl(&["--http1.0", &at("/page")]), "200 HIT 10");
    // Compressed once, for who takes it: the bytes of the wire are fewer.
    let packed = curl(&["--compressed", &at("/text")]);
    let wire: usize = packed.strip_prefix("200 HIT ").and_then(|n| n.parse().ok()).expect("a length");
    assert!(wire < 5000, "{packed}");
    let unpacked = run("curl", &["-sS", "--compressed", &at("/text")]);
    assert_eq!(unpacked.len(), 50_000);
    // What curl has saved of a page is still good.
    let saved = tempfile::NamedTempFile::new().expect("a file");
    let saved = saved.path().to_str().expect("UTF-8");
    assert_eq!(curl(&["--etag-save", saved, &at("/page")]), "200 HIT 10");
    assert_eq!(curl(&["--etag-compare", saved, &at("/page")]), "304 HIT 0");
}

#[test]
fn curl_directly_and_through_the_router() {
    for &build in Build::all() {
        for router in [false, true] {
            speaks_http(build, router);
        }
    }
}
