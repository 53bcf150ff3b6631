//! Random configurations and operations.

use proptest::{collection::vec, prelude::*};
use ucache::engine::{Blocks, Config, Eviction, Expires, Math, Mode, Side};

use super::naive::FAR;

/// Length of a value, relative to the cache's limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Len {
    Bytes(usize),
    /// The limit minus this many bytes.
    Limit(usize),
    TooLong,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Of(u8),
    Empty,
    TooLong,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Set { key: Key, len: Len, mode: Mode, expires: Expires, keep_ttl: bool, ungettable: bool },
    Math { key: Key, op: Math, operand: i64, mode: Mode, expires: Expires, keep_ttl: bool },
    Join { key: Key, len: Len, side: Side },
    Get { key: Key, touch: bool },
    GetCounted { key: Key },
    Exists { key: Key },
    Delete { key: Key },
    DeleteId { key: Key },
    DeleteForeignId { id: u32 },
    Clear,
    Sweep,
    Walk,
    Fill { key: Key, len: Len, end: FillEnd },
}

/// The outcome of a fill.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FillEnd {
    Stored(Expires),
    Abandoned,
    /// Another caller stores the key before the filler does.
    Overtaken,
}

fn lens() -> impl Strategy<Value = Len> {
    prop_oneof![
        4 => Just(Len::Bytes(8)),
        12 => (1..80_usize).prop_map(Len::Bytes),
        3 => (0..20_usize).prop_map(Len::Limit),
        1 => Just(Len::Bytes(0)),
        1 => Just(Len::TooLong),
    ]
}

fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![
        60 => (0..8_u8).prop_map(Key::Of),
        60 => any::<u8>().prop_map(|k| Key::Of(k % 48)),
        1 => Just(Key::Empty),
        1 => Just(Key::TooLong),
    ]
}

fn expiries() -> impl Strategy<Value = Expires> {
    let past = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() - 10;
    prop_oneof![
        8 => Just(Expires::Never),
        3 => Just(Expires::In(3600)),
        2 => Just(Expires::At(past + FAR / 2)),
        1 => Just(Expires::In(u64::MAX)),
        1 => Just(Expires::At(u64::MAX)),
        1 => Just(Expires::In(0)),
        1 => Just(Expires::At(past)),
        1 => Just(Expires::At(0)),
        2 => Just(Expires::InMillis(3_600_500)),
        1 => Just(Expires::InMillis(0)),
        1 => Just(Expires::InMillis(u64::MAX)),
        2 => Just(Expires::AtMillis((past + FAR / 2) * 1000 + 1)),
        1 => Just(Expires::AtMillis(past * 1000 + 1)),
        1 => Just(Expires::AtMillis(0)),
    ]
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![2 => Just(Mode::Add), 4 => Just(Mode::Set), 1 => Just(Mode::Replace)]
}

fn operands() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(1), Just(-1), Just(i64::MIN), Just(i64::MAX), -100..100_i64, any::<i64>()]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let maths =
        prop_oneof![Just(Math::Inc), Just(Math::Dec), Just(Math::Mul), Just(Math::Div), Just(Math::Keep)];
    let flag = || proptest::bool::weighted(0.1);
    let end =
        prop_oneof![expiries().prop_map(FillEnd::Stored), Just(FillEnd::Abandoned), Just(FillEnd::Overtaken)];
    prop_oneof![
        30 => (keys(), lens(), modes(), expiries(), flag(), flag()).prop_map(
            |(key, len, mode, expires, keep_ttl, ungettable)| Op::Set { key, len, mode, expires, keep_ttl, ungettable }),
        12 => (keys(), maths, operands(), modes(), expiries(), any::<bool>()).prop_map(
            |(key, op, operand, mode, expires, keep_ttl)| Op::Math { key, op, operand, mode, expires, keep_ttl }),
        6 => (keys(), lens(), any::<bool>()).prop_map(|(key, len, front)|
            Op::Join { key, len, side: if front { Side::Front } else { Side::Back } }),
        12 => (keys(), any::<bool>()).prop_map(|(key, touch)| Op::Get { key, touch }),
        4 => keys().prop_map(|key| Op::GetCounted { key }),
        3 => keys().prop_map(|key| Op::Exists { key }),
        8 => keys().prop_map(|key| Op::Delete { key }),
        3 => keys().prop_map(|key| Op::DeleteId { key }),
        1 => any::<u32>().prop_map(|id| Op::DeleteForeignId { id }),
        1 => Just(Op::Clear),
        2 => Just(Op::Sweep),
        2 => Just(Op::Walk),
        4 => (keys(), lens(), end).prop_map(|(key, len, end)| Op::Fill { key, len, end }),
    ]
}

pub(crate) fn config() -> impl Strategy<Value = Config> {
    let capacity = prop_oneof![Just(1_u64), Just(2), Just(3), Just(4), 5..20_u64, Just(33), Just(64)];
    let max_key = prop_oneof![Just(1_u64), Just(8), Just(2048)];
    let max_value = prop_oneof![Just(7_u64), Just(8), Just(64), Just(4096), Just(70_000), Just(300_000)];
    let blocks = proptest::option::weighted(
        0.4,
        (prop_oneof![Just(1_u64), Just(8), Just(17), Just(64), Just(4096)], 1..5_u64),
    );
    let initial = prop_oneof![3 => Just(0_i64), 1 => Just(5), 1 => Just(i64::MIN)];
    let habits = (any::<bool>(), proptest::bool::weighted(0.2), proptest::bool::weighted(0.1));
    (capacity, max_key, max_value, blocks, initial, habits).prop_map(
        |(capacity, max_key, max_value, blocks, math_initial, (lru, clear_on_full, no_expire))| {
            let mut config = Config::new("model", capacity);
            config.max_key = max_key;
            config.max_value = max_value;
            config.blocks = blocks.map(|(size, times)| Blocks { size, count: capacity * times });
            config.eviction = if lru { Eviction::Lru } else { Eviction::None };
            config.clear_on_full = clear_on_full;
            config.no_expire = no_expire;
            config.math_initial = math_initial;
            config
        },
    )
}

pub(crate) fn script() -> impl Strategy<Value = (Config, Vec<Op>)> {
    (config(), vec(op(), 1..150))
}
