//! A real uWSGI for the tests: started in its own directory on unix sockets, with or without the
//! plugin, and ended by pid. `timeout` ends it even if the test itself is killed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[path = "build.rs"]
mod build;
pub(crate) use build::Build;

use crate::patience::{PATIENCE, poll};

/// Time after which a server that does not stop is killed.
const STOP: Duration = Duration::from_secs(30);
/// Maximum time for an answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Seconds after which a server is ended.
const LIFETIME: &str = "240";

/// The cache implementation of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// uWSGI's own.
    Native,
    /// The plugin's.
    Ucache,
}

/// A running uWSGI: one socket for each worker, one for the statistics.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    workers: usize,
}

impl Server {
    /// Starts uWSGI with `workers` workers that run `probe.py`, and `options`, lines of an ini
    /// file.
    ///
    /// # Panics
    /// Shows the log when uWSGI does not come up.
    pub(crate) fn start(flavor: Flavor, workers: usize, options: &str) -> Self {
        Self::start_on(Build::Installed, flavor, workers, options)
    }

    /// Like [`Server::start`], on a given uWSGI build.
    ///
    /// # Panics
    /// Shows the log when uWSGI does not come up.
    pub(crate) fn start_on(build: Build, flavor: Flavor, workers: usize, options: &str) -> Self {
        Self::start_app_on(build, flavor, workers, &format!("{}{options}", probe(build)))
    }

    /// Like [`Server::start`] with another application, given by `options`.
    ///
    /// # Panics
    /// Shows the log when uWSGI does not come up.
    pub(crate) fn start_app(flavor: Flavor, workers: usize, options: &str) -> Self {
        Self::start_app_on(Build::Installed, flavor, workers, options)
    }

    /// Like [`Server::start_app`], on a given uWSGI build.
    ///
    /// # Panics
    /// Shows the log when uWSGI does not come up.
    pub(crate) fn start_app_on(build: Build, flavor: Flavor, workers: usize, options: &str) -> Self {
        let mut server = Self::launch(build, flavor, workers, options);
        if let Err(reason) = server.await_workers() {
            panic!("uWSGI ({build:?}, {flavor:?}) did not start: {reason}\n{}", server.log());
        }
        server.assert_runs_on(flavor);
        server
    }

    /// Checks the flavor in the log: uWSGI ignores a plugin that cannot be loaded, and would run on
    /// its own cache.
    ///
    /// # Panics
    /// When the log shows another flavor.
    pub(crate) fn assert_runs_on(&self, flavor: Flavor) {
        assert_eq!(self.log().contains("[ucache] "), flavor == Flavor::Ucache, "{flavor:?}\n{}", self.log());
    }

    /// Runs uWSGI with options that must stop it; returns its log.
    ///
    /// # Panics
    /// When it starts anyway.
    pub(crate) fn refuse(flavor: Flavor, options: &str) -> String {
        let build = Build::Installed;
        Self::launch(build, flavor, 1, &format!("{}{options}", probe(build))).end()
    }

    /// Runs uWSGI with options that make it exit by itself, those of a Python program (`pyrun`);
    /// returns its log.
    ///
    /// # Panics
    /// When it does not exit.
    pub(crate) fn run_program(build: Build, flavor: Flavor, options: &str) -> String {
        Self::launch(build, flavor, 1, &format!("{}{options}", build.python())).end()
    }

    /// Waits until the server has ended; returns its log.
    fn end(mut self) -> String {
        let ended = poll(2 * PATIENCE, || self.child.try_wait().expect("a child can be waited for"));
        assert!(ended.is_some(), "uWSGI does not exit\n{}", self.log());
        self.log()
    }

    fn launch(build: Build, flavor: Flavor, workers: usize, options: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = ini_text(build, flavor, dir.path(), workers, options);
        Self::spawn_on(build, dir, &text, workers)
    }

    /// Starts uWSGI with the text of an ini file whose `pidfile` is `pid` in `dir`.
    pub(crate) fn spawn(dir: tempfile::TempDir, ini: &str, workers: usize) -> Self {
        Self::spawn_on(Build::Installed, dir, ini, workers)
    }

    fn spawn_on(build: Build, dir: tempfile::TempDir, ini: &str, workers: usize) -> Self {
        let file = dir.path().join("uwsgi.ini");
        fs::write(&file, ini).expect("the ini file can be written");
        let child = spawn(&build.uwsgi(), &file, &dir.path().join("log"));
        Self { child, dir, workers }
    }

    fn await_workers(&mut self) -> Result<(), String> {
        for worker in 1..=self.workers {
            let answers = poll(PATIENCE, || {
                // any answer counts, except errors that mean that the application is not loaded yet
                if self.ask(worker, "POST", "/", "1 + 1").is_ok_and(|answer| answer.status < 500) {
                    return Some(Ok(()));
                }
                let ended = self.child.try_wait().ok().flatten();
                ended.map(|status| Err(format!("it ended: {status}")))
            });
            answers.unwrap_or_else(|| Err(format!("worker {worker} does not answer")))?;
        }
        Ok(())
    }

    /// Runs Python source in a worker (counted from 1): returns the `repr` of its last expression,
    /// the text of its exception, or `(no answer)` if the worker died.
    pub(crate) fn run(&self, worker: usize, source: &str) -> String {
        self.ask(worker, "POST", "/", source).map_or_else(|_| "(no answer)".to_owned(), |answer| answer.body)
    }

