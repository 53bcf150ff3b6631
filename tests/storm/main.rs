//! Hostile surroundings: keys chosen to collide, a co-mapper that scribbles over the data, orders of memory accesses
//! that a weaker design would show, and a real uWSGI whose workers are killed under load, with uWSGI's own cache as the
//! control.

#[path = "../support/engine_image.rs"]
mod engine_image;
#[path = "../support/engine_proc.rs"]
mod engine_proc;
#[path = "../support/engine_step.rs"]
mod engine_step;
#[path = "../support/engine_value.rs"]
mod engine_value;
#[path = "../../src/shm/few.rs"]
mod few;
mod forks;
#[path = "../../src/engine/hash.rs"]
#[allow(dead_code, unreachable_pub, reason = "the engine's own hash, to choose keys with")]
mod hash;
mod keys;
mod litmus;
mod scribble;
/// What the hash takes from the layer below.
mod shm {
    pub(crate) use super::few::few;
}
#[path = "../support/server.rs"]
#[allow(dead_code, reason = "every test binary uses its own part")]
mod server;
mod uwsgi;
