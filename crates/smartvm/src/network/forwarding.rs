//! Kernel settings of single interfaces: forwarding, and IPv6 off.

use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::name::IfName;

/// Where a setting of an interface is, for the reader's own network namespace.
fn setting(family: &str, interface: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(interface)
        .join(name)
}

/// The setting that lets what comes in by an interface be forwarded.
pub(crate) fn forwarding_of(interface: &IfName) -> PathBuf {
    setting("ipv4", interface.as_str(), "forwarding")
}

/// Switches IPv6 off on an interface. A kernel without IPv6 needs nothing.
pub(crate) fn no_ipv6(interface: &IfName) -> Result<()> {
    let path = setting("ipv6", interface.as_str(), "disable_ipv6");
    match std::fs::write(&path, "1") {
        Err(e) if e.kind() == IoKind::NotFound => Ok(()),
        other => other.map_err(|e| Error::io("switching IPv6 off by", &path, e)),
    }
}

/// The value of a setting; `None` if its interface is gone.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == IoKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("reading", path, e)),
    }
}

/// Sets a setting.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    std::fs::write(path, value).map_err(|e| {
        Error::io("setting", path, e)
            .hint("the network needs root's rights and a writable /proc/sys")
    })
}

/// Puts back what forwarding of an interface was, unless somebody else came to need it: they
/// changed it, forward by the host's own switch, or by another interface than these.
pub(crate) fn put_back(path: &Path, was: &str, now: &str, ours: &[&str]) -> Result<()> {
    if read(path)?.as_deref() != Some(now) || others_forward(path, ours)? {
        return Ok(());
    }
    match write(path, was) {
        Err(e) if e.kind() == crate::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn others_forward(path: &Path, ours: &[&str]) -> Result<bool> {
    let conf = Path::new("/proc/sys/net/ipv4/conf");
    let entries = std::fs::read_dir(conf).map_err(|e| Error::io("reading", conf, e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| ours.contains(&name));
        let other = entry.path().join("forwarding");
        if !ours && other != path && read(&other)?.as_deref() == Some("1") {
            return Ok(true);
        }
    }
    Ok(false)
}
