//! memcached and Redis over a unix socket, in as few bytes and system calls as their protocols allow.

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use crate::load::Store;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Memcached,
    Redis,
}

/// A connection. Keys go over the wire in hexadecimal: memcached takes no control bytes.
pub(crate) struct Wire {
    protocol: Protocol,
    stream: BufReader<UnixStream>,
    out: Vec<u8>,
    line: Vec<u8>,
}

fn text(key: &[u8; 16]) -> [u8; 16] {
    // The first 8 bytes hold the number: it alone tells keys apart.
    let number = u64::from_le_bytes(key[..8].try_into().expect("8 bytes"));
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15])
}

impl Wire {
    pub(crate) fn connect(protocol: Protocol, socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the server listens");
        stream.set_read_timeout(Some(crate::server::PATIENCE)).expect("a timeout");
        Self { protocol, stream: BufReader::new(stream), out: Vec::new(), line: Vec::new() }
    }

    fn send(&mut self) {
        self.stream.get_mut().write_all(&self.out).expect("the server reads");
        self.out.clear();
    }

    fn line(&mut self) -> &str {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).expect("the server answers");
        std::str::from_utf8(&self.line).expect("a protocol of text").trim_end()
    }

    fn value(&mut self, out: &mut [u8; 100]) {
        let mut end = [0; 2];
        self.stream.read_exact(out).expect("a value");
        self.stream.read_exact(&mut end).expect("a line's end");
        black_box(out);
    }

    /// Asks for all keys at once: one multi-get of memcached, pipelined GETs of Redis. How many were there.
    pub(crate) fn get_many(&mut self, keys: &[[u8; 16]], out: &mut [u8; 100]) -> usize {
        if self.protocol == Protocol::Redis {
            for key in keys {
                self.out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n");
                self.out.extend_from_slice(&text(key));
                self.out.extend_from_slice(b"\r\n");
            }
            self.send();
            return keys
                .iter()
                .filter(|_| {
                    let found = self.line() == "$100";
                    if found {
                        self.value(out);
                    }
                    found
                })
                .count();
        }
        self.out.extend_from_slice(b"get");
        for key in keys {
            self.out.push(b' ');
            self.out.extend_from_slice(&text(key));
        }
        self.out.extend_from_slice(b"\r\n");
        self.send();
        let mut found = 0;
        while self.line().starts_with("VALUE ") {
            self.value(out);
            found += 1;
        }
        found
    }

    /// Stores all keys, with one wait at the end.
    pub(crate) fn set_many(&mut self, keys: &[[u8; 16]], value: &[u8; 100]) {
        for key in keys {
            match self.protocol {
                Protocol::Memcached => {
                    self.out.extend_from_slice(b"set ");
                    self.out.extend_from_slice(&text(key));
                    self.out.extend_from_slice(b" 0 0 100\r\n");
                }
                Protocol::Redis => {
                    self.out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
                    self.out.extend_from_slice(&text(key));
                    self.out.extend_from_slice(b"\r\n$100\r\n");
                }
            }
            self.out.extend_from_slice(value);
            self.out.extend_from_slice(b"\r\n");
        }
        self.send();
        for _ in keys {
            let answer = self.line();
            assert!(answer == "STORED" || answer == "+OK", "set: {answer}");
        }
    }
}

impl Store for Wire {
    fn get(&mut self, key: &[u8; 16], out: &mut [u8; 100]) -> bool {
        self.get_many(std::slice::from_ref(key), out) == 1
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        self.set_many(std::slice::from_ref(key), value);
    }
}
