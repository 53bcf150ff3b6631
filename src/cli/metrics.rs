//! `metrics`: figures in the text format of Prometheus, once or over HTTP.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use super::{
    Context,
    failure::{Failure, IO, Outcome, USAGE},
};
use crate::engine::{Engine, Figure, Stats};

/// How long a client may take to ask, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request that is read, bytes.
const MAX_REQUEST: u64 = 8192;

pub(super) fn run(context: &mut Context, targets: &[OsString], listen: Option<SocketAddr>) -> Outcome {
    let Some(address) = listen else {
        let text = text(&open(context, targets)?);
        return Ok(context.out.write_all(text.as_bytes())?);
    };
    if !address.ip().is_loopback() {
        return Err(Failure::new(USAGE, format!("{address} is no loopback address"))
            .hint("listen on 127.0.0.1, and let a web server with access control forward to it"));
    }
    // Before anybody relies on it: the files can be read.
    open(context, targets)?;
    let listener = TcpListener::bind(address).map_err(|e| {
        Failure::new(IO, format!("cannot listen on {address}: {e}")).hint("is another one running?")
    })?;
    let bound = listener.local_addr().unwrap_or(address);
    let _ = writeln!(io::stderr(), "http://{bound}/metrics");
    for stream in listener.incoming().flatten() {
        // Opened for each answer: a server may have replaced its file meanwhile.
        let page = open(context, targets).map(|caches| text(&caches));
        // Whoever asks may go away at any time.
        let _ = answer(&stream, page);
    }
    Ok(())
}

fn open(context: &Context, targets: &[OsString]) -> Outcome<Vec<(String, Arc<Engine>)>> {
    let one = |target: &OsString| {
        let file = OsStr::to_string_lossy(target).into_owned();
        Ok((file, Arc::clone(context.open(target)?.engine("metrics")?)))
    };
    targets.iter().map(one).collect()
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

fn answer(stream: &TcpStream, page: Outcome<String>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = BufReader::new(stream.take(MAX_REQUEST));
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::from("-");
    while !line.trim().is_empty() {
        line.clear();
        if request.read_line(&mut line)? == 0 {
            break;
        }
    }
    let mut words = first.split_ascii_whitespace();
    let (status, body) = match (words.next(), words.next(), page) {
        (Some("GET" | "HEAD"), Some("/metrics" | "/"), Ok(text)) => ("200 OK", text),
        (Some("GET" | "HEAD"), Some("/metrics" | "/"), Err(e)) => {
            ("503 Service Unavailable", format!("{e}\n"))
        }
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
