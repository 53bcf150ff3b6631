//! Connects the local part of the C interface with the network part: caches of other servers, and
//! replication to other nodes.
//!
//! Cancellation of the calling thread is disabled in these calls.

use super::{caches, remote};
use crate::{
    capi::{buffer::MallocBuf, host::cache::Cache},
    engine::Expires,
    net::conn,
};

macro_rules! shielded {
    ($($module:ident::$name:ident($($arg:ident: $of:ty),*) $(-> $to:ty)?;)+) => {
        $(
            #[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`]")]
            pub(crate) fn $name($($arg: $of),*) $(-> $to)? {
                let _shield = conn::shield();
                $module::$name($($arg),*)
            }
        )+
    };
}

shielded! {
    remote::get(server: &[u8], cache: &[u8], key: &[u8]) -> Option<(MallocBuf, u64)>;
    remote::set(server: &[u8], cache: &[u8], key: &[u8], value: &[u8], expires: u64, flags: u64) -> bool;
    remote::del(server: &[u8], cache: &[u8], key: &[u8]) -> bool;
    remote::exists(server: &[u8], cache: &[u8], key: &[u8]) -> bool;
    remote::clear(server: &[u8], cache: &[u8]) -> bool;
    caches::start(cache: &'static Cache);
    caches::replicate_set(cache: &Cache, key: &[u8], value: &[u8], expires: Expires);
    caches::replicate_kept(cache: &Cache, key: &[u8]);
    caches::replicate_del(cache: &Cache, key: &[u8]);
    caches::replicate_clear(cache: &Cache);
}
