//! The plan of a drive's new file, while the VM runs.

use std::path::{Path, PathBuf};

use super::drives::image_name;
use crate::rundir::file;
use crate::step::Step;

/// How another file is put behind a drive of a running VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Swap {
    /// The effects on the host.
    pub steps: Vec<Step>,
    /// The new file, seen from Firecracker's working directory.
    pub path: String,
    /// Whether the drive's files are copied for this VM.
    pub staged: bool,
    /// What led to the old file.
    pub old_path: PathBuf,
    /// The old file, or its copy.
    pub old_file: PathBuf,
}

/// Plans to replace a drive's file, from the one to the other. `seen` is where Firecracker finds
/// the old one; whether that is a copy shows by where it leads. `number` tells the new name from
/// all before.
pub(crate) fn swap(
    run_dir: &Path,
    drive_id: &str,
    seen: &str,
    (old, new): (&Path, &Path),
    number: usize,
) -> Swap {
    let old_path = run_dir.join(seen);
    let link = std::fs::read_link(&old_path).ok();
    let staged = link.as_deref() != Some(old);
    let name = image_name(&format!("{drive_id}.{number}"), new);
    let path = format!("{}/{name}", file::DRIVES);
    let place = run_dir.join(&path);
    let mut steps = Vec::new();
    let mut stage = |target: PathBuf| {
        steps.push(Step::StageDrive {
            drive_id: drive_id.to_owned(),
            source: new.to_owned(),
            target,
        });
    };
    let target = match (&link, staged) {
        (_, false) => Some(new.to_owned()),
        (None, true) => {
            stage(place.clone());
            None
        }
        // The copies are in another directory.
        (Some(old_copy), true) => {
            let target = old_copy.with_file_name(&name);
            stage(target.clone());
            Some(target)
        }
    };
    if let Some(target) = target {
        steps.push(Step::Link {
            path: place,
            target,
        });
    }
    Swap {
        steps,
        path,
        staged,
        old_file: link.unwrap_or_else(|| old_path.clone()),
        old_path,
    }
}
