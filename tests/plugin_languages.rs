//! The cache functions of uWSGI's other language plugins, on uWSGI's own cache and on ucache: the same answers.

#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;

use server::{Flavor, Server, root};

/// Runs an application on both; each request must be answered with one of these texts, in turn.
fn check(options: &str, expected: &[&str]) {
    for flavor in [Flavor::Native, Flavor::Ucache] {
        let languages = root().join("tests/languages").display().to_string();
        let options = format!("cache2 = name=first,items=100\ncache2 = name=c,items=100\n{options}");
        // one worker, because the harness asks each once until it is ready
        let server = Server::start_app(flavor, 1, &options.replace("LANGUAGES", &languages));
        for (n, text) in expected.iter().enumerate() {
            let answer =
                server.ask(1, "GET", "/", "").unwrap_or_else(|e| panic!("{flavor:?}: {e}\n{}", server.log()));
            assert_eq!(answer.body, *text, "request {n} on {flavor:?}\n{}", server.log());
        }
    }
}

#[test]
fn php() {
    // the session counts requests; the harness made the first
    let body = |session: u32| {
        format!(
            "set [true,null]\nget [\"v\",null,null]\nupdate [true,\"w\"]\nexists [true,null]\ndel [true,null,null]\n\
             first [true,\"first\",\"first\"]\nclear [true,true,null]\nsession {session}\n"
        )
    };
    check(
        "plugin = php\nhttp-socket-modifier1 = 14\nphp-docroot = LANGUAGES\nphp-index = app.php\n\
         php-set = session.save_handler=uwsgi\nphp-set = session.save_path=first",
        &[&body(2), &body(3)],
    );
}

#[test]
fn perl() {
    let body = "set 1 undef\nget v undef\nexists 1 undef\ndel 1 undef\ngone undef\nfirst 1 1\nbytes 3\nclear 1 undef\n";
    check("plugin = psgi\nhttp-socket-modifier1 = 5\npsgi = LANGUAGES/app.psgi", &[body, body]);
}

#[test]
fn lua() {
    let body = "set true nil\nget v nil\nupdate true 3\nexists true nil\ndel true nil nil\nfirst true v nil\n\
                clear true nil\n";
    check("plugin = lua51\nhttp-socket-modifier1 = 6\nlua = LANGUAGES/app.lua", &[body, body]);
}

#[test]
fn ruby() {
    let body = "set true nil\nget \"v\" nil RuntimeError\nupdate true \"a\\x00b\"\nset! RuntimeError\n\
                first true \"first\" true\ndel true nil nil\nclear true nil\n";
    check("plugin = rack_ruby31\nhttp-socket-modifier1 = 7\nrack = LANGUAGES/config.ru", &[body, body]);
}
