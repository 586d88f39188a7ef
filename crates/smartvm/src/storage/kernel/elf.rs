//! The headers of kernel images that can be booted as they are.

use super::KernelFormat;
use crate::spec::Arch;
use crate::storage::decompress::Compression;
use crate::storage::space::Size;

const EXECUTABLE: u16 = 2;
const POSITION_INDEPENDENT: u16 = 3;
const X86_64: u16 = 62;
const AARCH64: u16 = 183;
const LOAD: u32 = 1;

/// Length of an ELF64 header, and of one program header, in bytes.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// Tells layout and architecture of an image of `size` bytes from its first bytes, or says
/// what is wrong with it, as the end of a sentence that begins with its name.
pub(super) fn inspect(head: &[u8], size: u64) -> Result<(KernelFormat, Arch), String> {
    if head.starts_with(b"\x7fELF") {
        return elf(head, size).map(|arch| (KernelFormat::Elf, arch));
    }
    if head.get(0x38..0x3c) == Some(b"ARM\x64") {
        return arm_image(head, size).map(|()| (KernelFormat::Image, Arch::Aarch64));
    }
    Err(format!("isn't a kernel image: it is {}", guess(head)))
}

fn elf(head: &[u8], size: u64) -> Result<Arch, String> {
    let cut = || format!("is truncated: its headers reach beyond its {}", Size(size));
    if head.len() < HEADER {
        return Err(cut());
    }
    if head[4] != 2 || head[5] != 1 {
        return Err("is an ELF file, but not a 64-bit little-endian one".into());
    }
    let kind = u16_at(head, 16).unwrap_or(0);
    if kind != EXECUTABLE && kind != POSITION_INDEPENDENT {
        return Err(match kind {
            1 => "is an ELF object file, such as a module, not a kernel".into(),
            4 => "is a core dump, not a kernel".into(),
            _ => format!("is an ELF file of type {kind}, not an executable"),
        });
    }
    let arch = match u16_at(head, 18).unwrap_or(0) {
        X86_64 => Arch::X86_64,
        AARCH64 => Arch::Aarch64,
        machine => {
            return Err(format!(
                "is an ELF executable for machine {machine}, not for x86_64 ({X86_64}) or \
                 aarch64 ({AARCH64})"
            ));
        }
    };
    let table = u64_at(head, 32).unwrap_or(0);
    let entry_size = usize::from(u16_at(head, 54).unwrap_or(0));
    let entries = u16_at(head, 56).unwrap_or(0);
    if entries == 0 || entry_size != PROGRAM_HEADER {
        return Err(
            "is an ELF file without program headers, so nothing in it can be loaded".into(),
        );
    }
    let mut loads = false;
    for index in 0..u64::from(entries) {
        let start = table
            .checked_add(index * PROGRAM_HEADER as u64)
            .ok_or_else(cut)?;
        if start
            .checked_add(PROGRAM_HEADER as u64)
            .is_none_or(|end| end > size)
        {
            return Err(cut());
        }
        let header = usize::try_from(start)
            .ok()
            .and_then(|start| head.get(start..start + PROGRAM_HEADER))
            .ok_or("has its program headers in an unusual place, beyond its first 64 KiB")?;
        if u32_at(header, 0) != Some(LOAD) {
            continue;
        }
        loads = true;
        let offset = u64_at(header, 8).unwrap_or(u64::MAX);
        let length = u64_at(header, 32).unwrap_or(u64::MAX);
        let end = offset.checked_add(length).ok_or_else(cut)?;
        if end > size {
            return Err(format!(
                "is truncated: a segment ends at byte {end}, the file at {size}"
            ));
        }
    }
    if !loads {
        return Err("is an ELF file without a loadable segment".into());
    }
    Ok(arch)
}

/// A flat Arm image says how much memory it takes, which is no less than its own size.
fn arm_image(head: &[u8], size: u64) -> Result<(), String> {
    let flags = u64_at(head, 24).unwrap_or(0);
    if flags & 1 != 0 {
        return Err("is a big-endian Arm image".into());
    }
    if size <= HEADER as u64 {
        return Err("is truncated: there is nothing behind its header".into());
    }
    Ok(())
}

/// What a file that isn't a kernel image seems to be.
fn guess(head: &[u8]) -> String {
    if head.is_empty() {
        return "empty".into();
    }
    if let Some(compression) = Compression::of(head) {
        return format!("compressed ({compression})");
    }
    if head.iter().take(512).all(|&byte| byte == 0) {
        return "all zero bytes".into();
    }
    if head.starts_with(b"#!") {
        return "a script".into();
    }
    if super::bzimage::is_one(head) {
        return "a compressed kernel (bzImage)".into();
    }
    if head.starts_with(b"MZ") {
        return "an EFI program, without the header of a Linux kernel".into();
    }
    if std::str::from_utf8(&head[..head.len().min(512)]).is_ok() {
        return "text".into();
    }
    let start: Vec<String> = head
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("of an unknown sort, beginning with {}", start.join(" "))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
