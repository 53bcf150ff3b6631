//! `dump` and `load`: everything is dumped and restored, also through a real Redis.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ucache::{Cache, Expires};

use crate::{Store, patience::within, ucache, ucache_with};

/// Items of every kind.
fn fill(cache: &Cache) {
    cache.set("text", "naïve \"quoted\"\nline").unwrap();
    cache.set(b"\xff\x00key", b"\x00\xfe\r\n$3\r\nvalue").unwrap();
    cache.set_with("hour", "v", Duration::from_secs(3600)).unwrap();
    cache.incr("counter", 1234).unwrap();
    cache.set("large", vec![b'x'; 60_000]).unwrap();
    for i in 0..300 {
        cache.set(format!("key:{i}"), format!("value {i}")).unwrap();
    }
}

fn all(cache: &Cache) -> Vec<(Vec<u8>, Vec<u8>, Expires)> {
    let mut all: Vec<_> = cache.entries().map(|e| (e.key, e.value, e.expires)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn what_is_dumped_is_loaded() {
    let (from, to) = (Store::new("cli dump"), Store::new("cli load"));
    fill(&from.cache);
    for format in ["jsonl", "resp"] {
        to.cache.clear().unwrap();
        let dump = from.run(&["dump", "-f", format]);
        assert_eq!((dump.code, dump.err.as_str()), (Some(0), ""));
        let loaded = to.run_with(&["load", "-f", format], &dump.out);
        assert_eq!((loaded.code, loaded.err.as_str()), (Some(0), "305 loaded\n"));
        assert_eq!(all(&to.cache), all(&from.cache), "{format}");
    }
    let stats = from.cache.stats();
    assert_eq!((stats.hits, stats.misses), (0, 0), "a dump is no use");
    // To a file that appears only when it is complete, and only some keys.
    let file = from.dir.path().join("dump.jsonl");
    from.run(&["dump", "key:1?", "-o", file.to_str().unwrap()]).text();
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 10);
    to.cache.clear().unwrap();
    to.cache.set("key:10", "mine").unwrap();
    let loaded = to.run(&["load", file.to_str().unwrap(), "--keep"]);
    assert_eq!(loaded.err, "9 loaded, 1 existed and were kept\n");
    assert_eq!(to.cache.get_str("key:10").unwrap().as_deref(), Some("mine"));
    assert_eq!(to.run(&["load", file.to_str().unwrap()]).err, "10 loaded\n");
    assert_eq!(to.cache.get_str("key:10").unwrap().as_deref(), Some("value 10"));
}

#[test]
fn what_cannot_be_loaded_is_told_with_its_line() {
    let store = Store::new("cli load errors");
    let lines = concat!(
        "{\"key\":\"a\",\"value\":\"1\"}\n",
        "{\"key\":\"past\",\"value\":\"1\",\"expires\":1}\n",
        "{\"key\":\"empty\",\"value\":\"\"}\n",
        "{\"key\":\"b\",\"value\":\"2\"}\n",
    );
    let ran = store.run_with(&["load"], lines.as_bytes());
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    for part in ["key \"empty\": the value is empty", "2 loaded, 1 had expired, 1 refused"] {
        assert!(ran.err.contains(part), "{part:?} in {}", ran.err);
    }
    assert!(store.cache.contains("b") && !store.cache.contains("past"));
    let said = store.run_with(&["load"], b"{\"key\":\"c\",\"value\":\"3\"}\nnonsense\n").failed(5);
    assert!(said.contains("line 2 is not JSON") && said.contains("--format"), "{said}");
    assert!(store.cache.contains("c"), "what came before is stored");
    let said = store.run_with(&["load", "-f", "resp"], b"*3\r\n$3\r\nSET\r\n$1\r\nd\r\n$9\r\nx").failed(5);
    assert!(said.contains("command 1"), "{said}");
    let zero = b"*5\r\n$3\r\nSET\r\n$1\r\nz\r\n$1\r\nv\r\n$4\r\nEXAT\r\n$1\r\n0\r\n";
    let said = store.run_with(&["load", "-f", "resp"], zero).failed(5);
    assert!(said.contains("command 1") && !store.cache.contains("z"), "{said}");
    assert!(store.run(&["load", "/no/such/file"]).failed(5).contains("/no/such/file"));
    assert_eq!(store.run_with(&["load"], b"").err, "0 loaded\n");
}

#[test]
fn a_full_cache_refuses_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small");
    ucache(["create", path.to_str().unwrap(), "-i", "3"]).text();
    let lines: String = (0..20).map(|i| format!("{{\"key\":\"k{i}\",\"value\":\"v\"}}\n")).collect();
    let ran = ucache_with(["load", path.to_str().unwrap()], lines.as_bytes());
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.contains("3 loaded, 17 refused") && ran.err.contains("purge_lru"), "{}", ran.err);
    assert_eq!(ran.err.matches("the cache is full").count(), 10, "ten are told, all are counted");
}

