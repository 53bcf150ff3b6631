//! A native uWSGI as the peer.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{
    patience::{PATIENCE, poll, within},
    ports::free_address,
};

fn uwsgi() -> Command {
    let binary = std::env::var_os("UWSGI_BIN").map_or_else(|| PathBuf::from("uwsgi"), PathBuf::from);
    let mut command = Command::new(binary);
    command.stdin(Stdio::null());
    command
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|e| {
        panic!(
            "{command:?}: {e}. Install it (apt-get install uwsgi-core uwsgi-plugin-python3) or set UWSGI_BIN"
        )
    })
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    /// Its address for the uwsgi protocol.
    pub(crate) tcp: String,
    /// Its unix socket.
    pub(crate) unix: String,
}

impl Server {
    /// Starts a native server with these `cache2` definitions and waits until it answers.
    pub(crate) fn start(definitions: &[&str], options: &[&str]) -> Self {
        Self::start_on(&free_address(), definitions, options)
    }

    /// Like `start`, on a given TCP address.
    pub(crate) fn start_on(tcp: &str, definitions: &[&str], options: &[&str]) -> Self {
        Self::start_with("cache", tcp, definitions, options)
    }

    /// A server with this plugin (a name, or the path of a file).
    pub(crate) fn start_with(plugin: &str, tcp: &str, definitions: &[&str], options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (tcp, unix) = (tcp.to_owned(), dir.path().join("s").to_str().unwrap().to_owned());
        let mut command = uwsgi();
        // A master runs the UDP servers; without `--die-on-term` a stray TERM would reload it.
        command.args(["--plugin", plugin, "--master", "--die-on-term"]);
        if plugin != "cache" {
            command.arg("--ucache-serve");
        }
        command.args(["--socket", &tcp, "--socket", &unix]).args(options);
        for definition in definitions {
            command.args(["--cache2", definition]);
        }
        let log = fs::File::create(dir.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = Self { child: spawn(&mut command), dir, tcp, unix };
        let address: SocketAddr = server.tcp.parse().unwrap();
        within("the native server answers", || {
            let ended = server.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{ended:?}; are its plugins installed (`.ci/deps all`)?\n{}",
                server.log()
            );
            TcpStream::connect_timeout(&address, PATIENCE).is_ok()
                && server.log().contains("spawned uWSGI worker")
        });
        server
    }

    /// `name@address` for this server.
    pub(crate) fn cache(&self, name: &str) -> String {
        format!("{name}@{}", self.tcp)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT ends a uWSGI with its workers; SIGKILL would leave those behind.
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill accepts any number; the child has not been waited for, so the pid is still
        // its own.
        unsafe { libc::kill(pid, libc::SIGINT) };
        poll(PATIENCE, || self.child.try_wait().transpose());
        // Both do nothing if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs Python code inside a native uWSGI (module `uwsgi`, `show` to report a value); returns what
/// was shown.
pub(crate) fn python(definition: &str, code: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.py");
    let head = "import os, sys, time, traceback, uwsgi\n\
        def show(x): sys.stdout.write('SHOWN ' + repr(x) + '\\n'); sys.stdout.flush()\n\
        try:\n";
    let body: String = code.lines().map(|line| format!("    {line}\n")).collect();
    fs::write(
        &script,
        format!("{head}{body}except BaseException:\n    show(traceback.format_exc())\nos._exit(0)\n"),
    )
    .unwrap();
    let mut command = uwsgi();
    command.args(["--plugin", "python3", "--socket", "127.0.0.1:0", "--cache2", definition, "--pyimport"]);
    command.arg(&script).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    // uWSGI joins both outputs in its log, stderr.
    let mut out = String::new();
    child.stderr.take().unwrap().read_to_string(&mut out).unwrap();
    child.wait().unwrap();
    out.lines().filter_map(|line| line.split_once("SHOWN ")).map(|(_, shown)| shown.to_owned()).collect()
}
