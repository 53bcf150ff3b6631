//! uWSGI's own example configurations that use the cache, run unchanged except for addresses and
//! paths.

use super::{
    Outcomes,
    ports::free_port,
    same_everywhere, same_on,
    server::{Answer, Build, Flavor, Server, http_with, root, venv},
    uwsgi_tests::configuration,
};

/// A server with a configuration of `t/` that also listens on 127.0.0.1, where peers have an
/// address.
fn serve(build: Build, flavor: Flavor, lines: &str) -> (Server, u16) {
    let port = free_port();
    let routers = if build == Build::Installed { "plugin = router_cache,router_basicauth\n" } else { "" };
    let head = format!("{}{routers}virtualenv = {}\n", build.python(), venv().display());
    let options = format!("http-socket = 127.0.0.1:{port}\n{head}{lines}");
    (Server::start_app_on(build, flavor, 1, &options), port)
}

fn get(server: &Server, port: u16, headers: &str) -> Answer {
    http_with(port, "/", headers).unwrap_or_else(|e| panic!("{e}\n{}", server.log()))
}

/// The status of each of `count` requests.
fn statuses(build: Build, flavor: Flavor, lines: &str, count: usize) -> Outcomes {
    let (server, port) = serve(build, flavor, lines);
    (0..count).map(|n| (format!("{n:02}"), get(&server, port, "").status.to_string())).collect()
}

/// The given number of answers of one kind, then 503.
fn assert_limited(all: &Outcomes, status: &str) {
    let limited =
        all.iter().map(|(n, got)| n.as_str() > "10" && got == "503" || n.as_str() <= "10" && got == status);
    assert!(limited.clone().all(|as_expected| as_expected), "{all:?}");
    assert_eq!(limited.count(), 14);
}

#[test]
fn limiter_ini() {
    let lines = configuration("routing/limiter.ini", &["http-socket"]);
    let all = same_everywhere(|build, flavor| statuses(build, flavor, &lines, 14));
    assert_limited(&all, "200");
}

#[test]
fn errorlimiter_ini() {
    // without the client's country, which needs a database, and with an application without pages
    let lines = configuration(
        "routing/errorlimiter.ini",
        &["http-socket", "plugins", "module", "final-route-if = equal:${geoip"],
    );
    let here = root().join("tests/clients").display().to_string();
    let lines = format!("{lines}pythonpath = {here}\nmodule = missing\n");
    let all = same_everywhere(|build, flavor| statuses(build, flavor, &lines, 14));
    assert_limited(&all, "404");
}

#[test]
fn auth_ini() {
    let lines = configuration("routing/auth.ini", &["http-socket"]);
    let all = same_everywhere(|build, flavor| {
        let (server, port) = serve(build, flavor, &lines);
        let nobody = get(&server, port, "");
        // uno:due, and uno:tre
        let user = get(&server, port, "Authorization: Basic dW5vOmR1ZQ==\r\n");
        let wrong = get(&server, port, "Authorization: Basic dW5vOnRyZQ==\r\n");
        let cookie = user.head.split("uwsgiauth=").nth(1).and_then(|rest| rest.split(';').next());
        let cookie = cookie.unwrap_or_else(|| panic!("no cookie: {}\n{}", user.head, server.log()));
        assert_eq!(cookie.len(), 36, "{}", user.head);
        let again = get(&server, port, &format!("Cookie: uwsgiauth={cookie}\r\n"));
        let forged = get(&server, port, &format!("Cookie: uwsgiauth={}\r\n", "0".repeat(36)));
        let known = again.body.contains("uno").to_string();
        let answers =
            [("nobody", nobody), ("user", user), ("wrong", wrong), ("again", again), ("forged", forged)];
        let mut all: Outcomes =
            answers.map(|(who, answer)| (who.to_owned(), answer.status.to_string())).into_iter().collect();
        all.insert("known".to_owned(), known);
        all
    });
    let expected = [
        ("nobody", "401"),
        ("user", "200"),
        ("wrong", "401"),
        ("again", "200"),
        ("forged", "401"),
        ("known", "true"),
    ];
    assert_eq!(all, expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
}

#[test]
fn php_session_test() {
    let t = Build::tests_of_uwsgi();
    let docroot = t.join("php").display().to_string();
    let lines = configuration("php/config.ini", &["http-socket =", "php-docroot"])
        .replace("/tmp/uwsgi-session-cache", "%duwsgi-session-cache");
    let lines = format!("{lines}php-docroot = {docroot}\n");
    let all = same_on([Build::Installed], |build, flavor| {
        let server = Server::start_app_on(build, flavor, 1, &lines);
        let bodies = (0..3).map(|n| {
            let answer = server.ask(1, "GET", "/test.php", "").expect("an answer");
            (n.to_string(), answer.body)
        });
        bodies.collect()
    });
    assert!(all.values().all(|body| body == "PASS\n"), "{all:?}");
}

#[test]
fn perl_test() {
    let program = Build::tests_of_uwsgi().join("perl/test.psgi").display().to_string();
    let lines =
        format!("cache2 = name=c,items=10\nplugin = psgi\nhttp-socket-modifier1 = 5\npsgi = {program}\n");
    let all = same_on([Build::Installed], |build, flavor| {
        let server = Server::start_app_on(build, flavor, 1, &lines);
        let answer = server.ask(1, "GET", "/page", "").expect("an answer");
        Outcomes::from([("body".to_owned(), answer.body)])
    });
    assert_eq!(all["body"], "Hello World\r\n/pageval1passed no args to RPC func");
}
