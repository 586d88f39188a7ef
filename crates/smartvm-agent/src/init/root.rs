//! The root file system, mounted at [`NEW_ROOT`].

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::cmdline::{Overlay, Root};
use super::{Failure, device, mounts};

/// Where the root is put together before the switch.
pub(crate) const NEW_ROOT: &str = "/newroot";

/// How long the root's device may take to appear, without and with `rootwait`.
const PATIENCE: Duration = Duration::from_secs(10);
const LONG_PATIENCE: Duration = Duration::from_secs(60);

const NAP: Duration = Duration::from_millis(5);

/// Mounts the root, with a writable overlay where that was asked for.
pub(crate) fn mount(root: &Root) -> Result<(), Failure> {
    let deadline = Instant::now() + if root.wait { LONG_PATIENCE } else { PATIENCE };
    match &root.overlay {
        Some(overlay) => mount_under_overlay(root, overlay, deadline),
        None => mount_at(root, NEW_ROOT, root.writable, deadline),
    }
}

fn mount_under_overlay(root: &Root, overlay: &Overlay, deadline: Instant) -> Result<(), Failure> {
    const STAGE: &str = "/tmp";
    const LOWER: &str = "/tmp/lower";
    const SCRATCH: &str = "/tmp/scratch";
    let failed = |error: Errno| Failure::new("mounting the root's overlay", error);
    let none = MountFlags::empty();
    rustix::mount::mount("overlay", STAGE, "tmpfs", none, c"mode=0755").map_err(failed)?;
    for directory in [LOWER, SCRATCH] {
        make(directory)?;
    }
    if let Overlay::Device(device) = overlay {
        let scratch = Root {
            source: device.clone(),
            fstype: None,
            flags: String::new(),
            writable: true,
            wait: root.wait,
            overlay: None,
        };
        mount_at(&scratch, SCRATCH, true, deadline)?;
    }
    // A drive may have them from before.
    for directory in ["/tmp/scratch/upper", "/tmp/scratch/work"] {
        make(directory)?;
    }
    mount_at(root, LOWER, false, deadline)?;
    let layers = c"lowerdir=/tmp/lower,upperdir=/tmp/scratch/upper,workdir=/tmp/scratch/work";
    rustix::mount::mount("overlay", NEW_ROOT, "overlay", none, layers).map_err(failed)?;
    // The overlay holds its layers; nobody needs to see them.
    if matches!(overlay, Overlay::Device(_)) {
        rustix::mount::unmount(SCRATCH, UnmountFlags::DETACH).map_err(failed)?;
    }
    for layer in [LOWER, STAGE] {
        rustix::mount::unmount(layer, UnmountFlags::DETACH).map_err(failed)?;
    }
    Ok(())
}

fn make(directory: &str) -> Result<(), Failure> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("making {directory}"), error))
        }
        _ => Ok(()),
    }
}

fn mount_at(root: &Root, target: &str, writable: bool, deadline: Instant) -> Result<(), Failure> {
    let what = || format!("mounting the root {}", root.source);
    let options: Vec<&str> = root.flags.split(',').filter(|o| !o.is_empty()).collect();
    let (mut flags, data) = mounts::split_options(&options);
    flags.set(MountFlags::RDONLY, !writable);
    if !device::is_device(&root.source) {
        // A tag or an address: 9p, virtiofs and the like.
        let fstype = root.fstype.as_deref().ok_or_else(|| {
            Failure::new(
                what(),
                "it isn't a device, so rootfstype= has to say what it is",
            )
        })?;
        loop {
            match mounts::mount(&root.source, target, fstype, flags, &data) {
                // Its channel isn't there yet.
                Err(Errno::NOENT) if Instant::now() < deadline => thread::sleep(NAP),
                result => {
                    return result
                        .map_err(|error| Failure::new(format!("{} as {fstype}", what()), error));
                }
            }
        }
    }
    let device = device::wait(&root.source, deadline)
        .ok_or_else(|| Failure::new(what(), no_such_device()))?;
    let mut failures = Vec::new();
    for fstype in candidates(root.fstype.as_deref()) {
        match mount_device(&device, target, &fstype, flags, &data) {
            Ok(()) => return Ok(()),
            Err(error) => failures.push(format!("as {fstype}: {error}")),
        }
    }
    Err(Failure::new(what(), failures.join("; ")))
}

/// As the kernel does, falls back to read-only where the device can't be written to.
fn mount_device(
    device: &Path,
    target: &str,
    fstype: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), Errno> {
    let device = device.to_string_lossy();
    match mounts::mount(&device, target, fstype, flags, data) {
        Err(Errno::ACCESS | Errno::ROFS) if !flags.contains(MountFlags::RDONLY) => {
            mounts::mount(&device, target, fstype, flags | MountFlags::RDONLY, data)
        }
        result => result,
    }
}

/// The file systems to try: the one that was named (there may be several, as for the kernel),
/// else all that this kernel has for devices, the usual ones first.
fn candidates(named: Option<&str>) -> Vec<String> {
    if let Some(named) = named {
        return named.split(',').map(str::to_owned).collect();
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let mut candidates = vec!["ext4".to_owned(), "squashfs".to_owned()];
    for line in known.lines() {
        if let Some(fstype) = line.strip_prefix('\t')
            && !candidates.iter().any(|known| known == fstype)
        {
            candidates.push(fstype.to_owned());
        }
    }
    candidates
}

fn no_such_device() -> String {
    format!(
        "no such device appeared; there are: {}",
        device::names().join(" ")
    )
}
