use super::{super::asked::tests::Vars, *};

const HEAD: &[u8] =
    b"Content-Type: text/plain\r\nETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                      Cache-Control: max-age=9\r\n";

fn page() -> Page<'static> {
    Page {
        stored: 10_000,
        age: 2,
        status: 200,
        reason: b"OK",
        head: HEAD,
        body: b"0123456789",
        ..Page::default()
    }
}

fn ask(
    page: &Page<'_>,
    method: &'static str,
    more: &[(&'static str, &'static str)],
) -> (String, String, String) {
    let mut vars = vec![("REQUEST_METHOD", method)];
    vars.extend(more);
    let answer = answer(page, &Vars(vars), 13_500).expect("an answer");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lines = answer.fields.iter().map(|(name, value)| format!("{}: {}\n", text(name), text(value)));
    (text(&answer.status), lines.collect(), text(&answer.body))
}

fn get(more: &[(&'static str, &'static str)]) -> (String, String, String) {
    ask(&page(), "GET", more)
}

#[test]
fn a_page_is_served_with_its_age() {
    let (status, fields, body) = get(&[]);
    assert_eq!((status.as_str(), body.as_str()), ("200 OK", "0123456789"));
    assert!(fields.contains("Age: 5\n") && fields.contains("Content-Length: 10\n"), "{fields}");
    assert!(fields.contains("ETag: \"v1\"\n") && fields.contains("Cache-Control: max-age=9\n"), "{fields}");
    let (status, same, body) = ask(&page(), "HEAD", &[]);
    assert_eq!((status.as_str(), same, body.as_str()), ("200 OK", fields, ""));
    let none = Page { status: 204, reason: b"No Content", head: b"", body: b"", ..page() };
    assert_eq!(ask(&none, "GET", &[]), ("204 No Content".into(), "Age: 5\n".into(), String::new()));
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let (status, fields, body) = get(&[("HTTP_IF_NONE_MATCH", "\"v0\", W/\"v1\"")]);
    assert_eq!((status.as_str(), body.as_str()), ("304 Not Modified", ""));
    assert!(fields.contains("ETag: \"v1\"\n") && !fields.contains("Content-"), "{fields}");
    for same in [("HTTP_IF_NONE_MATCH", "*"), ("HTTP_IF_MODIFIED_SINCE", "Sun, 06 Nov 1994 08:49:37 GMT")] {
        assert_eq!(get(&[same]).0, "304 Not Modified", "{same:?}");
    }
    for other in [
        ("HTTP_IF_NONE_MATCH", "\"v2\""),
        ("HTTP_IF_NONE_MATCH", "v1"),
        ("HTTP_IF_MODIFIED_SINCE", "Sun, 06 Nov 1994 08:49:36 GMT"),
        ("HTTP_IF_MODIFIED_SINCE", "yesterday"),
    ] {
        assert_eq!(get(&[other]).0, "200 OK", "{other:?}");
    }
    // The tag counts before the date, and only what is found can be unchanged.
    let both =
        [("HTTP_IF_NONE_MATCH", "\"v2\""), ("HTTP_IF_MODIFIED_SINCE", "Sun, 06 Nov 1994 08:49:37 GMT")];
    assert_eq!(get(&both).0, "200 OK");
    let missing = Page { status: 404, reason: b"Not Found", ..page() };
    assert_eq!(ask(&missing, "GET", &[("HTTP_IF_NONE_MATCH", "*")]).0, "404 Not Found");
}

#[test]
fn one_range_is_cut_out() {
    for (range, expected, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=7-99", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-99", "bytes 0-9/10", "0123456789"),
        ("Bytes=9-9", "bytes 9-9/10", "9"),
    ] {
        let (status, fields, part) = get(&[("HTTP_RANGE", range)]);
        assert_eq!((status.as_str(), part.as_str()), ("206 Partial Content", body), "{range}");
        assert!(fields.contains(&format!("Content-Range: {expected}\n")), "{range}: {fields}");
        assert!(fields.contains(&format!("Content-Length: {}\n", body.len())), "{range}: {fields}");
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=99999999999999999-"] {
        let (status, fields, body) = get(&[("HTTP_RANGE", range)]);
        assert_eq!((status.as_str(), body.as_str()), ("416 Range Not Satisfiable", ""), "{range}");
        assert!(fields.contains("Content-Range: bytes */10\n"), "{fields}");
    }
    for range in [
        "bytes=4-2",
        "bytes=0-1,3-4",
        "lines=1-2",
        "bytes",
        "bytes=a-b",
        "bytes=-",
        "bytes=+1-2",
        "bytes=0-99999999999999999999",
    ] {
        assert_eq!(get(&[("HTTP_RANGE", range)]).2, "0123456789", "{range}");
    }
    assert_eq!(ask(&page(), "HEAD", &[("HTTP_RANGE", "bytes=0-0")]).0, "200 OK");
}

