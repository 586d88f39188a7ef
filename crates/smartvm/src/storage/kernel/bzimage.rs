//! The ELF kernel inside a bzImage, after the kernel's boot protocol for x86.

use std::io::Read;

use super::MAX_KERNEL_BYTES;
use super::elf::{u16_at, u32_at};
use crate::storage::decompress::Compression;

/// Where the setup header keeps what is needed.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first protocol whose header tells of the payload: 2.08, of Linux 2.6.26.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// Whether this has the setup header of a Linux kernel for x86.
pub(super) fn is_one(image: &[u8]) -> bool {
    image.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

/// Takes the kernel out, or says what is wrong, as the end of a sentence.
pub(super) fn extract(image: &[u8]) -> Result<Vec<u8>, String> {
    let protocol = u16_at(image, PROTOCOL).unwrap_or(0);
    if protocol < PROTOCOL_WITH_PAYLOAD {
        return Err(format!(
            "is a compressed kernel of boot protocol {}.{:02}, too old to tell where its payload is",
            protocol >> 8,
            protocol & 0xff
        ));
    }
    let (Some(offset), Some(length)) =
        (u32_at(image, PAYLOAD_OFFSET), u32_at(image, PAYLOAD_LENGTH))
    else {
        return Err("is truncated: it ends within its setup header".into());
    };
    // By the protocol, no setup sectors means four of them; the boot sector comes on top.
    let sectors = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = (sectors + 1) * 512 + u64::from(offset);
    let end = start + u64::from(length);
    let payload = usize::try_from(start)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(start, end)| image.get(start..end))
        .ok_or_else(|| {
            format!(
                "is truncated: its compressed kernel ends at byte {end}, the file at {}",
                image.len()
            )
        })?;
    decompress(payload)
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, String> {
    let Some(compression) = Compression::of(payload) else {
        return Err(if payload.starts_with(b"\x7fELF") {
            return Ok(payload.to_vec());
        } else if payload.starts_with(b"\x89LZO") {
            "is compressed with lzo, which isn't supported; gzip, xz, lz4, zstd, bzip2 and lzma are"
                .into()
        } else {
            let start: Vec<String> = payload
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!(
                "is compressed in an unknown way: its payload begins with {}",
                start.join(" ")
            )
        });
    };
    // The build appends the size to whatever doesn't, as gzip does, end with it by itself.
    let body = match (compression, payload.len().checked_sub(4)) {
        (Compression::Gzip, _) | (_, None) => payload,
        (_, Some(end)) => &payload[..end],
    };
    let broken = |cause: std::io::Error| format!("is damaged: its {compression} payload: {cause}");
    let mut kernel = Vec::new();
    compression
        .reader(body, false)
        .map_err(broken)?
        .take(MAX_KERNEL_BYTES + 1)
        .read_to_end(&mut kernel)
        .map_err(broken)?;
    if kernel.len() as u64 > MAX_KERNEL_BYTES {
        return Err("is damaged: more than 1 GiB comes out of it".into());
    }
    let expected = payload
        .len()
        .checked_sub(4)
        .and_then(|at| u32_at(payload, at));
    if expected != Some(kernel.len() as u32) {
        return Err(format!(
            "is damaged: {} bytes came out of its {compression} payload, {} were expected",
            kernel.len(),
            expected.unwrap_or(0)
        ));
    }
    Ok(kernel)
}
