use std::{
    io::Write,
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

use super::*;
use crate::{
    net::testing::{PATIENT, server},
    wire::{flags::FLAG_INC, testing::Random},
};

const SHORT: Duration = Duration::from_millis(200);

/// The client's result when these bytes answer a get.
fn answered_with(bytes: Vec<u8>, timeout: Duration) -> Result<Option<(Answer, Vec<u8>)>, ClientError> {
    let (address, handle) = server(move |mut stream, _| {
        // The client may close before all is written.
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
fn a_server_that_closes_without_an_answer_means_no() {
    assert!(answered_with(Vec::new(), PATIENT).unwrap().is_none());
}

#[test]
fn invalid_answers_are_faults() {
    let short = good_answer(b"value");
    for cut in 1..short.len() {
        assert!(answered_with(short[..cut].to_vec(), PATIENT).is_err(), "cut at {cut}");
    }
    let huge = Answer { size: u64::MAX, ..Status::Ok.into() }.encode().unwrap();
    assert!(matches!(answered_with(huge, PATIENT), Err(ClientError::TooLong(u64::MAX))));
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    assert!(matches!(answered_with(http, PATIENT), Err(ClientError::Foreign(_))));
    let mut other = good_answer(b"v");
    other[3] = 18;
    assert!(matches!(answered_with(other, PATIENT), Err(ClientError::Foreign(_))));
    let no_status = [&Header::cache(17, 0).unwrap().to_bytes()[..], b""].concat();
    assert!(
        matches!(answered_with(no_status, PATIENT), Err(ClientError::Goodbye)),
        "nothing, and nothing kept"
    );
    let other = b"\x6f\x06\0\x11\x01\0x\x01\0y".to_vec();
    assert!(matches!(answered_with(other, PATIENT), Err(ClientError::Packet(_))));
}

#[test]
fn a_silent_server_is_a_fault_within_the_time_limit() {
    let (address, handle) = server(|mut stream, _| {
        // Until the client gives up.
        let _ = stream.read(&mut [0; 1]);
    });
    let got = exchange(address.as_bytes(), &Request::new(Command::Get, b"", b"k"), b"", SHORT);
    assert!(matches!(got, Err(ClientError::Io(e)) if e.kind() == ErrorKind::TimedOut));
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
    assert!(matches!(got, Err(ClientError::Io(e)) if e.kind() == ErrorKind::TimedOut));
    handle.join().unwrap();
}

/// A client loop with damaged answers: every call ends, and never returns a value that the server
/// did not send.
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

/// A server that keeps its first connection and calls `second` at the second request there; further
/// connections are answered and counted.
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

fn request_as(address: &str, command: Command) -> Result<Option<(Answer, Vec<u8>)>, ClientError> {
    let request = Request { size: 1, flags: FLAG_INC, ..Request::new(command, b"", b"k") };
    let value: &[u8] = if request.body() == 1 { b"v" } else { b"" };
    exchange(address.as_bytes(), &request, value, PATIENT)
}

/// A connection closed by the server is not used: any request is made once, over a new connection.
#[test]
fn a_connection_closed_meanwhile_is_replaced() {
    for command in [Command::Exists, Command::Set, Command::Del, Command::Math, Command::Update] {
        let (closed, wait) = std::sync::mpsc::channel();
        let (address, requests) = keeping(move |stream| {
            drop(stream);
            closed.send(()).unwrap();
        });
        assert!(request_as(&address, Command::Exists).unwrap().is_some());
        wait.recv().unwrap();
        // The end of the connection takes time to arrive.
        thread::sleep(SHORT);
        assert!(request_as(&address, command).unwrap().is_some(), "{command:?}");
        assert_eq!(requests.try_iter().collect::<Vec<_>>(), [Command::Exists, command]);
    }
}

/// A server that closes after reading a request may have carried it out: only idempotent requests
/// are repeated.
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
        assert!(request_as(&address, Command::Exists).unwrap().is_some());
        match request_as(&address, command) {
            Ok(answer) => assert!(again && answer.is_some(), "{command:?}"),
            Err(fault) => assert!(!again && matches!(fault, ClientError::Closed), "{command:?}: {fault}"),
        }
        assert_eq!(requests.try_iter().count(), 1 + usize::from(again), "{command:?}");
    }
}

/// A server that says goodbye has not carried out the request: any request is repeated over a new
/// connection.
#[test]
fn a_request_that_crosses_a_goodbye_is_repeated() {
    for command in [Command::Get, Command::Set, Command::Del, Command::Math, Command::Clear, Command::Update]
    {
        let (address, requests) = keeping(|mut stream| {
            // The request crosses the goodbye.
            let _ = read_packet(&mut stream);
            stream.write_all(&GOODBYE).unwrap();
        });
        assert!(request_as(&address, Command::Exists).unwrap().is_some());
        assert!(request_as(&address, command).unwrap().is_some(), "{command:?}");
        assert_eq!(requests.try_iter().collect::<Vec<_>>(), [Command::Exists, command]);
    }
}

/// An answer with extra bytes, or none in time, ends its connection.
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
            assert!(request_as(&address, Command::Exists).unwrap().is_some());
        }
        assert_eq!(requests.try_iter().count(), 2, "the third went over a new one");
    }
    let (address, _requests) = keeping(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert!(request_as(&address, Command::Exists).unwrap().is_some());
    let silent = exchange(address.as_bytes(), &Request::new(Command::Get, b"", b"k"), b"", SHORT);
    assert!(matches!(silent, Err(ClientError::Io(e)) if e.kind() == ErrorKind::TimedOut), "no second wait");
}
