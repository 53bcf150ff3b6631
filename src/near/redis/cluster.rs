//! A cluster as this process sees it: the map of its slots, and the connections to its nodes.
//!
//! Connections are those of a single server, one pool for each node. The map comes from any node
//! (`CLUSTER SLOTS`), is corrected by `MOVED`, and is asked for again after a failure.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    breaker::Breaker,
    config::Settings,
    conn::{Conn, NO_ANSWER},
    only,
    pool::Pool,
    resp::{Reply, Request, fault_of},
    slots::Map,
    url::{Address, Route},
};
use crate::{engine::Engine, error::BackendFault, os::clock::coarse_millis};

/// Least time between two questions of one process for the map, milliseconds.
const PAUSE: u64 = 100;

/// A primary of the cluster.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    /// A number of the address, the same in all processes; never 0.
    pub(super) number: u64,
    pub(super) pool: Pool,
    pub(super) breaker: Breaker,
}

impl Node {
    pub(super) fn new(address: Address, region: Option<Arc<Engine>>) -> Self {
        let number = number(&address);
        Self { address, number, pool: Pool::new(), breaker: Breaker::of_node(region, number) }
    }

    /// Connects to it.
    pub(super) fn connect(&self, settings: &Settings, deadline: Instant) -> Reply<Conn> {
        Conn::open(settings, &self.address, deadline).map_err(|fault| match fault {
            BackendFault::Unreachable { reason } => {
                let hint = if reason.starts_with(NO_ANSWER) {
                    "; nodes of a cluster name their ports for TLS with tls-cluster yes"
                } else {
                    ""
                };
                BackendFault::Unreachable { reason: format!("{}: {reason}{hint}", self.address) }
            }
            fault => fault,
        })
    }

    /// Notes that it could not be asked.
    pub(super) fn failed(&self, fault: &BackendFault) {
        self.pool.clear();
        if fault.is_down() {
            self.breaker.failed(fault);
        }
    }
}

/// Two addresses of one cluster with the same number are as likely as two equal keys of 64 bits.
fn number(address: &Address) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let hash = address.to_string().bytes().fold(0xCBF2_9CE4_8422_2325, mix);
    (hash ^ hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15).max(1)
}

/// Places of the map. More than one, because all locks are only tried: a fork may have copied one
/// locked.
const PLACES: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The nodes of the URL.
    seeds: Vec<Arc<Node>>,
    region: Option<Arc<Engine>>,
    /// Its thread never forks: children must not inherit its connections.
    is_owner: bool,
    maps: [Mutex<Option<Arc<Map>>>; PLACES],
    /// Something has shown that the map may be wrong.
    is_doubtful: AtomicBool,
    /// When it may be asked for again, milliseconds since boot.
    next: AtomicU64,
}

impl Cluster {
    /// `None` = the URL names no cluster.
    pub(super) fn new(settings: &Settings, region: Option<Arc<Engine>>) -> Option<Self> {
        let Route::Cluster(seeds) = &settings.url.route else { return None };
        let node = |address: &Address| Arc::new(Node::new(address.clone(), region.clone()));
        let seeds = seeds.iter().map(node).collect();
        let (maps, is_doubtful, next) = (Default::default(), AtomicBool::new(false), AtomicU64::new(0));
        Some(Self { seeds, region, is_owner: false, maps, is_doubtful, next })
    }

    /// The same for the owner of a machine's copies.
    pub(super) fn of_owner(settings: &Settings) -> Option<Self> {
        Self::new(settings, None).map(|cluster| Self { is_owner: true, ..cluster })
    }

    /// The map of the moment.
    ///
    /// # Errors
    /// None is known, and no node answers.
    pub(super) fn map(&self, settings: &Settings, deadline: Instant) -> Reply<Arc<Map>> {
        match self.known() {
            Some(map) if self.is_due() => Ok(self.fetch(settings, deadline).unwrap_or(map)),
            Some(map) => Ok(map),
            None => self.fetch(settings, deadline),
        }
    }

    /// The map that was found last.
    pub(super) fn known(&self) -> Option<Arc<Map>> {
        self.maps.iter().find_map(|place| place.try_lock().ok()?.clone())
    }

