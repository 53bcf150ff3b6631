//! Items passed between the commands.

/// A value and its expiry (Unix time, milliseconds; 0 = never).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    pub(super) expires: u64,
}

/// An item of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    /// Bytes of the value.
    pub(super) len: u64,
    /// The value, if requested or available anyway.
    pub(super) value: Option<Vec<u8>>,
    /// Unix time, milliseconds; 0 = never.
    pub(super) expires: u64,
    /// Reads miss it (uWSGI's UNGETTABLE).
    pub(super) hidden: bool,
}
