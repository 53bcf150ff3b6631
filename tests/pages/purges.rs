//! Purges, changes and removals while a page is being computed: what was read before is not stored.

use std::io::{Read, Write};

use serde_json::json;

use super::{
    patience::within,
    site::{Answer, Site},
};

const ROUTES: &str = "route-if = equal:${REQUEST_METHOD};PURGE ucachepurge:name=pages,token=s3\n\
                      route-if = equal:${REQUEST_METHOD};SOFT ucachepurge:name=pages,soft=1,methods=SOFT,token=s3\n";
const TOKEN: &str = "X-Purge-Token: s3\r\n";

fn site(options: &str) -> Site {
    Site::start(&format!("{ROUTES}route = ^/ ucache:name=pages,ttl=60,lock=30{options}"))
}

/// The answer of a computation during which `meanwhile` runs.
fn during(site: &Site, path: &str, headers: &str, meanwhile: impl FnOnce()) -> Answer {
    site.forget_runs();
    let first = site.later(1, path, headers);
    site.await_runs(1);
    meanwhile();
    site.open("go");
    let first = first.join().expect("a thread").expect("an answer");
    site.close("go");
    first
}

#[test]
fn a_soft_purge_beats_a_computation_of_a_page_that_is_missing() {
    let site = site("");
    site.script(&json!({"/a": {"gate": "go"}}));
    let first = during(&site, "/a", "", || assert_eq!(site.ask(2, "SOFT", "/a", TOKEN).text(), "0\n"));
    site.open("go");
    let next = site.ask(2, "GET", "/a", "");
    assert!(next.cache() == "MISS" && next.body != first.body, "{next:?}");
    // The counterpart: without a purge it is stored.
    site.close("go");
    site.script(&json!({"/b": {"gate": "go"}}));
    let first = during(&site, "/b", "", || {});
    assert_eq!(site.ask(2, "GET", "/b", "").body, first.body);
}

#[test]
fn each_soft_purge_beats_a_refresh_that_began_before() {
    let site = site(",stale=600");
    let old = site.get("/a");
    assert_eq!(site.ask(2, "SOFT", "/a", TOKEN).text(), "1\n");
    site.script(&json!({"/a": {"gate": "go", "body": "of before"}}));
    site.forget_runs();
    assert_eq!(site.get("/a").body, old.body);
    site.await_runs(1);
    // The page is there, and no longer fresh: it is counted once.
    assert_eq!(site.ask(2, "SOFT", "/a", TOKEN).text(), "0\n");
    site.script(&json!({"/a": {"body": "of after"}}));
    site.open("go");
    within("it is refreshed", || {
        let text = site.ask(2, "GET", "/a", "").text();
        assert_ne!(text, "of before");
        text == "of after"
    });
}

/// The list of variants that the computation began with is not the one that it finds.
#[test]
fn variants_that_were_computed_during_a_purge_are_not_stored() {
    let language = |name: &str| format!("Accept-Language: {name}\r\n");
    let varies = json!([["Vary", "Accept-Language"]]);
    let remove = "__import__('uwsgi').cache_del('http://localhost/a', 'pages')";
    for how in ["PURGE", "SOFT", "POST", "cache_del"] {
        // Whether there is a list already when the computation begins.
        for listed in [true, false] {
            let site = site("");
            if listed {
                site.script(&json!({"/a": {"headers": varies}}));
                site.get_with("/a", &language("en"));
            }
            site.script(&json!({"/a": {"headers": varies, "gate": "go"}}));
            let slow = during(&site, "/a", &language("slow"), || {
                site.script(&json!({"/a": {"headers": varies}, "/del": {"eval": remove}}));
                let answer = match how {
                    "cache_del" => site.ask(2, "GET", "/del", ""),
                    _ => site.ask(2, how, "/a", TOKEN),
                };
                assert_eq!(answer.status, 200);
                site.ask(2, "GET", "/a", &language("en"));
            });
            let next = site.ask(2, "GET", "/a", &language("slow"));
            assert!(next.cache() == "MISS" && next.body != slow.body, "{how} {listed} {next:?}");
            assert_eq!(site.ask(2, "GET", "/a", &language("slow")).cache(), "HIT", "{how} {listed}");
        }
    }
    // The counterpart: without a purge it is stored.
    let site = site("");
    site.script(&json!({"/a": {"headers": varies}}));
    site.get_with("/a", &language("en"));
    site.script(&json!({"/a": {"headers": varies, "gate": "go"}}));
    let slow = during(&site, "/a", &language("slow"), || {
        assert_eq!(site.ask(2, "GET", "/a", &language("en")).cache(), "HIT");
    });
    assert_eq!(site.ask(2, "GET", "/a", &language("slow")).body, slow.body);
}

#[test]
fn a_change_behind_a_proxy_removes_the_pages_that_its_answer_names() {
    let site = site("");
    let proxied = "X-Forwarded-Proto: https\r\n";
    for location in ["/a", "https://localhost/a", "/a#comment"] {
        let old = site.get_with("/a", proxied);
        assert_eq!(site.get_with("/a", proxied).body, old.body);
        site.script(&json!({"/new": {"status": "303 See Other", "headers": [["Location", location]]}}));
        site.ask(1, "POST", "/new", proxied);
        assert_ne!(site.get_with("/a", proxied).body, old.body, "{location}");
    }
}

/// Its client may ask for the page as soon as it has the answer.
#[test]
fn a_change_removes_the_page_before_its_answer_is_whole() {
    let site = site("");
    for script in [json!({"close": "go"}), json!({"parts": ["1", "2"], "gate2": "go"})] {
        let old = site.get("/a").body;
        site.script(&json!({"/a": script}));
        let mut client = site.connect(1).expect("a connection");
        client.write_all(b"POST /a HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        client.read_exact(&mut [0; 1]).expect("the first byte");
        site.script(&json!({}));
        // What is computed meanwhile may be of before, and is removed at the end.
        let between = site.ask(2, "GET", "/a", "").body;
        assert_ne!(between, old, "{script}");
        site.open("go");
        client.read_to_end(&mut Vec::new()).expect("the end of the answer");
        within("the change is over", || site.ask(2, "GET", "/a", "").body != between);
        site.close("go");
    }
}