    fn keep(&self, map: &Arc<Map>) {
        for place in &self.maps {
            if let Ok(mut place) = place.try_lock() {
                *place = Some(Arc::clone(map));
            }
        }
    }

    /// Something has shown that the map may be wrong: it is asked for again before another call.
    pub(super) fn doubt(&self) {
        self.is_doubtful.store(true, Relaxed);
    }

    /// Whether this thread is to ask for the map.
    fn is_due(&self) -> bool {
        if !self.is_doubtful.load(Relaxed) {
            return false;
        }
        let (now, next) = (coarse_millis(), self.next.load(Relaxed));
        now >= next && self.next.compare_exchange(next, now + PAUSE, Relaxed, Relaxed).is_ok()
    }

    /// Asks the nodes for the map, one after the other: those that are known, and then those of the
    /// URL, but first of all those that are well.
    ///
    /// # Errors
    /// None answers.
    pub(super) fn fetch(&self, settings: &Settings, deadline: Instant) -> Reply<Arc<Map>> {
        let known = self.known();
        let mut nodes: Vec<_> = known.iter().flat_map(|map| map.nodes()).chain(&self.seeds).collect();
        nodes.sort_by_key(|node| !node.breaker.is_well());
        let (mut tried, mut reasons, mut last) = (Vec::new(), Vec::new(), None);
        let mut left = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        for node in nodes {
            left -= 1;
            if tried.contains(&node.number) {
                continue;
            }
            tried.push(node.number);
            // One that hangs must not use up the time of the others.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / (left + 1);
            let limit = deadline.min(now + share.max(settings.connect_timeout));
            match node.breaker.admit().and_then(|()| self.ask(node, settings, limit)) {
                Ok(map) => {
                    self.is_doubtful.store(false, Relaxed);
                    return Ok(map);
                }
                Err(fault) => {
                    reasons.push(format!("{}: {fault}", node.address));
                    last = Some(fault);
                }
            }
        }
        Err(match last {
            // What it refuses to one of its nodes it refuses to all.
            Some(fault) if !fault.is_down() => fault,
            _ => BackendFault::Unreachable { reason: reasons.join("; ") },
        })
    }

    /// Asks one node.
    fn ask(&self, node: &Node, settings: &Settings, deadline: Instant) -> Reply<Arc<Map>> {
        let mut conn = match node.pool.take() {
            Some(conn) => conn,
            None => {
                let conn = Conn::open(settings, &node.address, deadline);
                let mut conn = conn.inspect_err(|fault| node.failed(fault))?;
                if self.is_owner {
                    conn.close_on_fork();
                }
                conn
            }
        };
        let request = Request::one(&[b"CLUSTER", b"SLOTS"]);
        let reply = conn.round_trip(&request, deadline).map_err(|failure| {
            node.failed(&failure.fault);
            failure.fault
        })?;
        let map =
            Map::of_reply(only(reply), &node.address, |address| self.node(address)).map_err(no_cluster)?;
        node.breaker.succeeded();
        node.pool.put(conn);
        if map.nodes().is_empty() {
            return Err(fault_of("CLUSTERDOWN no node serves a slot".to_owned()));
        }
        let map = Arc::new(map);
        self.keep(&map);
        Ok(map)
    }

    /// The node with an address: with the connections that it has, if it is known.
    pub(super) fn node(&self, address: Address) -> Arc<Node> {
        let number = number(&address);
        let known = self.known();
        let mut nodes = known.iter().flat_map(|map| map.nodes()).chain(&self.seeds);
        let found = nodes.find(|node| node.number == number).map(Arc::clone);
        found.unwrap_or_else(|| Arc::new(Node::new(address, self.region.clone())))
    }

    /// A slot has moved. Other slots may have, too.
    pub(super) fn moved(&self, map: &Map, slot: u16, to: &Arc<Node>) -> Arc<Map> {
        self.doubt();
        let map = Arc::new(map.with_moved(slot, Arc::clone(to)));
        self.keep(&map);
        map
    }
}

/// What a server without a cluster says to `CLUSTER SLOTS`.
fn no_cluster(fault: BackendFault) -> BackendFault {
    match fault {
        BackendFault::Refused { reply } if reply.contains("cluster support disabled") => {
            BackendFault::Refused { reply: format!("{reply}: {}", super::mode::NO_CLUSTER) }
        }
        fault => fault,
    }
}
