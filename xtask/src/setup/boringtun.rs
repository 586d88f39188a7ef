//! WireGuard in a program, of another make than Debian's: no distribution packs it.

use std::path::PathBuf;

use crate::build::cargo;
use crate::cache::Cache;
use crate::failure::{Failure, Result};
use crate::program;
use crate::progress::say;

const CRATE: &str = "boringtun-cli";
/// Also the recipe by which it is made.
const VERSION: &str = "0.7.1";

/// Builds it; its program is `bin/boringtun-cli` in there.
///
/// # Errors
/// If it can't be downloaded or built.
pub(super) fn build(cache: &Cache) -> Result<PathBuf> {
    cache.directory("boringtun", VERSION, |part| {
        say(format_args!("building {CRATE} {VERSION}"));
        let scratch = part.join("build");
        let mut install = cargo();
        install
            .args(["install", "--quiet", "--locked", "--no-track", "--force"])
            .args(["--version", VERSION, CRATE])
            .arg("--root")
            .arg(part)
            .arg("--target-dir")
            .arg(&scratch);
        program::output(&mut install)?;
        std::fs::remove_dir_all(&scratch).map_err(Failure::io("removing", &scratch))
    })
}
