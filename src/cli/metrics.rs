//! `metrics`: statistics in the text format of Prometheus, once or over HTTP.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    Context,
    failure::{Failure, IO, Outcome, USAGE},
    target,
};
use crate::engine::{Engine, Figure, Memory, SizeClass};

/// Time limit for a client to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients that are served at the same time; others wait.
const CLIENTS: usize = 16;
/// The pause after a client could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Maximum length of a request, bytes.
const MAX_REQUEST: usize = 8192;

/// Metrics with a label `reason`, and their help.
const BYPASSED: (&str, &str) =
    ("page_bypassed_reasons", "Requests for pages that the cache must not answer, by reason");
const REFUSED: (&str, &str) = ("page_refused_reasons", "Responses that were not stored, by reason");

pub(super) fn run(context: &mut Context, targets: &[OsString], listen: Option<SocketAddr>) -> Outcome {
    let stores = Stores { targets, timeout: context.timeout, backend: context.backend.as_deref() };
    let Some(address) = listen else {
        let all: Outcome<Vec<_>> = targets.iter().map(|target| stores.open(target)).collect();
        let text = text(&all?);
        return Ok(context.out.write_all(text.as_bytes())?);
    };
    if !address.ip().is_loopback() {
        return Err(Failure::new(USAGE, format!("{address} is not a loopback address"))
            .hint("listen on 127.0.0.1, and let a web server with access control forward to it"));
    }
    let listener = TcpListener::bind(address).map_err(|e| {
        Failure::new(IO, format!("cannot listen on {address}: {e}")).hint("is another one running?")
    })?;
    let bound = listener.local_addr().unwrap_or(address);
    let _ = writeln!(io::stderr(), "http://{bound}/metrics");
    let silent = Mutex::default();
    // Each of them accepts: idle clients do not delay others, and there is a bound.
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| serve(&listener, &stores, &silent));
        }
    });
    Ok(())
}

/// Answers one client after the other.
fn serve(listener: &TcpListener, stores: &Stores<'_>, silent: &Mutex<BTreeSet<String>>) {
    loop {
        let Ok((stream, _)) = listener.accept() else {
            // Too many open files, for example: that does not pass at once.
            thread::sleep(PAUSE);
            continue;
        };
        let Ok(request) = read_request(&stream) else { continue };
        // Opened for each answer: a server may have replaced its file meanwhile, or not have
        // created it yet. One page at a time: each looks at the whole memory.
        let page = page(stores, &mut silent.lock().unwrap_or_else(PoisonError::into_inner));
        // The client may disconnect at any time.
        let _ = answer(&stream, &request, page);
    }
}

/// What the command line names.
struct Stores<'a> {
    targets: &'a [OsString],
    timeout: Duration,
    backend: Option<&'a str>,
}

impl Stores<'_> {
    fn open(&self, target: &OsString) -> Outcome<(String, Arc<Engine>)> {
        let file = OsStr::to_string_lossy(target).into_owned();
        Ok((file, target::look(target, self.timeout, self.backend, "metrics")?))
    }
}

/// The statistics of all readable stores, and which are readable. Errors of the others are reported
/// once on standard error and recorded in `silent`.
fn page(stores: &Stores<'_>, silent: &mut BTreeSet<String>) -> String {
    let (mut caches, mut up) = (Vec::new(), String::new());
    up += "# HELP ucache_up Whether the store can be read.\n# TYPE ucache_up gauge\n";
    for target in stores.targets {
        let opened = stores.open(target);
        let file = label(&OsStr::to_string_lossy(target));
        let _ = writeln!(up, "ucache_up{{store=\"{file}\"}} {}", u8::from(opened.is_ok()));
        match opened {
            Ok(one) => {
                silent.remove(&file);
                caches.push(one);
            }
            Err(e) => {
                if silent.insert(file) {
                    let _ = writeln!(io::stderr(), "{e}");
                }
            }
        }
    }
    text(&caches) + &up
}

