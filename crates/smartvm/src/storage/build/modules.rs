//! Which modules a guest's initramfs needs.

use std::path::Path;

use super::BuildOptions;
use crate::storage::modules::{ModuleFile, ModuleTree};
use crate::storage::progress::{Progress, Watch};
use crate::{Error, ErrorKind, Result};

/// The drivers of Firecracker's devices, and the file systems that a root is made of. A
/// kernel may have any of them built in.
pub const GUEST_MODULES: [&str; 12] = [
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
    // No module's dependencies name what computes the checksums of ext4.
    "crc32c_generic",
    "crc32c_intel",
    "ext4",
    "squashfs",
    "overlay",
];

/// Those that many kernels do well without: nothing is said when they are missing.
const OPTIONAL: [&str; 4] = [
    "virtio_pci",
    "crc32c_generic",
    "crc32c_intel",
    "virtio_console",
];

/// The modules for the initramfs, in load order.
pub(super) fn choose(
    kernel: &Path,
    options: &BuildOptions,
    release: Option<&str>,
    watch: &mut Watch<'_>,
) -> Result<Vec<ModuleFile>> {
    let Some(dir) = &options.modules else {
        if let Some(extra) = options.extra_modules.first() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the module {extra} was asked for, but no module directory was given"),
            ));
        }
        return Ok(Vec::new());
    };
    let tree = ModuleTree::open(dir)?;
    if let Some(release) = release.filter(|&release| release != tree.release()) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the kernel {} is {release}, the modules in {} are for {}",
                kernel.display(),
                dir.display(),
                tree.release()
            ),
        )
        .at(dir)
        .hint("a kernel loads only modules of its own release: give the directory of that name"));
    }
    resolved(&tree, &options.extra_modules, watch)
}

/// The modules for a kernel whose module directory this is, in load order.
pub(in crate::storage) fn guest_modules(
    dir: &Path,
    watch: &mut Watch<'_>,
) -> Result<Vec<ModuleFile>> {
    resolved(&ModuleTree::open(dir)?, &[], watch)
}

fn resolved(tree: &ModuleTree, extra: &[String], watch: &mut Watch<'_>) -> Result<Vec<ModuleFile>> {
    let names = extra.iter().map(String::as_str);
    let names: Vec<&str> = GUEST_MODULES.into_iter().chain(names).collect();
    let resolved = tree.resolve(&names)?;
    for missing in &resolved.missing {
        if extra.contains(missing) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the kernel {} has no module {missing}", tree.release()),
            ));
        }
        if !OPTIONAL.contains(&missing.as_str()) {
            watch.tell(Progress::Note(format!(
                "the kernel {} has no {missing}, neither as a module nor built in",
                tree.release()
            )));
        }
    }
    Ok(resolved.files)
}

/// The release that a kernel says it is, such as `6.1.0-1-amd64`.
pub(super) fn release_of(kernel: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    kernel
        .windows(BANNER.len())
        .enumerate()
        .filter(|(_, window)| *window == BANNER)
        .find_map(|(at, _)| {
            let rest = &kernel[at + BANNER.len()..];
            let end = rest.iter().take(128).position(|&byte| byte == b' ')?;
            let release = std::str::from_utf8(&rest[..end]).ok()?;
            // The banner's own pattern (`%s`) is in the kernel as well.
            release
                .starts_with(|first: char| first.is_ascii_digit())
                .then(|| release.to_owned())
        })
}
