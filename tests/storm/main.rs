//! Hostile environments: keys chosen to collide, a process that overwrites the shared data, memory
//! orders that a weaker design would expose, and a real uWSGI whose workers are killed under load,
//! with uWSGI's own cache as the control.

#[path = "../support/engine_image.rs"]
mod engine_image;
#[path = "../support/engine_proc.rs"]
mod engine_proc;
#[path = "../support/engine_step.rs"]
mod engine_step;
#[path = "../support/engine_value.rs"]
mod engine_value;
mod forks;
#[path = "../../src/engine/index/hash.rs"]
#[allow(dead_code, unreachable_pub, reason = "the engine's own hash, to choose keys with")]
mod hash;
mod keys;
mod litmus;
#[path = "../../src/shm/load_partial.rs"]
mod load_partial;
#[path = "../support/patience.rs"]
mod patience;
mod scribble;
/// The items that the hash module imports from the layer below.
mod shm {
    pub(crate) use super::load_partial::load_partial;
}
#[path = "../support/server.rs"]
#[allow(dead_code, reason = "every test binary uses its own part")]
mod server;
mod uwsgi;
