//! Which server has the values: the one of the URL, or the primary that sentinels name.
//!
//! What sentinels say is checked: the server must say itself that it is the primary. Of several
//! that they name the one of the latest failover counts, and then the one that most of them name. A
//! worker asks a majority, and keeps to the server that this machine's owner follows; the owner asks
//! all of them.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    config::Settings,
    conn::Conn,
    only,
    resp::{Reply, Request, Value, array, fault_of, string, unexpected},
    url::{Address, Route},
};
use crate::{error::BackendFault, os::clock::coarse_millis};

/// In place of the number of the server that the owner follows: the caller is the owner.
pub(super) const OWNER: u64 = u64::MAX;
/// How often the sentinels are asked whether there was a failover.
pub(super) const WATCH: Duration = Duration::from_millis(CONFIRM);
/// How often a process without an owner asks a sentinel whether its primary still is the one,
/// milliseconds.
const CONFIRM: u64 = 1000;
/// The same after no sentinel answered.
const CONFIRM_LATER: u64 = 10_000;

/// What is known of the way to the primary. All locks are only tried: a fork may have copied them
/// locked.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// Sentinels that did not answer the last time, a bit each: they are asked last.
    silent: AtomicU64,
    /// The primary that was found last.
    known: Mutex<Option<Address>>,
    /// Until when it need not be confirmed, milliseconds since boot.
    confirmed: AtomicU64,
    /// The connection for that.
    sentinel: Mutex<Option<Conn>>,
    /// How often a sentinel named another one than before.
    moves: AtomicU32,
}

impl Finder {
    /// Connects to the primary. `tracked`: the number of the server that the owner of this machine's
    /// copies follows at the moment; 0 = any. Returns its address, too, if sentinels named it.
    pub(super) fn connect(
        &self,
        settings: &Settings,
        tracked: u64,
        deadline: Instant,
    ) -> Reply<(Conn, Option<Address>)> {
        if let Route::Server(address) = &settings.url.route {
            return Conn::open(settings, address, deadline).map(|conn| (conn, None));
        }
        let mut inquiry = Inquiry::new(settings, &self.silent);
        let (all, mut tried, mut reasons) = (inquiry.left.len(), Tried::default(), Vec::new());
        // An owner asks all of them, as one may not have heard of a failover yet.
        let steps = if tracked == OWNER { [all, all] } else { [all / 2 + 1, all] };
        for enough in steps {
            inquiry.ask(enough, deadline);
            for (address, _) in candidates(&inquiry.names) {
                if let Some(conn) = tried.connect(settings, address, tracked, deadline, &mut reasons)? {
                    self.keep(address.clone());
                    return Ok((conn, Some(address.clone())));
                }
            }
        }
        // Sentinels that are all down are no reason to leave a primary that is not.
        let known = self.known.try_lock().ok().and_then(|known| known.clone());
        if let (true, Some(address)) = (inquiry.names.is_empty(), known)
            && let Some(conn) = tried.connect(settings, &address, tracked, deadline, &mut reasons)?
        {
            return Ok((conn, Some(address)));
        }
        inquiry.reasons.extend(reasons);
        Err(BackendFault::Unreachable { reason: inquiry.reasons.join("; ") })
    }

    fn keep(&self, address: Address) {
        self.confirmed.store(coarse_millis() + CONFIRM, Relaxed);
        if let Ok(mut known) = self.known.try_lock() {
            *known = Some(address);
        }
    }

    /// Another server than the one at `now` (with the number `node`), if most is said for that, and
    /// it says itself that it is the primary.
    pub(super) fn successor(&self, settings: &Settings, now: &Address, node: u64) -> Option<Address> {
        let mut inquiry = Inquiry::new(settings, &self.silent);
        let all = inquiry.left.len();
        let patience = settings.timeout + settings.connect_timeout * u32::try_from(all).ok()?;
        inquiry.ask(all, Instant::now() + patience);
        let found = candidates(&inquiry.names);
        let &(best, weight) = found.first()?;
        if found.iter().any(|&(address, other)| address == now && other == weight) {
            return None;
        }
        let conn = primary(settings, best, Instant::now() + settings.timeout).ok()?;
        (conn.node() != node).then(|| best.clone())
    }

    /// The label of connections that may be used now. Those with another one may lead to a server
    /// that is not the primary any more: the owner has begun another term, or a sentinel names
    /// another server. `is_followed`: an owner is at work, and asks the sentinels itself.
    pub(super) fn label(&self, settings: &Settings, term: u16, is_followed: bool, deadline: Instant) -> u64 {
        if matches!(settings.url.route, Route::Server(_)) {
            return 0;
        }
        if !is_followed && self.is_due() && self.has_moved(settings, deadline) {
            self.moves.fetch_add(1, Relaxed);
        }
        u64::from(term) << 32 | u64::from(self.moves.load(Relaxed))
    }

    /// Whether the primary is to be confirmed, by this thread of the process.
    fn is_due(&self) -> bool {
        let (now, due) = (coarse_millis(), self.confirmed.load(Relaxed));
        now >= due && self.confirmed.compare_exchange(due, now + CONFIRM, Relaxed, Relaxed).is_ok()
    }

