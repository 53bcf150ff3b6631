//! Two real uWSGIs with the driver, one on its own cache and one on ucache.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    config,
    model::Side,
    op::{Answer, Op},
    patience::poll,
};

/// Maximum time for a start and for the answers to one chunk.
const PATIENCE: Duration = Duration::from_secs(120);

const DRIVER: &str = "oracle_plugin.so";

/// A uWSGI and the ucache built against it.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) program: PathBuf,
    pub(crate) library: PathBuf,
}

/// A uWSGI that runs operations.
#[derive(Debug)]
pub(crate) struct Host {
    side: Side,
    program: PathBuf,
    listener: UnixListener,
    child: Child,
    stream: UnixStream,
    dir: tempfile::TempDir,
}

impl Host {
    /// Starts a uWSGI with all caches; the driver takes control before any request is served.
    ///
    /// `backend`: options of the caches that can have one.
    pub(crate) fn start(side: Side, version: &Version, backend: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path().display().to_string();
        let driver = compile(&version.program, dir.path());
        let listener = UnixListener::bind(dir.path().join("oracle")).expect("a socket");
        let mut ini = format!("[uwsgi]\nplugins-dir = {at}\n");
        if side == Side::Ucache {
            symlink(&version.library, dir.path().join("ucache_plugin.so")).expect("a symlink");
            ini += "need-plugin = ucache\n";
        }
        ini += &format!("need-plugin = {}\nsocket = {at}/uwsgi\n", driver.display());
        config::all().iter().for_each(|cache| ini += &cache.line(&at, backend));
        fs::write(dir.path().join("uwsgi.ini"), ini).expect("the configuration is written");
        let program = version.program.clone();
        let child = spawn(side, &program, dir.path());
        let stream = UnixStream::pair().expect("sockets").0;
        let mut host = Self { side, program, listener, child, stream, dir };
        host.wait();
        host
    }

    /// Kills the server and restarts it in the same directory, keeping the stores.
    pub(crate) fn restart(&mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("a child can be waited for");
        self.child = spawn(self.side, &self.program, self.dir.path());
        self.wait();
    }

    fn wait(&mut self) {
        self.stream = self.accept();
        // If the plugin cannot be loaded, uWSGI would run on its own cache.
        let taken = self.log().contains("[ucache] ");
        assert_eq!(taken, self.side == Side::Ucache, "{:?}:\n{}", self.side, self.log());
    }

    fn accept(&mut self) -> UnixStream {
        self.listener.set_nonblocking(true).expect("a socket");
        let stream = poll(PATIENCE, || {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the driver ended ({ended:?}):\n{}", self.log());
            self.listener.accept().ok()
        });
        let (stream, _) = stream.unwrap_or_else(|| panic!("no driver:\n{}", self.log()));
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// Sends a chunk. Its answers must be taken before the next one.
    pub(crate) fn send(&mut self, ops: impl ExactSizeIterator<Item = Op>) {
        let count = u32::try_from(ops.len()).expect("a chunk");
        let mut bytes = count.to_le_bytes().to_vec();
        bytes.reserve(ops.len() * Op::SIZE);
        ops.for_each(|op| op.put(&mut bytes));
        let sent = self.stream.write_all(&bytes);
        assert!(sent.is_ok(), "the driver is gone ({sent:?}):\n{}", self.log());
    }

    /// The answers to the last chunk of `count` operations.
    pub(crate) fn answers(&mut self, count: usize) -> Vec<Answer> {
        let mut bytes = vec![0; count * Answer::SIZE];
        let got = self.stream.read_exact(&mut bytes);
        if got.is_err() {
            let ended = self.child.try_wait();
            panic!("no answers ({got:?}, {ended:?}):\n{}", self.log());
        }
        bytes.chunks_exact(Answer::SIZE).map(Answer::get).collect()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// ucache's log, except lines that the script provokes: refused stores and full caches.
    pub(crate) fn complaints(&self) -> String {
        let log = self.log();
        let ours = log.lines().filter(|line| line.contains("[ucache] "));
        let odd = ours.filter(|line| {
            !["was not stored", "FULL", "purged", " ready: ", " taken over "]
                .iter()
                .any(|text| line.contains(text))
        });
        odd.map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It ends with the socket; both fail if it already has.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs uWSGI in its directory, appending all output to `log`.
fn spawn(side: Side, program: &Path, dir: &Path) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    let mut command = Command::new(program);
    command.arg("--ini").arg(dir.join("uwsgi.ini"));
    command.env("LD_PRELOAD", dir.join(DRIVER)).env("UCACHE_ORACLE", dir.join("oracle"));
    if side == Side::Native {
        command.env("UCACHE_ORACLE_QUIET", "1");
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle of the log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()))
}

fn ask(program: &Path, option: &str) -> String {
    let output = Command::new(program).arg(option).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}: `make deps` installs it", program.display()));
    assert!(output.status.success(), "{} {option}: {output:?}", program.display());
    String::from_utf8(output.stdout).expect("text")
}

/// The driver, built against the header of this uWSGI.
fn compile(program: &Path, dir: &Path) -> PathBuf {
    fs::write(dir.join("uwsgi.h"), ask(program, "--dot-h")).expect("the header is written");
    let driver = dir.join(DRIVER);
    let flags = ask(program, "--cflags").replace('\\', "");
    let flags = flags.split_whitespace().filter(|word| word.starts_with("-D") || word.starts_with("-I/"));
    let output = Command::new("gcc")
        .args(["-shared", "-fPIC", "-O2", "-w"])
        .args(flags)
        .arg("-I")
        .arg(dir)
        .arg("-o")
        .arg(&driver)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/driver.c"))
        .output()
        .expect("gcc runs: `make deps` installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the driver needs the headers of uWSGI (`make deps`):\n{errors}");
    driver
}
