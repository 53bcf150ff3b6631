//! Errors of the application while an old page is there.

use std::{thread::sleep, time::Duration};

use serde_json::json;

use super::{server::Build, site::Site};

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=1,stale_error=60";

/// Past the time to live of a second.
fn age() {
    sleep(Duration::from_millis(1100));
}

/// The application is asked with the page's own validators. They are not the client's.
#[test]
fn a_page_that_the_application_has_named_replaces_an_error() {
    let site = Site::start(ROUTE);
    let (tag, date) = (["ETag", "\"v1\""], ["Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"]);
    for (path, headers) in [("/tag", json!([tag])), ("/date", json!([date])), ("/both", json!([tag, date]))] {
        site.script(&json!({path: {"headers": headers}}));
        let old = site.get(path);
        age();
        for script in [json!({"status": "500 Broken"}), json!({"raise": true})] {
            site.script(&json!({path: script.clone()}));
            let answer = site.get(path);
            assert_eq!(
                (answer.status, answer.cache(), &answer.body),
                (200, "STALE", &old.body),
                "{path} {script}"
            );
        }
    }
    // A client that has the page gets none.
    for (path, header) in
        [("/tag", "If-None-Match: \"v1\""), ("/date", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT")]
    {
        site.script(&json!({path: {"status": "500 Broken"}}));
        let answer = site.get_with(path, &format!("{header}\r\n"));
        assert_eq!((answer.status, answer.cache(), answer.body.len()), (304, "STALE", 0), "{path}");
    }
    site.script(&json!({"/tag": {"status": "500 Broken"}}));
    assert_eq!(site.get_with("/tag", "If-None-Match: \"v2\"\r\n").status, 200);
}

/// The client has nothing yet when the application fails behind `start_response`.
#[test]
fn an_exception_before_the_first_byte_is_an_error() {
    for &build in Build::all() {
        let site = Site::start_on(build, 2, ROUTE);
        let old = site.get("/a");
        age();
        for script in [
            json!({"parts": ["a", "b"], "raise_at": 0}),
            json!({"status": "404 Not Found", "parts": ["a"], "raise_at": 0}),
            json!({"nothing": true}),
        ] {
            site.script(&json!({"/a": script.clone(), "/b": script.clone()}));
            let answer = site.get("/a");
            assert_eq!(
                (answer.status, answer.cache(), &answer.body),
                (200, "STALE", &old.body),
                "{build:?} {script}"
            );
            assert_eq!(answer.header("Content-Length"), Some(old.body.len().to_string().as_str()));
            // Without an old page the answer is the application's, and is not stored.
            for _ in 0..2 {
                assert_eq!(site.get("/b").cache(), "MISS", "{build:?} {script}");
            }
        }
        // After the first byte it is too late.
        site.script(&json!({"/a": {"parts": ["a", "b"], "raise_at": 1}}));
        assert_eq!(site.get("/a").text(), "a");
        site.script(&json!({"/a": {"status": "500 Broken"}}));
        assert_eq!(site.get("/a").body, old.body);
    }
}