struct Redis {
    child: Child,
    dir: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            "0",
            "--unixsocket",
            "r.sock",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            ".",
        ]);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child =
            command.spawn().unwrap_or_else(|e| panic!("redis-server: {e}. `.ci/deps all` installs it"));
        let redis = Self { child, dir };
        within("Redis answers", || {
            Path::new(&redis.socket()).exists() && redis.cli(&["PING"], b"") == b"PONG\n"
        });
        redis
    }

    fn socket(&self) -> String {
        self.dir.path().join("r.sock").to_str().unwrap().to_owned()
    }

    fn cli(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("redis-cli");
        command.args(["-s", &self.socket()]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.stdout
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A dump replaces the target of a link, unless the link belongs to another user.
#[test]
fn a_dump_is_not_written_where_somebody_elses_link_leads() {
    use std::os::unix::fs::{lchown, symlink};

    let store = Store::new("cli dump link");
    fill(&store.cache);
    let (victim, link) = (store.dir.path().join("victim"), store.dir.path().join("link"));
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, &link).unwrap();
    let dump = || store.run(&["dump", "-o", link.to_str().unwrap()]);
    lchown(&link, Some(65_534), None).expect("this test gives a link away: run it as root");
    let said = dump().failed(5);
    assert!(said.contains("a symbolic link owned by user 65534"), "{said}");
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    lchown(&link, Some(0), None).unwrap();
    dump().text();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&victim).unwrap().lines().count(), 305);
}

/// Exceeding a file size limit is reported as an error, and leaves nothing behind.
#[test]
fn a_dump_that_a_limit_cuts_off_is_an_error() {
    use nix::sys::resource::{Resource, setrlimit};

    let store = Store::new("cli dump limit");
    fill(&store.cache);
    let limited = |args: &[&str]| {
        let mut command = crate::command();
        command.args(args);
        let limit = || Ok(setrlimit(Resource::RLIMIT_FSIZE, 1000, 1000)?);
        // SAFETY: setrlimit is async-signal-safe.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, limit) };
        crate::Ran::from(command.output().unwrap())
    };
    let names = || fs::read_dir(store.dir.path()).unwrap().count();
    let (path, before) = (store.path(), names());
    let out = store.dir.path().join("out");
    let said = limited(&["dump", path.to_str().unwrap(), "-o", out.to_str().unwrap()]).failed(5);
    assert!(said.contains("File too large"), "{said}");
    assert_eq!(names(), before, "a part of it was left");
}

#[test]
fn a_real_redis_takes_the_stream() {
    let store = Store::new("cli redis");
    fill(&store.cache);
    let redis = Redis::start();
    let stream = store.run(&["dump", "--format", "resp", "--numbers"]);
    assert_eq!(stream.code, Some(0));
    let said = String::from_utf8(redis.cli(&["--pipe"], &stream.out)).unwrap();
    assert!(said.contains("errors: 0, replies: 305"), "{said}");
    assert_eq!(redis.cli(&["DBSIZE"], b""), b"305\n");
    assert_eq!(redis.cli(&["GET", "key:17"], b""), b"value 17\n");
    assert_eq!(redis.cli(&["STRLEN", "large"], b""), b"60000\n");
    assert_eq!(redis.cli(&["INCR", "counter"], b""), b"1235\n", "a counter counts on");
    let ttl: u64 = String::from_utf8(redis.cli(&["TTL", "hour"], b"")).unwrap().trim().parse().unwrap();
    assert!((3000..=3600).contains(&ttl), "{ttl}");
    assert_eq!(redis.cli(&["TTL", "text"], b""), b"-1\n");
    // Redis reads -x from its input, byte for byte, and prints a reply unchanged.
    let got = redis.cli(&["-x", "GET"], b"\xff\x00key");
    assert_eq!(got, b"\x00\xfe\r\n$3\r\nvalue\n");
}
