//! The caches of other languages' servers, each timed by a script in that language.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::server::Server;

/// Gets and sets in millions a second, of all processes together.
pub(crate) type Rates = (f64, f64);

type Keys = [[u8; 16]];

/// Writes the files of keys that a script reads: all of them, then each process's in its order.
fn write_keys(dir: &Path, all: &Keys, orders: &[&Keys]) -> Vec<PathBuf> {
    let lists: Vec<_> = std::iter::once(&all).chain(orders).collect();
    let files: Vec<_> = (0..lists.len()).map(|n| dir.join(n.to_string())).collect();
    for (file, keys) in files.iter().zip(&lists) {
        fs::write(file, keys.as_flattened()).expect("a file of keys");
    }
    files
}

/// A line for each process: nanoseconds of a get and of a set.
fn rates(said: &str, processes: usize) -> Rates {
    let mut total = (0.0, 0.0);
    for line in said.lines() {
        let mut nanos = line.split(' ').map(|n| n.parse::<f64>().expect("a number of the script"));
        total.0 += 1e3 / nanos.next().expect("gets");
        total.1 += 1e3 / nanos.next().expect("sets");
    }
    assert_eq!(said.lines().count(), processes, "{said}");
    total
}

/// APCu, by `apcu.php`.
pub(crate) fn apcu(all: &Keys, orders: &[&Keys]) -> Rates {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files = write_keys(dir.path(), all, orders);
    let output = Command::new("php")
        .args(["-d", "apc.enable_cli=1", "-d", "apc.shm_size=1G", "-d", "memory_limit=-1"])
        .args(["-d", &format!("apc.entries_hint={}", all.len())])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/apcu.php"))
        .args(&files)
        .output()
        .expect("php runs (`.ci/deps bench` installs php-cli and php-apcu)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    rates(&said, orders.len())
}

/// nginx's `ngx.shared.DICT`, by `shared_dict.lua` in the workers of an nginx that serves nothing
/// else.
pub(crate) fn shared_dict(all: &Keys, orders: &[&Keys]) -> Rates {
    let workers = orders.len();
    let mut server = Server::spawn(|dir| {
        write_keys(dir, all, orders);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/shared_dict.lua");
        let here = dir.display();
        let config = format!(
            "load_module modules/ndk_http_module.so;\nload_module modules/ngx_http_lua_module.so;\n\
             user root;\ndaemon off;\nworker_processes {workers};\npid {here}/pid;\nerror_log stderr error;\n\
             events {{}}\nhttp {{\naccess_log off;\nlua_shared_dict cache 1024m;\nlua_shared_dict meeting 1m;\n\
             init_worker_by_lua_block {{ ngx.timer.at(0, function() dofile(\"{script}\")(\"{here}\", {workers}) end) }}\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), config).expect("the configuration is written");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.join("nginx.conf"));
        command
    });
    let outs: Vec<_> = (0..workers).map(|n| server.dir.path().join(format!("out.{n}"))).collect();
    // A script that fails says so in the log, and its worker lives on.
    server.until("the figures of ngx.shared.DICT", |server| {
        assert!(!server.log().contains("[error]"), "{}", server.log());
        outs.iter().all(|out| out.exists())
    });
    let said: String = outs.iter().map(|out| fs::read_to_string(out).expect("a worker's figures")).collect();
    rates(&said, workers)
}
