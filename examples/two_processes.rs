//! One cache in two programs that share only the path of a file.
//!
//!     cargo run --example two_processes
//!
//! starts itself again as `two_processes worker PATH`. Both write, and each reads the other's
//! value.
#![allow(clippy::disallowed_macros, reason = "an example talks to its user")]

use std::{
    env,
    error::Error,
    path::Path,
    process::{self, Command},
};

use ucache::Cache;

const ROUNDS: i64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args_os().skip(1).collect();
    match args.as_slice() {
        [] => server(),
        [role, path] if role == "worker" => worker(path.as_ref()),
        _ => Err("usage: two_processes [worker PATH]".into()),
    }
}

fn server() -> Result<(), Box<dyn Error>> {
    let path = env::temp_dir().join(format!("two_processes.{}.ucache", process::id()));
    let cache = Cache::builder("shared").items(1000).store(&path).build()?;
    cache.set("greeting", "hello from the server")?;

    let mut other = Command::new(env::current_exe()?).arg("worker").arg(&path).spawn()?;
    let counted = (0..ROUNDS).try_for_each(|_| cache.incr("counter", 1).map(drop));
    let status = other.wait()?;
    std::fs::remove_file(&path)?;
    counted?;
    if !status.success() {
        return Err(format!("the worker failed: {status}").into());
    }

    println!("server: {}", cache.get_str("answer")?.unwrap_or_default());
    println!("server: counter = {} of {}", cache.get_int_or("counter", 0)?, 2 * ROUNDS);
    Ok(())
}

fn worker(path: &Path) -> Result<(), Box<dyn Error>> {
    let cache = Cache::attach(path)?;
    println!("worker: {}", cache.get_str("greeting")?.unwrap_or_default());
    for _ in 0..ROUNDS {
        cache.incr("counter", 1)?;
    }
    cache.set("answer", format!("hello from process {}", process::id()))?;
    Ok(())
}
