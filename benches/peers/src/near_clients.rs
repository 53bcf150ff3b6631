//! redis-rs, without and with its client-side cache.

use std::{path::Path, time::Instant};

use redis::{
    AsyncConnectionConfig, Client, Connection, FromRedisValue, ToRedisArgs, aio::MultiplexedConnection,
    caching::CacheConfig, cmd,
};
use tokio::runtime::{Builder, Runtime};

use crate::{load::Store, near::PREFIX};

fn named(key: &[u8; 16]) -> Vec<u8> {
    [PREFIX.as_bytes(), key].concat()
}

fn client(socket: &Path, options: &str) -> Client {
    Client::open(format!("redis+unix://{}{options}", socket.display())).expect("an address")
}

/// One request, one answer.
pub(crate) struct Plain(Connection);

impl Plain {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self(client(socket, "").get_connection().expect("the server listens"))
    }

    /// A thousand changes at once, of keys that no one reads.
    pub(crate) fn set_thousand(&mut self) {
        let mut pipe = redis::pipe();
        for n in 0..1000 {
            pipe.set(format!("{PREFIX}{n:03}"), "v").ignore();
        }
        pipe.query::<()>(&mut self.0).expect("SET");
    }
}

impl Store for Plain {
    fn get(&mut self, key: &[u8; 16], out: &mut [u8; 100]) -> bool {
        let value: Option<Vec<u8>> = cmd("GET").arg(named(key)).query(&mut self.0).expect("GET");
        take(value, out)
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        cmd("SET").arg(named(key)).arg(value).query::<()>(&mut self.0).expect("SET");
    }
}

/// Values that the client keeps until the server says that they have changed. A thread of its own
/// receives the messages.
pub(crate) struct Caching {
    runtime: Runtime,
    connection: MultiplexedConnection,
}

impl Caching {
    pub(crate) fn connect(socket: &Path, size: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let cache = CacheConfig::new().set_size(size.try_into().expect("not 0"));
        let config = AsyncConnectionConfig::new().set_cache_config(cache);
        let client = client(socket, "?protocol=resp3");
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = runtime.block_on(connecting).expect("the server listens");
        Self { runtime, connection }
    }

    /// Nanoseconds of a read, without what entering the runtime takes.
    pub(crate) fn gets(&mut self, keys: &[[u8; 16]]) -> f64 {
        let Self { runtime, connection } = self;
        runtime.block_on(async {
            let (start, mut out) = (Instant::now(), [0; 100]);
            for key in keys {
                let value = ask(connection, "GET", named(key)).await;
                assert!(take(value, &mut out), "a key was not found");
            }
            start.elapsed().as_nanos() as f64 / keys.len() as f64
        })
    }
}

impl Store for Caching {
    fn get(&mut self, key: &[u8; 16], out: &mut [u8; 100]) -> bool {
        let Self { runtime, connection } = self;
        take(runtime.block_on(ask(connection, "GET", named(key))), out)
    }

    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]) {
        let Self { runtime, connection } = self;
        runtime.block_on(ask(connection, "SET", (named(key), value.as_slice())))
    }
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    name: &str,
    arguments: impl ToRedisArgs,
) -> T {
    cmd(name).arg(arguments).query_async(connection).await.expect("an answer")
}

fn take(value: Option<Vec<u8>>, out: &mut [u8; 100]) -> bool {
    value.is_some_and(|value| {
        value.len() == out.len() && {
            out.copy_from_slice(&value);
            true
        }
    })
}
