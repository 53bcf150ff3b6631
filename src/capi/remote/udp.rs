//! UDP replication: `nodes=` hear of each local change, `udp=` receives and applies them.
//!
//! As for native there is no acknowledgement, no order and no authentication: give only addresses of a trusted net.
//! A clear, which native does not have, names no key: it is taken from the addresses in `nodes=` only, or where
//! `udp_clear` lets everybody.
//! Unlike native, deletes and clears arrive, arithmetic sends its result, and a value that does not fit a datagram is
//! refused with a log line instead of being cut.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{datagram::Datagram, inherit::Owned, list::List, net, packet::PacketError, throttle::Throttle};
use crate::{
    capi::{env, shown::shown, thread},
    engine::{Engine, Mode, SetOptions},
    error::Error,
};

/// The nodes of one cache.
#[derive(Debug)]
struct Nodes {
    /// Address of the cache's C struct, which lives as long as the process; only compared.
    handle: usize,
    /// Where to, and through which socket.
    targets: Vec<(SockAddr, usize)>,
    sockets: Vec<Socket>,
}

/// Bytes of changes that may wait for the thread that applies them.
const RECEIVE_BUFFER: usize = 4 << 20;

static NODES: List<Nodes> = List::new();
static SEND_FAULTS: Throttle = Throttle::new();
static TOO_LONG: Throttle = Throttle::new();
static RECEIVE_FAULTS: Throttle = Throttle::new();

/// Registers the nodes of the cache at `handle`; later ones replace earlier ones. The error names the address.
pub(crate) fn setup_nodes(handle: usize, addresses: &[Vec<u8>]) -> Result<(), String> {
    let mut nodes = Nodes { handle, targets: Vec::new(), sockets: Vec::new() };
    let mut domains: Vec<Domain> = Vec::new();
    for text in addresses {
        let fail = |e: io::Error| format!("udp node {}: {e}", shown(text));
        let found = net::inet_addresses(text).map_err(fail)?;
        let address = found.into_iter().next().ok_or_else(|| fail(ErrorKind::NotFound.into()))?;
        let domain = address.domain();
        let socket = match domains.iter().position(|d| *d == domain) {
            Some(known) => known,
            None => {
                let socket = Socket::new(domain, Type::DGRAM, None).map_err(fail)?;
                net::never_block(&socket).map_err(fail)?;
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
    // One load where no cache has nodes.
    NODES.iter().filter(|n| n.handle == handle && handle != 0).last().filter(|n| !n.targets.is_empty())
}

/// Tells the nodes that `key` has a value now; `expires` is a Unix time, 0 = never. After arithmetic, send the result.
pub(crate) fn send_set(handle: usize, key: &[u8], value: &[u8], expires: u64) {
    send(handle, &Datagram::Set { key, value, expires });
}

/// Tells the nodes that `key` is gone.
pub(crate) fn send_del(handle: usize, key: &[u8]) {
    send(handle, &Datagram::Delete { key });
}

/// Tells the nodes that all keys are gone. Native nodes pass over this packet (and over native's own attempt at it).
pub(crate) fn send_clear(handle: usize) {
    send(handle, &Datagram::Clear);
}

fn send(handle: usize, datagram: &Datagram<'_>) {
    let Some(nodes) = nodes_of(handle) else { return };
    let packet = match datagram.encode() {
        Ok(packet) => packet,
        Err(e) => return TOO_LONG.log(|| format!("change not sent to the udp nodes: {e}")),
    };
    for (address, socket) in &nodes.targets {
        if let Err(e) = nodes.sockets[*socket].send_to_with_flags(&packet, address, libc::MSG_NOSIGNAL) {
            SEND_FAULTS.log(|| {
                let node = address.as_socket().map_or_else(String::new, |node| format!(" {node}"));
                format!("udp node{node}: {e}")
            });
        }
    }
}

/// Binds the sockets that changes arrive on. The error names the address.
pub(super) fn bind(addresses: &[Vec<u8>]) -> Result<Vec<Owned<UdpSocket>>, String> {
    let bind_one = |text: &Vec<u8>| -> io::Result<Owned<UdpSocket>> {
        let address = net::inet_addresses(text)?.into_iter().find_map(|a| a.as_socket());
        let socket = listen(address.ok_or(ErrorKind::NotFound)?)?;
        // What does not fit the buffer is lost: ask for much, take what the system gives.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        Ok(Owned::new(socket))
    };
    addresses
        .iter()
        .map(|text| bind_one(text).map_err(|e| format!("udp server {}: {e}", shown(text))))
        .collect()
}

/// A socket on an address, or one that hears what is sent to a group. Others of this machine may have the same, as in
/// native: the next master while this one still runs, or a process that an earlier one has left behind. Of those on one
/// address the kernel serves the last.
fn listen(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    if !address.ip().is_multicast() {
        socket.bind(&address.into())?;
        return Ok(socket.into());
    }
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // As native does.
    socket.bind(&SocketAddr::new(any, address.port()).into())?;
    match address.ip() {
        IpAddr::V4(group) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?,
        IpAddr::V6(group) => socket.join_multicast_v6(&group, 0)?,
    }
    Ok(socket.into())
}

/// Whose changes arrive, and what is taken of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    /// The cache.
    pub(super) engine: &'static Engine,
    /// What its nodes are filed under.
    pub(super) handle: usize,
    /// A clear is taken from everybody.
    pub(super) clears: bool,
}

/// Applies what arrives on `sockets` to the cache, for as long as the process lives. Blocks all signals of the
/// calling thread: they belong to the host's threads.
pub(super) fn receive_for_ever(sockets: Vec<Owned<UdpSocket>>, receiver: Receiver) {
    block_signals();
    let mut sockets = sockets.into_iter();
    let Some(mine) = sockets.next() else { return };
    for socket in sockets {
        if let Err(e) = thread::spawn("ucache-udp", move || receiver.run(&socket)) {
            env::get().log(&format!("udp server: no further thread: {e}"));
        }
    }
    receiver.run(&mine);
}

/// Blocks the signals of others in the calling thread.
fn block_signals() {
    let foreign = thread::foreign_signals();
    // SAFETY: the set is a valid one; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const foreign, std::ptr::null_mut()) };
}

impl Receiver {
    fn run(self, socket: &UdpSocket) -> ! {
        let mut buf = vec![0; 65_536];
        loop {
            match socket.recv_from(&mut buf) {
                Ok((len, from)) => {
                    if let Err(e) = self.take(from.ip(), &buf[..len]) {
                        RECEIVE_FAULTS.log(|| format!("udp server: packet from {from} refused: {e}"));
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    RECEIVE_FAULTS.log(|| format!("udp server: {e}"));
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

    /// Whether `nodes=` has the address; a sender's port is any.
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
    #[error("a clear is taken from the addresses in nodes= only, or with udp_clear=1 from everybody")]
    Clear,
}

/// Applies one datagram. The change is not passed on: nodes are told by the one that made it.
fn apply(engine: &Engine, datagram: Datagram<'_>) -> Result<(), Refused> {
    match datagram {
        Datagram::Set { key, value, expires } => {
            let expires = super::absolute(expires);
            let options = SetOptions { mode: Mode::Update, expires, keep_ttl: false, ungettable: false };
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
