//! Whether a server is what the URL says: a node of a cluster, or a server by itself.

use std::time::Instant;

use super::{
    Backend, only,
    resp::{Reply, Request, Value, array},
    url::Route,
};
use crate::{error::Result, near::options::invalid};

/// What to write for a node of a cluster.
pub(super) const IS_CLUSTER: &str = "it is a node of a cluster: write redis+cluster:// (or rediss+cluster://) in place of redis:// (rediss://), and some of its nodes, as in redis+cluster://10.0.0.1:6379;10.0.0.2:6379";
/// What to write for a server that is none.
pub(super) const NO_CLUSTER: &str = "it is not a node of a cluster: write redis:// (or rediss://) in place of redis+cluster:// (rediss+cluster://), and one server";

impl Backend {
    /// Refuses a URL that a server which is up now contradicts. One that cannot be asked is no
    /// reason: it may be up later.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) says what to write.
    pub(in crate::near) fn check_mode(&self) -> Result<()> {
        let addresses = match &self.settings.url.route {
            Route::Server(address) => std::slice::from_ref(address),
            Route::Cluster(seeds) => &seeds[..],
            // Sentinels watch no clusters.
            Route::Sentinel(..) => return Ok(()),
        };
        let deadline = Instant::now() + self.settings.connect_timeout;
        let Some(is_node) = addresses.iter().find_map(|address| self.mode(address, deadline)) else {
            return Ok(());
        };
        let reason = match (is_node, self.cluster.is_some()) {
            (true, false) => IS_CLUSTER,
            (false, true) => NO_CLUSTER,
            _ => return Ok(()),
        };
        Err(invalid("backend", self.server(), reason))
    }

    /// Whether the server is a node of a cluster; `None` = it does not say.
    fn mode(&self, address: &super::url::Address, deadline: Instant) -> Option<bool> {
        let mut conn = super::conn::Conn::open(&self.settings, address, deadline).ok()?;
        let reply = conn.round_trip(&Request::one(&[b"HELLO"]), deadline).ok()?;
        is_node(only(reply)).ok()?
    }
}

/// The mode in a reply to `HELLO`.
pub(super) fn is_node(hello: Value) -> Reply<Option<bool>> {
    let fields = array(hello)?;
    Ok(fields.chunks(2).find_map(|pair| match pair {
        [Value::Bulk(name), Value::Bulk(mode)] if name == b"mode" => Some(mode == b"cluster"),
        _ => None,
    }))
}
