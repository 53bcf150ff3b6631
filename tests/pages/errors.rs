//! Errors of the application while an old page is there.

use std::{thread::sleep, time::Duration};

use serde_json::json;

use super::site::Site;

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
