//! Header fields of a response as uWSGI holds them before it sends them.
#![forbid(unsafe_code)]

use std::time::SystemTime;

/// Status and header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// 200, 404, ...
    pub(super) status: u16,
    /// The text behind it.
    pub(super) reason: Vec<u8>,
    /// Name and value, in order.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Head {
    /// Reads a status line (`HTTP/1.1 200 OK` or `Status: 200 OK`) and header lines. `None` = a
    /// line that is none, which a cache must not repeat.
    pub(super) fn parse(block: &[u8]) -> Option<Self> {
        let mut lines = lines(block);
        let (_, status) = split_once(lines.next()?, b' ')?;
        let (code, reason) = status.split_at_checked(3)?;
        let reason = reason.trim_ascii();
        let status: u16 = std::str::from_utf8(code).ok()?.parse().ok().filter(|code| *code >= 100)?;
        if !reason.iter().copied().all(is_text) {
            return None;
        }
        let fields = lines.map(field).collect::<Option<_>>()?;
        Some(Self { status, reason: reason.to_vec(), fields })
    }

    /// The fields of stored header lines.
    pub(super) fn stored(block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        lines(block).map(field).collect()
    }

    /// The values of all fields with this name (lower case).
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        values(&self.fields, name)
    }

    /// The first value of this name (lower case).
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value.as_slice())
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Takes the fields of an answer 304 over, in place of those with the same names. One without
    /// `Date` is of now: what it says of `Expires` counts from there (RFC 9110, 6.6.1).
    pub(super) fn update(&mut self, answer: &Self, now: SystemTime) {
        let stays = |name: &[u8]| is_one_of(name, &PER_MESSAGE) || is_one_of(name, &OF_THE_BODY);
        let mut new: Vec<_> = answer.fields.iter().filter(|(name, _)| !stays(name)).cloned().collect();
        if !answer.has("date") {
            new.push((b"Date".to_vec(), httpdate::fmt_http_date(now).into_bytes()));
        }
        self.fields.retain(|(name, _)| !new.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)));
        self.fields.extend(new);
    }

    /// The header lines to store: without the fields that belong to one connection or to one
    /// answer.
    pub(super) fn to_store(&self) -> Vec<u8> {
        let named: Vec<&[u8]> = self.all("connection").flat_map(members).collect();
        let own = |name: &[u8]| {
            is_one_of(name, &PER_MESSAGE) || named.iter().any(|other| name.eq_ignore_ascii_case(other))
        };
        let mut block = Vec::new();
        for (name, value) in self.fields.iter().filter(|(name, _)| !own(name)) {
            block.extend([name, b": ".as_slice(), value, b"\r\n"].concat());
        }
        block
    }
}

/// Whether the name of a field is one of these.
pub(super) fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// What an answer 304 says of the body that it does not have: it stays as it is stored.
const OF_THE_BODY: [&str; 4] = ["content-encoding", "content-md5", "content-range", "etag"];

/// Fields of one connection (RFC 9110, 7.6.1), and those that are made anew for each answer.
const PER_MESSAGE: [&str; 13] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "age",
    "x-cache",
];

/// The values of all fields with this name (lower case).
pub(super) fn values<'a>(fields: &'a [(Vec<u8>, Vec<u8>)], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let of = move |(other, _): &&(Vec<u8>, Vec<u8>)| other.eq_ignore_ascii_case(name.as_bytes());
    fields.iter().filter(of).map(|(_, value)| value.as_slice())
}

/// The members of a list (RFC 9110, 5.6.1); commas in quoted strings do not separate.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let split = value.split(move |&byte| {
        let was_escaped = std::mem::take(&mut escaped);
        match byte {
            b'\\' if quoted && !was_escaped => escaped = true,
            b'"' if !was_escaped => quoted = !quoted,
            _ => {}
        }
        byte == b',' && !quoted
    });
    split.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Splits at the first `by`.
pub(super) fn split_once(text: &[u8], by: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == by)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Whether a byte may be in a field's value.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

/// Whether a byte may be in a name or a method (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|two| two == b"\r\n");
        let (line, after) = end.map_or((rest, &b""[..]), |at| (&rest[..at], &rest[at + 2..]));
        rest = after;
        Some(line)
    })
}

fn field(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, value) = split_once(line, b':')?;
    let value = value.trim_ascii();
    let valid = !name.is_empty() && name.iter().copied().all(is_token) && value.iter().copied().all(is_text);
    valid.then(|| (name.to_vec(), value.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn head(text: &str) -> Option<Head> {
        Head::parse(text.as_bytes())
    }

    #[test]
    fn status_and_fields_are_read() {
        let read = head("HTTP/1.1 404 Not Found\r\nX-A:  b \r\nx-a: c\r\nEmpty:\r\n").expect("a head");
        assert_eq!((read.status, read.reason.as_slice()), (404, &b"Not Found"[..]));
        assert_eq!(read.all("x-a").collect::<Vec<_>>(), [b"b", b"c"]);
        assert_eq!(read.get("empty"), Some(&b""[..]));
        assert_eq!(head("Status: 204 No Content\r\n").map(|h| h.status), Some(204));
        assert_eq!(head("HTTP/1.0 200\r\n").map(|h| h.reason), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let broken = [
            "",
            "HTTP/1.1\r\n",
            "HTTP/1.1 2x0 OK\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n",
            "HTTP/1.1 200 OK\r\n: value\r\n",
            "HTTP/1.1 200 OK\r\nA B: c\r\n",
            "HTTP/1.1 200 OK\r\nA: b\nSet-Cookie: c\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0c\r\n",
            "HTTP/1.1 200 OK\r\n folded\r\n",
        ];
        for text in broken {
            assert_eq!(head(text), None, "{text:?}");
        }
    }

    #[test]
    fn fields_of_a_connection_are_not_stored() {
        let read = head(
            "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Kept: 2\r\n\
             Transfer-Encoding: chunked\r\nContent-Length: 3\r\nAge: 7\r\nETag: \"a\"\r\n",
        );
        assert_eq!(read.expect("a head").to_store(), b"X-Kept: 2\r\nETag: \"a\"\r\n");
    }

    #[test]
    fn an_answer_304_updates_what_it_names() {
        let mut stored = head("HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nETag: \"x\"\r\n").expect("a head");
        let answer = "HTTP/1.1 304 Not Modified\r\na: 3\r\na: 4\r\nETag: \"y\"\r\nContent-Length: 0\r\n";
        let answer = head(answer).expect("a head");
        stored.update(&answer, SystemTime::UNIX_EPOCH);
        let date = |text| format!("B: 2\r\nETag: \"x\"\r\na: 3\r\na: 4\r\nDate: {text}\r\n").into_bytes();
        assert_eq!(stored.to_store(), date("Thu, 01 Jan 1970 00:00:00 GMT"));
        // An older date goes: the answer is of now, or of the date that it has.
        stored.update(&answer, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(stored.to_store(), date("Thu, 01 Jan 1970 00:00:01 GMT"));
        let dated = head("HTTP/1.1 304 Not Modified\r\nDate: then\r\n").expect("a head");
        stored.update(&dated, SystemTime::UNIX_EPOCH);
        assert_eq!(stored.to_store(), date("then"));
    }

    #[test]
    fn quoted_commas_do_not_separate() {
        let list: Vec<_> = members(br#"a, "b,c" , d="e\",f",,g"#).collect();
        assert_eq!(list, [&b"a"[..], br#""b,c""#, br#"d="e\",f""#, b"g"]);
    }
}
