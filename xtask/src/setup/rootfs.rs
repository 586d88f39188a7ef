//! The guests' root file system: busybox, and as little around it as possible. It has no init:
//! the agent stays the first process.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::failure::{Failure, Result};
use crate::host::Host;
use crate::program;

/// To be raised with every change of what is in it.
const RECIPE: &str = "1";

/// The static busybox, where Debian's releases have it.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// The directories, and their modes.
const DIRECTORIES: [(&str, u32); 9] = [
    ("bin", 0o755),
    ("etc", 0o755),
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("root", 0o700),
    ("home", 0o755),
    ("home/guest", 0o755),
];

const FILES: [(&str, &str); 2] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/home/guest:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:\nguest:x:1000:\n"),
];

/// The number of the user `guest`, and of the group.
const GUEST: u32 = 1000;

/// Makes it for the busybox at hand.
///
/// # Errors
/// If there is no busybox, or the cache can't be written.
pub(super) fn make(cache: &Cache) -> Result<PathBuf> {
    let busybox = BUSYBOX
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file());
    let busybox = busybox.ok_or_else(|| {
        Failure::new("there is no busybox").hint("Debian has it in the package busybox-static")
    })?;
    let program = fs::read(&busybox).map_err(Failure::io("reading", &busybox))?;
    let sum = program::sha256(&program)?;
    cache.directory(&format!("rootfs-{}", &sum[..16]), RECIPE, |root| {
        for (name, mode) in DIRECTORIES {
            let path = root.join(name);
            fs::create_dir(&path)
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
                .map_err(Failure::io("making", &path))?;
        }
        for (name, content) in FILES {
            let path = root.join(name);
            fs::write(&path, content).map_err(Failure::io("writing", &path))?;
        }
        let home = root.join("home/guest");
        if Host::look().root {
            chown(&home, Some(GUEST), Some(GUEST)).map_err(Failure::io("giving away", &home))?;
        }
        install(&busybox, &program, &root.join("bin"))
    })
}

/// Busybox, and a link for each of its commands.
fn install(busybox: &Path, program: &[u8], bin: &Path) -> Result<()> {
    let to = bin.join("busybox");
    fs::write(&to, program)
        .and_then(|()| fs::set_permissions(&to, Permissions::from_mode(0o755)))
        .map_err(Failure::io("writing", &to))?;
    let list = program::output(std::process::Command::new(busybox).arg("--list"))?;
    for name in list
        .lines()
        .filter(|name| *name != "busybox" && !name.contains('/'))
    {
        let link = bin.join(name);
        symlink("busybox", &link).map_err(Failure::io("making", &link))?;
    }
    Ok(())
}