#[test]
fn a_range_of_another_version_is_the_whole() {
    let ask = |held| get(&[("HTTP_RANGE", "bytes=0-0"), ("HTTP_IF_RANGE", held)]).0;
    assert_eq!(ask("\"v1\""), "206 Partial Content");
    assert_eq!(ask("Sun, 06 Nov 1994 08:49:37 GMT"), "206 Partial Content");
    for other in ["\"v2\"", "W/\"v1\"", "Sun, 06 Nov 1994 08:49:38 GMT", "v1", ""] {
        assert_eq!(ask(other), "200 OK", "{other}");
    }
}

#[test]
fn compressed_pages_are_served_as_asked() {
    let long = "text ".repeat(200);
    let small = packed(long.as_bytes()).expect("it gets shorter");
    assert!(small.len() < 100);
    let stored = Page { gzip: true, body: &small, ..page() };
    let (_, fields, body) = ask(&stored, "GET", &[]);
    assert_eq!(body, long);
    assert!(
        fields.contains("Vary: Accept-Encoding\n") && fields.contains("Content-Length: 1000\n"),
        "{fields}"
    );
    assert!(!fields.contains("Content-Encoding") && fields.contains("ETag: \"v1\"\n"), "{fields}");
    let gzip = ("HTTP_ACCEPT_ENCODING", "br, gzip");
    let raw = answer(&stored, &Vars(vec![gzip]), 0).expect("an answer");
    assert_eq!(raw.body.as_ref(), small);
    let (_, fields, _) = ask(&stored, "HEAD", &[gzip]);
    assert!(fields.contains("Content-Encoding: gzip\n") && fields.contains("ETag: W/\"v1\"\n"), "{fields}");
    assert_eq!(ask(&stored, "GET", &[gzip, ("HTTP_IF_NONE_MATCH", "W/\"v1\"")]).0, "304 Not Modified");
    assert_eq!(ask(&stored, "GET", &[gzip, ("HTTP_RANGE", "bytes=0-3")]).2, "text");
    // Damaged bytes are no answer.
    let broken = Page { body: &small[..20], ..stored };
    assert_eq!(answer(&broken, &Vars(Vec::new()), 0), None);
    assert_eq!(packed(&(0..=255).collect::<Vec<u8>>()), None);
}

#[test]
fn only_text_is_compressed() {
    let packable = |fields: &str, len| {
        let head = Head::parse(format!("HTTP/1.1 200 OK\r\n{fields}").as_bytes()).expect("a head");
        is_packable(&head, false, len)
    };
    assert!(packable("Content-Type: text/html; charset=utf-8\r\n", 256));
    assert!(packable("Content-Type: application/json\r\n", 256));
    assert!(packable("Content-Type: image/svg+xml;x=y\r\n", 256));
    assert!(!packable("Content-Type: text/html\r\n", 255));
    assert!(!packable("Content-Type: image/png\r\n", 999));
    assert!(!packable("Content-Type: text/html\r\nContent-Encoding: br\r\n", 999));
    assert!(!packable("", 999));
}

#[test]
fn what_does_not_describe_the_body_stays() {
    let head = b"ETag: \"v1\"\r\nContent-Location: /a.en\r\nContent-Security-Policy: self\r\nContent-Language: en\r\n";
    let page = Page { head, ..page() };
    let (status, fields, _) = ask(&page, "GET", &[("HTTP_IF_NONE_MATCH", "\"v1\"")]);
    assert_eq!(status, "304 Not Modified");
    let kept = "ETag: \"v1\"\nContent-Location: /a.en\nContent-Security-Policy: self\nAge: 5\n";
    assert_eq!(fields, kept);
    let (status, fields, _) = ask(&page, "GET", &[("HTTP_RANGE", "bytes=10-")]);
    assert_eq!(status, "416 Range Not Satisfiable");
    assert!(fields.contains("Content-Security-Policy: self\n"), "{fields}");
    assert!(!fields.contains("Content-Location") && !fields.contains("Content-Language"), "{fields}");
}
