//! A server with routes and the scripted application, and a client that sends what it is told.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    patience::{PATIENCE, within},
    server::{Build, Flavor, Server, root},
};

/// Maximum time for an answer: a request may wait at a gate for all that a test looks at meanwhile.
const ANSWER: Duration = PATIENCE.saturating_mul(3);

/// A running server.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) server: Server,
    files: tempfile::TempDir,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and header lines.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of the only header with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = all.by_ref().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = found.next()?.1;
        assert!(found.next().is_none(), "two headers {name}: {}", self.head);
        Some(value)
    }

    /// `X-Cache`.
    pub(crate) fn cache(&self) -> &str {
        self.header("X-Cache").unwrap_or("(none)")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Site {
    /// Two workers on the installed uWSGI; `routes` are lines of the configuration.
    pub(crate) fn start(routes: &str) -> Self {
        Self::start_on(Build::Installed, 2, routes)
    }

    pub(crate) fn start_on(build: Build, workers: usize, routes: &str) -> Self {
        Self::start_as(build, Flavor::Ucache, workers, routes)
    }

    pub(crate) fn start_as(build: Build, flavor: Flavor, workers: usize, routes: &str) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        // uWSGI cuts the answer of a client that does not read for 4 seconds, as on a busy machine.
        let options = format!(
            "{}env = PAGES_DIR={}\npythonpath = {}/tests/pages\nmodule = app\nneed-app = true\n\
             socket-timeout = 60\ncache2 = name=pages,items=1000,blocksize=1000000\n{routes}",
            build.python(),
            files.path().display(),
            root().display()
        );
        let server = Server::start_app_on(build, flavor, workers, &options);
        let site = Self { server, files };
        site.forget_runs();
        site
    }

    /// What the application does at these paths, from now on.
    pub(crate) fn script(&self, script: &serde_json::Value) {
        let new = self.files.path().join("script.new");
        fs::write(&new, script.to_string()).expect("the script can be written");
        fs::rename(new, self.files.path().join("script")).expect("the script can be moved");
    }

    /// Lets requests that wait at this gate go on.
    pub(crate) fn open(&self, gate: &str) {
        fs::write(self.files.path().join(gate), "").expect("the gate can be written");
    }

    pub(crate) fn close(&self, gate: &str) {
        fs::remove_file(self.files.path().join(gate)).expect("the gate can be removed");
    }

    /// The process that computes a page with `mark` in its script; an old one if it was killed.
    pub(crate) fn marked(&self) -> Option<String> {
        fs::read_to_string(self.files.path().join("computing")).ok()
    }

    /// How often the application ran since the last call of `forget_runs`.
    pub(crate) fn runs(&self) -> usize {
        fs::read_to_string(self.files.path().join("runs")).map_or(0, |runs| runs.lines().count())
    }

    pub(crate) fn forget_runs(&self) {
        let _ = fs::remove_file(self.files.path().join("runs"));
    }

    /// Waits until the application has begun that many runs.
    pub(crate) fn await_runs(&self, count: usize) {
        within("the application runs", || self.runs() >= count);
    }

    /// A GET at the first worker.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(1, "GET", path, "")
    }

    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Answer {
        self.ask(1, "GET", path, headers)
    }

    /// A request with more header lines, each ended by CR LF.
    pub(crate) fn ask(&self, worker: usize, method: &str, path: &str, headers: &str) -> Answer {
        let answer = self.try_ask(worker, method, path, headers);
        answer.unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.server.log()))
    }

    pub(crate) fn try_ask(
        &self,
        worker: usize,
        method: &str,
        path: &str,
        headers: &str,
    ) -> io::Result<Answer> {
        let text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        exchange(&mut self.connect(worker)?, text.as_bytes())
    }

    pub(crate) fn raw(&self, worker: usize, bytes: &[u8]) -> io::Result<Answer> {
        exchange(&mut self.connect(worker)?, bytes)
    }

    pub(crate) fn connect(&self, worker: usize) -> io::Result<UnixStream> {
        connect(&self.server.dir().join(format!("w{worker}")))
    }

    /// A GET in a thread of its own.
    pub(crate) fn later(&self, worker: usize, path: &str, headers: &str) -> JoinHandle<io::Result<Answer>> {
        let at = self.server.dir().join(format!("w{worker}"));
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        thread::spawn(move || exchange(&mut connect(&at)?, text.as_bytes()))
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> String {
        self.server.log()
    }
}

fn connect(at: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(at)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Sends bytes and reads the answer to its end.
pub(crate) fn exchange(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<Answer> {
    match stream.write_all(bytes) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        sent => sent?,
    }
    read(stream)
}

pub(crate) fn read(stream: &mut UnixStream) -> io::Result<Answer> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset && !all.is_empty() => {}
        read => _ = read?,
    }
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head, body: all.split_off(end + 4) })
}
