//! Slots of a cluster: which one a key is in, and which node serves it.

use std::sync::Arc;

use super::{
    cluster::Node,
    resp::{Reply, Value, array, string, unexpected},
    url::Address,
};

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// CRC-16 of the bytes before one byte, for each of its values: polynomial 0x1021.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key: of its hash tag, if it has one.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let crc = hashed_part(key)
        .iter()
        .fold(0_u16, |crc, &byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]);
    crc % SLOTS as u16
}

/// What stands between the first `{` and the next `}`, or all of the key if that is nothing.
fn hashed_part(key: &[u8]) -> &[u8] {
    tag(key).unwrap_or(key)
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = key.get(open + 1..)?;
    let len = rest.iter().position(|&byte| byte == b'}').filter(|&len| len > 0)?;
    rest.get(..len)
}

/// Slots and the primaries that serve them, as one node of the cluster sees it.
#[derive(Debug)]
pub(super) struct Map {
    /// Of each slot the position of its node, + 1; 0 = nobody serves it.
    of_slots: Vec<u16>,
    nodes: Vec<Arc<Node>>,
    digest: u64,
}

impl Map {
    /// The map in a reply to `CLUSTER SLOTS`. `asked`: who replied, which need not name itself.
    /// `known` gives the node with an address.
    pub(super) fn of_reply(
        reply: Value,
        asked: &Address,
        mut known: impl FnMut(Address) -> Arc<Node>,
    ) -> Reply<Self> {
        let mut map = Self { of_slots: vec![0; SLOTS], nodes: Vec::new(), digest: 0 };
        for range in array(reply)? {
            let mut parts = array(range)?.into_iter();
            let (Some(Value::Int(first)), Some(Value::Int(last)), Some(primary)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err(unexpected("CLUSTER SLOTS without slots and nodes"));
            };
            let number = map.number_of(known(address(primary, asked)?));
            let slots = usize::try_from(first).ok().zip(usize::try_from(last).ok());
            let slots = slots.and_then(|(first, last)| map.of_slots.get_mut(first..=last));
            slots.ok_or(unexpected("CLUSTER SLOTS with other slots"))?.fill(number);
        }
        map.digest = map.digested();
        Ok(map)
    }

    /// The same map, but for one slot that has moved.
    pub(super) fn with_moved(&self, slot: u16, node: Arc<Node>) -> Self {
        let (of_slots, nodes) = (self.of_slots.clone(), self.nodes.clone());
        let mut map = Self { of_slots, nodes, digest: 0 };
        let number = map.number_of(node);
        if let Some(of_slot) = map.of_slots.get_mut(usize::from(slot)) {
            *of_slot = number;
        }
        map.digest = map.digested();
        map
    }

    /// The number of a node in `of_slots`.
    fn number_of(&mut self, node: Arc<Node>) -> u16 {
        let at = self.nodes.iter().position(|other| other.number == node.number);
        let at = at.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        // A cluster has no more nodes than slots.
        u16::try_from(at + 1).unwrap_or(0)
    }

    /// The node that serves a slot.
    pub(super) fn node(&self, slot: u16) -> Option<&Arc<Node>> {
        let number = self.of_slots.get(usize::from(slot)).copied().unwrap_or(0);
        self.nodes.get(usize::from(number).checked_sub(1)?)
    }

    /// All nodes that serve slots.
    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// A number that two maps share if the same nodes serve the same slots.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    fn digested(&self) -> u64 {
        let (mut digest, mut last) = (0xCBF2_9CE4_8422_2325_u64, 0);
        for (slot, &number) in (0_u64..).zip(&self.of_slots) {
            if number != last {
                let node = usize::from(number).checked_sub(1).and_then(|at| self.nodes.get(at));
                let node = node.map_or(0, |node| node.number);
                digest = (digest ^ slot).wrapping_mul(0x0000_0100_0000_01B3);
                digest = (digest ^ node).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
                last = number;
            }
        }
        digest
    }

    /// A key with this prefix for each node that can have one, in a slot of that node.
    pub(super) fn probes(&self, prefix: &[u8]) -> Vec<(Arc<Node>, Vec<u8>)> {
        let mut probes: Vec<Option<Vec<u8>>> = vec![None; self.nodes.len()];
        // With a hash tag in the prefix all keys of the cache are in one slot.
        let (tries, mut missing) = if tag(prefix).is_some() { (1, 1) } else { (1 << 20, probes.len()) };
        for n in 0..tries {
            if missing == 0 {
                break;
            }
            let key = [prefix, b"\0", format!("{n}").as_bytes()].concat();
            let number = self.of_slots.get(usize::from(slot_of(&key))).copied().unwrap_or(0);
            let probe = usize::from(number).checked_sub(1).and_then(|at| probes.get_mut(at));
            if let Some(probe @ None) = probe {
                *probe = Some(key);
                missing -= 1;
            }
        }
        let both = |(node, probe): (&Arc<Node>, Option<_>)| Some((Arc::clone(node), probe?));
        self.nodes.iter().zip(probes).filter_map(both).collect()
    }
}

