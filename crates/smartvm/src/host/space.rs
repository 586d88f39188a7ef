//! Free space, where files are about to be made.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ErrorKind;
use crate::spec::{Problem, Problems};

/// Space that something is going to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceNeed {
    /// The directory it goes to; it may not exist yet.
    pub dir: PathBuf,
    /// How much, in bytes.
    pub bytes: u64,
    /// What for, such as the path of a field: `drives[0].pathOnHost`.
    pub what: String,
}

/// Whether there is space for all of this at once; directories on one file system share it.
pub fn check_space(needs: &[SpaceNeed]) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let mut systems: Vec<(u64, u64, u64)> = Vec::new();
    for need in needs {
        let (device, free) = match measure(&need.dir) {
            Ok(found) => found,
            Err(error) => {
                let problem = format!("can't tell the space in {}: {error}", need.dir.display());
                let advice = "a directory on a file system that works";
                problems.push(Problem::new(&need.what, problem, advice).kind(ErrorKind::Host));
                continue;
            }
        };
        let used = match systems.iter_mut().find(|(other, ..)| *other == device) {
            Some((_, _, used)) => used,
            None => {
                systems.push((device, free, 0));
                // Just pushed, so the last is ours.
                let last = systems.len() - 1;
                &mut systems[last].2
            }
        };
        let before = *used;
        *used = used.saturating_add(need.bytes);
        if *used > free {
            let others = match before {
                0 => String::new(),
                before => format!(", {} of it taken by others here", mib(before)),
            };
            let problem = format!(
                "needs {} in {}, where {} are free{others}",
                mib(need.bytes),
                need.dir.display(),
                mib(free),
            );
            let advice = "free some space, or name another directory with `stagingDir`";
            problems.push(Problem::new(&need.what, problem, advice).kind(ErrorKind::Host));
        }
    }
    problems.into_result()
}

/// Device number and free bytes of the file system that `dir` is on, or will be.
pub(super) fn measure(dir: &Path) -> io::Result<(u64, u64)> {
    let existing = dir
        .ancestors()
        .map(|ancestor| match ancestor.as_os_str().is_empty() {
            true => Path::new("."),
            false => ancestor,
        })
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    let device = existing.metadata()?.dev();
    let system = rustix::fs::statvfs(existing)?;
    Ok((device, system.f_bavail.saturating_mul(system.f_frsize)))
}

/// Bytes as people read them; rounded up, so that "needs" is never below the truth.
pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_on_one_file_system_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let (_, free) = measure(dir.path()).unwrap();
        let need = |bytes, what: &str| SpaceNeed {
            dir: dir.path().join("not/yet/there"),
            bytes,
            what: what.into(),
        };
        // Others may use the file system meanwhile, so the figures keep far from its edge.
        assert!(check_space(&[need(free / 4, "a")]).is_ok());
        let problems = check_space(&[need(free / 4 * 3, "a"), need(free / 4 * 3, "b")]);
        let problems = problems.unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "b");
        assert_eq!(problems.kind(), ErrorKind::Host);
        assert!(check_space(&[need(u64::MAX, "a"), need(u64::MAX, "b")]).is_err());
    }
}
