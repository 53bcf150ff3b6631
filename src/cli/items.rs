//! Commands about keys and their values.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal, Read, Write},
    os::unix::ffi::OsStrExt,
};

use super::{
    Context,
    args::{At, Join, Keys, Select, Store},
    failure::{Failure, NO, Outcome, USAGE},
    jsonl, now,
    record::Record,
    target::{self, Target, expires},
    text::{escape, left, size},
    units::Ttl,
};
use crate::engine::{SetOptions, Side, Stored};
use globset::{GlobBuilder, GlobMatcher};

/// Which keys a command is about.
pub(super) struct Selection {
    pattern: Option<GlobMatcher>,
    prefix: Vec<u8>,
}

impl Selection {
    pub(super) fn new(select: &Select) -> Outcome<Self> {
        let compile = |pattern: &String| {
            let glob = GlobBuilder::new(pattern).literal_separator(false).build();
            glob.map(|g| g.compile_matcher())
                .map_err(|e| Failure::new(USAGE, format!("the pattern is malformed: {e}")))
        };
        Ok(Self {
            pattern: select.pattern.as_ref().map(compile).transpose()?,
            prefix: select.prefix.as_ref().map(|p| p.as_bytes().to_vec()).unwrap_or_default(),
        })
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
            && self.pattern.as_ref().is_none_or(|p| p.is_match(OsStr::from_bytes(key)))
    }
}

pub(super) fn keys(context: &mut Context, args: &Keys) -> Outcome {
    let selection = Selection::new(&args.select)?;
    let target = context.open(&args.target)?;
    let (now, bold) = (now(), context.colors());
    let out = &mut context.out;
    let mut found = 0_u64;
    if args.long {
        let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(out, "{on}{:>10}  {:>10}  KEY{off}", "TTL", "SIZE")?;
    }
    target.each(false, |record| {
        if record.hidden || !selection.has(&record.key) {
            return Ok(());
        }
        found += 1;
        if args.count {
            return Ok(());
        }
        if args.json {
            let mut line = serde_json::Map::new();
            jsonl::insert(&mut line, "key", &record.key);
            line.insert("size".into(), record.len.into());
            line.insert("expires".into(), jsonl::expiry(record.expires));
            writeln!(out, "{}", serde_json::Value::Object(line))?;
        } else if args.null {
            out.write_all(&record.key)?;
            out.write_all(b"\0")?;
        } else if args.long {
            writeln!(
                out,
                "{:>10}  {:>10}  {}",
                left(record.expires, now),
                size(record.len),
                escape(&record.key)
            )?;
        } else {
            writeln!(out, "{}", escape(&record.key))?;
        }
        Ok(())
    })?;
    if args.count {
        writeln!(out, "{found}")?;
    }
    Ok(())
}

pub(super) fn get(context: &mut Context, at: &At, int: bool, json: bool) -> Outcome {
    let (target, key) = open(context, at)?;
    let Some(item) = target.get(&key)? else { return Err(Failure::silent(NO)) };
    let out = &mut context.out;
    if int {
        writeln!(out, "{}", target.number(&item.value)?)?;
    } else if json {
        let len = item.value.len() as u64;
        let record = Record { key, len, value: Some(item.value), expires: item.expires, hidden: false };
        writeln!(out, "{}", jsonl::line(&record))?;
    } else {
        out.write_all(&item.value)?;
        // On a terminal the shell's prompt needs a new line; a pipe gets only the value.
        if io::stdout().is_terminal() && !item.value.ends_with(b"\n") {
            writeln!(out)?;
        }
    }
    Ok(())
}

pub(super) fn set(context: &Context, store: &Store, keep_ttl: bool) -> Outcome {
    let value = value(store)?;
    let (target, key) = open(context, &store.at)?;
    target.set(&key, &value, store.ttl.0, keep_ttl)
}

