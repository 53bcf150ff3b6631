//! Keys made from what clients send.

use super::site::Site;

/// `${PATH_INFO}` is decoded: a page must not take the place of a count or a note of another page.
#[test]
fn pages_do_not_collide_with_what_belongs_to_others() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,min_uses=2,key=${PATH_INFO}");
    for (path, mark) in [("/blank", "%20uses"), ("/zero", "%00uses")] {
        let other = format!("{path}{mark}");
        for _ in 0..3 {
            site.get(&other);
        }
        let all: Vec<_> = (0..3).map(|_| site.get(path).cache().to_owned()).collect();
        assert_eq!(all, ["MISS", "MISS", "HIT"], "{mark}");
    }
    assert_eq!(site.get("/b%00").cache(), "BYPASS");
    // A blank is part of a key like any other character.
    let all: Vec<_> = (0..3).map(|_| site.get("/c%20uses").cache().to_owned()).collect();
    assert_eq!(all, ["MISS", "MISS", "HIT"]);
}
