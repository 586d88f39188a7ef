//! How much space things take, and how much is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// Bytes that a file takes on its file system; holes take none.
pub fn allocated_bytes(path: &Path) -> Result<u64> {
    let metadata =
        fs::metadata(path).map_err(|cause| Error::io("looking at the size of", path, cause))?;
    // st_blocks counts 512 bytes each, whatever the file system's own block is.
    Ok(metadata.blocks().saturating_mul(512))
}

/// Bytes that an ordinary caller can still write to the file system that `dir` is on.
pub fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|cause| Error::io("looking for the free space of", dir, cause))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Refuses, with the figures, where `needed` bytes for `purpose` don't fit into `dir`.
pub fn require_free(dir: &Path, needed: u64, purpose: &str) -> Result<()> {
    let free = free_bytes(dir)?;
    if free < needed {
        return Err(Error::new(
            ErrorKind::Host,
            format!(
                "{purpose} needs {} in {}, where {} are free",
                Size(needed),
                dir.display(),
                Size(free)
            ),
        )
        .at(dir)
        .hint("free some space there, or choose a directory on a larger file system"));
    }
    Ok(())
}

/// A number of bytes for people: "3.2 GiB"; exact below 10 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl std::fmt::Display for Size {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 10 * 1024 {
            return write!(out, "{} bytes", self.0);
        }
        let mut tenths = u128::from(self.0) * 10 / 1024;
        let mut unit = 0;
        while tenths >= 10_240 && unit + 1 < UNITS.len() {
            tenths /= 1024;
            unit += 1;
        }
        write!(out, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let told =
            [0, 10_239, 10_240, 1 << 20, 3_435_973_837, u64::MAX].map(|n| Size(n).to_string());
        let expected = [
            "0 bytes",
            "10239 bytes",
            "10.0 KiB",
            "1.0 MiB",
            "3.2 GiB",
            "16777215.9 TiB",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_hole_takes_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hole");
        fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
        assert!(allocated_bytes(&path).unwrap() < 1 << 20);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let dir = tempfile::tempdir().unwrap();
        require_free(dir.path(), 1, "a test").unwrap();
        let error = require_free(dir.path(), u64::MAX, "a test").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Host);
        assert!(
            error
                .to_string()
                .contains("a test needs 16777215.9 TiB in ")
        );
        assert!(error.way_out().is_some());
    }
}
