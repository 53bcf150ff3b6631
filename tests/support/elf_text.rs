//! File offsets of a program's functions.

use std::{collections::BTreeMap, path::Path, process::Command};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e} (apt-get install binutils)"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a hexadecimal number")
}

/// The file offsets of the functions that a program exports.
pub(crate) fn offsets(program: &Path) -> BTreeMap<String, u64> {
    let program = program.display().to_string();
    let headers = run("readelf", &["-lW", &program]);
    // LOAD offset address physical size memory R E
    let text = headers.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.first() == Some(&"LOAD") && words.contains(&"E")).then(|| (hex(words[1]), hex(words[2])))
    });
    let (offset, address) = text.expect("program text");
    let place = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, "T", name] = words[..] else { return None };
        Some((name.to_owned(), hex(at) - address + offset))
    };
    run("nm", &["-D", "--defined-only", &program]).lines().filter_map(place).collect()
}
