//! Huge pages for anonymous memory: fewer TLB entries for the same bytes.

use std::{fs, ptr::NonNull};

use super::map::Mapping;
use crate::error::{Error, Result};

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// The page size of the memory of a cache without a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Small pages, taken one by one as data arrives.
    #[default]
    Off,
    /// Huge pages (2 MiB), taken as data arrives, if the kernel provides them for shared memory:
    /// see `/sys/kernel/mm/transparent_hugepage/shmem_enabled`.
    Advised,
    /// Huge pages from the pool that the administrator reserved (`vm.nr_hugepages`), all of them at
    /// once for the whole capacity of the cache; they are not given back. If the pool has too few,
    /// as [`HugePages::Advised`].
    Reserved,
}

/// `len` bytes of zeros, shared with forked children. Returns the kind of pages obtained and, if it
/// is not the requested one, the reason.
pub(crate) fn anonymous(len: usize, pages: HugePages) -> Result<(Mapping, HugePages, Option<String>)> {
    let mut note = None;
    if pages == HugePages::Reserved {
        match reserved(len) {
            Ok(map) => return Ok((map, pages, None)),
            Err(e) => note = Some(format!("no reserved huge pages (vm.nr_hugepages): {e}")),
        }
    }
    if pages == HugePages::Off {
        return Ok((Mapping::anonymous(len)?, pages, None));
    }
    let why = refusal(shmem_policy().as_deref());
    // Advise in any case: the administrator may enable them while the cache is in use.
    let map = aligned(len).or_else(|_| Mapping::anonymous(len))?;
    let advised = map.advise_huge();
    let why = why.or_else(|| (!advised).then(|| "the kernel declines".to_owned()));
    Ok((map, HugePages::Advised, told(note, why)))
}

/// The message if the request was not met: why there are no reserved pages, and no transparent
/// ones.
fn told(reserved: Option<String>, transparent: Option<String>) -> Option<String> {
    let (before, after) = match (reserved, transparent) {
        (None, None) => return None,
        (Some(before), None) => (before + "; ", "transparent ones are used".to_owned()),
        (before, Some(why)) => (
            before.map_or_else(String::new, |before| before + "; "),
            format!("no transparent huge pages for shared memory ({why}); small pages are used"),
        ),
    };
    Some(format!("hugepages: {before}{after}"))
}

/// Pages of the pool. Without MAP_NORESERVE a shortage is an error now instead of a signal later.
fn reserved(len: usize) -> Result<Mapping> {
    let len = len.checked_next_multiple_of(HUGE).ok_or(Error::Damaged("a region of impossible length"))?;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    Mapping::map(len, libc::PROT_READ | libc::PROT_WRITE, flags, -1)
}

