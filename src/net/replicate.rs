//! UDP replication: each local change is sent to `nodes=`; `udp=` receives and applies them.
//!
//! As in native there is no acknowledgement, no order and no authentication: give only addresses of
//! a trusted net. A clear, which native does not have, names no key: it is accepted from the
//! addresses in `nodes=` only, or with `udp_clear` from any address. Unlike native, deletes and
//! clears arrive, arithmetic sends its result, and a value that does not fit a datagram is refused
//! with a log line instead of being cut.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{
    append_list::AppendList,
    conn,
    fork_sockets::Owned,
    host::{self, Host},
    throttle::Throttle,
};
use crate::{
    engine::{Engine, SetOptions},
    error::Error,
    os::{poll, worker},
    wire::{datagram::Datagram, packet::PacketError, shown::shown},
};

/// The nodes of one cache.
#[derive(Debug)]
struct Nodes {
    /// Address of the cache's C struct, which lives as long as the process; only used for
    /// comparison.
    handle: usize,
    /// Target addresses, with the sockets to use.
    targets: Vec<(SockAddr, usize)>,
    sockets: Vec<Socket>,
}

/// Receive buffer for changes not applied yet, bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

static NODES: AppendList<Nodes> = AppendList::new();
static SEND_FAULTS: Throttle = Throttle::new();
static TOO_LONG: Throttle = Throttle::new();
static RECEIVE_FAULTS: Throttle = Throttle::new();

/// Registers the nodes of the cache at `handle`, replacing earlier ones. An error names the
/// address.
pub(crate) fn setup_nodes(handle: usize, addresses: &[Vec<u8>]) -> Result<(), String> {
    let mut nodes = Nodes { handle, targets: Vec::new(), sockets: Vec::new() };
    let mut domains: Vec<Domain> = Vec::new();
    for text in addresses {
        let fail = |e: io::Error| format!("udp node {}: {e}", shown(text));
        let found = conn::inet_addresses(text).map_err(fail)?;
        let address = found.into_iter().next().ok_or_else(|| fail(ErrorKind::NotFound.into()))?;
        let domain = address.domain();
        let socket = match domains.iter().position(|d| *d == domain) {
            Some(known) => known,
            None => {
                let socket = Socket::new(domain, Type::DGRAM, None).map_err(fail)?;
                conn::never_block(&socket).map_err(fail)?;
                domains.push(domain);
                nodes.sockets.push(socket);
                domains.len() - 1
            }
        };
        nodes.targets.push((address, socket));
    }
    NODES.push(nodes);
    Ok(())
}

fn nodes_of(handle: usize) -> Option<&'static Nodes> {
    // Only one load if no cache has nodes.
    NODES.iter().filter(|n| n.handle == handle && handle != 0).last().filter(|n| !n.targets.is_empty())
}

/// Sends the nodes the new value of `key`; `expires` is a Unix time, 0 = never. After arithmetic,
/// send the result.
pub(crate) fn send_set(host: &dyn Host, handle: usize, key: &[u8], value: &[u8], expires: u64) {
    send(host, handle, &Datagram::Set { key, value, expires });
}

/// Sends the nodes the deletion of `key`.
pub(crate) fn send_del(host: &dyn Host, handle: usize, key: &[u8]) {
    send(host, handle, &Datagram::Delete { key });
}

/// Sends the nodes a clear. Native nodes ignore this packet (and native's own attempt at it).
pub(crate) fn send_clear(host: &dyn Host, handle: usize) {
    send(host, handle, &Datagram::Clear);
}

fn send(host: &dyn Host, handle: usize, datagram: &Datagram<'_>) {
    let Some(nodes) = nodes_of(handle) else { return };
    let packet = match datagram.encode() {
        Ok(packet) => packet,
        Err(e) => {
            return TOO_LONG.log(|line| host.log(line), || format!("change not sent to the udp nodes: {e}"));
        }
    };
    for (address, socket) in &nodes.targets {
        if let Err(e) = nodes.sockets[*socket].send_to_with_flags(&packet, address, poll::NO_SIGNAL) {
            SEND_FAULTS.log(
                |line| host.log(line),
                || {
                    let node = address.as_socket().map_or_else(String::new, |node| format!(" {node}"));
                    format!("udp node{node}: {e}")
                },
            );
        }
    }
}

