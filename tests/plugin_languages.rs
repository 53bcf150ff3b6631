//! The cache functions of uWSGI's language plugins, on uWSGI's own cache and on ucache: the same
//! answers. All five interpreters run in one worker, so that each reads what the others store.

#[path = "support/patience.rs"]
mod patience;
#[path = "support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use ports::free_address;
use server::{Build, Flavor, Server, root};
use session::Session;

/// Every language by its path, in addition to Python, which `probe.py` runs.
const LANGUAGES: &str = "\
plugin = php,psgi,lua51,rack
route = ^/php setmodifier1:14
route = ^/perl setmodifier1:5
route = ^/lua setmodifier1:6
route = ^/ruby setmodifier1:7
php-app = HERE/app.php
php-set = session.save_handler=uwsgi
php-set = session.save_path=sessions
psgi = HERE/app.psgi
lua = HERE/app.lua
rack = HERE/config.ru
cache-expire-freq = 1
cache2 = name=first,items=100,keysize=64
cache2 = name=c,items=100,blocksize=4096
cache2 = name=sessions,items=100
";

const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

/// Unexpected answers of a session when PHP keeps its own sessions in this cache.
fn wrong(text: &str, sessions: &str, flavor: Flavor) -> String {
    let here = root().join("tests/languages").display().to_string();
    let options =
        LANGUAGES.replace("HERE", &here).replace("save_path=sessions", &format!("save_path={sessions}"));
    Session::parse(&(options + text)).run(Build::Installed, flavor).join("\n")
}

/// Runs a session of `tests/languages` on both.
fn check(text: &str) {
    for flavor in BOTH {
        let wrong = wrong(text, "sessions", flavor);
        assert!(wrong.is_empty(), "{flavor:?}:\n{wrong}");
    }
}

#[test]
fn php() {
    check(include_str!("languages/php.txt"));
}

#[test]
fn perl() {
    check(include_str!("languages/perl.txt"));
}

#[test]
fn lua() {
    check(include_str!("languages/lua.txt"));
}

#[test]
fn ruby() {
    check(include_str!("languages/ruby.txt"));
}

#[test]
fn together() {
    check(include_str!("languages/together.txt"));
}

#[test]
fn a_cache_of_another_server() {
    for (here, there) in BOTH.into_iter().flat_map(|here| BOTH.map(|there| (here, there))) {
        let address = free_address();
        let caches = "cache2 = name=c,items=100\ncache2 = name=sessions,items=100";
        let options = format!("plugin = cache\nsocket = {address}\nmap-socket = 1:1\n{caches}");
        let _server = Server::start(there, 1, &options);
        let text = include_str!("languages/remote.txt").replace("NODE", &address);
        let wrong = wrong(&text, &format!("sessions@{address}"), here);
        assert!(wrong.is_empty(), "{here:?} asks {there:?}:\n{wrong}");
    }
}
