//! A primary, a replica and three sentinels of Debian's Redis, each a process of its own.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    fs,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use tempfile::TempDir;

use crate::{
    backend::{Client, Server},
    patience::within,
    ports::free_port,
};

/// What the sentinels call the servers.
pub(crate) const SERVICE: &str = "pages";

/// Whether a server is a replica that has all data.
pub(crate) fn is_replica(server: &Server) -> bool {
    server.try_ask(["INFO", "replication"]).is_ok_and(|info| info.contains("master_link_status:up"))
}

/// A running sentinel; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Sentinel {
    pub(crate) port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Sentinel {
    /// One that watches the primary at this port; `more` lines stand in its configuration, before
    /// the service is named, and `of_service` behind that.
    pub(crate) fn start(primary: u16, more: &str, of_service: &str) -> Self {
        // It syncs its file again and again, and does nothing else while the disk is busy.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("ucs").tempdir_in(place).expect("a directory");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\nunixsocket {}/s\ndir {0}\n{more}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 4000\n{of_service}\n",
            dir.path().display()
        );
        fs::write(dir.path().join("conf"), text).expect("written");
        let mut sentinel = Self { port, dir, child: None };
        sentinel.up();
        sentinel
    }

    pub(crate) fn up(&mut self) {
        let mut command = Command::new("redis-server");
        command.arg(self.dir.path().join("conf")).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: one system call, which is safe between fork and exec: the sentinel ends with the
        // thread that started it.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("redis-server: {e}; run .ci/deps all")));
        within("a sentinel listens", || UnixStream::connect(self.socket()).is_ok());
    }

    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it was running");
            child.wait().expect("its status");
            let _ = fs::remove_file(self.socket());
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// One command; the reply as `redis-cli` would print it, in one line.
    pub(crate) fn ask(&self, words: &str) -> String {
        Client::of(&self.socket()).ask(words.split(' '))
    }

    /// Whether it names the server at this port.
    pub(crate) fn names(&self, port: u16) -> bool {
        self.ask(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}")) == format!("127.0.0.1 {port}")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.down();
    }
}

/// Servers of which one is the primary, and what watches them.
#[derive(Debug)]
pub(crate) struct Service {
    /// With the ports they listen on.
    pub(crate) servers: Vec<(Server, u16)>,
    pub(crate) sentinels: Vec<Sentinel>,
}

impl Service {
    /// A primary, the first one, a replica and three sentinels that know each other.
    pub(crate) fn start() -> Self {
        let (first, second) = (free_port(), free_port());
        let replica_of = format!("127.0.0.1 {first}");
        let args = ["--repl-diskless-sync-delay", "0"];
        let primary = Server::with(Path::new("redis-server"), first, &args);
        let args = [&args[..], &["--replicaof", &replica_of]].concat();
        let replica = Server::with(Path::new("redis-server"), second, &args);
        within("the replica has the data", || is_replica(&replica));
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(first, "", "")).collect();
        let service = Self { servers: vec![(primary, first), (replica, second)], sentinels };
        service.wait_for_sentinels();
        service
    }

    /// Waits until a failover can be begun by any sentinel.
    pub(crate) fn wait_for_sentinels(&self) {
        within("the sentinels know each other and the replica", || {
            self.sentinels.iter().all(|sentinel| {
                let master = sentinel.ask(&format!("SENTINEL MASTER {SERVICE}"));
                ["num-other-sentinels 2", "num-slaves 1", "flags master"]
                    .iter()
                    .all(|text| master.contains(text))
            })
        });
    }

    /// The URL that names the sentinels.
    pub(crate) fn url(&self) -> String {
        let places: Vec<_> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/{SERVICE}", places.join(";"))
    }

    /// Lets no write succeed until the replica has all of them, and for a while longer: whatever a
    /// server has said to be stored survives a failover.
    pub(crate) fn drain(&self, primary: usize, replica: usize) {
        let (from, to) = (&self.servers[primary].0, &self.servers[replica].0);
        from.ask(["CLIENT", "PAUSE", "60000", "WRITE"]);
        let offset = |server: &Server, name: &str| {
            let info = server.try_ask(["INFO", "replication"]).unwrap_or_default();
            info.split("\\r\\n").find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok())
        };
        within("the replica has all writes", || {
            let sent = offset(from, "master_repl_offset:");
            sent.is_some() && sent == offset(to, "slave_repl_offset:")
        });
    }

    /// Waits until all sentinels that are up name this server, and it is the primary.
    pub(crate) fn wait_for_primary(&self, at: usize) {
        let (server, port) = &self.servers[at];
        within("a failover", || {
            let all = self.sentinels.iter().filter(|s| s.child.is_some()).all(|s| s.names(*port));
            all && server.try_ask(["ROLE"]).is_ok_and(|role| role.starts_with("master"))
        });
    }
}
