//! `cargo xtask demo`: the main job, `uname -a` in a microVM.

use std::process::{Command, Stdio};

use crate::build;
use crate::failure::{Failure, Result};
use crate::host::{Host, say_emulated};
use crate::image;
use crate::progress::{result, say};
use crate::setup::{Purpose, Setup};

/// For the emulated host and the guest in it, in seconds: ten times what it usually takes.
const PATIENCE: &str = "300";

/// Builds smartvm and shows what it is for.
///
/// # Errors
/// Whatever keeps the guest's line from being printed.
pub(crate) fn run() -> Result<()> {
    let setup = Setup::prepare(Purpose::Demo)?;
    let firecracker = setup.firecracker.as_ref().map_err(Failure::clone)?;
    let why_emulated = Host::look().why_no_linux();
    // Told before minutes go into building.
    setup.guest_kernel.as_ref().map_err(Failure::clone)?;
    setup.rootfs.as_ref().map_err(Failure::clone)?;
    let emulated_host = match why_emulated {
        Some(_) => Some(setup.emulated_host.as_ref().map_err(Failure::clone)?),
        None => None,
    };
    say("building smartvm (release)");
    let built = build::build(&["--release", "-p", "smartvm-cli", "-p", "smartvm-agent"])?;
    let programs = built.programs()?;
    let image = image::make(&setup, &programs)?;

    let data = setup.cache.path(format!("demo-{}", std::process::id()));
    let mut command = Command::new(&programs.smartvm);
    if let (Some(why), Some(kernel)) = (why_emulated, emulated_host) {
        say_emulated(why);
        command.env("SMARTVM_EMULATE_KERNEL", kernel);
        command
            .args(["emulate", "--timeout", PATIENCE, "--"])
            .arg(&programs.smartvm);
    }
    say("smartvm run --image IMAGE -- uname -a");
    let output = command
        .args(["run", "--timeout", PATIENCE, "--image"])
        .arg(&image)
        .args(["--", "uname", "-a"])
        .env("SMARTVM_FIRECRACKER", &firecracker.firecracker)
        // Nothing of this machine's own set-up takes part, and nothing of the demo's stays.
        .env("SMARTVM_DATA_DIR", data.join("data"))
        .env("SMARTVM_RUNTIME_DIR", data.join("run"))
        .env_remove("SMARTVM_CONFIG")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    if data.exists() {
        std::fs::remove_dir_all(&data).map_err(Failure::io("removing", &data))?;
    }
    let output = output.map_err(Failure::io("running", &programs.smartvm))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "the guest's command failed: {}",
            output.status
        )));
    }
    say("the guest says:");
    result(String::from_utf8_lossy(&output.stdout).trim_end());
    Ok(())
}
