//! Calls for `cache@host:port` from the C functions. Every fault is a miss or `false`, with one
//! rate-limited log line. None waits longer than `Env::socket_timeout`.

use crate::{
    capi::{buffer::MallocBuf, host::env, types::*},
    net::{client, throttle::Throttle},
    os::clock::unix_secs,
    wire::{
        command::{AT_ONCE, Answer, Command, Request, Status},
        shown::shown,
    },
};

static FAULTS: Throttle = Throttle::new();

/// The value and the Unix time of its expiry (0 = never); `None` = a miss or a fault.
pub(crate) fn get(server: &[u8], cache: &[u8], key: &[u8]) -> Option<(MallocBuf, u64)> {
    let (answer, value) = request_logged(server, &Request::new(Command::Get, cache, key), b"")?;
    // An empty item cannot exist; native treats it as a miss, too.
    if answer.status != Status::Ok || value.is_empty() {
        return None;
    }
    let mut copy = MallocBuf::new();
    copy.room(value.len())?.iter_mut().zip(&value).for_each(|(to, from)| {
        to.write(*from);
    });
    Some((copy, answer.expires))
}

/// Whether the server has the key; `false` after a fault too.
pub(crate) fn exists(server: &[u8], cache: &[u8], key: &[u8]) -> bool {
    done(server, &Request::new(Command::Exists, cache, key), b"")
}

/// Removes the key; `false` = not stored, or a fault.
pub(crate) fn del(server: &[u8], cache: &[u8], key: &[u8]) -> bool {
    done(server, &Request::new(Command::Del, cache, key), b"")
}

/// Removes all keys; `false` = a fault.
pub(crate) fn clear(server: &[u8], cache: &[u8]) -> bool {
    done(server, &Request::new(Command::Clear, cache, b""), b"")
}

/// Stores the value, or performs arithmetic with it; `expires` and `set_flags` as in
/// `uwsgi_cache_magic_set`.
///
/// With a MATH flag the value is the 8-byte operand. A native server does not support remote
/// arithmetic: the call then fails, and the stored number is unchanged (native overwrites it with
/// the operand).
pub(crate) fn set(
    server: &[u8],
    cache: &[u8],
    key: &[u8],
    value: &[u8],
    expires: u64,
    set_flags: u64,
) -> bool {
    let has = |flag| set_flags & flag != 0;
    let command = if has(FLAG_UPDATE) { Command::Update } else { Command::Set };
    let mut request = Request::new(command, cache, key);
    request.expires = if has(FLAG_ABSEXPIRE) { ttl_from(expires, unix_secs()) } else { expires };
    if !has(FLAG_MATH) {
        request.flags = set_flags & (FLAG_UNGETTABLE | FLAG_FIXEXPIRE);
        request.size = value.len() as u64;
        return !value.is_empty() && done(server, &request, value);
    }
    let Ok(operand) = <[u8; 8]>::try_from(value) else { return false };
    request.command = Command::Math;
    request.operand = i64::from_ne_bytes(operand);
    request.flags = set_flags & !(FLAG_ABSEXPIRE | FLAG_LOCAL);
    done(server, &request, b"")
}

/// The TTL until the Unix time `expires`; 0 = never.
fn ttl_from(expires: u64, now: u64) -> u64 {
    match expires {
        0 => 0,
        e if e > now => e - now,
        _ => AT_ONCE,
    }
}

fn done(server: &[u8], request: &Request<'_>, value: &[u8]) -> bool {
    request_logged(server, request, value).is_some_and(|(answer, _)| answer.status == Status::Ok)
}

/// One request and its answer; `None` = no answer (native's "no") or a fault, which is logged.
fn request_logged(server: &[u8], request: &Request<'_>, value: &[u8]) -> Option<(Answer, Vec<u8>)> {
    match client::exchange(server, request, value, env::get().socket_timeout()) {
        Ok(answer) => answer,
        Err(fault) => {
            FAULTS.log(
                |line| env::get().log(line),
                || format!("remote cache \"{}\" at {}: {fault}", shown(request.cache), shown(server)),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests;
