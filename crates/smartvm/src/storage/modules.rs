//! Kernel modules as `depmod` lays them out: which files a name needs, in load order.

mod index;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::decompress::Compression;
use crate::{Error, ErrorKind, Result};
use index::Index;

/// The largest module, decompressed, in bytes.
const MODULE_LIMIT: u64 = 64 << 20;

/// The longest chain of dependencies. Real kernels stay below ten.
const DEPTH_LIMIT: usize = 64;

/// The modules of one kernel release.
#[derive(Debug)]
pub struct ModuleTree {
    release: String,
    index: Index,
}

/// What [`ModuleTree::resolve`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The modules to load, dependencies first, each once.
    pub files: Vec<ModuleFile>,
    /// The names, as they were asked for, that this kernel has neither as a module nor
    /// built in.
    pub missing: Vec<String>,
}

/// One module's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFile {
    /// The module's name as the kernel shows it, with `_` for `-`.
    pub name: String,
    /// Where it is: `.ko`, or compressed as `.ko.xz`, `.ko.zst`, `.ko.gz`.
    pub path: PathBuf,
}

impl ModuleTree {
    /// Reads the lists in `dir`, a kernel's module directory such as `/lib/modules/6.1.0`.
    ///
    /// # Errors
    /// When `dir` or its `modules.dep` is missing, unreadable or damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .map_err(|cause| Error::io("opening the kernel modules in", dir, cause))?;
        let release = dir
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "{} doesn't end with a kernel release like 6.1.0-1-amd64",
                        dir.display()
                    ),
                )
                .at(&dir)
            })?
            .to_owned();
        let index = Index::read(&dir, &release)?;
        Ok(Self { release, index })
    }

    /// The kernel release these modules are for: the directory's last name.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Finds `names` (or aliases), what they depend on and what should be loaded before
    /// them. `-` and `_` are the same. What is built in needs no file and isn't missing.
    ///
    /// # Errors
    /// When the dependencies run deeper than any kernel's, or name something unlisted.
    pub fn resolve(&self, names: &[&str]) -> Result<Resolved> {
        let mut order = Order {
            index: &self.index,
            seen: HashSet::new(),
            files: Vec::new(),
        };
        let mut missing = Vec::new();
        for name in names {
            if !order.add_wanted(&normalized(name), 0)? {
                missing.push((*name).to_owned());
            }
        }
        Ok(Resolved {
            files: order.files,
            missing,
        })
    }
}

/// A walk over the dependencies, depth first, so that each comes before what needs it.
struct Order<'a> {
    index: &'a Index,
    seen: HashSet<&'a str>,
    files: Vec<ModuleFile>,
}

impl<'a> Order<'a> {
    /// Adds a module, or all modules behind an alias. False where the kernel has neither.
    fn add_wanted(&mut self, name: &str, depth: usize) -> Result<bool> {
        if let Some((name, _)) = self.index.modules.get_key_value(name) {
            self.add(name, depth)?;
            return Ok(true);
        }
        if self.index.builtin.contains(name) {
            return Ok(true);
        }
        let Some(modules) = self.index.aliases.get(name) else {
            return Ok(false);
        };
        for module in modules {
            self.add(module, depth)?;
        }
        Ok(true)
    }

    fn add(&mut self, name: &'a str, depth: usize) -> Result<()> {
        if !self.seen.insert(name) {
            return Ok(());
        }
        if depth > DEPTH_LIMIT {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the dependencies of kernel module {name} run over {DEPTH_LIMIT} deep"),
            ));
        }
        let Some(module) = self.index.modules.get(name) else {
            // depmod writes an alias and its module together, but either may be built in.
            return Ok(());
        };
        for earlier in self.index.soft.get(name).into_iter().flatten() {
            // "Soft" means that the module works without it.
            self.add_wanted(earlier, depth + 1)?;
        }
        // modules.dep names what must be loaded first last.
        for needed in module.needs.iter().rev() {
            self.add(needed, depth + 1)?;
        }
        self.files.push(ModuleFile {
            name: name.to_owned(),
            path: module.path.clone(),
        });
        Ok(())
    }
}

impl ModuleFile {
    /// The module itself, decompressed.
    ///
    /// # Errors
    /// When the file can't be read, is damaged, or is above 64 MiB.
    pub fn read(&self) -> Result<Vec<u8>> {
        let file = File::open(&self.path)
            .map_err(|cause| Error::io("opening the kernel module", &self.path, cause))?;
        let bytes = bounded(file).and_then(|bytes| match Compression::of(&bytes) {
            Some(compression) => bounded(compression.reader(bytes.as_slice(), true)?),
            None => Ok(bytes),
        });
        bytes.map_err(|cause| {
            let error = Error::io("reading the kernel module", &self.path, cause);
            match error.kind() {
                ErrorKind::Io => Error::new(
                    ErrorKind::Corrupt,
                    format!("the kernel module {} can't be read", self.path.display()),
                )
                .at(&self.path)
                .because(error),
                _ => error,
            }
        })
    }
}

/// Reads to the end, or fails at [`MODULE_LIMIT`].
fn bounded(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MODULE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODULE_LIMIT {
        return Err(std::io::Error::other(format!(
            "it is larger than {} MiB",
            MODULE_LIMIT >> 20
        )));
    }
    Ok(bytes)
}

/// A module's name as the kernel shows it.
fn normalized(name: &str) -> String {
    name.replace('-', "_")
}
