//! Histories: concurrent operations of several processes, checked for an order that explains all
//! answers.

mod beside;
mod deaths;
#[path = "../support/engine_proc.rs"]
mod engine_proc;
#[path = "../support/engine_step.rs"]
mod engine_step;
#[path = "../support/engine_value.rs"]
mod engine_value;
#[path = "../support/history.rs"]
mod history;
#[path = "../support/history_actor.rs"]
mod history_actor;
#[path = "../support/history_log.rs"]
mod history_log;
mod judge;
mod many;
#[path = "../support/patience.rs"]
mod patience;
mod stepped;