/// Shared memory aligned to the size of a huge page: the kernel requires aligned offsets, too.
fn aligned(len: usize) -> Result<Mapping> {
    let wide = len.checked_add(HUGE).ok_or(Error::Damaged("a region of impossible length"))?;
    let room = Mapping::map(
        wide,
        libc::PROT_NONE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        -1,
    )?;
    let start = room.start().as_ptr();
    let ahead = start.align_offset(HUGE);
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: `ahead` < HUGE, so `len` bytes from there lie in `room`, which no other code knows:
    // MAP_FIXED replaces a part of our own mapping.
    let p =
        unsafe { libc::mmap(start.add(ahead).cast(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if p == libc::MAP_FAILED {
        return Err(Error::last_os("mmap"));
    }
    let page = super::page::page_size();
    let behind = (ahead + len).next_multiple_of(page);
    let _ = std::mem::ManuallyDrop::new(room);
    // SAFETY: the parts of `room` before and behind the new mapping, which are unmapped here and
    // nowhere else: `room` is not dropped.
    unsafe {
        if ahead > 0 {
            libc::munmap(start.cast(), ahead);
        }
        let rest = wide.next_multiple_of(page) - behind;
        if rest > 0 {
            libc::munmap(start.add(behind).cast(), rest);
        }
    }
    let start = NonNull::new(p.cast::<u8>()).ok_or_else(|| Error::last_os("mmap"))?;
    Ok(Mapping::from_parts(start, len))
}

/// The kernel's policy for huge pages in shared memory; `None` = it has no support.
fn shmem_policy() -> Option<String> {
    let folder = "/sys/kernel/mm/transparent_hugepage";
    let text = |path: String| fs::read_to_string(path).unwrap_or_default();
    let of_size = text(format!("{folder}/hugepages-{}kB/shmem_enabled", HUGE >> 10));
    let of_all = text(format!("{folder}/shmem_enabled"));
    policy(&of_size, &of_all).map(str::to_owned)
}

/// The policy in force, given the settings for this page size and for all sizes. Each is a list of
/// words with the chosen one in brackets; empty = this kernel has no such setting.
fn policy<'a>(of_size: &'a str, of_all: &'a str) -> Option<&'a str> {
    let chosen = |text: &'a str| Some(text.split_once('[')?.1.split_once(']')?.0);
    match chosen(of_all) {
        // Testing overrides of the kernel; they apply whatever the size's own setting is.
        Some(all @ ("deny" | "force")) => Some(all),
        all => chosen(of_size).filter(|&policy| policy != "inherit").or(all),
    }
}

/// Why this policy gives no huge pages to memory advised for them.
fn refusal(policy: Option<&str>) -> Option<String> {
    match policy {
        Some(policy @ ("never" | "deny")) => Some(format!("shmem_enabled is {policy}")),
        Some(_) => None,
        None => Some("the kernel does not support them".to_owned()),
    }
}

impl Mapping {
    /// Requests huge pages; `false` = the kernel declines.
    fn advise_huge(&self) -> bool {
        // SAFETY: the range is this mapping; the advice changes no content.
        unsafe { libc::madvise(self.start().as_ptr().cast(), self.len(), libc::MADV_HUGEPAGE) == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_in_force_is_read_from_both_settings() {
        let of_size =
            |word| "always inherit within_size advise never".replace(word, &format!("[{word}]")) + "\n";
        let of_all =
            |word| "always within_size advise never deny force".replace(word, &format!("[{word}]")) + "\n";
        for all in ["always", "within_size", "advise", "never", "deny", "force"] {
            // Kernels before 6.12 only have the setting for all sizes.
            assert_eq!(policy("", &of_all(all)), Some(all));
            assert_eq!(policy(&of_size("inherit"), &of_all(all)), Some(all));
        }
        for size in ["always", "within_size", "advise", "never"] {
            assert_eq!(policy(&of_size(size), ""), Some(size));
            for all in ["always", "within_size", "advise", "never"] {
                assert_eq!(policy(&of_size(size), &of_all(all)), Some(size));
            }
            for all in ["deny", "force"] {
                assert_eq!(policy(&of_size(size), &of_all(all)), Some(all));
            }
        }
        for nothing in ["", "\n", "always advise never", "[", "]["] {
            assert_eq!(policy(nothing, nothing), None);
        }
        assert_eq!(policy(&of_size("inherit"), ""), None);
    }

    #[test]
    fn an_unmet_request_is_reported() {
        for policy in ["always", "within_size", "advise", "force"] {
            assert_eq!(refusal(Some(policy)), None);
        }
        assert_eq!(refusal(Some("never")).as_deref(), Some("shmem_enabled is never"));
        assert_eq!(refusal(Some("deny")).as_deref(), Some("shmem_enabled is deny"));
        assert_eq!(refusal(None).as_deref(), Some("the kernel does not support them"));
        let said = |reserved: Option<&str>, transparent: Option<&str>| {
            super::told(reserved.map(str::to_owned), transparent.map(str::to_owned)).unwrap_or_default()
        };
        let none = "no transparent huge pages for shared memory (why); small pages are used";
        assert_eq!(said(None, None), "");
        assert_eq!(said(None, Some("why")), format!("hugepages: {none}"));
        assert_eq!(said(Some("no pool"), None), "hugepages: no pool; transparent ones are used");
        assert_eq!(said(Some("no pool"), Some("why")), format!("hugepages: no pool; {none}"));
    }

    /// Kilobytes of a field of the mapping at `start`, from smaps.
    fn kib(start: *const u8, field: &str) -> Option<u64> {
        let maps = fs::read_to_string("/proc/self/smaps").ok()?;
        let from = maps.find(&format!("{:x}-", start.addr()))?;
        let line = maps[from..].lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    fn touch(map: &Mapping, every: usize) {
        for at in (0..map.len()).step_by(every) {
            // SAFETY: in the mapping, which is ours alone.
            unsafe { map.start().as_ptr().add(at).write(1) };
        }
    }

    #[test]
    fn advised_memory_is_aligned_and_whole() {
        for len in [1, 4096, HUGE - 1, HUGE, 3 * HUGE + 4097] {
            let (map, _, note) = anonymous(len, HugePages::Advised).expect("memory");
            assert!(map.start().as_ptr().addr().is_multiple_of(HUGE) && map.len() == len);
            touch(&map, 4096);
            let allowed = refusal(shmem_policy().as_deref()).is_none();
            assert_eq!(note.is_none(), allowed, "{note:?}");
            let huge = kib(map.start().as_ptr(), "ShmemPmdMapped:").expect("smaps has the mapping");
            // If the policy forbids them there are none; if it allows them the kernel may still
            // have run out.
            assert!(allowed || huge == 0, "{huge} kB");
        }
    }

    #[test]
    fn without_a_pool_small_pages_are_used_and_reported() {
        let pool = fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
        let more = fs::read_to_string("/proc/sys/vm/nr_overcommit_hugepages").unwrap_or_default();
        let count = |text: &str| text.trim().parse::<usize>().unwrap_or(0);
        // One page more than the pool can hold.
        let len = (count(&pool) + count(&more) + 1) * HUGE;
        let (map, pages, note) = anonymous(len, HugePages::Reserved).expect("memory");
        assert_eq!(pages, HugePages::Advised);
        assert!(note.as_ref().is_some_and(|note| note.contains("nr_hugepages")), "{note:?}");
        assert_eq!(map.len(), len);
        touch(&map, HUGE);
        // A request within the pool succeeds.
        if count(&pool) > 0
            && let Ok(map) = reserved(1)
        {
            touch(&map, 4096);
            assert_eq!(kib(map.start().as_ptr(), "KernelPageSize:"), Some(2048));
        }
    }

    #[test]
    fn off_requests_nothing() {
        let (map, _, note) = anonymous(HUGE, HugePages::Off).expect("memory");
        touch(&map, 4096);
        assert_eq!((note, kib(map.start().as_ptr(), "KernelPageSize:")), (None, Some(4)));
        assert_eq!(kib(map.start().as_ptr(), "ShmemPmdMapped:"), Some(0));
    }
}
