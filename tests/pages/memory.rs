//! What a large page costs the worker: its application's own bytes, the region, and nothing twice.

use std::fs;

use serde_json::json;

use super::site::Site;

/// Bytes of a page: above 32 MiB, malloc() gives memory back as soon as it is freed.
const PAGE: u64 = 40 << 20;
const ROUTE: &str = "cache2 = name=large,items=9,blocksize=64m\n\
                     route = ^/ ucache:name=large,ttl=60,max_size=64m,bypass=${HTTP_X_PAST}";

/// The most memory that the worker has in use while it answers, beyond what it has before.
fn peak(site: &Site, path: &str, headers: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(&site.server.stats()).expect("JSON");
    let proc = format!("/proc/{}", stats["workers"][0]["pid"]);
    // Both are of this moment then.
    fs::write(format!("{proc}/clear_refs"), "5").expect("the peak can be forgotten");
    let status = || fs::read_to_string(format!("{proc}/status")).expect("the worker's status");
    let number = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .map_or(0, |kilobytes: u64| kilobytes << 10)
    };
    let before = number(&status(), "VmRSS");
    let answer = site.get_with(path, headers);
    assert_eq!(answer.body.len() as u64, PAGE, "{path}");
    number(&status(), "VmHWM").saturating_sub(before)
}

#[test]
fn a_large_page_is_not_copied_more_often_than_it_must() {
    let site = Site::start_on(super::server::Build::Installed, 1, ROUTE);
    let parts = vec!["x".repeat(1 << 16); usize::try_from(PAGE >> 16).expect("a number")];
    site.script(&json!({
        "/one": {"size": PAGE},
        "/many": {"parts": parts},
        "/length": {"parts": parts, "length": true},
        "/over": {"size": PAGE, "headers": [["Cache-Control", "private"]]},
    }));
    for path in ["/one", "/many", "/length"] {
        // Twice: what the interpreter keeps for later is there already.
        peak(&site, path, "X-Past: 1\r\n");
        let alone = peak(&site, path, "X-Past: 1\r\n");
        let stored = peak(&site, path, "");
        // The body as it is received, and as it is stored.
        assert!(stored <= alone + 2 * PAGE + PAGE / 2, "{path}: {alone} {stored}");
        let hit = peak(&site, path, "");
        assert!(hit <= PAGE + PAGE / 4, "{path}: {hit}");
        // A test of the test.
        assert!(hit >= PAGE / 2, "{path}: {hit}");
    }
    // An offload thread sends from the memory that the page was read to.
    let offloads =
        Site::start_on(super::server::Build::Installed, 1, &format!("offload-threads = 1\n{ROUTE}"));
    offloads.script(&json!({"/one": {"size": PAGE}}));
    peak(&offloads, "/one", "");
    let hit = peak(&offloads, "/one", "");
    assert!((PAGE / 2..PAGE + PAGE / 4).contains(&hit), "{hit}");
    // A response that is refused by its headers is not kept at all.
    peak(&site, "/over", "X-Past: 1\r\n");
    let alone = peak(&site, "/over", "X-Past: 1\r\n");
    let refused = peak(&site, "/over", "");
    assert!(refused <= alone + PAGE + PAGE / 4, "{alone} {refused}");
}
