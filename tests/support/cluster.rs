//! A cluster of real servers: three primaries and, if wanted, a replica of each.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::path::Path;

use tempfile::TempDir;

use crate::{backend::Server, patience::within, ports::free_port};

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) port: u16,
    bus: u16,
    pub(crate) id: String,
}

/// More options of the node with a number.
pub(crate) type Options<'a> = dyn Fn(usize) -> Vec<String> + 'a;

/// Options of nodes that speak TLS only, with one another, too. `of_node`: certificate and the rest.
fn by_tls(port: u16, of_node: Vec<String>) -> Vec<String> {
    let port = port.to_string();
    let all = ["--tls-port", &port, "--tls-cluster", "yes", "--tls-replication", "yes"];
    all.into_iter().map(str::to_owned).chain(of_node).collect()
}

impl Node {
    fn start(program: &Path, files: &Path, timeout: &str, tls: Option<Vec<String>>) -> Self {
        let (port, bus) = (free_port(), free_port());
        let (bus_text, file) = (bus.to_string(), files.join(port.to_string()).display().to_string());
        let args = [
            &["--cluster-enabled", "yes", "--cluster-port", &bus_text, "--cluster-config-file", &file][..],
            &["--cluster-node-timeout", timeout, "--cluster-require-full-coverage", "no"],
            // A replica is promoted however long it has not heard of its primary, and starts at once.
            &["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"],
            // One that loses its last slot stays a primary.
            &["--cluster-allow-replica-migration", "no"],
        ]
        .concat();
        let plain = if tls.is_some() { 0 } else { port };
        let more = tls.map(|of_node| by_tls(port, of_node)).unwrap_or_default();
        let args: Vec<_> = args.into_iter().chain(more.iter().map(String::as_str)).collect();
        let server = Server::with(program, plain, &args);
        let id = server.ask(["CLUSTER", "MYID"]);
        Self { server, port, bus, id }
    }

    fn info(&self) -> String {
        self.server.try_ask(["CLUSTER", "INFO"]).unwrap_or_default()
    }

    /// What it knows of all nodes, a line for each; nothing while it cannot answer.
    fn nodes(&self) -> String {
        if !self.server.is_running() {
            return String::new();
        }
        self.server.try_ask(["CLUSTER", "NODES"]).unwrap_or_default().replace("\\n", "\n")
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Running servers; ended when they are dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    speaks_tls: bool,
    _files: TempDir,
}

/// The slots of the three primaries.
const SLOTS: [[u16; 2]; 3] = [[0, 5460], [5461, 10_922], [10_923, 16_383]];

impl Cluster {
    /// Three primaries and their replicas, which take over from a primary that is silent for a
    /// second.
    pub(crate) fn with_replicas(program: &Path) -> Self {
        Self::start(program, 6, "1000", None)
    }

    /// Three primaries that nobody takes over from.
    pub(crate) fn of_primaries(program: &Path) -> Self {
        Self::start(program, 3, "60000", None)
    }

    /// The same by TLS.
    pub(crate) fn of_primaries_by_tls(program: &Path, tls: &Options<'_>) -> Self {
        Self::start(program, 3, "60000", Some(tls))
    }

