//! The file of a loaded object: its program text before any change in memory.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// An open program or library.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    segments: Vec<Segment>,
}

/// A mapped part of the file.
#[derive(Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl Image {
    /// Opens an ELF file for this machine's architecture.
    ///
    /// # Errors
    /// Not readable, or not such a file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let header: [u8; 64] = read(&file, 0)?;
        let (table, count) = (u64::from_le_bytes(part(&header, 32)), u16::from_le_bytes(part(&header, 56)));
        if !header.starts_with(b"\x7fELF\x02\x01") || u16::from_le_bytes(part(&header, 54)) != 56 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let at = |i: u16| table.checked_add(56 * u64::from(i)).ok_or(io::ErrorKind::InvalidData);
        let segments =
            (0..count).map(|i| Ok(Segment::new(&read(&file, at(i)?)?))).collect::<io::Result<_>>()?;
        Ok(Self { file, segments })
    }

    /// The address of the dynamic section, in the file's own addresses.
    pub(crate) fn dynamic(&self) -> Option<u64> {
        self.segments.iter().find(|s| s.kind == libc::PT_DYNAMIC).map(|s| s.address)
    }

    /// `len` bytes of program text at an address of the file.
    ///
    /// # Errors
    /// The file has no text at this address.
    pub(crate) fn text(&self, address: u64, len: usize) -> io::Result<Vec<u8>> {
        let inside = |s: &&Segment| {
            let place = address.checked_sub(s.address);
            let executable = s.kind == libc::PT_LOAD && s.flags & libc::PF_X != 0;
            executable && place.is_some_and(|place| place < s.size && len as u64 <= s.size - place)
        };
        let segment = self.segments.iter().find(inside).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, segment.offset + (address - segment.address))?;
        Ok(bytes)
    }
}

impl Segment {
    /// From an entry of the program header table.
    fn new(entry: &[u8; 56]) -> Self {
        Self {
            kind: u32::from_le_bytes(part(entry, 0)),
            flags: u32::from_le_bytes(part(entry, 4)),
            offset: u64::from_le_bytes(part(entry, 8)),
            address: u64::from_le_bytes(part(entry, 16)),
            size: u64::from_le_bytes(part(entry, 32)),
        }
    }
}

fn read<const N: usize>(file: &File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The bytes of one number; zeros beyond the end.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}
