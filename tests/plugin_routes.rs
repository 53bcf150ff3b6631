//! uWSGI's own uses of a cache, outside any language: routes, cached responses, static paths. On
//! uWSGI's own cache and on ucache: the same answers.

#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;

use std::fs;

use patience::within;
use server::{Answer, Flavor, Server};

const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

fn get(server: &Server, path: &str) -> Answer {
    server.ask(1, "GET", path, "").unwrap_or_else(|e| panic!("{path}: {e}\n{}", server.log()))
}

#[test]
fn routes_read_and_write_the_cache() {
    let options = "cache2 = name=c,items=100\n\
         route = ^/page cache:key=${PATH_INFO},content_type=text/x-page,name=c\n\
         route = ^/set cacheset:key=from ${PATH_INFO},value=${REQUEST_METHOD},name=c,expires=60\n\
         route = ^/var cachevar:key=word,var=WORD,name=c\n\
         route = ^/var addheader:X-Word: ${WORD}\n\
         route = ^/number cacheinc:key=n,value=10,name=c\n\
         route = ^/number cachemul:key=n,value=6,name=c\n\
         route = ^/number cachedec:key=n,value=4,name=c\n\
         route = ^/number cachediv:key=n,value=8,name=c\n\
         route-if = incache:key=flag,name=c addheader:X-Flag: yes";
    for flavor in BOTH {
        let server = Server::start(flavor, 2, &all_but_posts(options));
        let python = |source: &str| server.run(2, source);
        assert_eq!(python("uwsgi.cache_set('/page/1', '<p>one', 0, 'c')"), "True");
        let page = get(&server, "/page/1");
        assert_eq!((page.status, page.body.as_str()), (200, "<p>one"));
        assert!(page.head.to_lowercase().contains("content-type: text/x-page"), "{}", page.head);
        assert_eq!(get(&server, "/page/2").body, "");

        assert_eq!(get(&server, "/set/x").status, 200);
        assert_eq!(python("uwsgi.cache_get('from /set/x', 'c')"), "b'GET'");
        assert_eq!(python("uwsgi.cache_set('word', 'blue', 0, 'c')"), "True");
        assert!(get(&server, "/var").head.contains("X-Word: blue"));
        // (0 + 10) * 6 - 4 = 56, / 8 = 7; then (7 + 10) * 6 - 4 = 98, / 8 = 12
        for (n, expected) in [(1, "7"), (2, "12")] {
            assert_eq!(get(&server, "/number").status, 200, "{n}");
            assert_eq!(python("uwsgi.cache_num('n', 'c')"), expected);
        }
        let flagged = || get(&server, "/flag").head.contains("X-Flag: yes");
        assert!(!flagged());
        assert_eq!(python("uwsgi.cache_update('flag', '1', 0, 'c')"), "True");
        assert!(flagged());
        assert_eq!(python("uwsgi.cache_del('flag', 'c')"), "True");
        assert!(!flagged());
    }
}

/// The routes, except for the harness's own requests, which are POSTs.
fn all_but_posts(routes: &str) -> String {
    let mut lines: Vec<_> = routes.lines().collect();
    lines.insert(0, "plugin = router_cache");
    lines.insert(1, "route-if = equal:${REQUEST_METHOD};POST last:");
    lines.join("\n")
}

#[test]
fn responses_are_stored_and_served() {
    // the application's answer depends on the request: the time
    let options = "cache2 = name=pages,items=100\n\
         route = ^/slow cache:key=${REQUEST_URI},name=pages,content_type=text/plain\n\
         route = ^/slow cachestore:key=${REQUEST_URI},name=pages,expires=3600";
    for flavor in BOTH {
        let server = Server::start(flavor, 1, &all_but_posts(options));
        let ask = || server.ask(1, "GET", "/slow?time", "time.time_ns()").expect("an answer");
        let first = ask();
        assert!(first.status == 200 && first.body.parse::<u64>().is_ok(), "{first:?}");
        within("the page is stored", || server.run(1, "uwsgi.cache_keys('pages')") == "[b'/slow?time']");
        let again = ask();
        assert_eq!((again.status, &again.body), (200, &first.body), "{flavor:?}\n{}", server.log());
        assert!(again.head.contains("Expires: ") && !again.head.contains("1970"), "{}", again.head);
        assert_eq!(server.run(1, "uwsgi.cache_del('/slow?time', 'pages')"), "True");
        assert_ne!(ask().body, first.body);
    }
}

#[test]
fn the_expiry_that_a_route_sends_is_a_time() {
    let options = "cache2 = name=pages,items=100,purge_lru=1\nroute = ^/page cache:key=page,name=pages";
    for (flavor, epoch) in [(Flavor::Native, true), (Flavor::Ucache, false)] {
        let server = Server::start(flavor, 1, &all_but_posts(options));
        assert_eq!(server.run(1, "uwsgi.cache_set('page', 'text', 3600, 'pages')"), "True");
        let answer = get(&server, "/page");
        assert_eq!(answer.body, "text");
        assert_eq!(answer.head.contains("1970"), epoch, "{flavor:?}: {}", answer.head);
    }
}

#[test]
fn check_cache_serves_what_the_cache_holds() {
    for flavor in BOTH {
        let server = Server::start(flavor, 1, "cache2 = name=c,items=100\ncheck-cache = c");
        assert_eq!(server.run(1, "uwsgi.cache_set('/held', 'from the cache')"), "True");
        let held = get(&server, "/held");
        assert_eq!((held.status, held.body.as_str()), (0, "from the cache"));
        assert_eq!(get(&server, "/other").status, 200);
    }
}

#[test]
fn static_paths_are_cached() {
    for flavor in BOTH {
        let files = tempfile::tempdir().expect("a temporary directory");
        fs::write(files.path().join("one.txt"), "file one").expect("a file can be written");
        let options = format!(
            "cache2 = name=first,items=100\ncache2 = name=paths,items=100\nstatic-cache-paths = 60\n\
             static-cache-paths-name = paths\nstatic-map = /files={}",
            files.path().display()
        );
        let server = Server::start(flavor, 1, &options);
        for _ in 0..3 {
            let answer = get(&server, "/files/one.txt");
            assert_eq!((answer.status, answer.body.as_str()), (200, "file one"), "{}", server.log());
        }
        let held = server.run(
            1,
            "[k.endswith(b'/one.txt') for k in uwsgi.cache_keys('paths')], uwsgi.cache_keys('first')",
        );
        assert_eq!(held, "([True], [])", "{flavor:?}");
    }
}
