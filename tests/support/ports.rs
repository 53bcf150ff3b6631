//! Ports for servers that bind them later. A port from a bind to port 0 that was released again may
//! be taken by the next outgoing connection or by another test. These ports are outside the range
//! of the kernel's choices, and each is handed out once.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Well-known services are mostly below this.
const FIRST: u16 = 10_000;
/// Default start of the kernel's own choices.
const USUAL: u16 = 32_768;
/// Minimum number of ports to choose from.
const ENOUGH: u16 = 1000;
/// Distance of the first ports of two processes with neighbouring pids.
const STRIDE: u32 = 61;

/// The claims of the ports handed out, held for the life of the process.
static CLAIMS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
/// Number of ports tried.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// A port of 127.0.0.1, for TCP and UDP, that no other caller gets.
///
/// # Panics
/// When there is none.
pub(crate) fn free_port() -> u16 {
    let range = range();
    let count = u32::from(range.end - range.start);
    for _ in 0..count {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let at = process::id().wrapping_mul(STRIDE).wrapping_add(tried) % count;
        let port = range.start + u16::try_from(at).expect("less than the ports of the range");
        // claimed first: no other process may check the port while these sockets are open
        if let Some(claim) = claim(port)
            && can_be_bound(port)
            && !is_listed(port)
        {
            CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
            return port;
        }
    }
    panic!("no port of {range:?} is free");
}

/// Like [`free_port`], as an address.
///
/// # Panics
/// When there is none.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// The ports to choose from: none that the kernel uses for outgoing connections or binds to port 0.
fn range() -> Range<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let low = text.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(USUAL);
    // if the kernel chooses from all ports, use the default range
    FIRST..if low >= FIRST + ENOUGH { low } else { USUAL }
}

/// A lock with the port's name, unless another process has it: abstract names belong to a network
/// namespace, like ports, and are released with the last copy of the socket.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = format!("ucache-test-port-{port}");
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    match UnixDatagram::bind_addr(&address) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => None,
        bound => Some(bound.expect("an abstract name can be bound")),
    }
}

fn can_be_bound(port: u16) -> bool {
    let at = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
}

/// Whether a socket still has the port: a child that another thread forked while it was bound here
/// keeps a copy until it executes its program.
fn is_listed(port: u16) -> bool {
    let ending = format!(":{port:04X}");
    ["tcp", "udp"].iter().any(|protocol| {
        let table =
            fs::read_to_string(format!("/proc/net/{protocol}")).expect("the kernel lists its sockets");
        table.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&ending)))
    })
}
