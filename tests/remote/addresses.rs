//! Abstract unix sockets. uWSGI includes a NUL in their names, other programs do not.

use std::{
    os::{linux::net::SocketAddrExt, unix::net},
    thread,
};

use crate::{
    app::{App, BOTH},
    c, hygiene,
    native::Server,
    patience::within,
    plugin,
    ports::free_port,
};

/// A name unique to the test.
fn name() -> String {
    format!("ucache-abstract-{}", free_port())
}

#[test]
fn abstract_sockets_of_uwsgi_are_found() {
    let definition = "name=c,items=100";
    for spelled in ["@", "\\0"] {
        let (native, ours) = (format!("{spelled}{}", name()), format!("{spelled}{}", name()));
        let _servers = [
            Server::start(&[definition], &["--socket", &native]),
            plugin::start(&[definition], &["--socket", &ours]),
        ];
        for server in [&native, &ours] {
            // Both clients, in workers.
            for flavor in BOTH {
                let app = App::start(flavor, &["name=own,items=10"], &[]);
                let there = format!("r'c@{server}'");
                assert_eq!(
                    app.eval(&format!("uwsgi.cache_update('k', '{flavor:?}', 0, {there})")),
                    "True",
                    "{flavor:?} {server}"
                );
                assert_eq!(app.eval(&format!("uwsgi.cache_get('k', {there})")), format!("b'{flavor:?}'"));
            }
            // And a program without uWSGI.
            assert!(c::update(b"k", b"v", &format!("c@{server}")), "{server}");
            assert_eq!(c::value(b"k", &format!("c@{server}")).unwrap(), b"v");
        }
    }
}

#[test]
fn a_copy_comes_from_an_abstract_socket() {
    let definition = "name=c,items=100,keysize=100,blocksize=1000";
    let from = format!("@{}", name());
    let native = Server::start(&[definition], &["--socket", &from]);
    assert!(c::update(b"k", b"v", &native.cache("c")));
    for flavor in BOTH {
        let app = App::start(flavor, &[&format!("{definition},sync={from}")], &[]);
        assert_eq!(app.eval("uwsgi.cache_get('k')"), "b'v'", "{flavor:?}\n{}", app.server.log());
    }
}

/// The name as uWSGI binds it.
#[test]
fn names_of_uwsgi_end_with_a_nul() {
    hygiene::alone("addresses::names_of_uwsgi_end_with_a_nul", String::new, |_| {
        let name = name();
        let address = net::SocketAddr::from_abstract_name(format!("{name}\0")).unwrap();
        let listener = net::UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(c::get(b"k", &format!("c@@{name}:")), None, "with a colon it is no unix socket");
        thread::scope(|s| {
            s.spawn(|| c::get(b"k", &format!("c@@{name}")));
            within("a connection comes", || listener.accept().is_ok());
        });
    });
}

/// A server that is not uWSGI has the plain name, the longest of which leaves no space for a NUL.
#[test]
fn plain_abstract_names_are_found_too() {
    let test = "addresses::plain_abstract_names_are_found_too";
    hygiene::alone(test, String::new, |_| {
        let short = name();
        let long = format!("{short:x<107}");
        for name in [short, long] {
            let address = net::SocketAddr::from_abstract_name(&name).unwrap();
            let listener = net::UnixListener::bind_addr(&address).unwrap();
            thread::scope(|s| {
                let asked = s.spawn(|| listener.accept().map(drop));
                assert_eq!(c::get(b"k", &format!("c@@{name}")), None);
                asked.join().unwrap().unwrap();
            });
        }
    });
}
