//! Figures that are kept in a file for each build, and growth beyond them.
#![allow(clippy::disallowed_macros, dead_code, reason = "a bench prints its figures")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

/// Figures by name.
pub(crate) type Counts = BTreeMap<String, f64>;

/// Which figures can be compared: those of one compiler, target and profile.
fn build() -> String {
    let rustc =
        Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    let version = rustc.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "with assertions" } else { "profile bench" };
    format!("{version}, {}, {profile}", env::consts::ARCH)
}

/// A file of figures, and what may grow how much.
pub(crate) struct Baseline {
    /// Below `benches`.
    pub(crate) file: &'static str,
    pub(crate) unit: &'static str,
    /// So many times the figure in the file, and so much more, is no growth.
    pub(crate) most: f64,
    pub(crate) slack: f64,
}

impl Baseline {
    fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(self.file)
    }

    /// All builds' figures.
    pub(crate) fn known(&self) -> Value {
        let text = fs::read_to_string(self.path()).unwrap_or_else(|_| "{}".into());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("benches/{}: {e}", self.file))
    }

    /// What grew too much, as texts.
    pub(crate) fn grown(&self, counts: &Counts, baseline: &Counts) -> Vec<String> {
        let pairs = counts.iter().filter_map(|(name, &now)| Some((name, now, *baseline.get(name)?)));
        pairs
            .filter(|&(_, now, before)| now > before * self.most + self.slack)
            .map(|(name, now, before)| format!("{name}: {before} -> {now:.1} {}", self.unit))
            .collect()
    }

    /// Says what grew beyond this build's figures in the file, or with `UCACHE_BASELINE=write` puts these there. Whether
    /// all is well.
    pub(crate) fn compare(&self, counts: &Counts) -> bool {
        let (build, mut all) = (build(), self.known());
        if env::var("UCACHE_BASELINE").is_ok_and(|what| what == "write") {
            let rounded: Counts =
                counts.iter().map(|(name, n)| (name.clone(), (n * 10.0).round() / 10.0)).collect();
            all[&build] = json!(rounded);
            fs::write(self.path(), format!("{all:#}\n")).expect("the baseline is written");
            println!("benches/{} has the figures of {build}", self.file);
            return true;
        }
        let Some(known) = all.get(&build) else {
            println!("no baseline of {build} in benches/{}; UCACHE_BASELINE=write makes this one", self.file);
            return true;
        };
        let known: Counts = serde_json::from_value(known.clone()).expect("names and numbers");
        let grown = self.grown(counts, &known);
        let percent = (self.most - 1.0) * 100.0;
        if grown.is_empty() {
            println!("no figure of benches/{} grew by more than {percent:.0} % ({build})", self.file);
            return true;
        }
        println!("grew by more than {percent:.0} %:\n  {}", grown.join("\n  "));
        println!(
            "if that is worth it: UCACHE_BASELINE=write cargo bench --features redis --bench instructions"
        );
        false
    }
}