    /// Sends any request to a worker.
    pub(crate) fn ask(&self, worker: usize, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let stream = UnixStream::connect(self.dir.path().join(format!("w{worker}")))?;
        stream.set_read_timeout(Some(ANSWER))?;
        exchange(stream, method, path, "", body)
    }

    /// The statistics of the cache with this name.
    pub(crate) fn cache_stats(&self, name: &str) -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(&self.stats()).expect("statistics are JSON");
        let caches = all["caches"].as_array().expect("statistics have caches");
        caches.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {all}")).clone()
    }

    /// The raw text of the statistics.
    pub(crate) fn stats(&self) -> String {
        let mut text = String::new();
        // The master opens the socket after it has started its workers.
        let stream = poll(PATIENCE, || UnixStream::connect(self.dir.path().join("stats")).ok());
        let mut stream = stream.expect("the stats server listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a timeout can be set");
        stream.read_to_string(&mut text).expect("the stats server answers");
        text
    }

    /// The directory of the server, for files that belong to it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Process id of the master.
    pub(crate) fn master(&self) -> Pid {
        pid_in(&self.dir.path().join("pid")).expect("uWSGI wrote its pid file")
    }

    /// Sends a signal to the master.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.master(), signal).expect("the master can be signalled");
    }

    /// Reloads as an operator does (SIGHUP) and waits until every worker has been replaced.
    pub(crate) fn reload(&mut self) {
        let pids =
            |server: &Self| (1..=server.workers).map(|w| server.run(w, "os.getpid()")).collect::<Vec<_>>();
        let before = pids(self);
        self.signal(Signal::SIGHUP);
        let is_old = |(now, then): (&String, &String)| now == then || now.contains('(');
        let reloaded = poll(PATIENCE, || (!pids(self).iter().zip(&before).any(is_old)).then_some(()));
        assert!(reloaded.is_some(), "no reload\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child, &self.dir.path().join("pid"));
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 200, 404, ...; 0 if there are no headers.
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    /// What follows the headers.
    pub(crate) body: String,
}

/// One request over TCP to 127.0.0.1.
pub(crate) fn http(port: u16, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    exchange(stream, method, path, "", body)
}

/// A GET over TCP to 127.0.0.1 with extra headers, each ended by CR LF.
pub(crate) fn http_with(port: u16, path: &str, headers: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    exchange(stream, "GET", path, headers, "")
}

fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> io::Result<Answer> {
    // In one write: a server that needs no body may answer and close before it is sent.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{headers}Content-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    match stream.write_all(request.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        sent => sent?,
    }
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    if text.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // uWSGI's `send` and `check-cache` write bytes without headers
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(Answer { status: 0, head: String::new(), body: text.into_owned() });
    };
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Starts uWSGI with an ini file, all output going to `log`.
fn spawn(uwsgi: &Path, ini: &Path, log: &Path) -> Child {
    let log = File::create(log).expect("the log can be written");
    Command::new("timeout")
        .args(["--foreground", "--signal=INT", "--kill-after=10", LIFETIME])
        .arg(uwsgi)
        .arg("--ini")
        .arg(ini)
        .current_dir(root())
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .env_remove("VIRTUAL_ENV")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor can be copied"))
        .stderr(log)
        .spawn()
        .expect("uWSGI starts: `make deps` installs it")
}

/// Ends a server by the pid in its pid file: SIGINT, then SIGKILL if it does not react.
fn stop(child: &mut Child, pid_file: &Path) {
    let master = pid_in(pid_file);
    if let Some(pid) = master {
        // it may have exited already
        let _ = kill(pid, Signal::SIGINT);
    }
    if poll(STOP, || child.try_wait().transpose()).is_none() {
        if let Some(pid) = master.filter(|&pid| kill(pid, None).is_ok()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn pid_in(file: &Path) -> Option<Pid> {
    Some(Pid::from_raw(fs::read_to_string(file).ok()?.trim().parse().ok()?))
}

fn ini_text(build: Build, flavor: Flavor, dir: &Path, workers: usize, options: &str) -> String {
    let dir = dir.display();
    let mut text = String::from("[uwsgi]\n");
    if flavor == Flavor::Ucache {
        text += &format!("plugins-dir = {}\nplugin = ucache\n", build.plugins().display());
    }
    for worker in 1..=workers {
        text += &format!("http-socket = {dir}/w{worker}\nmap-socket = {}:{worker}\n", worker - 1);
    }
    text += &format!("stats = {dir}/stats\npidfile = {dir}/pid\nmaster = true\nprocesses = {workers}\n");
    text + "no-orphans = true\n" + options + "\n"
}

/// Options for an application that runs the source posted by the test.
fn probe(build: Build) -> String {
    format!(
        "{}virtualenv = {}\npythonpath = {}/tests/support\nmodule = probe\nneed-app = true\n",
        build.python(),
        venv().display(),
        root().display()
    )
}

/// The package's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The virtual environment with uwsgiconf.
///
/// # Panics
/// When it is missing.
pub(crate) fn venv() -> PathBuf {
    let venv = root().join(".build/venv");
    assert!(venv.join("bin/python3").exists(), "no {}: `make deps` makes it", venv.display());
    venv
}
