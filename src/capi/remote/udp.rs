//! UDP replication: `nodes=` hear of each local change, `udp=` receives and applies them.
//!
//! As for native there is no acknowledgement, no order and no authentication: give only addresses of a trusted net.
//! Unlike native, deletes and clears arrive, arithmetic sends its result, and a value that does not fit a datagram is
//! refused with a log line instead of being cut.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{datagram::Datagram, list::List, net, packet::PacketError, throttle::Throttle};
use crate::{
    capi::{env, thread},
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
        let fail = |e: io::Error| format!("udp node {}: {e}", String::from_utf8_lossy(text));
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
            SEND_FAULTS.log(|| format!("udp node {:?}: {e}", address.as_socket()));
        }
    }
}

/// Binds the sockets that changes arrive on. The error names the address.
pub(crate) fn bind(addresses: &[Vec<u8>]) -> Result<Vec<UdpSocket>, String> {
    let bind_one = |text: &Vec<u8>| -> io::Result<UdpSocket> {
        let address = net::inet_addresses(text)?.into_iter().find_map(|a| a.as_socket());
        let socket = listen(address.ok_or(ErrorKind::NotFound)?)?;
        // What does not fit the buffer is lost: ask for much, take what the system gives.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        Ok(socket)
    };
    addresses
        .iter()
        .map(|text| bind_one(text).map_err(|e| format!("udp server {}: {e}", String::from_utf8_lossy(text))))
        .collect()
}

/// A socket on an address, or one that hears what is sent to a group, as others of this machine may.
fn listen(address: SocketAddr) -> io::Result<UdpSocket> {
    if !address.ip().is_multicast() {
        return UdpSocket::bind(address);
    }
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    // As native does.
    socket.bind(&SocketAddr::new(any, address.port()).into())?;
    match address.ip() {
        IpAddr::V4(group) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?,
        IpAddr::V6(group) => socket.join_multicast_v6(&group, 0)?,
    }
    Ok(socket.into())
}

/// Applies what arrives on `sockets` to the cache, for as long as the process lives. Blocks all signals of the
/// calling thread: they belong to the host's threads.
pub(crate) fn receive_for_ever(sockets: Vec<UdpSocket>, engine: &'static Engine) {
    block_signals();
    let mut sockets = sockets.into_iter();
    let Some(mine) = sockets.next() else { return };
    for socket in sockets {
        if let Err(e) = thread::spawn("ucache-udp", move || receive_loop(&socket, engine)) {
            env::get().log(&format!("udp server: no further thread: {e}"));
        }
    }
    receive_loop(&mine, engine);
}

/// Blocks the signals of others in the calling thread.
fn block_signals() {
    let foreign = thread::foreign_signals();
    // SAFETY: the set is a valid one; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const foreign, std::ptr::null_mut()) };
}

fn receive_loop(socket: &UdpSocket, engine: &Engine) -> ! {
    let mut buf = vec![0; 65_536];
    loop {
        match socket.recv_from(&mut buf) {
            Ok((len, from)) => {
                if let Err(e) = apply(engine, &buf[..len]) {
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

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("{0}")]
    Cache(#[from] Error),
}

/// Applies one datagram. The change is not passed on: nodes are told by the one that made it.
fn apply(engine: &Engine, bytes: &[u8]) -> Result<(), Refused> {
    match Datagram::parse(bytes)? {
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