/// The whole page. The lines of a metric are adjacent, as the format requires.
fn text(caches: &[(String, Arc<Engine>)]) -> String {
    let all: Vec<(String, Vec<Figure>, Memory)> = caches
        .iter()
        .map(|(file, engine)| {
            let labels = format!("cache=\"{}\",store=\"{}\"", label(&engine.config().name), label(file));
            let memory = engine.memory_sample();
            (labels, engine.figures(&memory), memory)
        })
        .collect();
    let mut page = String::new();
    // A region with copies has more of them than others, in the same order.
    let longest = all.iter().map(|(_, figures, _)| figures).max_by_key(|figures| figures.len());
    let mut family = "";
    for Figure { name, help, gauge, reason, .. } in longest.into_iter().flatten() {
        let (kind, total) = if *gauge { ("gauge", "") } else { ("counter", "_total") };
        // The parts of one figure are one metric with a label.
        let (metric, help, more) = match *reason {
            Some(reason) => {
                let bypassed = name.starts_with("page_bypassed");
                let (metric, help) = if bypassed { BYPASSED } else { REFUSED };
                (metric, help, format!("reason=\"{reason}\","))
            }
            None => (*name, *help, String::new()),
        };
        if std::mem::replace(&mut family, metric) != metric {
            let _ =
                writeln!(page, "# HELP ucache_{metric}{total} {help}.\n# TYPE ucache_{metric}{total} {kind}");
        }
        for (labels, figures, _) in &all {
            if let Some(figure) = figures.iter().find(|figure| figure.name == *name) {
                let _ = writeln!(page, "ucache_{metric}{total}{{{more}{labels}}} {}", figure.value);
            }
        }
    }
    page += "# HELP ucache_shard_items Items of each shard.\n# TYPE ucache_shard_items gauge\n";
    for ((labels, ..), (_, engine)) in all.iter().zip(caches) {
        for (shard, items) in engine.shard_items().into_iter().enumerate() {
            let _ = writeln!(page, "ucache_shard_items{{{labels},shard=\"{shard}\"}} {items}");
        }
    }
    for (name, help, value) in CLASS_FIGURES {
        let _ = writeln!(page, "# HELP ucache_class_{name} {help}.\n# TYPE ucache_class_{name} gauge");
        for (labels, _, memory) in &all {
            for class in &memory.classes {
                let (size, value) = (class.size, value(class));
                let _ = writeln!(page, "ucache_class_{name}{{{labels},size=\"{size}\"}} {value}");
            }
        }
    }
    page
}

type OfClass = fn(&SizeClass) -> u64;
/// The figures of blocks of more than half of `size` and up to `size` bytes.
const CLASS_FIGURES: [(&str, &str, OfClass); 5] = [
    ("items", "Items in blocks of up to so many bytes", |class| class.items),
    ("payload_bytes", "Bytes of their keys and values", |class| class.payload),
    ("entry_bytes", "Bytes of entries in such blocks, with header and padding", |class| class.entries),
    ("free_blocks", "Free blocks of up to so many bytes", |class| class.free_blocks),
    ("free_bytes", "Bytes of these", |class| class.free),
];

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A request's first line. The whole request has to arrive within [`PATIENCE`], so that a slow
/// client does not delay others.
fn read_request(mut stream: &TcpStream) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of 0 would mean forever.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let n = stream.read(&mut part)?;
        if n == 0 {
            break;
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        request.extend_from_slice(&part[..n]);
    }
    Ok(String::from_utf8_lossy(request.split(|&b| b == b'\n').next().unwrap_or_default()).into_owned())
}

fn answer(stream: &TcpStream, first: &str, page: String) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut words = first.split_ascii_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/metrics" | "/")) => ("200 OK", page),
        (Some("GET" | "HEAD"), ..) => ("404 Not Found", "/metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if first.starts_with("HEAD") { "" } else { &body };
    (&mut { stream }).write_all([&head, body].concat().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_end_themselves() {
        assert_eq!(label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
