//! Items as JSON Lines: `{"key":"a","value":"b","expires":1700000000}`, a line each.
//!
//! Bytes that are no UTF-8 have base64 under another name: `key_base64`, `value_base64`. `expires`
//! is a Unix time in seconds, with a fraction where there is one, or null.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::record::Record;

/// Adds bytes under `name`, or in base64 under `name_base64`.
pub(super) fn insert(to: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => to.insert(name.to_owned(), text.into()),
        Err(_) => to.insert(format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    };
}

/// A Unix time in milliseconds as seconds, or null for never.
pub(super) fn expiry(millis: u64) -> Value {
    match millis {
        0 => Value::Null,
        whole if whole.is_multiple_of(1000) => (whole / 1000).into(),
        // Exact: milliseconds of this era are far below 2^53.
        millis => (millis as f64 / 1000.0).into(),
    }
}

/// The milliseconds of such a time.
fn millis(seconds: &Value) -> Option<u64> {
    if let Some(whole) = seconds.as_u64() {
        return whole.checked_mul(1000).filter(|&millis| millis > 0);
    }
    let millis = (seconds.as_f64()? * 1000.0).round();
    (1.0..9e15).contains(&millis).then_some(millis as u64)
}

/// One line, without its end.
pub(super) fn line(record: &Record) -> String {
    let mut line = Map::new();
    insert(&mut line, "key", &record.key);
    insert(&mut line, "value", record.value.as_deref().unwrap_or_default());
    line.insert("expires".into(), expiry(record.expires));
    if record.hidden {
        line.insert("ungettable".into(), true.into());
    }
    Value::Object(line).to_string()
}

/// Reads a line.
pub(super) fn parse(line: &[u8]) -> Result<Record, String> {
    let parsed: Value = serde_json::from_slice(line).map_err(|e| format!("is not JSON: {e}"))?;
    let Value::Object(fields) = parsed else { return Err("is not a JSON object".to_owned()) };
    let key = bytes(&fields, "key")?;
    let value = bytes(&fields, "value")?;
    let expires = match fields.get("expires") {
        None | Some(Value::Null) => 0,
        Some(time) => millis(time).ok_or("has an `expires` that is no Unix time")?,
    };
    let hidden = fields.get("ungettable") == Some(&Value::Bool(true));
    Ok(Record { key, len: value.len() as u64, value: Some(value), expires, hidden })
}

fn bytes(fields: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    if let Some(text) = fields.get(name) {
        return text
            .as_str()
            .map(|t| t.as_bytes().to_vec())
            .ok_or_else(|| format!("has a `{name}` that is not a string"));
    }
    let encoded = fields.get(&format!("{name}_base64")).and_then(Value::as_str);
    let encoded = encoded.ok_or_else(|| format!("has neither `{name}` nor `{name}_base64`"))?;
    BASE64_STANDARD.decode(encoded).map_err(|e| format!("has an invalid `{name}_base64`: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_any_bytes() {
        for (key, value) in [(&b"k"[..], &b"v"[..]), (b"\xff", b"\0\xfe\n"), ("ключ".as_bytes(), b"\"\\\n")]
        {
            for (expires, hidden) in [(0, false), (1_900_000_000_000, true), (1_900_000_000_001, false)] {
                let (key, value) = (key.to_vec(), value.to_vec());
                let record = Record { key, len: value.len() as u64, value: Some(value), expires, hidden };
                let line = line(&record);
                assert!(!line.contains('\n'), "{line}");
                assert_eq!(parse(line.as_bytes()), Ok(record), "{line}");
            }
        }
    }

    #[test]
    fn what_is_no_line_says_why() {
        for (line, why) in [
            ("", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "neither `key`"),
            (r#"{"key":1,"value":"v"}"#, "`key` that is not a string"),
            (r#"{"key":"k","value_base64":"*"}"#, "an invalid `value_base64`"),
            (r#"{"key":"k","value":"v","expires":-1}"#, "no Unix time"),
            (r#"{"key":"k","value":"v","expires":0}"#, "no Unix time"),
            (r#"{"key":"k","value":"v","expires":1e300}"#, "no Unix time"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
