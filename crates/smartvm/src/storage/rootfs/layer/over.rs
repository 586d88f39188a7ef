//! One layer of an OCI image, laid over those below it: what it hides, and where its paths
//! lead.

use std::collections::HashSet;

use super::super::archive::Laying;
use super::super::tree::{Id, Kind, ROOT, Tree, parts};

/// A file of this name hides the one whose name follows the prefix.
const WHITEOUT: &[u8] = b".wh.";
/// A file of this name hides all that the layers below have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names with this prefix are a layering file system's own, and nothing of the image.
const INTERNAL: &[u8] = b".wh..wh.";
/// More symbolic links than this on one path are a loop, as in Linux.
const MAX_LINKS: usize = 40;

/// What one layer has brought so far: the rest of the tree is from the layers below.
#[derive(Debug, Default)]
pub(super) struct Layer {
    brought: HashSet<Id>,
}

impl Laying for Layer {
    /// Where a path leads: as when the layer is unpacked over those below, links on the way
    /// to a file are followed, within the image.
    fn place(&self, tree: &Tree, path: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
        let mut left: Vec<Vec<u8>> = path.into_iter().rev().collect();
        let mut place: Vec<Vec<u8>> = Vec::with_capacity(left.len());
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                place.pop();
                continue;
            }
            place.push(name);
            // The last name is the file's own: if that is a link, it is replaced.
            if left.is_empty() {
                break;
            }
            let Some(Kind::Symlink(target)) = tree.find(&place).map(|id| &tree.get(id).kind) else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err("its path goes through a loop of symbolic links".into());
            }
            place.pop();
            if target.starts_with(b"/") {
                place.clear();
            }
            let names = target.split(|&byte| byte == b'/');
            let names = names.filter(|name| !matches!(*name, b"" | b"."));
            let names: Vec<_> = names.map(<[u8]>::to_vec).collect();
            left.extend(names.into_iter().rev());
        }
        // Once more for its length and depth, which links may have changed.
        parts(&place.join(&b'/'))
    }

    /// Hides what a whiteout says; whether it was one, which is no file itself.
    fn hides(&self, tree: &mut Tree, path: &[Vec<u8>]) -> Result<bool, String> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(false);
        };
        if !name.starts_with(WHITEOUT) {
            return Ok(false);
        }
        let directory = tree.find(parents);
        if name == OPAQUE {
            if let Some(directory) = directory {
                self.clear(tree, directory);
            }
            return Ok(true);
        }
        if name.starts_with(INTERNAL) {
            return Ok(true);
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err("it is a whiteout of nothing".into());
        }
        if let Some(directory) = directory
            && let Some(id) = tree.child(directory, hidden)
        {
            self.hide(tree, directory, hidden, id);
        }
        Ok(true)
    }

    /// Makes way for a file of another sort than what a layer below has in its place.
    fn make_way(&self, tree: &mut Tree, path: &[Vec<u8>], directory: bool) {
        let Some((name, parents)) = path.split_last() else {
            return;
        };
        let Some(parent) = tree.find(parents) else {
            return;
        };
        if let Some(old) = tree.child(parent, name)
            && matches!(tree.get(old).kind, Kind::Directory(_))
            && !directory
        {
            tree.remove(parent, name);
        }
    }

    /// Notes what the layer has brought, and the directories that lead there.
    fn brings(&mut self, tree: &Tree, path: &[Vec<u8>]) {
        let mut at = ROOT;
        for name in path {
            let Some(child) = tree.child(at, name) else {
                return;
            };
            self.brought.insert(child);
            at = child;
        }
    }
}

impl Layer {
    /// Removes what is from below, and leaves what the layer has brought.
    fn hide(&self, tree: &mut Tree, parent: Id, name: &[u8], id: Id) {
        if self.brought.contains(&id) {
            self.clear(tree, id);
        } else {
            tree.remove(parent, name);
        }
    }

    fn clear(&self, tree: &mut Tree, directory: Id) {
        let children = tree.children(directory);
        let children: Vec<_> = children.map(|(name, id)| (name.to_vec(), id)).collect();
        for (name, id) in children {
            self.hide(tree, directory, &name, id);
        }
    }
}
