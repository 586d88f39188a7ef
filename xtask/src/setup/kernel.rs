//! Kernels, unpacked from Debian's packages but not installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::debian;
use crate::cache::Cache;
use crate::failure::{Failure, Result};
use crate::program;

/// To be raised with every change of how a kernel is unpacked.
const RECIPE: &str = "1";

/// A kernel that guests boot.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) release: String,
    /// Its image, as Debian installs it.
    pub(crate) image: PathBuf,
    /// Its modules: `.../lib/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

/// The emulated host's kernel: the directory that `SMARTVM_EMULATE_KERNEL` names, where it is
/// set. Debian's usual one: those for clouds can't have a root file system over 9p.
///
/// # Errors
/// If it can't be downloaded or unpacked.
pub(super) fn emulated_host(cache: &Cache) -> Result<PathBuf> {
    match std::env::var_os("SMARTVM_EMULATE_KERNEL").filter(|path| !path.is_empty()) {
        Some(path) => Ok(path.into()),
        None => tree(cache, "kernel/host", "linux-image-amd64"),
    }
}

/// The guests' kernel.
///
/// # Errors
/// If it can't be downloaded or unpacked.
pub(super) fn guest(cache: &Cache) -> Result<Kernel> {
    let tree = tree(cache, "kernel/guest", "linux-image-cloud-amd64")?;
    let release = release(&tree)?;
    Ok(Kernel {
        image: tree.join(format!("boot/vmlinuz-{release}")),
        modules: tree.join("lib/modules").join(&release),
        release,
    })
}

fn tree(cache: &Cache, name: &str, metapackage: &str) -> Result<PathBuf> {
    cache.directory(name, RECIPE, |part| {
        if !debian::is_here() {
            return Err(
                Failure::new(format!("there is no apt-get to get {metapackage} with")).hint(
                    format!(
                        "unpack Debian's {metapackage} into {} by other means",
                        cache.path(name).display()
                    ),
                ),
            );
        }
        debian::unpack_kernel(metapackage, part)?;
        // Later releases of Debian have everything below /usr.
        if !part.join("lib/modules").exists() && part.join("usr/lib/modules").is_dir() {
            let link = part.join("lib");
            symlink("usr/lib", &link).map_err(Failure::io("making", &link))?;
        }
        let release = release(part)?;
        let mut depmod = program::command("depmod")?;
        program::output(depmod.arg("--basedir").arg(part).arg(release)).map(drop)
    })
}

/// The one kernel's release.
fn release(tree: &Path) -> Result<String> {
    let boot = tree.join("boot");
    let entries = fs::read_dir(&boot).map_err(Failure::io("reading", &boot))?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()))
        .ok_or_else(|| Failure::new(format!("there is no kernel in {}", boot.display())))
}
