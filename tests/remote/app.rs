//! A uWSGI, native or with the plugin, with a Python application that evaluates expressions sent by
//! tests.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use crate::{
    native::Server,
    patience::{PATIENCE, within},
    plugin,
    ports::free_address,
};

/// The cache implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    Native,
    Ucache,
}

pub(crate) const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

/// A running server.
pub(crate) struct App {
    pub(crate) server: Server,
    http: String,
}

impl App {
    /// Starts one with these `cache2` definitions and options.
    pub(crate) fn start(flavor: Flavor, definitions: &[&str], options: &[&str]) -> Self {
        let http = free_address();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/uwsgi_app.py");
        let own = ["--plugin", "python3", "--http-socket", &http, "--need-app", "--wsgi-file", file];
        let options = [&own[..], options].concat();
        let server = match flavor {
            Flavor::Native => Server::start(definitions, &options),
            Flavor::Ucache => plugin::start(definitions, &options),
        };
        let app = Self { server, http };
        within("the application answers", || app.ask("1 + 1").is_ok_and(|answer| answer == "2"));
        app
    }

    /// The `repr` of a Python expression in a worker.
    pub(crate) fn eval(&self, source: &str) -> String {
        self.ask(source).unwrap_or_else(|e| panic!("{source}: {e}\n{}", self.server.log()))
    }

    /// The same, from a server that may be down at the moment.
    pub(crate) fn ask(&self, source: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(&self.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n{source}", source.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?.1;
        Ok(body.to_owned())
    }
}
