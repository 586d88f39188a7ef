//! Who uses an image: VMs, by their specs on disk.

use std::path::{Path, PathBuf};

use crate::rundir::RuntimeDir;
use crate::spec::MicroVmSpec;
use crate::storage::checksum::sha256_of;
use crate::{Error, ErrorKind, Result, durable};

const DIR: &str = ".runtimes";
const MOST_BYTES: u64 = 64 << 10;

/// The runtime directories whose VMs may use what is in a directory.
#[derive(Debug, Clone)]
pub struct Users {
    dir: PathBuf,
}

impl Users {
    /// Of what is in `dir`.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.join(DIR) }
    }

    /// Notes that VMs of this runtime directory may use it.
    pub fn serve(&self, runtime_dir: &Path) -> Result<()> {
        let path = runtime_dir.as_os_str().as_encoded_bytes();
        let file = self.dir.join(sha256_of(path));
        if file.exists() {
            return Ok(());
        }
        durable::private_dir(&self.dir)?;
        durable::write_whole(&file, path)
    }

    /// The first VM of which `uses` is true. A VM that can't be read may be one.
    pub fn first(&self, uses: &dyn Fn(&crate::rundir::VmState) -> bool) -> Result<Option<String>> {
        for runtime in self.runtimes()? {
            for id in runtime.ids()? {
                match runtime.get(&id).and_then(|run_dir| run_dir.state()) {
                    Ok(state) if uses(&state) => return Ok(Some(format!("VM {id}"))),
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(_) => return Ok(Some(format!("VM {id}, which can't be read"))),
                }
            }
        }
        Ok(None)
    }

    fn runtimes(&self) -> Result<Vec<RuntimeDir>> {
        use std::os::unix::ffi::OsStringExt;
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("reading", &self.dir, e)),
        };
        let mut runtimes = Vec::new();
        for entry in entries.flatten() {
            let Some(path) = durable::read_bounded(&entry.path(), MOST_BYTES)? else {
                continue;
            };
            let path = PathBuf::from(std::ffi::OsString::from_vec(path));
            if path.is_dir() {
                runtimes.push(RuntimeDir::open(&path)?);
            }
        }
        Ok(runtimes)
    }
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
