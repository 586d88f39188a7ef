//! Whether a file is a kernel that Firecracker boots, as its first bytes tell.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::spec::Arch;
use crate::storage::inspect_elf;

/// What is wrong with the kernel image, and what to do about it.
pub(super) fn check(path: &Path, arch: Arch) -> Result<(), (String, String)> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(1024).read_to_end(&mut head))
        .map_err(|error| (format!("can't be read: {error}"), "a readable file".into()))?;
    let format = Format::of(&head);
    let wanted = match arch {
        Arch::X86_64 => Format::Elf(62),
        Arch::Aarch64 => Format::ArmImage,
    };
    if format == wanted {
        // The head is that of a kernel: the rest must be there, too.
        return inspect_elf(path).map(drop).map_err(|error| {
            (
                error.to_string(),
                "a whole kernel; fetch or build it again".into(),
            )
        });
    }
    let allowed = match arch {
        Arch::X86_64 => "an uncompressed ELF kernel (vmlinux) for x86_64",
        Arch::Aarch64 => "an uncompressed kernel (Image) for aarch64",
    };
    let found = match format {
        Format::Elf(62) => "is an ELF kernel for x86_64".into(),
        Format::Elf(183) => "is an ELF kernel for aarch64".into(),
        Format::Elf(machine) => format!("is an ELF file for another machine ({machine})"),
        Format::ArmImage => "is a kernel for aarch64".into(),
        Format::BzImage => {
            let advice =
                format!("{allowed}; `smartvm image build --kernel` takes it out of this bzImage");
            return Err(("is a compressed kernel (bzImage)".into(), advice));
        }
        Format::Empty => "is empty".into(),
        Format::Unknown => "isn't a kernel".into(),
    };
    Err((found, allowed.into()))
}

#[derive(Debug, PartialEq, Eq)]
enum Format {
    /// A 64-bit ELF file for this machine, little-endian.
    Elf(u16),
    ArmImage,
    BzImage,
    Empty,
    Unknown,
}

impl Format {
    fn of(head: &[u8]) -> Self {
        if head.is_empty() {
            Self::Empty
        } else if head.starts_with(b"\x7fELF\x02\x01") && head.len() >= 64 {
            Self::Elf(u16::from_le_bytes([head[18], head[19]]))
        } else if head.get(0x202..0x206) == Some(b"HdrS") {
            Self::BzImage
        } else if head.get(0x38..0x3c) == Some(b"ARM\x64") {
            Self::ArmImage
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(head: &[u8], arch: Arch) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), head).unwrap();
        match check(file.path(), arch) {
            Ok(()) => "fine".into(),
            Err((problem, _)) => problem,
        }
    }

    fn elf(machine: u8) -> Vec<u8> {
        // The smallest whole executable: a header, and one segment of nothing.
        let mut head = vec![0; 120];
        head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        head[16] = 2;
        head[18] = machine;
        head[20] = 1;
        head[32] = 64;
        head[52] = 64;
        head[54] = 56;
        head[56] = 1;
        head[64] = 1;
        head
    }

    #[test]
    fn tells_kernels_apart_by_their_first_bytes() {
        let mut bzimage = vec![0; 1024];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        let mut image = vec![0; 1024];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let x86 = |head: &[u8]| judged(head, Arch::X86_64);
        assert_eq!(x86(&elf(62)), "fine");
        assert!(
            x86(&elf(62)[..100]).contains("cut off") || x86(&elf(62)[..100]).contains("truncated")
        );
        assert_eq!(judged(&image, Arch::Aarch64), "fine");
        assert_eq!(x86(&elf(183)), "is an ELF kernel for aarch64");
        assert_eq!(x86(&image), "is a kernel for aarch64");
        assert_eq!(x86(&bzimage), "is a compressed kernel (bzImage)");
        assert_eq!(x86(b""), "is empty");
        assert_eq!(x86(b"\x7fELF\x02\x01"), "isn't a kernel");
        assert_eq!(x86(b"#!/bin/sh"), "isn't a kernel");
    }
}