    fn has_moved(&self, settings: &Settings, deadline: Instant) -> bool {
        let Some(known) = self.known.try_lock().ok().and_then(|known| known.clone()) else { return false };
        match self.ask_kept(settings, deadline) {
            Some(named) => known != named.address,
            None => {
                self.confirmed.store(coarse_millis() + CONFIRM_LATER, Relaxed);
                false
            }
        }
    }

    /// Asks over the connection that is kept for it, or else the first sentinel that answers.
    fn ask_kept(&self, settings: &Settings, deadline: Instant) -> Option<Named> {
        let mut inquiry = Inquiry::new(settings, &self.silent);
        let limit = deadline.min(Instant::now() + settings.connect_timeout);
        let kept = self.sentinel.try_lock().ok().and_then(|mut kept| kept.take()).filter(Conn::is_usable);
        let again = kept.and_then(|mut conn| Some((named(&mut conn, inquiry.service, limit).ok()?, conn)));
        let (named, conn) = match again {
            Some(both) => both,
            None => inquiry.next(limit)?,
        };
        if let Ok(mut kept) = self.sentinel.try_lock() {
            *kept = Some(conn);
        }
        Some(named)
    }
}

/// Questions to the sentinels, one after the other.
struct Inquiry<'a> {
    settings: &'a Settings,
    /// None, if the URL names a server.
    sentinels: &'a [Address],
    service: &'a str,
    /// Bits of those that did not answer.
    silent: &'a AtomicU64,
    /// Those that were not asked yet.
    left: VecDeque<usize>,
    names: Vec<Named>,
    /// Why others did not answer.
    reasons: Vec<String>,
}

impl<'a> Inquiry<'a> {
    fn new(settings: &'a Settings, silent: &'a AtomicU64) -> Self {
        let (sentinels, service) = match &settings.url.route {
            Route::Server(_) | Route::Cluster(_) => (&[][..], ""),
            Route::Sentinel(sentinels, service) => (&sentinels[..], &service[..]),
        };
        let bits = silent.load(Relaxed);
        let mut left: Vec<_> = (0..sentinels.len()).collect();
        left.sort_by_key(|&at| bits & bit(at) != 0);
        let (left, names, reasons) = (left.into(), Vec::new(), Vec::new());
        Self { settings, sentinels, service, silent, left, names, reasons }
    }

    /// Asks until so many have answered.
    fn ask(&mut self, enough: usize, deadline: Instant) {
        while self.names.len() < enough && self.next(deadline).is_some() {}
    }

    /// The next one that answers.
    fn next(&mut self, deadline: Instant) -> Option<(Named, Conn)> {
        while let Some(at) = self.left.pop_front() {
            let Some(sentinel) = self.sentinels.get(at) else { continue };
            // It may hang.
            let limit = deadline.min(Instant::now() + self.settings.connect_timeout);
            let answer = Conn::open_sentinel(self.settings, sentinel, limit)
                .and_then(|mut conn| Ok((named(&mut conn, self.service, limit)?, conn)));
            match answer {
                Ok((named, conn)) => {
                    self.silent.fetch_and(!bit(at), Relaxed);
                    self.names.push(named.clone());
                    return Some((named, conn));
                }
                Err(fault) => {
                    self.silent.fetch_or(bit(at), Relaxed);
                    self.reasons.push(format!("sentinel {sentinel}: {fault}"));
                }
            }
        }
        None
    }
}

/// Sentinels beyond the 64th share a bit with others.
fn bit(at: usize) -> u64 {
    1 << (at % 64)
}

/// Servers that were tried in one search.
#[derive(Default)]
struct Tried(Vec<Address>);

impl Tried {
    /// A connection to this server, if it is the primary, can be reached, and was not tried before.
    ///
    /// # Errors
    /// Another sentinel would not help: the server refuses the user.
    fn connect(
        &mut self,
        settings: &Settings,
        address: &Address,
        tracked: u64,
        deadline: Instant,
        reasons: &mut Vec<String>,
    ) -> Reply<Option<Conn>> {
        if self.0.contains(address) {
            return Ok(None);
        }
        self.0.push(address.clone());
        let limit = deadline.min(Instant::now() + settings.connect_timeout.max(settings.timeout / 2));
        match primary(settings, address, limit) {
            Ok(conn) if [0, OWNER, conn.node()].contains(&tracked) => return Ok(Some(conn)),
            Ok(_) => reasons.push(format!("{address} is not the primary that this machine follows")),
            Err(fault) if fault.is_down() => reasons.push(format!("{address}: {fault}")),
            Err(fault) => return Err(fault),
        }
        Ok(None)
    }
}

/// A server that a sentinel names, and since which failover.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    address: Address,
    epoch: u64,
}

/// Connects to a server and checks that it is the primary.
fn primary(settings: &Settings, address: &Address, deadline: Instant) -> Reply<Conn> {
    let mut conn = Conn::open(settings, address, deadline)?;
    let role = conn.round_trip(&Request::one(&[b"ROLE"]), deadline).map_err(|failure| failure.fault)?;
    is_primary(only(role))?;
    Ok(conn)
}

