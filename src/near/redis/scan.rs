//! Walks over keys, and a clear: `SCAN` of the prefix.

use std::{collections::HashSet, sync::Arc};

use super::{
    Backend, Repeat,
    cluster::Node,
    only,
    resp::{Reply, Request, Value, array, int, string, unexpected},
};
use crate::error::Result;

/// Keys that the server looks at for one reply.
const COUNT: &[u8] = b"1000";

/// Position of a walk. Not a snapshot: what is stored or removed meanwhile may be met or not.
#[derive(Debug)]
pub struct Scan {
    /// Behind the cache's own.
    prefix: Vec<u8>,
    pattern: Vec<u8>,
    /// Where the next call continues; `None` = the walk is over.
    cursor: Option<Vec<u8>>,
    /// Nodes of a cluster that are still to be walked over, the present one last.
    nodes: Option<Vec<Arc<Node>>>,
    /// Keys handed out: a server that changes the size of its table gives some twice.
    seen: HashSet<Vec<u8>>,
}

impl Scan {
    /// A walk over the names at the server that match a pattern.
    pub(super) fn of(pattern: Vec<u8>) -> Self {
        let cursor = Some(b"0".to_vec());
        Self { prefix: Vec::new(), pattern, cursor, nodes: None, seen: HashSet::new() }
    }
}

impl Backend {
    /// Begins a walk over the keys with this prefix (behind the cache's own).
    #[must_use]
    pub fn scan(&self, prefix: &[u8]) -> Scan {
        // Which number stands before the keys is asked for later.
        let named = if self.generations.is_some() { b"" } else { prefix };
        Scan { prefix: prefix.to_vec(), ..Scan::of(self.pattern(named, b"*")) }
    }

    /// The pattern of names that begin with the cache's prefix and this one.
    pub(super) fn pattern(&self, prefix: &[u8], rest: &[u8]) -> Vec<u8> {
        [&escaped(&self.settings.prefix), &escaped(prefix), rest].concat()
    }

    /// Some more keys that hold strings, each once, without the cache's prefix; `None` = that was
    /// all.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend); a server that is down ends the walk, with
    /// `on_down=miss`.
    pub fn next_keys(&self, scan: &mut Scan) -> Result<Option<Vec<Vec<u8>>>> {
        let batch = self.next_batch(scan, true);
        let Some(batch) = self.or_miss(batch, None)? else { return Ok(None) };
        let base = match self.full(b"") {
            Ok(base) => base,
            Err(error) => return self.or_miss(Err(error), None),
        };
        let keys = batch.into_iter().filter_map(|key| {
            let key = key.strip_prefix(&base[..])?;
            (key.starts_with(&scan.prefix) && scan.seen.insert(key.to_vec())).then(|| key.to_vec())
        });
        Ok(Some(keys.collect()))
    }

    /// All keys with this prefix (behind the cache's own).
    ///
    /// # Errors
    /// As [`Backend::next_keys`].
    pub fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (mut scan, mut keys) = (self.scan(prefix), Vec::new());
        while let Some(batch) = self.next_keys(&mut scan)? {
            keys.extend(batch);
        }
        Ok(keys)
    }

    /// Removes all keys of this cache, whatever they hold. Each key goes in one step, all of them
    /// do not: what is stored meanwhile may stay, but nothing whose computation had begun. Never `FLUSHDB`: other keys of the database stay.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend).
    pub fn clear(&self) -> Result<()> {
        if self.clear_by_number()? {
            return Ok(());
        }
        self.void_leases()?;
        let mut scan = self.scan(b"");
        while let Some(keys) = self.next_batch(&mut scan, false)? {
            if keys.is_empty() {
                continue;
            }
            let replies = self.call(&self.unlinks(&keys), Repeat::Never)?;
            self.answer(replies.into_iter().map(int).collect::<Reply<Vec<_>>>())?;
        }
        Ok(())
    }

    /// The request that removes several keys: nodes of a cluster take them one by one only.
    pub(super) fn unlinks(&self, keys: &[Vec<u8>]) -> Request {
        let mut request = Request::default();
        let each = if self.cluster.is_some() { 1 } else { keys.len() };
        for keys in keys.chunks(each) {
            let words: Vec<&[u8]> =
                [&b"UNLINK"[..]].into_iter().chain(keys.iter().map(Vec::as_slice)).collect();
            request.add(&words);
        }
        request
    }

    /// One `SCAN`: the keys as the server has them.
    pub(super) fn next_batch(&self, scan: &mut Scan, strings: bool) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(at) = scan.cursor.as_deref() else { return Ok(None) };
        let mut words = vec![&b"SCAN"[..], at, b"MATCH", &scan.pattern, b"COUNT", COUNT];
        if strings {
            words.extend([&b"TYPE"[..], b"string"]);
        }
        let request = Request::one(&words);
        let reply = match self.node_of(&mut scan.nodes)? {
            None => self.call(&request, Repeat::Safe)?,
            Some(node) => self.call_node(&node, &request)?,
        };
        let (next, keys) = self.answer(batch(only(reply)))?;
        scan.cursor = (next != b"0").then_some(next);
        if let (None, Some(nodes)) = (&scan.cursor, &mut scan.nodes) {
            nodes.pop();
            scan.cursor = (!nodes.is_empty()).then(|| b"0".to_vec());
        }
        Ok(Some(keys))
    }

    /// The node of a cluster that is walked over now.
    fn node_of(&self, nodes: &mut Option<Vec<Arc<Node>>>) -> Result<Option<Arc<Node>>> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        if nodes.is_none() {
            let map = cluster.map(&self.settings, self.deadline()).map_err(|fault| self.error(fault))?;
            *nodes = Some(map.nodes().to_vec());
        }
        Ok(nodes.as_ref().and_then(|nodes| nodes.last()).map(Arc::clone))
    }
}

/// A reply to `SCAN`: the next cursor and some keys.
fn batch(reply: Value) -> Reply<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut parts = array(reply)?.into_iter();
    let (Some(next), Some(keys)) = (parts.next(), parts.next()) else {
        return Err(unexpected("SCAN without a cursor"));
    };
    let next = string(next)?.ok_or(unexpected("SCAN without a cursor"))?;
    let keys = array(keys)?.into_iter().map(string).collect::<Reply<Vec<_>>>()?;
    Ok((next, keys.into_iter().flatten().collect()))
}

/// The pattern that only this text matches.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 1);
    for &byte in text {
        if b"*?[]\\^-".contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn patterns_match_themselves_only() {
        assert_eq!(escaped(b"a*b[c]?\\"), b"a\\*b\\[c\\]\\?\\\\");
        assert_eq!(escaped(b"\0:\xff"), b"\0:\xff");
    }
}
