//! The drives of a VM: each file by a link, or as a copy of the VM's own, under a name that
//! Firecracker knows.

use std::path::{Path, PathBuf};

use super::{Context, Planner};
use crate::error::{Error, ErrorKind, Result};
use crate::jail::JailStep;
use crate::rundir::file;
use crate::spec::{Drive, MicroVmSpec, RuntimeOptions};
use crate::step::Step;

/// A drive's file, and what becomes of it.
pub(super) struct Wanted {
    drive_id: String,
    /// The image, or the socket of who serves it.
    source: PathBuf,
    /// Its name among the drives.
    name: String,
    /// Whether this VM gets a copy.
    staged: bool,
    /// Whether the guest may write it.
    writable: bool,
}

impl Wanted {
    /// The drive of a spec.
    fn new(drive: &Drive, options: &RuntimeOptions) -> Result<Self> {
        let file = drive.path_on_host.as_ref();
        let source = file.or(drive.socket.as_ref()).ok_or_else(|| {
            let message = format!("drive {} has neither file nor socket", drive.drive_id);
            Error::new(ErrorKind::Invalid, message)
        })?;
        Ok(Self {
            drive_id: drive.drive_id.clone(),
            source: source.clone(),
            name: image_name(&drive.drive_id, source),
            staged: drive.staged(options),
            writable: file.is_some() && !drive.read_only(),
        })
    }

    /// The copy of a drive in a snapshot: what the guest may not write is shared.
    pub(super) fn of_snapshot(drive_id: &str, copy: PathBuf, name: &str, read_only: bool) -> Self {
        Self {
            drive_id: drive_id.to_owned(),
            source: copy,
            name: name.to_owned(),
            staged: !read_only,
            writable: !read_only,
        }
    }
}

impl Planner<'_> {
    /// Links or copies of the spec's drives' files; returns their paths seen from Firecracker's
    /// root.
    pub(super) fn drives(
        &mut self,
        spec: &MicroVmSpec,
        context: &Context<'_>,
    ) -> Result<Vec<String>> {
        let wanted = spec.drives.iter();
        let wanted: Vec<_> = wanted
            .map(|drive| Wanted::new(drive, context.options))
            .collect::<Result<_>>()?;
        Ok(self.place_drives(&wanted, spec.staging_dir.as_deref(), context))
    }

    /// The same for what is known of drives otherwise; copies are made in `staging`, if it is
    /// given.
    pub(super) fn place_drives(
        &mut self,
        drives: &[Wanted],
        staging: Option<&Path>,
        context: &Context<'_>,
    ) -> Vec<String> {
        if drives.is_empty() {
            return Vec::new();
        }
        let path = self.root.file(file::DRIVES);
        self.step(match self.root.is_jail() {
            true => Step::Jail(JailStep::MakeDir { path }),
            false => Step::MakeDir { path },
        });
        let elsewhere = staging
            .filter(|_| drives.iter().any(|drive| drive.staged))
            .map(|dir| dir.join(format!("smartvm-{}", context.id)));
        if let Some(path) = &elsewhere {
            self.step(Step::ClaimDir {
                path: path.clone(),
                vm: context.id.to_string(),
                runtime_dir: context.runtime_dir.to_owned(),
            });
        }
        let place = |drive: &Wanted| self.place_drive(drive, elsewhere.as_deref());
        drives.iter().map(place).collect()
    }

    fn place_drive(&mut self, drive: &Wanted, elsewhere: Option<&Path>) -> String {
        let name = format!("{}/{}", file::DRIVES, drive.name);
        let what = format!("drive {}", drive.drive_id);
        if !drive.staged {
            return self.bring(&what, &name, &drive.source, drive.writable);
        }
        let target = match elsewhere {
            Some(dir) => dir.join(&drive.name),
            None => self.root.file(&name),
        };
        self.step(Step::StageDrive {
            drive_id: drive.drive_id.clone(),
            source: drive.source.clone(),
            target: target.clone(),
        });
        if self.root.is_jail() {
            self.step(Step::Jail(JailStep::Own {
                path: target.clone(),
            }));
        }
        match elsewhere {
            Some(_) => self.bring(&what, &name, &target, drive.writable),
            None => name,
        }
    }
}

/// A drive's name in the run dir: its id and the name of its image, for whoever looks there.
pub(super) fn image_name(id: &str, source: &Path) -> String {
    const MOST_CHARS: usize = 40;
    let image = source.file_name().unwrap_or_default().to_string_lossy();
    let image: String = image.chars().take(MOST_CHARS).collect();
    format!("{id}-{image}")
}
