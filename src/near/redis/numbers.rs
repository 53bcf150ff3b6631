//! Arithmetic in one atomic step: 64 bits that wrap around, or decimal text as `INCRBY` has it.

use super::{
    Backend, Numbers, Old, Repeat, Word,
    expiry::Ends,
    only,
    resp::{Request, Value, fine, string, unexpected},
    script::Script,
};
use crate::{
    engine::{Expires, Math, Swap},
    error::{BackendFault, Error, Result},
};

// The script counts from the least significant byte, and readers of the raw value in native order.
const _: () = assert!(cfg!(target_endian = "little"), "numbers at a server are little-endian");

/// Lua's numbers are doubles: the 64 bits are added and multiplied byte by byte, with a carry.
///
/// KEYS: the key. ARGV: `add`, `mul` or `keep`; the operand; the number of a key that is not there;
/// its expiry (two); `1` = a key that is there keeps its expiry; `1` = it is refused. Returns the
/// number as 8 bytes; or -1 = refused, or the length of a value that is no number.
pub(super) const BINARY: Script = Script::new(
    "13101857d4ae8b99cfb5fe830f50e8196a593c5f",
    "local v, r, keep = redis.call('GET', KEYS[1]), ARGV[3], false
if v then
  if ARGV[7] == '1' then return -1 end
  if #v ~= 8 then return #v end
  local a, b, o, c = {string.byte(v, 1, 8)}, {string.byte(ARGV[2], 1, 8)}, {}, 0
  for i = 1, 8 do
    if ARGV[1] == 'add' then c = c + a[i] + b[i]
    elseif ARGV[1] == 'mul' then for j = 1, i do c = c + a[j] * b[i - j + 1] end
    else c = a[i] end
    o[i] = string.char(c % 256)
    c = math.floor(c / 256)
  end
  r, keep = table.concat(o), ARGV[6] == '1'
end
if keep then redis.call('SET', KEYS[1], r, 'KEEPTTL')
elseif ARGV[4] == 'GONE' then redis.call('UNLINK', KEYS[1])
elseif ARGV[4] == '' then redis.call('SET', KEYS[1], r)
else redis.call('SET', KEYS[1], r, ARGV[4], ARGV[5]) end
return r",
);

/// As [`BINARY`], with `INCRBY` or `DECRBY` as the first argument, an operand in digits, and the
/// number that a key begins with as the third. Returns digits, because Lua would round a number; or
/// -1 = refused.
pub(super) const DECIMAL: Script = Script::new(
    "34fe6099de482fd7e9d911fce9ad937d20dc68f6",
    "local there = redis.call('EXISTS', KEYS[1]) == 1
if there and ARGV[7] == '1' then return -1 end
if not there and ARGV[3] ~= '0' then redis.call('SET', KEYS[1], ARGV[3]) end
local n = redis.pcall(ARGV[1], KEYS[1], ARGV[2])
if type(n) == 'table' and n.err then
  if not there then redis.call('DEL', KEYS[1]) end
  return n
end
local r = redis.call('GET', KEYS[1])
if there and ARGV[6] == '1' then return r end
if ARGV[4] == 'GONE' then redis.call('UNLINK', KEYS[1])
elseif ARGV[4] == '' then redis.call('PERSIST', KEYS[1])
elseif ARGV[4] == 'PX' then redis.call('PEXPIRE', KEYS[1], ARGV[5])
else redis.call('PEXPIREAT', KEYS[1], ARGV[5]) end
return r",
);

/// One calculation.
#[derive(Clone, Copy, Debug)]
pub struct Calculation {
    /// The operation.
    pub op: Math,
    /// Its second operand.
    pub operand: i64,
    /// Expiry of a key that was not there, and of any with [`Old::Goes`].
    pub expires: Expires,
    /// Whether a key that is there keeps its expiry.
    pub old: Old,
    /// A key that is there is refused.
    pub only_new: bool,
}

impl Backend {
    /// Changes a number in one atomic step and returns it. A missing key starts from
    /// `math_initial`.
    ///
    /// # Errors
    /// [`Error::NotANumber`], [`Error::Exists`], [`Error::Backend`] (with `numbers=decimal` also an
    /// overflow), or a key that is refused.
    pub fn math(&self, key: &[u8], c: &Calculation) -> Result<i64> {
        let full = self.checked(key)?;
        match (self.settings.numbers, c.op) {
            (Numbers::Binary, Math::Inc) => self.binary(&full, "add", c.operand, c),
            // The same 64 bits, and the script has one operation less.
            (Numbers::Binary, Math::Dec) => self.binary(&full, "add", c.operand.wrapping_neg(), c),
            (Numbers::Binary, Math::Mul) => self.binary(&full, "mul", c.operand, c),
            (Numbers::Binary, Math::Keep) => self.binary(&full, "keep", 0, c),
            (Numbers::Decimal, Math::Inc) => self.decimal(&full, "INCRBY", c),
            (Numbers::Decimal, Math::Dec) => self.decimal(&full, "DECRBY", c),
            (_, Math::Div) | (Numbers::Decimal, Math::Mul | Math::Keep) => self.by_swap(key, c),
        }
    }

