//! The name servers from `ip=`, put where the guest's programs look for them.

use std::fmt::Write;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::{log, mounts};

const RESOLV: &str = "/etc/resolv.conf";
const OURS: &str = "/run/smartvm/resolv.conf";

/// Makes the guest ask these servers.
pub(crate) fn set_up(servers: &[Ipv4Addr]) {
    if servers.is_empty() {
        return;
    }
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let result = write_through(Path::new(RESOLV), &text).or_else(|_| cover(&text));
    if let Err(error) = result {
        log::error(&format!("setting the name servers: {error}"));
    }
}

/// Writes the file, or what it is a link to: often a file under /run that its owner has not
/// made yet.
fn write_through(path: &Path, text: &str) -> io::Result<()> {
    if let Ok(target) = std::fs::read_link(path) {
        let target: PathBuf = path.parent().unwrap_or(Path::new("/")).join(target);
        if let Some(directory) = target.parent() {
            mounts::make_directory(directory)?;
        }
    } else if let Some(directory) = path.parent() {
        mounts::make_directory(directory)?;
    }
    std::fs::write(path, text)
}

/// Where the root is read-only: mounts our own file over the one that is there.
fn cover(text: &str) -> io::Result<()> {
    if let Some(directory) = Path::new(OURS).parent() {
        mounts::make_directory(directory)?;
    }
    std::fs::write(OURS, text)?;
    Ok(rustix::mount::mount_bind(OURS, RESOLV)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dangling_link_is_written_through() {
        let root = tempfile::tempdir().expect("a directory");
        let link = root.path().join("resolv.conf");
        std::os::unix::fs::symlink("run/resolve/stub", &link).expect("a link");
        write_through(&link, "nameserver 1.1.1.1\n").expect("written");
        let written = std::fs::read_to_string(root.path().join("run/resolve/stub"));
        assert_eq!(written.expect("the target"), "nameserver 1.1.1.1\n");
    }
}