/// Binds the sockets for incoming changes. An error names the address.
pub(crate) fn bind(addresses: &[Vec<u8>]) -> Result<Vec<Owned<UdpSocket>>, String> {
    let bind_one = |text: &Vec<u8>| -> io::Result<Owned<UdpSocket>> {
        let address = conn::inet_addresses(text)?.into_iter().find_map(|a| a.as_socket());
        let socket = listen(address.ok_or(ErrorKind::NotFound)?)?;
        // Datagrams that do not fit the buffer are lost. The kernel may grant less than this.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        Ok(Owned::new(socket))
    };
    addresses
        .iter()
        .map(|text| bind_one(text).map_err(|e| format!("udp server {}: {e}", shown(text))))
        .collect()
}

/// A socket bound to an address, or joined to a multicast group. Other processes of this machine
/// may have the same address, as in native: the next master while this one still runs, or a process
/// left behind by an earlier one. The kernel delivers to the last one.
fn listen(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    if !address.ip().is_multicast() {
        socket.bind(&address.into())?;
        return Ok(socket.into());
    }
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // As in native.
    socket.bind(&SocketAddr::new(any, address.port()).into())?;
    match address.ip() {
        IpAddr::V4(group) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?,
        IpAddr::V6(group) => socket.join_multicast_v6(&group, 0)?,
    }
    Ok(socket.into())
}

/// The cache that received changes are applied to, and which of them are accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    /// The process.
    pub(crate) host: &'static dyn Host,
    /// The cache.
    pub(crate) engine: &'static Engine,
    /// The key that its nodes are registered under.
    pub(crate) handle: usize,
    /// A clear is accepted from any address.
    pub(crate) clears: bool,
}

/// Applies changes from `sockets` to the cache for the life of the process. Blocks all signals in
/// the calling thread: they belong to the host's threads.
pub(crate) fn receive_for_ever(sockets: Vec<Owned<UdpSocket>>, receiver: Receiver) {
    worker::block_foreign_signals();
    let mut sockets = sockets.into_iter();
    let Some(mine) = sockets.next() else { return };
    for socket in sockets {
        if let Err(e) = host::spawn(receiver.host, "ucache-udp", move || receiver.run(&socket)) {
            receiver.host.log(&format!("udp server: cannot start another thread: {e}"));
        }
    }
    receiver.run(&mine);
}

impl Receiver {
    fn run(self, socket: &UdpSocket) -> ! {
        let mut buf = vec![0; 65_536];
        loop {
            match socket.recv_from(&mut buf) {
                Ok((len, from)) => {
                    if let Err(e) = self.take(from.ip(), &buf[..len]) {
                        RECEIVE_FAULTS.log(
                            |line| self.host.log(line),
                            || format!("udp server: packet from {from} refused: {e}"),
                        );
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    RECEIVE_FAULTS.log(|line| self.host.log(line), || format!("udp server: {e}"));
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn take(self, from: IpAddr, bytes: &[u8]) -> Result<(), Refused> {
        let datagram = Datagram::parse(bytes)?;
        if datagram == Datagram::Clear && !self.clears && !self.is_node(from) {
            return Err(Refused::Clear);
        }
        apply(self.engine, datagram)
    }

    /// Whether `nodes=` has the address, with any port.
    fn is_node(self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        let is = |node: IpAddr| node == from || (node.is_unspecified() && from.is_loopback());
        let mut nodes = nodes_of(self.handle).into_iter().flat_map(|nodes| &nodes.targets);
        nodes.any(|(address, _)| address.as_socket().is_some_and(|node| is(node.ip().to_canonical())))
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("{0}")]
    Cache(#[from] Error),
    #[error(
        "a clear is accepted from the addresses in nodes= only (udp_clear=1 accepts it from any address)"
    )]
    Clear,
}

/// Applies one datagram. The change is not sent on: its origin sends it to all nodes.
fn apply(engine: &Engine, datagram: Datagram<'_>) -> Result<(), Refused> {
    match datagram {
        Datagram::Set { key, value, expires } => {
            let expires = host::absolute(expires);
            let options = SetOptions::set(expires);
            engine.set(key, value, &options)?;
        }
        Datagram::Delete { key } => {
            engine.delete(key)?;
        }
        Datagram::Clear => engine.clear()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