    /// The number that a value is, if it is one.
    #[must_use]
    pub fn number_of(&self, value: &[u8]) -> Option<i64> {
        match self.settings.numbers {
            Numbers::Binary => value.try_into().ok().map(i64::from_le_bytes),
            Numbers::Decimal => std::str::from_utf8(value).ok()?.parse().ok(),
        }
    }

    /// The value that a number is.
    #[must_use]
    pub fn value_of(&self, number: i64) -> Vec<u8> {
        match self.settings.numbers {
            Numbers::Binary => number.to_le_bytes().to_vec(),
            Numbers::Decimal => number.to_string().into_bytes(),
        }
    }

    fn binary(&self, full: &[u8], op: &'static str, operand: i64, c: &Calculation) -> Result<i64> {
        let initial = c.op.apply(self.limits.math_initial, c.operand);
        let (operand, initial) = (operand.to_le_bytes(), initial.to_le_bytes());
        let reply = self.run(&BINARY, full, &arguments(op, &operand, &initial, c))?;
        match reply {
            Value::Bulk(bytes) => {
                let bytes =
                    bytes.try_into().map_err(|_| self.error(unexpected("a number without 8 bytes")))?;
                Ok(i64::from_le_bytes(bytes))
            }
            Value::Int(-1) => Err(Error::Exists),
            Value::Int(len) => Err(Error::NotANumber { len: len.cast_unsigned() }),
            _ => Err(self.error(unexpected("not a number"))),
        }
    }

    fn decimal(&self, full: &[u8], command: &'static str, c: &Calculation) -> Result<i64> {
        let operand = c.operand.to_string();
        let plain = c.old == Old::Stays && c.expires == Expires::Never && !c.only_new;
        let reply = if plain && self.limits.math_initial == 0 {
            let words = [command.as_bytes(), full, operand.as_bytes()];
            let reply = only(self.call(&self.write_request(full, &words), Repeat::Never)?);
            self.answer(fine(reply))?
        } else {
            let initial = self.limits.math_initial.to_string();
            self.run(&DECIMAL, full, &arguments(command, operand.as_bytes(), initial.as_bytes(), c))?
        };
        match reply {
            Value::Int(-1) if !plain => Err(Error::Exists),
            Value::Int(n) => Ok(n),
            reply => {
                let text = self.answer(string(reply))?.unwrap_or_default();
                self.number_of(&text).ok_or_else(|| self.error(unexpected("not a number")))
            }
        }
    }

    /// Reads, calculates here, and stores if no other client has stored meanwhile.
    fn by_swap(&self, key: &[u8], c: &Calculation) -> Result<i64> {
        let deadline = self.deadline();
        loop {
            let reply = only(self.call(&Request::one(&[b"GET", &self.full(key)?]), Repeat::Safe)?);
            let old = self.answer(string(reply))?;
            let done = match old {
                None => {
                    let new = c.op.apply(self.limits.math_initial, c.operand);
                    self.add(key, &self.value_of(new), c.expires)?.then_some(new)
                }
                Some(_) if c.only_new => return Err(Error::Exists),
                Some(old) => {
                    let number = self.number_of(&old).ok_or(Error::NotANumber { len: old.len() as u64 })?;
                    let new = c.op.apply(number, c.operand);
                    let expires = (c.old == Old::Goes).then_some(c.expires);
                    self.swap(key, &old, &Swap::Value(&self.value_of(new), expires))?.then_some(new)
                }
            };
            if let Some(new) = done {
                return Ok(new);
            }
            self.check_time(deadline)?;
        }
    }
}

fn arguments<'a>(op: &'static str, operand: &'a [u8], initial: &'a [u8], c: &Calculation) -> Vec<Word<'a>> {
    let flag = |on: bool| if on { &b"1"[..] } else { b"0" };
    let [ends, number] = Ends::from(c.expires).arguments();
    vec![
        op.as_bytes().into(),
        operand.into(),
        initial.into(),
        ends,
        number,
        flag(c.old == Old::Stays).into(),
        flag(c.only_new).into(),
    ]
}

/// For those who need a number's fault and not an error.
impl Backend {
    /// An operation that a cache with a backend has not.
    #[must_use]
    pub fn unsupported(&self, operation: &'static str) -> Error {
        self.error(BackendFault::Unsupported { operation })
    }
}
