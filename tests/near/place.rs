//! An address that leads to another server than the one whose messages the machine's owner gets.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use ucache::Cache;

use crate::{
    backend::{self, Server},
    copies::{armed, is_hit, machine, patient, within},
};

/// A path that leads to the socket of one server, and can be turned to another.
struct Turnout {
    dir: tempfile::TempDir,
}

impl Turnout {
    fn to(server: &Server) -> Self {
        let this = Self { dir: tempfile::tempdir().expect("a directory") };
        this.turn(server);
        this
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn turn(&self, server: &Server) {
        let new = self.dir.path().join("new");
        symlink(server.socket(), &new).expect("a link");
        std::fs::rename(&new, self.path()).expect("it is replaced at once");
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.path().display())
    }
}

/// Ends the connections whose name satisfies `ends`.
fn kill(server: &Server, ends: impl Fn(&str) -> bool) {
    let list = server.ask(["CLIENT", "LIST"]).replace("\\n", "\n");
    let field = |line: &str, name: &str| {
        let start = line.split(' ').find_map(|word| word.strip_prefix(name));
        start.unwrap_or_default().to_owned()
    };
    let ids: Vec<_> =
        list.lines().filter(|line| ends(&field(line, "name="))).map(|line| field(line, "id=")).collect();
    assert!(!ids.is_empty(), "{list}");
    for id in ids {
        server.ask(["CLIENT", "KILL", "ID", &id]);
    }
}

fn elsewhere(c: &Cache) -> u64 {
    c.near_stats().expect("it has a backend").elsewhere
}

fn two(program: &Path) -> [Server; 2] {
    eprintln!("{}", program.display());
    [(); 2].map(|()| Server::with(program, 0, &[]))
}

#[test]
fn a_worker_that_reaches_another_server_uses_no_copies() {
    for program in backend::programs() {
        let [mut first, second] = two(&program);
        let turnout = Turnout::to(&first);
        let c = machine("elsewhere", patient(turnout.url()));
        c.set("k", "first").expect("set");
        within("a copy", || is_hit(&c, "k"));
        assert_eq!(elsewhere(&c), 0);
        turnout.turn(&second);
        // The owner stays where it is.
        kill(&first, |name| name == "ucache");
        c.set("k", "second").expect("set");
        assert!(elsewhere(&c) > 0, "the new connection is found out");
        for n in 0..50 {
            let value = n.to_string();
            second.ask(["SET", "p:k", &value]);
            assert_eq!(c.get_str("k").expect("get"), Some(value), "the server answers, at once");
            assert!(!is_hit(&c, "k"));
        }
        assert_eq!(first.ask(["GET", "p:k"]), "first");
        first.down();
        armed(&c);
        c.set("k", "both").expect("set");
        within("a copy of the second server", || is_hit(&c, "k"));
        second.ask(["SET", "p:k", "heard"]);
        within("its messages", || c.get_str("k").expect("get").as_deref() == Some("heard"));
    }
}

#[test]
fn a_worker_follows_the_owner_to_another_server() {
    let [first, second] = two(&backend::programs()[0]);
    let turnout = Turnout::to(&first);
    let c = machine("follows", patient(turnout.url()));
    c.set("k", "first").expect("set");
    second.ask(["SET", "p:k", "second"]);
    turnout.turn(&second);
    // The worker's connection is as it was.
    kill(&first, |name| name.starts_with("ucache-owner"));
    within("the owner's new server", || c.get_str("k").expect("get").as_deref() == Some("second"));
    within("copies", || is_hit(&c, "k"));
    second.ask(["SET", "p:k", "heard"]);
    within("its messages", || c.get_str("k").expect("get").as_deref() == Some("heard"));
    assert_eq!(first.ask(["CLIENT", "LIST"]).matches("name=ucache").count(), 0, "nothing stays behind");
}

#[test]
fn a_user_who_may_not_look_is_taken_at_its_word() {
    let server = Server::start();
    server.ask(["ACL", "SETUSER", "web", "on", "nopass", "~p:*", "+@all", "-client|list", "-client|kill"]);
    let c = machine("may not look", patient(server.url()).user("web"));
    c.set("k", "1").expect("set");
    within("a copy", || is_hit(&c, "k"));
    server.ask(["SET", "p:k", "2"]);
    within("it is heard", || c.get_str("k").expect("get").as_deref() == Some("2"));
    assert_eq!(elsewhere(&c), 0);
}
