//! Other clients of the server and their libraries: what each of them writes ucache reads, and the
//! reverse. The table in `src/docs/backend.md` shows what was found.
//!
//! `UCACHE_DOCS=write cargo test --all-features --test near other_clients` writes the table anew.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use ucache::{Backend, Cache, Expires};

use crate::backend::Server;

const CLIENTS: [&str; 9] = [
    "redis-cli",
    "redis-py",
    "valkey-py",
    "django",
    "django-bytes",
    "django-redis",
    "django-redis-bytes",
    "flask-caching",
    "cachelib",
];
const HEAD: &str = "| client | `prefix` | its text at the server | it reads ucache's text as | its bytes at the server | numbers | expiry |";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A client in a process of its own, which ends with its input.
struct Other {
    name: String,
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What a client says: a kind and a value.
type Said = (String, String);

impl Other {
    fn start(client: &str, socket: &Path) -> Self {
        let python = root().join(".build/venv/bin/python3");
        let mut command = Command::new(&python);
        command.arg(root().join("tests/near/other_clients.py")).arg(client).arg(socket);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.unwrap_or_else(|e| panic!("{}: {e}; run .ci/deps all", python.display()));
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let mut name = String::new();
        output.read_line(&mut name).expect("a name");
        let name = name.trim().to_owned();
        assert!(!name.is_empty(), "{client} does not start; run .ci/deps all");
        Self { name, input: process.stdin.take(), output, process }
    }

    fn ask(&mut self, words: &Value) -> Said {
        let mut line = String::new();
        writeln!(self.input.as_mut().expect("open"), "{words}").expect("it listens");
        self.output.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {words}: {e} {line}", self.name))
    }

    fn get(&mut self, key: &str) -> Said {
        self.ask(&json!(["get", key]))
    }

