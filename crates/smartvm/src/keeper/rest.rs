//! How little memory a keeper holds that has nothing to do: what it needed of its executable
//! to start is given back to the kernel, which still has it should it be needed again.

use std::ffi::c_void;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

/// So long nothing has to happen before a keeper rests. A VM that lives no longer ends sooner
/// without: its keeper would need again what it gave back.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// A mapping of a file: where it is, and how long, in bytes.
type Mapping = (usize, usize);

/// Gives back the pages of the executable that are in use. What can't be given back stays.
pub(super) fn rest() {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else {
        return;
    };
    for (start, length) in untouched(&smaps) {
        // SAFETY: this process can't write to the mapping and has no page of its own in it, so
        // that the file has all of its content: the next access reads it from there.
        let given_back = unsafe { madvise(start as *mut c_void, length, Advice::LinuxDontNeed) };
        if let Err(e) = given_back {
            tracing::debug!("giving back {length} bytes: {e}");
        }
    }
}

/// The mappings of files that were never written to: not writable, and without anonymous pages
/// (which relocation makes).
fn untouched(smaps: &str) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(mapping) = head(line) {
            current = mapping;
        } else if let Some(amount) = line.strip_prefix("Anonymous:")
            && let Some(mapping) = current.take()
            && amount.trim() == "0 kB"
        {
            mappings.push(mapping);
        }
    }
    mappings
}

/// A mapping's first line: `None` if it is none, `Some(None)` if the mapping isn't of a file, or
/// writable.
fn head(line: &str) -> Option<Option<Mapping>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let rights = words.next()?;
    let of_a_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    let fits = of_a_file && rights.starts_with("r-") && rights.ends_with('p');
    Some(fits.then_some((start, end.checked_sub(start)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-2000 r--p 00000000 fe:00 5802016                    /usr/bin/smartvm
Size:                  4 kB
Anonymous:             0 kB
2000-5000 r-xp 00001000 fe:00 5802016                    /usr/bin/smartvm (deleted)
Anonymous:             0 kB
5000-6000 r--p 00004000 fe:00 5802016                    /usr/bin/smartvm
Anonymous:             4 kB
6000-7000 rw-p 00005000 fe:00 5802016                    /usr/bin/smartvm
Anonymous:             0 kB
7000-8000 r--s 00000000 fe:00 5802017                    /tmp/shared
Anonymous:             0 kB
8000-9000 r--p 00000000 00:00 0
Anonymous:             0 kB
9000-a000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_what_the_file_has_whole_is_given_back() {
        assert_eq!(untouched(SMAPS), [(0x1000, 0x1000), (0x2000, 0x3000)]);
    }

    #[test]
    fn a_process_goes_on_after_its_rest() {
        let before = SMAPS.lines().count();
        rest();
        assert_eq!(SMAPS.lines().count(), before);
        assert!(!untouched(&std::fs::read_to_string("/proc/self/smaps").unwrap()).is_empty());
    }
}
