//! How large the image is, and how many inodes and how much journal it gets.

use super::BLOCK;
use super::tree::{Inode, Kind, Tree};
use crate::storage::space::Size;
use crate::{Error, ErrorKind, Result};

const MIB: u64 = 1 << 20;
/// Largest image: 8 TiB.
const MAX_SIZE: u64 = 1 << 43;
/// Smallest image: less has no room for the smallest journal.
const MIN_SIZE: u64 = 16 * MIB;
const INODE: u64 = 256;
/// Blocks of one group: as many as one block has bits.
const GROUP: u64 = BLOCK * 8;
/// Attributes up to about this many bytes live in the inode itself.
const INLINE_XATTRS: usize = 80;
/// The inode space that mke2fs plans for where it isn't told: one for every 16 KiB.
const BYTES_PER_INODE: u64 = 16 << 10;

/// The figures of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Size of the file, a multiple of 1 MiB.
    pub(super) size: u64,
    pub(super) inodes: u64,
    pub(super) journal_mib: u64,
    /// Bytes that will really be written.
    pub(super) written: u64,
}

/// Plans for a tree: of `size` bytes (rounded up to 1 MiB) if that is asked for, else as
/// large as it takes for `free` bytes to be left.
pub(super) fn plan(tree: &Tree, size: Option<u64>, free: Option<u64>) -> Result<Layout> {
    let files = tree.inodes().iter().filter(|inode| inode.links > 0).count() as u64;
    let data: u64 = tree.inodes().iter().map(blocks).sum::<u64>() * BLOCK;
    // lost+found and some room for error.
    let data = data + data / 64 + MIB;
    let free = free.unwrap_or_else(|| (data / 4).max(128 * MIB));
    if let Some(large) = [size, Some(free)]
        .into_iter()
        .flatten()
        .find(|&n| n > MAX_SIZE)
    {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "an image of {} or more is larger than {}",
                Size(large),
                Size(MAX_SIZE)
            ),
        ));
    }
    let least = with_overhead(data, files);
    let layout = match size {
        Some(size) => of_size(size.div_ceil(MIB) * MIB, data, files),
        None => of_size(with_overhead(data + free, files), data, files),
    };
    if layout.size < least {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "an image of {} is too small for this root file system, which needs {}",
                Size(layout.size),
                Size(least)
            ),
        )
        .hint("ask for a larger size, or for none: then it is chosen"));
    }
    Ok(layout)
}

fn of_size(size: u64, data: u64, files: u64) -> Layout {
    let inodes = inodes(size, files);
    let journal_mib = journal_mib(size);
    Layout {
        size,
        inodes,
        journal_mib,
        // The journal and the unused inodes stay holes.
        written: data + files * INODE + 4 * MIB,
    }
}

/// The size, a multiple of 1 MiB, of an image that has room for `data` bytes.
fn with_overhead(data: u64, files: u64) -> u64 {
    // What depends on the size is settled by going round twice more than it changes.
    let mut size = data;
    for _ in 0..4 {
        let groups = size.div_ceil(BLOCK).div_ceil(GROUP).max(1);
        // Descriptors, and what is reserved to grow a thousandfold, in each backup.
        let descriptors = groups.div_ceil(64) + (groups * 16).min(BLOCK / 4);
        let overhead = inodes(size, files) * INODE
            + journal_mib(size) * MIB
            + groups * 3 * BLOCK
            + backups(groups) * descriptors * BLOCK
            + MIB;
        size = data + overhead;
    }
    (size.div_ceil(MIB) * MIB).max(MIN_SIZE)
}

/// Groups that hold a copy of the superblock: 0, 1 and the powers of 3, 5 and 7.
fn backups(groups: u64) -> u64 {
    let powers = |base: u64| {
        std::iter::successors(Some(base), |power| power.checked_mul(base))
            .take_while(|&power| power < groups)
            .count() as u64
    };
    2 + powers(3) + powers(5) + powers(7)
}

fn inodes(size: u64, files: u64) -> u64 {
    (files + files / 4 + 1024).max(size / BYTES_PER_INODE)
}

fn journal_mib(size: u64) -> u64 {
    match size / MIB {
        0..256 => 4,
        256..2048 => 16,
        2048..16_384 => 64,
        _ => 128,
    }
}

/// Blocks that a file takes besides its inode.
fn blocks(inode: &Inode) -> u64 {
    if inode.links == 0 {
        return 0;
    }
    let own = match &inode.kind {
        Kind::Directory(children) => {
            let bytes: u64 = children
                .keys()
                .map(|name| (name.len() as u64).div_ceil(4) * 4 + 8)
                .sum();
            // A name that doesn't fit at a block's end leaves a gap there.
            bytes.div_ceil(BLOCK - 256) + 1
        }
        // One block of an extent tree describes 340 stretches.
        Kind::File(content) => content.blocks + content.blocks / 256 + 1,
        Kind::Symlink(target) => u64::from(target.len() >= 60),
        _ => 0,
    };
    let xattrs: usize = inode
        .attributes
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 20)
        .sum();
    own + u64::from(xattrs > INLINE_XATTRS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_tree_gets_the_room_that_is_asked_for() {
        let tree = Tree::new();
        let layout = plan(&tree, None, Some(100 * MIB)).unwrap();
        assert!(
            layout.size > 100 * MIB && layout.size < 120 * MIB,
            "{layout:?}"
        );
        assert_eq!(
            plan(&tree, Some(64 * MIB - 1), None).unwrap().size,
            64 * MIB
        );
    }

    #[test]
    fn a_size_that_is_too_small_is_refused_with_figures() {
        let error = plan(&Tree::new(), Some(1), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error
                .to_string()
                .contains("an image of 1.0 MiB is too small"),
            "{error}"
        );
        plan(&Tree::new(), Some(u64::MAX), None).unwrap_err();
    }

    #[test]
    fn groups_with_a_copy_of_the_superblock_are_counted() {
        // 0, 1, 3, 5, 7, 9, 25, 27, 49.
        assert_eq!(backups(50), 9);
        assert_eq!(backups(1), 2);
    }
}
