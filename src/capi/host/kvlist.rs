//! Parses `key=value,key=value` strings with backslash escapes, like uWSGI.

/// The pairs of `text`, in order.
///
/// When the text is split at its commas, a backslash makes the next byte literal. A pair is then
/// split at its first `=`; in the key (only there) a backslash and the byte after it are dropped. A
/// part without `=` has no value.
pub(crate) fn parse(text: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    split(text).into_iter().filter(|part| !part.is_empty()).map(|part| pair(&part)).collect()
}

fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b',' => parts.push(Vec::new()),
            b'\\' => push_last(&mut parts, bytes.next().copied()),
            _ => push_last(&mut parts, Some(byte)),
        }
    }
    parts
}

fn push_last(parts: &mut [Vec<u8>], byte: Option<u8>) {
    if let (Some(part), Some(byte)) = (parts.last_mut(), byte) {
        part.push(byte);
    }
}

fn pair(part: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut key = Vec::new();
    let mut bytes = part.iter().enumerate();
    while let Some((i, &byte)) = bytes.next() {
        match byte {
            b'=' => return (key, Some(part[i + 1..].to_vec())),
            b'\\' => drop(bytes.next()),
            _ => key.push(byte),
        }
    }
    (key, None)
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn pairs(text: &str) -> Vec<(String, Option<String>)> {
        let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 in, UTF-8 out");
        parse(text.as_bytes()).into_iter().map(|(k, v)| (text_of(k), v.map(text_of))).collect()
    }

    fn pair(key: &str, value: &str) -> (String, Option<String>) {
        (key.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn cuts_at_commas_and_first_equals() {
        assert_eq!(pairs("name=a,items=10"), [pair("name", "a"), pair("items", "10")]);
        assert_eq!(pairs("store=/a=b"), [pair("store", "/a=b")]);
        assert_eq!(pairs("name=,x"), [pair("name", ""), ("x".to_owned(), None)]);
        assert_eq!(pairs(",,a=1,"), [pair("a", "1")]);
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn a_backslash_makes_the_next_byte_literal() {
        assert_eq!(pairs(r"store=/a\,b,items=1"), [pair("store", "/a,b"), pair("items", "1")]);
        assert_eq!(pairs(r"store=a\\b"), [pair("store", r"a\b")]);
        assert_eq!(pairs(r"store=a\"), [pair("store", "a")]);
    }

    #[test]
    fn a_backslash_that_survives_hides_a_byte_of_the_key() {
        assert_eq!(pairs(r"na\\xme=a"), [pair("name", "a")]);
    }
}