/// The reply to `ROLE`.
pub(super) fn is_primary(role: Value) -> Reply<()> {
    match array(role)?.into_iter().next() {
        Some(Value::Bulk(role)) if role == b"master" => Ok(()),
        Some(Value::Bulk(_)) => Err(fault_of("READONLY it is a replica now".to_owned())),
        _ => Err(unexpected("ROLE without a role")),
    }
}

fn named(conn: &mut Conn, service: &str, deadline: Instant) -> Reply<Named> {
    let mut request = Request::one(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()]);
    request.add(&[b"SENTINEL", b"MASTER", service.as_bytes()]);
    let mut replies = conn.round_trip(&request, deadline).map_err(|failure| failure.fault)?.into_iter();
    let (address, master) = (replies.next().unwrap_or_default(), replies.next().unwrap_or_default());
    let address = named_address(address, service)?;
    // A user who may not ask this is told which server it is all the same.
    Ok(Named { address, epoch: epoch(master).unwrap_or(0) })
}

fn named_address(reply: Value, service: &str) -> Reply<Address> {
    if reply == Value::Nil {
        return Err(BackendFault::Unavailable { reply: format!("it knows no service {service:?}") });
    }
    let mut parts = array(reply)?.into_iter();
    let (host, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let text = |value| Ok(String::from_utf8_lossy(&string(value)?.unwrap_or_default()).into_owned());
    let (host, port): (String, String) = (text(host)?, text(port)?);
    match port.parse() {
        Ok(port @ 1..) if !host.is_empty() => Ok(Address::Tcp(host, port)),
        _ => Err(unexpected("a sentinel without an address")),
    }
}

/// The number of the failover that made a server the primary.
fn epoch(master: Value) -> Reply<u64> {
    let fields = array(master)?;
    let epoch = fields.chunks(2).find_map(|pair| match pair {
        [Value::Bulk(name), Value::Bulk(value)] if name == b"config-epoch" => {
            std::str::from_utf8(value).ok()?.parse().ok()
        }
        _ => None,
    });
    epoch.ok_or(unexpected("SENTINEL MASTER without an epoch"))
}

/// A server that sentinels name: the latest failover that one of them knows of, and their number.
type Candidate<'a> = (&'a Address, (u64, usize));

/// The servers that the sentinels name, the most credible one first.
fn candidates(names: &[Named]) -> Vec<Candidate<'_>> {
    let mut found: Vec<Candidate<'_>> = Vec::new();
    for Named { address, epoch } in names {
        match found.iter_mut().find(|(other, _)| *other == address) {
            Some((_, (latest, votes))) => (*latest, *votes) = ((*latest).max(*epoch), *votes + 1),
            None => found.push((address, (*epoch, 1))),
        }
    }
    found.sort_by_key(|&(_, weight)| std::cmp::Reverse(weight));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str, epoch: u64) -> Named {
        Named { address: Address::Tcp(host.to_owned(), 1), epoch }
    }

    fn order(names: &[Named]) -> Vec<String> {
        candidates(names).iter().map(|(address, _)| address.to_string()).collect()
    }

    #[test]
    fn the_latest_failover_counts_and_then_the_number_of_sentinels() {
        assert_eq!(order(&[named("a", 1), named("a", 1), named("b", 2)]), ["b:1", "a:1"]);
        assert_eq!(order(&[named("liar", 0), named("a", 0), named("a", 0)]), ["a:1", "liar:1"]);
        assert_eq!(order(&[]), [""; 0]);
    }

    #[test]
    fn replies_of_sentinels() {
        let bulk = |text: &str| Value::Bulk(text.into());
        let address = |host, port| named_address(Value::Array(vec![bulk(host), bulk(port)]), "s");
        assert_eq!(address("::1", "7000"), Ok(Address::Tcp("::1".to_owned(), 7000)));
        assert!(address("", "7000").is_err() && address("a", "0").is_err() && address("a", "x").is_err());
        let unknown = named_address(Value::Nil, "pages").expect_err("no service");
        assert!(unknown.to_string().contains("knows no service \"pages\""), "{unknown}");
        let fields = ["ip", "a", "config-epoch", "7", "flags", "master"].map(bulk);
        assert_eq!(epoch(Value::Array(fields.to_vec())), Ok(7));
        assert!(epoch(Value::Error("NOPERM".to_owned())).is_err());
    }

    #[test]
    fn only_a_primary_will_do() {
        let bulk = |text: &str| Value::Bulk(text.into());
        assert!(is_primary(Value::Array(vec![bulk("master"), Value::Int(0)])).is_ok());
        let replica = is_primary(Value::Array(vec![bulk("slave"), bulk("a")])).expect_err("a replica");
        assert!(replica.is_down(), "{replica}");
        assert!(is_primary(Value::Simple("PONG".to_owned())).is_err());
        assert!(is_primary(Value::Error("BUSY a script".to_owned())).is_err());
    }
}
