//! Calls of a cluster: each command goes to the node that serves the slot of its key.
//!
//! `MOVED` and `ASK` say that a node has not executed a command and which one would: also a write is
//! sent again then. What may have been executed is not.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Backend, Repeat,
    cluster::{Cluster, Node},
    conn::{Conn, Failure},
    figures::Count,
    request::{Request, Unit},
    resp::{Reply, Value, fault_of},
    slots::{self, Map},
    url::Address,
};
use crate::{
    error::{BackendFault, Result},
    os::poll,
};

/// Redirections of a call without a pause: more of them mean that nodes do not agree yet.
const AT_ONCE: u32 = 3;
/// The pause after those.
const PAUSE: Duration = Duration::from_millis(10);

/// What a script says of a key that it was not given as one, and that is on its way.
const NOT_HERE: &str = "non local key in a cluster node";

/// Where a part of a request goes next.
#[derive(Debug)]
struct Step {
    unit: Unit,
    /// `None` = where the map says.
    to: Option<Arc<Node>>,
    /// It takes the slot over, and answers only who says that it was sent.
    asking: bool,
    /// It refused the command because of keys that it does not have, and gets
    /// [`Request::to_newcomer`].
    is_other: bool,
}

impl Step {
    /// To where the map says.
    fn anew(unit: Unit) -> Self {
        Self { unit, to: None, asking: false, is_other: false }
    }
}

/// What a node says instead of executing a command.
#[derive(Debug, PartialEq, Eq)]
enum Redirect {
    Moved(u16, Address),
    Ask(Address),
    Later,
}

/// Commands for one node.
struct Group {
    node: Arc<Node>,
    asking: bool,
    steps: Vec<Step>,
}

impl Backend {
    /// Whether the node that serves this key has told of changes lately. To be asked before a copy
    /// is looked for.
    pub(super) fn is_fresh_at_node(&self, key: &[u8]) -> bool {
        let Some(map) = self.cluster.as_ref().and_then(Cluster::known) else { return false };
        self.place.is_slot_fresh(&map, slots::slot_of(&[&self.settings.prefix, key].concat()))
    }

    /// How long it is known that a key is not there, milliseconds; `None` = until it is stored.
    ///
    /// A node that loses a slot tells of the keys that it had, but not of one that is stored at the
    /// next node, which may be one that the owner does not hear yet.
    pub(super) fn most_absent(&self) -> Option<u64> {
        let copies = self.settings.copies?;
        if self.cluster.is_some() { copies.longest_absence() } else { copies.longest_life() }
    }

    /// A call of a cluster: all replies in their order, and whether they are of nodes that the owner
    /// hears.
    pub(super) fn routed(
        &self,
        cluster: &Cluster,
        request: &Request,
        repeat: Repeat,
        deadline: Instant,
    ) -> Reply<(Vec<Value>, bool)> {
        let mut map = cluster.map(&self.settings, deadline)?;
        let mut steps: Vec<_> = request.units().into_iter().map(Step::anew).collect();
        let mut replies = vec![Value::Nil; request.commands()];
        let (mut are_known, mut rounds) = (true, 0);
        loop {
            let (mut again, by) = (Vec::new(), Arc::clone(&map));
            for group in groups(cluster, &by, steps)? {
                let (got, is_known) = self.ask_group(&group, (cluster, &by), request, repeat, deadline)?;
                are_known &= is_known && !group.asking;
                let mut got = got.into_iter();
                for step in group.steps {
                    let skipped = usize::from(group.asking);
                    let values: Vec<_> =
                        got.by_ref().take(step.unit.commands.len() + skipped).skip(skipped).collect();
                    match values.iter().find_map(|value| redirect(value, &group.node.address)) {
                        None => {
                            store(&mut replies, &step.unit, values, cluster);
                            if request.is_in_order() && !again.is_empty() {
                                again.push(Step::anew(step.unit));
                            }
                        }
                        Some(Redirect::Later) if is_for_newcomer(&step, request) => {
                            again.push(Step { to: Some(Arc::clone(&group.node)), is_other: true, ..step });
                        }
                        Some(redirect) => again.push(self.redirected(cluster, &mut map, step, &redirect)),
                    }
                }
            }
            if again.is_empty() {
                return Ok((replies, are_known));
            }
            (steps, rounds) = (again, rounds + 1);
            if Instant::now() >= deadline {
                return Err(BackendFault::TimedOut { waited: self.settings.timeout });
            }
            if rounds > AT_ONCE {
                thread::sleep(PAUSE);
            }
        }
    }

