//! uWSGI's routers choose a node by an item of a cache: a separate process, the host's lock,
//! `get4`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use crate::{
    exchange, on_both,
    options::{certificate, curl},
    patience::within,
    ports::free_port,
    server::{Flavor, Server},
    uwsgi_request,
};

/// A server with a router, and two workers on sockets of their own: `{dir}/a` and `{dir}/b` speak
/// uwsgi.
struct Routed {
    server: Server,
    dir: tempfile::TempDir,
}

impl Routed {
    fn start(flavor: Flavor, lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path().display().to_string();
        let lines = format!(
            "cache2 = name=other,items=9\ncache2 = name=c,items=9\nsocket = {{dir}}/a\nsocket = {{dir}}/b\n\
             map-socket = 2:1\nmap-socket = 3:2\n{lines}"
        );
        let server = Server::start(flavor, 2, &lines.replace("{dir}", &at));
        Self { server, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets the nodes of a key.
    fn route(&self, key: &str, nodes: &str) {
        let nodes = nodes.replace("{dir}", &self.dir.path().display().to_string());
        let source = format!("uwsgi.cache_update({key:?}, {nodes:?}, 0, 'c')");
        assert_eq!(self.server.run(1, &source), "True", "{}", self.server.log());
    }

    /// The workers that answer `ask`, in turn.
    fn turns(&self, ask: impl Fn() -> Vec<u8>) -> Vec<String> {
        let worker = || {
            let answer = String::from_utf8(ask()).expect("text");
            answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
        };
        // the router needs a moment to listen, and to find an item
        (0..6).map(|_| worker()).collect()
    }
}

/// Every second request goes to the other node: the router divides the item's hits.
fn assert_alternates(routed: &Routed, turns: &[String]) {
    let told = |text: &String| text == "1" || text == "2";
    assert!(turns.iter().all(told), "{turns:?}\n{}", routed.server.log());
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
}

/// A request that the probe answers with the worker's number.
const WHO: &str = "POST / HTTP/1.0\r\nHost: the.site\r\nContent-Length: 17\r\n\r\nuwsgi.worker_id()";

#[test]
fn the_http_router() {
    on_both(|flavor| {
        let routed = Routed::start(flavor, "plugin = http\nhttp = {dir}/router\nhttp-use-cache = c");
        let ask = || exchange(&routed.path("router"), WHO.as_bytes());
        assert!(!ask().ends_with(b"\r\n\r\n1"), "no node yet");
        routed.route("the.site", "{dir}/a|{dir}/b");
        assert_alternates(&routed, &routed.turns(ask));
        routed.route("the.site", "{dir}/b");
        assert_eq!(routed.turns(ask), ["2"; 6], "{flavor:?}");
        // another protocol behind the comma: no worker has it
        routed.route("the.site", "{dir}/b,200");
        assert!(!ask().ends_with(b"\r\n\r\n2"), "{flavor:?}");
    });
}

#[test]
fn the_fastrouter() {
    on_both(|flavor| {
        let routed =
            Routed::start(flavor, "plugin = fastrouter\nfastrouter = {dir}/router\nfastrouter-use-cache = c");
        let ask = || {
            let vars = [
                ("REQUEST_METHOD", "GET"),
                ("PATH_INFO", "/"),
                ("HTTP_HOST", "the.site"),
                ("UWSGI_FASTROUTER_KEY", "the.site"),
            ];
            uwsgi_request(&routed.path("router"), &vars)
        };
        routed.route("the.site", "{dir}/a|{dir}/b|{dir}/a");
        // the probe's answer to a request without a body is empty: the worker's request count shows
        // which it was
        let count = |worker: usize| {
            routed
                .server
                .run(worker, "uwsgi.total_requests(), uwsgi.workers()[uwsgi.worker_id() - 1]['requests']")
        };
        let before = [requests(&count(1)), requests(&count(2))];
        for _ in 0..6 {
            let answer = ask();
            assert!(answer.windows(6).any(|w| w == b"200 OK"), "{flavor:?}\n{}", routed.server.log());
        }
        let after = [requests(&count(1)), requests(&count(2))];
        // and one each for the queries themselves
        assert_eq!([after[0] - before[0], after[1] - before[1]], [4 + 1, 2 + 1], "{flavor:?}");
    });
}

/// The second number of `(total, own)`.
fn requests(text: &str) -> u64 {
    let number = text.trim_end_matches(')').rsplit(' ').next().and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("no numbers: {text}"))
}

fn tcp(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return answer };
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    // a reset counts as an answer, too
    let _ = stream.write_all(bytes).and_then(|()| stream.read_to_end(&mut answer));
    answer
}

#[test]
fn the_rawrouter() {
    on_both(|flavor| {
        let (port, a, b) = (free_port(), free_port(), free_port());
        let lines = format!(
            "plugin = rawrouter\nrawrouter = 127.0.0.1:{port}\nrawrouter-use-cache = c\n\
             http-socket = 127.0.0.1:{a}\nmap-socket = 4:1\nhttp-socket = 127.0.0.1:{b}\nmap-socket = 5:2"
        );
        let routed = Routed::start(flavor, &lines);
        // the key is the router's own address
        routed.route(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{a}|127.0.0.1:{b}"));
        assert_alternates(&routed, &routed.turns(|| tcp(port, WHO.as_bytes())));
    });
}

#[test]
fn the_sslrouter() {
    on_both(|flavor| {
        let keys = tempfile::tempdir().expect("a temporary directory");
        let (cert, key) = certificate(keys.path());
        let (port, a, b) = (free_port(), free_port(), free_port());
        let lines = format!(
            "plugin = sslrouter\nsslrouter2 = addr=127.0.0.1:{port},cert={cert},key={key}\nsslrouter-use-cache = c\n\
             http-socket = 127.0.0.1:{a}\nmap-socket = 4:1\nhttp-socket = 127.0.0.1:{b}\nmap-socket = 5:2"
        );
        let routed = Routed::start(flavor, &lines);
        routed.route(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{a}|127.0.0.1:{b}"));
        routed.route("the.site", &format!("127.0.0.1:{a}|127.0.0.1:{b}"));
        let resolve = format!("the.site:{port}:127.0.0.1");
        let ask = || {
            curl(
                &format!("https://the.site:{port}/"),
                &["--http1.0", "--resolve", &resolve, "--data", "uwsgi.worker_id()"],
            )
            .into_bytes()
        };
        within("the router", || matches!(&ask()[..], b"1" | b"2"));
        assert_alternates(&routed, &routed.turns(ask));
    });
}

#[test]
fn a_router_needs_its_cache() {
    on_both(|flavor| {
        let log = Server::refuse(flavor, "plugin = http\nhttp = 127.0.0.1:0\nhttp-use-cache = c");
        assert!(log.contains("you need to create a uwsgi cache to use the"), "{flavor:?}\n{log}");
    });
}
