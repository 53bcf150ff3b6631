//! The cache functions of uWSGI's language plugins, on uWSGI's own cache and on ucache: the same answers. All five
//! interpreters run in one worker, so that what one stores the others read.

#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use server::{Build, Flavor, root};
use session::Session;

/// Every language by its path, beside the Python that `probe.py` runs.
const LANGUAGES: &str = "\
plugin = php,psgi,lua51,rack_ruby31
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

/// Runs a session of `tests/languages` on both.
fn check(text: &str) {
    let here = root().join("tests/languages").display().to_string();
    let session = Session::parse(&(LANGUAGES.replace("HERE", &here) + text));
    for flavor in [Flavor::Native, Flavor::Ucache] {
        let wrong = session.run(Build::Installed, flavor);
        assert!(wrong.is_empty(), "{flavor:?}:\n{}", wrong.join("\n"));
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