    /// A read of one node, whatever it serves.
    pub(super) fn call_node(&self, node: &Node, request: &Request) -> Result<Vec<Value>> {
        let _shield = poll::shield();
        self.counts.add(Count::Requests);
        let reply = node.breaker.admit().and_then(|()| {
            let asked = self.ask_node(node, request, Repeat::Safe, self.deadline());
            asked.inspect_err(|fault| node.failed(fault))
        });
        match reply {
            Ok((replies, conn)) => {
                node.breaker.succeeded();
                node.pool.put(conn);
                Ok(replies)
            }
            Err(fault) => {
                if let Some(cluster) = &self.cluster {
                    cluster.doubt();
                }
                self.counts.add(Count::Errors);
                Err(self.error(fault))
            }
        }
    }

    /// The next step of a part that was not executed.
    fn redirected(&self, cluster: &Cluster, map: &mut Arc<Map>, step: Step, redirect: &Redirect) -> Step {
        let unit = step.unit;
        match redirect {
            Redirect::Moved(slot, address) => {
                let node = cluster.node(address.clone());
                *map = cluster.moved(map, *slot, &node);
                if let Some(region) = &self.region {
                    region.note_doubt();
                }
                Step { to: Some(node), ..Step::anew(unit) }
            }
            Redirect::Ask(address) => {
                Step { to: Some(cluster.node(address.clone())), asking: true, ..Step::anew(unit) }
            }
            Redirect::Later => Step::anew(unit),
        }
    }

    /// Sends a group of commands to its node; the replies, and whether the owner hears that node.
    fn ask_group(
        &self,
        group: &Group,
        (cluster, map): (&Cluster, &Map),
        request: &Request,
        repeat: Repeat,
        deadline: Instant,
    ) -> Reply<(Vec<Value>, bool)> {
        let mut part = Request::default();
        for step in &group.steps {
            let other = request.to_newcomer().filter(|_| step.is_other);
            part.copy(other.unwrap_or(request), &step.unit, group.asking);
        }
        let node = &group.node;
        node.breaker.admit().inspect_err(|_| {
            self.counts.add(Count::Skipped);
            cluster.doubt();
        })?;
        let answer = self.ask_node(node, &part, repeat, deadline).inspect_err(|fault| {
            node.failed(fault);
            cluster.doubt();
        });
        let (replies, conn) = answer?;
        node.breaker.succeeded();
        let is_known = self.place.is_known_node(&conn, node.number, map.digest());
        if !is_known && self.region.as_ref().is_some_and(|r| !r.hears_places(r.beat().term(), map.digest())) {
            // The owner has another map: one of the two is old.
            cluster.doubt();
        }
        node.pool.put(conn);
        Ok((replies, is_known))
    }

    /// One round trip to a node, over a connection that was kept or a new one.
    fn ask_node(
        &self,
        node: &Node,
        request: &Request,
        repeat: Repeat,
        deadline: Instant,
    ) -> Reply<(Vec<Value>, Conn)> {
        let mut kept = node.pool.take();
        for last in [false, true] {
            let checked = kept.take().and_then(|mut conn| {
                self.place.check_node(&mut conn, node.number, deadline).ok().map(|()| conn)
            });
            let mut conn = match checked {
                Some(conn) => conn,
                None => self.connect_to(node, deadline)?,
            };
            match conn.round_trip(request, deadline) {
                Ok(replies) => return Ok((replies, conn)),
                Err(Failure { fault: BackendFault::Lost { .. }, sent })
                    if !last && (!sent || repeat == Repeat::Safe) =>
                {
                    node.pool.clear();
                }
                Err(failure) => return Err(failure.fault),
            }
        }
        Err(BackendFault::Lost { reason: "closed by the server".to_owned() })
    }

