//! The plan of a drive's new file, while the VM runs.

use std::path::{Path, PathBuf};

use super::Root;
use super::drives::image_name;
use crate::jail::JailStep;
use crate::rundir::file;
use crate::step::Step;

/// How another file is put behind a drive of a running VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Swap {
    /// The effects on the host.
    pub steps: Vec<Step>,
    /// The new file, seen from Firecracker's root.
    pub path: String,
    /// Whether the drive's files are copied for this VM.
    pub staged: bool,
    /// What led to the old file.
    pub old_path: PathBuf,
    /// The old file, or its copy.
    pub old_file: PathBuf,
}

/// The drive whose file is replaced.
pub(crate) struct Swapped<'a> {
    /// The drive.
    pub(crate) drive_id: &'a str,
    /// Where Firecracker finds the old file.
    pub(crate) seen: &'a str,
    /// Where that leads; nowhere where the file itself is there.
    pub(crate) leads_to: Option<PathBuf>,
    /// The old file, and the new one, as the user named them.
    pub(crate) files: (&'a Path, &'a Path),
    /// Whether the guest writes to it.
    pub(crate) writable: bool,
}

/// Plans to replace a drive's file. Whether the old one is a copy shows by where it leads.
/// `number` tells the new name from all before.
pub(crate) fn swap(root: &Root, what: Swapped<'_>, number: usize) -> Swap {
    let Swapped {
        drive_id,
        seen,
        leads_to: link,
        files: (old, new),
        writable,
    } = what;
    let old_path = root.file(seen);
    let staged = link.as_deref() != Some(old);
    let name = image_name(&format!("{drive_id}.{number}"), new);
    let path = format!("{}/{name}", file::DRIVES);
    let place = root.file(&path);
    let mut steps = Vec::new();
    let mut stage = |target: PathBuf| {
        steps.push(Step::StageDrive {
            drive_id: drive_id.to_owned(),
            source: new.to_owned(),
            target: target.clone(),
        });
        if root.is_jail() {
            steps.push(Step::Jail(JailStep::Own { path: target }));
        }
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
        steps.push(match root.is_jail() {
            true => Step::Jail(JailStep::Bring {
                what: format!("drive {drive_id}"),
                source: target,
                target: place,
                writable,
            }),
            false => Step::Link {
                path: place,
                target,
            },
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
