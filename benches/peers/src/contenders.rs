//! What replays a history, each as its users drive it, and what it takes for what it then holds.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use heed::types::Bytes;
use ucache::engine::{Config, Engine, Eviction, Expires, SetOptions, Sink, Store};

use crate::{
    engine_proc::Child,
    histories::{History, KEY, Plan, Reply},
    host::{Flavor, Rig},
    server::{PATIENCE, Server, defragmenting_redis},
    stores::lmdb_environment,
    wire::{Protocol, Wire},
};

const SET: SetOptions = SetOptions::set(Expires::Never);
/// Only a hang takes this long; a million transactions on a loaded machine take minutes.
const HANG: Duration = Duration::from_secs(900);
/// Steps of a server's replay that are sent at once.
const BATCH: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contender {
    Ucache {
        stored: bool,
    },
    Memcached,
    Redis,
    Lmdb,
    Apcu,
    /// uWSGI's own cache; a block for each item, or the blocks that a value needs.
    Native {
        bitmap: bool,
    },
}

impl Contender {
    pub(crate) const PEERS: [Self; 6] = [
        Self::Memcached,
        Self::Redis,
        Self::Lmdb,
        Self::Apcu,
        Self::Native { bitmap: false },
        Self::Native { bitmap: true },
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ucache { stored: false } => "ucache",
            Self::Ucache { stored: true } => "ucache, store",
            Self::Memcached => "memcached",
            Self::Redis if defragmenting_redis().is_some() => "Redis, activedefrag",
            Self::Redis => "Redis",
            Self::Lmdb => "LMDB",
            Self::Apcu => "APCu",
            Self::Native { bitmap: false } => "native",
            Self::Native { bitmap: true } => "native, bitmap=1",
        }
    }

    /// Replays `plan` in a cache for `items` of them.
    pub(crate) fn replay(self, rig: &Rig, history: History, items: u32, plan: &Plan) -> Reply {
        let value = vec![b'v'; history.largest() as usize];
        match self {
            Self::Ucache { stored } => {
                in_child(plan, |dir| ucache(dir, history, items, stored, plan, &value))
            }
            Self::Lmdb => in_child(plan, |dir| lmdb(dir, plan, &value)),
            Self::Memcached => {
                let (server, socket) = Server::memcached(limit(plan));
                served(
                    &server,
                    Wire::connect(Protocol::Memcached, &socket),
                    plan,
                    &value,
                    Duration::from_secs(2),
                )
            }
            Self::Redis => {
                let (server, socket) = Server::redis_that_defragments(limit(plan));
                // Its allocator keeps free pages for ten seconds.
                served(
                    &server,
                    Wire::connect(Protocol::Redis, &socket),
                    plan,
                    &value,
                    Duration::from_secs(12),
                )
            }
            Self::Apcu => apcu(items, plan),
            Self::Native { bitmap } => native(rig, history, items, bitmap, plan),
        }
    }
}

/// The limit of those that are limited by bytes: four times what the history needs at most, and 16 MiB. Nothing has to be
/// refused or evicted then.
fn limit(plan: &Plan) -> u64 {
    4 * plan.peak + (16 << 20)
}

/// A field of `/proc/PID/status` in kB, as bytes.
fn status(pid: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc is mounted");
    let line = text.lines().find(|line| line.starts_with(field)).expect("a Linux since 4.5");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number of kB") * 1024
}

/// Replays in a process of its own, so that only its shared memory counts; files lie on a tmpfs.
fn in_child(plan: &Plan, replay: impl Fn(&Path) -> Reply) -> Reply {
    let dir = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there");
    let out = dir.path().join("reply");
    let mut child =
        Child::fork(|| fs::write(&out, replay(dir.path()).encoded()).expect("the reply is written"));
    let start = Instant::now();
    let end = loop {
        match child.try_end() {
            Some(end) => break end,
            None if start.elapsed() > HANG => panic!("{child:?} hangs"),
            None => sleep(Duration::from_millis(5)),
        }
    };
    end.expect("a replay ends well");
    Reply::decoded(plan, &fs::read(&out).expect("a reply")).expect("a whole reply")
}

/// What is allocated of a file.
fn on_disk(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.blocks() * 512)
}

/// Counts the bytes of a value.
struct Length(u32);

impl Sink for Length {
    fn take(&mut self, value: &ucache::shm::SharedBytes<'_>) -> bool {
        self.0 = u32::try_from(value.len()).expect("the limits allow no more");
        true
    }
}

