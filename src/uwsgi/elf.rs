//! The loaded objects of this process and their exported symbols.
//!
//! `dlsym(RTLD_DEFAULT)` searches the process as a whole; the takeover needs to know which *object*
//! a function is in, and how long it is. Both are in the object's own `.dynsym`.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr, c_int, c_void},
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use super::image::Image;

const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_GNU_HASH: u64 = 0x6fff_fef5;

/// Where a symbol lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// Address in this process.
    pub(crate) address: usize,
    /// Bytes.
    pub(crate) size: usize,
}

/// A program or shared library mapped into this process.
#[derive(Debug)]
pub(crate) struct Object {
    base: usize,
    dynamic: usize,
    executable: Vec<Range<usize>>,
    /// The file; empty for the program.
    path: PathBuf,
}

/// All objects of the process, the program first.
pub(crate) fn objects() -> Vec<Object> {
    /// # Safety
    /// Called by `dl_iterate_phdr` with a valid description and the vector below.
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, list: *mut c_void) -> c_int {
        // SAFETY: `objects` passes its own vector, and the loader calls back only until
        // `dl_iterate_phdr` returns.
        let list = unsafe { &mut *list.cast::<Vec<Object>>() };
        // SAFETY: the loader passes a valid description; its program headers stay mapped during the
        // call.
        let info = unsafe { &*info };
        // SAFETY: as above, `dlpi_phnum` headers start at `dlpi_phdr`.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let base = address(info.dlpi_addr);
        let of = |h: &libc::Elf64_Phdr| base.wrapping_add(address(h.p_vaddr));
        let Some(dynamic) = headers.iter().find(|h| h.p_type == libc::PT_DYNAMIC) else { return 0 };
        let code = |h: &&libc::Elf64_Phdr| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0;
        let executable = headers.iter().filter(code).map(|h| of(h)..of(h).wrapping_add(address(h.p_memsz)));
        // SAFETY: NULL or a NUL-terminated name that does not change during the call.
        let path = (!info.dlpi_name.is_null()).then(|| unsafe { CStr::from_ptr(info.dlpi_name) });
        let path = OsStr::from_bytes(path.unwrap_or_default().to_bytes()).into();
        list.push(Object { base, dynamic: of(dynamic), executable: executable.collect(), path });
        0
    }
    let mut list: Vec<Object> = Vec::new();
    // SAFETY: `visit` has the type that the loader expects, and gets the vector that it casts to.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut list).cast()) };
    list
}

/// An ELF word as an address: this is a 64-bit process.
fn address(word: u64) -> usize {
    const { assert!(size_of::<usize>() == 8, "only 64-bit uWSGI is supported") };
    word as usize
}

impl Object {
    /// Whether `range` lies in one executable segment.
    pub(crate) fn executes(&self, range: &Range<usize>) -> bool {
        self.executable.iter().any(|code| code.start <= range.start && range.end <= code.end)
    }

    /// The file that the object was loaded from; `None` = unreadable, or replaced since.
    pub(crate) fn image(&self) -> Option<Image> {
        let program = PathBuf::from("/proc/self/exe");
        let path = if self.path.as_os_str().is_empty() { &program } else { &self.path };
        let image = Image::open(path).ok()?;
        (image.dynamic()? == self.in_file(self.dynamic)).then_some(image)
    }

    /// Converts an address of this process to the file's addresses.
    pub(crate) fn in_file(&self, address: usize) -> u64 {
        address.wrapping_sub(self.base) as u64
    }

    /// The exported symbols whose names `wanted` accepts.
    pub(crate) fn symbols(&self, wanted: impl Fn(&CStr) -> bool) -> HashMap<&'static CStr, Symbol> {
        let mut found = HashMap::new();
        let Some(table) = Table::read(self) else { return found };
        for index in 1..table.count {
            // SAFETY: `index < count`, which the object's own hash table gives for this symbol
            // table.
            let symbol = unsafe { &*table.symbols.add(index) };
            let name = symbol.st_name as usize;
            if symbol.st_shndx == 0 || name >= table.names_len {
                continue;
            }
            // SAFETY: inside the string table, which ends with a NUL; hosts and plugins are never
            // unloaded.
            let name: &'static CStr = unsafe { CStr::from_ptr(table.names.add(name)) };
            if wanted(name) {
                let address = self.base.wrapping_add(address(symbol.st_value));
                found.insert(name, Symbol { address, size: symbol.st_size as usize });
            }
        }
        found
    }
}

