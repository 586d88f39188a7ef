//! Our initramfs: the agent as init, the modules it loads, and nothing else.
//!
//! An uncompressed cpio archive ("newc"), the same bytes for the same input. What is in it
//! is a contract with the agent:
//! - `/init`: the agent, a static executable
//! - `/modules/NAME.ko`: the modules, uncompressed
//! - `/modules/load`: one absolute path of those a line, in load order
//! - the directories `/dev /newroot /proc /run /sys /tmp`, and `/dev/console`

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::modules::ModuleFile;
use super::progress::Watch;
use crate::{Error, ErrorKind, Result};

/// The largest agent, in bytes.
const AGENT_LIMIT: u64 = 64 << 20;

/// The largest archive, in bytes: it is unpacked into the guest's memory.
const ARCHIVE_LIMIT: usize = 256 << 20;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CONSOLE: u32 = 0o020_600;

/// The initramfs of the `agent` for a kernel that comes without one: made once for each agent,
/// kept in `dir`. A kernel that hasn't its drivers built in needs `modules`, its module
/// directory.
///
/// # Errors
/// As for [`build`], and where `dir` can't be written.
pub fn of_agent(
    agent: &Path,
    modules: Option<&Path>,
    dir: &Path,
    watch: &mut Watch<'_>,
) -> Result<PathBuf> {
    let mut stamp = stamp(agent)?;
    if let Some(modules) = modules {
        stamp += &self::stamp(&modules.join("modules.dep"))?;
    }
    let name = super::checksum::sha256_of(stamp.as_bytes());
    let path = dir.join(format!("{}.cpio", &name[..16]));
    if !path.is_file() {
        let modules = match modules {
            Some(modules) => super::build::guest_modules(modules, watch)?,
            None => Vec::new(),
        };
        crate::durable::private_dir(dir)?;
        crate::durable::write_whole(&path, &build(agent, &modules)?)?;
    }
    Ok(path)
}

/// Any change of a file shows in one of these.
fn stamp(path: &Path) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let found = path
        .metadata()
        .map_err(|e| Error::io("looking at", path, e))?;
    Ok(format!(
        "{} {} {} {} {} {} ",
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime_nsec()
    ))
}

/// Makes an initramfs of the `agent`, as [`crate::agent::binary::find`] finds it, that loads
/// `modules` in the order given.
///
/// # Errors
/// When the agent or a module can't be read, a module comes twice, or all of it is above
/// 256 MiB.
pub fn build(agent: &Path, modules: &[ModuleFile]) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    for name in ["dev", "modules", "newroot", "proc", "run", "sys", "tmp"] {
        entries.insert(name.to_owned(), Entry::plain(DIRECTORY, Vec::new()));
    }
    // The kernel opens it for init before anything can be mounted on /dev.
    let console = Entry {
        mode: CONSOLE,
        device: (5, 1),
        content: Vec::new(),
    };
    entries.insert("dev/console".to_owned(), console);
    entries.insert("init".to_owned(), Entry::plain(PROGRAM, read_agent(agent)?));
    let mut load = String::new();
    for module in modules {
        let name = format!("modules/{}.ko", module.name);
        load += &format!("/{name}\n");
        let entry = Entry::plain(FILE, module.read()?);
        if entries.insert(name, entry).is_some() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the kernel module {} comes twice", module.name),
            ));
        }
    }
    let load = Entry::plain(FILE, load.into_bytes());
    entries.insert("modules/load".to_owned(), load);
    archive(&entries)
}

fn read_agent(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(AGENT_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|cause| Error::io("reading the guest agent", path, cause))?;
    if bytes.len() as u64 > AGENT_LIMIT {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("the guest agent {} is larger than 64 MiB", path.display()),
        )
        .at(path));
    }
    Ok(bytes)
}

/// One file of the archive. All belong to root and are as old as the epoch.
struct Entry {
    mode: u32,
    /// Major and minor number where it is a device node.
    device: (u32, u32),
    content: Vec<u8>,
}

impl Entry {
    fn plain(mode: u32, content: Vec<u8>) -> Self {
        Self {
            mode,
            device: (0, 0),
            content,
        }
    }
}

/// Writes the archive, sorted by path, so that a directory comes before what is in it.
fn archive(entries: &BTreeMap<String, Entry>) -> Result<Vec<u8>> {
    let total: usize = entries.values().map(|entry| entry.content.len()).sum();
    if total > ARCHIVE_LIMIT {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("an initramfs of {total} bytes is more than a guest should unpack"),
        ));
    }
    let mut out = Vec::with_capacity(total + entries.len() * 256);
    for (inode, (name, entry)) in (1..).zip(entries) {
        append(&mut out, inode, name, entry);
    }
    append(&mut out, 0, "TRAILER!!!", &Entry::plain(0, Vec::new()));
    // The customary block size; some readers want it.
    out.resize(out.len().next_multiple_of(512), 0);
    Ok(out)
}

fn append(out: &mut Vec<u8>, inode: u32, name: &str, entry: &Entry) {
    let links = if entry.mode & 0o170_000 == 0o040_000 {
        2
    } else {
        1
    };
    let fields: [u32; 13] = [
        inode,
        entry.mode,
        0, // uid
        0, // gid
        links,
        0,                          // modification time
        entry.content.len() as u32, // at most AGENT_LIMIT or MODULE_LIMIT
        0,                          // the archived file's device, major
        0,                          // and minor
        entry.device.0,
        entry.device.1,
        name.len() as u32 + 1,
        0, // no checksum in this format
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&entry.content);
    out.resize(out.len().next_multiple_of(4), 0);
}
