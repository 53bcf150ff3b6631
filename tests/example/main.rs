//! `examples/uwsgi.ini` and its application over HTTP, with the plugin and without.

mod fleet;
#[path = "../support/patience.rs"]
mod patience;
#[path = "../support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/server.rs"]
mod server;

use std::{collections::BTreeSet, fs, path::Path, process::Command, thread};

use patience::within;
use ports::free_port;
use serde_json::{Value, json};
use server::{Flavor, Server, http};

const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

/// `examples/uwsgi.ini` as in `make run`, except for its two ports; without the plugin's line for
/// native.
fn example(flavor: Flavor) -> (Server, u16) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let examples = server::root().join("examples");
    let plugins = server::Build::Installed.plugins().display();
    let (port, stats) = (free_port(), free_port());
    let mut ini = fs::read_to_string(examples.join("uwsgi.ini")).expect("the example is there");
    for (from, to) in [
        ("%d../target/release".to_owned(), plugins.to_string()),
        ("127.0.0.1:8080".to_owned(), format!("127.0.0.1:{port}")),
        ("127.0.0.1:9191".to_owned(), format!("127.0.0.1:{stats}")),
        ("%d".to_owned(), format!("{}/", examples.display())),
    ] {
        assert!(ini.contains(&from), "examples/uwsgi.ini has no {from}");
        ini = ini.replace(&from, &to);
    }
    if flavor == Flavor::Native {
        assert!(ini.contains("\nplugin = ucache\n"));
        ini = ini.replace("\nplugin = ucache\n", "\n");
    }
    ini += &format!("pidfile = {}/pid\n", dir.path().display());
    let server = Server::spawn(dir, &ini, 4);
    within("the example answers", || http(port, "GET", "/keys", "").is_ok_and(|answer| answer.status == 200));
    server.assert_runs_on(flavor);
    (server, port)
}

#[test]
fn the_example_serves_its_endpoints() {
    for flavor in BOTH {
        let (server, port) = example(flavor);
        let ask = |path: &str, expected: Value| {
            let answer =
                http(port, "GET", path, "").unwrap_or_else(|e| panic!("{path}: {e}\n{}", server.log()));
            let body: Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(body, expected, "{path} on {flavor:?}");
        };
        ask("/set?key=a&value=one", json!({"key": "a", "stored": true}));
        ask("/set?key=a&value=two", json!({"key": "a", "stored": false}));
        ask("/get?key=a", json!({"key": "a", "value": "one", "found": true}));
        ask("/set?key=a&value=two&replace=1&timeout=60", json!({"key": "a", "stored": true}));
        ask("/get?key=a", json!({"key": "a", "value": "two", "found": true}));
        ask("/get?key=b&default=d", json!({"key": "b", "value": "d", "found": false}));
        ask("/incr?key=n&delta=5", json!({"key": "n", "done": true, "value": 5}));
        ask("/decr?key=n", json!({"key": "n", "done": true, "value": 4}));
        ask("/mul?key=n&value=6", json!({"key": "n", "done": true, "value": 24}));
        ask("/div?key=n", json!({"key": "n", "done": true, "value": 12}));
        ask("/get?key=n&as_int=1", json!({"key": "n", "value": 12}));
        ask("/keys", json!({"keys": ["a", "n"]}));
        ask("/delete?key=a", json!({"key": "a", "deleted": true}));
        ask("/delete?key=a", json!({"key": "a", "deleted": false}));
        ask("/clear", json!({"cleared": true}));
        ask("/keys", json!({"keys": []}));
        ask("/get", json!({"error": "missing parameter: ?key=NAME"}));
        ask("/incr?key=n&delta=x", json!({"error": "delta must be a whole number"}));
        let posted = http(port, "POST", "/set", "key=p&value=%C3%BC").expect("an answer");
        assert_eq!((posted.status, posted.body.as_str()), (200, "{\"key\": \"p\", \"stored\": true}\n"));
        assert_eq!(http(port, "GET", "/nothing", "").expect("an answer").status, 404);
    }
}

#[test]
fn the_example_page_shows_one_cache_in_all_workers() {
    for flavor in BOTH {
        let (server, port) = example(flavor);
        let page = || http(port, "GET", "/", "").expect("an answer");
        let mut seen = BTreeSet::new();
        let mut visits = 0;
        within("two workers have served the page", || {
            // concurrently, because one worker could serve a single client
            let pages = thread::scope(|scope| {
                let running: Vec<_> = (0..6).map(|_| scope.spawn(page)).collect();
                running.into_iter().map(|one| one.join().expect("a page")).collect::<Vec<_>>()
            });
            visits += pages.len();
            for one in pages {
                assert_eq!(one.status, 200, "{}", server.log());
                let worker =
                    one.body.split("This answer is from worker ").nth(1).expect("the worker's number");
                seen.insert(worker.split(' ').next().expect("a word").to_owned());
            }
            seen.len() > 1
        });
        let last = page().body;
        assert!(last.contains(&format!("for {} visits", visits + 1)), "{last}");
        assert!(last.contains("<b>front page</b>: rendered by worker"), "{last}");
        let stats = http(port, "GET", "/stats", "").expect("an answer").body;
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        assert_eq!(stats["caches"][0]["name"], "mycache");
    }
}

#[test]
fn items_tell_sizes_and_times_on_ucache() {
    for flavor in BOTH {
        let (_server, port) = example(flavor);
        let ask = |path: &str| -> Value {
            let answer = http(port, "GET", path, "").expect("an answer");
            serde_json::from_str(&answer.body).expect("JSON")
        };
        ask("/set?key=a&value=one&timeout=100");
        ask("/set?key=ab&value=four&timeout=0");
        ask("/set?key=c&value=x");
        let told = ask("/items?match=a");
        let items = told["items"].as_array().expect("a list");
        let keys: Vec<_> = items.iter().map(|item| item["key"].as_str().expect("a key")).collect();
        assert_eq!((keys, &told["more"]), (vec!["a", "ab"], &json!(false)));
        if flavor == Flavor::Ucache {
            assert_eq!((&items[0]["size"], &items[1]["size"]), (&json!(3), &json!(4)));
            let left = items[0]["ttl"].as_f64().expect("a number");
            assert!((1.0..=101.0).contains(&left), "{left}");
            assert_eq!(items[1]["ttl"], Value::Null);
        } else {
            assert_eq!(items[0]["size"], Value::Null);
        }
        let told = ask("/items?most=2");
        assert_eq!((told["items"].as_array().map(Vec::len), &told["more"]), (Some(2), &json!(true)));
    }
}

/// Runs a script of this directory in headless Chromium.
fn in_browser(script: &str, args: &[&str], log: impl Fn() -> String) {
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    fs::create_dir_all(&screenshots).expect("a directory for screenshots");
    let python = server::root().join(".build/venv/bin/python3");
    let done = Command::new("timeout")
        .arg("150")
        .arg(python)
        .arg(server::root().join("tests/example").join(script))
        .args(args)
        .arg(&screenshots)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python runs");
    assert!(
        done.status.success(),
        "{script} {args:?}: {}{}\n`.ci/deps all` installs what it needs\n{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
        log()
    );
}

#[test]
fn the_page_works_in_a_browser() {
    for flavor in BOTH {
        let (server, port) = example(flavor);
        let address = format!("http://127.0.0.1:{port}/");
        in_browser("dashboard.py", &[&address, &format!("{flavor:?}")], || server.log());
    }
}
