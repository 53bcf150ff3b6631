//! memcached and Redis over a unix socket, in as few bytes and system calls as their protocols
//! allow.

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use crate::{histories::Step, load::Store};

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

    /// Asks for all keys at once: one multi-get of memcached, pipelined GETs of Redis. How many
    /// were there.
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

impl Wire {
    /// Sends the steps of a history at once, and adds to `refused` whether each was.
    pub(crate) fn replay(&mut self, steps: &[Step], value: &[u8], refused: &mut Vec<bool>) {
        for Step { key, length } in steps {
            let name = std::str::from_utf8(key).expect("a key in text");
            let command = match (self.protocol, length) {
                (Protocol::Memcached, Some(length)) => format!("set {name} 0 0 {length}\r\n"),
                (Protocol::Memcached, None) => format!("delete {name}\r\n"),
                (Protocol::Redis, Some(length)) => {
                    format!("*3\r\n$3\r\nSET\r\n$16\r\n{name}\r\n${length}\r\n")
                }
                (Protocol::Redis, None) => format!("*2\r\n$3\r\nDEL\r\n$16\r\n{name}\r\n"),
            };
            self.out.extend_from_slice(command.as_bytes());
            if let Some(length) = length {
                self.out.extend_from_slice(&value[..*length as usize]);
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.send();
        for step in steps {
            let answer = self.line();
            let is_error = answer.starts_with("SERVER_ERROR") || answer.starts_with("-OOM");
            assert!(
                is_error || ["STORED", "DELETED", "NOT_FOUND", "+OK", ":0", ":1"].contains(&answer),
                "{step:?}: {answer}"
            );
            refused.push(is_error && step.length.is_some());
        }
    }

    /// The length of a key's value, if it is there.
    pub(crate) fn length(&mut self, key: &[u8; 16]) -> Option<u32> {
        let name = std::str::from_utf8(key).expect("a key in text");
        let command = match self.protocol {
            Protocol::Memcached => format!("get {name}\r\n"),
            Protocol::Redis => format!("*2\r\n$6\r\nSTRLEN\r\n$16\r\n{name}\r\n"),
        };
        self.out.extend_from_slice(command.as_bytes());
        self.send();
        let protocol = self.protocol;
        let answer = self.line();
        if protocol == Protocol::Redis {
            // No value of a history is empty.
            return answer.strip_prefix(':')?.parse().ok().filter(|&length| length > 0);
        }
        let length: u32 = answer.strip_prefix("VALUE ")?.rsplit(' ').next()?.parse().ok()?;
        let mut value = vec![0; length as usize + 2];
        self.stream.read_exact(&mut value).expect("a value");
        assert_eq!(self.line(), "END");
        Some(length)
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
