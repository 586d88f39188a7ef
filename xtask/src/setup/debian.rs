//! Debian's packages, through its own tools.

use std::path::Path;
use std::process::Command;

use crate::failure::{Failure, Result};
use crate::host::Host;
use crate::program;
use crate::progress::say;

/// Whether this machine has Debian's package tools.
pub(crate) fn is_here() -> bool {
    ["apt-get", "apt-cache", "dpkg", "dpkg-query"]
        .into_iter()
        .all(|name| program::find(name).is_some())
}

/// Whether this package is installed.
///
/// # Errors
/// If dpkg-query can't be run.
pub(crate) fn is_installed(package: &str) -> Result<bool> {
    // It fails for a package that it has never heard of.
    let status = program::command("dpkg-query")?
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .map_err(|cause| Failure::new(format!("running dpkg-query: {cause}")))?;
    Ok(status.stdout == b"installed")
}

/// Installs these packages, without those that they only recommend.
///
/// # Errors
/// If this process isn't root's, or apt-get fails.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !Host::look().root {
        return Err(
            Failure::new(format!("these Debian packages are missing: {list}")).hint(format!(
                "as root: apt-get install --no-install-recommends {list}"
            )),
        );
    }
    say(format_args!("installing Debian packages: {list}"));
    with_current_lists(|| {
        let mut apt = apt_get("install")?;
        program::output(
            apt.args(["--yes", "--no-install-recommends"])
                .args(packages),
        )
        .map(drop)
    })
}

/// Downloads the kernel that the metapackage stands for and unpacks it here, without
/// installing it.
///
/// # Errors
/// If apt-get can't find or download it, or dpkg can't unpack it.
pub(crate) fn unpack_kernel(metapackage: &str, into: &Path) -> Result<()> {
    unpack_all(into, || kernel_packages(metapackage))
}

/// Downloads a package and unpacks it here, without installing it, its services or what it
/// needs.
///
/// # Errors
/// If apt-get can't find or download it, or dpkg can't unpack it.
pub(crate) fn unpack(package: &str, into: &Path) -> Result<()> {
    unpack_all(into, || Ok(vec![package.to_owned()]))
}

fn unpack_all(into: &Path, packages: impl Fn() -> Result<Vec<String>>) -> Result<()> {
    let downloads = into.join("download");
    std::fs::create_dir(&downloads).map_err(Failure::io("making", &downloads))?;
    with_current_lists(|| {
        let packages = packages()?;
        say(format_args!(
            "downloading {} (not installed)",
            packages.join(" ")
        ));
        let mut apt = apt_get("download")?;
        // As root it would download as another user, who can't write here.
        apt.args(["--option", "APT::Sandbox::User=root"]);
        program::output(apt.args(packages).current_dir(&downloads)).map(drop)
    })?;
    for entry in std::fs::read_dir(&downloads).map_err(Failure::io("reading", &downloads))? {
        let package = entry.map_err(Failure::io("reading", &downloads))?.path();
        program::output(
            program::command("dpkg")?
                .arg("--extract")
                .arg(package)
                .arg(into),
        )?;
    }
    std::fs::remove_dir_all(&downloads).map_err(Failure::io("removing", &downloads))
}

/// Does it once more with current package lists where it fails: they may be old, or not be
/// there at all.
fn with_current_lists(task: impl Fn() -> Result<()>) -> Result<()> {
    let Err(first) = task() else { return Ok(()) };
    if !Host::look().root {
        return Err(first.hint("the package lists may be old: as root, apt-get update"));
    }
    say("updating the package lists");
    program::output(&mut apt_get("update")?)?;
    task()
}

fn apt_get(verb: &str) -> Result<Command> {
    let mut command = program::command("apt-get")?;
    command
        .args(["--quiet", "--option", "DPkg::Lock::Timeout=300", verb])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    Ok(command)
}

/// The packages with a kernel and its modules that a metapackage stands for.
fn kernel_packages(metapackage: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![metapackage.to_owned()];
    while let Some(package) = open.pop() {
        let mut apt = program::command("apt-cache")?;
        let text = program::output(apt.args(["depends", &package]).env("LC_ALL", "C"))?;
        for name in dependencies(&text).filter(|name| has_kernel(name)) {
            if !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
                open.push(name.to_owned());
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::new(format!(
            "the package {metapackage} names no kernel"
        )));
    }
    Ok(found)
}

/// Later releases of Debian split a kernel into several packages.
fn has_kernel(package: &str) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-"]
        .iter()
        .any(|prefix| package.starts_with(prefix))
}

/// What a package needs, as `apt-cache depends` prints it; of alternatives, the first.
fn dependencies(text: &str) -> impl Iterator<Item = &str> {
    let mut chosen = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        // A bar means that the next line is an alternative to this one.
        let (more, line) = match line.strip_prefix('|') {
            Some(line) => (true, line),
            None => (false, line),
        };
        let name = line
            .strip_prefix("Depends: ")
            .or_else(|| line.strip_prefix("PreDepends: "))?;
        let skip = std::mem::replace(&mut chosen, more);
        (!skip && !name.starts_with('<')).then_some(name.trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_alternatives_the_first_is_taken_and_virtual_packages_are_not() {
        let text = "\
linux-image-6.1.0-56-amd64
  PreDepends: linux-early-1
  Depends: kmod
  Depends: linux-base
 |Depends: initramfs-tools
 |Depends: <linux-other>
  Depends: <linux-initramfs-tool>
    dracut
    initramfs-tools
  Depends: linux-modules-6.1.0-56-amd64
  Recommends: firmware-linux-free
  Breaks: initramfs-tools
";
        let expected = [
            "linux-early-1",
            "kmod",
            "linux-base",
            "initramfs-tools",
            "linux-modules-6.1.0-56-amd64",
        ];
        assert_eq!(dependencies(text).collect::<Vec<_>>(), expected);
        assert_eq!(dependencies("").count(), 0);
    }

    #[test]
    fn only_packages_with_a_kernel_are_unpacked() {
        assert!(has_kernel("linux-image-6.1.0-56-cloud-amd64"));
        assert!(has_kernel("linux-modules-7.0-amd64"));
        assert!(!has_kernel("linux-base"));
    }
}