/// One entry of the dynamic section.
#[repr(C)]
struct Dyn {
    tag: u64,
    value: u64,
}

struct Table {
    symbols: *const libc::Elf64_Sym,
    names: *const std::ffi::c_char,
    names_len: usize,
    count: usize,
}

impl Table {
    fn read(object: &Object) -> Option<Self> {
        let (mut symbols, mut names, mut names_len, mut hash, mut gnu_hash) = (0, 0, 0, 0, 0);
        let mut entry = object.dynamic as *const Dyn;
        loop {
            // SAFETY: the dynamic section of a loaded object is mapped and ends with a zero tag.
            let Dyn { tag, value } = unsafe { entry.read() };
            match tag {
                0 => break,
                DT_SYMTAB => symbols = object.pointer(value),
                DT_STRTAB => names = object.pointer(value),
                DT_STRSZ => names_len = address(value),
                DT_HASH => hash = object.pointer(value),
                DT_GNU_HASH => gnu_hash = object.pointer(value),
                _ => {}
            }
            // SAFETY: the entry just read was not the last.
            entry = unsafe { entry.add(1) };
        }
        let count = if hash != 0 {
            // SAFETY: DT_HASH is `nbucket, nchain, ...` and nchain is the number of symbols.
            unsafe { (hash as *const u32).add(1).read() as usize }
        } else if gnu_hash != 0 {
            // SAFETY: the object's own table, mapped as long as the object is.
            unsafe { gnu_count(gnu_hash as *const u32) }
        } else {
            0
        };
        (symbols != 0 && names != 0).then_some(Self {
            symbols: symbols as *const libc::Elf64_Sym,
            names: names as *const std::ffi::c_char,
            names_len,
            count,
        })
    }
}

impl Object {
    /// glibc stores addresses in the dynamic section where the object was mapped, musl offsets.
    fn pointer(&self, value: u64) -> usize {
        let value = address(value);
        if value < self.base { self.base + value } else { value }
    }
}

/// The number of symbols behind a GNU hash table: one more than the last of the longest-reaching
/// chain.
///
/// # Safety
/// `table` is the DT_GNU_HASH table of a mapped object.
unsafe fn gnu_count(table: *const u32) -> usize {
    // SAFETY: the table starts with four words: buckets, first hashed symbol, filter words, shift.
    let [buckets, first, filter] = [0, 1, 2].map(|i| unsafe { table.add(i).read() } as usize);
    // SAFETY: the filter (64-bit words), the buckets and the chains follow one another.
    let (heads, chains) = unsafe {
        let heads = table.add(4 + 2 * filter);
        (heads, heads.add(buckets))
    };
    // SAFETY: `i < buckets`.
    let last = (0..buckets).map(|i| unsafe { heads.add(i).read() } as usize).max().unwrap_or(0);
    if last < first {
        return first;
    }
    let mut index = last;
    // SAFETY: every chain ends with an odd word, and `last` heads one.
    while unsafe { chains.add(index - first).read() } & 1 == 0 {
        index += 1;
    }
    index + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_c_library_with_addresses_and_sizes() {
        let in_all = |object: &Object| object.symbols(|name| name == c"getpid").get(c"getpid").copied();
        let found: Vec<(Object, Symbol)> = objects()
            .into_iter()
            .filter_map(|object| in_all(&object).map(|symbol| (object, symbol)))
            .collect();
        // SAFETY: a lookup by a NUL-terminated name.
        let getpid = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getpid".as_ptr()) } as usize;
        let (object, symbol) =
            found.iter().find(|(_, symbol)| symbol.address == getpid).expect("libc's getpid");
        assert!((1..256).contains(&symbol.size), "{symbol:?}");
        assert!(object.executes(&(symbol.address..symbol.address + symbol.size)));
        assert!(!object.executes(&(getpid..usize::MAX)));
    }

    #[test]
    fn a_symbol_that_is_only_used_is_not_exported() {
        let exports =
            objects().iter().filter(|o| !o.symbols(|n| n == c"no_such_symbol_anywhere").is_empty()).count();
        assert_eq!(exports, 0);
        // The program itself uses getpid but the C library defines it.
        assert!(objects()[0].symbols(|n| n == c"getpid").is_empty());
    }
}
