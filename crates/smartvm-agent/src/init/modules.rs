//! The kernel modules that came with the initramfs.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

use super::{cmdline, log};

/// The file that names the modules, one absolute path a line, dependencies first.
const LIST: &str = "/modules/load";

/// Loads all of them, with the parameters that the command line has for them. One that can't
/// be loaded is reported, and the others still are: what depends on it fails with a better
/// message later.
pub(crate) fn load(command_line: &str) {
    let list = match std::fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return log::error(&format!("reading {LIST}: {error}")),
    };
    for path in list.lines().map(str::trim).filter(|path| !path.is_empty()) {
        if let Err(error) = load_one(Path::new(path), command_line)
            && error.raw_os_error() != Some(Errno::EXIST.raw_os_error())
        {
            log::error(&format!("loading module {path}: {error}"));
        }
    }
}

fn load_one(path: &Path, command_line: &str) -> io::Result<()> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let parameters = CString::new(cmdline::module_parameters(command_line, &stem))?;
    let module = File::open(path)?;
    Ok(rustix::system::finit_module(&module, &parameters, 0)?)
}
