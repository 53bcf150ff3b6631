//! The flag words of `uwsgi.h`, also used in ucache's requests.

/// The item exists, but reads miss it.
pub const FLAG_UNGETTABLE: u64 = 1;
/// Replaces an existing key.
pub const FLAG_UPDATE: u64 = 1 << 1;
/// The change is not sent to the UDP nodes.
pub const FLAG_LOCAL: u64 = 1 << 2;
/// `expires` is a Unix time.
pub const FLAG_ABSEXPIRE: u64 = 1 << 3;
/// The value is an operand: 8 bytes, a native `int64_t`.
pub const FLAG_MATH: u64 = 1 << 4;
/// Adds the operand.
pub const FLAG_INC: u64 = 1 << 5;
/// Subtracts the operand.
pub const FLAG_DEC: u64 = 1 << 6;
/// Multiplies by the operand.
pub const FLAG_MUL: u64 = 1 << 7;
/// Divides by the operand.
pub const FLAG_DIV: u64 = 1 << 8;
/// Keeps the expiry of an item that exists.
pub const FLAG_FIXEXPIRE: u64 = 1 << 9;
