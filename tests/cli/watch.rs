//! `stat`, `metrics`, `top` and `bench`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Store, command, patience::within, ucache};

fn used(name: &str) -> Store {
    let store = Store::new(name);
    for i in 0..60 {
        store.cache.set(format!("key {i}"), vec![b'v'; 100 * (i + 1)]).unwrap();
    }
    store.cache.get("key 7").unwrap();
    store.cache.get("none").unwrap();
    store.cache.set("", "v").unwrap_err();
    store
}

#[test]
fn figures_as_a_table_and_as_json() {
    let store = used("cli stat");
    let table = store.run(&["stat"]).text();
    for part in ["cli stat", "60 of 1,000 (6.0 %)", "1 (50.0 %)", "drops the least recently used", "2.0 KiB"]
    {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
    assert!(!table.contains('\x1b'), "colours are for terminals");
    assert!(store.run(&["stat", "--color", "always"]).text().contains("\x1b[1m"));
    let json: serde_json::Value = serde_json::from_str(&store.run(&["stat", "--json"]).text()).unwrap();
    let stats = store.cache.stats();
    assert_eq!(json["items"], stats.items);
    assert_eq!(json["stored"], stats.stored);
    assert_eq!((&json["hits"], &json["misses"], &json["rejected_limit"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(
        (&json["name"], &json["purge_lru"], &json["blocks"]),
        (&"cli stat".into(), &true.into(), &().into())
    );
    let memory = store.cache.memory();
    assert_eq!((&json["payload_bytes"], &json["disk_bytes"]), (&memory.payload.into(), &memory.disk.into()));
    assert!(json["resident_bytes"].as_u64() > Some(memory.payload) && json["memory"].is_null(), "{json}");
    let shards: u64 = json["shard_items"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(shards, 60);
}

#[test]
fn memory_by_size_of_block() {
    let store = used("cli classes");
    // 183,000 bytes of values, and keys of 5 and 6 bytes.
    let payload = 183_000 + 10 * 5 + 50 * 6;
    let table = store.run(&["stat", "--classes"]).text();
    for part in [
        "\nmemory\n",
        "  payload                179.1 KiB",
        "size up to",
        "  8.0 KiB            20 ",
        "extents being emptied  0 B",
    ] {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&store.run(&["stat", "--classes", "--json"]).text()).unwrap();
    assert_eq!((&json["payload_bytes"], &json["memory_sampled"]), (&payload.into(), &false.into()));
    let (memory, classes) = (&json["memory"], json["memory"]["classes"].as_array().unwrap());
    let sum = |name: &str| classes.iter().map(|class| class[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("items"), sum("payload_bytes")), (60, payload));
    assert_eq!(sum("entry_bytes"), memory["entry_bytes"]);
    let in_use =
        ["extent_bytes", "large_block_bytes", "leaving_bytes"].map(|name| memory[name].as_u64().unwrap());
    let fragmentation = json["fragmentation_bytes"].as_u64().unwrap();
    assert_eq!(in_use.iter().sum::<u64>(), sum("entry_bytes") + fragmentation);

    let page = ucache(["metrics", store.path().to_str().unwrap()]).text();
    let of = |name: &str| {
        samples(&page).into_iter().filter(|(n, _)| n.starts_with(name)).map(|(_, v)| v).sum::<u64>()
    };
    assert_eq!((of("ucache_payload_bytes{"), of("ucache_class_payload_bytes{")), (payload, payload));
    assert_eq!((of("ucache_class_items{"), of("ucache_disk_bytes{")), (60, store.cache.memory().disk));
    assert!(page.contains("size=\"8192\"}"), "{page}");
}

/// A process that is killed when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every line is a comment or a sample, and samples of one name stand together.
fn samples(page: &str) -> Vec<(String, u64)> {
    let (mut families, mut all) = (Vec::<String>::new(), Vec::new());
    for line in page.lines().filter(|line| !line.starts_with("# HELP ")) {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            families.push(family.split(' ').next().unwrap().to_owned());
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect(line);
        let family = families.last().expect("a type before the first sample");
        assert!(name.starts_with(&format!("{family}{{")) && name.ends_with('}'), "{line}");
        all.push((name.to_owned(), value.parse().expect(line)));
    }
    let mut once = families.clone();
    once.dedup();
    assert_eq!(once.len(), families.len());
    all
}

#[test]
fn metrics_once_and_over_http() {
    let (one, two) = (used("cli \"metrics\" 1"), used("cli metrics 2"));
    let (first, second) = (one.path(), two.path());
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let page = ucache(["metrics", first, second]).text();
    let all = samples(&page);
    let value = |page: &[(String, u64)], name: &str| {
        page.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
    };
    let labels = format!("cache=\"cli \\\"metrics\\\" 1\",store=\"{first}\"");
    assert_eq!(value(&all, &format!("ucache_items{{{labels}}}")), 60);
    assert_eq!(value(&all, &format!("ucache_hits_total{{{labels}}}")), 1);
    assert_eq!(
        value(&all, &format!("ucache_rejected_limit_total{{cache=\"cli metrics 2\",store=\"{second}\"}}")),
        1
    );

    let mut command = command();
    command.args(["metrics", first, "--listen", "127.0.0.1:0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = Ended(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let at =
        line.trim().strip_prefix("http://").and_then(|l| l.strip_suffix("/metrics")).expect("an address");
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let get = || ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = get();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", page.len())), "{head}");
    assert_eq!(value(&samples(page), &format!("ucache_items{{{labels}}}")), 60);
    one.cache.set("more", "v").unwrap();
    assert_eq!(
        value(&samples(get().split_once("\r\n\r\n").unwrap().1), &format!("ucache_items{{{labels}}}")),
        61
    );
    assert!(ask("GET /nothing HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    // A request without an end, which is not read completely; and a client that connects and
    // disconnects.
    let _ = TcpStream::connect(at).unwrap().write_all(&[b'x'; 20_000]);
    drop(TcpStream::connect(at).unwrap());
    assert!(get().starts_with("HTTP/1.1 200"));
}

/// `metrics --listen` of a store, and its address.
fn listening(store: &Store, files: u64) -> (Ended, String) {
    use nix::sys::resource::{Resource, setrlimit};

    let mut command = command();
    command.arg("metrics").arg(store.path()).args(["--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let limit = move || Ok(setrlimit(Resource::RLIMIT_NOFILE, files, files)?);
    // SAFETY: setrlimit is async-signal-safe.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, limit) };
    let mut server = Ended(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let at = line.trim().strip_prefix("http://").and_then(|l| l.strip_suffix("/metrics"));
    (server, at.expect("an address").to_owned())
}

fn page_from(at: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn idle_clients_do_not_delay_others() {
    let store = used("cli idle clients");
    let (_server, at) = listening(&store, 1000);
    let idle: Vec<_> = (0..10).map(|_| TcpStream::connect(&at).unwrap()).collect();
    let asked = Instant::now();
    assert!(page_from(&at).starts_with("HTTP/1.1 200"));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    drop(idle);
}

/// Whoever cannot accept a client waits, and does not ask again at once.
#[test]
fn a_lack_of_files_is_waited_out() {
    let store = used("cli lack of files");
    let (server, at) = listening(&store, 12);
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11..=12].iter().map(|n| n.parse::<u64>().unwrap()).sum::<u64>()
    };
    let idle: Vec<_> = (0..14).map(|_| TcpStream::connect(&at).unwrap()).collect();
    thread::sleep(Duration::from_millis(200));
    let before = ticks();
    thread::sleep(Duration::from_secs(1));
    // Of 100 in a second.
    assert!(ticks() - before < 40, "{} ticks", ticks() - before);
    drop(idle);
    within("an answer", || page_from(&at).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_picture_of_top_as_text() {
    let store = used("cli top");
    for (columns, lines) in [("80", "24"), ("40", "24"), ("40", "8"), ("120", "30"), ("200", "60")] {
        let mut command = command();
        command.arg("top").arg(store.path()).args(["--once", "-i", "0.1"]);
        let ran: crate::Ran = command.env("COLUMNS", columns).env("LINES", lines).output().unwrap().into();
        let text = ran.text();
        assert_eq!(text.lines().count(), lines.parse::<usize>().unwrap());
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.parse().unwrap(), "{widest} of {columns}\n{text}");
        assert!(text.contains("cli top") && text.contains("60 of 1,000"), "{text}");
        if lines == "8" {
            continue;
        }
        // The first line below each title, in the same columns: the item read last, the longest
        // value, a bar.
        for (title, first) in [
            ("hottest", "key 7"),
            ("largest", "key 59"),
            ("operations", ""),
            ("hit ratio", ""),
            ("shards: ", ""),
        ] {
            let titled = text.lines().position(|line| line.contains(title));
            let at = titled.unwrap_or_else(|| panic!("no {title} in {columns} columns\n{text}"));
            let column = text.lines().nth(at).unwrap().split(title).next().unwrap().chars().count();
            let below: String = text.lines().nth(at + 1).unwrap_or_default().chars().skip(column).collect();
            assert!(below.starts_with(first), "{title}: {below:?}\n{text}");
        }
        for figure in
            ["evicted 0/s, ever 0", "rejected 0/s, ever 1", "full 0, waits 0, timeouts 0", "deaths 0"]
        {
            assert!(text.contains(figure), "{figure:?} in {columns} columns\n{text}");
        }
    }
}

/// `script` (bsdutils) gives it a terminal.
#[test]
fn top_on_a_terminal_of_40_columns() {
    let store = used("cli top 40");
    let line = format!(
        "stty cols 40 rows 20; exec {} top {} -i 0.1",
        env!("CARGO_BIN_EXE_ucache"),
        store.path().display()
    );
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        Ended(command.spawn().unwrap_or_else(|e| panic!("script: {e}; it is in Debian's bsdutils")));
    let mut out = child.0.stdout.take().unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = seen.clone();
    let reader = thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = out.read(&mut piece) {
            sink.lock().unwrap().extend_from_slice(&piece[..n]);
        }
    });
    let has = |text: &str| String::from_utf8_lossy(&seen.lock().unwrap()).contains(text);
    // Blanks are not written to the terminal: compare words, not lines.
    within("a picture", || has("ratio") && has("evicted"));
    let mut keys = child.0.stdin.take().unwrap();
    keys.write_all(b"p").unwrap();
    within("a pause", || has("paused"));
    keys.write_all(b"q").unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    reader.join().unwrap();
    assert!(has("\x1b[?1049h") && has("\x1b[?1049l"), "the screen is given back as it was");
}

#[test]
fn a_progress_bar_is_where_no_items_are() {
    let store = used("cli progress");
    let on_a_terminal = |line: &str| {
        let line = format!("{} {line}", env!("CARGO_BIN_EXE_ucache"));
        let ran = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
        let ran = ran.unwrap_or_else(|e| panic!("script: {e}; it is in Debian's bsdutils"));
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stdout));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let path = store.path().display().to_string();
    let shown = on_a_terminal(&format!("dump {path}"));
    assert!(
        !shown.contains("dumping") && shown.lines().filter(|l| l.starts_with('{')).count() == 60,
        "{shown}"
    );
    let written = on_a_terminal(&format!("dump {path} -o {path}.jsonl"));
    assert!(written.contains("dumping"), "{written:?}");
    let loaded = on_a_terminal(&format!("load {path} {path}.jsonl"));
    assert!(loaded.contains("60 loaded"), "{loaded:?}");
}

#[test]
fn bench_measures_and_cleans_up() {
    let table = ucache(["bench", "--seconds", "0.1", "--keys", "50", "-t", "2"]).text();
    for part in ["2 threads, 50 keys", "get, hit", "get, miss", "del and set", "p99.9"] {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
    let store = used("cli bench");
    let run = store.run(&["bench", "-s", "0.1", "--keys", "20", "--json"]).text();
    let json: serde_json::Value = serde_json::from_str(&run).unwrap();
    for row in json["results"].as_array().unwrap() {
        assert!(row["per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["errors"], 0, "{row}");
        assert!(row["p50_ns"].as_u64() <= row["worst_ns"].as_u64(), "{row}");
    }
    assert_eq!(json["results"].as_array().unwrap().len(), 5);
    assert_eq!(store.cache.keys().count(), 60, "its keys are gone, the others are not");
}
