//! Which processor figures were measured on: by its family and model, since names repeat ("Intel(R) Xeon(R) Processor"
//! is said by several), with its caches and what decides how it copies.
#![allow(dead_code, reason = "every bench uses its own part")]

use std::{fs, path::Path, thread::available_parallelism};

/// Of the processor's features, those that the library's choices depend on.
const FLAGS: [&str; 6] = ["erms", "fsrm", "avx2", "avx512bw", "cx16", "lse"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processor {
    /// As the kernel names it.
    pub(crate) name: String,
    /// `intel`, `amd`, `arm`, or the vendor's own word.
    vendor: String,
    /// On ARM 0, and the part's number is the model.
    family: u32,
    model: u32,
    stepping: u32,
    pub(crate) flags: Vec<&'static str>,
    /// Level with kind, and kibibytes, as `L1d` and 48.
    pub(crate) caches: Vec<(String, u64)>,
    pub(crate) count: usize,
}

/// A number as `/proc/cpuinfo` writes it.
fn number(text: &str) -> u32 {
    let hex = text.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16));
    hex.unwrap_or_else(|| text.parse()).unwrap_or(0)
}

impl Processor {
    /// From the text of `/proc/cpuinfo`.
    fn parsed(cpuinfo: &str) -> Self {
        let field = |name: &str| {
            let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines.filter(|(field, _)| field.trim() == name).map(|(_, value)| value.trim()).next()
        };
        let of = |name: &str| field(name).map_or(0, number);
        // On ARM Linux calls them features, and LSE `atomics`.
        let words = field("flags").or_else(|| field("Features")).unwrap_or("").split(' ');
        let has: Vec<_> = words.map(|word| if word == "atomics" { "lse" } else { word }).collect();
        let vendor = match field("vendor_id") {
            Some("GenuineIntel") => "intel",
            Some("AuthenticAMD") => "amd",
            Some(other) => other,
            None if field("CPU implementer").is_some() => "arm",
            None => "unknown",
        };
        let arm = vendor == "arm";
        let mut processor = Self {
            name: field("model name").unwrap_or_default().to_owned(),
            vendor: vendor.to_lowercase(),
            family: if arm { 0 } else { of("cpu family") },
            model: of(if arm { "CPU part" } else { "model" }),
            stepping: of(if arm { "CPU revision" } else { "stepping" }),
            flags: FLAGS.into_iter().filter(|flag| has.contains(flag)).collect(),
            ..Self::default()
        };
        if processor.name.is_empty() {
            processor.name = processor.architecture().unwrap_or("unknown processor").to_owned();
        }
        processor
    }

