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

impl Node {
    fn start(program: &Path, files: &Path, timeout: &str) -> Self {
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
        let server = Server::with(program, port, &args);
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
    _files: TempDir,
}

/// The slots of the three primaries.
const SLOTS: [[u16; 2]; 3] = [[0, 5460], [5461, 10_922], [10_923, 16_383]];

impl Cluster {
    /// Three primaries and their replicas, which take over from a primary that is silent for a
    /// second.
    pub(crate) fn with_replicas(program: &Path) -> Self {
        Self::start(program, 6, "1000")
    }

    /// Three primaries that nobody takes over from.
    pub(crate) fn of_primaries(program: &Path) -> Self {
        Self::start(program, 3, "60000")
    }

    fn start(program: &Path, count: usize, timeout: &str) -> Self {
        // The nodes sync their files, and do nothing else while a disk is busy.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let files = tempfile::Builder::new().prefix("ucs").tempdir_in(place).expect("a directory");
        let nodes: Vec<_> = (0..count).map(|_| Node::start(program, files.path(), timeout)).collect();
        let cluster = Self { nodes, _files: files };
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
        let node = Node::start(program, self._files.path(), "60000");
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

    /// The URL with two of its nodes.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://{};{}", self.nodes[1].address(), self.nodes[2].address())
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
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let slot_text = slot.to_string();
        let set = |node: &Node, what: &[&str]| {
            let words = [&["CLUSTER", "SETSLOT", &slot_text], what].concat();
            assert_eq!(node.server.ask(words), "OK", "{what:?}");
        };
        set(target, &["IMPORTING", &source.id]);
        set(source, &["MIGRATING", &target.id]);
        self.move_keys(slot, from, to);
        set(target, &["NODE", &target.id]);
        set(source, &["NODE", &target.id]);
    }

    fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        loop {
            let keys = source.server.ask(["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100"]);
            if keys.is_empty() {
                return;
            }
            let head = ["MIGRATE", "127.0.0.1", &target.port.to_string(), "", "0", "5000", "KEYS"];
            let words: Vec<_> = head.into_iter().chain(keys.split(' ')).collect();
            let said = source.server.ask(words);
            assert!(["OK", "NOKEY"].contains(&&said[..]), "{said}");
        }
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
