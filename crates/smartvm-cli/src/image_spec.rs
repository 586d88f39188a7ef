//! The spec of a VM that runs an image.

use smartvm::spec::{MicroVmSpec, SmartVmOptions};
use smartvm::{Error, ErrorKind, Result};

/// The kernel's own words where a spec gives none: Firecracker's default, with a console.
const DEFAULT_BOOT_ARGS: &str = "console=ttyS0 reboot=k panic=1 pci=off";
/// The word by which our initramfs keeps its agent as the guest's init.
const AGENT_AS_INIT: &str = "smartvm.init=agent";

/// A spec for the image with this name, or at this path.
pub(crate) fn from_image(_options: &SmartVmOptions, image: &str) -> Result<MicroVmSpec> {
    Err(Error::new(
        ErrorKind::NotFound,
        format!("there is no image {image}"),
    ))
}

/// Has the guest run a single command under the agent, without the root's own init. An
/// initramfs that isn't ours passes the word on unread.
pub(crate) fn keep_agent_as_init(spec: &mut MicroVmSpec) {
    if spec.boot_source.initrd_path.is_none() {
        return;
    }
    let args = spec
        .boot_source
        .boot_args
        .get_or_insert_with(|| DEFAULT_BOOT_ARGS.into());
    if !args
        .split_whitespace()
        .any(|word| word.starts_with("smartvm.init="))
    {
        args.push(' ');
        args.push_str(AGENT_AS_INIT);
    }
}
