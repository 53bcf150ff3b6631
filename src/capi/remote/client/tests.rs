use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::capi::remote::{magic::AT_ONCE, testing::Random};

const PATIENT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// A server for one connection: reads one packet, then does as told.
fn server(then: impl FnOnce(TcpStream, Vec<u8>) + Send + 'static) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let handle = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENT)).unwrap();
        let mut head = [0; HEADER_LEN];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; Header::parse(head).size.into()];
        stream.read_exact(&mut payload).unwrap();
        then(stream, payload);
    });
    (address, handle)
}

/// What the client makes of these bytes as an answer to a get.
fn answered_with(bytes: Vec<u8>, timeout: Duration) -> Result<Option<(Answer, Vec<u8>)>, Fault> {
    let (address, handle) = server(move |mut stream, _| {
        // The client may have had enough before all is written.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 1]);
    });
    let got = exchange(address.as_bytes(), &Request::new(Command::Get, b"", b"k"), b"", timeout);
    handle.join().unwrap();
    got
}

fn good_answer(value: &[u8]) -> Vec<u8> {
    let answer = Answer { status: Status::Ok, size: value.len() as u64, expires: 4_000_000_000, keep: false };
    [&answer.encode().unwrap(), value].concat()
}

#[test]
fn a_value_arrives_whole() {
    for len in [1, 100, 70_000, 3_000_000] {
        let value = Random(len as u64).bytes(len);
        let (answer, got) = answered_with(good_answer(&value), PATIENT).unwrap().unwrap();
        assert_eq!(answer.expires, 4_000_000_000);
        assert!(got == value, "{len} bytes");
    }
}

#[test]
fn a_server_that_closes_without_a_word_means_no() {
    assert!(answered_with(Vec::new(), PATIENT).unwrap().is_none());
}

#[test]
fn answers_that_are_none_are_faults() {
    let short = good_answer(b"value");
    for cut in 1..short.len() {
        assert!(answered_with(short[..cut].to_vec(), PATIENT).is_err(), "cut at {cut}");
    }
    let huge = Answer { size: u64::MAX, ..Status::Ok.into() }.encode().unwrap();
    assert!(matches!(answered_with(huge, PATIENT), Err(Fault::TooLong(u64::MAX))));
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    assert!(matches!(answered_with(http, PATIENT), Err(Fault::Foreign(_))));
    let mut other = good_answer(b"v");
    other[3] = 18;
    assert!(matches!(answered_with(other, PATIENT), Err(Fault::Foreign(_))));
    let no_status = [&Header::cache(17, 0).unwrap().to_bytes()[..], b""].concat();
    assert!(matches!(answered_with(no_status, PATIENT), Err(Fault::Goodbye)), "nothing, and nothing kept");
    let other = b"\x6f\x06\0\x11\x01\0x\x01\0y".to_vec();
    assert!(matches!(answered_with(other, PATIENT), Err(Fault::Packet(_))));
}

#[test]
fn a_silent_server_is_a_fault_within_the_time_limit() {
    let (address, handle) = server(|mut stream, _| {
        // Until the client gives up.
        let _ = stream.read(&mut [0; 1]);
    });
    let got = exchange(address.as_bytes(), &Request::new(Command::Get, b"", b"k"), b"", SHORT);
    assert!(matches!(got, Err(Fault::Io(e)) if e.kind() == ErrorKind::TimedOut));
    handle.join().unwrap();
}

#[test]
fn a_server_that_drips_does_not_stretch_the_time_limit() {
    let (address, handle) = server(|mut stream, _| {
        let mut bytes = good_answer(&[1; 10_000]);
        bytes.reverse();
        while let Some(byte) = bytes.pop() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the client waited for all of it");
    });
    let got = exchange(address.as_bytes(), &Request::new(Command::Get, b"", b"k"), b"", SHORT);
    assert!(matches!(got, Err(Fault::Io(e)) if e.kind() == ErrorKind::TimedOut));
    handle.join().unwrap();
}

