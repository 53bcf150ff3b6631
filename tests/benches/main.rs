//! The parts of the benches that can be wrong without anybody noticing: what decides whether figures are believed, the
//! model of many workers, the histories, and that the documents say what the results say.

#[path = "../../benches/support/histories.rs"]
mod histories;
#[path = "../../benches/support/processor.rs"]
mod processor;
#[path = "../../benches/support/quiet.rs"]
mod quiet;
#[path = "../../benches/support/results.rs"]
mod results;
#[path = "../../benches/support/simulation.rs"]
mod simulation;

mod replayed;
mod simulated;

use std::{fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// `make bench PART=documents` writes them.
#[test]
fn the_documents_say_what_the_results_say() {
    let models = results::load(&root().join("benches/results"));
    assert!(!models.is_empty(), "benches/results holds nothing");
    let pages = [
        ("README.md", "readme", results::readme(&models)),
        ("src/docs/performance.md", "processors", results::processors(&models)),
    ];
    for (file, part, text) in pages {
        let page = page(file);
        let shown =
            results::between(&page, part).unwrap_or_else(|| panic!("{file} has no figures of {part}"));
        assert_eq!(shown.trim(), text.trim(), "{file}: `make bench PART=documents` writes it anew");
    }
}
