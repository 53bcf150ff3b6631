//! Limits of keys and values.
#![forbid(unsafe_code)]

use crate::{
    engine::{Engine, stats::Counter},
    error::{Error, Result},
};

impl Engine {
    /// Refuses keys and values over the limits.
    #[inline(always)]
    pub(in crate::engine) fn check_limits(&self, key: &[u8], value_len: usize) -> Result<()> {
        let c = &self.config;
        let within = |len: usize, most: u64| (len as u64).wrapping_sub(1) < most;
        if within(key.len(), c.max_key) && within(value_len, c.max_value) && c.blocks.is_none() {
            return Ok(());
        }
        self.check_each_limit(key, value_len)
    }

    #[inline(never)]
    fn check_each_limit(&self, key: &[u8], value_len: usize) -> Result<()> {
        let c = &self.config;
        let refused = if key.is_empty() {
            Error::EmptyKey
        } else if key.len() as u64 > c.max_key {
            Error::KeyTooLong { len: key.len(), limit: c.max_key as usize }
        } else if value_len == 0 {
            Error::EmptyValue
        } else if !self.value_fits(value_len as u64) {
            let in_blocks = c.blocks.map_or(u64::MAX, |b| b.size.saturating_mul(b.count));
            Error::ValueTooLong { len: value_len as u64, limit: c.max_value.min(in_blocks) }
        } else {
            return Ok(());
        };
        self.count(Counter::RejectedLimit, 1);
        Err(refused)
    }

    /// Whether a value of this length is within the limits.
    pub(in crate::engine) fn value_fits(&self, len: u64) -> bool {
        let c = &self.config;
        len <= c.max_value && c.blocks.is_none_or(|b| self.blocks_for(len) <= b.count)
    }
}