pub(super) fn add(context: &Context, store: &Store) -> Outcome {
    let value = value(store)?;
    let (target, key) = open(context, &store.at)?;
    if target.add(&key, &value, store.ttl.0)? {
        return Ok(());
    }
    Err(Failure::new(NO, format!("the key {:?} exists; its value is unchanged", escape(&key)))
        .hint("`set` replaces it"))
}

pub(super) fn replace(context: &Context, store: &Store, keep_ttl: bool) -> Outcome {
    let value = value(store)?;
    let (target, key) = open(context, &store.at)?;
    let options = SetOptions::replace(expires(store.ttl.0));
    let options = SetOptions { keep_ttl, ..options };
    if target.tier("replace")?.set(&key, &value, &options)? == Stored::Kept {
        return Err(Failure::silent(NO));
    }
    Ok(())
}

pub(super) fn join(context: &Context, join: &Join, command: &'static str, side: Side) -> Outcome {
    let bytes = bytes(join.bytes.as_deref())?;
    let (target, key) = open(context, &join.at)?;
    match target.tier(command)?.join(&key, &bytes, side)? {
        Some(_) => Ok(()),
        None => Err(Failure::silent(NO)),
    }
}

pub(super) fn del(context: &Context, target: &OsStr, keys: &[OsString], escaped: bool) -> Outcome {
    let target = context.open(target)?;
    let mut missing = 0;
    for key in keys {
        missing += u64::from(!target.del(&target::key(key, escaped)?)?);
    }
    match missing {
        0 => Ok(()),
        n if keys.len() == 1 => Err(Failure::silent(u8::try_from(n).unwrap_or(NO))),
        n => Err(Failure::new(NO, format!("{n} of {} keys were not stored", keys.len()))),
    }
}

pub(super) fn exists(context: &Context, at: &At) -> Outcome {
    let (target, key) = open(context, at)?;
    if target.exists(&key)? { Ok(()) } else { Err(Failure::silent(NO)) }
}

pub(super) fn incr(context: &mut Context, at: &At, by: i64, ttl: Ttl) -> Outcome {
    let (target, key) = open(context, at)?;
    let number = target.incr(&key, by, ttl.0)?;
    Ok(writeln!(context.out, "{number}")?)
}

pub(super) fn ttl(context: &mut Context, at: &At) -> Outcome {
    let (target, key) = open(context, at)?;
    let Some(item) = target.get(&key)? else { return Err(Failure::silent(NO)) };
    Ok(writeln!(context.out, "{}", left(item.expires, now()))?)
}

pub(super) fn touch(context: &Context, at: &At, ttl: Ttl) -> Outcome {
    let (target, key) = open(context, at)?;
    if target.tier("touch")?.expire(&key, expires(ttl.0))? { Ok(()) } else { Err(Failure::silent(NO)) }
}

fn open(context: &Context, at: &At) -> Outcome<(Target, Vec<u8>)> {
    let key = target::key(&at.key, at.escaped)?;
    if key.is_empty() {
        return Err(Failure::new(USAGE, "the key is empty").hint("a key has at least one byte"));
    }
    Ok((context.open(&at.target)?, key))
}

/// The bytes of the command line, or all of standard input.
fn bytes(argument: Option<&OsStr>) -> Outcome<Vec<u8>> {
    match argument {
        Some(bytes) if bytes != "-" => Ok(bytes.as_bytes().to_vec()),
        _ => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Failure::input(&e, "standard input"))?;
            Ok(bytes)
        }
    }
}

/// The value to store.
fn value(store: &Store) -> Outcome<Vec<u8>> {
    let bytes = bytes(store.value.as_deref())?;
    if !store.int {
        return Ok(bytes);
    }
    let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<i64>().ok());
    let wrong = || {
        Failure::new(USAGE, format!("{:?} is not a number", String::from_utf8_lossy(&bytes)))
            .hint("--int takes 64-bit integers")
    };
    Ok(number.ok_or_else(wrong)?.to_ne_bytes().to_vec())
}
