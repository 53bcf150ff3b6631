//! `metrics`: figures in the text format of Prometheus, once or over HTTP.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Context,
    failure::{Failure, IO, Outcome, USAGE},
};
use crate::engine::{Engine, Figure, Stats};

/// How long a client may take to ask, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request that is read, bytes.
const MAX_REQUEST: usize = 8192;

pub(super) fn run(context: &mut Context, targets: &[OsString], listen: Option<SocketAddr>) -> Outcome {
    let Some(address) = listen else {
        let text = text(&open(context, targets)?);
        return Ok(context.out.write_all(text.as_bytes())?);
    };
    if !address.ip().is_loopback() {
        return Err(Failure::new(USAGE, format!("{address} is no loopback address"))
            .hint("listen on 127.0.0.1, and let a web server with access control forward to it"));
    }
    let listener = TcpListener::bind(address).map_err(|e| {
        Failure::new(IO, format!("cannot listen on {address}: {e}")).hint("is another one running?")
    })?;
    let bound = listener.local_addr().unwrap_or(address);
    let _ = writeln!(io::stderr(), "http://{bound}/metrics");
    let mut silent = BTreeSet::new();
    for stream in listener.incoming().flatten() {
        let Ok(request) = read_request(&stream) else { continue };
        // Opened for each answer: a server may have replaced its file meanwhile, or not have made it yet.
        let page = page(context, targets, &mut silent);
        // Whoever asks may go away at any time.
        let _ = answer(&stream, &request, page);
    }
    Ok(())
}

fn open(context: &Context, targets: &[OsString]) -> Outcome<Vec<(String, Arc<Engine>)>> {
    targets.iter().map(|target| open_one(context, target)).collect()
}

fn open_one(context: &Context, target: &OsString) -> Outcome<(String, Arc<Engine>)> {
    let file = OsStr::to_string_lossy(target).into_owned();
    Ok((file, Arc::clone(context.open(target)?.engine("metrics")?)))
}

/// The figures of all stores that can be read, and which can. What is wrong with the others is said once, on standard error;
/// `silent` remembers it.
fn page(context: &Context, targets: &[OsString], silent: &mut BTreeSet<String>) -> String {
    let (mut caches, mut up) = (Vec::new(), String::new());
    up += "# HELP ucache_up Whether the store can be read.\n# TYPE ucache_up gauge\n";
    for target in targets {
        let opened = open_one(context, target);
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

/// The whole page. A metric's lines stand together, as the format wants it.
fn text(caches: &[(String, Arc<Engine>)]) -> String {
    let all: Vec<(String, Stats)> = caches
        .iter()
        .map(|(file, engine)| {
            (format!("cache=\"{}\",store=\"{}\"", label(&engine.config().name), label(file)), engine.stats())
        })
        .collect();
    let mut page = String::new();
    for (i, Figure { name, help, gauge, .. }) in Stats::default().figures().into_iter().enumerate() {
        let (kind, total) = if gauge { ("gauge", "") } else { ("counter", "_total") };
        let _ = writeln!(page, "# HELP ucache_{name}{total} {help}.\n# TYPE ucache_{name}{total} {kind}");
        for (labels, stats) in &all {
            let _ = writeln!(page, "ucache_{name}{total}{{{labels}}} {}", stats.figures()[i].value);
        }
    }
    page += "# HELP ucache_shard_items Items of each shard.\n# TYPE ucache_shard_items gauge\n";
    for ((labels, _), (_, engine)) in all.iter().zip(caches) {
        for (shard, items) in engine.shard_items().into_iter().enumerate() {
            let _ = writeln!(page, "ucache_shard_items{{{labels},shard=\"{shard}\"}} {items}");
        }
    }
    page
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A request's first line. All of it has to come within [`PATIENCE`]: who drips keeps others waiting no longer.
fn read_request(mut stream: &TcpStream) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        let left = deadline.saturating_duration_since(Instant::now());
        // A time of 0 would be for ever.
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
