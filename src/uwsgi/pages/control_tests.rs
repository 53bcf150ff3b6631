use super::*;

const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn judged(options: &str, fields: &str) -> Result<Times, Refusal> {
    judged_with(options, "200 OK", fields, false)
}

fn judged_with(options: &str, status: &str, fields: &str, cookie: bool) -> Result<Times, Refusal> {
    let settings = Settings::parse(format!("name=c,{options}").as_bytes()).expect("valid options");
    let lines: String = fields.split('|').filter(|f| !f.is_empty()).map(|f| format!("{f}\r\n")).collect();
    let head = Head::parse(format!("HTTP/1.1 {status}\r\n{lines}").as_bytes()).expect("a head");
    judge(&head, &settings, cookie, date(NOW.as_bytes()).expect("a date"))
}

fn fresh(options: &str, fields: &str) -> Result<u64, Refusal> {
    judged(options, fields).map(|times| times.fresh)
}

#[test]
fn what_the_application_says_counts_before_the_option() {
    assert_eq!(fresh("ttl=60", ""), Ok(60));
    assert_eq!(fresh("ttl=60", "Cache-Control: max-age=5"), Ok(5));
    assert_eq!(fresh("ttl=60", "Cache-Control: max-age=5, s-maxage=7"), Ok(7));
    assert_eq!(fresh("ttl=60", "Cache-Control: MAX-AGE=\"5\""), Ok(5));
    assert_eq!(fresh("ttl=60", "Cache-Control: max-age=5|Cache-Control: max-age=9"), Ok(5));
    assert_eq!(fresh("ttl=60", "Expires: Sun, 06 Nov 1994 08:49:47 GMT"), Ok(10));
    assert_eq!(fresh("ttl=60", "Expires: Sun, 06 Nov 1994 08:49:47 GMT|Cache-Control: max-age=3"), Ok(3));
    let dated = "Date: Sun, 06 Nov 1994 08:49:00 GMT|Expires: Sun, 06 Nov 1994 08:49:47 GMT";
    assert_eq!(fresh("ttl=60", dated), Ok(47));
    assert_eq!(fresh("ttl=60", "Cache-Control: max-age=50|Age: 20"), Ok(30));
    assert_eq!(fresh("ttl=60", "Cache-Control: max-age=99999999999999999999"), Ok(1 << 31));
    assert_eq!(fresh("", "Cache-Control: max-age=5"), Ok(5));
}

#[test]
fn what_is_not_fresh_is_not_stored() {
    let never = [
        "Cache-Control: max-age=0",
        "Cache-Control: max-age=-5",
        "Cache-Control: max-age=x",
        "Cache-Control: max-age",
        "Cache-Control: max-age= 60",
        "Cache-Control: max-age=60|Age: 0, 60",
        "Cache-Control: max-age=60|Age: 0|Age: 60",
        "Cache-Control: max-age=60|Age: 1.5",
        "Cache-Control: max-age=60|Age: 7;x=y",
        "Cache-Control: max-age=20|Age: 20",
        "Expires: 0",
        "Expires: Sun, 06 Nov 1994 08:49:37 GMT",
        "Expires: Sun, 06 Nov 1994 08:49:47 GMT|Expires: Sun, 06 Nov 1994 08:49:57 GMT",
    ];
    for fields in never {
        assert_eq!(fresh("ttl=60", fields), Err(Refusal::Expired), "{fields}");
        assert_eq!(fresh("ttl=60,force=1", fields), Ok(60), "{fields}");
    }
    assert_eq!(fresh("", ""), Err(Refusal::Expired));
    assert_eq!(fresh("ttl=60", "Cache-Control: no-cache"), Err(Refusal::NoCache));
    assert_eq!(fresh("ttl=60,force=1", "Cache-Control: no-cache"), Ok(60));
}

