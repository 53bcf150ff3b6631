//! What keys and values may be.
#![forbid(unsafe_code)]

use super::{Engine, stats::Counter};
use crate::error::{Error, Result};

impl Engine {
    /// Refuses keys and values outside of the limits.
    #[inline(always)]
    pub(super) fn check_limits(&self, key: &[u8], value_len: usize) -> Result<()> {
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
        let blocks = self.blocks_for(value_len as u64);
        let refused = if key.is_empty() {
            Error::EmptyKey
        } else if key.len() as u64 > c.max_key {
            Error::KeyTooLong { len: key.len(), limit: c.max_key as usize }
        } else if value_len == 0 {
            Error::EmptyValue
        } else if value_len as u64 > c.max_value || c.blocks.is_some_and(|b| blocks > b.count) {
            let in_blocks = c.blocks.map_or(u64::MAX, |b| b.size.saturating_mul(b.count));
            Error::ValueTooLong { len: value_len as u64, limit: c.max_value.min(in_blocks) }
        } else {
            return Ok(());
        };
        self.count(Counter::RejectedLimit, 1);
        Err(refused)
    }
}
