//! The routing actions and conditions of uWSGI's `router_cache`, each with each of its keys; the
//! SSI command.

use std::fs;

use crate::{get, on_both, patience::within, server::Server};

/// The harness's own requests are POSTs and bypass the routes.
const POSTS: &str = "plugin = router_cache\nroute-if = equal:${REQUEST_METHOD};POST last:\n";
const CACHES: &str = "cache2 = name=first,items=50\ncache2 = name=second,items=50\n";

#[test]
fn every_key_of_cache_and_cache_continue() {
    let routes = "route = ^/plain cache:key=k\n\
        route = ^/type cache:key=k,content_type=text/x-type,name=second\n\
        route = ^/coded cache:key=k,content_encoding=gzip\n\
        route = ^/mime cache:key=page.css,mime=1,content_type=text/x-type\n\
        route = ^/nocl1 cache:key=k,no_content_length=1\n\
        route = ^/nocl2 cache:key=k,no_cl=1\n\
        route = ^/nocl3 cache:key=k,nocl=1\n\
        route = ^/here cache:key=k,no_offload=1\n\
        route = ^/ttl cache:key=ttl\n\
        route = ^/miss cache:key=nothing\n\
        route = ^/(.*)/sub cache:key=of $1\n\
        route = ^/on cache-continue:key=k,content_type=text/x-on\n\
        route = ^/on cache-continue:key=k,name=second\n\
        route = ^/on break:\n\
        route = .* break:404 Not Found";
    let types = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(types.path(), "text/x-of-mime css\n").expect("a file can be written");
    let mime = format!("mime-file = {}\n", types.path().display());
    {
        let answers = on_both(|flavor| {
            let server = Server::start(flavor, 1, &format!("{mime}{POSTS}{CACHES}{routes}"));
            let fill = "uwsgi.cache_set('k', 'one'), uwsgi.cache_set('k', 'two', 0, 'second'), \
                uwsgi.cache_set('page.css', 'a{}'), uwsgi.cache_set('ttl', 'soon', 100), uwsgi.cache_set('of x', 'x')";
            assert_eq!(server.run(1, fill), "(True, True, True, True, True)");
            let heads = [
                "/plain", "/type", "/coded", "/mime", "/nocl1", "/nocl2", "/nocl3", "/here", "/miss",
                "/x/sub", "/on",
            ]
            .map(|path| {
                let answer = get(&server, path);
                (path, answer.head, answer.body)
            });
            let ttl = get(&server, "/ttl");
            assert!(ttl.head.contains("Expires: ") && ttl.body == "soon", "{ttl:?}");
            heads
        });
        assert_eq!(answers[0], answers[1]);
        let bodies = answers[0].clone().map(|(_, _, body)| body);
        assert_eq!(bodies[..4], ["one", "two", "one", "a{}"]);
        assert_eq!(bodies[9..], ["x", "one"]);
        assert!(
            answers[0][1].1.contains("text/x-type") && answers[0][2].1.contains("Content-Encoding: gzip")
        );
        assert!(answers[0][3].1.contains("text/x-of-mime") && !answers[0][4].1.contains("Content-Length"));
    }
}

/// The offload thread gets the value itself and frees it. Which of the two writes first is a race
/// in uWSGI: the head may be late, so only whole answers count.
#[test]
fn cached_pages_are_sent_by_offload_threads() {
    let routes = "offload-threads = 1\nroute = ^/plain cache:key=k\nroute = .* break:404 Not Found";
    on_both(|flavor| {
        let server = Server::start(flavor, 1, &format!("{POSTS}{CACHES}{routes}"));
        assert_eq!(server.run(1, "uwsgi.cache_set('k', 'page ' * 10000)"), "True");
        let mut whole = 0;
        within("whole answers", || {
            let answer = server.ask(1, "GET", "/plain", "");
            whole += usize::from(answer.is_ok_and(|answer| answer.body == "page ".repeat(10000)));
            whole == 10
        });
    });
}