    fn connect_to(&self, node: &Node, deadline: Instant) -> Reply<Conn> {
        self.counts.add(Count::Connects);
        let mut conn = node.connect(&self.settings, deadline)?;
        self.place.check_node(&mut conn, node.number, deadline)?;
        Ok(conn)
    }
}

/// The parts by node, those for one node together.
fn groups(cluster: &Cluster, map: &Map, steps: Vec<Step>) -> Reply<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for step in steps {
        let by_map = match step.unit.slot {
            Some(slot) => map.node(slot),
            None => map.nodes().first(),
        };
        let Some(node) = step.to.clone().or_else(|| by_map.cloned()) else {
            cluster.doubt();
            return Err(fault_of("CLUSTERDOWN no node serves the slot of the key".to_owned()));
        };
        let same = |group: &&mut Group| group.node.number == node.number && group.asking == step.asking;
        match groups.iter_mut().find(same) {
            Some(group) => group.steps.push(step),
            None => groups.push(Group { node, asking: step.asking, steps: vec![step] }),
        }
    }
    Ok(groups)
}

/// Whether a node that does not have all keys of a command can be told in another way. Only one that
/// was named by the old node: that has none of the keys, and makes none in a slot that leaves it.
fn is_for_newcomer(step: &Step, request: &Request) -> bool {
    step.asking && !step.is_other && request.to_newcomer().is_some()
}

/// Puts the replies of a part where they belong.
fn store(replies: &mut [Value], unit: &Unit, values: Vec<Value>, cluster: &Cluster) {
    let is_down = |value: &Value| matches!(value, Value::Error(text) if fault_of(text.clone()).is_down());
    if values.iter().any(is_down) {
        cluster.doubt();
    }
    let places = replies.get_mut(unit.commands.clone()).unwrap_or_default();
    for (place, value) in places.iter_mut().zip(values) {
        *place = match (&*place, value) {
            // Executed a second time, to be in order.
            (Value::Int(before), Value::Int(now)) => Value::Int(before.saturating_add(now)),
            (_, value) => value,
        };
    }
}

/// What a node at `asked` says instead of executing a command, if it does.
fn redirect(value: &Value, asked: &Address) -> Option<Redirect> {
    let Value::Error(text) = value else { return None };
    let mut words = text.split(' ');
    let (code, slot, place) = (words.next()?, words.next(), words.next());
    // The second is said by a script that has met the key of a slot which is leaving its node.
    if code == "TRYAGAIN" || text.contains(NOT_HERE) {
        return Some(Redirect::Later);
    }
    let slot = slot?.parse().ok()?;
    let (host, port) = place?.rsplit_once(':')?;
    let address = slots::at(host.to_owned(), port.parse().ok()?, asked);
    match code {
        "MOVED" => Some(Redirect::Moved(slot, address)),
        "ASK" => Some(Redirect::Ask(address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_say_where_a_key_is() {
        let asked = Address::Tcp("10.0.0.1".to_owned(), 1);
        let said = |text: &str| redirect(&Value::Error(text.to_owned()), &asked);
        let at = |host: &str| Address::Tcp(host.to_owned(), 7);
        assert_eq!(said("MOVED 5 10.0.0.2:7"), Some(Redirect::Moved(5, at("10.0.0.2"))));
        assert_eq!(said("MOVED 5 :7"), Some(Redirect::Moved(5, at("10.0.0.1"))));
        assert_eq!(said("ASK 5 fe80::1:7"), Some(Redirect::Ask(at("fe80::1"))));
        assert_eq!(said("TRYAGAIN Multiple keys request during rehashing"), Some(Redirect::Later));
        let script = "ERR Script attempted to access a non local key in a cluster node script: 0123, on @user_script:4.";
        assert_eq!(said(script), Some(Redirect::Later));
        assert_eq!(said("MOVED 5"), None);
        assert_eq!(said("ERR MOVED 5 a:7"), None);
        assert_eq!(redirect(&Value::Simple("MOVED 5 a:7".to_owned()), &asked), None);
    }
}
