//! The one place where the local half of the C surface meets the network half.

use super::{buffer::Buffer, cache::Cache};
use crate::engine::Expires;

pub(super) fn get(_server: &[u8], _cache: &[u8], _key: &[u8]) -> Option<(Buffer, u64)> {
    None
}
pub(super) fn set(_s: &[u8], _c: &[u8], _k: &[u8], _v: &[u8], _expires: u64, _flags: u64) -> bool {
    false
}
pub(super) fn del(_server: &[u8], _cache: &[u8], _key: &[u8]) -> bool {
    false
}
pub(super) fn exists(_server: &[u8], _cache: &[u8], _key: &[u8]) -> bool {
    false
}
pub(super) fn clear(_server: &[u8], _cache: &[u8]) -> bool {
    false
}
pub(super) fn start(_cache: &Cache) {}
pub(super) fn tell_set(_cache: &Cache, _key: &[u8], _value: &[u8], _expires: Expires) {}
pub(super) fn tell_del(_cache: &Cache, _key: &[u8]) {}
pub(super) fn tell_clear(_cache: &Cache) {}
