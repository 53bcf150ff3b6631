//! Caches of processors that are hired out, for the simulator in valgrind: the first level for data, and the second,
//! which is the last that a core has to itself.
#![allow(dead_code, reason = "the test looks at the list only")]

/// Bytes and ways; lines have 64 bytes everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) bytes: u32,
    pub(crate) ways: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) name: &'static str,
    pub(crate) first: Level,
    pub(crate) second: Level,
}

const fn kib(kib: u32, ways: u32) -> Level {
    Level { bytes: kib * 1024, ways }
}

/// By the vendors' manuals; Graviton 2 and 3 (Neoverse N1 and V1) have the same.
pub(crate) const GEOMETRIES: [Geometry; 6] = [
    Geometry { name: "Cascade Lake", first: kib(32, 8), second: kib(1024, 16) },
    Geometry { name: "Sapphire Rapids", first: kib(48, 12), second: kib(2048, 16) },
    Geometry { name: "Zen 3", first: kib(32, 8), second: kib(512, 8) },
    Geometry { name: "Zen 4", first: kib(32, 8), second: kib(1024, 8) },
    Geometry { name: "Zen 5", first: kib(48, 12), second: kib(1024, 16) },
    Geometry { name: "Graviton 2, 3", first: kib(64, 4), second: kib(1024, 8) },
];

impl Geometry {
    /// Of the first level for instructions only its size matters here: all of them hold an operation.
    pub(crate) fn options(&self) -> [String; 4] {
        let level = |name: &str, level: Level| format!("--{name}={},{},64", level.bytes, level.ways);
        [
            "--cache-sim=yes".to_owned(),
            level("I1", kib(32, 8)),
            level("D1", self.first),
            level("LL", self.second),
        ]
    }

    /// As `32K / 1M`.
    pub(crate) fn sizes(&self) -> String {
        let size = |bytes: u32| {
            if bytes >= 1 << 20 { format!("{}M", bytes >> 20) } else { format!("{}K", bytes >> 10) }
        };
        format!("{} / {}", size(self.first.bytes), size(self.second.bytes))
    }
}