fn ucache(dir: &Path, history: History, items: u32, stored: bool, plan: &Plan, value: &[u8]) -> Reply {
    let store = dir.join("store");
    let before = status("self", "RssShmem:");
    let mut config = Config::new("matrix", u64::from(items));
    config.max_key = 64;
    config.max_value = u64::from(history.largest());
    config.store = stored.then(|| Store { path: store.clone(), delete_unusable: false });
    // One shard: the exact order.
    if items <= 4096 {
        config.eviction = Eviction::Lru;
    }
    let engine = Engine::create(&config).expect("a cache");
    let steps = plan.steps.iter().map(|step| match step.length {
        Some(length) => engine.set(&step.key, &value[..length as usize], &SET).is_err(),
        None => {
            engine.delete(&step.key).expect("delete");
            false
        }
    });
    let refused = steps.collect();
    engine.sweep().expect("sweep");
    let (resident, disk) = (status("self", "RssShmem:") - before, on_disk(&store));
    let lengths = plan.live.iter().map(|&at| {
        let mut length = Length(0);
        let found = engine.get(&plan.steps[at].key, ucache::engine::Touch::No, &mut length).expect("get");
        found.map(|_| length.0)
    });
    Reply { refused, lengths: lengths.collect(), resident, disk }
}

fn lmdb(dir: &Path, plan: &Plan, value: &[u8]) -> Reply {
    let before = status("self", "RssShmem:");
    let (env, database) = lmdb_environment(dir, limit(plan).next_multiple_of(4096));
    let steps = plan.steps.iter().map(|step| {
        let mut write = env.write_txn().expect("a transaction");
        let done = match step.length {
            Some(length) => database.put(&mut write, &step.key, &value[..length as usize]),
            None => database.delete(&mut write, &step.key).map(drop),
        };
        done.and_then(|()| write.commit()).is_err()
    });
    let refused = steps.collect();
    let (resident, disk) = (status("self", "RssShmem:") - before, on_disk(&dir.join("data.mdb")));
    let read = env.read_txn().expect("a transaction");
    let lengths = plan.live.iter().map(|&at| {
        let found: Option<&[u8]> =
            heed::Database::<Bytes, Bytes>::get(&database, &read, &plan.steps[at].key).expect("get");
        found.map(|value| u32::try_from(value.len()).expect("no more than was stored"))
    });
    Reply { refused, lengths: lengths.collect(), resident, disk }
}

/// Waits until the server's resident memory stays within one part in a hundred for so long, a minute at most: some give
/// memory back by and by.
fn settled(pid: &str, calm: Duration) -> u64 {
    let start = Instant::now();
    let (mut kept, mut since) = (status(pid, "VmRSS:"), Instant::now());
    while since.elapsed() < calm && start.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(100));
        let now = status(pid, "VmRSS:");
        if now.abs_diff(kept) > kept / 100 {
            (kept, since) = (now, Instant::now());
        }
    }
    status(pid, "VmRSS:")
}

/// A server on the other end of a socket; what it takes is what its process grows by.
fn served(server: &Server, mut wire: Wire, plan: &Plan, value: &[u8], calm: Duration) -> Reply {
    let pid = server.pid().to_string();
    let before = status(&pid, "VmRSS:");
    let mut refused = Vec::with_capacity(plan.steps.len());
    for steps in plan.steps.chunks(BATCH) {
        wire.replay(steps, value, &mut refused);
    }
    let resident = settled(&pid, calm).saturating_sub(before);
    let lengths = plan.live.iter().map(|&at| wire.length(&plan.steps[at].key));
    Reply { refused, lengths: lengths.collect(), resident, disk: 0 }
}

fn apcu(items: u32, plan: &Plan) -> Reply {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [steps, reply] = ["steps", "reply"].map(|name| dir.path().join(name));
    fs::write(&steps, plan.encoded()).expect("the steps are written");
    let output = Command::new("php")
        .args(["-d", "apc.enable_cli=1", "-d", "memory_limit=-1"])
        .args(["-d", &format!("apc.shm_size={}M", limit(plan).div_ceil(1 << 20))])
        .args(["-d", &format!("apc.entries_hint={items}")])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/apcu_replay.php"))
        .args([&steps, &reply])
        .output()
        .expect("php runs (`.ci/deps bench` installs php-cli and php-apcu)");
    assert!(output.status.success(), "{output:?}");
    Reply::decoded(plan, &fs::read(&reply).expect("a reply")).expect("a whole reply")
}

fn native(rig: &Rig, history: History, items: u32, bitmap: bool, plan: &Plan) -> Reply {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [steps, reply] = ["steps", "reply"].map(|name| dir.path().join(name));
    fs::write(&steps, plan.encoded()).expect("the steps are written");
    // Its limits count values only; keys lie beside the items.
    let blocks = if bitmap {
        format!("bitmap=1,blocksize=64,blocks={}", limit(plan) / 64)
    } else {
        format!("blocksize={}", history.largest())
    };
    let lines = format!(
        "processes = 1\ncache-expire-freq = 1\ncache2 = name=bench,items={},keysize={KEY},{blocks}\n",
        items + 1
    );
    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let environment = [("BENCH_STEPS", path(&steps)), ("BENCH_REPLY", path(&reply))];
    rig.run(Flavor::Native, "replay", &lines, &environment);
    let reply = fs::read(&reply).unwrap_or_else(|e| panic!("no reply within {PATIENCE:?}: {e}"));
    Reply::decoded(plan, &reply).expect("a whole reply")
}
