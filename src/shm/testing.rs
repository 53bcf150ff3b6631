//! Regions for unit tests.
#![forbid(unsafe_code)]

use super::{
    layout::{Geometry, Layout},
    region::Region,
};
use crate::os::map::Mapping;

/// Of a few items, without anything that is optional.
pub(crate) const SMALL: Geometry = Geometry {
    capacity: 10,
    shards: 1,
    homes: 4,
    overflow: 2,
    spans: 1,
    stamps: false,
    ghosts: false,
    sieve: false,
    checksums: false,
};

/// An anonymous region, of whose data area nothing is backed yet.
pub(crate) fn region(geo: Geometry) -> Region {
    let layout = Layout::new(geo).expect("a layout");
    let map = Mapping::anonymous(layout.end as usize).expect("memory");
    Region::new(map, layout, None).expect("a region")
}