    /// This machine's.
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").expect("/proc is mounted");
        let count = available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let caches = caches(Path::new("/sys/devices/system/cpu/cpu0/cache"));
        Self { count, caches, ..Self::parsed(&cpuinfo) }
    }

    /// What engineers call it, if it is one of those that are hired out.
    pub(crate) fn architecture(&self) -> Option<&'static str> {
        Some(match (self.vendor.as_str(), self.family, self.model, self.stepping) {
            ("intel", 6, 79, _) => "Broadwell",
            ("intel", 6, 85, 0..=4) => "Skylake-SP",
            ("intel", 6, 85, 5..=9) => "Cascade Lake",
            ("intel", 6, 85, _) => "Cooper Lake",
            ("intel", 6, 106 | 108, _) => "Ice Lake-SP",
            ("intel", 6, 143, _) => "Sapphire Rapids",
            ("intel", 6, 207, _) => "Emerald Rapids",
            ("intel", 6, 173 | 174, _) => "Granite Rapids",
            ("amd", 23, 1 | 17, _) => "Zen 1",
            ("amd", 23, 8 | 24, _) => "Zen+",
            ("amd", 23, 49, _) => "Zen 2",
            ("amd", 25, 0..=15, _) => "Zen 3",
            ("amd", 25, 16..=31 | 160..=175, _) => "Zen 4",
            ("amd", 26, 0..=31, _) => "Zen 5",
            ("arm", 0, 0xd0c, _) => "Neoverse N1 (Graviton 2)",
            ("arm", 0, 0xd40, _) => "Neoverse V1 (Graviton 3)",
            ("arm", 0, 0xd4f, _) => "Neoverse V2 (Graviton 4)",
            _ => return None,
        })
    }

    /// The name of its file of results.
    pub(crate) fn id(&self) -> String {
        format!(
            "{}-{}-{}",
            self.vendor.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
            self.family,
            self.model
        )
    }

    /// A short name for a column.
    pub(crate) fn short(&self) -> String {
        self.architecture().map_or_else(|| self.id(), str::to_owned)
    }

    /// Everything in one line.
    pub(crate) fn line(&self) -> String {
        let caches = self.caches.iter().map(|(name, kib)| {
            if *kib >= 1024 {
                format!("{name} {:.4} MiB", *kib as f64 / 1024.0)
            } else {
                format!("{name} {kib} KiB")
            }
        });
        format!(
            "{} x {} ({}{} family {} model {} stepping {}; {}; {})",
            self.count,
            self.name,
            self.architecture().map_or_else(String::new, |name| format!("{name}, ")),
            self.vendor,
            self.family,
            self.model,
            self.stepping,
            if self.flags.is_empty() { "no flags known".to_owned() } else { self.flags.join(" ") },
            caches.collect::<Vec<_>>().join(", ").replace(".0000", ""),
        )
    }
}

/// The caches of a processor, in a folder of `/sys`.
fn caches(folder: &Path) -> Vec<(String, u64)> {
    let read = |index: u32, what: &str| {
        let file = folder.join(format!("index{index}")).join(what);
        fs::read_to_string(file).map(|text| text.trim().to_owned()).ok()
    };
    let cache = |index: u32| {
        let (level, kind) = (read(index, "level")?, read(index, "type")?);
        let kib = read(index, "size")?.trim_end_matches('K').parse().ok()?;
        let kind = match kind.as_str() {
            "Data" => "d",
            "Instruction" => return Some(None),
            _ => "",
        };
        Some(Some((format!("L{level}{kind}"), kib)))
    };
    (0..8).map_while(cache).flatten().collect()
}

#[cfg(test)]
mod tests {
    #[allow(unused_imports, reason = "a bench has no tests")]
    use super::*;

    #[test]
    fn processors_are_told_apart_by_family_and_model() {
        let intel = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n\
                     model name\t: Intel(R) Xeon(R) Processor\nstepping\t: 7\nflags\t\t: fpu erms avx2 cx16\n\n\
                     processor\t: 1\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 99\n";
        let here = Processor::parsed(intel);
        assert_eq!((here.id().as_str(), here.architecture()), ("intel-6-85", Some("Cascade Lake")));
        assert_eq!(here.flags, ["erms", "avx2", "cx16"]);
        let newer = Processor::parsed(&intel.replace(": 85", ": 207"));
        assert_eq!((newer.id().as_str(), newer.short().as_str()), ("intel-6-207", "Emerald Rapids"));
        assert_eq!(newer.name, here.name);
        let line = here.line();
        assert!(
            line.contains("family 6 model 85") && line.contains("erms") && !line.contains("fsrm"),
            "{line}"
        );
    }

    #[test]
    fn arm_has_parts_instead_of_models() {
        let here = Processor::parsed(
            "processor\t: 0\nFeatures\t: fp asimd aes atomics fphp\nCPU implementer\t: 0x41\n\
             CPU part\t: 0xd40\nCPU revision\t: 1\n",
        );
        assert_eq!(here.flags, ["lse"]);
        assert_eq!((here.id().as_str(), here.name.as_str()), ("arm-0-3392", "Neoverse V1 (Graviton 3)"));
        let other = Processor::parsed("processor\t: 0\nCPU implementer\t: 0x48\nCPU part\t: 0xd01\n");
        assert_eq!((other.short().as_str(), other.name.as_str()), ("arm-0-3329", "unknown processor"));
    }
}