#[test]
fn a_value_is_sent_behind_its_packet_and_an_early_refusal_is_heard() {
    let (address, handle) = server(|mut stream, payload| {
        let request = Request::parse(&payload).unwrap();
        assert_eq!((request.command, request.size, request.expires), (Command::Update, 100_000, 60));
        let mut value = vec![0; 100_000];
        stream.read_exact(&mut value).unwrap();
        assert!(value.iter().all(|b| *b == 7));
        stream.write_all(&Answer::from(Status::Ok).encode().unwrap()).unwrap();
    });
    assert!(set(address.as_bytes(), b"c", b"k", &[7; 100_000], 60, FLAG_UPDATE));
    handle.join().unwrap();

    let (address, handle) = server(|mut stream, _| {
        stream.write_all(&Answer::from(Status::Error).encode().unwrap()).unwrap();
    });
    assert!(!set(address.as_bytes(), b"c", b"k", &vec![7; 50 << 20], 0, 0));
    handle.join().unwrap();
}

#[test]
fn arithmetic_goes_as_a_request_of_its_own_that_native_does_not_answer() {
    let flags = FLAG_UPDATE | FLAG_MATH | FLAG_FIXEXPIRE | FLAG_DEC;
    let (address, handle) = server(move |mut stream, payload| {
        let request = Request::parse(&payload).unwrap();
        assert_eq!((request.command, request.operand, request.flags), (Command::Math, -5, flags));
        stream.write_all(&Answer::from(Status::Ok).encode().unwrap()).unwrap();
    });
    assert!(set(address.as_bytes(), b"", b"n", &(-5_i64).to_ne_bytes(), 0, flags));
    handle.join().unwrap();
    let (address, handle) = server(|stream, _| drop(stream));
    assert!(!set(address.as_bytes(), b"", b"n", &5_i64.to_ne_bytes(), 0, flags));
    handle.join().unwrap();
    assert!(!set(b"127.0.0.1:1", b"", b"n", b"7 bytes", 0, flags), "not an operand");
}

#[test]
fn nobody_there_is_a_miss() {
    // a port that is kept and at which nobody listens
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let server = held.local_addr().unwrap().as_socket().unwrap().to_string();
    let server = server.as_bytes();
    assert!(get(server, b"", b"k").is_none());
    assert!(!exists(server, b"", b"k") && !del(server, b"", b"k") && !clear(server, b""));
    assert!(!set(server, b"", b"k", b"v", 0, 0));
}

#[test]
fn absolute_expiries_become_relative() {
    assert_eq!(ttl_from(0, 100), 0);
    assert_eq!(ttl_from(160, 100), 60);
    assert_eq!(ttl_from(100, 100), AT_ONCE);
    assert_eq!(ttl_from(5, 100), AT_ONCE);
}

/// A client in a loop against damaged answers: always an end, never a value that the server did not send.
#[test]
fn fuzzed_answers_never_hang_and_never_invent() {
    let mut random = Random(5);
    let value = b"the one and only value".to_vec();
    for _ in 0..300 {
        let bytes = random.damage(&good_answer(&value));
        let sent = bytes.clone();
        if let Ok(Some((answer, got))) = answered_with(bytes, PATIENT) {
            assert_eq!(answer.size, got.len() as u64);
            assert!(got.is_empty() || sent.windows(got.len()).any(|w| w == got));
        }
    }
}

/// A server that keeps its first connection, and what it does there with the second request; further connections
/// are answered and counted.
fn keeping(second: impl FnOnce(TcpStream) + Send + 'static) -> (String, std::sync::mpsc::Receiver<Command>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heard, requests) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut second = Some(second);
        for mut stream in listener.incoming().flatten() {
            let Some((_, payload)) = read_packet(&mut stream).unwrap() else { return };
            let request = Request::parse(&payload).unwrap();
            assert!(request.keep);
            let mut value = vec![0; usize::try_from(request.body()).unwrap()];
            stream.read_exact(&mut value).unwrap();
            heard.send(request.command).unwrap();
            let answer = Answer { keep: second.is_some(), ..Status::Ok.into() };
            stream.write_all(&answer.encode().unwrap()).unwrap();
            if let Some(second) = second.take() {
                second(stream);
            }
        }
    });
    (address, requests)
}

