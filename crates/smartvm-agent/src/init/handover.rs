//! The root's own init: whether there is one, and handing process 1 over to it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cmdline::Cmdline;
use super::{Failure, Service, log};

/// Where a root's init is looked for: as the kernel does, but a shell is no init.
const PLACES: [&str; 3] = ["/sbin/init", "/etc/init", "/bin/init"];

/// The root's own init, if it has one and is to run it.
pub(crate) fn find_init(cmdline: &Cmdline) -> Result<Option<PathBuf>, Failure> {
    if cmdline.agent_is_init || cmdline.root.is_none() {
        return Ok(None);
    }
    match &cmdline.init {
        Some(init) if is_program(init) => Ok(Some(init.clone())),
        Some(init) => Err(Failure::new(
            format!("starting init={}", init.display()),
            "the root has no such program",
        )),
        None => Ok(PLACES
            .into_iter()
            .map(PathBuf::from)
            .find(|path| is_program(path))),
    }
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Starts the service, then becomes `init`, which gets the kernel's words for it.
pub(crate) fn hand_over(init: &Path, service: &Service) -> Result<Infallible, Failure> {
    if let Err(error) = service.start() {
        // The guest is still of use without us.
        log::error(&format!("starting the service: {error}"));
    }
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = Command::new(init).args(words).exec();
    Err(Failure::new(format!("starting {}", init.display()), error))
}
