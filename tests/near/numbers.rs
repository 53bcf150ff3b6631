//! Arithmetic at the server: exact, and the same as in a local cache.

use ucache::{
    Error, Expires,
    engine::Math,
    near::{Backend, Calculation, Old, Ttl},
};

use crate::{backend::Server, backend_with, everywhere};

const OPS: [Math; 5] = [Math::Inc, Math::Dec, Math::Mul, Math::Div, Math::Keep];

fn calculation(op: Math, operand: i64) -> Calculation {
    Calculation { op, operand, expires: Expires::Never, old: Old::Stays, only_new: false }
}

fn store(b: &Backend, n: i64) {
    b.put(b"n", &b.value_of(n), Expires::Never, Old::Goes).expect("put");
}

#[test]
fn sixty_four_bits_wrap_around() {
    let edges =
        [0, 1, -1, 2, -2, 255, 256, -256, 65_537, i64::MAX, i64::MIN, i64::MAX - 1, 0x0123_4567_89ab_cdef];
    everywhere(|_, b| {
        for op in OPS {
            for a in edges {
                for operand in edges {
                    store(b, a);
                    let got = b.math(b"n", &calculation(op, operand)).expect("a number");
                    assert_eq!(got, op.apply(a, operand), "{op:?} {a} {operand}");
                    let stored = b.get(b"n").expect("get").expect("a value");
                    assert_eq!(b.number_of(&stored), Some(got), "{op:?} {a} {operand}");
                }
            }
        }
    });
}

#[test]
fn random_numbers() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[], 0);
    let mut rng = fastrand::Rng::with_seed(17);
    for _ in 0..2000 {
        let (a, operand) = (rng.i64(..), rng.i64(..) >> rng.u32(..64));
        let op = OPS[rng.usize(..3)];
        store(&b, a);
        assert_eq!(
            b.math(b"n", &calculation(op, operand)).expect("a number"),
            op.apply(a, operand),
            "{op:?} {a} {operand}"
        );
    }
}

#[test]
fn missing_keys_and_expiries() {
    for numbers in ["binary", "decimal"] {
        let server = Server::start();
        let b = backend_with(&server.url(), &[("numbers", numbers)], 10);
        for (op, result) in OPS.into_iter().zip([13, 7, 30, 3, 10]) {
            let c = Calculation { expires: Expires::In(100), ..calculation(op, 3) };
            assert_eq!(b.math(b"n", &c).expect("a number"), result, "{op:?} {numbers}");
            let Some(Ttl::In(left)) = b.ttl(b"n").expect("ttl") else {
                panic!("{op:?} {numbers}: no expiry")
            };
            assert!(left.as_secs() > 90);
            // A key that is there keeps its expiry, or gets another.
            b.math(b"n", &Calculation { expires: Expires::Never, ..c }).expect("a number");
            assert!(matches!(b.ttl(b"n").expect("ttl"), Some(Ttl::In(_))), "{op:?} {numbers}");
            b.math(b"n", &Calculation { old: Old::Goes, expires: Expires::Never, ..c }).expect("a number");
            assert_eq!(b.ttl(b"n").expect("ttl"), Some(Ttl::Never), "{op:?} {numbers}");
            b.math(b"n", &Calculation { old: Old::Goes, expires: Expires::In(5), ..c }).expect("a number");
            assert!(matches!(b.ttl(b"n").expect("ttl"), Some(Ttl::In(_))), "{op:?} {numbers}");
            let refused = b.math(b"n", &Calculation { only_new: true, ..c });
            assert!(matches!(refused, Err(Error::Exists)), "{op:?} {numbers}: {refused:?}");
            let gone = Calculation { old: Old::Goes, expires: Expires::In(0), ..c };
            b.math(b"n", &gone).expect("a number");
            assert!(!b.exists(b"n").expect("exists"), "{op:?} {numbers}");
        }
    }
}

#[test]
fn what_is_no_number_stays_as_it_is() {
    everywhere(|server, b| {
        b.put(b"n", b"text", Expires::Never, Old::Goes).expect("put");
        for op in OPS {
            let refused = b.math(b"n", &calculation(op, 1));
            assert!(matches!(refused, Err(Error::NotANumber { len: 4 })), "{op:?}: {refused:?}");
        }
        assert_eq!(server.ask(["GET", "c:n"]), "text");
        assert_eq!(b.number_of(b"text"), None);
    });
}

#[test]
fn decimal_counters_are_shared_with_other_clients() {
    for program in crate::backend::programs() {
        let server = Server::with(&program, 0, &[]);
        let b = backend_with(&server.url(), &[("numbers", "decimal")], 0);
        assert_eq!(b.math(b"n", &calculation(Math::Inc, 40)).expect("a number"), 40);
        assert_eq!(server.ask(["INCRBY", "c:n", "2"]), "42");
        assert_eq!(b.math(b"n", &calculation(Math::Mul, -2)).expect("a number"), -84);
        assert_eq!(b.math(b"n", &calculation(Math::Div, 4)).expect("a number"), -21);
        assert_eq!(b.math(b"n", &calculation(Math::Keep, 9)).expect("a number"), -21);
        assert_eq!(server.ask(["GET", "c:n"]), "-21");
        // Exact where Lua's numbers are not.
        let large = Calculation { expires: Expires::In(100), ..calculation(Math::Inc, i64::MAX) };
        assert_eq!(b.math(b"large", &large).expect("a number"), i64::MAX);
        let over = b.math(b"large", &calculation(Math::Inc, 1)).expect_err("over the end").to_string();
        assert!(over.contains("overflow"), "{over}");
        assert_eq!(b.math(b"large", &calculation(Math::Dec, 1)).expect("a number"), i64::MAX - 1);
        // What failed leaves nothing behind.
        let b = backend_with(&server.url(), &[("numbers", "decimal")], 5);
        b.math(b"none", &calculation(Math::Inc, i64::MAX)).expect_err("over the end");
        assert!(!b.exists(b"none").expect("exists"));
    }
}

#[test]
fn nothing_is_lost_between_threads() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[("backend_timeout", "20s")], 0);
    std::thread::scope(|scope| {
        for op in [Math::Inc, Math::Inc, Math::Dec, Math::Inc] {
            let b = &b;
            scope.spawn(move || {
                for _ in 0..500 {
                    b.math(b"n", &calculation(op, 3)).expect("a number");
                }
            });
        }
    });
    let value = b.get(b"n").expect("get").expect("a value");
    assert_eq!(b.number_of(&value), Some(3000));
    // Connections are used again: a few more than threads, when two look for one at the same time.
    assert!(b.figures().connects <= 100, "{}", b.figures().connects);
}
