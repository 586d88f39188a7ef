use std::fs;

use proptest::prelude::*;

use super::*;
use crate::storage::decompress::Compression;
use crate::storage::decompress::tests::compress;

/// A small ELF executable with one loadable segment.
pub(crate) fn elf(machine: u16) -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16..18].copy_from_slice(&2u16.to_le_bytes());
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&1u16.to_le_bytes());
    file[64..68].copy_from_slice(&1u32.to_le_bytes());
    file[72..80].copy_from_slice(&120u64.to_le_bytes());
    file[96..104].copy_from_slice(&30_000u64.to_le_bytes());
    file.extend((0..30_000u32).map(|n| (n / 7) as u8));
    file
}

/// A bzImage around a payload.
pub(crate) fn bzimage(payload: &[u8], setup_sectors: u8) -> Vec<u8> {
    let sectors = if setup_sectors == 0 {
        4
    } else {
        usize::from(setup_sectors)
    };
    let mut image = vec![0; (sectors + 1) * 512 + 700];
    image[..2].copy_from_slice(b"MZ");
    image[0x1f1] = setup_sectors;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&700u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image.extend([0xaa; 333]);
    image
}

/// What the kernel's build makes of an ELF kernel.
pub(crate) fn packed(compression: Compression, kernel: &[u8]) -> Vec<u8> {
    let mut payload = compress(compression, kernel);
    if compression != Compression::Gzip {
        payload.extend((kernel.len() as u32).to_le_bytes());
    }
    payload
}

fn extract(image: &[u8]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinuz");
    fs::write(&path, image).unwrap();
    extract_vmlinux(&path)
}

fn inspected(image: &[u8]) -> Result<KernelInfo> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    fs::write(&path, image).unwrap();
    inspect_elf(&path)
}

#[test]
fn the_kernel_comes_out_of_a_bzimage_of_every_compression() {
    for compression in [
        Compression::Gzip,
        Compression::Bzip2,
        Compression::Lzma,
        Compression::Xz,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let image = bzimage(&packed(compression, &elf(62)), 27);
        assert!(extract(&image).unwrap() == elf(62), "{compression}");
    }
    let image = bzimage(&packed(Compression::Gzip, &elf(62)), 0);
    assert!(
        extract(&image).unwrap() == elf(62),
        "no setup sectors means four"
    );
}

#[test]
fn an_elf_kernel_passes_through() {
    assert!(extract(&elf(62)).unwrap() == elf(62));
    assert!(extract(&elf(183)).unwrap() == elf(183));
}

#[test]
fn kernels_are_told_by_their_architecture() {
    let info = inspected(&elf(62)).unwrap();
    assert_eq!((info.format, info.arch), (KernelFormat::Elf, Arch::X86_64));
    assert_eq!(info.size_bytes, elf(62).len() as u64);
    assert_eq!(inspected(&elf(183)).unwrap().arch, Arch::Aarch64);
    let mut image = vec![0; 4096];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let info = inspected(&image).unwrap();
    assert_eq!(
        (info.format, info.arch),
        (KernelFormat::Image, Arch::Aarch64)
    );
}

#[test]
fn what_is_no_kernel_is_refused_with_what_was_found() {
    let changed = |at: usize, value: u8| {
        let mut file = elf(62);
        file[at] = value;
        file
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "it is empty"),
        (vec![0; 4096], "all zero bytes"),
        (b"#!/bin/sh\n".to_vec(), "a script"),
        (b"hello".to_vec(), "it is text"),
        (compress(Compression::Zstd, b"x"), "compressed (zstd)"),
        (bzimage(b"", 1), "a compressed kernel (bzImage)"),
        (b"MZ\xff\xff".to_vec(), "an EFI program"),
        (vec![0xde, 0xad, 0xbe, 0xef], "beginning with de ad be ef"),
        (elf(3), "for machine 3"),
        (changed(4, 1), "not a 64-bit little-endian one"),
        (changed(5, 2), "not a 64-bit little-endian one"),
        (changed(16, 1), "such as a module"),
        (changed(16, 4), "a core dump"),
        (changed(56, 0), "without program headers"),
        (changed(64, 2), "without a loadable segment"),
        (elf(62)[..40].to_vec(), "is truncated"),
        (elf(62)[..100].to_vec(), "is truncated"),
        (
            elf(62)[..30_119].to_vec(),
            "a segment ends at byte 30120, the file at 30119",
        ),
    ];
    for (image, says) in cases {
        let error = inspected(&image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}, not {says}");
        assert!(error.way_out().is_some());
    }
}

#[test]
fn a_damaged_bzimage_is_refused_with_what_is_wrong() {
    let gzip = packed(Compression::Gzip, &elf(62));
    let whole = bzimage(&gzip, 1);
    let mut old = whole.clone();
    old[0x206] = 7;
    let mut wrong_size = packed(Compression::Xz, &elf(62));
    *wrong_size.last_mut().unwrap() ^= 1;
    let mut flipped = gzip;
    let at = flipped.len() - 8;
    flipped[at] ^= 1;
    let cases = [
        (
            whole[..0x300].to_vec(),
            "is truncated: its compressed kernel ends at",
        ),
        (whole[..0x24a].to_vec(), "ends within its setup header"),
        (old, "boot protocol 2.07"),
        (bzimage(&wrong_size, 1), "were expected"),
        (bzimage(&flipped, 1), "is damaged: its gzip payload"),
        (bzimage(b"\x89LZO\0", 1), "with lzo"),
        (
            bzimage(b"\x01\x02\x03\x04\x05", 1),
            "begins with 01 02 03 04",
        ),
        (
            bzimage(&packed(Compression::Gzip, b"no kernel"), 1),
            "it is text",
        ),
    ];
    for (image, says) in cases {
        let error = extract(&image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}, not {says}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn changed_headers_never_panic(at in 0usize..0x260, value: [u8; 8], length in 0usize..2000) {
        let mut image = bzimage(&packed(Compression::Gzip, &elf(62)), 1);
        image[at..at + 8].copy_from_slice(&value);
        image.truncate(image.len().saturating_sub(length));
        let _ = bzimage::extract(&image);
        let mut kernel = elf(62);
        kernel[at % 112..at % 112 + 8].copy_from_slice(&value);
        let _ = inspect(&kernel, kernel.len() as u64);
    }
}
