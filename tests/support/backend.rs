//! Real Valkey and Redis servers, each a process of its own in a directory of its own, and other
//! clients of them.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use crate::patience::within;
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tempfile::TempDir;

/// Programs of the servers that `.ci/deps all` installs: Redis 7.0 and 8.2, Valkey 8.1 and 9.1.
pub(crate) fn programs() -> Vec<PathBuf> {
    // A copy of the tree with bugs has no servers of its own.
    let built = std::env::var_os("UCACHE_SERVERS")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/.build/servers").into(), PathBuf::from);
    let mut programs = vec![PathBuf::from("redis-server")];
    if cfg!(target_arch = "x86_64") {
        programs.extend(["redis-8.2", "valkey-8.1", "valkey-9.1"].map(|name| built.join(name)));
    }
    programs
}

/// A running server; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    args: Vec<String>,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    frozen: AtomicBool,
}

impl Server {
    /// Debian's, on a unix socket.
    pub(crate) fn start() -> Self {
        Self::with(&PathBuf::from("redis-server"), 0, &[])
    }

    /// This program, listening on a unix socket and, unless `port` is 0, on a port of 127.0.0.1.
    ///
    /// # Panics
    /// If it does not come up.
    pub(crate) fn with(program: &std::path::Path, port: u16, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("ucs").tempdir().expect("a directory");
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut server = Self {
            program: program.to_owned(),
            args,
            dir,
            port,
            child: None,
            frozen: AtomicBool::new(false),
        };
        server.up();
        server
    }

    /// Starts the program, empty, at the address that it had.
    pub(crate) fn up(&mut self) {
        assert!(self.child.is_none(), "it is up");
        let mut command = Command::new(&self.program);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocketperm", "700"]);
        command.args(["--enable-debug-command", "yes"]);
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.arg("--unixsocket").arg(self.socket()).arg("--dir").arg(self.dir.path()).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the closure makes one system call, which is safe between fork and exec. The server
        // ends with the thread that started it, also when the test is killed.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}; run .ci/deps all", self.program));
        self.child = Some(child);
        within(format!("{:?} listens", self.program), || UnixStream::connect(self.socket()).is_ok());
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn down(&mut self) {
        self.frozen.store(false, SeqCst);
        if let Some(mut child) = self.child.take() {
            // It may be stopped, which SIGKILL does not mind.
            child.kill().expect("it was running");
            child.wait().expect("its status");
        }
        // What it left would look like a server that is there and does not accept.
        let _ = std::fs::remove_file(self.socket());
    }

    /// Whether it is up and not stopped.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some() && !self.frozen.load(SeqCst)
    }

    /// Stops it in its tracks (SIGSTOP), or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, SeqCst);
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(self.pid(), signal).expect("it is there");
    }

    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.as_ref().expect("it is up").id();
        Pid::from_raw(i32::try_from(id).expect("a pid"))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The URL of its socket.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Another client.
    pub(crate) fn client(&self) -> Client {
        Client::of(&self.socket())
    }

    /// The same of a server that may end its connections at any moment, as sentinels make it do.
    pub(crate) fn try_ask<W: AsRef<[u8]>>(&self, words: impl IntoIterator<Item = W>) -> io::Result<String> {
        self.client().try_ask(words)
    }

    /// One command of another client.
    pub(crate) fn ask<W: AsRef<[u8]>>(&self, words: impl IntoIterator<Item = W>) -> String {
        self.client().ask(words)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

/// A client that has nothing in common with what is tested.
#[derive(Debug)]
pub(crate) struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Of the server at a unix socket.
    pub(crate) fn of(socket: &std::path::Path) -> Self {
        let stream = UnixStream::connect(socket).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        Self { reader: BufReader::new(stream) }
    }

    /// Sends a command; the reply as `redis-cli` would print it, bytes that are not text escaped.
    pub(crate) fn ask<W: AsRef<[u8]>>(&mut self, words: impl IntoIterator<Item = W>) -> String {
        self.try_ask(words).expect("a reply")
    }

    /// [`Client::ask`] of a server that may end the connection.
    pub(crate) fn try_ask<W: AsRef<[u8]>>(
        &mut self,
        words: impl IntoIterator<Item = W>,
    ) -> io::Result<String> {
        let words: Vec<_> = words.into_iter().collect();
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            let word = word.as_ref();
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&bytes)?;
        self.reply()
    }

    /// The next reply, or line of `MONITOR`.
    pub(crate) fn reply(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let rest = line.get(1..).unwrap_or_default();
        let len = rest.parse::<i64>().unwrap_or(-1);
        match line.chars().next() {
            Some('$') if len >= 0 => {
                let mut bytes = vec![0; usize::try_from(len).expect("a length") + 2];
                self.reader.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(bytes.escape_ascii().to_string())
            }
            Some('$') => Ok("nil".to_owned()),
            Some('*') => {
                let parts: io::Result<Vec<_>> = (0..len.max(0)).map(|_| self.reply()).collect();
                Ok(parts?.join(" "))
            }
            Some(_) => Ok(rest.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
