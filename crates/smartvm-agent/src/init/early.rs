//! What process 1 needs before anything else: the kernel's own file systems.

use std::ffi::CStr;

use rustix::mount::{MountFlags, mount};

use super::log;

/// Mounts /proc, /sys and /dev in the initramfs.
pub(crate) fn mount_kernel_file_systems() {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let table: [(&str, &str, MountFlags, Option<&CStr>); 3] = [
        ("/dev", "devtmpfs", MountFlags::NOSUID, Some(c"mode=0755")),
        ("/proc", "proc", quiet, None),
        ("/sys", "sysfs", quiet, None),
    ];
    for (target, fstype, flags, data) in table {
        // The kernel may have mounted /dev already (CONFIG_DEVTMPFS_MOUNT).
        match mount(fstype, target, fstype, flags, data) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => log::error(&format!("mounting {target}: {error}")),
        }
    }
}
