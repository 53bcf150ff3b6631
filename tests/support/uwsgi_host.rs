//! Real uWSGI servers for the tests of the plugin: started in their own directories, queried over a
//! unix socket, ended by pid. They always end with the test.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::patience::{PATIENCE, poll};

/// The libucache.so that cargo built for these tests.
pub(crate) fn library() -> PathBuf {
    let here = std::env::current_exe().expect("a test has a file");
    let library = here.with_file_name("libucache.so");
    assert!(library.is_file(), "{} is missing: `cargo test --features uwsgi` builds it", library.display());
    library
}

/// The uWSGI that the plugin was built against.
pub(crate) fn uwsgi() -> String {
    std::env::var("UWSGI_BIN").unwrap_or_else(|_| "uwsgi".into())
}

/// How to run a server.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Program and first arguments.
    pub(crate) command: Vec<String>,
    /// Restrictions, see `uwsgi_confine.py`.
    pub(crate) confine: &'static str,
    /// Environment.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Target of the link `ucache_plugin.so`.
    pub(crate) library: PathBuf,
    /// Plugin lines, before everything else.
    pub(crate) plugins: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            command: vec![uwsgi()],
            confine: "",
            env: Vec::new(),
            library: library(),
            plugins: "plugin = ucache\nplugin = python3",
        }
    }
}

/// A server that runs or has exited.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    dir: TempDir,
}

impl Setup {
    /// Starts a server with these lines of configuration; `{dir}` stands for its directory. Does
    /// not wait.
    pub(crate) fn spawn(&self, lines: &str) -> Host {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path().display().to_string();
        symlink(&self.library, dir.path().join("ucache_plugin.so")).expect("a symlink");
        let support = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");
        let ini = format!(
            "[uwsgi]\nplugins-dir = {at}\n{}\nhttp-socket = {at}/http\nstats = {at}/stats\nmaster = true\n\
             no-orphans = true\nworkers = 2\nneed-app = true\nwsgi-file = {support}/uwsgi_app.py\n{}\n",
            self.plugins,
            lines.replace("{dir}", &at)
        );
        fs::write(dir.path().join("uwsgi.ini"), ini).expect("the configuration is written");
        let log = File::create(dir.path().join("log")).expect("a log");
        let child = Command::new("/usr/bin/python3")
            .arg(format!("{support}/uwsgi_confine.py"))
            .args(self.confine.split_whitespace())
            .arg("--")
            .args(&self.command)
            .arg(dir.path().join("uwsgi.ini"))
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("python3 runs (apt-get install python3)");
        Host { child, dir }
    }

    /// Starts a server and waits until it answers.
    pub(crate) fn start(&self, lines: &str) -> Host {
        let mut host = self.spawn(lines);
        let answers = poll(PATIENCE, || {
            let ended = host.child.try_wait().expect("the server can be waited for");
            assert!(ended.is_none(), "the server ended ({ended:?}):\n{}", host.log());
            host.ask("1 + 1").filter(|answer| answer == "2")
        });
        assert!(answers.is_some(), "the server does not answer:\n{}", host.log());
        host
    }

    /// Starts a server that must exit with an error; returns its log.
    pub(crate) fn refuse(&self, lines: &str) -> String {
        let mut host = self.spawn(lines);
        let ended = poll(PATIENCE, || host.child.try_wait().expect("the server can be waited for"));
        let ended = ended.unwrap_or_else(|| panic!("the server does not exit:\n{}", host.log()));
        assert_eq!(ended.code(), Some(1), "{}", host.log());
        host.log()
    }
}

impl Host {
    /// A server on ucache, with these lines of configuration.
    pub(crate) fn start(lines: &str) -> Self {
        Setup::default().start(lines)
    }

    /// Evaluates a Python expression in a worker.
    pub(crate) fn eval(&self, source: &str) -> String {
        self.ask(source).unwrap_or_else(|| panic!("no answer to {source}\n{}", self.log()))
    }

    fn ask(&self, source: &str) -> Option<String> {
        self.request("POST", "/", source).map(|answer| answer.1)
    }

    /// Sends a request; returns status line and body of the answer.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Option<(String, String)> {
        let head =
            format!("{method} {path} HTTP/1.0\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = self.exchange("http", (head + body).as_bytes())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.lines().next()?.to_owned(), body.to_owned()))
    }

    /// Sends `bytes` to a socket of the server; returns the whole answer.
    pub(crate) fn exchange(&self, socket: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut stream = UnixStream::connect(self.dir().join(socket)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(bytes).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    /// The raw text of the statistics. Waits while the server starts or reloads.
    pub(crate) fn stats(&self) -> String {
        let answer = |host: &Self| host.exchange("stats", b"").filter(|text| !text.is_empty());
        String::from_utf8(self.wait_for("an answer of the statistics server", answer)).expect("text")
    }

    /// Waits until `condition` holds.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.wait_for(what, |host| condition(host).then_some(()));
    }

    /// Waits until there is a result.
    fn wait_for<T>(&self, what: &str, result: impl Fn(&Self) -> Option<T>) -> T {
        let found = poll(PATIENCE, || result(self));
        found.unwrap_or_else(|| panic!("{what} did not happen:\n{}", self.log()))
    }

    /// Sends a signal to the server's first process.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("/bin/kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success(), "{name} to {pid}");
    }

    /// Sends a signal that ends the server, and waits for its end. Its directory is kept.
    pub(crate) fn end(&mut self, signal: &str) {
        self.signal(signal);
        let ended = poll(PATIENCE, || self.child.try_wait().expect("the server can be waited for"));
        assert!(ended.is_some(), "{signal} does not end the server:\n{}", self.log());
    }

    /// Number of occurrences of a text in the log.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir().join("log")).unwrap_or_default()).into_owned()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("INT");
            poll(Duration::from_secs(10), || self.child.try_wait().transpose());
        }
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