#[test]
fn what_is_for_one_user_is_never_stored() {
    for options in ["ttl=60", "ttl=60,force=1", "ttl=60,cookies=ignore"] {
        assert_eq!(fresh(options, "Set-Cookie: a=b"), Err(Refusal::SetCookie));
        assert_eq!(fresh(options, "Cache-Control: public|Set-Cookie: a=b"), Err(Refusal::SetCookie));
        for control in
            ["private", "Private=\"x-a\"", "no-store", "max-age=60, no-store", "x=\"a,b\", private"]
        {
            assert_eq!(
                fresh(options, &format!("Cache-Control: {control}")),
                Err(Refusal::Private),
                "{control}"
            );
        }
    }
    assert_eq!(fresh("ttl=60", "Cache-Control: x=\"no-store, private\""), Ok(60));
}

#[test]
fn a_response_to_a_cookie_is_stored_only_if_it_is_for_all() {
    let with = |options, fields| judged_with(options, "200 OK", fields, true).map(|times| times.fresh);
    assert_eq!(with("ttl=60", ""), Err(Refusal::Cookie));
    assert_eq!(with("ttl=60", "Cache-Control: max-age=5"), Err(Refusal::Cookie));
    assert_eq!(with("ttl=60", "Cache-Control: public"), Ok(60));
    assert_eq!(with("ttl=60", "Cache-Control: s-maxage=5"), Ok(5));
    assert_eq!(with("ttl=60", "Vary: Accept, Cookie"), Ok(60));
    assert_eq!(with("ttl=60,cookies=ignore", ""), Ok(60));
}

#[test]
fn each_status_may_have_its_own_time() {
    let of = |options, status| judged_with(options, status, "", false).map(|times| times.fresh);
    assert_eq!(of("ttl=60", "200 OK"), Ok(60));
    assert_eq!(of("ttl=60", "404 Not Found"), Ok(60));
    assert_eq!(of("ttl=60", "500 Error"), Err(Refusal::Status));
    assert_eq!(of("ttl=60", "206 Partial Content"), Err(Refusal::Status));
    assert_eq!(of("ttl=60,status=200 404:5", "404 Not Found"), Ok(5));
    assert_eq!(of("ttl=60,status=200 404:5", "301 Moved"), Err(Refusal::Status));
    let said = judged_with("ttl=60,status=404:5", "404 Not Found", "Cache-Control: max-age=9", false);
    assert_eq!(said.map(|times| times.fresh), Ok(9));
}

#[test]
fn old_responses_are_served_as_allowed() {
    let times = |options: &str, fields: &str| judged(options, fields).map(|times| (times.stale, times.error));
    let options = "ttl=60,stale=10,stale_error=20";
    assert_eq!(times(options, ""), Ok((10, 20)));
    let own = "Cache-Control: max-age=5, stale-while-revalidate=1, stale-if-error=2";
    assert_eq!(times(options, own), Ok((1, 2)));
    assert_eq!(times("ttl=60", own), Ok((1, 2)));
    for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=5"] {
        let fields = format!("Cache-Control: max-age=5, {strict}");
        assert_eq!(times(options, &fields), Ok((0, 0)), "{strict}");
        assert_eq!(times(&format!("{options},force=1"), &fields), Ok((10, 20)), "{strict}");
    }
}

#[test]
fn forms_that_cannot_be_repeated_are_not_stored() {
    for fields in [
        "Transfer-Encoding: chunked",
        "Content-Type: text/event-stream; charset=utf-8",
        "Content-Type: text/html|Content-Type: Text/Event-Stream",
    ] {
        assert_eq!(fresh("ttl=60", fields), Err(Refusal::Form), "{fields}");
    }
    // Without a meaning there (RFC 9110, 14.4).
    assert_eq!(fresh("ttl=60", "Content-Range: bytes 0-1/5"), Ok(60));
}

#[test]
fn a_status_that_must_be_understood() {
    let of = |status| {
        let fields = "Cache-Control: max-age=5, must-understand";
        judged_with("status=200 404 599 299", status, fields, false).map(|times| times.fresh)
    };
    assert_eq!((of("200 OK"), of("404 Not Found")), (Ok(5), Ok(5)));
    assert_eq!((of("599 Any"), of("299 Any")), (Err(Refusal::Status), Err(Refusal::Status)));
}