fn ask_as(address: &str, command: Command) -> Result<Option<(Answer, Vec<u8>)>, Fault> {
    let request = Request { size: 1, flags: FLAG_INC, ..Request::new(command, b"", b"k") };
    let value: &[u8] = if request.body() == 1 { b"v" } else { b"" };
    exchange(address.as_bytes(), &request, value, PATIENT)
}

/// A connection that the server has closed is not used: whatever the request is, it is made once, over a new one.
#[test]
fn a_connection_closed_meanwhile_is_replaced() {
    for command in [Command::Exists, Command::Set, Command::Del, Command::Math, Command::Update] {
        let (closed, wait) = std::sync::mpsc::channel();
        let (address, requests) = keeping(move |stream| {
            drop(stream);
            closed.send(()).unwrap();
        });
        assert!(ask_as(&address, Command::Exists).unwrap().is_some());
        wait.recv().unwrap();
        // The end travels on its own.
        thread::sleep(SHORT);
        assert!(ask_as(&address, command).unwrap().is_some(), "{command:?}");
        assert_eq!(requests.try_iter().collect::<Vec<_>>(), [Command::Exists, command]);
    }
}

/// A server that ends when it has read a request may have carried it out: only what then comes to the same is
/// asked again.
#[test]
fn a_request_that_may_have_been_carried_out_is_not_made_twice() {
    for (command, again) in [
        (Command::Get, true),
        (Command::Exists, true),
        (Command::Update, false),
        (Command::Clear, false),
        (Command::Set, false),
        (Command::Del, false),
        (Command::Math, false),
    ] {
        let (address, requests) = keeping(|mut stream| {
            let (_, payload) = read_packet(&mut stream).unwrap().unwrap();
            let body = usize::try_from(Request::parse(&payload).unwrap().body()).unwrap();
            stream.read_exact(&mut vec![0; body]).unwrap();
        });
        assert!(ask_as(&address, Command::Exists).unwrap().is_some());
        match ask_as(&address, command) {
            Ok(answer) => assert!(again && answer.is_some(), "{command:?}"),
            Err(fault) => assert!(!again && matches!(fault, Fault::Closed), "{command:?}: {fault}"),
        }
        assert_eq!(requests.try_iter().count(), 1 + usize::from(again), "{command:?}");
    }
}

/// A server that takes its leave has not carried the request out: it is made over a new connection, whatever it is.
#[test]
fn a_server_that_takes_its_leave_is_asked_anew() {
    for command in [Command::Get, Command::Set, Command::Del, Command::Math, Command::Clear, Command::Update]
    {
        let (address, requests) = keeping(|mut stream| {
            // The request crosses the goodbye.
            let _ = read_packet(&mut stream);
            stream.write_all(&service::GOODBYE).unwrap();
        });
        assert!(ask_as(&address, Command::Exists).unwrap().is_some());
        assert!(ask_as(&address, command).unwrap().is_some(), "{command:?}");
        assert_eq!(requests.try_iter().collect::<Vec<_>>(), [Command::Exists, command]);
    }
}

/// An answer with more behind it, or none in time, ends its connection.
#[test]
fn a_connection_that_is_out_of_step_is_not_used_again() {
    for surplus in [&b"x"[..], &[0x6f; 100]] {
        let (address, requests) = keeping(move |mut stream| {
            let _ = read_packet(&mut stream);
            let answer = Answer { keep: true, ..Status::Ok.into() }.encode().unwrap();
            stream.write_all(&[&answer[..], surplus].concat()).unwrap();
            // Until the client closes.
            let _ = stream.read(&mut [0; 1]);
        });
        for _ in 0..3 {
            assert!(ask_as(&address, Command::Exists).unwrap().is_some());
        }
        assert_eq!(requests.try_iter().count(), 2, "the third went over a new one");
    }
    let (address, _requests) = keeping(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert!(ask_as(&address, Command::Exists).unwrap().is_some());
    let silent = exchange(address.as_bytes(), &Request::new(Command::Get, b"", b"k"), b"", SHORT);
    assert!(matches!(silent, Err(Fault::Io(e)) if e.kind() == ErrorKind::TimedOut), "no second wait");
}