/// Host, port and more of a node. A node that does not know its own address is at the one that was
/// asked.
fn address(node: Value, asked: &Address) -> Reply<Address> {
    let mut parts = array(node)?.into_iter();
    let (host, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let host = String::from_utf8_lossy(&string(host)?.unwrap_or_default()).into_owned();
    let Value::Int(port) = port else { return Err(unexpected("CLUSTER SLOTS without a port")) };
    match u16::try_from(port) {
        Ok(port @ 1..) => Ok(at(host, port, asked)),
        Ok(0) => Err(unexpected("a node of the cluster names no port; for TLS it needs tls-cluster yes")),
        _ => Err(unexpected("CLUSTER SLOTS without a port")),
    }
}

/// A node as another one at `asked` names it.
pub(super) fn at(host: String, port: u16, asked: &Address) -> Address {
    match asked {
        Address::Tcp(asked, _) if host.is_empty() || host == "?" => Address::Tcp(asked.clone(), port),
        _ => Address::Tcp(host, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(address: Address) -> Arc<Node> {
        Arc::new(Node::new(address, None))
    }

    fn at_port(port: u16) -> Address {
        Address::Tcp("10.0.0.1".to_owned(), port)
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.into())
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let node =
            |port| Value::Array(vec![bulk(host), Value::Int(port), bulk("id"), Value::Array(Vec::new())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node(port), node(port + 100)])
    }

    fn map(ranges: Vec<Value>) -> Map {
        Map::of_reply(Value::Array(ranges), &at_port(9), node).expect("a map")
    }

    #[test]
    fn slots_are_those_of_the_servers() {
        // The check value of CRC-16/XMODEM, and answers of CLUSTER KEYSLOT.
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b""), 0);
        assert_eq!((slot_of(b"foo"), slot_of(b"somekey"), slot_of(b"foo{hash_tag}")), (12182, 11058, 2515));
        assert_eq!(slot_of(b"bar{hash_tag}x{y}"), 2515);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        // Nothing between the braces, and no second brace: all of the key counts.
        assert_ne!(slot_of(b"foo{}{bar}"), slot_of(b"bar"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_ne!(slot_of(b"foo{bar"), slot_of(b"bar"));
    }

    #[test]
    fn a_map_knows_the_node_of_each_slot() {
        let map = map(vec![range(0, 99, "a", 1), range(200, 16_383, "", 7), range(100, 100, "a", 1)]);
        let of = |slot| map.node(slot).map(|node| node.address.to_string());
        assert_eq!((of(0), of(100), of(101)), (Some("a:1".to_owned()), Some("a:1".to_owned()), None));
        assert_eq!(of(16_383).as_deref(), Some("10.0.0.1:7"), "it does not know its own address");
        assert_eq!(map.nodes().len(), 2);
        let reply = |ranges| Map::of_reply(Value::Array(ranges), &at_port(9), node);
        assert!(reply(vec![range(0, 16_384, "a", 1)]).is_err());
        assert!(reply(vec![range(-1, 5, "a", 1)]).is_err() && reply(vec![range(0, 5, "a", 0)]).is_err());
        assert!(Map::of_reply(Value::Error("ERR".to_owned()), &at_port(9), node).is_err());
    }

    #[test]
    fn maps_with_the_same_nodes_for_the_same_slots_are_equal() {
        let one = map(vec![range(0, 99, "a", 1), range(100, 16_383, "b", 1)]);
        let same = map(vec![range(150, 16_383, "b", 1), range(0, 99, "a", 1), range(100, 149, "b", 1)]);
        assert_eq!(one.digest(), same.digest());
        let moved = one.with_moved(50, node(Address::Tcp("b".to_owned(), 1)));
        assert_ne!(one.digest(), moved.digest());
        let split = [range(0, 49, "a", 1), range(50, 50, "b", 1), range(51, 99, "a", 1)];
        let split = map(split.into_iter().chain([range(100, 16_383, "b", 1)]).collect());
        assert_eq!(moved.digest(), split.digest());
        let other = one.with_moved(50, node(Address::Tcp("c".to_owned(), 1)));
        assert_ne!(moved.digest(), other.digest());
        assert_eq!(other.nodes().len(), 3);
    }

    #[test]
    fn each_node_is_probed_by_a_key_of_its_own() {
        let map = map(vec![range(0, 0, "a", 1), range(1, 9_000, "b", 1), range(9_001, 16_383, "c", 1)]);
        let probes = map.probes(b"p:");
        assert_eq!(probes.len(), 3);
        for (node, key) in &probes {
            assert!(key.starts_with(b"p:"));
            assert_eq!(map.node(slot_of(key)).map(|node| node.number), Some(node.number));
        }
        let tagged = map.probes(b"{p}:");
        assert_eq!(tagged.len(), 1, "all keys of the cache are in one slot");
        assert_eq!(tagged[0].0.number, map.node(slot_of(b"p")).expect("served").number);
    }
}
