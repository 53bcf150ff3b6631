//! What the memory is used for, as rows, as a table by size of block, and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Rows;
use crate::{
    cli::text::{count, percent, size, times},
    engine::Memory,
};

pub(super) fn rows(m: &Memory) -> Rows {
    let in_use = m.extents + m.large_blocks + m.leaving;
    let mut rows = vec![
        ("payload", size(m.payload)),
        ("resident", format!("{} ({} times the payload)", size(m.resident), times(m.resident, m.payload))),
        ("overhead", size(m.overhead)),
        (
            "fragmentation",
            format!("{} ({} of {})", size(m.fragmentation), percent(m.fragmentation, in_use), size(in_use)),
        ),
        ("free, not released", size(m.idle)),
    ];
    if m.disk != 0 {
        rows.push(("on disk", size(m.disk)));
    }
    rows
}

/// A line for each class, and what is in none.
pub(super) fn classes(out: &mut impl Write, m: &Memory) -> io::Result<()> {
    writeln!(
        out,
        "  {:>10} {:>13} {:>11} {:>11} {:>13} {:>11}",
        "size up to", "items", "payload", "entries", "free blocks", "free"
    )?;
    for c in &m.classes {
        writeln!(
            out,
            "  {:>10} {:>13} {:>11} {:>11} {:>13} {:>11}",
            size(c.size),
            count(c.items),
            size(c.payload),
            size(c.entries),
            count(c.free_blocks),
            size(c.free)
        )?;
    }
    let rows = [
        ("extents", format!("{} of {}", count(m.extent_count), size(m.extents))),
        ("  their unused ends", size(m.unused_ends)),
        ("  gaps under 32 B", size(m.gaps)),
        ("large blocks", format!("{} of {}", count(m.large_block_count), size(m.large_blocks))),
        ("extents being emptied", size(m.leaving)),
        ("holes in the file", size(m.holes)),
    ];
    for (name, value) in rows {
        writeln!(out, "  {name:<22} {value}")?;
    }
    Ok(())
}

pub(super) fn object(m: &Memory) -> Value {
    let class = |c: &crate::engine::SizeClass| {
        json!({
            "size": c.size, "items": c.items, "payload_bytes": c.payload, "entry_bytes": c.entries,
            "free_blocks": c.free_blocks, "free_bytes": c.free,
        })
    };
    json!({
        "entry_bytes": m.entries,
        "extents": m.extent_count,
        "extent_bytes": m.extents,
        "unused_end_bytes": m.unused_ends,
        "gap_bytes": m.gaps,
        "large_blocks": m.large_block_count,
        "large_block_bytes": m.large_blocks,
        "leaving_bytes": m.leaving,
        "hole_bytes": m.holes,
        "classes": m.classes.iter().map(class).collect::<Vec<_>>(),
    })
}
