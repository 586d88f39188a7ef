//! The image that the demo and the tests run.

use std::path::PathBuf;

use crate::build::Programs;
use crate::failure::{Failure, Result};
use crate::program;
use crate::progress::say;
use crate::setup::Setup;

/// To be raised with every change of how the image is made from what it is made of.
const RECIPE: &str = "2";

/// So many images are kept: each build of the agent has its own.
const KEPT: usize = 4;

/// The image with this build's agent, made where it isn't there yet.
///
/// # Errors
/// If a part of it is missing, or smartvm can't make it.
pub(crate) fn make(setup: &Setup, programs: &Programs) -> Result<PathBuf> {
    setup.tools.clone()?;
    let kernel = setup.guest_kernel.as_ref().map_err(Failure::clone)?;
    let rootfs = setup.rootfs.as_ref().map_err(Failure::clone)?;
    let agent = std::fs::read(&programs.agent).map_err(Failure::io("reading", &programs.agent))?;
    let parts = [
        program::sha256(&agent)?,
        kernel.release.clone(),
        rootfs.display().to_string(),
        RECIPE.to_owned(),
    ];
    let key = program::sha256(parts.join("\n").as_bytes())?;
    let name = format!("image-{}", &key[..16]);
    let path = setup.cache.directory(&name, RECIPE, |part| {
        say(format_args!(
            "making the guest's image with kernel {}",
            kernel.release
        ));
        // Its name is its place in the cache, not the one where it is made.
        program::output(
            std::process::Command::new(&programs.smartvm)
                .args([
                    "image",
                    "build",
                    "--replace",
                    "--id",
                    "smartvm-test",
                    // Every byte of it is verified, in the emulated host at its own pace.
                    "--size",
                    "16MiB",
                    "--kernel",
                ])
                .arg(&kernel.image)
                .arg("--modules")
                .arg(&kernel.modules)
                .arg("--rootfs")
                .arg(rootfs)
                .arg("--agent")
                .arg(&programs.agent)
                .arg("--output")
                .arg(part),
        )
        .map(drop)
    })?;
    setup.cache.touch(&name)?;
    setup.cache.prune("image-", KEPT)?;
    Ok(path)
}
