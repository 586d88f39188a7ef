//! The lists that `depmod` writes beside the modules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::normalized;
use crate::{Error, ErrorKind, Result};

/// The largest list, in bytes. Distribution kernels have about 1 MiB.
const LIST_LIMIT: u64 = 32 << 20;

/// All lists of one kernel; every name is normalized.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) modules: HashMap<String, Module>,
    pub(super) builtin: HashSet<String>,
    /// What should be loaded before a module if there is such a thing.
    pub(super) soft: HashMap<String, Vec<String>>,
    /// The modules behind an alias, sorted so that the same tree gives the same order.
    /// Only plain names: patterns match devices, which nobody asks for here.
    pub(super) aliases: HashMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
pub(super) struct Module {
    pub(super) path: PathBuf,
    /// The modules it needs, as modules.dep lists them: the first to load stands last.
    pub(super) needs: Vec<String>,
}

impl Index {
    pub(super) fn read(dir: &Path, release: &str) -> Result<Self> {
        let dep = list(dir, "modules.dep")?.ok_or_else(|| {
            let root = dir.ancestors().nth(3).unwrap_or(Path::new("/"));
            Error::new(
                ErrorKind::NotFound,
                format!("there is no modules.dep in {}", dir.display()),
            )
            .at(dir.join("modules.dep"))
            .hint(format!(
                "run depmod -b {} {release} (package kmod)",
                root.display()
            ))
        })?;
        Ok(Self {
            modules: modules(dir, &dep)?,
            builtin: list(dir, "modules.builtin")?
                .unwrap_or_default()
                .lines()
                .filter_map(|line| module_name(Path::new(line)))
                .collect(),
            soft: soft(&list(dir, "modules.softdep")?.unwrap_or_default()),
            aliases: aliases(&list(dir, "modules.alias")?.unwrap_or_default()),
        })
    }
}

/// One list as text, `None` where it doesn't exist.
fn list(dir: &Path, name: &str) -> Result<Option<String>> {
    let path = dir.join(name);
    let read = File::open(&path).and_then(|file| {
        let mut text = String::new();
        file.take(LIST_LIMIT + 1).read_to_string(&mut text)?;
        Ok(text)
    });
    match read {
        Ok(text) if text.len() as u64 > LIST_LIMIT => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} is larger than {} MiB", path.display(), LIST_LIMIT >> 20),
        )
        .at(path)),
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::io("reading", path, cause)),
    }
}

/// `kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko`, one a line.
fn modules(dir: &Path, text: &str) -> Result<HashMap<String, Module>> {
    let mut modules = HashMap::new();
    for line in text.lines() {
        let damaged = || {
            Error::new(
                ErrorKind::Corrupt,
                format!("modules.dep in {} has the line {line:?}", dir.display()),
            )
            .at(dir.join("modules.dep"))
        };
        let (file, needs) = line.split_once(':').ok_or_else(damaged)?;
        let file = Path::new(file);
        // Absolute paths are depmod's way to name modules outside the tree.
        let safe = file
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
        let name = module_name(file).filter(|_| safe).ok_or_else(damaged)?;
        let needs = needs
            .split_whitespace()
            .map(|file| module_name(Path::new(file)).ok_or_else(damaged))
            .collect::<Result<_>>()?;
        let path = dir.join(file);
        modules.insert(name, Module { path, needs });
    }
    Ok(modules)
}

/// `softdep libcrc32c pre: crc32c post: other`, one a line; only `pre:` matters here.
fn soft(text: &str) -> HashMap<String, Vec<String>> {
    let mut soft: HashMap<String, Vec<String>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            continue;
        }
        let Some(module) = words.next() else { continue };
        let earlier = words
            .skip_while(|word| *word != "pre:")
            .skip(1)
            .take_while(|word| *word != "post:")
            .map(normalized);
        soft.entry(normalized(module)).or_default().extend(earlier);
    }
    soft
}

/// `alias crc32c crc32c_generic`, one a line.
fn aliases(text: &str) -> HashMap<String, BTreeSet<String>> {
    let mut aliases: HashMap<String, BTreeSet<String>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some("alias"), Some(alias), Some(module)) =
            (words.next(), words.next(), words.next())
            && !alias.contains(['*', '?', '[', ':'])
        {
            aliases
                .entry(normalized(alias))
                .or_default()
                .insert(normalized(module));
        }
    }
    aliases
}

/// The module's name in a path like `kernel/fs/9p/9p.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = ["", ".xz", ".zst", ".gz"]
        .iter()
        .find_map(|packed| file.strip_suffix(packed)?.strip_suffix(".ko"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!name.is_empty() && name.chars().all(plain)).then(|| normalized(name))
}