    fn set(&mut self, key: &str, kind: &str, value: &str, ttl: Option<u64>) {
        let answer = self.ask(&json!(["set", key, kind, value, ttl]));
        assert_eq!(answer.0, "none", "{}: {answer:?}", self.name);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// All 256 bytes, as Latin-1 text for the script.
fn all_bytes() -> (Vec<u8>, String) {
    ((0..=255).collect(), (0..=255_u8).map(char::from).collect())
}

/// How a client stores text: in words for the table.
fn form(raw: &[u8]) -> &'static str {
    match raw {
        b"hello" => "as it is",
        [0x80, ..] => "pickled",
        [b'!', 0x80, ..] => "`!`, pickled",
        other => panic!("an unknown form: {}", other.escape_ascii()),
    }
}

/// The row of a client; `cache` has its prefix.
fn row(other: &mut Other, prefix: &str, cache: &Cache) -> String {
    let name = other.name.clone();
    // Its values, read by ucache and given back to it under another key.
    other.set("text", "text", "hello", None);
    let stored = cache.get("text").expect("get").expect("what it wrote");
    cache.set("copy", &stored).expect("set");
    let said = other.get("copy");
    assert_eq!(said.1, "hello", "{name} reads its own form");
    let (bytes, latin) = all_bytes();
    other.set("bytes", "bytes", &latin, None);
    let stored_bytes = cache.get("bytes").expect("get").expect("what it wrote");
    cache.set("copy", &stored_bytes).expect("set");
    assert_eq!(other.get("copy"), ("bytes".into(), latin.clone()), "{name} reads its own form");
    // ucache's values.
    cache.set("plain", "hello").expect("set");
    let plain = match other.get("plain") {
        (kind, value) if kind == "error" => format!("an error, `{value}`"),
        (_, value) => {
            assert_eq!(value, "hello", "{name}");
            "it is".to_owned()
        }
    };
    cache.set("plain", &bytes).expect("set");
    if plain == "it is" {
        assert_eq!(other.get("plain"), ("bytes".into(), latin), "{name}");
    }
    // Deletions of both.
    cache.delete("text").expect("delete");
    assert_eq!(other.get("text").0, "none", "{name}");
    assert_eq!(other.ask(&json!(["delete", "bytes"])).0, "none", "{name}");
    assert!(!cache.contains("bytes"), "{name}");
    let exact = if stored_bytes == bytes { "as they are" } else { "in its form" };
    let numbers = numbers(other, cache);
    format!("| {name} | `{prefix}` | {} | {plain} | {exact} | {numbers} | both |", form(&stored))
}

/// A number that both change, with `numbers=decimal`.
fn numbers(other: &mut Other, cache: &Cache) -> &'static str {
    other.set("n", "int", "41", None);
    assert_eq!(cache.get("n").expect("get").as_deref(), Some(&b"41"[..]), "{}", other.name);
    assert_eq!(cache.incr("n", 1).expect("incr"), 42);
    assert_eq!(other.ask(&json!(["incr", "n"])), ("int".into(), "43".into()), "{}", other.name);
    assert_eq!(cache.get_int("n").expect("a number"), Some(43));
    assert_eq!(other.get("n").1, "43", "{}", other.name);
    "text, both count"
}

/// Times to live that the other side keeps; the second half after they are over.
fn expiries(others: &mut [(Other, Cache)]) {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
    for (other, cache) in &mut *others {
        other.set("long", "int", "1", Some(100));
        let at = cache.expires("long").and_then(Expires::deadline);
        let at = at.unwrap_or_else(|| panic!("{}: no expiry", other.name));
        let at = at.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
        assert!((now() + 90..=now() + 101).contains(&at), "{}", other.name);
        other.set("short", "int", "1", Some(1));
        assert!(cache.contains("short"), "{}", other.name);
        cache.set_with("ours", "1", Duration::from_secs(1)).expect("set");
        assert_eq!(other.get("ours").1, "1", "{}", other.name);
    }
    thread::sleep(Duration::from_millis(1200));
    for (other, cache) in others {
        assert!(!cache.contains("short"), "{}", other.name);
        assert_eq!(other.get("ours").0, "none", "{}", other.name);
    }
}

/// Keys of any bytes, in the clients that have them.
#[test]
fn keys_of_any_bytes() {
    let server = Server::start();
    let cache = cache(&server, "c:");
    let (bytes, latin) = all_bytes();
    for client in ["redis-py", "valkey-py"] {
        let mut other = Other::start(client, &server.socket());
        other.set(&latin, "text", "theirs", None);
        assert_eq!(cache.get(&bytes).expect("get").as_deref(), Some(&b"theirs"[..]));
        cache.set(&bytes, "ours").expect("set");
        assert_eq!(other.get(&latin).1, "ours");
        assert!(cache.keys().eq([bytes.clone()]));
    }
}

fn cache(server: &Server, prefix: &str) -> Cache {
    let backend = Backend::url(server.url()).prefix(prefix).decimal_numbers(true);
    let backend = backend.near(false).timeout(Duration::from_secs(20));
    let name = format!("of {}", server.socket().display());
    Cache::builder(name).items(10).timeout(Expires::Never).backend(backend).build().expect("a cache")
}

fn document() -> PathBuf {
    root().join("src/docs/backend.md")
}

#[test]
fn the_table_shows_what_is_so() {
    let mut rows = Vec::new();
    let servers: Vec<_> = CLIENTS.iter().map(|_| Server::start()).collect();
    let start = |(client, server): (&&str, &Server)| {
        let prefix = if client.starts_with("django") { "c:1:" } else { "c:" };
        let (other, cache) = (Other::start(client, &server.socket()), cache(server, prefix));
        (prefix, (other, cache))
    };
    let (prefixes, mut others): (Vec<_>, Vec<_>) = CLIENTS.iter().zip(&servers).map(start).unzip();
    for ((other, cache), prefix) in others.iter_mut().zip(prefixes) {
        rows.push(row(other, prefix, cache));
    }
    expiries(&mut others);
    let table = format!("{HEAD}\n|---|---|---|---|---|---|---|\n{}\n", rows.join("\n"));
    let text = fs::read_to_string(document()).expect("the document");
    let from = text.find("| client | `prefix`").expect("the table's head");
    let to = from + text[from..].find("\n\n").expect("the table's end") + 1;
    if std::env::var_os("UCACHE_DOCS").is_some_and(|value| value == "write") {
        let text = format!("{}{table}{}", &text[..from], &text[to..]);
        fs::write(document(), text).expect("the document is written");
        return;
    }
    let again =
        "`UCACHE_DOCS=write cargo test --all-features --test near other_clients` writes the table anew";
    assert_eq!(&text[from..to], table, "{again}");
}
