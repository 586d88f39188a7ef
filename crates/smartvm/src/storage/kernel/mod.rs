//! Kernels: what a file is, and the ELF image that Firecracker boots taken out of what a
//! distribution installs.

mod bzimage;
mod elf;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::spec::Arch;
use crate::storage::copy::open_source;
use crate::storage::space::Size;
use crate::{Error, ErrorKind, Result};

/// Largest kernel that is read or comes out of a compressed one, in bytes: 1 GiB.
pub const MAX_KERNEL_BYTES: u64 = 1 << 30;

/// Bytes that are enough for every header looked at.
const HEAD_BYTES: u64 = 64 << 10;

/// How a kernel image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelFormat {
    /// An ELF executable (`vmlinux`).
    Elf,
    /// The flat image of a 64-bit Arm kernel (`Image`).
    Image,
}

/// What a kernel image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelInfo {
    /// Layout.
    pub format: KernelFormat,
    /// Architecture it runs on.
    pub arch: Arch,
    /// Size of the file in bytes.
    pub size_bytes: u64,
}

/// The kernel that Firecracker boots, out of `image`: an ELF kernel or an Arm `Image` as it
/// is, or what a bzImage holds (gzip, xz, lz4, zstd, bzip2 or lzma).
///
/// Anything else, and a damaged image, is refused with what was found.
pub fn extract_vmlinux(image: &Path) -> Result<Vec<u8>> {
    let mut file = open_source(image)?;
    let size = size_of(&file, image)?;
    if size > MAX_KERNEL_BYTES {
        return Err(refused(
            image,
            &format!("is {} large, more than a kernel can be", Size(size)),
        ));
    }
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_KERNEL_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|cause| Error::io("reading the kernel", image, cause))?;
    if bzimage::is_one(&bytes) {
        bytes = bzimage::extract(&bytes).map_err(|what| refused(image, &what))?;
    }
    inspect(&bytes, bytes.len() as u64).map_err(|what| refused(image, &what))?;
    Ok(bytes)
}

/// Verifies that `path` is a kernel image that Firecracker can boot (a 64-bit little-endian
/// ELF executable whose segments are all in the file, or an Arm `Image`) and tells what it is.
pub fn inspect_elf(path: &Path) -> Result<KernelInfo> {
    let mut file = open_source(path)?;
    let size = size_of(&file, path)?;
    let mut head = Vec::new();
    (&mut file)
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(|cause| Error::io("reading the kernel", path, cause))?;
    inspect(&head, size).map_err(|what| refused(path, &what))
}

/// Looks at the start of an image of `size` bytes.
fn inspect(head: &[u8], size: u64) -> Result<KernelInfo, String> {
    let (format, arch) = elf::inspect(head, size)?;
    Ok(KernelInfo {
        format,
        arch,
        size_bytes: size,
    })
}

fn size_of(file: &File, path: &Path) -> Result<u64> {
    let metadata = file
        .metadata()
        .map_err(|cause| Error::io("looking at the kernel", path, cause))?;
    Ok(metadata.len())
}

fn refused(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("the kernel {} {what}", path.display()),
    )
    .at(path)
    .hint(
        "Firecracker boots an uncompressed kernel (vmlinux); `smartvm image build` takes it out \
         of what a distribution installs as /boot/vmlinuz-*",
    )
}

#[cfg(test)]
pub(super) mod tests;
