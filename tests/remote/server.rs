//! A TCP server around `serve`: the plugin's role inside uWSGI, without uWSGI.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use ucache::{
    capi::host::caches,
    net::{handler::Peer, keepalive::Place},
};

use crate::patience::PATIENCE;

struct Connection {
    stream: TcpStream,
    buf: Vec<u8>,
    place: Option<Place>,
}

impl Peer for Connection {
    fn read(&mut self, want: usize, within: Duration) -> Option<&[u8]> {
        self.stream.set_read_timeout(Some(within)).ok()?;
        self.buf.resize(want, 0);
        let got = self.stream.read(&mut self.buf).ok().filter(|&n| n > 0)?;
        self.buf.get(..got)
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn not_found(&mut self) {
        let _ = self.stream.write_all(b"404");
    }

    fn keep(&mut self) -> bool {
        self.place = caches::reserve();
        self.place.is_some()
    }
}

/// Serves the caches of this process on the returned address, for the life of the process.
pub(crate) fn start() -> String {
    start_on("127.0.0.1:0")
}

/// Like `start`, on a given address.
pub(crate) fn start_on(address: &str) -> String {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || one(stream));
        }
    });
    address
}

fn one(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = [0; 4];
    let mut payload = Vec::new();
    if stream.read_exact(&mut head).is_err() {
        return;
    }
    payload.resize(u16::from_le_bytes([head[1], head[2]]).into(), 0);
    if stream.read_exact(&mut payload).is_ok() {
        let mut connection = Connection { stream, buf: Vec::new(), place: None };
        caches::serve(head[3], &payload, &mut connection);
        if let Some(place) = connection.place {
            place.take_over(connection.stream.into());
        }
    }
}

/// Sends one request and reads until the server closes.
pub(crate) fn ask(address: &str, modifier2: u8, payload: &[u8], body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let [low, high] = u16::try_from(payload.len()).unwrap().to_le_bytes();
    stream.write_all(&[&[111, low, high, modifier2], payload, body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}