    fn start(program: &Path, count: usize, timeout: &str, tls: Option<&Options<'_>>) -> Self {
        // The nodes sync their files, and do nothing else while a disk is busy.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let files = tempfile::Builder::new().prefix("ucs").tempdir_in(place).expect("a directory");
        let start = |n| Node::start(program, files.path(), timeout, tls.map(|of_node| of_node(n)));
        let nodes: Vec<_> = (0..count).map(start).collect();
        let cluster = Self { nodes, speaks_tls: tls.is_some(), _files: files };
        for (n, node) in cluster.nodes.iter().enumerate() {
            node.server.ask(["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            if let Some([first, last]) = SLOTS.get(n).map(|slots| slots.map(|slot| slot.to_string())) {
                assert_eq!(node.server.ask(["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "OK");
            }
        }
        (1..count).for_each(|n| cluster.meet(n));
        for (n, node) in cluster.nodes.iter().enumerate().skip(3) {
            let primary = &cluster.nodes[n - 3].id;
            within("a replica knows its primary", || {
                node.server.ask(["CLUSTER", "REPLICATE", primary]) == "OK"
            });
        }
        within("a cluster is well", || cluster.is_well(count));
        cluster
    }

    /// Adds a primary without slots.
    pub(crate) fn add(&mut self, program: &Path) {
        let node = Node::start(program, self._files.path(), "60000", None);
        self.nodes.push(node);
        let count = self.nodes.len();
        self.meet(count - 1);
        within("a node is known", || self.is_well(count));
    }

    fn meet(&self, n: usize) {
        let other = &self.nodes[n];
        let words = ["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), &other.bus.to_string()];
        assert_eq!(self.nodes[0].server.ask(words), "OK");
    }

    /// Whether all nodes know each other, all slots are served, and replicas have the data.
    fn is_well(&self, count: usize) -> bool {
        self.nodes.iter().all(|node| {
            let nodes = node.nodes();
            let is_known = nodes.lines().filter(|line| line.contains(" connected")).count() == count;
            let is_steady = !nodes.contains("handshake") && !nodes.contains("fail");
            let replication = node.server.try_ask(["INFO", "replication"]).unwrap_or_default();
            let is_in_step =
                !replication.contains("role:slave") || replication.contains("master_link_status:up");
            let replicas = count.saturating_sub(3).min(3);
            let is_complete =
                nodes.lines().filter(|line| line.contains("slave ")).count() == replicas || count == 4;
            let info = node.info();
            is_known
                && is_steady
                && is_in_step
                && is_complete
                && info.contains("cluster_state:ok")
                && info.contains("cluster_slots_assigned:16384")
        })
    }

    /// Whether all nodes know of each other which slots they have, and since when. A node that takes a
    /// slot before it has heard how the last one took it may lose it again.
    fn agrees(&self) -> bool {
        let view = |node: &Node| {
            let nodes = node.nodes();
            let known = |line: &str| {
                let words: Vec<_> = line.split(' ').collect();
                let slots = words.iter().skip(8).filter(|word| !word.starts_with('['));
                // Number, epoch, slots.
                words
                    .first()
                    .into_iter()
                    .chain(words.get(6))
                    .chain(slots)
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let mut all: Vec<_> = nodes.lines().map(known).collect();
            all.sort();
            all
        };
        let mut views = self.nodes.iter().filter(|node| node.server.is_running()).map(view);
        let first = views.next();
        views.all(|view| Some(view) == first)
    }

    /// The URL with two of its nodes.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.speaks_tls { "rediss" } else { "redis" };
        format!("{scheme}+cluster://{};{}", self.nodes[1].address(), self.nodes[2].address())
    }

    /// The slot of a key.
    pub(crate) fn slot(&self, key: &str) -> u16 {
        let mut up = self.nodes.iter().filter(|node| node.server.is_running());
        let slot = up.find_map(|node| node.server.try_ask(["CLUSTER", "KEYSLOT", key]).ok());
        slot.expect("a node answers").parse().expect("a slot")
    }

    /// The node that has this slot by its own word.
    pub(crate) fn owner(&self, slot: u16) -> usize {
        let has = |node: &Node| {
            let nodes = node.nodes();
            let Some(own) = nodes.lines().find(|line| line.contains("myself,master")) else { return false };
            own.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let parsed = first.parse().ok().zip(last.parse().ok());
                parsed.is_some_and(|(first, last)| (first..=last).contains(&slot))
            })
        };
        let mut found = None;
        within("a slot has an owner", || {
            found = self.nodes.iter().position(has);
            found.is_some()
        });
        found.expect("found")
    }

    /// Moves a slot as `redis-cli --cluster reshard` does.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize) {
        Move::new(self, slot, from, to).go_on_to(Stage::Done);
    }

    /// Lets no write succeed until the replica has all of them, and for a while longer: whatever a
    /// node has said to be stored survives a failover.
    pub(crate) fn drain(&self, primary: usize, replica: usize) {
        let (from, to) = (&self.nodes[primary].server, &self.nodes[replica].server);
        from.ask(["CLIENT", "PAUSE", "60000", "WRITE"]);
        let offset = |server: &Server, name: &str| {
            let info = server.try_ask(["INFO", "replication"]).unwrap_or_default();
            info.split("\\r\\n").find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok())
        };
        within("the replica has all writes", || {
            let sent = offset(from, "master_repl_offset:");
            sent.is_some() && sent == offset(to, "slave_repl_offset:")
        });
    }

    /// The replica of a primary.
    pub(crate) fn replica_of(&self, primary: usize) -> usize {
        let text = format!("slave {}", self.nodes[primary].id);
        let is =
            |node: &Node| node.nodes().lines().any(|line| line.contains("myself,") && line.contains(&text));
        let mut found = None;
        within("a primary has a replica", || {
            found = self.nodes.iter().position(is);
            found.is_some()
        });
        found.expect("found")
    }

    /// Waits until this node is a primary, and all nodes that answer know it.
    pub(crate) fn wait_for_primary(&self, at: usize) {
        let id = &self.nodes[at].id;
        within("a failover", || {
            let is_up = |node: &&Node| node.server.is_running();
            self.nodes.iter().filter(is_up).all(|node| {
                let nodes = node.nodes();
                let line = nodes.lines().find(|line| line.starts_with(id.as_str())).unwrap_or_default();
                line.contains("master ") && line.split(' ').count() > 8
            })
        });
    }

    /// Waits until this node is a replica that has all data.
    pub(crate) fn wait_for_replica(&self, at: usize) {
        within("a node is a replica", || {
            let info = self.nodes[at].server.try_ask(["INFO", "replication"]);
            info.is_ok_and(|info| info.contains("role:slave") && info.contains("master_link_status:up"))
        });
    }
}

/// How far the move of a slot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Begun,
    /// Both nodes know of it.
    Announced,
    /// The new node has all keys that the old one had.
    Taken,
    /// The new node knows that it has the slot.
    Known,
    /// All nodes do, or soon.
    Done,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] = [Self::Begun, Self::Announced, Self::Taken, Self::Known, Self::Done];
}

