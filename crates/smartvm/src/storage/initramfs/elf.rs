//! Just enough of ELF to tell a static executable from one that needs a loader.

const INTERPRETER: u32 = 3;

/// Whether the 64-bit little-endian ELF file `bytes` names a dynamic loader; `None` where
/// it isn't such a file, or is cut short.
pub(super) fn needs_loader(bytes: &[u8]) -> Option<bool> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(field(bytes, 32)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(field(bytes, 54)?));
    let count = usize::from(u16::from_le_bytes(field(bytes, 56)?));
    for index in 0..count {
        let at = table.checked_add(index * size)?;
        if u32::from_le_bytes(field(bytes, at)?) == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