#[test]
fn every_key_of_cachestore() {
    let routes = "route = ^/store cachestore:key=${PATH_INFO},gzip=${PATH_INFO}.gz,name=second,expires=100\n\
        route = ^/dashed cache-store:key=${PATH_INFO}\n\
        route = ^/fixed cachestore:key=fixed,value=of ${PATH_INFO}\n\
        route = ^/status cachestore:key=status,status=404,value=no\n\
        route = ^/code cachestore:key=code,code=404,value=no\n\
        route = ^/never cachestore:key=never,value=no\n\
        route = ^/(status|code|never) break:404 Not Found";
    let stored = on_both(|flavor| {
        let server = Server::start(flavor, 1, &format!("{POSTS}{CACHES}{routes}"));
        for path in ["/store", "/dashed", "/fixed", "/status", "/code", "/never"] {
            server.ask(1, "GET", path, "'the body'").expect("an answer");
        }
        within("the pages are stored", || server.run(1, "uwsgi.cache_exists('code')") == "True");
        let read = "import gzip\n\
            first = sorted((k, uwsgi.cache_get(k)) for k in uwsgi.cache_keys('first'))\n\
            second = uwsgi.cache_get('/store', 'second'), gzip.decompress(uwsgi.cache_get('/store.gz', 'second'))\n\
            first, second, sorted(uwsgi.cache_keys('second'))";
        server.run(1, read)
    });
    assert_eq!(stored[0], stored[1]);
    assert!(stored[0].contains("(b'/dashed', b\"'the body'\")"), "{}", stored[0]);
    assert!(stored[0].contains("(b'fixed', b'of /fixed')") && !stored[0].contains("never"), "{}", stored[0]);
}

#[test]
fn every_key_of_the_other_actions() {
    let routes = "route = ^/set cacheset:key=s,value=${QUERY_STRING},name=second,expires=100\n\
        route = ^/set cacheset:key=first,value=v\n\
        route = ^/var cachevar:key=word,var=WORD,name=second\n\
        route = ^/var addheader:X-Word: ${WORD}\n\
        route = ^/num cachevar:key=n,var=N,num=1\n\
        route = ^/num addheader:X-Num: ${N}\n\
        route = ^/asnum cachevar:key=n,var=N,as_num=1\n\
        route = ^/asnum addheader:X-Num: ${N}\n\
        route = ^/default cacheinc:key=i\n\
        route = ^/default cacheinc:key=i\n\
        route = ^/default cachemul:key=i\n\
        route = ^/default cachedec:key=i\n\
        route = ^/default cachediv:key=d\n\
        route = ^/given cacheinc:key=g,value=${QUERY_STRING},name=second,expires=100\n\
        route = ^/given cachemul:key=g,value=5,name=second\n\
        route = ^/given cachedec:key=g,value=2,name=second\n\
        route = ^/given cachediv:key=g,value=-3,name=second\n\
        route-if = incache:key=first addheader:X-In: first\n\
        route-if = incache:key=${QUERY_STRING},name=second addheader:X-In: second\n\
        route-if-not = incache:key=first addheader:X-Out: first";
    let seen = on_both(|flavor| {
        let server = Server::start(flavor, 2, &format!("{POSTS}{CACHES}{routes}"));
        let mut seen = vec![
            server.run(1, "uwsgi.cache_set('word', 'blue', 0, 'second'), uwsgi.cache_inc('n', 12345678)"),
        ];
        for path in [
            "/before?s",
            "/set?one",
            "/after?s",
            "/var",
            "/asnum",
            "/num",
            "/default",
            "/given?7",
            "/given?1",
        ] {
            let head = get(&server, path).head;
            let ours = head
                .lines()
                .filter(|line| line.starts_with("X-") || line.starts_with("HTTP"))
                .collect::<Vec<_>>();
            seen.push(format!("{path} {ours:?}"));
        }
        // `cacheset` adds: the second one fails, and with it the request
        seen.push(format!("{:?}", server.ask(1, "GET", "/set?two", "").map(|answer| answer.body).ok()));
        seen.push(server.run(
            2,
            "uwsgi.cache_get('s', 'second'), uwsgi.cache_get('first'), \
             [uwsgi.cache_num(k) for k in 'id'], uwsgi.cache_num('g', 'second')",
        ));
        seen
    });
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0][1].contains("X-Out: first") && !seen[0][1].contains("X-In"), "{}", seen[0][1]);
    assert!(seen[0][3].contains("X-In: first") && seen[0][3].contains("X-In: second"), "{}", seen[0][3]);
    assert!(
        seen[0][4].contains("X-Word: blue") && seen[0][5].contains("X-Num: 12345678"),
        "{:?}",
        &seen[0][4..6]
    );
    assert_eq!(seen[0][11], "(b'one', b'v', [3, 0], 17)");
}

#[test]
fn pages_with_server_side_includes() {
    on_both(|flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let page = dir.path().join("page.html");
        let text =
            "a<!--#cache key=\"k\"-->b<!--#cache key=\"k\" name=\"second\" -->c<!--#cache key=\"no\"-->d";
        fs::write(&page, text).expect("a file can be written");
        let lines = format!("plugin = ssi\n{POSTS}{CACHES}route = ^/page ssi:{}", page.display());
        let server = Server::start(flavor, 1, &lines);
        assert_eq!(
            server.run(1, "uwsgi.cache_set('k', '<one>'), uwsgi.cache_set('k', '<two>', 0, 'second')"),
            "(True, True)"
        );
        assert_eq!(get(&server, "/page").body, "a<one>b<two>cd", "{flavor:?}\n{}", server.log());
    });
}
