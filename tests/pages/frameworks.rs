//! Django and Flask behind `ucache:`.

use super::{
    server::{Build, Flavor, Server, root, venv},
    site::{Answer, exchange},
};

fn get(server: &Server, path: &str, headers: &str) -> Answer {
    let mut stream = std::os::unix::net::UnixStream::connect(server.dir().join("w1")).expect("a connection");
    let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    exchange(&mut stream, text.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}\n{}", server.log()))
}

#[test]
fn pages_of_django_and_flask() {
    let options = format!(
        "{}virtualenv = {}\npythonpath = {}/tests/pages\nmodule = frameworks\nneed-app = true\n\
         cache2 = name=pages,items=1000\nroute = ^/ ucache:name=pages,ttl=60",
        Build::Installed.python(),
        venv().display(),
        root().display()
    );
    let server = Server::start_app(Flavor::Ucache, 1, &options);
    for path in ["/django/page", "/django/stream", "/django/public", "/flask/page", "/flask/stream"] {
        let first = get(&server, path, "");
        let again = get(&server, path, "");
        assert_eq!((first.status, first.cache(), again.cache()), (200, "MISS", "HIT"), "{path} {first:?}");
        assert_eq!(first.body, again.body, "{path}");
        let tag = again.header("ETag").expect("a tag").to_owned();
        assert_eq!(get(&server, path, &format!("If-None-Match: {tag}\r\n")).status, 304, "{path}");
    }
    for path in ["/django/never", "/flask/session", "/flask/error"] {
        for _ in 0..2 {
            assert_eq!(get(&server, path, "").cache(), "MISS", "{path}");
        }
    }
    // Each user has a page of their own: Django names the cookie in Vary.
    let cookie = |name: &str| {
        let answer = get(&server, &format!("/django/login?name={name}"), "");
        let cookie =
            answer.header("Set-Cookie").expect("a cookie").split(';').next().expect("its value").to_owned();
        format!("Cookie: {cookie}\r\n")
    };
    let users = [("ann", cookie("ann")), ("bob", cookie("bob"))];
    for cache in ["MISS", "HIT"] {
        for (name, cookie) in &users {
            let page = get(&server, "/django/user", cookie);
            assert!(page.text().starts_with(&format!("user {name} ")), "{page:?}");
            assert_eq!(page.cache(), cache, "{name}");
        }
    }
    assert!(get(&server, "/django/user", "").text().starts_with("user None "));
}
