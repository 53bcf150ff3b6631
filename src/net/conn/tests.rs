use std::{
    io::Write,
    net::TcpListener,
    os::{linux::net::SocketAddrExt, unix::net::UnixListener},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(150);

fn echo(mut stream: impl Read + Write) {
    let mut b = [0; 4];
    stream.read_exact(&mut b).unwrap();
    stream.write_all(&b).unwrap();
}

fn ask(server: &[u8]) -> io::Result<[u8; 4]> {
    let mut conn = Conn::open(server, SECOND * 10)?;
    conn.write_all(b"ping")?;
    let mut b = [0; 4];
    conn.read_exact(&mut b)?;
    Ok(b)
}

#[test]
fn all_forms_of_addresses_connect() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let unix = UnixListener::bind(&path).unwrap();
    let name = format!("ucache-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let abstract_ = UnixListener::bind_addr(&address).unwrap();
    let address =
        std::os::unix::net::SocketAddr::from_abstract_name(format!("{name}-nul\0").as_bytes()).unwrap();
    let of_uwsgi = UnixListener::bind_addr(&address).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| (0..2).for_each(|_| echo(of_uwsgi.accept().unwrap().0)));
        s.spawn(|| (0..3).for_each(|_| echo(tcp.accept().unwrap().0)));
        s.spawn(|| echo(unix.accept().unwrap().0));
        s.spawn(|| (0..2).for_each(|_| echo(abstract_.accept().unwrap().0)));
        for server in [
            format!("127.0.0.1:{port}"),
            format!(":{port}"),
            format!("localhost:{port}"),
            path.to_str().unwrap().to_owned(),
            format!("@{name}"),
            format!("\\0{name}"),
            // As uWSGI binds it, with a NUL at the end.
            format!("@{name}-nul"),
            format!("\\0{name}-nul"),
        ] {
            assert_eq!(&ask(server.as_bytes()).unwrap(), b"ping", "{server}");
        }
    });
}

#[test]
fn invalid_addresses_are_errors() {
    for wrong in
        ["", "@", "\\0", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:-1", "/nonexistent/s"]
    {
        assert!(Conn::open(wrong.as_bytes(), SECOND).is_err(), "{wrong:?}");
    }
    assert!(Conn::open(b"\xff:1", SECOND).is_err());
    assert!(Conn::open(&[b'p'; 500], SECOND).is_err());
    assert!(Conn::open(b"a\0b", SECOND).is_err());
}

#[test]
fn a_silent_peer_times_out_and_a_full_backlog_fails_at_once() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = tcp.local_addr().unwrap().to_string();
    let mut conn = Conn::open(server.as_bytes(), SHORT).unwrap();
    assert_eq!(conn.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::TimedOut);
    let mut conn = Conn::open(server.as_bytes(), SHORT).unwrap();
    let much = vec![0; 64 << 20];
    assert_eq!(conn.write_all(&much).unwrap_err().kind(), ErrorKind::TimedOut);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _unix = UnixListener::bind(&path).unwrap();
    let mut open = Vec::new();
    let begin = Instant::now();
    let error = loop {
        match Conn::open(path.as_os_str().as_bytes(), SECOND * 60) {
            Ok(conn) => open.push(conn),
            Err(e) => break e,
        }
        assert!(open.len() < 10_000, "the backlog must become full");
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(begin.elapsed() < SECOND * 30);
}

#[test]
fn only_names_need_the_resolver() {
    for named in [&b"localhost:1"[..], b"h:1", b"[fe80::1%eth0]:1"] {
        assert!(is_named(named), "{}", named.escape_ascii());
    }
    for known in
        [&b":1"[..], b"127.0.0.1:1", b"[::1]:1", b"::1:1", b"/run/h", b"@h", b"h", b"h:no port", b"\xff:1"]
    {
        assert!(!is_named(known), "{}", known.escape_ascii());
    }
}

#[test]
fn a_closed_peer_is_an_error_and_not_a_signal() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut conn = Conn::open(tcp.local_addr().unwrap().to_string().as_bytes(), SECOND * 10).unwrap();
    drop(tcp.accept().unwrap());
    let much = vec![0; 1 << 20];
    let error = (0..100).find_map(|_| conn.write_all(&much).err()).expect("nobody reads");
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
}
