//! Who uses an image or a Firecracker: VMs and snapshots, by their specs on disk.

use std::path::{Path, PathBuf};

use crate::firecracker::Version;
use crate::rundir::RuntimeDir;
use crate::snapshot::{Manifest, Shelf};
use crate::spec::MicroVmSpec;
use crate::storage::checksum::sha256_of;
use crate::{Error, ErrorKind, Result, durable};

const DIR: &str = ".runtimes";
const SHELVES: &str = ".shelves";
const MOST_BYTES: u64 = 64 << 10;

/// The runtime directories whose VMs, and the shelves whose snapshots may use what is in a
/// directory.
#[derive(Debug, Clone)]
pub struct Users {
    dir: PathBuf,
    shelves: PathBuf,
}

/// Whether what was asked for, with the Firecracker that it runs or ran in, uses something.
pub(crate) type Uses<'a> = &'a dyn Fn(&MicroVmSpec, Version) -> bool;

impl Users {
    /// Of what is in `dir`.
    pub fn of(dir: &Path) -> Self {
        Self {
            dir: dir.join(DIR),
            shelves: dir.join(SHELVES),
        }
    }

    /// Notes that VMs of this runtime directory and snapshots on this shelf may use it.
    pub fn serve(&self, runtime_dir: &Path, shelf: &Shelf) -> Result<()> {
        note(&self.dir, runtime_dir)?;
        note(&self.shelves, shelf.dir())
    }

    /// The first VM or snapshot that `uses` it. One that can't be read may be one.
    pub(crate) fn first(&self, uses: Uses<'_>) -> Result<Option<String>> {
        for runtime in self.runtimes()? {
            for id in runtime.ids()? {
                match runtime.get(&id).and_then(|run_dir| run_dir.state()) {
                    Ok(state) if uses(&state.spec, state.firecracker) => {
                        return Ok(Some(format!("VM {id}")));
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(_) => return Ok(Some(format!("VM {id}, which can't be read"))),
                }
            }
        }
        for dir in noted(&self.shelves)? {
            let needs = |it: &Manifest| uses(&it.spec, it.origin.firecracker);
            if let Some(name) = Shelf::at(dir).first(&needs)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn runtimes(&self) -> Result<Vec<RuntimeDir>> {
        noted(&self.dir)?
            .iter()
            .map(|path| RuntimeDir::open(path))
            .collect()
    }
}

/// Notes a directory in `notes`.
fn note(notes: &Path, dir: &Path) -> Result<()> {
    let path = dir.as_os_str().as_encoded_bytes();
    let file = notes.join(sha256_of(path));
    if file.exists() {
        return Ok(());
    }
    durable::private_dir(notes)?;
    durable::write_whole(&file, path)
}

/// The directories that are noted there and still exist.
fn noted(notes: &Path) -> Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    let entries = match std::fs::read_dir(notes) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("reading", notes, e)),
    };
    let mut dirs = Vec::new();
    for entry in entries.flatten() {
        let Some(path) = durable::read_bounded(&entry.path(), MOST_BYTES)? else {
            continue;
        };
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        if path.is_dir() {
            dirs.push(path);
        }
    }
    Ok(dirs)
}

/// Whether a VM's spec names a file in `dir`.
pub(super) fn names(spec: &MicroVmSpec, dir: &Path) -> bool {
    let boot = &spec.boot_source;
    let drives = spec
        .drives
        .iter()
        .filter_map(|drive| drive.path_on_host.as_deref());
    std::iter::once(boot.kernel_image_path.as_path())
        .chain(boot.initrd_path.as_deref())
        .chain(drives)
        .any(|path| path.starts_with(dir))
}
