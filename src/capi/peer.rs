//! Where the local half of the C surface meets the network half: caches of other servers, and word to the nodes.
//!
//! No thread is cancelled in there.

use super::{
    buffer::Gift,
    cache::Cache,
    remote::{client, live, net},
};
use crate::engine::Expires;

macro_rules! shielded {
    ($($module:ident::$name:ident($($arg:ident: $of:ty),*) $(-> $to:ty)?;)+) => {
        $(
            #[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`]")]
            pub(super) fn $name($($arg: $of),*) $(-> $to)? {
                let _shield = net::shield();
                $module::$name($($arg),*)
            }
        )+
    };
}

shielded! {
    client::get(server: &[u8], cache: &[u8], key: &[u8]) -> Option<(Gift, u64)>;
    client::set(server: &[u8], cache: &[u8], key: &[u8], value: &[u8], expires: u64, flags: u64) -> bool;
    client::del(server: &[u8], cache: &[u8], key: &[u8]) -> bool;
    client::exists(server: &[u8], cache: &[u8], key: &[u8]) -> bool;
    client::clear(server: &[u8], cache: &[u8]) -> bool;
    live::start(cache: &'static Cache);
    live::tell_set(cache: &Cache, key: &[u8], value: &[u8], expires: Expires);
    live::tell_kept(cache: &Cache, key: &[u8]);
    live::tell_del(cache: &Cache, key: &[u8]);
    live::tell_clear(cache: &Cache);
}
