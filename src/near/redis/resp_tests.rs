use super::*;

/// Gives its bytes in pieces of some length, with a time-out between any two.
struct Pieces<'a> {
    rest: &'a [u8],
    len: usize,
    late: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.late = !self.late;
        if self.late {
            return Err(ErrorKind::TimedOut.into());
        }
        let (now, later) = self.rest.split_at(self.len.min(self.rest.len()).min(buf.len()));
        buf[..now.len()].copy_from_slice(now);
        self.rest = later;
        Ok(now.len())
    }
}

fn parse(bytes: &[u8]) -> io::Result<Value> {
    Parser::default().next(&mut &bytes[..])
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.into())
}

#[test]
fn requests_are_binary_safe() {
    let request = Request::one(&[b"SET", b"a\r\nb", b""]).then(&[b"PING"]);
    assert_eq!(request.bytes(), b"*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(request.commands(), 2);
}

#[test]
fn values_of_both_protocols() {
    for (bytes, value) in [
        (&b"+OK\r\n"[..], Value::Simple("OK".into())),
        (b"-ERR no\r\n", Value::Error("ERR no".into())),
        (b":-42\r\n", Value::Int(-42)),
        (b"$4\r\na\r\nb\r\n", bulk("a\r\nb")),
        (b"$0\r\n\r\n", bulk("")),
        (b"$-1\r\n", Value::Nil),
        (b"*-1\r\n", Value::Nil),
        (b"_\r\n", Value::Nil),
        (b"*0\r\n", Value::Array(Vec::new())),
        (b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n", Value::Array(vec![Value::Int(1), Value::Array(vec![bulk("a")])])),
        (b"%1\r\n+a\r\n:1\r\n", Value::Array(vec![Value::Simple("a".into()), Value::Int(1)])),
        (b"~1\r\n#t\r\n", Value::Array(vec![Value::Int(1)])),
        (b">2\r\n$10\r\ninvalidate\r\n_\r\n", Value::Push(vec![bulk("invalidate"), Value::Nil])),
        (b",1.5\r\n", Value::Simple("1.5".into())),
        (b"=5\r\ntxt:x\r\n", bulk("txt:x")),
        (b"!6\r\nERR no\r\n", Value::Error("ERR no".into())),
        (b"|1\r\n+ttl\r\n:3\r\n:7\r\n", Value::Int(7)),
    ] {
        assert_eq!(parse(bytes).expect("a value"), value, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_value_may_come_in_pieces() {
    let whole = b"*3\r\n$5\r\nhello\r\n:12345\r\n>2\r\n+a\r\n$2\r\nxy\r\n+next\r\n";
    for len in 1..whole.len() {
        let (mut parser, mut pieces) = (Parser::default(), Pieces { rest: whole, len, late: false });
        let mut next = || loop {
            match parser.next(&mut pieces) {
                Err(e) if e.kind() == ErrorKind::TimedOut => {}
                other => break other.expect("a value"),
            }
        };
        let Value::Array(parts) = next() else { panic!("an array") };
        assert_eq!(parts[..2], [bulk("hello"), Value::Int(12345)], "in pieces of {len}");
        assert_eq!(next(), Value::Simple("next".into()));
    }
}

#[test]
fn large_values_do_not_stay_in_memory() {
    let mut bytes = format!("${}\r\n", 3 << 20).into_bytes();
    bytes.resize(bytes.len() + (3 << 20), b'x');
    bytes.extend_from_slice(b"\r\n:1\r\n");
    let (mut parser, mut from) = (Parser::default(), &bytes[..]);
    assert!(matches!(parser.next(&mut from).expect("a value"), Value::Bulk(value) if value.len() == 3 << 20));
    assert_eq!(parser.next(&mut from).expect("a value"), Value::Int(1));
    assert!(parser.buffer.capacity() <= KEEP);
}

#[test]
fn what_is_no_reply_is_refused() {
    let deep = b"*1\r\n".repeat(100);
    let long = vec![b'+'; LINE * 2];
    for bytes in [
        &b"HTTP/1.1 400\r\n"[..],
        b"\r\n",
        b":x\r\n",
        b"$x\r\n",
        b"$1\r\nabc",
        b"$99999999999\r\n",
        &deep,
        &long,
    ] {
        let error = parse(bytes).expect_err("no value");
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{}", bytes[..bytes.len().min(20)].escape_ascii());
    }
    for bytes in [&b""[..], b"+OK", b"$5\r\nab", b"*2\r\n:1\r\n", b"*1000000000\r\n:1\r\n"] {
        let error = parse(bytes).expect_err("a part of a value");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{}", bytes.escape_ascii());
    }
}

#[test]
fn errors_are_told_apart() {
    let replied = |line: &str| fault_of(line.to_owned());
    assert_eq!(replied("OOM command not allowed").to_string(), "it is full: OOM command not allowed");
    assert!(replied("LOADING Redis is loading").is_down());
    assert!(replied("READONLY You can't write").is_down());
    assert_eq!(replied("ERR syntax error").to_string(), "it refused: ERR syntax error");
    assert!(replied("MOVED 1 a:2").to_string().contains("node of a cluster"));
    assert!(is_wrong_type(&replied("WRONGTYPE Operation against a key")));
    assert!(!is_wrong_type(&replied("ERR no")));
}
