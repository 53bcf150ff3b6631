//! Programs that a measurement starts: each in a directory of its own, waited for with a limit,
//! ended by pid.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Nothing here takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct Server {
    child: Child,
    pub(crate) dir: TempDir,
}

impl Server {
    /// Starts a program; `prepare` gets its directory and gives the command. Its output goes to
    /// `log` there.
    pub(crate) fn spawn(prepare: impl FnOnce(&Path) -> Command) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = prepare(dir.path());
        let log = File::create(dir.path().join("log")).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}; `.ci/deps bench` installs it"));
        Self { child, dir }
    }

    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        // The start says what went wrong at first.
        String::from_utf8_lossy(&log[..log.len().min(20_000)]).into_owned()
    }

    /// Waits until `ready`; the program must live until then.
    pub(crate) fn until(&mut self, what: &str, ready: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !ready(self) {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "{what}: the program ended ({ended:?}):\n{}", self.log());
            assert!(start.elapsed() < PATIENCE, "{what} did not come about:\n{}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the program's own end.
    pub(crate) fn join(&mut self) {
        let start = Instant::now();
        while self.child.try_wait().expect("a child can be waited for").is_none() {
            assert!(start.elapsed() < PATIENCE, "the program does not end:\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn listening(mut self) -> Self {
        self.until("a socket", |server| UnixStream::connect(server.socket()).is_ok());
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time of the program and its children, nanoseconds.
    pub(crate) fn processor_time(&self) -> u64 {
        let pids = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let of = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0)
        };
        pids.filter(|&pid| pid == self.pid() || parent(pid) == Some(self.pid())).map(of).sum()
    }

    /// With a limit in bytes.
    pub(crate) fn memcached(limit: u64) -> (Self, PathBuf) {
        let server = Self::spawn(|dir| {
            let mut command = Command::new("memcached");
            let mebibytes = limit.div_ceil(1 << 20).to_string();
            command.args(["-u", "root", "-m", &mebibytes, "-t", "2", "-s"]).arg(dir.join("socket"));
            command
        })
        .listening();
        let socket = server.socket();
        (server, socket)
    }

    pub(crate) fn redis() -> (Self, PathBuf) {
        Self::redis_of(Path::new("redis-server"), &[])
    }

    /// With a limit in bytes, and with moving values together as eagerly as it can, if it can.
    pub(crate) fn redis_that_defragments(limit: u64) -> (Self, PathBuf) {
        let limit = limit.to_string();
        let settings = [
            ["--maxmemory", &limit],
            ["--activedefrag", "yes"],
            ["--active-defrag-ignore-bytes", "1mb"],
            ["--active-defrag-threshold-lower", "5"],
            ["--active-defrag-cycle-min", "25"],
        ];
        match defragmenting_redis() {
            Some(program) => Self::redis_of(&program, settings.as_flattened()),
            None => Self::redis_of(Path::new("redis-server"), &settings[0]),
        }
    }

    fn redis_of(program: &Path, settings: &[&str]) -> (Self, PathBuf) {
        let server = Self::spawn(|dir| {
            let mut command = Command::new(program);
            command.args(["--port", "0", "--save", "", "--appendonly", "no"]).args(settings);
            command.arg("--unixsocket").arg(dir.join("socket")).current_dir(dir);
            command
        })
        .listening();
        let socket = server.socket();
        (server, socket)
    }
}

/// The Redis that `.ci/deps bench` gets on x86-64. Debian's cannot move values: it is built with another
/// allocator.
pub(crate) fn defragmenting_redis() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.build/servers/redis-8.2");
    program.exists().then_some(program)
}

/// The parent of a process; its name, which comes before, is in brackets.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGINT ends all of them; uWSGI would reload on SIGTERM.
            let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
            let _ = kill(pid, Signal::SIGINT);
            let start = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10) {
                sleep(Duration::from_millis(10));
            }
        }
        // Nothing to kill or to wait for when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
