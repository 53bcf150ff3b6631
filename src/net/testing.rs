//! A server for the tests of clients.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::wire::packet::{HEADER_LEN, Header};

pub(crate) const PATIENT: Duration = Duration::from_secs(20);

/// A server for one connection: reads one packet, then calls `then` with the connection and the
/// payload. Returns its address.
pub(crate) fn server(
    then: impl FnOnce(TcpStream, Vec<u8>) + Send + 'static,
) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let handle = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENT)).unwrap();
        let mut head = [0; HEADER_LEN];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; Header::parse(head).size.into()];
        stream.read_exact(&mut payload).unwrap();
        then(stream, payload);
    });
    (address, handle)
}
