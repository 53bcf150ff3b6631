//! Loads of short byte strings.
#![forbid(unsafe_code)]

/// Loads fewer than 8 bytes as a little-endian word, padded with zeros; without a call or a loop.
#[inline]
pub(crate) fn load_partial(bytes: &[u8]) -> u64 {
    let (len, half) = (bytes.len(), bytes.len() / 2);
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // Two overlapping halves, which agree where they overlap.
        (Some(a), Some(b)) => {
            u64::from(u32::from_le_bytes(*a))
                | u64::from(u32::from_le_bytes(*b)).unbounded_shl(8 * (len as u32).wrapping_sub(4))
        }
        _ if len == 0 => 0,
        _ => {
            u64::from(bytes[0])
                | u64::from(bytes[half]) << (8 * half)
                | u64::from(bytes[len - 1]) << (8 * (len - 1))
        }
    }
}
