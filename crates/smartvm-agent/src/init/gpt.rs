//! Partition tables (GPT and MBR), read just far enough to find a partition by its identity.

use std::io::{Read, Seek, SeekFrom};

/// The most entries and the largest entry that are read: 128 of 128 bytes are usual.
const MAX_ENTRIES: u32 = 1024;
const MAX_ENTRY: u32 = 4096;

/// A partition as `root=` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `PARTUUID=`, in lower case, and how many partitions after that one (`/PARTNROFF=`).
    Uuid(String, i32),
    /// `PARTLABEL=`.
    Label(String),
}

impl Wanted {
    /// Reads the value of `root=`; None if it names no partition in this way.
    pub(crate) fn parse(source: &str) -> Option<Self> {
        if let Some(label) = source.strip_prefix("PARTLABEL=") {
            return Some(Self::Label(label.to_owned()));
        }
        let uuid = source.strip_prefix("PARTUUID=")?;
        let (uuid, offset) = match uuid.split_once("/PARTNROFF=") {
            Some((uuid, offset)) => (uuid, offset.parse().ok()?),
            None => (uuid, 0),
        };
        Some(Self::Uuid(uuid.to_ascii_lowercase(), offset))
    }
}

/// The number of the wanted partition (from 1), if it is on this disk with sectors of so many
/// bytes.
pub(crate) fn find(disk: &mut (impl Read + Seek), sector: u32, wanted: &Wanted) -> Option<u32> {
    if !(512..=65536).contains(&sector) {
        return None;
    }
    let mut first = [0; 512];
    read_at(disk, 0, &mut first)?;
    if first[510..] != [0x55, 0xaa] {
        return None;
    }
    find_gpt(disk, sector, wanted).or_else(|| find_mbr(&first, wanted))
}

fn find_gpt(disk: &mut (impl Read + Seek), sector: u32, wanted: &Wanted) -> Option<u32> {
    let mut header = [0; 92];
    read_at(disk, u64::from(sector), &mut header)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let table = u64::from_le_bytes(header[72..80].try_into().ok()?);
    let count = u32::from_le_bytes(header[80..84].try_into().ok()?).min(MAX_ENTRIES);
    let size = u32::from_le_bytes(header[84..88].try_into().ok()?);
    if !(128..=MAX_ENTRY).contains(&size) {
        return None;
    }
    let mut entry = [0; 128];
    for index in 0..count {
        let place = table
            .checked_mul(u64::from(sector))?
            .checked_add(u64::from(index) * u64::from(size))?;
        read_at(disk, place, &mut entry)?;
        if entry[..16] == [0; 16] {
            continue;
        }
        let number = index + 1;
        match wanted {
            Wanted::Uuid(uuid, offset) if guid(&entry[16..32]) == *uuid => {
                return number.checked_add_signed(*offset);
            }
            Wanted::Label(label) if name(&entry[56..128]) == *label => return Some(number),
            _ => {}
        }
    }
    None
}

fn find_mbr(first: &[u8; 512], wanted: &Wanted) -> Option<u32> {
    let Wanted::Uuid(uuid, offset) = wanted else {
        return None;
    };
    let (signature, number) = uuid.split_once('-')?;
    if signature.len() != 8 {
        return None;
    }
    let signature = u32::from_str_radix(signature, 16).ok()?;
    let number = u32::from_str_radix(number, 16).ok()?;
    let own = u32::from_le_bytes(first[440..444].try_into().ok()?);
    (signature == own).then(|| number.checked_add_signed(*offset))?
}

/// A GUID as text: the first three groups are stored little endian.
fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (place, index) in ORDER.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes[index]));
    }
    text
}

fn name(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}

fn read_at(disk: &mut (impl Read + Seek), place: u64, buffer: &mut [u8]) -> Option<()> {
    disk.seek(SeekFrom::Start(place)).ok()?;
    disk.read_exact(buffer).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const SECTOR: usize = 512;

    fn mbr(signature: u32) -> Vec<u8> {
        let mut disk = vec![0; 64 * SECTOR];
        disk[440..444].copy_from_slice(&signature.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    /// A disk whose third entry is a partition with known identity.
    fn gpt(sector: usize) -> Vec<u8> {
        let mut disk = mbr(0);
        disk.resize(64 * sector, 0);
        disk[sector..sector + 8].copy_from_slice(b"EFI PART");
        disk[sector + 72..sector + 80].copy_from_slice(&2u64.to_le_bytes());
        disk[sector + 80..sector + 84].copy_from_slice(&128u32.to_le_bytes());
        disk[sector + 84..sector + 88].copy_from_slice(&128u32.to_le_bytes());
        let entry = 2 * sector + 2 * 128;
        disk[entry] = 1;
        for (index, byte) in (0u8..16).enumerate() {
            disk[entry + 16 + index] = byte;
        }
        for (index, unit) in "root".encode_utf16().enumerate() {
            let place = entry + 56 + 2 * index;
            disk[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        disk
    }

    fn look(disk: Vec<u8>, sector: u32, source: &str) -> Option<u32> {
        let wanted = Wanted::parse(source).expect("a partition's name");
        find(&mut Cursor::new(disk), sector, &wanted)
    }

    #[test]
    fn a_gpt_partition_is_found_by_uuid_and_by_label() {
        let uuid = "PARTUUID=03020100-0504-0706-0809-0A0B0C0D0E0F";
        assert_eq!(look(gpt(512), 512, uuid), Some(3));
        assert_eq!(look(gpt(4096), 4096, uuid), Some(3));
        assert_eq!(
            look(gpt(512), 512, &format!("{uuid}/PARTNROFF=-1")),
            Some(2)
        );
        assert_eq!(look(gpt(512), 512, "PARTLABEL=root"), Some(3));
        assert_eq!(look(gpt(512), 512, "PARTLABEL=home"), None);
        let other = "PARTUUID=13020100-0504-0706-0809-0a0b0c0d0e0f";
        assert_eq!(look(gpt(512), 512, other), None);
    }

    #[test]
    fn an_mbr_partition_is_found_by_the_disks_signature() {
        assert_eq!(look(mbr(0x0a0b_0c0d), 512, "PARTUUID=0a0b0c0d-05"), Some(5));
        assert_eq!(look(mbr(0x0a0b_0c0e), 512, "PARTUUID=0a0b0c0d-05"), None);
    }

    #[test]
    fn damaged_tables_are_nobodys() {
        let uuid = "PARTUUID=03020100-0504-0706-0809-0a0b0c0d0e0f";
        assert_eq!(look(Vec::new(), 512, uuid), None);
        assert_eq!(look(vec![0; 4096], 512, uuid), None);
        assert_eq!(look(gpt(512), 0, uuid), None);
        let mut endless = gpt(512);
        endless[512 + 72..512 + 80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(look(endless, 512, uuid), None);
        let mut tiny = gpt(512);
        tiny[512 + 84..512 + 88].copy_from_slice(&1u32.to_le_bytes());
        assert_eq!(look(tiny, 512, uuid), None);
        let mut short = gpt(512);
        short.truncate(1024 + 200);
        assert_eq!(look(short, 512, uuid), None);
    }

    #[test]
    fn what_is_no_partitions_name_is_told_apart() {
        assert_eq!(Wanted::parse("/dev/vda"), None);
        assert_eq!(Wanted::parse("PARTUUID=a/PARTNROFF=x"), None);
        assert_eq!(Wanted::parse("host9p"), None);
    }
}