/// The move of a slot, step by step.
#[derive(Debug)]
pub(crate) struct Move<'a> {
    cluster: &'a Cluster,
    slot: String,
    source: &'a Node,
    target: &'a Node,
    stage: Stage,
}

impl<'a> Move<'a> {
    pub(crate) fn new(cluster: &'a Cluster, slot: u16, from: usize, to: usize) -> Self {
        let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
        Self { cluster, slot: slot.to_string(), source, target, stage: Stage::Begun }
    }

    pub(crate) fn go_on_to(&mut self, stage: Stage) {
        for next in Stage::ALL.into_iter().filter(|&next| self.stage < next && next <= stage) {
            match next {
                Stage::Begun => {}
                Stage::Announced => {
                    within("all nodes know the last move", || self.cluster.agrees());
                    self.set(self.target, ["IMPORTING", &self.source.id]);
                    self.set(self.source, ["MIGRATING", &self.target.id]);
                }
                Stage::Taken => self.take_all(),
                Stage::Known => self.set(self.target, ["NODE", &self.target.id]),
                Stage::Done => self.set(self.source, ["NODE", &self.target.id]),
            }
        }
        self.stage = self.stage.max(stage);
    }

    fn set(&self, node: &Node, what: [&str; 2]) {
        let words = ["CLUSTER", "SETSLOT", &self.slot, what[0], what[1]];
        assert_eq!(node.server.ask(words), "OK", "{what:?}");
    }

    fn take_all(&self) {
        loop {
            let keys = self.source.server.ask(["CLUSTER", "GETKEYSINSLOT", &self.slot, "100"]);
            if keys.is_empty() {
                return;
            }
            self.take(&keys.split(' ').collect::<Vec<_>>());
        }
    }

    /// Moves these keys, which the new node must not have.
    pub(crate) fn take(&self, keys: &[&str]) {
        let port = self.target.port.to_string();
        let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        let said = self.source.server.ask(head.iter().chain(keys));
        assert!(["OK", "NOKEY"].contains(&&said[..]), "{said}");
    }
}
